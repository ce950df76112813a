"""Make a small record with the version of kensa that is checked out, for later versions to open.

    PYTHONPATH=$PWD unshare --uts sh -c 'hostname line-4; exec python -m tests.golden.make_record FOLDER'

(The record holds the host's name; PYTHONPATH makes `kensa` the one of this checkout.) It trains a tiny model
on synthetic surfaces, inspects a line of them twice, lets people decide and sign, issues every kind of
report, replays. Private keys stay outside FOLDER and are thrown away; everything goes through the command
line, which changes least.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import yaml

from tests.pki import PASSPHRASE, Pki

PEOPLE = {"boss": "administrator", "eve": "quality-engineer", "max": "quality-manager"}
PASSWORD = "blowhole fray crack 1"  # noqa: S105 - of made-up people
SETTINGS = {
    "name": "golden-line",
    "source": {"uri": "line", "manifest": "manifest.csv"},
    "model": {"package": "package", "device": "cpu", "precision": "float32"},
    "explainer": {"method": "sise"},
    "run": {"batch_size": 5},
    "database": {"url": "sqlite:///kensa.db"},
    "artifacts": {"uri": "artifacts", "pictures": "all"},
    "report": {
        "folder": "reports",
        "organisation": "Golden works",
        "max_findings": 2,
        "signature": {"trust_roots": ["root.pem"]},
    },
}


class Maker:
    """Gives commands in the record's folder; `keys`, relative to it, is where private keys live meanwhile."""

    keys = "../keys"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def kensa(self, *arguments: str, typed: tuple[str, ...] = ()) -> str:
        """Run `kensa ARGUMENTS` as the account "inspector" and return what it printed."""
        done = subprocess.run(
            [Path(sys.executable).with_name("kensa"), *arguments],
            cwd=self.folder,
            input="".join(f"{line}\n" for line in typed),
            text=True,
            capture_output=True,
            env={
                **os.environ,
                "LOGNAME": "inspector",
                "OMP_NUM_THREADS": "1",
                "KENSA_AUDIT__CHECKPOINTS": "checkpoints",
                "KENSA_AUDIT__SIGNING_KEY": f"{self.keys}/golden-line.key",
                "KENSA_REPORT__SIGNATURE__PKCS12": f"{self.keys}/seal.p12",
                "KENSA_REPORT__SIGNATURE__PASSPHRASE": PASSPHRASE,
                "PREFECT_HOME": str(self.folder / self.keys / "prefect"),
            },
        )
        if done.returncode:
            raise SystemExit(f"kensa {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def make(self) -> None:
        """Do what a plant does in its first weeks."""
        training, keys = f"{self.keys}/training", Pki(self.folder / self.keys)
        self.kensa(
            "synth", training, "--count", "120", "--size", "64", "--seed", "1", "--defect-share", "0.5"
        )
        channels = "channels=[16, 16, 24, 32]"
        self.kensa(
            *("train", f"{training}/labels.csv", "--out", f"{self.keys}/raw", "--arch", "test_resnet"),
            *("--model-arg", channels, "--good-class", "good", "--group-column", "lot", "--input-size", "64"),
            *("--epochs", "12", "--device", "cpu", "--image-column", "image"),
        )
        splits = f"{self.keys}/raw.splits"
        self.kensa(
            *("calibrate", f"{self.keys}/raw", f"{splits}/calibration.csv", "--out", "package"),
            *("--target-escape-rate", "0.3", "--target-overkill", "0.3", "--device", "cpu"),
        )
        self.kensa(
            *("synth", "line", "--kind", "inspection", "--count", "12", "--size", "64", "--seed", "2"),
            *("--defect-share", "0.4", "--lots", "2"),
        )
        self.kensa("audit", "keygen", "golden-line", "--out", self.keys, "--no-passphrase")
        shutil.copy(self.folder / self.keys / "golden-line.pub", self.folder)
        (self.folder / "root.pem").write_bytes(keys.root_pem.read_bytes())
        keys.pkcs12("seal", keys.issue("Golden works seal", days=(-2, 36500)))
        (self.folder / "kensa.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
        self.kensa("run")
        self.kensa("run", "--set", "report.enabled=false")  # carries over
        for login, role in PEOPLE.items():
            by = () if login == "boss" else ("--as", "boss")
            typed = (PASSWORD,) if login == "boss" else (PASSWORD, PASSWORD)
            self.kensa(
                *("people", "add", login, "--name", f"{login.title()} Person", "--role", role, *by),
                "--password-stdin",
                typed=typed,
            )
        rows = [json.loads(line) for line in self.kensa("findings", "--format", "json").splitlines()]
        first, second = rows[0], rows[-1]
        self._decide(first["reference"], "eve", "confirm", "A scratch, as drawn.")
        self._decide(second["reference"], "eve", "overrule", "Dirt; gone after wiping.")
        self._decide(first["reference"], "max", "scrap", "Too deep to rework.")
        self.kensa("report", "run", "R000001")
        self.kensa(
            *("report", "sign", "R000001", "--role", "reviewed", "--decision", "accept", "--as", "eve"),
            "--password-stdin",
            typed=(PASSWORD,),
        )
        self.kensa("report", "period", "--lot", first["lot"])
        self.kensa("report", "finding", first["reference"])
        self.kensa("report", "part", first["part"], "--lot", first["lot"])
        self.kensa(
            *("report", "model", "package", "-c", "kensa.yaml", "--on", f"{splits}/test.csv"),
            *("--maps", "2", "--pages", "1"),
        )
        self.kensa("replay", "R000001", "--reason", "golden")
        self.kensa("audit", "checkpoint")
        with closing(sqlite3.connect(self.folder / "kensa.db")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.rmtree(self.folder / "reports")  # copies: the reports are artifacts

    def _decide(self, finding: str, login: str, decision: str, reason: str) -> None:
        self.kensa(
            *("disposition", finding, "--decision", decision, "--reason", reason, "--as", login),
            "--password-stdin",
            typed=(PASSWORD,),
        )


def main() -> None:
    """Make the record in the folder that the command line names."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    maker = Maker(folder)
    try:
        maker.make()
    finally:
        shutil.rmtree(folder / maker.keys)


if __name__ == "__main__":
    main()
