"""How good a model's attribution maps are on examined pictures."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from classifiers.data.dataset import Item
from classifiers.data.pictures import network_pixels, read_pixels
from classifiers.package.tiling import Grid
from classifiers.tiles import scored_tiles, tile_inputs, tiled_picture
from db.inspection.outcomes import ExplanationOutcome
from explainers import Explainer, Explanation
from explainers.evaluation.folder import folder_samples
from explainers.evaluation.measures import MEASURES, MeasureSettings, measure
from explainers.evaluation.models import EvaluatedModel
from explainers.evaluation.outcomes import FAILED, Outcome
from explainers.evaluation.running import fit_mask
from explainers.evaluation.samples import Choice
from explainers.evaluation.summary import Cell, summarise
from operations.inspection.evidence import explain_each
from operations.model_report.examination import Examined
from operations.reporting.findings import pairs, printed_explanation
from reports.compose.map_trust import judge_map
from reports.content.model import MapQuality, Metric

Progress = Callable[[int, int], None]
Fitted = Callable[[np.ndarray], np.ndarray]
Masks = dict[Path, list[tuple[str, np.ndarray]]]
INSERTION_STEPS = 16
WITHOUT_MASKS = ("drop", "increase", "insertion", "deletion")
WITH_MASKS = ("ebpg", "miou")


@dataclass(frozen=True)
class _Row:
    """A finding on a defective examined picture: the picture's place, the flagged class and its score."""

    picture: int
    label: str
    index: int
    score: float


def map_quality(
    examined: Examined,
    explainer: Explainer,
    *,
    most: int,
    masks: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> MapQuality:
    """Explain the flagged defective pictures and measure the maps, as `kensa evaluate` does.

    Of a tiled picture the tile that decided is explained, and its map is compared with the mask's part there.

    Args:
        examined: the pictures and decisions of a calibrated model.
        explainer: of the same network.
        most: findings to explain; where there are more, so many are drawn.
        masks: a CSV with columns image, label and mask, or a folder with images/CLASS and masks/CLASS.
        seed: of the draw, and of the bootstrap.
        progress: called with (maps done, maps).

    Raises:
        ExplainerError: masks that cannot be read, or do not fit their pictures.
    """
    rows = [
        _Row(number, label, index, score)
        for number, (_, defective, decision) in enumerate(examined.items())
        if defective
        for label, index, score in decision.flagged
    ]
    drawn = sorted(random.Random(seed).sample(range(len(rows)), min(most, len(rows))))  # noqa: S311
    by_picture: dict[int, list[_Row]] = defaultdict(list)
    for place in drawn:
        by_picture[rows[place].picture].append(rows[place])
    items = examined.dataset.items
    truth = {} if masks is None else _read_masks(masks, [items[number] for number in by_picture])
    settings = MeasureSettings(
        names=(*(WITH_MASKS if truth else ()), *WITHOUT_MASKS), insertion_steps=INSERTION_STEPS
    )
    model = _evaluated(examined)
    outcomes: list[Outcome] = []
    trust: Counter[str] = Counter()
    masked = 0
    for number, wanted in by_picture.items():
        item = items[number]
        for row, (made, maps), images, fitted in _explained(examined, explainer, item, wanted):
            outcome = Outcome(item.name, row.label, item.group, explainer.method, "", made.status)
            if maps is not None:
                mask = _mask(examined, item, row.label, truth, fitted)
                masked += bool(mask.any())
                on_device = torch.from_numpy(mask)[None].to(images.device)
                values = measure(settings, model, images, maps.targets, maps.maps, on_device, None)
                outcome = replace(outcome, values=values)
                score = float(examined.prediction.defect_scores[number])
                judged = printed_explanation(made, "in memory")
                trust[judge_map(judged, row.score, score).word] += 1
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(drawn))
    summary = summarise(outcomes, (explainer.method,), settings.names, seed=seed)
    statuses = summary.statuses[explainer.method]
    return MapQuality(
        method=explainer.method,
        parameters=pairs(explainer.parameters),
        flagged=len(rows),
        judged=len(drawn),
        groups=summary.groups,
        metrics=tuple(
            _metric(name, cells[explainer.method]) for name, cells in summary.cells.items() if cells
        ),
        undefined=statuses["undefined"],
        failed=statuses[FAILED],
        with_mask=masked,
        masks=None if masks is None else masks.name,
        trust=tuple(trust.most_common()),
    )


def _explained(
    examined: Examined, explainer: Explainer, item: Item, rows: Sequence[_Row]
) -> Iterator[tuple[_Row, tuple[ExplanationOutcome, Explanation | None], torch.Tensor, Fitted]]:
    """Explain what the network saw of a picture: the picture, or of a tiled one the tile that decided.

    Yields:
        Each finding with its explanation, the input (1, 3, H, W), and what fits a mask of the picture to it.
    """
    package, predictor = examined.package, examined.predictor
    if package.tiling is None:
        pixels = network_pixels(item, package.preprocessing)  # of the input's size already
        images = predictor.transform(pixels)[None].to(predictor.device)
        explained = explain_each(explainer, predictor, images, [[row.index for row in rows]])
        for row, found in zip(rows, explained, strict=True):
            yield row, found, images, partial(fit_mask, package.preprocessing)
        return
    tiled = tiled_picture(package, read_pixels(item))
    (scores,) = scored_tiles(predictor, [tiled])
    for row in rows:
        multi_label = package.task == "multi-label"
        tile = int(scores.probabilities[:, row.index].argmax()) if multi_label else scores.deciding
        images = tile_inputs(package.preprocessing, [(tiled, tile)], predictor.device)
        (found,) = explain_each(explainer, predictor, images, [[row.index]])
        yield row, found, images, partial(_tile_mask, tiled.grid, tile)


def _tile_mask(grid: Grid, tile: int, mask: np.ndarray) -> np.ndarray:
    """Return a picture's mask (h, w) as a tile shows it (H, W); bars are outside."""
    size = (grid.scaled[1], grid.scaled[0])
    scaled = np.asarray(Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
    levels = np.broadcast_to(scaled[:, :, None], (*grid.scaled, 3))
    return grid.cut(levels, [tile], (0, 0, 0))[0, :, :, 0] > 0


def _evaluated(examined: Examined) -> EvaluatedModel:
    package, predictor = examined.package, examined.predictor
    return EvaluatedModel(
        name=package.path.name,
        network=predictor.model,
        preprocessing=package.preprocessing,
        activation=package.activation,
        indices={name: (index,) for index, name in enumerate(package.classes)},
        digest=package.digest,
        device=predictor.device,
    )


def _read_masks(masks: Path, items: Sequence[Item]) -> Masks:
    """Return the masks of these pictures, with the class of each."""
    wanted = Choice(paths=frozenset(item.path.resolve() for item in items))
    found: Masks = defaultdict(list)
    for sample in folder_samples(masks, choice=wanted).samples:
        found[sample.path.resolve()].append((sample.label, sample.read()[1]))
    return dict(found)


def _mask(examined: Examined, item: Item, label: str, truth: Masks, fitted: Fitted) -> np.ndarray:
    """Unite a picture's masks (of several labels: the class's own) at the input size (H, W) bool."""
    united = np.zeros(examined.package.preprocessing.input_size, dtype=bool)
    for of, mask in truth.get(item.path.resolve(), ()):
        if of == label or examined.package.task == "single-label":
            united |= fitted(mask)
    return united


def _metric(name: str, cell: Cell) -> Metric:
    measure_ = MEASURES[name]
    return Metric(
        name=name,
        title=measure_.title,
        mean=cell.mean,
        median=cell.median,
        count=cell.count,
        low=cell.low,
        high=cell.high,
        better=measure_.better,
        digits=measure_.digits,
    )
