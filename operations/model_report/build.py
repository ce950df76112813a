"""From a model package, labelled pictures and the record to the model report."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from sqlalchemy.orm import Session

from classifiers import ModelPackage, Predictor
from classifiers.data.dataset import Dataset
from classifiers.data.overlap import RECORDED
from classifiers.data.package_data import load_package_data
from classifiers.data.reading import AUTO
from configs.schema import ExplainerSettings, ReportSettings
from db.artifacts import ArtifactStore
from db.chain.events import Actor
from db.engine import Database
from db.figures.experience import model_experience
from db.issued.reports import ReportSubject
from operations.inspection.evidence import explainer_for
from operations.inspection.run import register_package
from operations.model_report.examination import Examined, examination, mistakes, overlaps, predict_labelled
from operations.model_report.facts import (
    calibration_of,
    data_sides,
    field_experience,
    model_version,
    training_of,
)
from operations.model_report.map_quality import map_quality
from operations.model_report.mistakes import case_pages
from operations.reporting.heading import heading
from operations.reporting.issue import Issue, IssuedReport, issue, superseded
from reports.attachments.manifest import Supplement
from reports.compose.model import compose_model
from reports.content.model import ModelReport
from reports.document import Document
from reports.pdf.render import render

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Labelled:
    """How labelled pictures are read; see `classifiers.data.reading.load_dataset`."""

    form: str = AUTO
    label_column: str = "label"
    image_column: str = "image"
    group_column: str | None = "group"

    def read(self, path: Path, package: ModelPackage) -> Dataset:
        """Read labelled pictures, as `kensa calibrate` does.

        Raises:
            DataError: naming the file, the line and what is wrong.
        """
        return load_package_data(
            package,
            path,
            form=self.form,
            good_class=package.good_class,
            label_column=self.label_column,
            image_column=self.image_column,
            group_column=self.group_column,
        )


@dataclass(frozen=True)
class Asked:
    """What a model is to be examined on.

    Attributes:
        on: labelled pictures; None examines nothing.
        seen: data that the model was made from, to compare with; beside it, the sides of a split that lie in
            the folder of `on` count.
        masks: true pixels of defects; see `operations.model_report.map_quality.map_quality`.
        maps: most findings to explain for the quality of maps; 0 for none.
        pages: most mistakes with a page of their own.
        labelled: how `on` and `seen` are read.
        explainer: how findings are explained.
        device: as for `Predictor`.
        precision: as for `Predictor`.
        intended_use: what the model is to be released for.
    """

    on: Path | None = None
    seen: tuple[Path, ...] = ()
    masks: Path | None = None
    maps: int = 100
    pages: int = 12
    labelled: Labelled = Labelled()
    explainer: ExplainerSettings = field(default_factory=ExplainerSettings)
    device: str = "auto"
    precision: str = "auto"
    intended_use: str | None = None


def model_report(package: ModelPackage, asked: Asked, *, issued_at: datetime, progress: Bar) -> ModelReport:
    """Examine a model and put its report together, as far as no record is needed.

    Args:
        package: the model.
        asked: what to examine it on.
        issued_at: dates the report.
        progress: shows a bar of this name.

    Raises:
        DataError, PackageError, ExplainerError: pictures, labels, masks or a model that cannot be used.
    """
    plain = ModelReport(
        number=f"M-{package.digest[:8]}",
        issued_at=issued_at,
        software_version=version("kensa"),
        model=model_version(package),
        data=data_sides(package, {}),
        training=training_of(package),
        calibration=calibration_of(package),
        intended_use=asked.intended_use,
        maps_gap="no labelled pictures were named",
    )
    if asked.on is None:
        return plain
    dataset = asked.labelled.read(asked.on, package)
    seen = [(path.name, asked.labelled.read(path, package)) for path in _seen(asked)]
    common, known = overlaps(package, dataset, seen)
    predictor = Predictor(package, device=asked.device, precision=asked.precision)
    with progress("examining") as tick:
        examined = predict_labelled(predictor, dataset, progress=tick)
    report = replace(
        plain,
        data=data_sides(package, known),
        calibration=calibration_of(package, package.reduced_to(predictor.engine.name, predictor.precision)),
        examination=examination(examined, asked.on.name, common),
    )
    return _with_maps(report, examined, asked, progress)


def render_alone(report: ModelReport) -> bytes:
    """Render a report that is not recorded."""
    return render(compose_model(report))


def _with_maps(report: ModelReport, examined: Examined, asked: Asked, progress: Bar) -> ModelReport:
    """Add what needs an explainer: the maps' quality and the pages of mistakes."""
    if examined.decisions is None:
        return replace(report, maps_gap="the model has no thresholds, so that no picture is flagged")
    if report.examination is None or (asked.maps == 0 and asked.pages == 0):
        return replace(report, maps_gap="no map was asked for")
    explainer = explainer_for(examined.predictor, asked.explainer)
    if asked.maps:
        with progress("judging maps") as tick:
            quality = map_quality(examined, explainer, most=asked.maps, masks=asked.masks, progress=tick)
        gap = None if quality.judged else "no defective picture was flagged"
        report = replace(report, quality=quality if quality.judged else None, maps_gap=gap)
    with progress("explaining mistakes") as tick:
        cases = case_pages(examined, explainer, mistakes(examined), most=asked.pages, progress=tick)
    found = report.examination
    return report if found is None else replace(report, examination=replace(found, cases=cases))


def _seen(asked: Asked) -> list[Path]:
    """Return the files named, and the other sides of a split beside the examined one (see `kensa train`)."""
    if asked.on is None:
        return []
    beside = [asked.on.with_name(f"{role}.csv") for role in RECORDED] if asked.on.is_file() else []
    found = {path.resolve(): path for path in (*asked.seen, *(path for path in beside if path.is_file()))}
    return [path for resolved, path in found.items() if resolved != asked.on.resolve()]


def issue_model_report(
    database: Database,
    store: ArtifactStore,
    package: ModelPackage,
    report: ModelReport,
    settings: ReportSettings,
    *,
    actor: Actor,
) -> IssuedReport:
    """Register the model and issue its report, see `operations.reporting.issue.issue`."""
    report = replace(
        report, model=replace(report.model, name=register_package(database, package, store).name)
    )
    subject = ReportSubject.model(package.digest)

    def compose(what: Issue) -> Document:
        with database.session() as session:
            record = recorded(session, report, settings, what)
        return compose_model(record, Supplement(supersedes=superseded(what)))

    # What was measured on labelled pictures is not in the record: only the rendered report shows what is new.
    return issue(database, store, settings, subject, compose, actor=actor, again=True)


def recorded(session: Session, report: ModelReport, settings: ReportSettings, what: Issue) -> ModelReport:
    """Add what the record says of the model, as of the head under which the report is issued."""
    experience = model_experience(session, report.model.digest, what.head.sequence)
    return replace(
        report,
        field=None if experience is None else field_experience(experience),
        **heading(session, settings, what),
    )
