"""How good a model's attribution maps are on examined pictures, and the maps of its worst mistakes."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from classifiers.data.dataset import Item
from classifiers.data.pictures import read_pixels
from db.inspection.outcomes import ExplanationOutcome, ImageOutcome
from explainers import Explainer
from explainers.evaluation.folder import folder_samples
from explainers.evaluation.measures import MEASURES, MeasureSettings, measure
from explainers.evaluation.models import EvaluatedModel
from explainers.evaluation.outcomes import FAILED, Outcome
from explainers.evaluation.running import fit_mask
from explainers.evaluation.samples import Choice
from explainers.evaluation.summary import Cell, summarise
from flows.deciding import read_picture, with_decision
from flows.evidence import Explained, Memory, explain_each, explain_findings
from flows.examining import Examined
from flows.model_facts import pairs
from flows.stored_evidence import decode_map
from reports.content.finding import Evidence, Explanation, FindingPage, Held, Labelled, LayerMasks, Verdict
from reports.content.map_trust import judge_map
from reports.content.model import Case, MapQuality, Metric, Mistake
from sources.decoding import MAX_PIXELS

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
        images = examined.predictor.transform(read_pixels(item))[None].to(examined.predictor.device)
        explained = explain_each(explainer, examined.predictor, images, [[row.index for row in wanted]])
        for row, one in zip(wanted, explained, strict=True):
            mask = _mask(examined, item, row.label, truth)
            outcome = Outcome(item.name, row.label, item.group, explainer.method, "", one.status)
            if _has_map(one):
                masked += bool(mask.any())
                outcome = replace(outcome, values=_measured(one, settings, model, images, mask))
                score = float(examined.prediction.defect_scores[number])
                trust[judge_map(_judged(one, explainer), row.score, score).word] += 1
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


def case_pages(
    examined: Examined,
    explainer: Explainer,
    mistakes: Sequence[tuple[int, Mistake]],
    *,
    most: int,
    progress: Progress | None = None,
) -> tuple[Case, ...]:
    """Explain the worst mistakes: an escape for the class that its label names, overkill for the one flagged.

    Args:
        examined: the pictures and decisions of a calibrated model.
        explainer: of the same network.
        mistakes: the worst first; see `flows.examining.mistakes`.
        most: pages; escapes get at least two of three where there are so many.
        progress: called with (maps done, maps).
    """
    escapes = [one for one in mistakes if one[1].kind == "escape"]
    overkills = [one for one in mistakes if one[1].kind == "overkill"]
    kept = min(len(escapes), max(most - len(overkills), -(-2 * most // 3)))
    chosen = [*escapes[:kept], *overkills[: most - kept]]
    cases = []
    for number, (place, mistake) in enumerate(chosen, start=1):
        within = number if mistake.kind == "escape" else number - kept
        cases.append(_case(examined, explainer, mistake, place, within))
        if progress is not None:
            progress(number, len(chosen))
    return tuple(cases)


def _case(examined: Examined, explainer: Explainer, mistake: Mistake, place: int, number: int) -> Case:
    package, item = examined.package, examined.dataset.items[place]
    row = examined.prediction.probabilities[place]
    decision = examined.decisions[place] if examined.decisions else None
    if decision is None:
        raise ValueError(f"{item.name}: a mistake of a model that decides nothing")
    if mistake.kind == "escape":
        label = max(item.labels, key=lambda name: float(row[package.classes.index(name)]))
        index = package.classes.index(label)
        decision = replace(decision, flagged=((label, index, float(row[index])),))
    else:
        decision = replace(decision, flagged=decision.flagged[:1])
    data = item.path.read_bytes()
    listed = ImageOutcome(uri=mistake.uri, version="", size=len(data))
    # As `read_pixels` decodes labelled pictures: no limit of the line's settings applies to them.
    picture = read_picture(examined.predictor, listed, data, max_pixels=MAX_PIXELS, grey_range=None)
    picture = with_decision(package, picture, decision, tuple(float(value) for value in row))
    memory = Memory()
    ((found,),) = explain_findings(explainer, examined.predictor, memory, [picture])
    label, _, score = decision.flagged[0]
    outcome = picture.outcome
    page = FindingPage(
        reference=f"{mistake.kind.capitalize()} {number}",
        uri=mistake.uri,
        class_name=label,
        class_score=score,
        score=decision.score,
        review_threshold=outcome.review_threshold or 0.0,
        reject_threshold=outcome.reject_threshold or 0.0,
        verdict=cast("Verdict", decision.verdict),
        image_digest=item.sha256,
        explanation=_explanation(found.explanation),
        load=Held(_evidence(data, found.explanation, memory)),
        labelled=Labelled(
            label=", ".join(item.labels) or "good",
            predicted=mistake.predicted,
            group=None if item.group == f"sha256:{item.sha256}" else item.group,
        ),
    )
    return Case(mistake, page)


def _evidence(data: bytes, explained: ExplanationOutcome | None, memory: Memory) -> Evidence:
    if explained is None or explained.map is None:
        return Evidence(picture=data)
    return Evidence(
        picture=data,
        map=decode_map(memory.maps[explained.map.digest]),
        block_maps=tuple(
            (name, decode_map(memory.maps[block.digest])) for name, block in explained.block_maps
        ),
    )


def _explanation(explained: ExplanationOutcome | None) -> Explanation:
    if explained is None:
        return Explanation(method="none", status="no explanation was made")
    return Explanation(
        method=explained.method,
        status=explained.status,
        masks=tuple(LayerMasks(layer.name, layer.kept, layer.total) for layer in explained.layers),
        parameters=pairs(explained.parameters),
        masked_score=explained.masked_score,
        drop=explained.drop,
        increase=explained.increase,
        map_digest=None if explained.map is None else explained.map.digest,
        box=explained.box,
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
    """Give the masks of these pictures, with the class of each."""
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


def _has_map(one: Explained) -> bool:
    return one.explanation is not None and one.explanation.defined[one.row]


def _measured(
    one: Explained, settings: MeasureSettings, model: EvaluatedModel, images: torch.Tensor, mask: np.ndarray
) -> dict[str, float | None]:
    if one.explanation is None:
        return {}
    row = slice(one.row, one.row + 1)
    truth = torch.from_numpy(mask)[None].to(images.device)
    maps, targets = one.explanation.maps[row], one.explanation.targets[row]
    return measure(settings, model, images, targets, maps, truth, None)


def _judged(one: Explained, explainer: Explainer) -> Explanation:
    return Explanation(
        method=explainer.method,
        status=one.status,
        masked_score=one.masked_score,
        drop=one.drop,
        increase=one.increase,
        map_digest="in memory",
    )


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
