"""A large rolled surface with a scratch of a few pixels, as a line's camera sees it."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SCRATCH = (60, 3)  # pixels, width and height


def scratched_surface(
    height: int, width: int, *scratches: tuple[int, int], seed: int = 1
) -> npt.NDArray[np.uint8]:
    """Return a grey picture (height, width) uint8 with a scratch at each (left, top)."""
    rng = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter1d(rng.normal(0, 1, (height, width)).astype(np.float32), 12, axis=1)
    pixels = 128 + 6 * grain / grain.std() + rng.normal(0, 2.5, (height, width))
    for left, top in scratches:
        pixels[top : top + SCRATCH[1], left : left + SCRATCH[0]] -= 70
    return np.clip(pixels, 0, 255).astype(np.uint8)
