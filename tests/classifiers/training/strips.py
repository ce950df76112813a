"""Synthetic strips: long pictures with a texture, some with a defect of a few pixels, and its mask."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 480


def strip(rng: np.random.Generator, defect: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a grey strip and the mask of its defect, 6 x 4 pixels of 48 x 480: 0.1 % of the picture."""
    pixels = rng.normal(120, 6, (HEIGHT, WIDTH)) + rng.normal(0, 10)
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    if defect:
        top, left = int(rng.integers(2, HEIGHT - 6)), int(rng.integers(2, WIDTH - 8))
        pixels[top : top + 4, left : left + 6] += 70
        mask[top : top + 4, left : left + 6] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def write_strips(folder: Path, good: int, defective: int, *, seed: int = 0, masks: bool = True) -> Path:
    """Write strips and labels.csv with image, label, part and mask; two strips are of one part."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = []
    for index in range(good + defective):
        label = "good" if index < good else "scratch"
        pixels, mask = strip(rng, label != "good")
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
        row = {"image": f"{index:03d}.png", "label": label, "part": f"{label}-{index // 2}", "mask": ""}
        if masks and label != "good":
            Image.fromarray(mask).save(folder / f"{index:03d}-mask.png")
            row["mask"] = f"{index:03d}-mask.png"
        rows.append(row)
    file = folder / "labels.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file
