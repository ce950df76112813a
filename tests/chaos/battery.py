"""The battery: which trial comes next, doing it, keeping its result, and the table of all results."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.chaos.bench import DATABASES, Bench, Undisturbed
from tests.chaos.kinds import KINDS
from tests.chaos.processes import ROOT
from tests.chaos.trial import Result, SkippedError, Trial, deliver, measured


def planned(seed: int) -> Iterator[tuple[str, str]]:
    """Yield kind and database of one trial after the other, without end; each round has all of them."""
    number = 0
    while True:
        one_round = [
            (name, database)
            for name, kind in KINDS.items()
            for database in kind.databases
            for _ in range(kind.share)
        ]
        random.Random(f"{seed} {number}").shuffle(one_round)
        yield from one_round
        number += 1


def remaining(plan: Iterable[tuple[str, str]], results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Yield what a plan holds beyond the results that there are, in order."""
    done = Counter((each.kind, each.database) for each in results)
    for each in plan:
        if done[each]:
            done[each] -= 1
        else:
            yield each


def read_results(path: Path) -> list[Result]:
    """Return the results kept so far; a last line that a kill cut off is left out."""
    results = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            results.append(Result(**json.loads(line)))
        except json.JSONDecodeError:
            continue
    return results


def measure_undisturbed(bench: Bench) -> None:
    """Find out what a run makes of all pictures on each database when nobody disturbs it.

    Raises:
        RuntimeError: even then something is wrong.
    """
    for database in DATABASES:
        result = Result(0, "undisturbed", database)
        trial = Trial(
            bench, _new_folder(bench, f"undisturbed-{database}"), database, random.Random(0), result
        )
        deliver(trial.source, bench.late)
        code, seconds = measured(trial)
        log = (trial.folder / "log").read_text()
        if code not in (0, 1, 3) or "done: " not in log:
            raise RuntimeError(f"an undisturbed run does not end well, exit code {code}: {log}")
        outcomes = trial.record().outcomes()
        bench.undisturbed[database] = Undisturbed(outcomes, code, seconds)
        trial.look(outcomes)
        if result.problems:
            raise RuntimeError(f"an undisturbed run: {result.problems}\n{log}")
        trial.close()


def do_trial(bench: Bench, number: int, kind: str, database: str, seed: int) -> Result:
    """Do one trial. What was wrong with it, and its folder, are kept."""
    result = Result(number, kind, database, commit=_commit())
    trial = Trial(
        bench, _new_folder(bench, f"trial-{number}"), database, random.Random(f"{seed} {number}"), result
    )
    begun = time.monotonic()
    try:
        KINDS[kind].disturb(trial)
    except SkippedError as reason:
        result.skipped = str(reason)
    except Exception:  # noqa: BLE001 - one trial that fails by itself is a result, and the next one comes
        result.wrong.append(traceback.format_exc())
    finally:
        result.seconds = round(time.monotonic() - begun, 1)
        trial.close()
    return result


def _new_folder(bench: Bench, name: str) -> Path:
    folder = bench.folder / "trials" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip()


def table(results: Sequence[Result]) -> str:
    """Return the figures of all results, one line a kind, as a table for docs/reliability.md."""
    lines = [
        "| fault | trials | kills | lost | doubled | wrong | without end, report or checkpoint"
        " | `audit verify` | left behind |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in KINDS:
        if mine := [each for each in results if each.kind == name and not each.skipped]:
            lines.append(_table_line(name, mine))
    done = [each for each in results if not each.skipped]
    lines.append(_table_line("**all**", done))
    for reason in sorted({f"{each.kind}: not tried: {each.skipped}" for each in results if each.skipped}):
        lines += ["", reason]
    return "\n".join(lines)


def _table_line(name: str, mine: Sequence[Result]) -> str:
    def total(*fields: str) -> int:
        return sum(len(getattr(each, field)) for each in mine for field in fields)

    clean = sum(each.verified for each in mine)
    cells = (
        *(name, len(mine), sum(each.kills for each in mine), total("lost"), total("doubled"), total("wrong")),
        total("unfinished", "unreported", "unsigned", "hung", "misled"),
        "clean" if clean == len(mine) else f"clean in {clean}",
        total("orphans", "stray"),
    )
    return "| " + " | ".join(map(str, cells)) + " |"
