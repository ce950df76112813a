"""A run's batches on their way: decoding ahead, the model, and recording, all three at once.

Processes decode the batches to come. The model works in the thread that calls `inspect_line`. One thread
records, in the batches' order; at most two wait for it, so that memory does not grow with a slow database.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Event
from typing import ParamSpec, TypeVar

from operations.inspection import run
from operations.inspection.run import Batch, BatchSummary, Inspection
from operations.retries import given_up
from sources.folder import ListedImage

P = ParamSpec("P")
T = TypeVar("T")

_BEHIND = 2  # batches that are decided and not recorded: the one at work, and the next


@dataclass(frozen=True)
class Steps:
    """What the line does with a batch. The flow gives Prefect's tasks; `decode` and `record` take threads."""

    decode: Callable[[Inspection, int, list[ListedImage]], Batch] = field(default_factory=lambda: run.decode)
    classify: Callable[[Inspection, Batch], Batch] = field(default_factory=lambda: run.classify)
    explain: Callable[[Inspection, Batch], Batch] = field(default_factory=lambda: run.explain)
    record: Callable[[Inspection, Batch], BatchSummary] = field(default_factory=lambda: run.record)


def inspect_line(
    inspection: Inspection, recorded: Callable[[BatchSummary], None] | None = None, steps: Steps | None = None
) -> None:
    """Inspect all that a run lists, batch by batch; `recorded` is told of each in order, in this thread.

    Whatever ends it early, here or in another thread, is raised here. Then the transaction at work comes to
    its end, no other begins, and the decoding processes are ended.
    """
    line = _Line(inspection, recorded or (lambda _: None), steps or Steps())
    try:
        line.work()
    except Exception as error:
        line.give_up()
        if line.failure is not None and line.failure is not error:
            raise line.failure from error  # by which the line was stopped: the other one follows from that
        raise
    except BaseException:
        line.give_up()
        raise
    finally:
        line.close()


class _Line:
    """The threads of a line, and the batches between them."""

    def __init__(
        self, inspection: Inspection, recorded: Callable[[BatchSummary], None], steps: Steps
    ) -> None:
        self._inspection, self._recorded, self._steps = inspection, recorded, steps
        self._stopped = Event()
        self.failure: BaseException | None = None  # of recording, where that has stopped the line
        self._decoding = ThreadPoolExecutor(inspection.settings.run.decode_ahead + 1, "decode")
        self._recording = ThreadPoolExecutor(1, "record")
        # With the listed pictures of a batch, which say how much memory it holds.
        self._ahead: deque[tuple[list[ListedImage], Future[Batch]]] = deque()
        self._behind: deque[tuple[list[ListedImage], Future[BatchSummary]]] = deque()

    def work(self) -> None:
        """Take all batches through the line."""
        inspection, batches, number = self._inspection, self._inspection.batches(), 0
        waiting = next(batches, [])
        while waiting or self._ahead:
            while waiting and self._may_begin(waiting):
                number += 1
                task = self._begun(self._decoding, self._steps.decode, inspection, number, waiting)
                self._ahead.append((waiting, task))
                waiting = next(batches, [])
            if self._ahead:
                self._hand_over()
            else:  # what is not recorded yet holds the memory
                self._tell_recorded()
        while self._behind:
            self._tell_recorded()

    def _hand_over(self) -> None:
        """Decide about the next batch, and have it recorded.

        A method of its own so that nothing of the batch is held when it ends but by who records it.
        """
        listed, decoded = self._ahead.popleft()
        decided = self._decided(decoded.result())
        while self._behind and (len(self._behind) == _BEHIND or self._behind[0][1].done()):
            self._tell_recorded()
        self._behind.append((listed, self._begun(self._recording, self._record, decided)))

    def give_up(self) -> None:
        """Let nothing begin any more, and nobody wait for batches that nobody will decide about."""
        self._stopped.set()
        self._inspection.decoders.end()

    def close(self) -> None:
        """End the threads, when what is at work has come to its end."""
        self._recording.shutdown(cancel_futures=True)
        self._decoding.shutdown(cancel_futures=True)

    def _may_begin(self, listed: list[ListedImage]) -> bool:
        held = (each for each, _ in (*self._ahead, *self._behind))
        return len(self._ahead) <= self._inspection.settings.run.decode_ahead and self._inspection.holds(
            listed, *held
        )

    def _decided(self, batch: Batch) -> Batch:
        batch = self._steps.classify(self._inspection, batch)
        return self._steps.explain(self._inspection, batch) if batch.flagged else batch

    def _record(self, batch: Batch) -> BatchSummary:
        if self._stopped.is_set():  # the batch before this one was not recorded
            raise CancelledError
        try:
            return self._steps.record(self._inspection, batch)
        except BaseException as error:
            if not self._stopped.is_set():
                self.failure = error
                self._stopped.set()
            raise

    def _tell_recorded(self) -> None:
        """Wait until the oldest batch is recorded, and tell of it."""
        self._recorded(self._behind.popleft()[1].result())

    def _begun(
        self, threads: ThreadPoolExecutor, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Let one of some threads take a step in the context of this one, by which Prefect knows the flow."""

        def taken() -> T:
            given_up.set(self._stopped)
            return step(*args, **kwargs)

        return threads.submit(copy_context().run, taken)
