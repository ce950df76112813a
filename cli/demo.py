"""The demo: a synthetic line, inspected, explained, recorded and reported on this machine alone."""

import csv
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

import classifiers
from cli.console import out, print_table, progress_bar, safe
from cli.findings import FINDING_COLUMNS
from cli.run import inspect_here
from configs.loading import load_settings
from db.engine import open_database
from db.queries.findings import FindingFilter, find_findings
from sources.decoding import decode
from sources.errors import Unreadable

PACKAGE = Path(classifiers.__file__).parent / "packages" / "synthetic-surface"
_COUNT, _SEED, _DEFECT_SHARE = 120, 2026, 0.12


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo's pictures, record and report go.")] = Path(
        "demo"
    ),
) -> None:
    """Show the main job on synthetic surfaces: no network, no GPU, no server."""
    line = folder / "line"
    if not line.is_dir():
        _make_line(line)
    record = [
        f"database.url=sqlite:///{folder / 'kensa.db'}",
        f"artifacts.uri={folder / 'artifacts'}",
        f"report.folder={folder / 'reports'}",
    ]
    overrides = [*record, f"source.uri={line}", f"model.package={PACKAGE}"]
    ended = inspect_here(load_settings("demo", overrides))
    with open_database(f"sqlite:///{folder / 'kensa.db'}") as database, database.session() as session:
        findings = find_findings(session, FindingFilter(run=ended.result.reference), limit=_COUNT)
    findings.sort(key=lambda finding: -finding.score)
    out.print()
    print_table(findings, FINDING_COLUMNS, empty="no findings")
    out.print(f"\n{_against_truth(line, {finding.uri for finding in findings})}")
    if ended.report is not None:
        out.print(f"\nThe report: [bold]{safe(str(ended.report.path))}[/bold]")
    out.print("\nWorth typing next:")
    kensa = Path(sys.argv[0]).name if shutil.which("kensa") else _relative(Path(sys.argv[0]))
    settings = "" if folder == Path("demo") else "".join(f" --set {setting}" for setting in record)
    example = line / findings[0].uri if findings else line
    for command in (
        f"{kensa} findings -c demo --lot L002{settings}",
        f"{kensa} report period -c demo --lot L002{settings}",
        f"{kensa} audit verify -c demo{settings}",
        f"{kensa} audit part {findings[0].part if findings else 'P000001'} -c demo{settings}",
        f"{kensa} explain {example} --model {_relative(PACKAGE)} --out {folder / 'explained.png'}",
    ):
        out.print(f"  {safe(command)}")


def _make_line(line: Path) -> None:
    """Write the pictures as a line would deliver them, two of them damaged as happens on a real one."""
    from sources.synthetic import write_inspection_folder

    unfinished = line.with_name(line.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    with progress_bar("making synthetic surfaces") as progress:
        write_inspection_folder(
            unfinished, count=_COUNT, seed=_SEED, defect_share=_DEFECT_SHARE, progress=progress
        )
    pictures = sorted((unfinished / "images").rglob("*.png"))
    truncated, empty = pictures[7], pictures[70]
    truncated.write_bytes(truncated.read_bytes()[:4000])
    empty.write_bytes(b"")
    unfinished.rename(line)


def _against_truth(line: Path, flagged: set[str]) -> str:
    """Compare with what the generator drew; the run itself never sees it."""
    with (line / "truth.csv").open(newline="", encoding="utf-8") as file:
        truth = {row["file"]: row["label"] for row in csv.DictReader(file)}
    readable = {uri for uri in truth if _readable(line / uri)}
    defective = {uri for uri in readable if truth[uri] != "good"}
    good = readable - defective
    return (
        f"Against what the generator drew: {len(defective & flagged)} of {len(defective)} defective parts"
        " flagged, "
        f"{len(good & flagged)} of {len(good)} good parts flagged as well."
    )


def _readable(path: Path) -> bool:
    try:
        decode(path.read_bytes())
    except Unreadable:
        return False
    return True


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
