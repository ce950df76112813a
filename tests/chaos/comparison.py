"""The difference between what a disturbed record holds and what it should hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tests.chaos.record import Outcome, Record

_VERDICTS = ("pass", "review", "reject", "unreadable")


@dataclass(kw_only=True)
class Differences:
    """What is not as it should be, each in a sentence; all empty where everything is."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    unreported: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)


def differences(
    expected: Mapping[str, Outcome], found: Record, sometimes: Collection[str] = ()
) -> Differences:
    """Compare a record with the outcomes of an undisturbed run over the same folder.

    Args:
        expected: what each picture must have got, by uri.
        found: the record.
        sometimes: pictures of `expected` that were not in the folder all the time. They must be in one of the
            runs; of the others, in every run.
    """
    seen = Differences(doubled=[f"{digest}: decided twice" for digest in found.decided_twice])
    anywhere = {uri for run in found.runs for uri, _ in run.pictures}
    seen.lost += [f"{uri}: in no run" for uri in sorted(expected.keys() - anywhere)]
    for run in found.runs:
        if run.status != "completed":
            seen.unfinished.append(f"{run.reference}: {run.status}")
            continue
        times = Counter(uri for uri, _ in run.pictures)
        missing = expected.keys() - times.keys() - set(sometimes)
        seen.lost += [f"{run.reference} {uri}: not in it" for uri in sorted(missing)]
        seen.doubled += [f"{run.reference} {uri}: {n} times" for uri, n in times.items() if n > 1]
        seen.wrong += [
            f"{run.reference} {uri}: {outcome} instead of {expected.get(uri)}"
            for uri, outcome in run.pictures
            if outcome != expected.get(uri)
        ]
        counted = Counter(outcome.verdict for _, outcome in run.pictures)
        said = {name: (run.counts or {}).get(name) for name in ("listed", *_VERDICTS)}
        right = {"listed": len(run.pictures)} | {name: counted[name] for name in _VERDICTS}
        if said != right:
            seen.wrong.append(f"{run.reference}: counts {said} instead of {right}")
        if not run.reported:
            seen.unreported.append(run.reference)
        if not run.signed:
            seen.unsigned.append(run.reference)
    return seen
