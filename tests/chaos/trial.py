"""One trial: a line in a folder of its own, disturbed, run to its end, and looked at."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
import yaml

from benchmarks import postgres
from db.artifacts import ArtifactStore
from tests.chaos.bench import BATCH, PACKAGE, Bench
from tests.chaos.comparison import Differences, differences
from tests.chaos.faults import POINTS, Fault
from tests.chaos.processes import MARK, Command, kill_all, processes_of, wait_until
from tests.chaos.record import Record, read_record

ATTEMPTS = 6
# How long helpers (decoders) may take to notice that their run is dead.
LINGER_S = 60
_WANTED = re.compile(
    r"artifacts/sha256/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}"
    r"|reports/R\d{6}-\d+\.pdf|notes/\d{12}\.checkpoint|kensa\.db(-wal|-shm)?"
)
_PROBLEMS = (
    *("lost", "doubled", "wrong", "unfinished", "unreported", "unsigned"),
    *("orphans", "stray", "hung", "misled", "missed"),
)
_LOOKED_AT = ("artifacts", "reports", "notes", "tmp")


class SkippedError(Exception):
    """This machine or account does not allow the fault; says why."""


@dataclass
class Result(Differences):
    """What came of a trial; everything from `lost` on is empty, and `verified` true, where all is well.

    `kills`: processes that were killed while they worked; `attempts`: commands until the end, with `codes`.
    """

    trial: int
    kind: str
    database: str
    fresh: bool = False
    commit: str = ""
    seconds: float = 0.0
    kills: int = 0
    attempts: int = 0
    codes: list[int | None] = field(default_factory=list)
    skipped: str = ""
    verified: bool = False
    orphans: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    misled: list[str] = field(default_factory=list)
    """Exit codes that do not say what happened."""
    missed: list[str] = field(default_factory=list)
    """Points that the run did not come by, though it was to be killed there: the trial's own fault."""

    @property
    def problems(self) -> dict[str, list[str]]:
        """What is not as it should be, by kind."""
        found = {name: getattr(self, name) for name in _PROBLEMS}
        said = {name: sentences for name, sentences in found.items() if sentences}
        return said if self.verified or self.skipped else said | {"verified": ["audit verify found a fault"]}

    def sentence(self) -> str:
        """Say it in a line."""
        said = self.skipped or self.problems or "as undisturbed"
        return (
            f"{self.trial:4} {self.kind} on {self.database}: {self.kills} killed, exit codes {self.codes}, "
            f"{self.seconds} s: {said}"
        )

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self))


class Trial:
    """A line of a trial's own: pictures, settings, an empty record."""

    def __init__(self, bench: Bench, folder: Path, database: str, rng: random.Random, result: Result) -> None:
        self.bench, self.folder, self.database, self.rng, self.result = bench, folder, database, rng, result
        self.mark = folder.name
        self.source = folder / "source"
        self._sessions: list[int] = []
        self._mounted: list[Path] = []
        self._shared = shared_memory()
        shutil.copytree(bench.pictures, self.source)
        (folder / "tmp").mkdir()
        if database == "postgresql":
            self.url = postgres.new_database(bench.cluster.address)
        else:
            self.url = f"sqlite:///{folder / 'kensa.db'}"
        self.config = folder / "line.yaml"
        self.write_settings()
        self.environment: dict[str, str | None] = {MARK: self.mark, "TMPDIR": str(folder / "tmp")}

    def write_settings(self) -> None:
        """Write the settings of the line."""
        settings = {
            "name": "chaos",
            "source": {"uri": str(self.source), "manifest": "manifest.csv"},
            "model": {"package": str(PACKAGE), "device": "cpu"},
            "run": {"batch_size": BATCH},
            "database": {"url": self.url},
            "artifacts": {"uri": str(self.folder / "artifacts")},
            "audit": {"checkpoints": str(self.folder / "notes"), "signing_key": str(self.bench.key)},
            "report": {
                "folder": str(self.folder / "reports"),
                "max_findings": 1,
                "signature": {"pkcs12": str(self.bench.seal)},
            },
        }
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def started(self, *arguments: str, fault: Fault | None = None, fresh: bool = False) -> Command:
        """Start a command, `run` when none is named; use it as a context."""
        command = Command(
            [*(arguments or ["run"]), "-c", str(self.config)],
            log=self.folder / "log",
            environment=self.environment,
            fault=fault,
            fresh=fresh,
        )
        self._sessions.append(command.pid)
        return command

    def ended(self, command: Command) -> int | None:
        """Wait for the end of a run and note its exit code; one that does not end is killed, and noted."""
        code = command.wait()
        self.result.attempts += 1
        self.result.codes.append(code)
        if code is None:
            self.result.hung.append(f"attempt {self.result.attempts} did not end")
            command.kill()
            command.wait()
        self._note_orphans()
        return code

    def fault(self, point: str, act: str) -> Fault:
        """Return a fault at one of the calls of a point, whichever chance names."""
        for name in ("here", "on"):
            (self.folder / name).unlink(missing_ok=True)
        return Fault(point, act, self.rng.randint(1, POINTS[point].calls), str(self.folder))  # type: ignore[arg-type]

    def waits(self, command: Command) -> bool:
        """Wait until a run stands at its fault; return False where it ended without."""
        here = self.folder / "here"
        return wait_until(lambda: here.exists() or command.poll() is not None, 300) and here.exists()

    def let_go(self) -> None:
        """Let the run that stands at its fault go on."""
        (self.folder / "on").touch()

    def killed_at(self, point: str) -> None:
        """Run, and be killed at a point for certain."""
        with self.started(fault=self.fault(point, "kill")) as command:
            code = self.ended(command)
        self._count_kill(code)
        if code != -signal.SIGKILL:
            self.result.missed.append(point)

    def killed_at_random(self, *, fresh: bool = False) -> None:
        """Run, and be killed at any moment of what an undisturbed run takes; it may end before."""
        span = self.bench.undisturbed[self.database].seconds * (3 if fresh else 1)
        with self.started(fresh=fresh) as command:
            if command.wait(self.rng.uniform(0, span)) is None:
                command.kill()
            self._count_kill(self.ended(command))

    def _count_kill(self, code: int | None) -> None:
        self.result.kills += code == -signal.SIGKILL

    def run_to_end(self, *, fresh: bool = False) -> None:
        """Run until a run ends as an undisturbed one does, as somebody would who reads exit codes alone."""
        for _ in range(ATTEMPTS):
            with self.started(fresh=fresh) as command:
                code = self.ended(command)
            if code == self.bench.undisturbed[self.database].code:
                if self.record().runs[-1].status == "completed":
                    return
                self.result.misled.append(
                    f"attempt {self.result.attempts}: {code}, but the run has not ended"
                )
        self.result.misled.append(f"{ATTEMPTS} attempts, and none ended as an undisturbed run does")

    def record(self) -> Record:
        """Read what the record holds now."""
        return read_record(
            self.url,
            ArtifactStore(self.folder / "artifacts"),
            self.folder / "reports",
            self.folder / "notes",
        )

    def look(self, uris: Collection[str], sometimes: Collection[str] = (), fresh: bool = False) -> None:
        """Compare with the undisturbed run over the pictures `uris`, verify the trail, look for remains."""
        expected = self.bench.undisturbed[self.database].outcomes
        found = differences({uri: expected[uri] for uri in uris}, self.record(), sometimes)
        for name, said in vars(found).items():
            getattr(self.result, name).extend(said)
        reports = [
            option for path in sorted(self.folder.glob("reports/*.pdf")) for option in ("--report", str(path))
        ]
        with self.started("audit", "verify", "--jobs", "1", *reports, fresh=fresh) as command:
            self.result.verified = command.wait() == 0
        self._note_orphans()
        self.result.stray = stray_files(self.folder) + sorted(shared_memory() - self._shared)

    def _note_orphans(self) -> None:
        wait_until(lambda: not processes_of(self.mark, self._sessions), LINGER_S)
        left = processes_of(self.mark, self._sessions)
        self.result.orphans += sorted(left.values())
        kill_all(left)

    def mount(self, name: str, size: int) -> None:
        """Put a small file system of its own under a folder of the line."""
        place = self.folder / name
        place.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(place)], capture_output=True
        )
        if done.returncode:
            raise SkippedError("only root may mount a small file system")
        self._mounted.append(place)

    def remount(self, name: str, options: str) -> None:
        """Change a mounted file system: its size, or whether it can be written to."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder / name)], check=True)

    def close(self) -> None:
        """End what is left, and remove the line unless something was wrong with it."""
        kill_all(processes_of(self.mark, self._sessions))
        if self.database == "postgresql":
            name = self.url.rpartition("/")[2]
            address = f"postgresql://{self.bench.cluster.address}/postgres"
            with suppress(psycopg.Error), psycopg.connect(address, autocommit=True) as admin:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        for place in self._mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
        if not self.result.problems:
            shutil.rmtree(self.folder)


def stray_files(folder: Path) -> list[str]:
    """Return the files of a line that neither the record nor a reader has a use for."""
    paths = [path for name in _LOOKED_AT for path in (folder / name).rglob("*")]
    paths += folder.glob("kensa.db*")
    names = (str(path.relative_to(folder)) for path in paths if not path.is_dir())
    return sorted(name for name in names if not _WANTED.fullmatch(name))


def shared_memory() -> set[str]:
    """Return the blocks of shared memory that Python processes of this machine have made."""
    return {f"/dev/shm/{path.name}" for path in Path("/dev/shm").glob("psm_*")}


def uris_of(folder: Path) -> list[str]:
    """Return the uris of the pictures in a source, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def deliver(source: Path, pictures: Mapping[str, Path]) -> None:
    """Move pictures into a source, each under its uri, as a line does: complete, at once."""
    for uri, path in pictures.items():
        (source / uri).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, (source / uri).with_suffix(".part"))
        (source / uri).with_suffix(".part").rename(source / uri)


def measured(trial: Trial) -> tuple[int | None, float]:
    """Run once, undisturbed; return the exit code and how long it took."""
    begun = time.monotonic()
    with trial.started() as command:
        code = trial.ended(command)
    return code, time.monotonic() - begun


def remove(source: Path, uris: Sequence[str]) -> None:
    """Take pictures out of a source, as a line does that empties its inbox."""
    for uri in uris:
        (source / uri).unlink()
