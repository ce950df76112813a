"""Commands about training data: give reviewed findings back as a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Exit, err, out, safe
from cli.filters import filtered
from cli.options import Config, GoodClass, Overrides, open_record, person, settings_of
from db.artifacts import ArtifactStore
from db.queries.findings import FindingFilter

if TYPE_CHECKING:
    from operations.dataset_export import Exported


@filtered(FindingFilter, "image", "verdict", "min_score", "max_score", "person", "reason")
def dataset_export(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    config: Config = None,
    overrides: Overrides = None,
    *,
    wanted: FindingFilter,
    good_class: GoodClass = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="What is never on two sides of a split: part or lot. As the models were trained when "
            "absent, and the lot where they do not say."
        ),
    ] = None,
) -> None:
    """Export reviewed pictures with labels and provenance; exit code 3 when a stored picture is broken."""
    from operations.dataset_export import COCO, LABELS, export_dataset

    settings = settings_of(config, overrides)
    store = ArtifactStore(settings.artifacts.uri)
    with open_record(settings) as database, out.status("exporting …"):
        done = export_dataset(
            database, store, folder, wanted, actor=person(), good_class=good_class, group=group
        )
    for one in done.excluded:
        style = "red" if one.broken else "yellow"
        what = f"{', '.join(one.findings)} (picture {one.digest[:12]})"
        err.print(f"[{style}]left out:[/{style}] {safe(what)}: {safe(one.reason)}")
    if done.undecided:
        err.print(f"not reviewed yet: {done.undecided} pictures")
    if done.event is None:
        err.print("nothing to export: no picture whose findings are decided matches")
        raise typer.Exit(Exit.refused)
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
        f"grouped by {done.grouping}{safe(_reason(done, group))}\n"
        f"next: kensa train --from {safe(str(settings.model.package))} --add {safe(str(folder))} "
        f"--out MODEL\nor alone: kensa train {safe(str(folder / LABELS))} --out MODEL --group-column group "
        f"{safe(' '.join(options))}\n"
        f"with boxes and masks, in COCO's form: kensa train {safe(str(folder / COCO))} --out MODEL "
        f"{safe(' '.join(options))}"
    )
    if any(one.broken for one in done.excluded):
        raise typer.Exit(Exit.attention)


def _reason(done: "Exported", asked: str | None) -> str:
    """Return why pictures are grouped as they are."""
    if asked is not None:
        return ", as asked"
    if not done.grouped_by:
        return ": the models do not say by what their training data was grouped (--group chooses)"
    return f": the models were trained with groups by {', '.join(done.grouped_by)}"
