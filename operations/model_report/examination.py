"""A model on labelled pictures: what it gets right, what escapes it, what it flags for nothing."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers import Decision, ModelPackage, Prediction, Predictor
from classifiers.data.dataset import Dataset, Item, defective_mask
from classifiers.data.overlap import recorded_digests, role_of, shared
from classifiers.measure.effective_size import effective_size
from classifiers.measure.evaluation import measure
from classifiers.measure.logits import dataset_logits
from classifiers.measure.metrics import reliability
from classifiers.measure.score_bins import SCORE_EDGES, bin_scores
from classifiers.measure.units import calibrated_per, of_parts
from operations.model_report.facts import share_of
from reports.content.model import (
    Bin,
    Case,
    ClassResult,
    Examination,
    GroupResult,
    Mistake,
    Overlap,
    Share,
    Zones,
)

Progress = Callable[[int, int], None]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Examined:
    """Labelled pictures and what the model makes of them; place i of everything is picture i.

    Attributes:
        predictor: the model in use.
        dataset: the pictures.
        prediction: probabilities (N, K) and defect scores (N,).
        defective: (N,) bool, by the labels.
        decisions: None where the model has no thresholds.
    """

    predictor: Predictor
    dataset: Dataset
    prediction: Prediction
    defective: BoolArray
    decisions: tuple[Decision, ...] | None

    @property
    def package(self) -> ModelPackage:
        """The model's package."""
        return self.predictor.package

    def items(self) -> Iterable[tuple[Item, bool, Decision]]:
        """The pictures with whether they are defective and what was decided; none without thresholds."""
        decisions = self.decisions or ()
        for item, defective, decision in zip(self.dataset.items, self.defective, decisions, strict=False):
            yield item, bool(defective), decision


def predict_labelled(predictor: Predictor, dataset: Dataset, *, progress: Progress | None = None) -> Examined:
    """Let the model decide about labelled pictures.

    Raises:
        DataError: a picture that cannot be read, or labels that the model does not know.
        PackageError: a single-label model without a good class, which has no defect score.
    """
    package = predictor.package
    logits = dataset_logits(predictor, dataset, progress=progress)
    decisions = None if package.thresholds is None else logits.decisions()
    defective = defective_mask(dataset, package.good_class)
    return Examined(predictor, dataset, logits.prediction(), defective, decisions)


def overlaps(
    package: ModelPackage, dataset: Dataset, seen: Sequence[tuple[str, Dataset]]
) -> tuple[tuple[Overlap, ...], dict[str, Dataset]]:
    """Compare examined pictures with the data that the model was made from.

    Args:
        package: the model.
        dataset: the examined pictures.
        seen: data that the model was made from, with its name: what it is, its digest says.

    Returns:
        One overlap for each data set that the package records, whether there was data to compare with or not,
        and one for each of `seen` that the package knows nothing of; and the data that was recognised, by
        role.
    """
    found: dict[str, Overlap] = {}
    known: dict[str, Dataset] = {}
    others = []
    for name, data in [("the examined data itself", dataset), *seen]:
        role = role_of(package, data)
        if role is not None:
            known.setdefault(role, data)
        elif data is dataset:
            continue
        common = shared(dataset, data)
        overlap = Overlap(role or "other", name, role is not None, common.pictures, common.groups)
        if role is None:
            others.append(overlap)
        else:
            found.setdefault(role, overlap)
    recorded = (found.get(role, Overlap(role)) for role in recorded_digests(package))
    return (*recorded, *others), known


def examination(
    examined: Examined, name: str, common: tuple[Overlap, ...], cases: tuple[Case, ...] = ()
) -> Examination:
    """Put together what the report says of examined pictures.

    Args:
        examined: the pictures and the decisions.
        name: of the data, for people.
        common: from `overlaps`.
        cases: mistakes with a page of their own.
    """
    package, dataset = examined.package, examined.dataset
    measured = measure(package, dataset, examined.prediction)
    scores = examined.prediction.defect_scores
    counts, positives, means, error = reliability(scores, examined.defective)
    bins = len(counts)
    defective = int(examined.defective.sum())
    wrong = tuple(mistake for _, mistake in mistakes(examined))
    return Examination(
        name=name,
        digest=dataset.digest,
        pictures=len(dataset.items),
        groups=len({item.group for item in dataset.items}),
        defective=defective,
        good=len(dataset.items) - defective,
        overlaps=common,
        classes=tuple(
            _class_result(examined, label, measured["recall"][label], measured["precision"][label])
            for label in package.classes
        ),
        balanced_accuracy=measured["balanced_accuracy"],
        auroc=measured["auroc"],
        device=examined.predictor.device.type,
        precision=examined.predictor.precision,
        confusion=tuple(tuple(row) for row in measured.get("confusion", ())),
        good_scores=bin_scores(float(score) for score in scores[~examined.defective]),
        defective_scores=bin_scores(float(score) for score in scores[examined.defective]),
        score_edges=SCORE_EDGES,
        bins=tuple(
            Bin(
                low=index / bins,
                high=(index + 1) / bins,
                good=int(counts[index] - positives[index]),
                defective=int(positives[index]),
                mean=float(means[index]) if counts[index] else None,
            )
            for index in range(bins)
        ),
        calibration_error=error,
        zones=zones(examined, by_group=False),
        by_group=zones(examined, by_group=True),
        verdicts=tuple(measured.get("verdicts", {}).items()),
        mistakes=wrong,
        cases=cases,
        worst_groups=_worst_groups(dataset, wrong),
    )


def zones(examined: Examined, *, by_group: bool) -> Zones | None:
    """Count what passes though defective and what is flagged though good; None without thresholds.

    Args:
        examined: the pictures and the decisions.
        by_group: count groups instead; one counts as soon as one of its pictures does. Where the package was
            calibrated per part, a group is a part, judged by its highest score, and the targets are its.
    """
    thresholds = examined.package.thresholds
    if thresholds is None:
        return None
    per_part = calibrated_per(examined.package) == "part"
    bad: dict[str, list[str]] = defaultdict(list)
    good: dict[str, list[str]] = defaultdict(list)
    for number, (item, defective, decision) in enumerate(examined.items()):
        side = bad if defective else good
        side[item.group if by_group else str(number)].append(decision.verdict)

    if by_group and per_part:
        names = [item.group for item in examined.dataset.items]
        parts = of_parts(examined.prediction.defect_scores, examined.defective, names)
        verdicts = [thresholds.verdict(float(score)) for score in parts.scores]
        told = list(zip(parts.groups, parts.defective.tolist(), verdicts, strict=True))
        bad, good = (
            {name: [verdict] for name, defective, verdict in told if defective == side}
            for side in (True, False)
        )

    worth = (None, None) if by_group else (_worth(examined, True), _worth(examined, False))

    def count(defective: bool, wanted: set[str], target: float | None = None) -> Share:
        found, effective = (bad, worth[0]) if defective else (good, worth[1])
        hits = sum(not wanted.isdisjoint(some) for some in found.values())
        return share_of(hits, len(found), target if by_group == per_part else None, effective=effective)

    return Zones(
        escape=count(True, {"pass"}, thresholds.target_escape_rate),
        flagged_good=count(False, {"review", "reject"}),
        not_rejected=count(True, {"pass", "review"}),
        rejected_good=count(False, {"reject"}, thresholds.target_overkill),
    )


def _worth(examined: Examined, defective: bool) -> float:
    """Return how many independent pictures the defective ones, or the good ones, are worth."""
    side = examined.defective == defective
    groups = [item.group for item in compress(examined.dataset.items, side)]
    return effective_size(examined.prediction.defect_scores[side].tolist(), groups)


def mistakes(examined: Examined) -> tuple[tuple[int, Mistake], ...]:
    """Defective pictures that passed, the lowest score first; then good ones flagged, the highest first.

    Returns:
        Each with the place of its picture.
    """
    classes, names = examined.package.classes, picture_names(examined.dataset)
    found = [
        (
            place,
            Mistake(
                kind="escape" if defective else "overkill",
                uri=names[place],
                labels=item.labels,
                predicted=classes[int(examined.prediction.probabilities[place].argmax())],
                score=decision.score,
                verdict=decision.verdict,
                group=item.group,
                image_digest=item.sha256,
            ),
        )
        for place, (item, defective, decision) in enumerate(examined.items())
        if defective == (decision.verdict == "pass")
    ]
    return tuple(
        sorted(
            found,
            key=lambda one: (one[1].kind, one[1].score * (1 if one[1].kind == "escape" else -1), one[1].uri),
        )
    )


def _worst_groups(dataset: Dataset, wrong: Sequence[Mistake]) -> tuple[GroupResult, ...]:
    sizes = Counter(item.group for item in dataset.items)
    counts = Counter((mistake.group, mistake.kind) for mistake in wrong)
    found = [
        GroupResult(name, sizes[name], counts[name, "escape"], counts[name, "overkill"])
        for name in {mistake.group for mistake in wrong}
    ]
    return tuple(sorted(found, key=lambda one: (-one.escapes - one.overkills, -one.escapes, one.name)))


def picture_names(dataset: Dataset) -> list[str]:
    """Name pictures from the folder that holds them all: a split's own names lead there from another one."""
    paths = [Path(os.path.normpath(Path.cwd() / item.path)) for item in dataset.items]
    folder = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(folder).as_posix() for path in paths]


def _class_result(
    examined: Examined, label: str, recall: dict[str, Any], precision: dict[str, Any]
) -> ClassResult:
    package = examined.package
    labelled = [label in item.labels for item in examined.dataset.items]
    items = list(compress(examined.dataset.items, labelled))
    escaped = None
    if examined.decisions is not None and label != package.good_class:
        passed = sum(
            label in item.labels and decision.verdict == "pass" for item, _, decision in examined.items()
        )
        scores = examined.prediction.defect_scores[labelled].tolist()
        worth = effective_size(scores, [item.group for item in items])
        escaped = share_of(passed, len(items), effective=worth)
    return ClassResult(
        name=label,
        pictures=len(items),
        groups=len({item.group for item in items}),
        recall=share_of(recall["count"], recall["total"], effective=recall.get("effective")),
        precision=share_of(precision["count"], precision["total"], effective=precision.get("effective")),
        escaped=escaped,
    )
