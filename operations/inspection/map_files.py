"""Attribution maps as files: 16-bit PNG, exact to 1/65535."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

FloatMap = npt.NDArray[np.float32]


def decode_map(data: bytes) -> FloatMap:
    """Read a map that `encode_map` wrote: (h, w) float32 in [0, 1], exact to 1/65535."""
    with Image.open(io.BytesIO(data)) as picture:
        return (np.asarray(picture, dtype=np.float32) / np.float32(65535)).astype(np.float32)


def encode_map(values: FloatMap) -> bytes:
    """Encode a map (h, w) in [0, 1] as a 16-bit grey PNG, which any viewer opens in ten years' time."""
    grey = np.rint(np.clip(values, 0.0, 1.0) * 65535).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()
