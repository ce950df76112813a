"""The model package that ships: small, whole, calibrated, and its card says what it is."""

import json
from pathlib import Path

from classifiers import Predictor, load_package
from classifiers.measure.reference import read_reference
from configs.loading import load_settings

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "classifiers" / "packages" / "synthetic-surface"


def test_the_package_is_small_whole_and_calibrated() -> None:
    assert sum(path.stat().st_size for path in PACKAGE.iterdir()) <= 6_000_000
    package = load_package(PACKAGE)
    Predictor(package)  # the parity check: this network is the validated one
    assert package.thresholds is not None
    assert package.thresholds.escape_bound <= package.thresholds.target_escape_rate
    assert set(package.classes) == {"good", "scratch", "pit", "inclusion", "patch"}


def test_the_card_names_digest_and_exact_command() -> None:
    card = (PACKAGE / "MODEL_CARD.md").read_text()
    content = json.loads((PACKAGE / "model.json").read_text())
    assert content["digest"] in card
    assert content["training"]["command"] in card.replace(" \\\n ", "")


def test_the_demo_profile_names_it() -> None:
    assert (ROOT / load_settings("demo").model.package) == PACKAGE


def test_the_package_knows_how_its_calibration_pictures_looked() -> None:
    reference = read_reference(load_package(PACKAGE).training)
    assert reference is not None
    assert reference.good_score is not None
    assert (reference.brightness.n, reference.good_score.n, reference.defective_score.n) == (800, 401, 399)
    assert 0 < reference.sharpness.quantiles[0] < reference.sharpness.mean < reference.sharpness.quantiles[-1]
