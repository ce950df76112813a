"""Commands about training data: give reviewed findings back as a data set."""

from pathlib import Path
from typing import Annotated

import typer

from cli.console import err, out, safe
from cli.options import (
    ClassName,
    Config,
    GoodClass,
    Lot,
    Model,
    Overrides,
    Part,
    Run,
    Since,
    Station,
    Until,
    open_record,
    person,
    settings_of,
    utc,
)
from db.artifacts import ArtifactStore
from db.queries.findings import FindingFilter

dataset_app = typer.Typer(no_args_is_help=True, help="Training data: reviewed findings as a data set.")


@dataset_app.command("export")
def dataset_export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    config: Config = None,
    overrides: Overrides = None,
    part: Part = None,
    lot: Lot = None,
    station: Station = None,
    class_name: ClassName = None,
    model: Model = None,
    run: Run = None,
    since: Since = None,
    until: Until = None,
    good_class: GoodClass = None,
) -> None:
    """Export reviewed pictures with labels and provenance; exit code 1 when a stored picture is broken."""
    from operations.dataset_export import LABELS, export_dataset

    wanted = FindingFilter(
        part=part,
        lot=lot,
        station=station,
        class_name=class_name,
        model=model,
        run=run,
        since=utc(since),
        until=utc(until),
    )
    store = ArtifactStore(settings_of(config, overrides).artifacts.uri)
    with open_record(config, overrides) as database, out.status("exporting …"):
        done = export_dataset(database, store, folder, wanted, actor=person(), good_class=good_class)
    for one in done.excluded:
        style = "red" if one.broken else "yellow"
        what = f"{', '.join(one.findings)} (picture {one.digest[:12]})"
        err.print(f"[{style}]left out:[/{style}] {safe(what)}: {safe(one.reason)}", soft_wrap=True)
    if done.undecided:
        err.print(f"not reviewed yet: {done.undecided} pictures")
    if done.event is None:
        err.print("nothing to export: no picture whose findings are decided matches")
        raise typer.Exit(1)
    counts = ", ".join(
        f"{count} {safe(label) or 'without a label'}" for label, count in sorted(done.labels.items())
    )
    options = [
        *(["--good-class", str(done.good_class)] if done.good_class in done.labels else []),
        *(["--multi-label"] if done.multi_label else []),
    ]
    out.print(
        f"{safe(str(folder))}: {done.pictures} pictures ({counts}), {len(done.excluded)} left out\n"
        f"labels {done.labels_digest[:12]}, audit event {done.event.sequence}\n"
        f"next: kensa train {safe(str(folder / LABELS))} --out MODEL --group-column group "
        f"{safe(' '.join(options))}",
        soft_wrap=True,
    )
    if any(one.broken for one in done.excluded):
        raise typer.Exit(1)
