"""Agreement of two people who decided on the same findings: Cohen's kappa and what it means."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import ClassVar

from reports.stats.intervals import exact_interval
from reports.wording import percent, plural

# Landis, J. R. and Koch, G. G. (1977), The measurement of observer agreement for categorical data, Biometrics
# 33 (1), 159-174. They call their own division arbitrary.
LEVELS = ((0.0, "slight"), (0.2, "fair"), (0.4, "moderate"), (0.6, "substantial"), (0.8, "almost perfect"))
FEW = 30  # findings below which the interval of kappa is rough
# Where the second person saw the first decision, as in kensa's review, the two are not blind to each other.
CAVEAT = (
    "The words are those of Landis and Koch (1977), who call their limits arbitrary; kappa also depends on "
    "how common each decision is, so that values from different sets of findings compare poorly. The second "
    "person knew the first decision: two who judge apart agree less."
)


@dataclass(frozen=True)
class Agreement:
    """How far two deciders agree on `n` findings.

    `table[i][j]`: findings that the first put into categories[i] and the second into categories[j].
    `observed` and `expected`: share of agreement, and that expected of two who decide independently.
    `kappa` in [-1, 1], None where it is undefined; its asymptotic `standard_error`, and the `interval` for
    the given confidence cut to [-1, 1], None where the error is undefined or zero. `observed_interval`: of
    the share of agreement, after Clopper and Pearson.
    """

    RECORDED: ClassVar = ("level", "sentence")

    n: int
    categories: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]
    observed: float
    expected: float
    observed_interval: tuple[float, float]
    kappa: float | None
    standard_error: float | None
    interval: tuple[float, float] | None
    confidence: float

    @property
    def level(self) -> str | None:
        """Landis and Koch's word for kappa."""
        if self.kappa is None:
            return None
        if self.kappa < 0:
            return "poor"
        # Each word holds up to and including the next limit: 0.60 is moderate, 0.61 substantial.
        return [word for limit, word in LEVELS if self.kappa > limit + 1e-9 or limit == 0][-1]

    @property
    def sentence(self) -> str:
        """What was measured and what it means."""
        agreed = sum(self.table[i][i] for i in range(len(self.categories)))
        low, high = self.observed_interval
        start = (
            f"Two people decided on {plural(self.n, 'finding')} and agreed on {agreed} of them "
            f"({percent(self.observed)}; {percent(self.confidence)} interval {percent(low)} to "
            f"{percent(high)})."
        )
        if self.kappa is None:
            return (
                f"{start} Kappa is undefined: both used one decision only, so that chance alone would have "
                "made them agree."
            )
        if self.interval is None:
            return (
                f"{start} Cohen’s kappa is {self.kappa:.2f} ({self.level}); it has no interval, as the table "
                "leaves no room for its error to be estimated."
            )
        rough = f" With fewer than {FEW} findings the interval is rough." if self.n < FEW else ""
        return (
            f"{start} Cohen’s kappa is {self.kappa:.2f} ({percent(self.confidence)} interval "
            f"{self.interval[0]:.2f} to {self.interval[1]:.2f}): {self.level} agreement beyond chance.{rough}"
        )


def agreement(pairs: Iterable[tuple[str, str]], confidence: float = 0.95) -> Agreement | None:
    """Measure the agreement of (first decision, second decision), one pair a finding; None without any.

    Kappa is Cohen's (1960), unweighted; its standard error that of Fleiss, J. L., Cohen, J. and Everitt,
    B. S. (1969), Large sample standard errors of kappa and weighted kappa, Psychological Bulletin 72 (5),
    323-327, which does not assume that the two decide independently. Where different people decided first and
    second on different findings, it measures the agreement of the two roles.
    """
    counts = Counter(pairs)
    n = sum(counts.values())
    if not n:
        return None
    categories = tuple(sorted({category for pair in counts for category in pair}))
    k = range(len(categories))
    table = tuple(tuple(counts[a, b] for b in categories) for a in categories)
    p = [[cell / n for cell in row] for row in table]
    rows = [sum(row) for row in p]
    columns = [sum(p[i][j] for i in k) for j in k]
    observed = sum(table[i][i] for i in k) / n
    expected = sum(rows[i] * columns[i] for i in k)
    kappa = error = None
    # With one category in use, chance alone makes both agree: kappa is 0 / 0.
    if len(categories) > 1 and expected < 1:
        kappa = (observed - expected) / (1 - expected)
        rest = 1 - kappa
        variance = (
            sum(p[i][i] * (1 - (rows[i] + columns[i]) * rest) ** 2 for i in k)
            + rest**2 * sum(p[i][j] * (columns[i] + rows[j]) ** 2 for i in k for j in k if i != j)
            - (kappa - expected * rest) ** 2
        ) / (n * (1 - expected) ** 2)
        error = sqrt(max(0.0, variance))
    interval = None
    if kappa is not None and error is not None and error > 1e-9:
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
        interval = (max(-1.0, kappa - reach), min(1.0, kappa + reach))
    return Agreement(
        n=n,
        categories=categories,
        table=table,
        observed=observed,
        expected=expected,
        observed_interval=exact_interval(round(observed * n), n, confidence),
        kappa=kappa,
        standard_error=error,
        interval=interval,
        confidence=confidence,
    )
