"""The exact interval of a share: Clopper, C. J. and Pearson, E. S. (1934), Biometrika 26 (4), 404-413."""

from classifiers.measure.intervals import interval


def exact_interval(
    count: int, total: int, confidence: float = 0.95, effective: float | None = None
) -> tuple[float, float]:
    """Return the two-sided interval (lower, upper) in [0, 1] of a share after `count` of `total`.

    `effective`: how many independent pictures they are worth, where that is not `total`.
    """
    # `classifiers.measure.intervals` takes the same bounds from the beta distribution: they differ by up to
    # 5e-13. Reports attach every digit, so issued ones come out byte for byte only with this function.
    if effective is not None and effective != total:
        return interval(count, total, confidence, effective)
    from scipy.stats import binomtest

    found = binomtest(count, total).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)
