"""Processes that read and decode a run's pictures, so that no picture can stop the run.

A batch's files and what the model is given of them lie in memory that is shared with the processes (`Shelf`).
A process works on one picture at a time. One that takes too long, or dies, is replaced; the picture is
refused, or tried once more while the other processes rest, so that what others took is not laid at its door.
"""

import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import accumulate
from mmap import mmap
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from operations.inspection.decoder_process import (
    Answer,
    Decoded,
    Decoding,
    MeasuredImage,
    Measuring,
    Reading,
    Refusal,
    Task,
    Work,
)
from operations.inspection.preparation import FloatInput, PictureFacts, Pixels
from sources.errors import SourceError
from sources.folder import MAX_BYTES, ListedImage

_START = 300.0  # seconds that a process may take to start, on a machine that is busy
_MOST = 16  # processes, unless told: each takes some 40 MB
_GROUP = 16  # tasks that a process is given together

# glibc would give the memory of each picture back, and take it anew for the next: a quarter of the time.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}

Found = TypeVar("Found", int, str, Decoded)


class Decoders:
    """Decoding processes, started at once and stopped at the end of a `with` block.

    Args:
        work: what the processes are to do, and what a picture may take.
        processes: how many; one for each processor that this process may use, at most 16, when None.

    Attributes:
        tiled: whether pictures are decoded to be tiled.
    """

    def __init__(self, work: Work, processes: int | None = None) -> None:
        count = processes or min(_processors(), _MOST)
        self.tiled = work.preparation.tiling is not None
        self._shape = (3, *work.preparation.preprocessing.input_size)
        self._all = [_Process(work) for _ in range(count)]
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for process in self._all:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")
        self._one_alone = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the processes, whatever they do."""
        self.end()
        self._threads.shutdown()
        for process in self._all:
            process.close()

    def end(self) -> None:
        """End the processes, whatever they do: who waits for an answer gets a refusal or an error."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.end()

    def held_bytes(self, item: ListedImage) -> int:
        """Return how many bytes a picture takes in a batch: those of its file, and for the model."""
        return _file_bytes(item) + self.model_bytes(item)

    def model_bytes(self, item: ListedImage) -> int:
        """Return how many bytes the model is given: the network's input, or what tiles are cut from."""
        if self.tiled:
            return item.pixel_bytes if isinstance(item, MeasuredImage) else 0
        return 4 * int(np.prod(self._shape))

    def measured(self, listed: Sequence[ListedImage]) -> Sequence[ListedImage]:
        """Return pictures with what their tiles will be cut from; as they are where there are no tiles.

        One whose header cannot be read takes no room: decoding it says why.
        """
        if not self.tiled:
            return listed
        with Path(os.devnull).open("rb") as nothing:  # headers need no shared memory
            answers = self.answers([Measuring(item) for item in listed], nothing.fileno())
        return [
            item
            if isinstance(size := _expected(answer, int), Refusal)
            else MeasuredImage(**vars(item), pixel_bytes=size)
            for item, answer in zip(listed, answers, strict=True)
        ]

    @contextmanager
    def shelf(self, listed: Sequence[ListedImage]) -> Iterator["Shelf"]:
        """Take memory for a batch; what was read and decoded stays there as long as anything refers to it."""
        shelf = Shelf(self, listed, self._shape)
        try:
            yield shelf
        finally:
            shelf.close()

    def answers(self, tasks: Sequence[Task], memory: int) -> list[Answer]:
        """Return the answers to tasks about the memory of a descriptor, in order.

        Raises:
            SourceError: no process can be started on this machine.
        """
        # In groups, which cost this process less than tasks one by one; small ones, so that none waits alone.
        size = min(_GROUP, -(-len(tasks) // len(self._all))) or 1
        groups = [tasks[first : first + size] for first in range(0, len(tasks), size)]
        futures = [self._threads.submit(self._answers, group, memory) for group in groups]
        try:
            return [answer for future in futures for answer in future.result()]
        finally:
            # The descriptor is about to be closed, and the next file that is opened gets its number.
            wait([future for future in futures if not future.cancel()])

    def _answers(self, tasks: Sequence[Task], memory: int) -> list[Answer]:
        answers: list[Answer] = []
        while len(answers) < len(tasks):
            process = self._idle.get()
            try:
                answers += process.ask(tasks[len(answers) :], memory)
            except _DeadError as error:
                answers += error.answers
            else:
                continue
            finally:
                self._idle.put(process)
            answers.append(self._answer_alone(tasks[len(answers)], memory))
        return answers

    def _answer_alone(self, task: Task, memory: int) -> Answer:
        """Return the answer to a task at which a process ended."""
        # The kernel may have ended it for what another process took.
        with self._one_alone:
            resting = [self._idle.get() for _ in self._all]
            try:
                return resting[0].ask([task], memory)[0]
            except _DeadError as error:
                return Refusal(f"the process that worked on it ended ({error})")
            finally:
                for each in resting:
                    self._idle.put(each)


class Shelf:
    """The files of a batch and what the model is given, in memory that the decoding processes share.

    It is a file without a name: nothing is left of it when this process ends, however it ends. Nor does it
    count against /dev/shm, which containers limit to 64 MB.
    """

    def __init__(self, decoders: Decoders, listed: Sequence[ListedImage], shape: tuple[int, ...]) -> None:
        self._decoders, self._listed, self._shape = decoders, listed, shape
        self._rooms = [decoders.model_bytes(item) for item in listed]
        ends = list(accumulate([*self._rooms, *map(_file_bytes, listed)], initial=0))
        self._targets, self._places = ends[: len(listed)], ends[len(listed) : -1]
        self._shapes: dict[int, tuple[int, ...]] = {}  # of what was decoded
        place = max(1, ends[-1])  # of nothing there is no memory
        self._file = _nameless_file(place)
        self._memory = mmap(self._file, place)

    def close(self) -> None:
        """Give the descriptor back: nothing more is read or decoded."""
        os.close(self._file)

    def read(self) -> list[str | Refusal]:
        """Read the batch, and return the SHA-256 of each picture's bytes, or why there is none."""
        tasks = [Reading(item, place) for item, place in zip(self._listed, self._places, strict=True)]
        return [_expected(answer, str) for answer in self._decoders.answers(tasks, self._file)]

    def decode(self, positions: Sequence[int]) -> dict[int, PictureFacts | Refusal]:
        """Decode the pictures at some positions of the batch, which were read."""
        tasks = [
            Decoding(self._places[at], self._listed[at].size, self._targets[at], self._rooms[at])
            for at in positions
        ]
        found: dict[int, PictureFacts | Refusal] = {}
        for at, answer in zip(positions, self._decoders.answers(tasks, self._file), strict=True):
            decoded = _expected(answer, Decoded)
            if isinstance(decoded, Refusal):
                found[at] = decoded
            else:
                found[at], self._shapes[at] = decoded.facts, decoded.shape
        return found

    def data(self, position: int) -> memoryview:
        """Return the bytes of a picture that was read."""
        place = self._places[position]
        return memoryview(self._memory)[place : place + self._listed[position].size]

    def network_inputs(self) -> FloatInput:
        """Return the network's inputs (B, 3, H, W) of all pictures; of those not decoded, nothing useful.

        Where pictures are tiled there are none, and B is 0.
        """
        count = 0 if self._decoders.tiled else sum(self._rooms) // 4
        return np.frombuffer(self._memory, np.float32, count).reshape(-1, *self._shape)

    def prepared(self, position: int) -> FloatInput | Pixels:
        """Return what the model is given of a picture that was decoded: see `prepare`."""
        shape, target = self._shapes[position], self._targets[position]
        if not self._decoders.tiled:
            return np.frombuffer(self._memory, np.float32, math.prod(shape), target).reshape(shape)
        pixels: Pixels = np.frombuffer(self._memory, np.uint8, math.prod(shape), target).reshape(shape)
        return pixels if pixels.ndim == 3 else np.broadcast_to(pixels[:, :, None], (*shape, 3))


class _DeadError(Exception):
    """A process ended while it worked; says how, and what it had answered before."""

    def __init__(self, how: str, answers: list[Answer]) -> None:
        super().__init__(how)
        self.answers = answers


class _Process:
    """A decoding process, started again whenever it has ended. One thread uses it at a time."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._ended = False
        self._change = Lock()
        self._start()

    def ask(self, tasks: Sequence[Task], memory: int) -> list[Answer]:
        """Return the answers to tasks, in order; fewer where one took too long, which is the last then.

        Raises:
            _DeadError: the process ended. Another one is there.
            SourceError: the process does not start.
        """
        self._await_start()
        answers: list[Answer] = []
        try:
            self._connection.send(tasks)
            send_handle(self._connection, memory, self._process.pid)
            while len(answers) < len(tasks):
                if not self._connection.poll(self._work.seconds):
                    self._replace()
                    late = f"it takes longer than {self._work.seconds:g} seconds (run.picture_seconds)"
                    return [*answers, Refusal(late)]
                answers.append(self._connection.recv())
        except (EOFError, OSError) as error:
            raise _DeadError(self._replace(), answers) from error
        return answers

    def end(self) -> None:
        """End the process for good, also while another thread waits for its answer."""
        with self._change:
            self._ended = True
            self._process.kill()

    def close(self) -> None:
        """Give back what an ended process leaves."""
        self._stop()

    def _start(self) -> None:
        # A fresh interpreter: neither torch's threads nor a store's connections survive a fork. Not by
        # multiprocessing, which would import the main module, and with it the command line or Prefect.
        ours, theirs = socket.socketpair()
        start = (
            f"import sys; sys.path[:] = {sys.path!r}\n"
            f"from operations.inspection.decoder_process import serve; serve({theirs.fileno()})"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", start],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**_MALLOC, **os.environ},
            )
        self._connection = Connection(ours.detach())
        self._started = False

    def _await_start(self) -> None:
        if self._started:
            return
        try:
            self._connection.send(self._work)
            if self._connection.poll(_START):
                self._connection.recv()
                self._started = True
                return
            how = f"not within {_START:g} seconds"
        except (EOFError, OSError):
            how = "it ended"
        raise SourceError(f"a process that reads pictures does not start ({how}, {self._replace()})")

    def _replace(self) -> str:
        """Put another process in this one's place, unless all is to end; say how this one ended."""
        code = self._stop()
        with self._change:
            if not self._ended:
                self._start()
        return "out of reach" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"

    def _stop(self) -> int | None:
        self._connection.close()
        self._process.kill()
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            return None  # it hangs in the kernel, with a disk that does not answer, and ends with that


def _expected(answer: Answer, kind: type[Found]) -> Found | Refusal:
    if isinstance(answer, kind | Refusal):
        return answer
    raise TypeError(f"a decoding process answered with {answer!r}")


def _file_bytes(item: ListedImage) -> int:
    """Return the bytes to provide for a file: `Source.read` refuses one of more than `MAX_BYTES`."""
    return item.size if item.size <= MAX_BYTES else 0


def _nameless_file(size: int) -> int:
    """Return the descriptor of a file of `size` bytes in memory, where the system has such, else on disk."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("kensa-pictures", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
