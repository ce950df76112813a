"""Drift: a statistic of the pictures of a run, compared with the same statistic of the calibration set.

A model's thresholds and rates hold for pictures like those it was calibrated on. The checks here say when a
run's pictures, or the scores that they get, are no longer alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt
from statistics import NormalDist
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from reports.errors import ReportError
from reports.stats.intervals import exact_interval
from reports.wording import clip, grouped, percent, plural

Sign = Literal["mean", "spread", "outside"]

# A sign of drift must be both material and clear: at least this large, and beyond what chance explains.
SHIFT = 0.5  # standard deviations of the calibration set
SPREAD = 1.5  # times, or one part in
OUTSIDE = 0.05  # share beyond the 1st and 99th percentile, where 0.02 is expected
CLEAR = 3.0  # standard errors


@dataclass(frozen=True)
class Reference:
    """A statistic over the `n` pictures of the calibration set: mean, standard deviation, quantiles.

    `quantiles` holds (level, value) with rising levels in [0, 1], 0.01, 0.25, 0.75 and 0.99 among them.
    `effective`: how many independent pictures they are worth, since those of one part are alike; None where
    nobody reckoned it.
    """

    n: int
    mean: float
    sd: float
    quantiles: tuple[tuple[float, float], ...]
    effective: float | None = None

    def __post_init__(self) -> None:
        values = [self.mean, self.sd, *(value for _, value in self.quantiles)]
        if self.n < 1 or self.sd < 0 or not all(isfinite(value) for value in values):
            raise ReportError(
                f"calibration statistics: n {self.n}, standard deviation {self.sd}: at least one picture "
                "and finite values are needed; calibrate the model again"
            )
        levels, ordered = zip(*self.quantiles, strict=True) if self.quantiles else ((), ())
        if list(levels) != sorted(set(levels)) or list(ordered) != sorted(ordered):
            raise ReportError("calibration statistics: quantiles do not rise; calibrate the model again")
        for level in (0.01, 0.25, 0.75, 0.99):
            self.quantile(level)

    def quantile(self, level: float) -> float:
        """Return the value of a quantile; ReportError where it is not among those kept."""
        for known, value in self.quantiles:
            if abs(known - level) < 1e-9:
                return value
        raise ReportError(f"calibration statistics: quantile {level} is missing; calibrate the model again")


@dataclass(frozen=True)
class Sample:
    """A statistic over the `n` pictures of one run; `below` and `above` count those beyond the reference's
    1st and 99th percentile, None where nobody counted. `current` marks the run that the report is about.
    `effective`: as for `Reference`."""

    label: str
    n: int
    mean: float
    sd: float
    below: int | None = None
    above: int | None = None
    current: bool = False
    effective: float | None = None

    def __post_init__(self) -> None:
        counts = [count for count in (self.below, self.above) if count is not None]
        if self.n < 1 or len(counts) == 1 or min(counts, default=0) < 0 or sum(counts) > self.n:
            raise ReportError(
                f"statistics of {self.label!r}: {self.below} below and {self.above} above of {self.n} "
                "pictures; count again"
            )

    @property
    def outside(self) -> int | None:
        """Pictures beyond either percentile."""
        return None if self.below is None or self.above is None else self.below + self.above


@dataclass(frozen=True)
class Drift:
    """A sample against its reference.

    `shift`: difference of the means in standard deviations of the reference; `spread`: ratio of the standard
    deviations (both None where the reference has no spread). `outside`: share beyond the reference's 1st and
    99th percentile, `outside_interval` its two-sided 95 % Clopper-Pearson interval (both None where nobody
    counted). `signs` of drift, if any.
    """

    RECORDED: ClassVar = ("sentence",)

    statistic: str
    sample: Sample
    reference_mean: float
    shift: float | None
    spread: float | None
    outside: float | None
    outside_interval: tuple[float, float] | None
    signs: tuple[Sign, ...]

    @property
    def warned(self) -> bool:
        """Whether there is any sign of drift."""
        return bool(self.signs)

    @property
    def sentence(self) -> str:
        """What was measured and what it means."""
        sample = self.sample
        parts = [f"{clip(self.statistic, 60)}: mean {sample.mean:.4g} over {plural(sample.n, 'picture')}"]
        if sample.effective is not None and int(sample.effective) < sample.n:
            parts[0] += f" (worth {grouped(int(sample.effective))} independent ones)"
        if self.shift is not None and self.spread is not None:
            side = "above" if self.shift >= 0 else "below"
            parts[0] += (
                f", {abs(self.shift):.2f} standard deviations {side} the calibration set’s "
                f"{self.reference_mean:.4g}"
            )
            parts.append(f"spread {self.spread:.2f} times the calibration set’s")
        if self.outside is not None and self.outside_interval is not None:
            low, high = self.outside_interval
            parts.append(
                f"{percent(self.outside)} outside its 1st to 99th percentile, where 2 % are expected "
                f"(95 % interval {percent(low)} to {percent(high)})"
            )
        words = {
            "mean": "the mean has moved",
            "spread": "the spread has changed",
            "outside": "too many lie outside",
        }
        verdict = ", ".join(words[sign] for sign in self.signs)
        ending = f"Drift: {verdict}." if verdict else "No sign of drift."
        return f"{'; '.join(parts)}. {ending}"


@dataclass(frozen=True)
class Trend:
    """A statistic over several runs, oldest first, each compared with the reference."""

    statistic: str
    reference: Reference
    points: tuple[Drift, ...]


def sample(
    label: str, values: npt.ArrayLike, reference: Reference, *, current: bool = False
) -> Sample | None:
    """Return the sample of a run's finite values of a statistic; None where no value is finite."""
    array = np.asarray(values, dtype=np.float64).ravel()
    array = array[np.isfinite(array)]
    if not array.size:
        return None
    return Sample(
        label=label,
        n=int(array.size),
        mean=float(array.mean()),
        sd=float(array.std(ddof=1)) if array.size > 1 else 0.0,
        below=int(np.count_nonzero(array < reference.quantile(0.01))),
        above=int(np.count_nonzero(array > reference.quantile(0.99))),
        current=current,
    )


def compare(statistic: str, reference: Reference, sample: Sample) -> Drift:
    """Compare a run with the calibration set.

    There is a sign of drift where

    * mean: it lies at least half a standard deviation off, and three standard errors of the difference;
    * spread: the standard deviation is 1.5 times as large or as small, and the F-test of the variances
      refuses that they are equal as clearly as three standard errors do (0.135 % on either side);
    * outside: the lower end of the share's interval is above 5 %, where 2 % are expected.

    The tests are those for independent values that are about normal, as many as the pictures are worth; those
    of one lot are seldom independent either, which is why a difference must be material as well.
    """
    outside = sample.outside
    interval = None if outside is None else exact_interval(outside, sample.n, effective=sample.effective)
    sizes = _size(sample), _size(reference)
    shift = spread = None
    signs: list[Sign] = []
    if reference.sd > 0:
        shift = (sample.mean - reference.mean) / reference.sd
        spread = sample.sd / reference.sd
        if abs(shift) >= SHIFT and abs(shift) > CLEAR * sqrt(1 / sizes[0] + 1 / sizes[1]):
            signs.append("mean")
        if max(spread, 1 / spread if spread else inf) >= SPREAD and _spreads_differ(sample, reference):
            signs.append("spread")
    if interval is not None and interval[0] > OUTSIDE:
        signs.append("outside")
    return Drift(
        statistic=statistic,
        sample=sample,
        reference_mean=reference.mean,
        shift=shift,
        spread=spread,
        outside=None if outside is None else outside / sample.n,
        outside_interval=interval,
        signs=tuple(signs),
    )


def trend(statistic: str, reference: Reference, samples: Sequence[Sample]) -> Trend:
    """Compare several runs, oldest first, with the calibration set."""
    return Trend(statistic, reference, tuple(compare(statistic, reference, each) for each in samples))


def _size(values: Sample | Reference) -> float:
    return values.n if values.effective is None else values.effective


def _spreads_differ(sample: Sample, reference: Reference) -> bool:
    from scipy.stats import f

    freedom = (_size(sample) - 1, _size(reference) - 1)
    if min(freedom) <= 0:
        return False
    ratio = (sample.sd / reference.sd) ** 2
    return bool(min(f.cdf(ratio, *freedom), f.sf(ratio, *freedom)) < NormalDist().cdf(-CLEAR))
