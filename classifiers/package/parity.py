"""Is the network in memory the one that was validated? Logits for analytic test pictures answer.

The pictures are formulas, not random numbers: the same on every machine and library version. They go through
the package's own preprocessing, so that a resize that behaves differently is noticed as well.
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

# Largest difference allowed, as a share of the spread of the stored logits (at least 1). Float32 differs by
# summation order alone; the others by the width of their mantissa, through some dozens of layers.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1.5e-1}
DECIMALS = 6


def parity_pictures() -> list[NDArray[np.uint8]]:
    """Two pictures (97, 131, 3) and (150, 110, 3) uint8 made of plane waves, blobs and an edge."""
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
    """The network's logits for the test pictures, divided by the temperature, rounded as they are stored.

    The network must be in eval mode; device and precision are those of its parameters.
    """
    first = next(model.parameters())
    batch = torch.stack([preprocessing.transform(picture) for picture in parity_pictures()])
    with torch.inference_mode():
        logits = model(batch.to(first.device, first.dtype)).double().cpu() / temperature
    return [[round(value, DECIMALS) for value in row] for row in logits.tolist()]


def check_parity(stored: Sequence[Sequence[float]], now: Sequence[Sequence[float]], precision: str) -> None:
    """Compare logits with the stored ones.

    Raises:
        PackageError: they differ by more than `TOLERANCE[precision]` allows, or are not finite.
    """
    expected, actual = np.asarray(stored), np.asarray(now)
    scale = max(1.0, float(np.ptp(expected)))
    difference = (
        float(np.max(np.abs(expected - actual))) / scale if np.isfinite(actual).all() else float("inf")
    )
    if difference > TOLERANCE[precision]:
        raise PackageError(
            f"parity: logits in {precision} differ from the validated ones by {difference:.3g} of their "
            f"spread, {TOLERANCE[precision]:g} is allowed; the network here is not the validated one "
            "(other library versions, or a precision it does not bear: try precision='float32')"
        )
