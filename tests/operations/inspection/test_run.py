"""The steps of a run without Prefect: accounting, one outcome per picture, resumption, evidence."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from classifiers import PackageError, Predictor, Preprocessing, load_package, save_package
from configs.loading import ConfigError, load_settings
from db.engine import open_database
from db.inspection.missing_images import MissingImage
from db.queries.finding_records import run_findings
from db.queries.runs import run_images, run_summary, run_unreadable
from db.transparency.signed_notes import generate_key, write_key
from db.verification.walk import verify
from explainers.sise.sise import Sise
from operations.inspection import run as pipeline
from operations.inspection.evidence import attribution_box
from operations.inspection.map_files import decode_map, encode_map
from operations.reporting.run_report import issue_report
from reports.attachments.manifest import RECORD, read_attached
from sources.decoding import decode
from sources.picture_statistics import picture_statistics


def verdicts_of(url: str, run_id) -> dict[str, tuple]:
    with open_database(url) as database, database.session() as session:
        return {i.uri: (i.verdict, i.score, i.digest) for i in run_images(session, run_id)}


@pytest.fixture
def damaged(tmp_path: Path, pictures: Path) -> Path:
    """The line's pictures, some of them damaged, one twice, one announced and missing."""
    source = tmp_path / "damaged"
    shutil.copytree(pictures, source)
    files = sorted((source / "images").rglob("*.png"))
    files[0].write_bytes(b"")
    files[1].write_bytes(files[1].read_bytes()[:500])
    files[2].write_text("not a picture")
    files[3].unlink()
    shutil.copy(files[-1], source / "images" / "L001" / "copy.png")
    return source


def test_listed_is_pass_plus_review_plus_reject_plus_unreadable(make_line, damaged, inspect_all):
    line = make_line(source={"uri": str(damaged)})
    inspection, result = inspect_all(line.config)
    counts = result.counts
    assert counts.listed == 24
    assert counts.passed + counts.review + counts.reject + counts.unreadable == 24
    assert counts.unreadable == 3
    assert counts.missing == 1
    assert result.missing == result_missing(damaged)
    assert result.missing[0].lot == "L001"
    assert min(counts.passed, counts.review, counts.reject) > 0
    with open_database(line.database_url) as database:
        with database.session() as session:
            reasons = {r.uri: r.reason for r in run_unreadable(session, inspection.run.id)}
            assert run_summary(session, inspection.run.id).missing == result_missing(damaged)
        assert verify(database, artifacts=inspection.store).problems == ()
    assert len(reasons) == 3
    assert any("empty" in reason for reason in reasons.values())


def test_picture_statistics_are_kept_with_the_outcome(make_line, damaged, inspect_all):
    line = make_line(source={"uri": str(damaged)})
    first, _ = inspect_all(line.config)
    second, _ = inspect_all(line.config)
    with open_database(line.database_url) as database, database.session() as session:
        images, again = (list(run_images(session, run.run.id)) for run in (first, second))
    figures = {i.uri: (i.brightness, i.contrast, i.sharpness) for i in images}
    for image in images:
        if image.verdict == "unreadable":
            assert figures[image.uri] == (None, None, None)
        else:
            expected = picture_statistics(decode((damaged / image.uri).read_bytes()).pixels)
            assert figures[image.uri] == (expected.brightness, expected.contrast, expected.sharpness)
    # An outcome that is carried over keeps its own.
    assert {i.uri: (i.brightness, i.contrast, i.sharpness) for i in again} == figures


def result_missing(source: Path) -> tuple[MissingImage, ...]:
    listed = {p.relative_to(source).as_posix() for p in source.rglob("*.png")}
    rows = (source / "manifest.csv").read_text().splitlines()[1:]
    return tuple(MissingImage(*row.split(",")[:4]) for row in sorted(rows) if row.split(",")[0] not in listed)


@pytest.mark.parametrize("size", [1, 40], ids=["in two batches", "in one batch"])
def test_equal_pictures_share_one_outcome(make_line, damaged, inspect_all, size):
    line = make_line(source={"uri": str(damaged)}, run={"batch_size": size})
    inspection, result = inspect_all(line.config)
    with open_database(line.database_url) as database, database.session() as session:
        images = list(run_images(session, inspection.run.id))
        by_digest = Counter(i.digest for i in images)
        twice = next(d for d, n in by_digest.items() if n == 2)
        pair = [i for i in images if i.digest == twice]
    assert [i.carried_over for i in pair].count(True) == 1
    assert pair[0].score == pair[1].score
    assert result.counts.carried_over == 1


def test_running_again_computes_nothing_twice(make_line, monkeypatch, inspect_all):
    line = make_line()
    first, _ = inspect_all(line.config)

    def never(*_, **__):
        raise AssertionError("a known picture was classified again")

    def no_positions(_, positions):
        assert positions == [], "a known picture was decoded again"
        return {}

    monkeypatch.setattr("operations.inspection.decoders.Shelf.decode", no_positions)
    monkeypatch.setattr("classifiers.Predictor.predict", never)
    second, second_result = inspect_all(line.config)
    assert (first.run.reference, second.run.reference) == ("R000001", "R000002")
    assert second_result.counts.carried_over == second_result.counts.listed == 24
    assert verdicts_of(line.database_url, first.run.id) == verdicts_of(line.database_url, second.run.id)


def test_an_interrupted_run_goes_on_and_ends_like_an_undisturbed_one(make_line, inspect_all):
    disturbed, undisturbed = make_line("a"), make_line("b")
    begun, nothing = inspect_all(disturbed.config, stop_after=2)
    assert nothing is None
    resumed, result = inspect_all(disturbed.config)
    whole, expected = inspect_all(undisturbed.config)
    assert resumed.run.resumed
    assert resumed.run.id == begun.run.id
    assert result.counts == expected.counts
    assert verdicts_of(disturbed.database_url, resumed.run.id) == verdicts_of(
        undisturbed.database_url, whole.run.id
    )
    with open_database(disturbed.database_url) as database:
        assert verify(database, artifacts=resumed.store).problems == ()


def test_only_new_pictures_are_listed_when_asked_for(make_line, tmp_path, pictures, inspect_all):
    source = tmp_path / "inbox"
    shutil.copytree(pictures, source)
    line = make_line(source={"uri": str(source), "only_new": True})
    inspect_all(line.config)
    added = source / "images" / "L001" / "P999999.png"
    Image.fromarray(np.full((96, 96), 90, np.uint8)).save(added)
    inspection, result = inspect_all(line.config)
    assert (result.counts.listed, result.inspected_before) == (1, 24)
    # Other settings are another question: everything is asked again.
    _, other = inspect_all(line.config, ["explainer.mu=0.3"])
    assert other.counts.listed == 25
    with open_database(line.database_url) as database, database.session() as session:
        assert "24 pictures" in (run_summary(session, inspection.run.id).note or "")


def test_a_picture_that_changes_after_the_listing_is_noticed(make_line, tmp_path, pictures):
    source = tmp_path / "inbox"
    shutil.copytree(pictures, source)
    line = make_line(source={"uri": str(source)})
    victim = sorted((source / "images").rglob("*.png"))[-1]
    with pipeline.open_inspection(load_settings(line.config), "manual") as inspection:
        listed = list(inspection.listing())
        Image.fromarray(np.zeros((96, 96), np.uint8)).save(victim)
        batch = pipeline.classify(inspection, pipeline.decode(inspection, 1, listed))
        pipeline.record(inspection, pipeline.explain(inspection, batch))
        counts = pipeline.finish(inspection).counts
        assert (counts.unreadable, counts.listed) == (1, 24)
        with inspection.database.session() as session:
            (record,) = run_unreadable(session, inspection.run.id)
    assert victim.name in record.uri
    assert "changed" in record.reason


def test_a_finding_carries_its_evidence(make_line, inspect_all):
    line = make_line()
    inspection, _ = inspect_all(line.config)
    with open_database(line.database_url) as database, database.session() as session:
        findings = run_findings(session, inspection.run.id)
    assert findings
    for finding in findings:
        explanation = finding.explanation
        assert explanation.method == "sise-fast"
        assert explanation.parameters["share"] == 0.06
        assert (
            0
            < sum(layer.kept for layer in explanation.layers)
            < 0.1 * sum(layer.total for layer in explanation.layers)
        )
        assert finding.score >= finding.review_threshold
        picture = inspection.store.get(finding.image_digest)
        assert picture == (Path(inspection.source.root) / finding.uri).read_bytes()
        if explanation.map_digest is None:
            assert explanation.status != "ok"
            continue
        fused = decode_map(inspection.store.get(explanation.map_digest))
        assert fused.shape == (64, 64)
        assert fused.max() == 1.0
        assert len(explanation.block_maps) == len(explanation.layers)
        left, top, right, bottom = explanation.box
        assert 0 <= left < right <= 96
        assert 0 <= top < bottom <= 96


def test_all_pictures_are_kept_when_asked_for(make_line, inspect_all):
    line = make_line(artifacts={"pictures": "all"})
    inspection, _ = inspect_all(line.config)
    for uri, (_, _, digest) in verdicts_of(line.database_url, inspection.run.id).items():
        assert inspection.store.get(digest) == (Path(inspection.source.root) / uri).read_bytes()


def test_a_map_that_cannot_be_made_is_said_not_lost(make_line, monkeypatch, inspect_all):
    line = make_line()
    from explainers import ExplainerError

    def broken(*_):
        raise ExplainerError("layer 3: not a number")

    monkeypatch.setattr("explainers.sise.sise.Sise.__call__", broken)
    inspection, result = inspect_all(line.config)
    with open_database(line.database_url) as database, database.session() as session:
        findings = run_findings(session, inspection.run.id)
    assert len(findings) == result.counts.review + result.counts.reject > 0
    assert {f.explanation.status for f in findings} == {"failed: layer 3: not a number"}
    assert inspection.unexplained == len(findings)


def test_another_package_than_the_pinned_one_is_refused(make_line, inspect_all):
    line = make_line(model={"digest": "a" * 64})
    with pytest.raises(PackageError, match="pins"):
        inspect_all(line.config)


def test_an_uncalibrated_package_is_refused(make_line, package, inspect_all):
    line = make_line(model={"package": str(package.with_name("raw"))})
    with pytest.raises(PackageError, match="kensa calibrate"):
        inspect_all(line.config)


def test_wrong_paths_are_refused_before_anything_starts(make_line, tmp_path, inspect_all):
    line = make_line(source={"uri": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match=r"source\.uri"):
        inspect_all(line.config)
    assert not (line.folder / "kensa.db").exists()


def test_a_multi_label_model_gives_every_flagged_class_a_finding(
    make_line, inspect_all, tmp_path, pictures, make_thresholds, monkeypatch
):
    torch.manual_seed(5)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    with torch.no_grad():
        network.get_classifier().weight.mul_(50)
    content = {
        "architecture": "test_resnet",
        "model_args": {},
        "classes": ("dent", "pit", "scratch"),
        "good_class": None,
        "task": "multi-label",
        "preprocessing": Preprocessing(input_size=(64, 96)),  # square pictures get bars beside them
    }
    predictor = Predictor(save_package(tmp_path / "raw", network, **content))
    files = sorted(pictures.rglob("images/*/*.png"))
    tensors = torch.stack([predictor.transform(decode(f.read_bytes()).pixels) for f in files])
    probabilities = predictor.predict(tensors).probabilities
    second = float(np.quantile(np.sort(probabilities, axis=1)[:, 1], 0.5))  # half the pictures reach it twice
    thresholds = make_thresholds(second, (1 + second) / 2)
    package = save_package(tmp_path / "labels", network, **content, thresholds=thresholds)
    line = make_line(model={"package": str(package.path)})
    asked = []

    def recorded(self, images, targets, real=Sise.__call__):
        asked.append((len(images), targets))
        return real(self, images, targets)

    monkeypatch.setattr(Sise, "__call__", recorded)
    inspection, result = inspect_all(line.config)
    monkeypatch.undo()
    with open_database(line.database_url) as database:
        with database.session() as session:
            findings = run_findings(session, inspection.run.id)
        pdf = issue_report(
            database, inspection.store, inspection.run.id, inspection.settings.report, actor=pipeline.SYSTEM
        )
    per_picture = Counter(f.uri for f in findings)
    assert max(per_picture.values()) >= 2
    assert len(per_picture) == result.counts.review + result.counts.reject
    for finding in findings:
        row = files.index(pictures / finding.uri)
        column = content["classes"].index(finding.class_name)
        assert finding.class_score == pytest.approx(probabilities[row, column], abs=1e-5)
        assert finding.class_score >= second * 0.999
        if finding.explanation.map_digest:  # the bars are cut off: the map covers the picture alone
            assert decode_map(inspection.store.get(finding.explanation.map_digest)).shape == (64, 64)
    # The classes of a picture are explained in one call, with all other findings of the batch.
    assert len(asked) <= -(-24 // 5)  # batches
    assert sorted(len(classes) for _, targets in asked for classes in targets) == sorted(per_picture.values())
    assert all(count == len(targets) for count, targets in asked)
    # Each finding has the map of its own class.
    by_picture = {uri: [f for f in findings if f.uri == uri] for uri in per_picture}
    both = next(each for each in by_picture.values() if sum(bool(f.explanation.map_digest) for f in each) > 1)
    picture = tensors[[files.index(pictures / both[0].uri)]]
    again = inspection.explainer(picture, [[content["classes"].index(f.class_name) for f in both]])
    rows = [row for row, f in enumerate(both) if f.explanation.map_digest]
    stored = [decode_map(inspection.store.get(both[row].explanation.map_digest)) for row in rows]
    for row, own in zip(rows, stored, strict=True):
        np.testing.assert_allclose(own, again.maps[row, :, 16:80].numpy(), rtol=0, atol=1e-4)
    assert np.abs(stored[0] - stored[1]).max() > 0.1
    assert pdf.path.read_bytes().startswith(b"%PDF")


def test_a_map_survives_its_encoding():
    rng = np.random.default_rng(0)
    values = rng.random((17, 31), dtype=np.float32)
    assert np.abs(decode_map(encode_map(values)) - values).max() <= 0.5 / 65535 + 1e-7
    assert encode_map(values) == encode_map(values)


def test_the_box_frames_the_piece_with_the_peak():
    values = np.zeros((10, 10), np.float32)
    values[2:4, 3:6] = 0.9
    values[2, 3] = 1.0
    values[8:10, 8:10] = 0.8
    assert attribution_box(values, 100, 200) == (60, 20, 120, 40)
    assert attribution_box(np.zeros((10, 10), np.float32), 100, 200) is None


def test_a_run_removes_what_killed_processes_left(make_line, inspect_all, tmp_path, monkeypatch):
    code = "from db.files import process_name; print(process_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    killed = done.stdout.strip()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    key, _ = write_key(generate_key("line"), tmp_path, None)
    line = make_line()
    audit = {"checkpoints": str(line.folder / "checkpoints"), "signing_key": str(key)}
    overrides = [f"audit.{name}={value}" for name, value in audit.items()]
    left = [tmp_path / f"kensa-report-{killed}-abc"]
    left[0].mkdir()
    for folder in ("artifacts", "reports", "checkpoints"):
        (line.folder / folder).mkdir()
        left.append(line.folder / folder / f".x.{killed}-{'0' * 32}.part")
        left[-1].write_bytes(b"x")
    inspect_all(line.config, overrides, stop_after=1)
    assert [path for path in left if path.exists()] == []


def test_a_precision_decides_and_is_reported_by_thresholds_of_its_own(
    make_line, inspect_all, package_in_two, pictures
):
    """Outcomes, reports and a replay have the thresholds of the precision in which the run computed."""
    package = load_package(package_in_two)
    zones = {"float32": package.thresholds, "bfloat16": package.reduced[0].thresholds}
    line = make_line(
        model={"package": str(package_in_two), "device": "cpu", "engine": "torch"},
        artifacts={"pictures": "all"},
    )
    passed = {}
    for number, (precision, own) in enumerate(zones.items(), start=1):
        inspection, result = inspect_all(line.config, [f"model.precision={precision}"])
        passed[precision] = result.counts.passed
        with open_database(line.database_url) as database, database.session() as session:
            findings = run_findings(session, inspection.run.id)
            run = run_summary(session, inspection.run.id)
        assert {(f.review_threshold, f.reject_threshold) for f in findings} == {(own.review, own.reject)}
        assert run.model.thresholds["review"] == package.thresholds.review
        line.kensa("report", "run", f"R{number:06d}")
        (pdf,) = (line.folder / "reports").glob(f"R{number:06d}-1*.pdf")
        record = carried(pdf)
        assert record["model"]["criteria"]["review"]["threshold"] == own.review
        replayed = line.json("replay", f"R{number:06d}")
        assert {row["result"] for row in replayed} <= {"identical", "equal"}
    assert passed["bfloat16"] < passed["float32"]
    line.kensa("report", "period", "--lot", "L001")
    (pdf,) = (line.folder / "reports").glob("P*.pdf")
    (decided,) = carried(pdf)["in_force"]  # the later run's outcomes are those that count
    assert decided["model"]["criteria"]["review"]["threshold"] == zones["bfloat16"].review


def carried(pdf: Path) -> dict:
    """Return the record that a report carries."""
    return json.loads(read_attached(pdf.read_bytes()).files[RECORD])["record"]
