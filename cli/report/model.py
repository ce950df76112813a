"""`kensa report model`: what a model version was made from, how well it does, where it fails."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import Exit, out, print_unsealed, progress_bar, safe
from cli.options import (
    Config,
    DataFormat,
    ImageColumn,
    LabelColumn,
    Overrides,
    config_name,
    open_record,
    person,
    settings_of,
)
from configs.loading import ConfigError
from configs.schema import Settings

if TYPE_CHECKING:
    from classifiers import ModelPackage
    from db.artifacts import ArtifactStore
    from db.engine import Database
    from operations.model_report.build import Asked
    from reports.content.model import ModelReport


def report_model(
    model: Annotated[
        str, typer.Argument(help="Model package; or, from the record, a model's name or digest.")
    ],
    on: Annotated[
        Path | None,
        typer.Option(help="Labelled pictures that the model never saw, to examine it on."),
    ] = None,
    seen: Annotated[
        list[Path] | None,
        typer.Option(help="Data that the model was made from: no examined picture should be among it."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="True pixels of the defects: CSV with columns image, label, mask, or a folder."),
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="PDF to write, beside the one in the report folder.")
    ] = None,
    use: Annotated[
        str | None, typer.Option(help="What the model is to be released for, in a sentence.")
    ] = None,
    maps: Annotated[int, typer.Option(min=0, help="Most findings to explain, to judge the maps by.")] = 100,
    pages: Annotated[int, typer.Option(min=0, help="Most mistakes with a page of their own.")] = 12,
    form: DataFormat = "auto",
    label_column: LabelColumn = "label",
    image_column: ImageColumn = "image",
    group_column: Annotated[str | None, typer.Option(help="CSV column with the lot or part.")] = "group",
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    precision: Annotated[str | None, typer.Option(help="The precision that inspects.")] = None,
) -> None:
    """Report on a model version: its data, its thresholds, how it does on labelled pictures, where it fails.

    A package's folder is enough. With settings (--config, $KENSA_CONFIG or ./kensa.yaml) the report is
    numbered and recorded, and says what the record knows of the model in inspection.
    """
    settings = _settings(model, config, overrides)
    if settings is None and out_file is None:
        raise ConfigError("give --out FILE for the report, or --config for a record to keep it in")
    from configs.schema import ExplainerSettings
    from operations.model_report.build import Asked, Labelled

    asked = Asked(
        on=on,
        seen=tuple(seen or ()),
        masks=masks,
        maps=maps,
        pages=pages,
        labelled=Labelled(form, label_column, image_column, group_column),
        explainer=ExplainerSettings() if settings is None else settings.explainer,
        device=device or ("auto" if settings is None else settings.model.device),
        precision=precision or ("auto" if settings is None else settings.model.precision),
        intended_use=use,
    )
    if settings is None:
        _alone(Path(model), asked, out_file)
    else:
        _with_record(model, asked, settings, out_file)


def _settings(model: str, config: str | None, overrides: list[str] | None) -> Settings | None:
    """Return the settings; None where there are none and a package's folder makes do without."""
    try:
        name = config_name(config)
    except ConfigError as error:
        if Path(model).is_dir():
            return None
        raise ConfigError(f"{model}: no model package here; and of a model in the record: {error}") from None
    return settings_of(name, overrides)


def _alone(folder: Path, asked: "Asked", out_file: Path | None) -> None:
    from classifiers import load_package
    from operations.model_report.build import model_report, render_alone
    from operations.reporting.issue import write_pdf

    report = model_report(load_package(folder), asked, issued_at=datetime.now(UTC), progress=progress_bar)
    if out_file is not None:
        with out.status("rendering the report …"):
            write_pdf(out_file, render_alone(report))
        _print_conclusion(report, out_file, "not recorded")


def _with_record(
    model: str,
    asked: "Asked",
    settings: Settings,
    out_file: Path | None,
) -> None:
    from db.artifacts import ArtifactStore
    from operations.model_report.build import issue_model_report, model_report
    from operations.reporting.issue import write_pdf

    store = ArtifactStore(settings.artifacts.uri)
    with open_record(settings) as database, tempfile.TemporaryDirectory() as folder:
        package = _package(database, store, model, settings, Path(folder) / "package")
        report = model_report(package, asked, issued_at=datetime.now(UTC), progress=progress_bar)
        with out.status("rendering the report …"):
            issued = issue_model_report(database, store, package, report, settings.report, actor=person())
    if out_file is not None:
        write_pdf(out_file, issued.path.read_bytes())
    state = "new revision" if issued.new else "unchanged"
    _print_conclusion(
        report, issued.path, f"{issued.record.number} revision {issued.record.revision}, {state}"
    )
    print_unsealed(issued)
    if issued.unsealed is not None:
        raise typer.Exit(Exit.attention)


def _package(
    database: "Database", store: "ArtifactStore", model: str, settings: Settings, folder: Path
) -> "ModelPackage":
    from classifiers import load_package
    from db.queries.filters import find_model_digests
    from operations.inspection.packages import find_package

    if Path(model).is_dir():
        return load_package(model)
    with database.session() as session:
        digests = find_model_digests(session, model)
    if len(digests) > 1:
        raise ConfigError(
            f"{len(digests)} versions are named {model!r}: give the digest of one, such as {digests[0][:12]}"
        )
    return find_package(database, store, digests[0], settings.model.package, folder)[0]


def _print_conclusion(report: "ModelReport", path: Path, state: str) -> None:
    from reports.compose.model import conclude_model

    conclusion = conclude_model(report)
    out.print(f"{safe(str(path))} ({state})")
    out.print(f"{conclusion.word}: {safe(conclusion.sentence)}")
