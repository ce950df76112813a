"""The pictures of the synthetic generator: rolled-metal surfaces with exact defect masks.

Reflectance (grain along the rolling direction, roll marks, specks) times uneven light, seen through slightly
soft optics by a noisy sensor. What looks like a defect but is none (roll marks, specks, mottled grain) occurs
in every class, so that a model has to look at shapes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SURFACE_CLASSES = ("good", "scratch", "pit", "inclusion", "patch")

Field = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Plate:
    """Coordinates of the pixels: `x`, `y` from the centre; `along` and `across` the rolling direction."""

    size: int
    scale: float  # feature sizes below are given for a picture of 160 pixels
    angle: float
    x: Field
    y: Field
    along: Field
    across: Field


def surface(label: str, rng: np.random.Generator, size: int = 160) -> tuple[npt.NDArray[np.uint8], Mask]:
    """Return a grey picture (size, size) uint8 and the mask (size, size) bool of its defect.

    Args:
        label: one of `SURFACE_CLASSES`; "good" has no defect.
        rng: the same state gives the same picture.
        size: of a side, in pixels, at least 32.

    Raises:
        ValueError: an unknown label or a smaller size.
    """
    if label not in SURFACE_CLASSES:
        raise ValueError(f"label {label!r}: expected one of {', '.join(SURFACE_CLASSES)}")
    if size < 32:
        raise ValueError(f"size {size}: a surface needs at least 32 pixels")
    plate = _plate(rng, size)
    grain = _grain(plate, rng)
    reflectance = rng.uniform(95, 165) * (1 + grain)
    reflectance *= 1 + _roll_marks(plate, rng) + _specks(plate, rng)
    mask = np.zeros((size, size), dtype=bool)
    if label != "good":
        effect = np.zeros_like(grain)
        # Chance can shape a defect of next to nothing: it is drawn again until it can be seen.
        while np.count_nonzero(mask) < 12 * plate.scale**2:
            effect, mask = _DEFECTS[label](plate, rng, grain)
        reflectance *= 1 + effect
    seen = ndimage.gaussian_filter(reflectance * _light(plate, rng), rng.uniform(0.45, 0.75), mode="nearest")
    noise = rng.standard_normal((size, size)) * np.sqrt(2.0 + 0.045 * np.clip(seen, 0, None))
    return np.clip(np.rint(seen + noise), 0, 255).astype(np.uint8), mask


def _plate(rng: np.random.Generator, size: int) -> _Plate:
    angle = rng.normal(0, np.deg2rad(6))
    axis = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(axis, axis)
    along, across = _turned_axes(x, y, angle)
    return _Plate(size, size / 160, angle, x, y, along, across)


def _turned_axes(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos + y * sin, y * cos - x * sin


def _noise(plate: _Plate, rng: np.random.Generator, parts: list[tuple[float, float, float]]) -> Field:
    """Return Gaussian noise, a sum of `parts` (standard deviation, length along, length across the grain)."""
    fy: Field = np.fft.fftfreq(plate.size)[:, None].astype(np.float64)
    fx: Field = np.fft.rfftfreq(plate.size)[None, :].astype(np.float64)
    u, v = _turned_axes(fx, fy, plate.angle)
    power = np.zeros(u.shape)
    for deviation, length, width in parts:
        part = np.exp(-((u * length * plate.scale) ** 2 + (v * width * plate.scale) ** 2) * np.pi**2)
        part[0, 0] = 0  # no shift of the mean
        weight = np.full(part.shape[1], 2.0)  # half of the spectrum is stored: columns count twice ...
        weight[0] = 1.0  # ... but for the first
        power += part * (deviation**2 * plate.size**2 / (part * weight).sum())
    white = np.fft.rfft2(rng.standard_normal((plate.size, plate.size)))
    return np.fft.irfft2(white * np.sqrt(power), s=(plate.size, plate.size))


def _grain(plate: _Plate, rng: np.random.Generator) -> Field:
    rough = np.exp(rng.uniform(np.log(0.6), np.log(1.5)))
    streaks = _noise(
        plate,
        rng,
        [
            (0.030 * rough, rng.uniform(50, 130), rng.uniform(1.6, 3.0)),
            (0.028 * rough, rng.uniform(10, 25), rng.uniform(0.8, 1.4)),
            (0.024 * rough, rng.uniform(20, 60), rng.uniform(0.3, 0.6)),
        ],
    )
    mottle = _noise(plate, rng, [(1.0, rng.uniform(50, 90), rng.uniform(25, 45))])
    return streaks * (1 + 0.35 * np.tanh(mottle)) + 0.022 * mottle


def _roll_marks(plate: _Plate, rng: np.random.Generator) -> Field:
    """Return faint straight lines that run the whole plate along the grain: harmless."""
    marks = np.zeros_like(plate.x)
    for _ in range(rng.poisson(1.2)):
        offset = rng.uniform(-0.5, 0.5) * plate.size
        width = rng.uniform(0.6, 1.6) * plate.scale
        fade = 1 + 0.5 * np.sin(plate.along * rng.uniform(1, 4) / plate.size + rng.uniform(0, 2 * np.pi))
        marks += rng.uniform(-0.13, 0.13) * fade * np.exp(-(((plate.across - offset) / width) ** 2))
    return marks


def _specks(plate: _Plate, rng: np.random.Generator) -> Field:
    """Return dust of about a pixel: harmless."""
    specks = np.zeros_like(plate.x)
    for _ in range(rng.poisson(2.5)):
        cx, cy = rng.uniform(-0.5, 0.5, 2) * plate.size
        radius = rng.uniform(0.5, 1.1) * plate.scale
        distance = (plate.x - cx) ** 2 + (plate.y - cy) ** 2
        specks += rng.uniform(-0.2, 0.2) * np.exp(-distance / radius**2)
    return specks


def _light(plate: _Plate, rng: np.random.Generator) -> Field:
    """Return the light: a slope, a broad band of gloss and the lens's fall-off; about 0.6 to 1.4."""
    half = plate.size / 2
    direction = rng.uniform(0, 2 * np.pi)
    slope = (plate.x * np.cos(direction) + plate.y * np.sin(direction)) / half
    gloss = np.exp(-(((plate.across / half - rng.uniform(-1, 1)) / rng.uniform(0.4, 1.0)) ** 2))
    falloff = (plate.x**2 + plate.y**2) / half**2
    light: Field = (
        1 + rng.uniform(0, 0.14) * slope + rng.uniform(0, 0.2) * gloss - rng.uniform(0, 0.1) * falloff
    )
    return light


def _random_place(plate: _Plate, rng: np.random.Generator, margin: float = 0.08) -> tuple[float, float]:
    x, y = rng.uniform(-0.5 + margin, 0.5 - margin, 2) * plate.size
    return float(x), float(y)


def _random_strength(rng: np.random.Generator, faint: float, plain: float) -> float:
    return float(np.exp(rng.uniform(np.log(faint), np.log(plain))))


def _scratch(plate: _Plate, rng: np.random.Generator, grain: Field) -> tuple[Field, Mask]:
    """Return one to three slightly bent lines at an angle to the grain: a groove with a raised flank."""
    effect, mask = np.zeros_like(plate.x), np.zeros(plate.x.shape, dtype=bool)
    angle = plate.angle + rng.choice([-1, 1]) * np.deg2rad(rng.uniform(12, 90))
    cx, cy = _random_place(plate, rng, 0.2)
    strength = _random_strength(rng, 0.1, 0.45) * rng.choice([-1, -1, 1])
    bend, wave = rng.uniform(-0.004, 0.004) / plate.scale, rng.uniform(0, 1.5) * plate.scale
    pitch, phase = rng.uniform(12, 40) * plate.scale, rng.uniform(0, 2 * np.pi)
    for number in range(rng.choice([1, 1, 1, 2, 3])):
        length = rng.uniform(14, 75) * plate.scale / (1 + 0.5 * number)
        width = rng.uniform(0.8, 1.9) * plate.scale
        gap = number * rng.uniform(3, 9) * plate.scale
        t, s = _turned_axes(plate.x - cx, plate.y - cy, angle + rng.normal(0, 0.03))
        s = (s - gap - bend * t**2 - wave * np.sin(t / pitch + phase)) / width
        taper = np.clip(1 - np.abs(t / length) ** 4, 0, 1)
        effect += strength * taper * (np.exp(-(s**2)) - 0.45 * np.exp(-(((s - 1.6) / 0.8) ** 2)))
        mask |= (np.abs(s) <= 1.25) & (taper > 0.15)
    return effect, mask


def _pit(plate: _Plate, rng: np.random.Generator, grain: Field) -> tuple[Field, Mask]:
    """Return one pit or a loose cluster: a dark crater, its far wall catching the light."""
    effect, mask = np.zeros_like(plate.x), np.zeros(plate.x.shape, dtype=bool)
    cx, cy = _random_place(plate, rng)
    strength, light = _random_strength(rng, 0.15, 0.6), rng.uniform(0, 2 * np.pi)
    count = rng.choice([1, 1, 1, 2, 3, 5, 8])
    for _ in range(count):
        radius = rng.uniform(2.0, 6.5 if count < 3 else 3.4) * plate.scale
        dx, dy = rng.normal(0, 9 * plate.scale, 2) if count > 1 else (0.0, 0.0)
        x, y = _turned_axes(plate.x - cx - dx, plate.y - cy - dy, rng.uniform(0, np.pi))
        y = y * rng.uniform(1.0, 1.5)
        turn = np.arctan2(y, x)
        edge = radius * (1 + 0.12 * np.sin(3 * turn + rng.uniform(0, 6)) + 0.08 * np.sin(5 * turn))
        r = np.hypot(x, y) / edge
        floor = np.clip(1.15 - r**2, 0, 1) ** 0.7
        wall = np.exp(-(((r - 0.95) / 0.28) ** 2)) * np.cos(
            np.arctan2(plate.y - cy - dy, plate.x - cx - dx) - light
        )
        effect += strength * (0.8 * wall - floor)
        mask |= r <= 1.05
    return np.clip(effect, -0.85, 0.8), mask


def _inclusion(plate: _Plate, rng: np.random.Generator, grain: Field) -> tuple[Field, Mask]:
    """Return foreign matter rolled into the plate: ragged stringers along the grain, dark and dull."""
    effect, mask = np.zeros_like(plate.x), np.zeros(plate.x.shape, dtype=bool)
    cx, cy = _random_place(plate, rng)
    strength = _random_strength(rng, 0.12, 0.5)
    ragged = _noise(plate, rng, [(0.26, 9, 2.5), (0.16, 3, 1.5)])
    t0, s0 = _turned_axes(plate.x - cx, plate.y - cy, plate.angle + rng.normal(0, 0.03))
    for number in range(rng.choice([1, 1, 2, 3])):
        length = rng.uniform(6, 24) * plate.scale
        width = rng.uniform(1.7, 4.5) * plate.scale
        t = (t0 - number * rng.normal(0, 22) * plate.scale) / length
        s = (s0 - number * rng.normal(0, 4) * plate.scale) / width
        depth = 1 - np.sqrt(t**2 + s**2) + ragged * (np.hypot(t, s) < 1.8)
        body = np.clip(depth * 3.5, 0, 1)
        effect = np.minimum(effect, -strength * body * (1 + 0.6 * ragged))
        mask |= body > 0.3
    return effect - grain * 0.6 * mask, mask


def _patch(plate: _Plate, rng: np.random.Generator, grain: Field) -> tuple[Field, Mask]:
    """Return a stain or a scale: a large irregular area of other brightness and grain, with a darker seam."""
    cx, cy = _random_place(plate, rng, 0.12)
    t, s = _turned_axes(plate.x - cx, plate.y - cy, plate.angle + rng.normal(0, 0.5))
    length, width = rng.uniform(16, 42) * plate.scale, rng.uniform(10, 26) * plate.scale
    ragged = _noise(plate, rng, [(0.22, 26, 20), (0.10, 8, 6)])
    depth = 1 - np.sqrt((t / length) ** 2 + (s / width) ** 2) + ragged
    body = np.clip(depth * rng.uniform(5, 14) + 0.5, 0, 1)
    strength = _random_strength(rng, 0.065, 0.3) * rng.choice([-1, -1, 1])
    blotch = 1 + rng.uniform(0.5, 1.6) * ragged
    seam = rng.uniform(0, 0.5) * abs(strength) * np.exp(-((depth / 0.1) ** 2))
    dulled = rng.uniform(0.1, 0.8) * grain
    return body * (strength * blotch - dulled) - seam, body >= 0.5


_DEFECTS: dict[str, Callable[[_Plate, np.random.Generator, Field], tuple[Field, Mask]]] = {
    "scratch": _scratch,
    "pit": _pit,
    "inclusion": _inclusion,
    "patch": _patch,
}
