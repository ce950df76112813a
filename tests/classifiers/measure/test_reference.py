import numpy as np
import pytest

from classifiers import PackageError
from classifiers.measure.reference import Spread, as_json, read_reference, reference_of, spread
from sources.picture_statistics import PictureStatistics


def test_a_spread_by_hand() -> None:
    """0 to 100: the quantile p of 101 equal steps lies at 100 p; the variance is 101 * 102 / 12."""
    found = spread(np.arange(101.0), range(101))
    assert (found.n, found.mean) == (101, 50)
    assert found.sd == pytest.approx(np.sqrt(101 * 102 / 12))
    assert found.quantiles == pytest.approx((1, 5, 25, 50, 75, 95, 99))
    assert found.effective == 101
    assert spread(np.array([0.3]), [0]) == Spread(1, 0.3, 0.0, (0.3,) * 7, 1.0)


def test_a_reference_is_read_as_it_was_written() -> None:
    pictures = [PictureStatistics(0.1 * n, 0.01 * n, 1.0 * n) for n in range(1, 5)]
    scores = np.array([0.1, 0.9, 0.2, 0.7], dtype=np.float32)
    defective = np.array([False, True, False, True])
    reference = reference_of(pictures, scores, defective, review=0.15, groups=["a", "a", "b", "b"])
    assert reference.brightness.mean == pytest.approx(0.25)
    assert reference.sharpness.quantiles[3] == 2.5
    assert reference.good_score is not None
    assert (reference.good_score.n, reference.good_score.mean) == (2, pytest.approx(0.15))
    assert reference.defective_score.mean == pytest.approx(0.8)
    assert reference.passed_score is not None
    assert reference.passed_score.n == 1
    assert read_reference({"calibration": {"reference": as_json(reference)}}) == reference
    none_passed = reference_of(pictures, scores, defective, review=0.05, groups=["a", "a", "b", "b"])
    assert none_passed.passed_score is None
    before = {
        name: {k: v for k, v in each.items() if k != "effective"} for name, each in as_json(reference).items()
    }
    found = read_reference({"calibration": {"reference": before}})
    assert found is not None
    assert found.brightness.effective is None
    assert found.brightness.mean == reference.brightness.mean
    assert read_reference({"calibration": {"reference": as_json(none_passed)}}) == none_passed


@pytest.mark.parametrize("training", [{}, {"calibration": {"auroc": 0.9}}])
def test_a_package_of_before_has_none(training: dict[str, object]) -> None:
    assert read_reference(training) is None


@pytest.mark.parametrize(
    "stored",
    ["text", {}, {"brightness": {"n": 1, "mean": 0.5, "sd": 0.1, "quantiles": [0.5]}}, {"brightness": {}}],
)
def test_what_is_not_one_is_refused(stored: object) -> None:
    with pytest.raises(PackageError, match="reference statistics cannot be read"):
        read_reference({"calibration": {"reference": stored}})
