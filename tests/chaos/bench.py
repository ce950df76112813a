"""What all trials share: pictures, keys, servers, and what an undisturbed run makes of the pictures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import classifiers
from benchmarks import postgres
from db.transparency.signed_notes import generate_key, write_key
from sources.synthetic import write_inspection_folder
from tests.chaos.command import import_command_line
from tests.chaos.record import Outcome
from tests.flows.processes import prefect_server
from tests.pki import PASSPHRASE, Pki

PACKAGE = Path(classifiers.__file__).parent / "packages" / "synthetic-surface"
BATCH = 6
PICTURES = 8 * BATCH
# Of the next batch: delivered while a run is under way, and last by name, so that they change no other batch.
LATE = BATCH
DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Undisturbed:
    """What a run over all pictures, the late ones too, ends with when nobody disturbs it."""

    outcomes: Mapping[str, Outcome]
    code: int
    seconds: float


@dataclass
class Bench:
    """Everything that is made once. `late`: pictures by the uri under which they are delivered later."""

    folder: Path
    pictures: Path
    late: Mapping[str, Path]
    key: Path
    seal: Path
    cluster: postgres.Cluster
    undisturbed: dict[str, Undisturbed]


@contextmanager
def set_up_bench(folder: Path) -> Iterator[Bench]:
    """Start the servers, make pictures and keys in a folder, and import the command line.

    PostgreSQL syncs as in production: a restart of its server is one of the faults.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        os.environ["PREFECT_HOME"] = str(folder / "prefect")
        url, _ = stack.enter_context(prefect_server(folder / "prefect"))
        cluster = postgres.Cluster.start(["max_connections=40"])
        stack.callback(cluster.stop)
        os.environ["PREFECT_API_URL"] = url  # read when Prefect is imported
        os.environ["KENSA_REPORT__SIGNATURE__PASSPHRASE"] = PASSPHRASE
        import_command_line()
        made = folder / "pictures"
        late = _make_pictures(made, folder / "late")
        _make_key(folder / "keys")
        yield Bench(
            folder=folder,
            pictures=made,
            late=late,
            key=folder / "keys" / "line.key",
            seal=Pki(folder / "pki").seal,
            cluster=cluster,
            undisturbed={},
        )


def _make_pictures(folder: Path, late: Path) -> dict[str, Path]:
    """Write the pictures: one is cut off, one is empty, one has the bytes of another."""
    for each in (folder, late):
        shutil.rmtree(each, ignore_errors=True)
    write_inspection_folder(folder, count=PICTURES, seed=20, size=96, defect_share=0.12)
    pictures = sorted((folder / "images").rglob("*.png"))
    pictures[9].write_bytes(pictures[9].read_bytes()[:2000])
    pictures[23].write_bytes(b"")
    shutil.copyfile(pictures[2], pictures[40])
    write_inspection_folder(late, count=LATE, seed=22, size=96, defect_share=0.15)
    found = sorted((late / "images").rglob("*.png"))
    return {f"images/late/{path.name}": path for path in found}


def _make_key(folder: Path) -> None:
    """Make the key that signs checkpoints, as its owner would."""
    if not (folder / "line.key").exists():
        write_key(generate_key("line"), folder, None)
