"""How good a model's attribution maps are on examined pictures."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from classifiers.data.dataset import Item
from classifiers.data.pictures import network_pixels
from explainers import Explainer
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
        pixels = network_pixels(item, examined.package.preprocessing)  # of the input's size already
        images = examined.predictor.transform(pixels)[None].to(examined.predictor.device)
        explained = explain_each(explainer, examined.predictor, images, [[row.index for row in wanted]])
        for row, (made, maps) in zip(wanted, explained, strict=True):
            outcome = Outcome(item.name, row.label, item.group, explainer.method, "", made.status)
            if maps is not None:
                mask = _mask(examined, item, row.label, truth)
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


def _mask(examined: Examined, item: Item, label: str, truth: Masks) -> np.ndarray:
    """Unite a picture's masks (of several labels: the class's own) at the input size (H, W) bool."""
    preprocessing = examined.package.preprocessing
    united = np.zeros(preprocessing.input_size, dtype=bool)
    for of, mask in truth.get(item.path.resolve(), ()):
        if of == label or examined.package.task == "single-label":
            united |= fit_mask(preprocessing, mask)
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
