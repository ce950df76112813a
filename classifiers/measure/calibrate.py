"""Calibrate a model: a temperature, then thresholds for which the data shows that they keep the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from classifiers.data.dataset import Dataset, defective_mask, label_matrix
from classifiers.data.overlap import role_of
from classifiers.engines.choice import fast_precisions
from classifiers.engines.engine import PRECISIONS
from classifiers.errors import ClassifierError, PackageError
from classifiers.measure.effective_size import effective_size
from classifiers.measure.intervals import most_misses, needed_without_misses, upper_bound
from classifiers.measure.logits import DatasetLogits, dataset_logits
from classifiers.measure.metrics import auroc
from classifiers.measure.reference import as_json, reference_of
from classifiers.measure.units import Parts, Unit, of_parts
from classifiers.package.package import ModelPackage, build_model, save_package
from classifiers.package.parity import DECIMALS, parity_pictures
from classifiers.package.precisions import ReducedPrecision
from classifiers.package.thresholds import Thresholds
from classifiers.predict import Predictor
from sources.picture_statistics import PictureStatistics, picture_statistics

CONFIDENCE = 0.95
# A threshold follows the score of a calibration picture, at this relative distance. Otherwise rounding on
# another machine or in another batch could move that picture to the other side.
MARGIN = 1e-4
TEMPERATURE_RANGE = (0.05, 20.0)


class CalibrationError(ClassifierError):
    """The data cannot show that a target is kept; the message says what would be needed."""


def calibrate(
    package: ModelPackage,
    dataset: Dataset,
    out: Path,
    *,
    target_escape_rate: float = 0.05,
    target_overkill: float | None = 0.05,
    per: Unit = "picture",
    device: str = "auto",
    engine: str = "auto",
    precisions: Sequence[str] | None = None,
    batch_size: int = 32,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> ModelPackage:
    """Write a new package with a temperature and thresholds fitted to labelled pictures.

    The temperature is that of float32; with tiles it is fitted to the deciding tiles. In every other
    precision the pictures are scored anew, and thresholds are chosen from these scores. A precision that
    cannot be had is left out, with the reason in the package (`training.calibration.refused`): one that moves
    the logits too far, that allows no thresholds, or that flags more good pictures than float32 does by its
    bound.

    Args:
        package: from `train`, or from an earlier calibration, whose result is replaced.
        dataset: defective and good pictures that the training never saw.
        out: the new package's folder.
        target_escape_rate: the largest share of defective pictures that may pass, in (0, 1).
        target_overkill: the largest share of good pictures that may be rejected automatically, in (0, 1);
            None asks for none, so that few good pictures, or no one, will do: see `choose_thresholds`.
        per: what the targets are shares of. "part": each group of the data is a part, whose score is the
            highest of its pictures, and which is defective where one of them is.
        device: as for `Predictor`.
        engine: as for `Predictor`; use the one that will inspect.
        precisions: in which to calibrate beside float32, which is always there; None for those that the
            device is fast in.
        batch_size: as for `Predictor`.
        command: recorded in the package.
        progress: called with (pictures done, pictures).

    Raises:
        CalibrationError: there are no or too few defective or good pictures (the message has the number
            needed), the model was trained on the pictures, or it has no good class.
        DataError: a picture cannot be read, or a label is unknown to the model.
    """
    if package.task == "single-label" and package.good_class is None:
        raise CalibrationError(f"{package.path}: has no good class, so nothing could pass; train with one")
    if (side := role_of(package, dataset)) in ("training", "validation"):
        raise CalibrationError(f"this is the model's own {side} data; calibrate with pictures it never saw")
    defective = defective_mask(dataset, package.good_class)
    groups = [item.group for item in dataset.items]

    def units(scores: NDArray[np.floating]) -> Parts:
        """Return the scores of what the targets are for."""
        return of_parts(scores, defective, groups) if per == "part" else Parts(scores, defective, groups)

    # The cheap refusals come before the predictions.
    bad = units(np.zeros(len(defective), dtype=np.float32)).defective
    check_enough(int(bad.sum()), int((~bad).sum()), target_escape_rate, target_overkill, per=per)
    if strange := [each for each in precisions or () if each not in PRECISIONS]:
        raise CalibrationError(f"{strange[0]!r} is no precision: choose of {', '.join(PRECISIONS)}")
    # Nothing of an earlier calibration is to decide what this one may compute in.
    plain = replace(
        package,
        thresholds=None,
        reduced=(),
        training={name: told for name, told in package.training.items() if name != "calibration"},
    )
    opened = partial(Predictor, device=device, batch_size=batch_size)
    predictor = opened(plain, engine=engine, precision="float32")
    wanted = fast_precisions(predictor.device.type) if precisions is None else precisions
    others = [each for each in dict.fromkeys(wanted) if each != "float32"]

    def progress_of(number: int) -> Callable[[int, int], None] | None:
        """Return what is told of the `number`-th pass over the pictures, of all of them."""
        if progress is None:
            return None
        return lambda done, total: progress(number * total + done, (1 + len(others)) * total)

    measured: dict[int, PictureStatistics] = {}

    def measure(index: int, pixels: NDArray[np.uint8]) -> None:
        measured[index] = picture_statistics(pixels)

    divided = dataset_logits(predictor, dataset, progress=progress_of(0), seen=measure)
    raw = replace(divided, rows=divided.rows * package.temperature)
    targets = torch.from_numpy(label_matrix(dataset, package.classes))
    multi_label = package.task == "multi-label"
    decided = raw.deciding()
    temperature = fit_temperature(decided, targets, multi_label=multi_label)
    logits = replace(raw, rows=raw.rows / temperature)
    scores = logits.prediction().defect_scores

    def choose(scores: NDArray[np.float32]) -> Thresholds:
        own = units(scores)
        return choose_thresholds(
            own.scores,
            own.defective,
            target_escape_rate=target_escape_rate,
            target_overkill=target_overkill,
            groups=own.groups,
            dataset_digest=dataset.digest,
            per=per,
        )

    thresholds = choose(scores)
    statistics = [measured[index] for index in range(len(measured))]
    reference = reference_of(statistics, scores, defective, thresholds.review, groups)
    reduced: list[ReducedPrecision] = []
    refused: dict[str, str] = {}
    for number, precision in enumerate(others, start=1):
        try:
            # By the engine that a run takes: what another one is calibrated to would never be used.
            other = opened(
                _with_temperature(plain, temperature), engine=predictor.engine.name, precision=precision
            )
            own = dataset_logits(other, dataset, progress=progress_of(number))
            reduced.append(_reduced_precision(other, own, logits, thresholds, choose))
        except (PackageError, CalibrationError) as error:
            refused[precision] = str(error)
    record: dict[str, Any] = {
        "command": command,
        "package_digest": package.digest,
        "n": len(dataset.items),
        "device": predictor.device.type,
        "engine": predictor.engine.name,
        "precision": predictor.precision,
        "precisions": ["float32", *(one.precision for one in reduced)],
        "refused": refused,
        "loss_before": loss(decided, targets, 1.0, multi_label=multi_label),
        "loss_after": loss(decided, targets, temperature, multi_label=multi_label),
        "auroc": auroc(scores, defective),
        "reference": as_json(reference),
    }
    if per == "part":
        record["per"] = per
    if raw.counts is not None:
        record["tile_counts"] = raw.tile_counts()
    return save_package(
        out,
        build_model(package),
        architecture=package.architecture,
        model_args=package.model_args,
        classes=package.classes,
        good_class=package.good_class,
        task=package.task,
        preprocessing=package.preprocessing,
        temperature=temperature,
        thresholds=thresholds,
        reduced=reduced,
        tiling=package.tiling,
        training={**package.training, "calibration": record},
    )


def _with_temperature(package: ModelPackage, temperature: float) -> ModelPackage:
    """Return a package as it will be with another temperature, which changes its parity logits too."""
    factor = package.temperature / temperature
    parity = tuple(tuple(logit * factor for logit in row) for row in package.parity)
    return replace(package, temperature=temperature, parity=parity)


def _reduced_precision(
    predictor: Predictor,
    logits: DatasetLogits,
    reference: DatasetLogits,
    thresholds: Thresholds,
    choose: Callable[[NDArray[np.float32]], Thresholds],
) -> ReducedPrecision:
    """Return the calibration of a reduced precision.

    Args:
        predictor: computes in it.
        logits: of the calibration pictures, by this predictor.
        reference: the same in float32.
        thresholds: of float32.
        choose: returns thresholds for scores (N,).

    Raises:
        CalibrationError: no thresholds keep the targets, or they cost too much.
    """
    scores, before = (each.prediction().defect_scores for each in (logits, reference))
    own = choose(scores)
    check_cost(own, thresholds)
    pictures = torch.stack([predictor.transform(picture) for picture in parity_pictures()])
    parity = predictor.logits(pictures).tolist()
    return ReducedPrecision(
        precision=predictor.precision,
        engine=predictor.engine.name,
        device=predictor.device.type,
        thresholds=own,
        parity=tuple(tuple(round(logit, DECIMALS) for logit in row) for row in parity),
        flips=count_flips(thresholds, before, own, scores),
        score_shift=float(np.abs(scores.astype(np.float64) - before).max()),
        logit_shift=float((logits.rows - reference.rows).abs().max()),
    )


def count_flips(
    one: Thresholds, scores: NDArray[np.float32], other: Thresholds, other_scores: NDArray[np.float32]
) -> int:
    """Return of how many pictures the verdicts differ; place i of both scores (N,) is picture i."""
    pairs = zip(scores.tolist(), other_scores.tolist(), strict=True)
    return sum(one.verdict(score) != other.verdict(other_score) for score, other_score in pairs)


def check_cost(reduced: Thresholds, float32: Thresholds) -> None:
    """Refuse a precision that flags more good pictures than float32 does, beyond what chance explains.

    Its thresholds keep the targets all the same, but what is gained in time is paid in pictures that people
    look at. Where no picture is good nothing is refused.

    Raises:
        CalibrationError: the message has the figures.
    """
    if reduced.overkill_rate is None or float32.overkill_bound is None:
        return
    if reduced.overkill_rate > float32.overkill_bound:
        raise CalibrationError(
            f"it flags {reduced.n_flagged_good} of {reduced.n_good} good pictures, float32 "
            f"{float32.n_flagged_good} of them, and at most {float32.overkill_bound:.1%} by the 95 % bound"
        )


def loss(raw: torch.Tensor, targets: torch.Tensor, temperature: float, *, multi_label: bool) -> float:
    """Return the mean negative log likelihood of targets (N, K) under logits (N, K) over the temperature."""
    return float(_negative_log_likelihood(raw.double() / temperature, targets.double(), multi_label, "mean"))


def _negative_log_likelihood(
    logits: torch.Tensor, targets: torch.Tensor, multi_label: bool, reduction: str
) -> torch.Tensor:
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction=reduction)
    return F.cross_entropy(logits, targets.argmax(dim=1), reduction=reduction)


def fit_temperature(raw: torch.Tensor, targets: torch.Tensor, *, multi_label: bool) -> float:
    """Return the temperature that minimises the negative log likelihood (Guo et al. 2017).

    It is found by L-BFGS on its logarithm. The logarithm has a standard normal prior, which weighs less than
    one picture. It keeps the temperature finite where the model makes no mistake on the data: the likelihood
    alone would then ask for temperature 0.

    Args:
        raw: logits (N, K), not divided by any temperature.
        targets: (N, K), 1 for labels that hold.
        multi_label: sigmoid instead of softmax.

    Returns:
        Within `TEMPERATURE_RANGE`.
    """
    logits, wanted = raw.double(), targets.double()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_temperature],
        max_iter=100,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scaled = logits / log_temperature.exp()
        likelihood = _negative_log_likelihood(scaled, wanted, multi_label, "sum")
        objective = (likelihood + log_temperature.square() / 2) / len(logits)
        objective.backward()  # type: ignore[no-untyped-call]
        return objective

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    temperature = float(log_temperature.detach().exp())
    if not np.isfinite(temperature):
        raise CalibrationError("no temperature fits these logits; are they finite?")
    return float(np.clip(temperature, *TEMPERATURE_RANGE))


def check_enough(
    n_defective: int,
    n_good: int,
    target_escape_rate: float,
    target_overkill: float | None,
    effective: tuple[float, float] | None = None,
    per: Unit = "picture",
) -> None:
    """Refuse data that is too small to show that the targets are kept, even without a single error.

    Args:
        n_defective: defective pictures.
        n_good: good ones.
        target_escape_rate: as for `choose_thresholds`.
        target_overkill: as for `choose_thresholds`.
        effective: how many independent pictures both are worth; None as long as that is not known.
        per: what is counted.

    Raises:
        CalibrationError: the message has the number of pictures that would be needed.
    """
    sizes = effective or (n_defective, n_good)
    for kind, count, size, name, target in (
        ("defective", n_defective, sizes[0], "target escape rate", target_escape_rate),
        ("good", n_good, sizes[1], "target overkill", target_overkill),
    ):
        if target is None:
            continue
        if not 0 < target < 1:
            raise CalibrationError(f"the {name} must lie between 0 and 1, got {target}")
        needed = needed_without_misses(target, CONFIDENCE)
        without = ""
        if kind == "good":
            without = (
                "; or --target-overkill none: then no target is shown for it, and nothing is rejected "
                "without a person"
            )
        if per == "part":
            without += "; or --per picture, which asks for so many pictures and says less"
        if not count:
            raise CalibrationError(
                f"no {kind} {per} in the calibration data; at least {needed} are needed{without}"
            )
        bound = upper_bound(0, count, CONFIDENCE, size)
        if bound > target:
            worth, parts = "", ""
            if size < count:
                worth = f", which count as {size:.1f} independent ones because those of a group are alike,"
                parts = " of other parts or lots"
            raise CalibrationError(
                f"{count} {kind} {per}s{worth} cannot show a {name} of {target:g}: even without any error "
                f"the 95 % bound is {bound:.4f}. At least {needed} {kind} ones{parts} are needed, or a "
                f"larger target{without}"
            )


def choose_thresholds(
    scores: NDArray[np.floating],
    defective: NDArray[np.bool_],
    *,
    target_escape_rate: float,
    target_overkill: float | None,
    groups: list[str] | None = None,
    dataset_digest: str = "",
    per: Unit = "picture",
) -> Thresholds:
    """Return thresholds on the defect score by which both targets are kept.

    Of the defective pictures, k may be missed: the most for which the one-sided 95 % Clopper-Pearson bound is
    within the target, where pictures count as the independent ones that they are worth by their scores. The
    review threshold lies just below the (k+1)-th smallest defective score. The bound holds although the
    threshold is chosen from the same pictures: the share of defects below an order statistic has the beta
    distribution from which the bound is taken (Wilks 1941, tolerance limits). The reject threshold is found
    in the same way among the good pictures, from above. It is raised to the review threshold where it would
    lie below. Without a target for overkill it is 1, and nothing is rejected: no figure shows how often a
    good picture would be, so that what is flagged goes to a person.

    Args:
        scores: defect scores (N,) in [0, 1].
        defective: which pictures are defective, (N,) bool.
        target_escape_rate: the largest share of defective pictures that may pass, in (0, 1).
        target_overkill: the largest share of good pictures that may be rejected automatically, in (0, 1);
            None for no target.
        groups: part or lot of each picture, (N,); None where each picture is a group of its own.
        dataset_digest: recorded with the thresholds.
        per: what scores are of; where it is parts, read "part" for "picture".

    Raises:
        CalibrationError: there are too few pictures, or more good ones score exactly 1 than may be rejected.
    """
    n_defective, n_good = int(defective.sum()), int((~defective).sum())
    check_enough(n_defective, n_good, target_escape_rate, target_overkill, per=per)
    names = np.array(
        groups if groups is not None else [str(index) for index in range(len(scores))], dtype=object
    )
    bad_size, good_size = (
        effective_size(scores[side].tolist(), names[side].tolist()) for side in (defective, ~defective)
    )
    check_enough(n_defective, n_good, target_escape_rate, target_overkill, (bad_size, good_size), per)
    bad = np.sort(scores[defective].astype(np.float64))
    good = np.sort(scores[~defective].astype(np.float64))[::-1]
    allowed_misses = most_misses(n_defective, target_escape_rate, CONFIDENCE, bad_size) or 0
    review = float(bad[allowed_misses]) * (1 - MARGIN)
    reject = 1.0
    if target_overkill is not None:
        allowed_rejects = most_misses(n_good, target_overkill, CONFIDENCE, good_size) or 0
        highest_good = float(good[allowed_rejects])
        reject = max(review, highest_good + (1 - highest_good) * MARGIN)
        if reject <= highest_good:
            raise CalibrationError(
                f"{allowed_rejects + 1} good {per}s score 1, so no reject threshold keeps overkill within "
                f"{target_overkill:g}; look at their labels, or raise the target"
            )
    n_missed = int((bad < review).sum())
    n_flagged_good, n_rejected_good = int((good >= review).sum()), int((good >= reject).sum())
    recall = float((bad >= reject).mean())
    if target_overkill is None:  # a score of 1 is not rejected either
        n_rejected_good, recall = 0, 0.0
    return Thresholds(
        review=review,
        reject=reject,
        target_escape_rate=target_escape_rate,
        escape_rate=n_missed / n_defective,
        escape_bound=upper_bound(n_missed, n_defective, CONFIDENCE, bad_size),
        n_missed=n_missed,
        overkill_rate=n_flagged_good / n_good if n_good else None,
        overkill_bound=upper_bound(n_flagged_good, n_good, CONFIDENCE, good_size) if n_good else None,
        n_flagged_good=n_flagged_good,
        target_overkill=target_overkill,
        reject_overkill_rate=n_rejected_good / n_good if n_good else None,
        reject_overkill_bound=upper_bound(n_rejected_good, n_good, CONFIDENCE, good_size) if n_good else None,
        n_rejected_good=n_rejected_good,
        reject_recall=recall,
        n_defective=n_defective,
        n_good=n_good,
        n_defective_groups=len(set(names[defective])),
        n_good_groups=len(set(names[~defective])),
        confidence=CONFIDENCE,
        dataset_digest=dataset_digest,
        n_defective_effective=bad_size,
        n_good_effective=good_size,
    )
