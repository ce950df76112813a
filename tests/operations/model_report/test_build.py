"""The model report from a package, labelled pictures and the record: figures counted by hand, and printed."""

import csv
import subprocess
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from pypdf import PdfReader

from classifiers import Predictor, Preprocessing, Thresholds, load_package, save_package
from classifiers.data.reading import load_dataset
from classifiers.measure.calibrate import calibrate
from classifiers.measure.evaluation import evaluate, measure, predict_dataset
from classifiers.package.tiling import Tiling
from configs.schema import ExplainerSettings
from db.engine import open_database
from db.issued.reports import ReportSubject, reports_of
from db.queries.runs import latest_run
from db.verification.walk import verify
from operations.inspection.evidence import explainer_for
from operations.model_report.build import Asked, model_report, render_alone
from operations.model_report.examination import examination, mistakes, overlaps, predict_labelled
from operations.model_report.facts import calibration_of, model_version, share_of, training_of
from operations.model_report.map_quality import map_quality
from operations.model_report.mistakes import case_pages
from reports.content.model import ModelReport
from sources.synthetic import write_dataset

Kensa = Callable[..., subprocess.CompletedProcess[str]]
AT = datetime(2026, 11, 26, 6, 0, tzinfo=UTC)
QUICK = ExplainerSettings(method="grad-cam")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # For networks this small a second thread only waits for the first.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 labelled pictures of 8 lots with masks; read only."""
    root = tmp_path_factory.mktemp("labelled") / "surfaces"
    return write_dataset(root, count=40, seed=5, size=64, defect_share=0.5, lots=8) / "labels.csv"


@pytest.fixture(scope="module")
def tuned(
    tmp_path_factory: pytest.TempPathFactory,
    package: Path,
    labels: Path,
    make_thresholds: Callable[[float, float], Thresholds],
) -> Path:
    """The untrained package with thresholds under which these pictures have escapes and overkill."""
    loaded = load_package(package)
    predictor = Predictor(loaded)
    data = load_dataset(labels, group_column="group", good_class="good")
    scores = predict_dataset(predictor, data).defect_scores
    network = timm.create_model("test_resnet", num_classes=len(loaded.classes)).eval()
    state = predictor.model.state_dict()
    network.load_state_dict(state)
    return save_package(
        tmp_path_factory.mktemp("tuned") / "line",
        network,
        architecture=loaded.architecture,
        model_args={},
        classes=loaded.classes,
        good_class=loaded.good_class,
        task=loaded.task,
        preprocessing=loaded.preprocessing,
        thresholds=make_thresholds(*(float(np.quantile(scores, q)) for q in (0.4, 0.8))),
        training={"data_digests": {"training": data.digest}, "settings": {"seed": 7, "epochs": None}},
    ).path


def report(package: Path, **asked: Any) -> ModelReport:
    given = Asked(**{"maps": 0, "pages": 0, "explainer": QUICK, "device": "cpu", **asked})
    return model_report(
        load_package(package),
        given,
        issued_at=AT,
        progress=lambda _: nullcontext(lambda done, total: None),
    )


def text_of(pdf: Path) -> list[str]:
    return [" ".join(page.extract_text().split()) for page in PdfReader(pdf).pages]


def test_a_package_alone_makes_a_report(package: Path) -> None:
    made = report(package)
    assert made.number == f"M-{load_package(package).digest[:8]}"
    assert made.examination is None
    assert made.calibration is not None
    zones = made.calibration.zones
    assert (zones.escape.count, zones.escape.total, zones.escape.standing) == (0, 60, "met")
    assert (zones.not_rejected.count, zones.not_rejected.total) == (6, 60)
    assert made.standing == "not shown"


def test_the_examination_is_counted_as_it_is_measured(tuned: Path, labels: Path) -> None:
    package = load_package(tuned)
    data = load_dataset(labels, group_column="group", good_class="good")
    examined = predict_labelled(Predictor(package, device="cpu"), data)
    found = examination(examined, "labels.csv", ())
    expected = measure(package, data, examined.prediction)
    assert found.zones is not None
    assert found.zones.escape.count == expected["escape"]["count"] > 0
    assert found.zones.escape.low == expected["escape"]["interval"][0]
    assert found.zones.rejected_good.count == expected["automatic_reject_overkill"]["count"] > 0
    assert dict(found.verdicts) == expected["verdicts"]
    assert [list(row) for row in found.confusion] == expected["confusion"]
    assert (found.defective, found.good) == (found.zones.escape.total, found.zones.flagged_good.total)
    assert len(found.escapes) == found.zones.escape.count
    assert len(found.overkills) == found.zones.flagged_good.count
    assert [one.score for one in found.escapes] == sorted(one.score for one in found.escapes)
    assert [one.score for one in found.overkills] == sorted((o.score for o in found.overkills), reverse=True)
    assert sum(found.good_scores) == found.good
    assert sum(one.pictures for one in found.bins) == found.pictures == 40
    assert sum(one.escaped.count for one in found.classes if one.escaped) == len(found.escapes)
    assert found.by_group is not None
    assert found.by_group.escape.count == len({one.group for one in found.escapes})
    assert found.by_group.escape.total == len({i.group for i in data.items if i.labels != ("good",)})
    assert sum(one.escapes + one.overkills for one in found.worst_groups) == len(found.mistakes)


def test_the_report_is_about_the_precision_that_inspects(
    package: Path, package_in_two: Path, labels: Path
) -> None:
    two = load_package(package_in_two)
    alone = report(package_in_two)
    assert alone.calibration is not None
    assert [(one.precision, one.engine, one.flips) for one in alone.calibration.precisions] == [
        ("float32", "torch", None),
        ("bfloat16", "torch", 7),
    ]
    assert two.thresholds is not None
    assert (alone.calibration.review, alone.calibration.precision) == (two.thresholds.review, "float32")
    examined = report(package_in_two, on=labels, precision="bfloat16")
    assert examined.calibration is not None
    assert examined.examination is not None
    own = two.reduced[0].thresholds
    assert (examined.calibration.review, examined.calibration.precision) == (own.review, "bfloat16")
    assert examined.calibration.precisions == alone.calibration.precisions
    assert examined.examination.precision == "bfloat16"
    older = report(package).calibration
    assert older is not None
    assert older.precisions == ()


def test_pictures_that_the_model_was_made_from_are_found(tuned: Path, labels: Path, tmp_path: Path) -> None:
    package = load_package(tuned)
    data = load_dataset(labels, group_column="group", good_class="good")
    (training, calibration), known = overlaps(package, data, [])
    assert (training.role, training.proven, training.pictures, training.groups) == ("training", True, 40, 8)
    assert (calibration.role, calibration.source) == ("calibration", None)
    assert list(known) == ["training"]

    half = tmp_path / "half.csv"
    with labels.open() as file, half.open("w", newline="") as target:
        rows = list(csv.DictReader(file))
        writer = csv.DictWriter(target, rows[0])
        writer.writeheader()
        for row in rows[:10]:
            writer.writerow({**row, "image": labels.parent / row["image"]})
    made = report(tuned, on=half, seen=(labels,))
    assert made.examination is not None
    assert made.examination.leaks[0].pictures == 10
    assert made.standing in ("not shown", "not met")
    # named by hand, and none of the data that the package knows of
    other = report(tuned, on=labels, seen=(half,))
    assert other.examination is not None
    assert [(one.role, one.proven, one.pictures) for one in other.examination.overlaps if one.found] == [
        ("training", True, 40),
        ("other", False, 10),
    ]
    # sides of a split lie beside each other
    (tmp_path / "training.csv").write_text(half.read_text())
    beside = report(tuned, on=half).examination
    assert beside is not None
    assert ("other", "training.csv", 10) in [(o.role, o.source, o.pictures) for o in beside.overlaps]


def test_maps_are_measured_and_mistakes_shown(tuned: Path, labels: Path) -> None:
    package = load_package(tuned)
    data = load_dataset(labels, group_column="group", good_class="good")
    predictor = Predictor(package, device="cpu")
    examined = predict_labelled(predictor, data)
    explainer = explainer_for(predictor, QUICK)
    quality = map_quality(examined, explainer, most=4, masks=labels)
    flagged = sum(bool(decision.flagged) for _, defective, decision in examined.items() if defective)
    assert (quality.flagged, quality.judged) == (flagged, 4)
    assert quality.with_mask + quality.undefined == 4
    assert {one.name for one in quality.metrics} == {
        *("ebpg", "miou", "drop", "increase", "insertion", "deletion")
    }
    for one in quality.metrics:
        assert one.low is None or one.low <= one.mean <= one.high
        assert 0 <= one.mean <= (1 if one.name in ("insertion", "deletion") else 100)
    assert sum(count for _, count in quality.trust) == 4 - quality.undefined
    assert map_quality(examined, explainer, most=4, masks=labels) == quality

    wrong = mistakes(examined)
    cases = case_pages(examined, explainer, wrong, most=3)
    assert [case.mistake.kind for case in cases] == ["escape", "escape", "overkill"]
    assert [case.page.reference for case in cases] == ["Escape 1", "Escape 2", "Overkill 1"]
    assert cases[0].mistake == wrong[0][1]
    page = cases[0].page
    assert page.verdict == "pass"
    assert page.class_name == cases[0].mistake.labels[0]
    assert page.labelled is not None
    assert page.labelled.group == cases[0].mistake.group
    evidence = page.load()
    item = next(item for item in data.items if item.sha256 == page.image_digest)
    assert evidence.picture == item.path.read_bytes()
    assert evidence.map is not None or not page.explanation.has_map


def test_a_model_without_thresholds_is_examined_all_the_same(
    tmp_path: Path, tuned: Path, labels: Path
) -> None:
    package = load_package(tuned)
    bare = save_package(
        tmp_path / "bare",
        Predictor(package).model,
        architecture=package.architecture,
        model_args={},
        classes=package.classes,
        good_class="good",
        task=package.task,
        preprocessing=package.preprocessing,
    )
    made = report(bare.path, on=labels, maps=5, pages=5)
    assert made.examination is not None
    assert made.examination.zones is None
    assert made.examination.auroc is not None
    assert made.quality is None
    assert made.training is None
    assert made.standing == "not shown"
    assert "no thresholds" in (made.maps_gap or "")


def test_a_multi_label_model(
    tmp_path: Path, labels: Path, make_thresholds: Callable[[float, float], Thresholds]
) -> None:
    torch.manual_seed(1)
    classes = ("inclusion", "patch", "pit", "scratch")
    network = timm.create_model("test_resnet", num_classes=4).eval()
    package = save_package(
        tmp_path / "several",
        network,
        architecture="test_resnet",
        model_args={},
        classes=classes,
        good_class=None,
        task="multi-label",
        preprocessing=Preprocessing(input_size=(64, 64)),
        thresholds=make_thresholds(0.4, 0.6),
    )
    several = labels.with_name("several.csv")
    with labels.open() as file, several.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(("image", "label", "group"))
        for row in csv.DictReader(file):
            kind = row["label"]
            writer.writerow((row["image"], {"good": "", "pit": "pit;patch"}.get(kind, kind), row["group"]))
    made = report(package.path, on=several, maps=3, pages=2, masks=labels)
    found = made.examination
    assert found is not None
    assert found.confusion == ()
    assert found.defective + found.good == 40
    pits = {one.name: one.pictures for one in found.classes}
    assert pits["patch"] >= pits["pit"] > 0
    assert found.zones is not None
    assert all(case.page.labelled is not None for case in found.cases)


def test_what_a_package_says_is_read_and_not_trusted(tuned: Path) -> None:
    package = load_package(tuned)
    strange = replace(
        package,
        training={"settings": [1, 2], "metrics": {"auroc": "high"}, "best_epoch": "x", "command": 7},
        thresholds=None,
    )
    told = training_of(strange)
    assert told is not None
    assert (told.settings, told.metrics, told.best_epoch, told.command, told.start) == (
        *((), (), None, None),
        "not recorded",
    )
    assert training_of(replace(package, training={"calibration": {}})) is None
    assert calibration_of(strange) is None
    assert model_version(package).preprocessing[0] == ("fit", package.preprocessing.fit)
    assert share_of(0, 0, 0.1).standing == "not shown"


def test_the_command_on_a_package_alone(
    kensa: Kensa, tuned: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.pdf"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KENSA_CONFIG", raising=False)
    assert "--out" in kensa("report", "model", tuned, check=2).stderr
    assert "nothing: no model package here" in kensa("report", "model", "nothing", check=2).stderr
    done = kensa("report", "model", tuned, "--on", labels, "--maps", 0, "--pages", 0, "--out", out)
    assert "Targets not" in done.stdout
    pages = text_of(out)
    assert "Targets not" in pages[0]
    assert "not new to the model" in pages[0]  # it is the training data of this package
    assert "No record was read" in " ".join(pages)


def test_pictures_without_a_good_one_leave_overkill_unknown(
    kensa: Kensa, tuned: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KENSA_CONFIG", raising=False)
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "defective.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "group"))
        for row in rows:
            if row["label"] != "good":
                writer.writerow((labels.parent / row["image"], row["label"], row["group"]))
    ask = ("--on", "defective.csv", "--maps", 0, "--pages", 0, "--out", "model.pdf")
    kensa("report", "model", tuned, *ask)
    text = " ".join(" ".join(text_of(tmp_path / "model.pdf")).split())
    assert "no examined picture shows one, so overkill is unknown" in text


def test_settings_of_the_environment_record_the_report(
    kensa: Kensa, tuned: Path, make_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = make_line()
    with open_database(line.database_url) as database:
        database.migrate()
    monkeypatch.setenv("KENSA_CONFIG", str(line.config))
    assert "M000001 revision 1, new revision" in kensa("report", "model", tuned).stdout


@pytest.mark.slow
def test_with_a_record_the_report_has_a_number_and_revisions(
    make_line: Callable[..., Any], inspect_all: Callable[..., Any], labels: Path
) -> None:
    line = make_line(explainer={"method": "grad-cam"})
    inspection, _ = inspect_all(line.config)
    package = inspection.package
    ask = ("report", "model", str(package.path), "--on", str(labels), "--maps", "0", "--pages", "1")
    first = line.kensa(*ask).stdout
    assert "M000001-1.pdf" in first
    assert "M000001 revision 1, new revision" in first
    assert "revision 1, unchanged" in line.kensa(*ask).stdout
    text = " ".join(text_of(line.folder / "reports" / "M000001-1.pdf"))
    assert "1 run with this version" in text
    with open_database(line.database_url) as database:
        with database.session() as session:
            run = latest_run(session)
            assert run is not None
            assert f"{run.counts.passed} passed" in text
        inspect_all(line.config)
        # from the record alone, by the beginning of the digest
        named = line.kensa("report", "model", package.digest[:10], *ask[3:]).stdout
        assert "M000001 revision 2, new revision" in named
        with database.session() as session:
            issued = reports_of(session, ReportSubject.model(package.digest))
        assert [one.revision for one in issued] == [1, 2]
        assert verify(database, artifacts=None).ok


@pytest.fixture(scope="module")
def tiled(tuned: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network on tiles, calibrated per part of two or three pictures; with escapes and overkill."""
    loaded = load_package(tuned)
    predictor = Predictor(loaded, device="cpu")
    package = save_package(
        tmp_path_factory.mktemp("tiled") / "plain",
        predictor.model,
        architecture=loaded.architecture,
        model_args={},
        classes=loaded.classes,
        good_class=loaded.good_class,
        task=loaded.task,
        preprocessing=replace(loaded.preprocessing, input_size=(32, 32)),
        tiling=Tiling(1.0, 4, highest=2),
    )
    data = load_dataset(labels, group_column="group", good_class="good")
    # Three pictures of a part, so that some parts are good.
    items = tuple(replace(item, group=f"part-{index // 3}") for index, item in enumerate(data.items))
    targets = {"target_escape_rate": 0.6, "target_overkill": 0.6}
    folder = package.path.with_name("tiled")
    return calibrate(
        package, replace(data, items=items), folder, per="part", device="cpu", precisions=(), **targets
    ).path


def test_a_tiled_model_that_was_calibrated_per_part(tiled: Path, labels: Path, tmp_path: Path) -> None:
    package = load_package(tiled)
    thresholds = package.thresholds
    assert thresholds is not None
    made = report(tiled, on=labels, maps=3, pages=2, masks=labels)
    assert made.calibration is not None
    assert made.examination is not None
    assert made.unit == made.calibration.unit == "part"
    # The examined groups are lots of five pictures: here they are the parts.
    data = load_dataset(labels, group_column="group", good_class="good")
    measured = evaluate(Predictor(package, device="cpu"), data)
    by_part, by_picture = made.examination.by_group, made.examination.zones
    assert by_part is not None
    assert by_picture is not None
    for share, name in ((by_part.escape, "escape"), (by_part.flagged_good, "overkill")):
        told = measured["parts"][name]
        assert (share.count, share.total) == (told["count"], told["total"])
    assert by_part.escape.target == 0.6
    assert by_picture.escape.target is None
    assert by_picture.escape.count == measured["escape"]["count"]
    assert dict(made.claims)["escape rate"] == by_part.escape
    assert made.quality is not None
    assert made.quality.judged == 3
    assert made.quality.with_mask >= 1
    (case, *_) = made.examination.cases
    evidence = case.page.load()
    assert evidence.map is None
    assert evidence.tiles
    assert all(0 <= left < right <= 64 for (left, _, right, _), _ in evidence.tiles)
    (tmp_path / "report.pdf").write_bytes(render_alone(made))
    pages = text_of(tmp_path / "report.pdf")
    assert any("A part is judged by the highest score of its pictures" in page for page in pages)
