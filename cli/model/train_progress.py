"""How far a training is: a bar on a terminal, and a line every few seconds in a log file."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.console import err, safe

if TYPE_CHECKING:
    from classifiers.training.trainer import TrainProgress

_SECONDS = 5.0  # between two lines


class TrainingLines:
    """Shows what a training reports; one line for each validated epoch, and what it has to say.

    Args:
        clock: seconds, from wherever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._live = err.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=err,
            disable=not self._live,
        )
        self._task = self._bar.add_task("reading", total=None)
        self._last = clock()
        self._begun: tuple[float, int] | None = None  # when the first step was seen, and its number

    def __enter__(self) -> Callable[["TrainProgress"], None]:
        self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _show(self, progress: "TrainProgress") -> None:
        if progress.text is not None:
            err.print(safe(progress.text))
        elif progress.metrics is not None:
            self._say(_epoch_line(progress, progress.metrics))
        elif self._live:
            self._bar.update(
                self._task, description=_title(progress), completed=progress.done, total=progress.total
            )
        elif self._clock() - self._last >= _SECONDS:
            self._say(f"{_title(progress)} {progress.done} of {progress.total}{self._rest(progress)}")
        elif self._begun is None:
            self._rest(progress)

    def _say(self, line: str) -> None:
        err.print(line)
        self._last = self._clock()

    def _rest(self, progress: "TrainProgress") -> str:
        """Return the loss and the time that is left, by the steps since the first one that was seen."""
        if progress.loss is None:
            return ""
        steps = (progress.epoch - 1) * progress.total + progress.done
        if self._begun is None:
            self._begun = self._clock(), steps
        since, first = self._begun
        left = ""
        if steps > first:
            seconds = (self._clock() - since) / (steps - first) * (progress.epochs * progress.total - steps)
            left = f", about {_duration(seconds)} left"
        return f", loss {progress.loss:.3f}{left}"


def _title(progress: "TrainProgress") -> str:
    if progress.phase == "reading":
        return "reading picture"
    what = "step" if progress.phase == "training" else "validating picture"
    return f"epoch {progress.epoch} of {progress.epochs}: {what}"


def _epoch_line(progress: "TrainProgress", metrics: dict[str, Any]) -> str:
    auroc = "" if metrics["auroc"] is None else f"  AUROC {metrics['auroc']:.3f}"
    return (
        f"epoch {progress.epoch:>3}  loss {progress.loss:.3f}  balanced accuracy "
        f"{metrics['balanced_accuracy']:.3f}{auroc}{'  best' if metrics['is_best'] else ''}"
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
