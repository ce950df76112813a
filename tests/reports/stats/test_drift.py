"""Drift against the calibration set, against scipy's own sums and for samples that only chance moves."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from classifiers.measure.effective_size import effective_size
from reports.content.inspection import ReportError
from reports.stats.drift import Reference, Sample, compare, sample

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def reference_of(values):
    return Reference(
        len(values),
        float(np.mean(values)),
        float(np.std(values, ddof=1)),
        tuple((q, float(np.quantile(values, q))) for q in LEVELS),
    )


CALIBRATION = reference_of(np.random.default_rng(1).normal(118, 9, 1800))


def test_what_is_measured():
    values = np.random.default_rng(2).normal(124, 16, 480)
    found = compare("brightness", CALIBRATION, sample("R000012", values, CALIBRATION, current=True))
    assert found.shift == pytest.approx((values.mean() - CALIBRATION.mean) / CALIBRATION.sd)
    assert found.spread == pytest.approx(values.std(ddof=1) / CALIBRATION.sd)
    outside = (values < CALIBRATION.quantile(0.01)).sum() + (values > CALIBRATION.quantile(0.99)).sum()
    assert found.outside == outside / 480
    low, high = found.outside_interval
    assert stats.binom.sf(outside - 1, 480, low) == pytest.approx(0.025)
    assert stats.binom.cdf(outside, 480, high) == pytest.approx(0.025)
    assert found.signs == ("mean", "spread", "outside")
    assert found.warned
    assert found.sentence.startswith("brightness: mean 12")
    assert found.sentence.endswith("Drift: the mean has moved, the spread has changed, too many lie outside.")


def test_chance_alone_is_no_drift():
    rng = np.random.default_rng(3)
    found = [
        compare("x", CALIBRATION, sample("r", rng.normal(118, 9, n), CALIBRATION))
        for n in (1, 2, 5, 20, 200, 5000)
        for _ in range(100)
    ]
    assert sum(each.warned for each in found) < 6, "three standard errors, two tests: below 1 in 100"
    calm = next(each for each in found if not each.warned)
    assert calm.sentence.endswith("No sign of drift.")


@pytest.mark.parametrize(
    ("mean", "sd", "n", "signs"),
    [
        (118 + 4.0, 9, 5000, ()),  # clear, but not material
        (118 + 6.0, 9, 5000, ("mean",)),
        (118 + 6.0, 9, 9, ()),  # material, but not clear
        (118, 9 * 1.6, 400, ("spread",)),
        (118, 9 / 1.7, 400, ("spread",)),
        (118, 9 * 1.6, 9, ()),
        (118, 0.0, 50, ("spread",)),
    ],
)
def test_a_sign_is_material_and_clear(mean, sd, n, signs):
    assert compare("x", CALIBRATION, Sample("r", n, mean, sd, 0, 0)).signs == signs


def test_views_of_one_part_are_no_drift():
    """Ten parts of eight like views, against ten others: nothing that chance does not explain."""
    rng = np.random.default_rng(5)
    alarms = {True: 0, False: 0}
    for _ in range(200):
        brightness = np.repeat(rng.normal(118, 9, 20), 8) + rng.normal(0, 1, 160)
        parts = [index // 8 for index in range(80)]
        calibration, values = brightness[:80], brightness[80:]
        for reckoned in (True, False):
            reference = reference_of(calibration)
            run = sample("run", values, reference)
            if reckoned:
                reference = replace(reference, effective=effective_size(calibration, parts))
                run = replace(run, effective=effective_size(values, parts))
            alarms[reckoned] += bool({"mean", "spread"} & set(compare("brightness", reference, run).signs))
    assert alarms[True] < 8
    assert alarms[False] > 80
    assert (
        "over 80 pictures (worth 10 independent ones)"
        in compare("brightness", reference, replace(run, effective=10.7)).sentence
    )


def test_a_tail_alone_is_seen():
    assert compare("x", CALIBRATION, Sample("r", 400, 118, 9, 0, 32)).signs == ("outside",)
    assert compare("x", CALIBRATION, Sample("r", 400, 118, 9, 12, 12)).signs == ()


def test_a_reference_without_spread_still_counts_what_lies_outside():
    flat = Reference(50, 1.0, 0.0, tuple((q, 1.0) for q in LEVELS))
    found = compare("x", flat, sample("r", [1.0] * 10 + [2.0] * 10, flat))
    assert (found.shift, found.spread, found.outside, found.signs) == (None, None, 0.5, ("outside",))
    assert "50 % outside" in found.sentence


def test_a_sample_of_which_only_mean_and_spread_are_known():
    found = compare("x", CALIBRATION, Sample("r", 400, 130, 9))
    assert (found.outside, found.outside_interval, found.signs) == (None, None, ("mean",))
    assert "outside" not in found.sentence


def test_values_that_are_no_numbers_are_left_out():
    assert sample("r", [np.nan, np.inf, 3.0], CALIBRATION) == Sample("r", 1, 3.0, 0.0, 1, 0)
    assert sample("r", [np.nan], CALIBRATION) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reference(0, 0, 0, CALIBRATION.quantiles), "at least one picture"),
        (lambda: Reference(9, 0, -1, CALIBRATION.quantiles), "calibrate the model again"),
        (lambda: Reference(9, float("nan"), 1, CALIBRATION.quantiles), "finite"),
        (lambda: Reference(9, 0, 1, ()), "quantile 0.01 is missing"),
        (lambda: Reference(9, 0, 1, ((0.01, 3.0), (0.99, 1.0))), "do not rise"),
        (lambda: Sample("r", 5, 0, 1, 3, None), "'r': 3 below and None above"),
        (lambda: Sample("r", 5, 0, 1, 3, 3), "'r': 3 below and 3 above of 5 pictures"),
    ],
)
def test_bad_statistics_are_refused(make, message):
    with pytest.raises(ReportError, match=message):
        make()
