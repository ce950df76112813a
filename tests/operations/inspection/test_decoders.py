"""Whatever a picture does to the process that decodes it, that picture alone is refused."""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classifiers.package.preprocessing import Preprocessing
from classifiers.package.tiling import Tiling
from operations.inspection.decoder_process import MeasuredImage, Refusal, Work
from operations.inspection.decoders import Decoders
from operations.inspection.preparation import PictureFacts, Preparation, prepare
from sources.folder import Source

ROOT = Path(__file__).parents[3]
HOW = Preparation(Preprocessing((32, 48)), max_pixels=100_000_000, grey_range=None)


def png(width: int, height: int) -> bytes:
    """A black grey PNG of any size, a thousandth of its pixels long."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def endless_jpeg(side: int = 4000, scans: int = 500) -> bytes:
    """A progressive JPEG that goes over all its pixels once for each of many scans."""
    buffer = BytesIO()
    Image.new("L", (side, side), 90).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 50 + number), np.uint8)).save(folder / f"good{number}.png")
    return folder


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make decoders that a picture can bring down: no such file is known of the Pillow in use."""
    code = """
import os, signal, sources.decoding
def decode(data, *others, real=sources.decoding._decode):
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"leave":
        os._exit(7)
    while data == b"never ends":
        pass
    return real(data, *others)
sources.decoding._decode = decode
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")


def outcomes(
    folder: Path, *, processes: int = 2, seconds: float = 100.0, memory: int = 2**32
) -> dict[str, Refusal | PictureFacts]:
    """Read and decode a folder; what was decoded is compared with what this process makes of it."""
    listed = list(Source(str(folder)).list())
    found: dict[str, Refusal | PictureFacts] = {}
    with (
        Decoders(Work(str(folder), HOW, seconds, memory), processes) as decoders,
        decoders.shelf(listed) as shelf,
    ):
        read = shelf.read()
        positions = [at for at, answer in enumerate(read) if not isinstance(answer, Refusal)]
        decoded = shelf.decode(positions)
        for at, item in enumerate(listed):
            answer = read[at]
            if isinstance(answer, Refusal):
                found[item.uri] = answer
                continue
            data = (folder / item.uri).read_bytes()
            assert answer == sha256(data).hexdigest()
            assert shelf.data(at) == data
            found[item.uri] = decoded[at]
            if isinstance(decoded[at], PictureFacts):
                facts, prepared = prepare(data, HOW)
                assert decoded[at] == facts
                assert np.array_equal(shelf.network_inputs()[at], prepared)
    for process in decoders._all:
        assert process._process.returncode is not None
    return found


def refusals(found: dict[str, Refusal | PictureFacts]) -> dict[str, Refusal]:
    return {uri: answer for uri, answer in found.items() if isinstance(answer, Refusal)}


def test_decoding_processes_load_nothing_that_takes_seconds():
    code = "import operations.inspection.decoder_process, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "timm", "prefect", "sqlalchemy", "pydantic"} & set(done.stdout.split())


def test_processes_give_what_this_process_would(folder):
    assert refusals(outcomes(folder)) == {}


def test_damage_is_final_and_what_cannot_be_read_is_not(folder):
    (folder / "bad.png").write_bytes(b"not a picture")
    (folder / "broken.png").symlink_to("nowhere.png")
    found = refusals(outcomes(folder))
    assert {uri: answer.final for uri, answer in found.items()} == {"bad.png": True, "broken.png": False}


def test_a_picture_that_takes_too_long_is_given_up(folder):
    (folder / "endless.jpg").write_bytes(endless_jpeg())
    found = refusals(outcomes(folder, seconds=3.0))
    assert found == {"endless.jpg": Refusal("it takes longer than 3 seconds (run.picture_seconds)")}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process's data")
def test_a_picture_that_takes_too_much_memory_is_given_up(folder):
    (folder / "wide.png").write_bytes(png(5_000, 2_000))
    Image.new("L", (4_000, 3_000)).save(folder / "wide.webp", lossless=True, quality=0, method=0)
    # libwebp says no more than that it failed: with little memory that says nothing of the picture.
    found = refusals(outcomes(folder, memory=24 * 2**20))
    assert found.keys() == {"wide.png", "wide.webp"}
    assert {answer.final for answer in found.values()} == {False}
    assert {answer.reason for answer in found.values()} == {
        "it takes more than 25165824 bytes of memory (run.picture_memory)"
    }
    assert refusals(outcomes(folder)) == {}


def test_a_picture_that_brings_its_process_down_is_the_only_one_lost(folder, crashing):
    for number, name in enumerate(["crash", "leave", "crash"]):
        (folder / f"good{number}b.png").write_text(name)
    found = refusals(outcomes(folder))
    assert {uri: (answer.reason, answer.final) for uri, answer in found.items()} == {
        "good0b.png": ("the process that worked on it ended (signal 11)", False),
        "good1b.png": ("the process that worked on it ended (exit code 7)", False),
        "good2b.png": ("the process that worked on it ended (signal 11)", False),
    }


def test_a_picture_whose_process_dies_for_another_reason_is_tried_again(folder):
    listed = list(Source(str(folder)).list())
    with (
        Decoders(Work(str(folder), HOW, 100.0, 2**32), 1) as decoders,
        decoders.shelf(listed) as shelf,
        ThreadPoolExecutor(1) as thread,
    ):
        before = shelf.read()
        killed = decoders._all[0]._process
        os.kill(killed.pid, signal.SIGSTOP)  # so that it dies with a picture in its hands
        reading = thread.submit(shelf.read)
        os.kill(killed.pid, signal.SIGKILL)
        assert reading.result() == before
        assert decoders._all[0]._process.pid != killed.pid


TILED = replace(HOW, tiling=Tiling(scale=0.5))


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Pictures of several sizes, grey and in colour, one of them turned by its metadata."""
    folder = tmp_path / "large"
    folder.mkdir()
    rng = np.random.default_rng(4)
    Image.fromarray(rng.integers(0, 256, (300, 200, 3), np.uint8)).save(folder / "colour.png")
    Image.fromarray(rng.integers(0, 256, (90, 500), np.uint8)).save(folder / "grey.png")
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(rng.integers(0, 256, (40, 70, 3), np.uint8)).save(folder / "turned.jpg", exif=turned)
    Image.fromarray(rng.integers(0, 256, (1, 1), np.uint8)).save(folder / "point.png")
    return folder


def test_what_tiles_are_cut_from_is_decoded_at_its_own_size(large):
    with Decoders(Work(str(large), TILED, 100.0, 2**32), 2) as decoders:
        listed = decoders.measured(list(Source(str(large)).list()))
        assert {item.uri: decoders.held_bytes(item) - item.size for item in listed} == {
            "colour.png": 600 * 400 * 3,
            "grey.png": 180 * 1000,
            "point.png": 2 * 2,
            "turned.jpg": 80 * 140 * 3,
        }
        with decoders.shelf(listed) as shelf:
            shelf.read()
            found = shelf.decode(range(4))
            assert shelf.network_inputs().shape == (0, 3, 32, 48)
        for at, item in enumerate(listed):
            facts, pixels = prepare((large / item.uri).read_bytes(), TILED)
            assert found[at] == facts
            assert np.array_equal(shelf.prepared(at), pixels)
        assert shelf.prepared(3).shape == (140, 80, 3)
        assert shelf.prepared(1).strides[2] == 0


def test_pictures_that_are_not_tiled_are_not_measured(folder):
    listed = list(Source(str(folder)).list())
    with Decoders(Work(str(folder), HOW, 100.0, 2**32), 1) as decoders:
        assert decoders.measured(listed) is listed


def test_what_does_not_fit_its_room_is_refused(large):
    (large / "bad.png").write_bytes(b"not a picture")
    (large / "broken.png").symlink_to("nowhere.png")
    Image.new("L", (300, 300)).save(large / "wide.png")
    with Decoders(Work(str(large), TILED, 100.0, 300_000), 2) as decoders:
        listed = decoders.measured(list(Source(str(large)).list()))
        sizes = {item.uri: decoders.held_bytes(item) - item.size for item in listed if item.size > 0}
        assert sizes["bad.png"] == sizes["wide.png"] == sizes["colour.png"] == 0
    with Decoders(Work(str(large), TILED, 100.0, 2**32), 2) as decoders:
        listed = decoders.measured([i for i in Source(str(large)).list() if i.uri != "broken.png"])
        assert isinstance(listed[2], MeasuredImage)
        listed = [*listed[:2], replace(listed[2], pixel_bytes=7), *listed[3:]]
        with decoders.shelf(listed) as shelf:
            shelf.read()
            found = refusals({item.uri: shelf.decode([at])[at] for at, item in enumerate(listed)})
    assert found.keys() == {"bad.png", "grey.png"}
    assert found["bad.png"].final
    assert found["grey.png"] == Refusal(
        "its header could not be read, or promised fewer pixels than were decoded"
    )


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs descriptors of processes")
def test_nothing_is_left_when_the_run_is_killed(folder):
    """Its decoding processes end, also one that is at work, and with them the memory that they share."""
    (folder / "endless.jpg").write_bytes(endless_jpeg(1000, 5000))
    code = f"""
import json
from threading import Thread
from operations.inspection.decoder_process import Work
from operations.inspection.decoders import Decoders
from sources.folder import Source
from tests.operations.inspection.test_decoders import HOW
listed = list(Source({str(folder)!r}).list())
with Decoders(Work({str(folder)!r}, HOW, 5.0, 2**32), 2) as decoders, decoders.shelf(listed) as shelf:
    shelf.read()
    worker = Thread(target=shelf.decode, args=([0],))
    worker.start()
    print(json.dumps([each._process.pid for each in decoders._all]), flush=True)
    worker.join()
"""
    before = _named_memory()
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    with run.stdout:
        watched = [os.pidfd_open(pid) for pid in json.loads(run.stdout.readline())]
    run.kill()
    run.wait()
    poll = select.poll()
    for descriptor in watched:
        poll.register(descriptor, select.POLLIN)
    left = set(watched)
    while left:
        ended = poll.poll(60_000)
        assert ended, "a decoding process outlives the run"
        for descriptor, _ in ended:
            poll.unregister(descriptor)
            left.discard(descriptor)
            os.close(descriptor)
    assert _named_memory() <= before


def _named_memory() -> set[str]:
    return {path.name for pattern in ("psm_*", "*kensa*") for path in Path("/dev/shm").glob(pattern)}


def test_processes_that_cannot_start_end_the_run_with_a_reason(folder, monkeypatch):
    from sources.errors import SourceError

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SourceError, match="does not start"):
        outcomes(folder)
