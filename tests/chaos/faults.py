"""Faults, planted into the command line by the process that runs it: where, when, and what happens there.

The product knows nothing of this. A fault wraps one function before the command begins; the n-th call kills
the process, waits for what the battery does meanwhile, or sets the clock back. `POINTS` is the only place
that names functions of kensa.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

# Carries a fault to a process of its own. Not KENSA_…: kensa refuses a variable of its own that it does
# not know.
VARIABLE = "CHAOS_FAULT"

Moment = Literal["before", "after", "item"]
Act = Literal["kill", "wait", "clock"]


@dataclass(frozen=True)
class Point:
    """A function of kensa (`module:name` or `module:Class.name`), and when within its call.

    `item` is for generators: before they give the n-th. `calls`: how many of its calls a fault may choose
    from; an undisturbed run of the battery makes as many or more.
    """

    place: str
    moment: Moment
    calls: int = 1


# In the order in which a run comes by. Batches are 8, of which at least 3 have findings.
POINTS = {
    "list": Point("operations.inspection.run:Inspection.listing", "item", 48),
    "decode": Point("operations.inspection.run:decode", "before", 8),
    "decoded": Point("operations.inspection.run:decode", "after", 8),
    "classify": Point("operations.inspection.run:classify", "before", 8),
    "explain": Point("operations.inspection.run:explain", "before", 3),
    "explained": Point("operations.inspection.run:explain", "after", 3),
    # Written and synced under its temporary name, and not moved into place yet.
    "store": Point("db.files:os.fsync", "after", 20),
    "record": Point("operations.inspection.run:record_batch", "before", 8),
    # Every row of a transaction has been sent, and it is not committed: start, batches, end, signing, report.
    "transaction": Point("db.chain.events:Recorder.flush", "after", 12),
    # Committed, and nobody has been told.
    "recorded": Point("operations.inspection.run:record_batch", "after", 8),
    "finish": Point("operations.inspection.run:finish_run", "before"),
    "finished": Point("operations.inspection.run:finish_run", "after"),
    "sign": Point("db.transparency.checkpoints:CheckpointFolder.put", "before"),
    # The signed note is in its folder, and the record does not know of it.
    "signed": Point("db.transparency.checkpoints:CheckpointFolder.put", "after"),
    "render": Point("reports.pdf.render:render", "before"),
    "rendered": Point("reports.pdf.render:render", "after"),
    "seal": Point("operations.reporting.issue:seal_report", "before"),
    "sealed": Point("operations.reporting.issue:seal_report", "after"),
    "issue": Point("operations.reporting.issue:record_report", "before"),
    "issued": Point("operations.reporting.issue:record_report", "after"),
    "publish": Point("flows.inspection:_publish", "before"),
    "published": Point("flows.inspection:_publish", "after"),
}


@dataclass(frozen=True)
class Fault:
    """At the n-th call of a point: `kill` (-9) this process; `wait`; or set the `clock` back by an hour.

    Who waits makes the file `here` in `folder` and goes on when there is a file `on`.
    """

    point: str
    act: Act
    call: int = 1
    folder: str = ""

    def text(self) -> str:
        """Return it as the value of the environment variable."""
        return json.dumps(asdict(self))


def planted_fault(text: str | None) -> Fault | None:
    """Plant what `Fault.text` gave, if anything, and return it."""
    if not text:
        return None
    fault = Fault(**json.loads(text))
    point = POINTS[fault.point]
    module, _, path = point.place.partition(":")
    *parents, name = path.split(".")
    owner = functools.reduce(getattr, parents, importlib.import_module(module))
    setattr(owner, name, _wrapped(getattr(owner, name), point.moment, fault))
    return fault


def _wrapped(original: Callable[..., Any], moment: Moment, fault: Fault) -> Callable[..., Any]:
    numbers = itertools.count(1)

    def happen(when: Moment, number: int) -> None:
        if when == moment and number == fault.call:
            _act(fault)

    @functools.wraps(original)
    def call(*arguments: Any, **named: Any) -> Any:
        number = next(numbers)
        happen("before", number)
        result = original(*arguments, **named)
        happen("after", number)
        return result

    @functools.wraps(original)
    def items(*arguments: Any, **named: Any) -> Iterator[Any]:
        for item in original(*arguments, **named):
            happen("item", next(numbers))
            yield item

    return items if moment == "item" else call


def _act(fault: Fault) -> None:
    if fault.act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.act == "clock":
        set_clock_back(timedelta(hours=1))
    else:
        folder = Path(fault.folder)
        (folder / "here").touch()
        while not (folder / "on").exists():
            time.sleep(0.02)


def set_clock_back(by: timedelta) -> None:
    """Let the record's clock of this process go wrong: the times of rows, and those in identifiers."""
    import db.columns

    right, right_ns = db.columns.utc_now, time.time_ns

    def wrong() -> Any:
        return right() - by

    for module in list(sys.modules.values()):
        if getattr(module, "utc_now", None) is right:
            module.utc_now = wrong  # type: ignore[attr-defined]
    time.time_ns = lambda: right_ns() - int(by.total_seconds() * 1e9)
