"""What a model package says of itself, and the record of it, in the words of a model report."""

from collections.abc import Mapping
from typing import Any

from classifiers import ModelPackage, Thresholds
from classifiers.data.dataset import Dataset
from classifiers.data.overlap import recorded_digests
from classifiers.measure.intervals import interval, upper_bound
from classifiers.measure.reference import read_reference
from classifiers.measure.units import calibrated_per
from classifiers.package.precisions import ReducedPrecision
from db.figures.experience import ModelExperience
from operations.reporting.findings import pairs
from reports.content.model import (
    CalibratedPrecision,
    Calibration,
    DataSide,
    FieldClass,
    FieldExperience,
    ModelVersion,
    PictureStatistic,
    Share,
    Training,
    Zones,
)


def share_of(
    count: int,
    total: int,
    target: float | None = None,
    confidence: float = 0.95,
    effective: float | None = None,
) -> Share:
    """Return a share with its exact bounds, of so many independent pictures (all of them when None)."""
    if not total:
        return Share(count, total, target=target)
    low, high = interval(count, total, confidence, effective)
    return Share(count, total, low, high, upper_bound(count, total, confidence, effective), target, effective)


def model_version(package: ModelPackage) -> ModelVersion:
    """Say which model version a package is."""
    return ModelVersion(
        name=package.path.resolve().name,
        architecture=package.architecture,
        digest=package.digest,
        weights_sha256=package.weights_sha256,
        classes=package.classes,
        task=package.task,
        temperature=package.temperature,
        created_at=package.created_at,
        good_class=package.good_class,
        model_args=pairs(package.model_args),
        preprocessing=pairs(package.preprocessing.record()),
    )


def data_sides(package: ModelPackage, known: Mapping[str, Dataset]) -> tuple[DataSide, ...]:
    """Say what data a package was made from: by what it says itself, and by the data where that is at hand.

    Args:
        package: the model.
        known: role -> the data, found to be that of the package; see `classifiers.data.overlap`.
    """
    told = _mapping(package.training.get("data_counts"))
    sides = []
    for role, digest in recorded_digests(package).items():
        counts, pictures, groups = _counts(told.get(role)), None, None
        if role in known:
            counts, pictures = known[role].counts(), len(known[role].items)
            groups = len({item.group for item in known[role].items})
        elif role == "calibration" and package.thresholds and calibrated_per(package) == "picture":
            pictures = package.thresholds.n_defective + package.thresholds.n_good
        elif counts and package.task == "single-label":
            # A picture of several labels stands under each of them, and one of none under none.
            pictures = sum(counts.values())
        sides.append(DataSide(role, digest, pictures, groups, tuple(counts.items())))
    return tuple(sides)


def training_of(package: ModelPackage) -> Training | None:
    """Say how a package was trained, as far as it says so itself; None where it says nothing."""
    told = package.training
    if not told.keys() - {"calibration"}:
        return None
    settings, metrics = _mapping(told.get("settings")), _mapping(told.get("metrics"))
    return Training(
        start=_start(_mapping(told.get("origin")), _mapping(told.get("follows"))),
        epochs=_whole(settings.get("epochs")),
        best_epoch=_whole(told.get("best_epoch")),
        seed=_whole(settings.get("seed")),
        metrics=tuple(
            (name, value)
            for key, name in _METRICS.items()
            if (value := _number(metrics.get(key))) is not None
        ),
        settings=pairs(settings),
        versions=pairs(_mapping(told.get("versions"))),
        command=_optional_text(told.get("command")),
    )


_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "auroc": "AUROC of the defect score",
    "loss": "loss",
}


def calibration_of(package: ModelPackage, used: ReducedPrecision | None = None) -> Calibration | None:
    """Say how a package was calibrated; None where it was not.

    Args:
        package: as loaded.
        used: the reduced precision that the report is about; None for float32.
    """
    t = package.thresholds if used is None else used.thresholds
    if t is None:
        return None
    told = _mapping(package.training.get("calibration"))
    # Written as a share; the count is a whole number again.
    not_rejected = t.n_defective - round(t.reject_recall * t.n_defective)
    bad, good = t.n_defective_effective, t.n_good_effective
    escape, overkill = _rates(t)
    return Calibration(
        review=t.review,
        reject=t.reject,
        zones=Zones(
            escape=escape,
            flagged_good=overkill,
            not_rejected=share_of(not_rejected, t.n_defective, None, t.confidence, bad),
            rejected_good=share_of(t.n_rejected_good, t.n_good, t.target_overkill, t.confidence, good),
        ),
        defective_groups=t.n_defective_groups,
        good_groups=t.n_good_groups,
        dataset_digest=t.dataset_digest,
        confidence=t.confidence,
        # These three are of float32's scores.
        auroc=_number(told.get("auroc")) if used is None else None,
        loss_before=_number(told.get("loss_before")) if used is None else None,
        loss_after=_number(told.get("loss_after")) if used is None else None,
        precision=_optional_text(told.get("precision")) if used is None else used.precision,
        command=_optional_text(told.get("command")),
        pictures=_pictures(package),
        precisions=_precisions(package, _optional_text(told.get("engine")) or "torch"),
        unit=calibrated_per(package),
    )


def _rates(t: Thresholds) -> tuple[Share, Share]:
    """Return the escape rate and the overkill rate at the review threshold."""
    return (
        share_of(t.n_missed, t.n_defective, t.target_escape_rate, t.confidence, t.n_defective_effective),
        share_of(t.n_flagged_good, t.n_good, None, t.confidence, t.n_good_effective),
    )


def _precisions(package: ModelPackage, engine: str) -> tuple[CalibratedPrecision, ...]:
    """Say in which precisions a package may decide; `engine`: the one that scored in float32."""
    if package.thresholds is None or not package.calibrated_by_precision:
        return ()
    float32 = ("float32", engine, package.thresholds, None, None)
    reduced = [
        (one.precision, one.engine, one.thresholds, one.flips, one.score_shift) for one in package.reduced
    ]
    return tuple(
        CalibratedPrecision(
            precision,
            by,
            t.review,
            None if t.target_overkill is None else t.reject,
            *_rates(t),
            flips,
            shift,
        )
        for precision, by, t, flips, shift in [float32, *reduced]
    )


def _pictures(package: ModelPackage) -> tuple[PictureStatistic, ...]:
    """Say what the calibration pictures looked like; nothing for packages of before that was kept."""
    reference = read_reference(package.training)
    if reference is None:
        return ()
    spreads = {name: getattr(reference, name) for name in ("brightness", "contrast", "sharpness")}
    return tuple(
        PictureStatistic(name, each.mean, each.sd, each.quantiles[0], each.quantiles[-1])
        for name, each in spreads.items()
    )


def field_experience(found: ModelExperience) -> FieldExperience:
    """Say what the record knows of a model version in inspection."""
    return FieldExperience(
        runs=found.runs,
        passed=found.verdicts.get("pass", 0),
        review=found.verdicts.get("review", 0),
        reject=found.verdicts.get("reject", 0),
        unreadable=found.verdicts.get("unreadable", 0),
        first=found.first,
        last=found.last,
        classes=tuple(
            FieldClass(
                name=one.name,
                findings=one.findings,
                confirmed=one.confirmed,
                overruled=one.overruled,
                reclassified=one.reclassified,
                upheld=share_of(one.confirmed, one.confirmed + one.overruled + one.reclassified),
            )
            for one in found.classes
        ),
    )


# A package is read, not trusted: what its history holds may be of any type.


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _counts(value: Any) -> dict[str, int]:
    return {name: count for name, count in _mapping(value).items() if _whole(count) is not None}


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _optional_text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _start(origin: Mapping[str, Any], follows: Mapping[str, Any]) -> str:
    """Say what the weights were before training; `follows`: the model whose successor this is, if any."""
    if earlier := _optional_text(follows.get("package_digest")):
        return f"weights of model {earlier}, with pictures added to its data"
    kind = origin.get("weights")
    if kind == "random":
        return "random weights"
    if kind == "hub":
        return f"timm's weights {origin.get('hub_id')} {origin.get('tag') or ''}".rstrip()
    if kind == "file":
        return f"weights of {origin.get('file')}, SHA-256 {origin.get('sha256')}"
    return "not recorded"
