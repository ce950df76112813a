"""Check that the network in memory is the one that was validated, by its logits for test pictures.

The pictures are formulas and not random numbers: they are the same on every machine, with every version of
the libraries. They go through the package's own preprocessing: a resize that behaves differently is noticed
too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from classifiers.errors import PackageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from classifiers.package.preprocessing import Preprocessing

# The largest difference allowed, as a share of the range of the stored logits (taken as 1 where it is less).
# In float32 only the order of summation differs. The others round to a mantissa of 10 and 7 bits, in each of
# some dozens of layers; how much that adds up to is the network's: see docs/results.md.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1.5e-1}
# The same, of the logits that were stored in that very precision. Sums in another order round a few outputs
# the other way: at most 0.0055 and 0.0014 in eight networks. Rounding of other weights is beyond it.
OWN_TOLERANCE = {"float16": 5e-3, "bfloat16": 2e-2}
DECIMALS = 6  # of the stored logits, far below the tolerances


def parity_pictures() -> list[NDArray[np.uint8]]:
    """Return pictures (97, 131, 3) and (150, 110, 3) uint8, each of a plane wave, a blob and an edge."""
    pictures = []
    for height, width, frequency in ((97, 131, 0.21), (150, 110, 0.55)):
        row, column = np.mgrid[0:height, 0:width].astype(np.float64)
        wave = 40 * np.sin(frequency * row + 0.1 * column)
        blob = 90 * np.exp(-((row - height / 3) ** 2 + (column - width / 2) ** 2) / 200)
        edge = 30 * (column > 0.7 * width)
        channels = [128 + (1 - 0.2 * index) * wave + blob - edge + 5 * index for index in range(3)]
        pictures.append(np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8))
    return pictures


def parity_logits(
    model: torch.nn.Module, preprocessing: Preprocessing, *, temperature: float = 1.0
) -> list[list[float]]:
    """Return the network's logits for the test pictures, divided by the temperature and rounded to be stored.

    The network must be in eval mode; its parameters decide device and precision.
    """
    first = next(model.parameters())
    batch = torch.stack([preprocessing.transform(picture) for picture in parity_pictures()])
    with torch.inference_mode():
        logits = model(batch.to(first.device, first.dtype)).double().cpu() / temperature
    return [[round(value, DECIMALS) for value in row] for row in logits.tolist()]


def parity_difference(stored: Sequence[Sequence[float]], now: Sequence[Sequence[float]]) -> float:
    """Return the largest difference of logits from the stored ones, as a share of the range of these.

    A range below 1 counts as 1. It is infinite where a logit is not finite.

    Raises:
        PackageError: there are more or fewer logits than are stored.
    """
    expected, actual = np.asarray(stored), np.asarray(now)
    if expected.shape != actual.shape:
        raise PackageError(
            f"parity: {len(expected)} rows of logits are stored, and there are {len(actual)} pictures"
        )
    if not np.isfinite(actual).all():
        return float("inf")
    return float(np.max(np.abs(expected - actual))) / max(1.0, float(np.ptp(expected)))


def check_parity(
    stored: Sequence[Sequence[float]], now: Sequence[Sequence[float]], precision: str, *, own: bool = False
) -> None:
    """Raise an error where logits are not the stored ones.

    Args:
        stored: logits of the package.
        now: logits here.
        precision: of those here.
        own: the stored ones are of that precision as well, from its calibration, and not float32's.

    Raises:
        PackageError: the logits differ by more than `TOLERANCE` or `OWN_TOLERANCE`, or are not finite.
    """
    difference = parity_difference(stored, now)
    allowed = (OWN_TOLERANCE if own else TOLERANCE)[precision]
    if difference > allowed:
        advice = "or a precision it does not bear: try precision='float32'"
        if own:
            advice = "or a processor that rounds otherwise: run `kensa calibrate` here, or take float32"
        raise PackageError(
            f"parity: logits in {precision} differ from the validated ones by {difference:.3g} of their "
            f"spread, {allowed:g} is allowed; the network here is not the validated one "
            f"(other library versions, {advice})"
        )
