"""A process that reads and decodes pictures, one at a time, as `decoders` asks it to. It loads no torch.

Whatever a picture does happens here: it may take all memory that is allowed, never come to its end, or bring
the process down, and the run goes on.
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

from operations.inspection.preparation import PictureFacts, Preparation, prepare
from sources.decoding import header_shape
from sources.errors import SourceError, Unreadable
from sources.folder import ListedImage, Source

_GRACE = 5.0  # seconds that a picture has beyond its limit until this process ends by itself


@dataclass(frozen=True)
class Work:
    """What a process is told when it starts. `seconds`, `memory`: what one picture may take, in bytes."""

    source: str
    preparation: Preparation
    seconds: float
    memory: int


@dataclass(frozen=True)
class MeasuredImage(ListedImage):
    """A picture as listed, and how many bytes of pixels its tiles will be cut from, by its header."""

    pixel_bytes: int = 0


@dataclass(frozen=True)
class Measuring:
    """Look at a listed picture's header: how many bytes of pixels will its tiles be cut from?"""

    item: ListedImage


@dataclass(frozen=True)
class Reading:
    """Read a listed picture, and put its bytes at `place` of the shared memory."""

    item: ListedImage
    place: int


@dataclass(frozen=True)
class Decoding:
    """Decode `size` bytes at `place` of the shared memory, and put what the model is given at `target`.

    `room`: bytes that there are for it.
    """

    place: int
    size: int
    target: int
    room: int


@dataclass(frozen=True)
class Decoded:
    """What is recorded of a picture, and the shape of what was put into the shared memory."""

    facts: PictureFacts
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Refusal:
    """Why there is nothing. `final`: it is so on every machine, and will be the next time too."""

    reason: str
    final: bool = False


Task = Measuring | Reading | Decoding
Answer = int | str | Decoded | Refusal


def serve(descriptor: int) -> None:
    """Take tasks from a socket until it is closed, and answer one after the other.

    They come in groups, with the descriptor of the memory that they concern. A number answers `Measuring`,
    a digest (SHA-256) `Reading`, `Decoded` answers `Decoding`, and a `Refusal` any of them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who asks ends this process
    with Connection(descriptor) as connection:
        try:
            work: Work = connection.recv()
        except (EOFError, ConnectionError):
            return  # who asks has ended before it had anything to ask
        _volunteer_as_victim()
        _limit_memory(work.memory)
        desk = _Desk(work)
        connection.send(None)
        while True:
            try:
                tasks: Sequence[Task] = connection.recv()
                memory = recv_handle(connection)
            except (EOFError, ConnectionError):
                return  # who asks has closed the socket, or is dead
            try:
                for task in tasks:
                    # Were who asks killed, nobody else would end a decoder that does not come to its end.
                    signal.setitimer(signal.ITIMER_REAL, work.seconds + _GRACE)
                    answer = desk.answer(task, memory)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    connection.send(answer)
            except ConnectionError:
                return
            finally:
                os.close(memory)


class _Desk:
    """Does tasks, one after the other."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._source: Source | None = None

    def answer(self, task: Task, memory: int) -> Answer:
        """Do a task; whatever prevents it becomes a `Refusal`."""
        try:
            if isinstance(task, Measuring):
                return self._measure(task.item)
            if isinstance(task, Reading):
                return self._read(task, memory)
            return self._decode(task, memory)
        except Unreadable as error:
            return Refusal(str(error), final=isinstance(task, Decoding))
        except SourceError as error:
            return Refusal(f"cannot be read ({error})")
        except MemoryError:
            return Refusal(f"it takes more than {self._work.memory} bytes of memory (run.picture_memory)")
        except Exception as error:  # noqa: BLE001 - a store has errors of its own; none of them ends a run
            doing = "decoded" if isinstance(task, Decoding) else "read"
            return Refusal(f"cannot be {doing} ({type(error).__name__}: {error})")

    def _measure(self, item: ListedImage) -> int:
        how = self._work.preparation
        if how.tiling is None:
            raise ValueError("there is nothing to measure: the network sees the pictures as a whole")
        with self._opened_source().open_header(item) as stream:
            height, width, planes = header_shape(stream, max_pixels=how.max_pixels)
        rows, columns = how.tiling.grid((height, width), how.preprocessing.input_size).scaled
        pixels = planes * rows * columns
        # What is more than a picture may take is refused when it is decoded, and needs no room.
        return pixels if pixels <= self._work.memory else 0

    def _opened_source(self) -> Source:
        if self._source is None:
            self._source = source_to_read(self._work.source)
        return self._source

    def _read(self, task: Reading, memory: int) -> str:
        data = self._opened_source().read(task.item)
        _put(memory, memoryview(data), task.place)
        return sha256(data).hexdigest()

    def _decode(self, task: Decoding, memory: int) -> Decoded | Refusal:
        data = os.pread(memory, task.size, task.place)
        facts, prepared = prepare(data, self._work.preparation, self._work.memory)
        if prepared.strides[-1] == 0:
            prepared = prepared[:, :, 0]
        if prepared.nbytes > self._work.memory:
            raise MemoryError
        if prepared.nbytes > task.room:
            return Refusal("its header could not be read, or promised fewer pixels than were decoded")
        _put(memory, prepared.data.cast("B"), task.target)
        return Decoded(facts, prepared.shape)


def source_to_read(uri: str) -> Source:
    """Open a run's source for reading alone: what to list, and what part a picture shows, is settled."""
    return Source(uri)


def _put(memory: int, data: memoryview, place: int) -> None:
    """Write to shared memory by its descriptor: half the time of mapping it for one picture."""
    while data:
        written = os.pwrite(memory, data, place)
        data, place = data[written:], place + written


def _volunteer_as_victim() -> None:
    """Let the kernel end this process first, and not the run, where the machine's memory is used up."""
    choice = Path("/proc/self/oom_score_adj")
    if choice.exists():
        choice.write_text("1000", encoding="ascii")


def _limit_memory(memory: int) -> None:
    """Allow so many bytes beyond those in use now: taking more raises MemoryError.

    Counted are the data of this process alone, without libraries and shared memory. Only Linux says how many
    these are, and holds the limit; elsewhere there is none.
    """
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = pages * resource.getpagesize() + memory
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most)
        )
