"""Draw docs/sise.png: what each step of SISE makes of one synthetic surface, with the shipped model.

    python -m benchmarks.sise_picture [OUT.png] [--label scratch] [--seed 11]

One row a layer, shallow to deep. The algorithm is the product's: nothing is computed here a second time
but the thresholds and partial fusions that the explanation does not keep.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import classifiers
from classifiers import Predictor, load_package
from explainers import create_explainer
from explainers.drawing import Mask, Pixels, colourise, overlay
from explainers.maps import fuse, minmax, otsu_threshold, relevance_mask, upsample
from explainers.scoring import Block, score_masks
from explainers.sise.probing import Tap, probe
from sources.surfaces import surface

PACKAGE = Path(classifiers.__file__).parent / "packages" / "synthetic-surface"
TILE, GAP, LABEL, LINE = 116, 10, 118, 15
COLUMNS = (
    *("mask, best score", "picture through it", "mask, worst score", "picture through it"),
    *("layer map V", "Otsu mask B", "fused so far E"),
)
LEGEND = (
    "How to read this",
    "One row for each layer, shallow to deep.",
    "A feature map becomes a mask; the model scores",
    "the picture seen through it.",
    "V: all masks of the layer, weighted by score / area.",
    "E: (E of the row above + V) x B.",
    "The last E is SISE's map.",
    "Colours: dark 0, yellow 1; V and E are stretched to it.",
)


def main() -> None:
    """Draw the picture and write it as a PNG with a palette."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("docs/sise.png"))
    parser.add_argument("--label", default="scratch")
    parser.add_argument("--seed", type=int, default=11)
    chosen = parser.parse_args()
    sheet = draw(chosen.label, chosen.seed)
    sheet.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        chosen.out, optimize=True
    )


def draw(label: str, seed: int) -> Image.Image:
    """Explain one surface with every masked pass, and draw picture, masks, layer maps and fusion."""
    predictor = Predictor(load_package(PACKAGE), device="cpu")
    package = predictor.package
    grey, truth = surface(label, np.random.default_rng(seed), package.preprocessing.input_size[0])
    pixels = np.repeat(grey[..., None], 3, axis=2)
    image = predictor.transform(pixels)[None]
    target = torch.tensor([package.classes.index(label)])
    explanation = create_explainer("sise", predictor.model)(image, target)
    model = predictor.model.requires_grad_(False)
    taps, *_ = probe(model, 0, image, target, layers=None, activation="softmax")
    block_maps = [explanation.block_maps[tap.name][0] for tap in taps]
    rows = []
    for number, tap in enumerate(taps):
        value = block_maps[number]
        threshold = float(otsu_threshold(value.flatten()[None]))
        gate = relevance_mask(value, threshold, "otsu")
        fused = fuse(block_maps[: number + 1])
        caption = (
            f"layer {number + 1}",
            tap.name,
            f"{tap.features.shape[1]} x {tap.features.shape[2]} positions",
            f"{int(explanation.masks[tap.name][0])} of {len(tap.features)}",
            "maps kept",
        )
        parts = _extremes(model, image, target, tap, pixels, package.preprocessing.fill[0])
        maps = [colourise(each.numpy()) for each in (value, gate, fused)]
        maps[1] = maps[1] if number else np.full_like(maps[1], 255)  # the shallowest map wipes nothing out
        rows.append((caption, parts, maps))
    head = [("picture", pixels), ("where the defect is", _painted(pixels, truth))]
    final = explanation.maps[0].numpy()
    head += [("SISE's map", colourise(final)), ("laid over; top 20 %", overlay(pixels, final))]
    return _sheet(
        f"SISE on a synthetic surface: class {label}, score {float(explanation.scores[0]):.3f}", head, rows
    )


def _extremes(
    model: torch.nn.Module, image: Tensor, target: Tensor, tap: Tap, pixels: Pixels, colour: float
) -> list[tuple[str, Pixels]]:
    """Paint the masks of a layer with the highest and the lowest score, and the picture through each."""
    features = tap.features[tap.alpha[0] > 0]
    features = features[features.amax(dim=(1, 2)) > features.amin(dim=(1, 2))]
    block = Block(0, tap.name, features)
    # What is masked out becomes 0 in normalised space: the mean colour of the package.
    scored = score_masks(model, image, target[None], [block], activation="softmax", batch_size=16)[0]
    order = scored.scores[:, 0].argsort()
    masks = minmax(upsample(features, (image.shape[2], image.shape[3])))
    parts = []
    for at in (int(order[-1]), int(order[0])):
        mask = masks[at].numpy()
        seen = np.rint(colour + (pixels.astype(np.float32) - colour) * mask[..., None]).astype(np.uint8)
        parts += [("", colourise(mask)), (f"score {float(scored.scores[at, 0]):.3f}", seen)]
    return parts


def _painted(pixels: Pixels, truth: Mask) -> Pixels:
    painted = pixels.copy()
    painted[truth] = (253, 231, 37)
    return painted


def _sheet(
    title: str,
    head: list[tuple[str, Pixels]],
    rows: Sequence[tuple[tuple[str, ...], list[tuple[str, Pixels]], list[Pixels]]],
) -> Image.Image:
    """Lay everything out: the picture and its result on top, then a row for each layer."""
    step_x, step_y = TILE + GAP, TILE + LINE + GAP
    top = LINE + GAP + step_y
    sheet = Image.new(
        "RGB", (LABEL + len(COLUMNS) * step_x + GAP, top + 2 * LINE + len(rows) * step_y), "white"
    )
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)

    def place(part: Pixels, x: int, y: int) -> None:
        sheet.paste(Image.fromarray(part).resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))

    pen.text((GAP, GAP), title, "black", ImageFont.load_default(14))
    for number, (name, part) in enumerate(head):
        x = LABEL + number * step_x
        pen.text((x, 2 * LINE), name, "black", font)
        place(part, x, 3 * LINE)
    pen.multiline_text(
        (LABEL + len(head) * step_x + 2 * GAP, 3 * LINE), "\n".join(LEGEND), "black", font, spacing=4
    )
    for number, name in enumerate(COLUMNS):
        pen.text((LABEL + number * step_x, top + LINE), name, "black", font)
    for number, (caption, parts, maps) in enumerate(rows):
        y = top + 2 * LINE + 4 + number * step_y
        pen.multiline_text((GAP, y), "\n".join(caption), "black", font, spacing=3)
        for column, (score, part) in enumerate([*parts, *(("", one) for one in maps)]):
            x = LABEL + column * step_x
            place(part, x, y)
            pen.text((x, y + TILE), score, "black", font)
    return sheet


if __name__ == "__main__":
    main()
