"""The record at scale: recording, questions, verification, memory, migration. `python -m benchmarks.db`.

Every figure is a ratio of two times, measured side by side in one run: recording and a bare insert of the
same rows, a question and a look-up by primary key, verification and bare SHA-256 over the same bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from benchmarks import ingestion, line, postgres
from db.chain import events as chain
from db.columns import flat_json
from db.engine import MIGRATIONS, VERSION_TABLE, Database, open_database
from db.inspection.batches import record_batch
from db.inspection.runs import finish_run
from db.queries.events import EventFilter, find_events
from db.queries.findings import FindingFilter, find_findings
from db.queries.part_history import part_history
from db.queries.recall import TraceFilter, trace_parts, trace_summary
from db.queries.runs import run_images, run_summary
from db.schema import Base, Finding, Image, Part, Run, RunImage
from db.transparency.checkpoints import CheckpointFolder, sign_checkpoint
from db.transparency.signed_notes import generate_key
from db.verification.log_walk import LogWalk
from db.verification.walk import Verification, verify
from db.verification.witness import Witness

A_RUN = 10_000
SERVER = ("shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min")
BIG = 1_000  # rows from which on a table is not to be read from one end to the other


def build(db: Database, images: int) -> None:
    """Record runs of 10,000 pictures, then what people and replays add to them."""
    db.migrate()
    models = [line.register(db, name) for name in ("tiles", "tiles-2")]
    for first in range(0, images, A_RUN):
        last = min(first + A_RUN, images)
        run = line.start(db, models[2 * first // images])
        for batch in line.batches(first, last):
            record_batch(db, run, batch, actor=line.INSPECTOR)
        finish_run(db, run, actor=line.INSPECTOR, listed=last - first)
        line.later(db, run, line.engineer(db), (last - first) // 100, (last - first) * 19 // 100 - 2)


# Questions


class Arguments:
    """Random arguments for questions, taken from what is in the database."""

    def __init__(self, session: Session, seed: int = 1) -> None:
        self.chance = random.Random(seed)  # noqa: S311
        numbers = (
            session.scalar(select(RunImage.event_sequence).order_by(RunImage.event_sequence.desc())) or 1
        )
        picks = sorted({self.chance.randrange(1, numbers) for _ in range(400)})
        rows = session.execute(
            select(RunImage.event_sequence, Part.serial, Part.lot, Image.digest, RunImage.run_id)
            .join(Part, Part.id == RunImage.part_id)
            .join(Image, Image.id == RunImage.image_id)
            .where(RunImage.event_sequence.in_(picks))
        ).all()
        self.rows = list(rows)
        self.runs = list(session.execute(select(Run.id, Run.number, Run.started_at)).all())
        self.last = numbers

    def row(self) -> Any:
        return self.chance.choice(self.rows)

    def time(self) -> Any:
        return self.chance.choice(self.runs).started_at


def questions(at: Arguments) -> dict[str, Callable[[Session], Any]]:
    """Return name -> question; each call asks with new random arguments."""

    def events(**given: Callable[[], Any]) -> Callable[[Session], Any]:
        return lambda s: find_events(
            s, EventFilter(**{name: value() for name, value in given.items()}), limit=50
        )

    def findings(**given: Callable[[], Any]) -> Callable[[Session], Any]:
        return lambda s: find_findings(
            s, FindingFilter(**{name: value() for name, value in given.items()}), limit=50
        )

    given: dict[str, Callable[[], Any]] = {
        "part": lambda: at.row().serial,
        "lot": lambda: at.row().lot,
        "station": lambda: f"cam-{at.chance.randrange(1, 5)}",
        "class_name": lambda: at.chance.choice(line.CLASSES[1:]),
        "model": lambda: at.chance.choice(["tiles", "tiles-2"]),
        "run": lambda: at.chance.choice(at.runs).number,
        "since": at.time,
        "until": at.time,
    }
    further: dict[str, Callable[[], Any]] = {
        "image": lambda: at.row().digest,
        "verdict": lambda: at.chance.choice(["review", "reject", "unreadable"]),
        "person": lambda: f"engineer-{at.chance.randrange(5)}",
        "reason": lambda: f"desk {at.chance.randrange(17)}",
        "min_score": lambda: at.chance.random(),
    }
    of_events = set(EventFilter.__dataclass_fields__)
    of_findings = set(FindingFilter.__dataclass_fields__)
    asked: dict[str, Callable[[Session], Any]] = {
        "events": events(),
        "events, before": lambda s: find_events(
            s, EventFilter(), limit=50, before=at.chance.randrange(1, at.last)
        ),
        "events actor": events(actor=lambda: "inspector"),
        "events action": events(action=lambda: at.chance.choice(["disposition.made", "image.unreadable"])),
        "findings": findings(),
        "run summary": lambda s: run_summary(s, at.chance.choice(at.runs).id),
    }
    for name, value in (given | further).items():
        if name in of_events:
            asked[f"events {name}"] = events(**{name: value})
        if name in of_findings:
            asked[f"findings {name}"] = findings(**{name: value})
    for pair in (("lot", "class_name"), ("station", "class_name"), ("model", "since"), ("part", "station")):
        both = {name: given[name] for name in pair}
        asked[f"events {' and '.join(pair)}"] = events(**both)
        asked[f"findings {' and '.join(pair)}"] = findings(**both)
    touched = TraceFilter(model="tiles-2")
    asked["part history"] = lambda s: part_history(s, at.row().serial)
    asked["trace, a page"] = lambda s: trace_parts(s, touched, limit=50)
    asked["trace of a lot"] = lambda s: trace_parts(
        s, TraceFilter(model=at.chance.choice(["tiles", "tiles-2"]), lot=at.row().lot), limit=50
    )
    asked["trace summary"] = lambda s: trace_summary(s, touched)
    asked["run images, 50"] = lambda s: list(islice(run_images(s, at.chance.choice(at.runs).id), 50))
    return asked


def ask(db: Database, repeats: int) -> Iterator[tuple[str, float, float, float, str]]:
    """Yield of each question name, p50, p95 (ms), p50 over that of a key look-up, big tables read whole."""
    with db.session() as session:
        sizes = {
            name: session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in Base.metadata.tables.items()
        }
        at = Arguments(session)
        finding = list(session.scalars(select(Finding.id).limit(500)))
        seen: dict[str, Any] = {}

        def key(inner: Session) -> None:
            inner.execute(select(Finding).where(Finding.id == at.chance.choice(finding))).one()

        def timed(question: Callable[[Session], Any], times: int) -> list[float]:
            spent = []
            for _ in range(times):
                session.expunge_all()
                started = time.perf_counter()
                question(session)
                spent.append(1e3 * (time.perf_counter() - started))
            return sorted(spent)

        def note(_c: Any, _cur: Any, statement: str, given: Any, _ctx: Any, _many: Any) -> None:
            seen.setdefault(statement, given)

        for name, question in questions(at).items():
            seen.clear()
            with _listening(session.connection(), "before_cursor_execute", note):
                question(session)
                question(session)
            whole = sorted(
                {t for s, given in seen.items() for t in _tables_read_whole(session, s, given, sizes)}
            )
            timed(question, 3)
            spent, base = timed(question, repeats), timed(key, 200)
            p95 = spent[int(0.95 * (len(spent) - 1))]
            middle = statistics.median(spent)
            yield name, middle, p95, middle / statistics.median(base), ", ".join(whole)


def _tables_read_whole(session: Session, statement: str, given: Any, sizes: dict[str, int]) -> Iterator[str]:
    """Yield the big tables that the plan of a statement reads from one end to the other."""
    driver: Any = session.connection().connection.driver_connection
    sqlite = session.get_bind().dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN " if sqlite else "EXPLAIN "
    steps = [str(row[-1]) for row in driver.execute(explain + statement, given).fetchall()]
    # A scan in the order that is asked for ends with the page: it does not read the whole table.
    page = sqlite and "LIMIT" in statement and not any("TEMP B-TREE FOR ORDER" in step for step in steps)
    for step in steps:
        if sqlite and step.startswith("SCAN ") and "USING" not in step and "VIRTUAL" not in step and not page:
            table = step.split()[1]
        elif not sqlite and "Seq Scan on " in step:
            table = step.split("Seq Scan on ")[1].split()[0]
        else:
            continue
        if sizes.get(table, 0) > BIG:
            yield table


@contextmanager
def _listening(target: Any, name: str, listener: Callable[..., None]) -> Iterator[None]:
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


# Verification


def bare_hashing(db: Database) -> tuple[float, int]:
    """Return seconds and bytes of SHA-256 over the events and rows that verification hashes, one by one.

    They are in memory before the time is taken.
    """
    spent, size, kept = 0.0, 0, []

    def keep(value: Any) -> bytes:
        kept.append(flat_json(value))
        return kept[-1]

    chain.flat_json = keep  # type: ignore[attr-defined]
    try:
        with db.session() as session:
            walk = LogWalk(session)
            while walk.window():
                started = time.perf_counter()
                for data in kept:
                    sha256(data).hexdigest()
                spent += time.perf_counter() - started
                size += sum(map(len, kept))
                kept.clear()
    finally:
        chain.flat_json = flat_json  # type: ignore[attr-defined]
    return spent, size


def verified(db: Database, **options: Any) -> tuple[float, Verification]:
    """Return the seconds that a verification takes, and its result."""
    started = time.perf_counter()
    found = verify(db, **options)
    return time.perf_counter() - started, found


def peak_mib(url: str) -> float:
    """Return the peak memory of a new process that opens the database and verifies it."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.db", "--peak", url], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


# Migration


def back(db: Database) -> str:
    """Undo the newest migration that a database has, and return the name of the schema before it."""
    with db.session() as session:
        version = session.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    newest: Any = ScriptDirectory(str(MIGRATIONS)).get_revision(str(version))
    module: Any = newest.module
    before = str(newest.down_revision)
    # A downgrade refuses where there is a history, which it asks for by SQL; this one is a benchmark's own.
    module.sa = SimpleNamespace(**{**vars(sa), "text": lambda _: sa.text("SELECT 0")})
    with db.exclusive(migrating=True) as connection:
        if db.sqlite:
            triggers = sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for name in connection.scalars(triggers).all():
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        with Operations.context(MigrationContext.configure(connection)):
            module.downgrade()
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '{before}'")  # noqa: S608
    return before


def migration(db: Database) -> list[tuple[float, str]]:
    """Migrate to the newest schema; return the statements that took more than 10 ms, the longest first."""
    spent: list[tuple[float, str]] = []
    begun: list[float] = []

    def before(*_: Any) -> None:
        begun.append(time.perf_counter())

    def after(_c: Any, _cur: Any, statement: str, *_: Any) -> None:
        spent.append((time.perf_counter() - begun.pop(), " ".join(statement.split())))

    with (
        _listening(db.engine, "before_cursor_execute", before),
        _listening(db.engine, "after_cursor_execute", after),
        db.exclusive(migrating=True) as connection,
    ):
        command.upgrade(db.alembic(connection), "head")
    return sorted((entry for entry in spent if entry[0] > 0.01), reverse=True)


# All of it


def table(*rows: tuple[Any, ...]) -> None:
    """Print rows as a Markdown table, the first of them as its head."""
    for number, row in enumerate(rows):
        cells = [f"{cell:,.2f}" if isinstance(cell, float) else str(cell) for cell in row]
        print("| " + " | ".join(cells) + " |", flush=True)
        if not number:
            print("|" + " --- |" * len(row), flush=True)
    print(flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--backend", choices=("sqlite", "postgresql"), default="sqlite")
    options.add_argument("--images", type=int, default=1_000_000)
    options.add_argument("--keep", type=Path, help="a folder that keeps the SQLite file for next time")
    options.add_argument("--repeats", type=int, default=100, help="how often each question is asked")
    parts = ("ingestion", "questions", "verification", "memory", "migration")
    options.add_argument("--only", nargs="+", choices=parts, default=parts)
    options.add_argument("--peak", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.peak:
        with open_database(chosen.peak) as db:
            assert verify(db).ok
        # Not ru_maxrss, which begins with the memory of the process that this one was forked from.
        status = Path("/proc/self/status").read_text()
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return
    print(f"{chosen.backend}, {chosen.images:,} images, {os.cpu_count()} cores, {platform.machine()}\n")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="kensa-bench-", dir=chosen.keep))
        stack.callback(shutil.rmtree, folder)
        folder.chmod(0o755)
        if chosen.backend == "postgresql":
            address = stack.enter_context(postgres.server(SERVER, parent=folder))
            new: Callable[[str], str] = lambda _name: postgres.new_database(address)  # noqa: E731
        else:
            new = lambda name: f"sqlite:///{folder}/{name}.db"  # noqa: E731

        def opened(url: str) -> Database:
            return stack.enter_context(open_database(url))

        small = opened(new("small"))
        small.migrate()
        if "ingestion" in chosen.only:
            bare, run = ingestion.Bare(opened(new("bare"))), line.start(small, line.register(small))
            found = ingestion.measure(small, bare, run, 0, 20_480)
            ours, without = (found.images / sum(spent) for spent in (found.audited, found.bare))
            table(("recording", "images/s", "bare images/s", "ratio"), ("", ours, without, found.ratio))
        else:
            build(small, 20_000)
        if set(chosen.only) == {"ingestion"}:
            return
        kept = chosen.keep / "kensa.db" if chosen.keep and chosen.backend == "sqlite" else None
        db = opened(f"sqlite:///{kept}" if kept else new("big"))
        if not (kept and kept.exists()):
            started = time.perf_counter()
            build(db, chosen.images)
            print(f"built in {time.perf_counter() - started:,.0f} s\n")
        if chosen.backend == "postgresql":
            with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
        if "verification" in chosen.only:
            verification(db, folder)
        if "questions" in chosen.only:
            head = ("question", "p50 ms", "p95 ms", "p50 x a key look-up", "big tables read whole")
            table(head, *ask(db, chosen.repeats))
        if "memory" in chosen.only:
            sizes = [peak_mib(d.url.render_as_string(hide_password=False)) for d in (small, db)]
            table(("peak MiB of verify", "20,000 images", f"{chosen.images:,} images"), ("", *sizes))
        if "migration" in chosen.only:
            if kept:
                copy = folder / "old.db"
                db.close()
                shutil.copy(kept, copy)
                db = opened(f"sqlite:///{copy}")
            before = back(db)
            started = time.perf_counter()
            steps = migration(db)
            whole = time.perf_counter() - started
            table(
                (f"from {before}: statement", "s"),
                ("all of it", whole),
                *((s[:100], t) for t, s in steps[:15]),
            )


def verification(db: Database, folder: Path) -> None:
    """Print how long verification takes: of all, in several processes, and since a checkpoint."""
    key, notes = generate_key("benchmark"), CheckpointFolder(folder / "checkpoints")
    bare, size = bare_hashing(db)
    spent, found = verified(db)
    assert found.ok, found.problems
    cores = os.cpu_count() or 1
    together, again = verified(db, jobs=cores)
    assert again == found
    started = time.perf_counter()
    sign_checkpoint(db, notes, key, actor=line.INSPECTOR)
    signing = time.perf_counter() - started
    run = line.start(db, line.register(db, "tiles-3"), line.SETTINGS | {"again": time.time_ns() % 10**9})
    first = 10**9 + time.time_ns() % 10**9
    for batch in line.batches(first, first + 1_024):
        record_batch(db, run, batch, actor=line.INSPECTOR)
    witness = Witness(notes, [key.verifier])
    after, newer = verified(db, witness=witness, incremental=True)
    assert newer.ok, newer.problems
    table(
        ("verification", "events", "events/s", "s"),
        ("whole log", found.events, found.events / spent, spent),
        (f"bare SHA-256 of {size / 2**20:,.0f} MiB", found.events, found.events / bare, bare),
        ("ratio", "", "", spent / bare),
        (f"whole log, {cores} processes", found.events, found.events / together, together),
        ("ratio", "", "", together / bare),
        ("incremental, 1,024 pictures later", newer.events, newer.events / after, after),
        ("first checkpoint", "", "", signing),
    )


if __name__ == "__main__":
    main()
