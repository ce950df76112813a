"""SQLite beside PostgreSQL, and a small plant that records runs."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from benchmarks import postgres
from db import guards
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.chain.events import head as audit_head
from db.columns import digest_of, utc_now
from db.dispositions.decide import dispose as record_dispose
from db.dispositions.history import DispositionRecord
from db.dispositions.signatures import sign, sign_approval, sign_disposition, signed_finding
from db.engine import Database, open_database
from db.inspection.batches import record_batch
from db.inspection.outcomes import (
    BatchResult,
    ExplainedTile,
    ExplanationOutcome,
    FindingOutcome,
    ImageOutcome,
    LayerMasks,
)
from db.inspection.runs import (
    ModelRecord,
    RunHandle,
    artifact_row,
    finish_run,
    register_model,
    start_or_resume_run,
)
from db.issued.reports import ReportRecord, ReportSubject, next_report, record_report
from db.issued.sign_offs import signed_content
from db.people.people import Authenticated
from db.schema import (
    Approval,
    ArtifactRetention,
    AuditEvent,
    Base,
    Checkpoint,
    Disposition,
    DomainRow,
    Finding,
    Person,
    PersonRevision,
    Prediction,
    Replay,
    Report,
    ReportSignature,
)
from db.transparency.checkpoints import CheckpointFolder, CheckpointRecord, event_leaves, sign_checkpoint
from db.transparency.merkle import Frontier
from db.transparency.signed_notes import CheckpointNote, generate_key
from db.verification.walk import Verification
from db.verification.walk import verify as record_verify
from db.verification.witness import Witness

ACTOR = Actor("inspector")
KEY = generate_key("plant-1/kensa")
SETTINGS = {"source": "line-1", "batch": 8}
# Every table without its rows, its guards on again, in one round trip.
EMPTY = "".join(
    f"ALTER TABLE {table} DISABLE TRIGGER ALL; {table.delete()}; ALTER TABLE {table} ENABLE TRIGGER ALL; "
    + "".join(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER guard_{table}_{on}; " for on in ("row", "truncate"))
    for table in reversed(Base.metadata.sorted_tables)
)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "kensa.db"
    with open_database(f"sqlite:///{path}") as database:
        database.migrate()
    return path


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> str:
    url = postgres.new_database(postgres_server)
    with open_database(url) as database:
        database.migrate()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place where no schema is yet."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'empty' / 'kensa.db'}"
    return postgres.new_database(request.getfixturevalue("postgres_server"))


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the schema and nothing in it."""
    if backend == "sqlite":
        path = tmp_path / "kensa.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    shared: str = request.getfixturevalue("postgres_database")
    with open_database(shared) as database, database.exclusive() as connection:  # far faster than a new one
        guards.install(connection)  # an attack may have taken some off
        connection.exec_driver_sql(EMPTY)
    return shared


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with open_database(url, software_version="test 1") as opened:
        yield opened


@dataclass
class Plant:
    """A line with one model; everything it makes is determined by the numbers it is given."""

    db: Database
    store: ArtifactStore
    model: ModelRecord
    notes: CheckpointFolder
    actor: Actor = ACTOR
    settings: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))

    def start(self, source: str = "line-1", **changed: Any) -> RunHandle:
        given = {
            "source": source,
            "settings": self.settings,
            "settings_digest": digest_of(self.settings),
            "model": self.model,
            "actor": self.actor,
            "host": "bench",
        }
        return start_or_resume_run(self.db, **(given | changed))

    def outcome(self, number: int, verdict: str = "pass", **changed: Any) -> ImageOutcome:
        picture = self.store.put(b"picture %d" % number, "picture", "image/png")
        given = ImageOutcome(
            uri=f"lot-{number % 2}/part-{number:04d}.png",
            version=f"{number}-1",
            size=picture.size,
            part=f"P{number:04d}",
            lot=f"L{number % 2}",
            station="cam-1" if number % 3 else "cam-2",
            digest=picture.digest,
            verdict=verdict,
            width=64,
            height=48,
            format="PNG",
            mode="L",
        )
        if verdict == "unreadable":
            given = replace(given, reason="truncated", width=None, height=None, mode=None)
        else:
            score = {"pass": 0.1, "review": 0.4, "reject": 0.9}[verdict] + number / 10_000
            given = replace(
                given,
                score=score,
                review_threshold=0.3,
                reject_threshold=0.7,
                probabilities=(1 - score, score / 3, 2 * score / 3),
                brightness=0.5 + number / 1_000,
                contrast=0.1,
                sharpness=1 + number / 100,
            )
        if verdict in ("review", "reject"):
            given = replace(given, findings=(self.finding(number),), picture=picture)
        return replace(given, **changed)

    def finding(self, number: int) -> FindingOutcome:
        heat = self.store.put(b"map %d" % number, "map", "image/png")
        block = self.store.put(b"block map %d" % number, "block_map", "image/png")
        return FindingOutcome(
            class_name="pit" if number % 2 else "scratch",
            class_score=0.5 + number / 10_000,
            threshold=0.3,
            explanation=ExplanationOutcome(
                method="sise",
                parameters={"mu": 0.0, "batch_size": 16},
                layers=(LayerMasks("layer1", 3, 64), LayerMasks("layer2", 5, 128)),
                status="ok",
                masked_score=0.25,
                drop=37.5,
                increase=False,
                map=heat,
                block_maps=(("layer1", block),),
                box=(1, 2, 30, 40),
            ),
        )

    def tiled_outcome(self, number: int) -> ImageOutcome:
        """A flagged picture of 18 tiles, two of them explained, each with a map and a block map."""

        def tile(place: int) -> ExplainedTile:
            name = b"%d of %d" % (place, number)
            return ExplainedTile(
                rectangle=(32 * place, 0, 32 * place + 32, 32),
                score=0.9 - place / 10,
                layers=(LayerMasks("layer1", 3, 64),),
                status="ok",
                masked_score=0.25,
                drop=37.5,
                increase=False,
                map=self.store.put(b"tile map " + name, "map", "image/png"),
                block_maps=(("layer1", self.store.put(b"tile block " + name, "block_map", "image/png")),),
                box=(32 * place + 2, 3, 32 * place + 20, 30),
            )

        explanation = ExplanationOutcome(
            method="sise",
            parameters={"mu": 0.0},
            layers=(),
            status="ok",
            masked_score=0.25,
            drop=37.5,
            increase=False,
            box=(2, 3, 20, 30),
            tiles=(tile(0), tile(1)),
            tiles_left_out=3,
        )
        return replace(
            self.outcome(number, "review"),
            tile_count=18,
            deciding_tile=(0, 0, 32, 32),
            findings=(replace(self.finding(number), explanation=explanation),),
        )

    def record(self, run: RunHandle, *outcomes: ImageOutcome) -> BatchResult:
        return record_batch(self.db, run, outcomes, actor=self.actor)

    def finished_run(self, numbers: range = range(8)) -> RunHandle:
        """A finished run with every verdict, in two batches, and its report."""
        run = self.start()
        verdicts = ("pass", "review", "reject", "unreadable")
        outcomes = [self.outcome(number, verdicts[number % 4]) for number in numbers]
        half = len(outcomes) // 2
        self.record(run, *outcomes[:half])
        self.record(run, *outcomes[half:])
        finish_run(self.db, run, actor=self.actor, listed=len(outcomes))
        self.issue(ReportSubject.run(run.reference), b"report of run %d" % run.number)
        return run

    def issue(self, subject: ReportSubject, pdf: bytes, **options: Any) -> ReportRecord:
        """Issue a report of these bytes, which prints the present head."""
        with self.db.session() as session:
            planned, head = next_report(session, subject), audit_head(session)
        artifact = self.store.put(pdf, "report", "application/pdf")
        return record_report(self.db, planned, artifact, head, actor=self.actor, **options)

    def staff(self) -> tuple[Authenticated, Authenticated]:
        """A quality engineer and a quality manager, signed in; recorded, in one event, the first time."""
        with self.db.write() as recorder:
            rows, people = _staff(recorder.session)
            if rows:
                recorder.add(rows, action="test.staff", actor=ACTOR, entity="person", entity_id="all")
        return people

    def decide(self, decision: str, **options: Any) -> DispositionRecord:
        """Let the engineer decide about the first finding, as the rules have it."""
        engineer, _ = self.staff()
        with self.db.session() as session:
            reference = session.scalars(select(Finding.reference).order_by(Finding.number)).first()
        assert reference is not None
        given = {"reason": "seen under the lamp", "signer": engineer} | options
        return record_dispose(self.db, reference, decision=decision, **given)

    def dispose(self, decision: str) -> None:
        """Decide about the first finding by hand, whatever the rules; one event, the staff in the first."""
        with self.db.write() as recorder:
            session = recorder.session
            people, (engineer, _) = _staff(session)
            finding = session.scalars(select(Finding.id).order_by(Finding.number).limit(1)).one()
            latest = session.scalar(select(Disposition).order_by(Disposition.id.desc()).limit(1))
            row = Disposition(
                finding_id=finding,
                decision=decision,
                class_name=None,
                reason="seen under the lamp",
                person=engineer.login,
                needs_approval=decision == "scrap",
                created_at=utc_now(),
                supersedes_id=latest.id if latest else None,
                signature=None,
            )
            row.signature = sign_disposition(engineer, row.created_at, signed_finding(session, finding), row)
            recorder.add(
                [*people, row],
                action="disposition.made",
                actor=engineer.actor,
                entity="disposition",
                entity_id=row.id,
                old={"decision": None},
                new={"decision": decision},
                reason=row.reason,
            )

    def fill(self) -> None:
        """Give every table a row: a finished run and, by hand, what people and operators do later."""
        self.finished_run()
        self.dispose("confirm")
        self.dispose("scrap")
        now = utc_now()
        with self.db.session() as session:
            scrap = session.scalars(select(Disposition).order_by(Disposition.id.desc()).limit(1)).one()
            finding = signed_finding(session, scrap.finding_id)
            _, (_, manager) = _staff(session)
            prediction = session.scalars(select(Prediction.id).order_by(Prediction.id)).first()
            at = audit_head(session)
            tree = Frontier()
            tree.extend(event_leaves(session, 0, at.sequence))
        signed = CheckpointNote(KEY.name, at.sequence, tree.root(), at.hash, now)
        note = KEY.sign(signed.text())
        self.notes.put(at.sequence, note)
        assert prediction is not None
        picture = self.store.put(b"picture 1", "picture", "image/png").digest
        approval = Approval(
            disposition_id=scrap.id,
            decision="approve",
            reason="agreed",
            person=manager.login,
            created_at=now,
            signature={},
        )
        approval.signature = sign_approval(manager, now, finding, scrap, approval)
        signed_pdf = self.store.put(b"report, signed", "report", "application/pdf")
        with self.db.session() as session:
            report = session.scalars(select(Report)).one()
            (issued,) = session.scalars(select(AuditEvent.hash).where(AuditEvent.action == "report.issued"))
        sign_off = ReportSignature(
            report_id=report.id,
            number=1,
            capacity="approved",
            decision="accept",
            reason="",
            person=manager.login,
            artifact_digest=signed_pdf.digest,
            created_at=now,
            signature={},
        )
        sign_off.signature = sign(manager, now, "approval", signed_content(report, issued, [], sign_off))
        rows: list[DomainRow] = [
            approval,
            artifact_row(signed_pdf),
            sign_off,
            Checkpoint(
                tree_size=at.sequence,
                root=tree.root().hex(),
                head_hash=at.hash,
                frontier=[root.hex() for root in tree.roots],
                note=note,
                created_at=now,
            ),
            ArtifactRetention(
                artifact_digest=picture, state="pruned", policy="older than 1 d", created_at=now
            ),
            Replay(
                prediction_id=prediction,
                result="identical",
                details={"score": 0.0},
                software_version="test 1",
                host="bench",
                created_at=now,
            ),
        ]
        with self.db.write() as recorder:
            recorder.add(
                rows,
                action="test.filled",
                actor=manager.actor,
                entity="test",
                entity_id="all",
                old={"a": 1},
                new={"a": 2},
                reason="because",
            )

    @property
    def witness(self) -> Witness:
        """The plant's signed checkpoints and the key that vouches for them."""
        return Witness(self.notes, [KEY.verifier])

    def sign(self) -> CheckpointRecord:
        """Sign the log's head."""
        return sign_checkpoint(self.db, self.notes, KEY, actor=self.actor)

    def verify(self, **options: Any) -> Verification:
        return record_verify(self.db, **options)


def _staff(session: Session) -> tuple[list[DomainRow], tuple[Authenticated, Authenticated]]:
    """The rows that make a quality engineer and a quality manager known, if they are not; both signed in."""
    now = utc_now()
    rows: list[DomainRow] = []
    people: list[Authenticated] = []
    for login, name, role in (
        ("engineer", "E. Ngineer", "quality-engineer"),
        ("second", "S. Econd", "quality-manager"),
    ):
        key = session.scalar(select(Person.id).where(Person.login == login))
        if key is None:
            person = Person(login=login, created_at=now)
            revision = PersonRevision(
                person_id=person.id,
                revision=1,
                name=name,
                role=role,
                active=True,
                password_hash="$argon2id$",  # noqa: S106
                created_at=now,
            )
            rows += [person, revision]
            key = person.id
        people.append(Authenticated(person_id=key, login=login, name=name, role=role, revision=1, at=now))
    return rows, (people[0], people[1])


@pytest.fixture
def plant(database: Database, tmp_path: Path) -> Plant:
    digest = hashlib.sha256(b"model").hexdigest()
    model = register_model(
        database,
        digest=digest,
        name="tiny",
        architecture="resnet10t",
        classes=["good", "scratch", "pit"],
        task="single-label",
        thresholds={"review": 0.3, "reject": 0.7, "target_escape_rate": 0.01},
        card={"good_class": "good", "trained_on": "synthetic"},
        actor=ACTOR,
    )
    return Plant(database, ArtifactStore(tmp_path / "artifacts"), model, CheckpointFolder(tmp_path / "notes"))


Attack = Callable[..., None]


@pytest.fixture
def attack(database: Database) -> Attack:
    """Run statements as one who owns the file or is the server's superuser, and who hides the traces."""

    def run(*statements: str) -> None:
        database.close()
        tables = [table.name for table in Base.metadata.sorted_tables]
        if database.sqlite:
            with closing(sqlite3.connect(str(database.url.database))) as raw:
                raw.execute("PRAGMA ignore_check_constraints = ON")
                for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
                    raw.execute(f"DROP TRIGGER {name}")
                for statement in statements:
                    assert raw.execute(statement).rowcount, f"changed nothing: {statement}"
                raw.commit()
        else:
            address = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(address) as server:
                for table in tables:
                    server.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
                for statement in statements:
                    assert server.execute(statement.encode()).rowcount, f"changed nothing: {statement}"
                for table in tables:
                    server.execute(f"ALTER TABLE {table} ENABLE TRIGGER ALL")
        with database.exclusive(migrating=True) as connection:
            guards.install(connection)

    return run
