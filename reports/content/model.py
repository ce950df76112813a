"""What a model report is made of: what a model version learnt from, how it was calibrated, where it fails."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal

from reports.content.base import Report, Timed, check_thresholds
from reports.content.finding import FindingPage
from reports.errors import ReportError

Standing = Literal["met", "not met", "not shown"]
CaseKind = Literal["escape", "overkill"]
Unit = Literal["picture", "part"]


@dataclass(frozen=True)
class Share:
    """`count` of `total`, and what that says about the share in the long run.

    `low` and `high` bound the share from both sides, `bound` from above alone (Clopper and Pearson 1934, at
    the report's confidence); all are None of nothing. `target`: the largest share that is accepted, if any.
    `effective`: the independent pictures that the bounds are those of, since pictures of one part or lot are
    alike; None where each of `total` was taken for one.
    """

    RECORDED: ClassVar[tuple[str, ...]] = ("measured", "standing")

    count: int
    total: int
    low: float | None = None
    high: float | None = None
    bound: float | None = None
    target: float | None = None
    effective: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total:
            raise ReportError(f"{self.count} of {self.total} is not a share; count again")
        if (self.total == 0) != (self.bound is None):
            raise ReportError(
                f"{self.count} of {self.total}: a share of something has bounds, one of nothing none"
            )

    @property
    def measured(self) -> float | None:
        """The share in [0, 1]; None of nothing."""
        return self.count / self.total if self.total else None

    @property
    def standing(self) -> Standing | None:
        """Whether the target is met; None without one.

        Met when the upper bound is within it; not met when the measured share itself is beyond it; between
        the two, or of nothing, there are too few pictures to show either.
        """
        if self.target is None:
            return None
        if self.measured is None or self.bound is None:
            return "not shown"
        if self.bound <= self.target:
            return "met"
        return "not met" if self.measured > self.target else "not shown"


@dataclass(frozen=True)
class ModelVersion(Timed):
    """The model package: `digest` is its version; `preprocessing` and `model_args` are (name, value)."""

    name: str
    architecture: str
    digest: str
    weights_sha256: str
    classes: tuple[str, ...]
    task: str
    temperature: float
    created_at: datetime
    good_class: str | None = None
    model_args: tuple[tuple[str, str], ...] = ()
    preprocessing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DataSide:
    """One side of the labelled data, such as "training".

    `class_counts` holds (class, pictures), a picture of several labels under each; empty where the package
    does not say. `groups`: parts or lots; None where nobody counted them.
    """

    role: str
    digest: str
    pictures: int | None = None
    groups: int | None = None
    class_counts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Training:
    """How the weights came to be; `metrics` are those of the kept epoch on the validation pictures."""

    start: str
    epochs: int | None = None
    best_epoch: int | None = None
    seed: int | None = None
    metrics: tuple[tuple[str, float], ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    command: str | None = None


@dataclass(frozen=True)
class Zones:
    """The four rates of two thresholds: what passes though defective, what is flagged though good.

    `escape`: defective pictures below the review threshold. `flagged_good`: good ones from it on.
    `not_rejected`: defective pictures below the reject threshold. `rejected_good`: good ones from it on.
    """

    escape: Share
    flagged_good: Share
    not_rejected: Share
    rejected_good: Share


@dataclass(frozen=True)
class PictureStatistic:
    """How a statistic was spread over the calibration pictures; 98 % of them lie between `low` and `high`."""

    name: str
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class CalibratedPrecision:
    """The thresholds in one precision, by one engine, and how far its scores are from float32's.

    `reject`: None where nothing is rejected without a person. `flips`: calibration pictures with another
    verdict than in float32. `shift`: the largest change of a score. Both are None for float32 itself.
    """

    precision: str
    engine: str
    review: float
    reject: float | None
    escape: Share
    overkill: Share
    flips: int | None = None
    shift: float | None = None


@dataclass(frozen=True)
class Calibration:
    """The thresholds in [0, 1] and the pictures they rest on; `auroc` is of the defect score.

    `loss_before`, `loss_after`: mean negative log likelihood before and after the temperature.
    `precisions`: all that the model may compute in; empty for models that do not say.
    `unit`: what the rates and their targets are of. A part is judged by the highest score of its pictures.
    """

    review: float
    reject: float
    zones: Zones
    defective_groups: int
    good_groups: int
    dataset_digest: str
    confidence: float = 0.95
    auroc: float | None = None
    loss_before: float | None = None
    loss_after: float | None = None
    precision: str | None = None
    command: str | None = None
    pictures: tuple[PictureStatistic, ...] = ()
    precisions: tuple[CalibratedPrecision, ...] = ()
    unit: Unit = "picture"

    def __post_init__(self) -> None:
        check_thresholds("calibration", self.review, self.reject)

    @property
    def limits(self) -> tuple[float, float | None]:
        """The review and the reject threshold; None for one from which nothing is rejected."""
        return self.review, None if self.zones.rejected_good.target is None else self.reject


@dataclass(frozen=True)
class Overlap:
    """What examined pictures have in common with data that the model has seen.

    `role`: "training", "validation", "calibration", or "other" for data that the user named and the package
    knows nothing of. `source`: the file it was compared with; None where there was none to compare with.
    `proven`: that file holds exactly the data whose digest the package records.
    """

    role: str
    source: str | None = None
    proven: bool = False
    pictures: int = 0
    groups: int = 0

    @property
    def found(self) -> bool:
        """Whether a picture or group is on both sides."""
        return bool(self.pictures or self.groups)


@dataclass(frozen=True)
class ClassResult:
    """How one class fared. `recall`, `precision`: of the most probable class (several labels: from 0.5 on).

    `escaped`: pictures of this class that passed; None for the good class and without thresholds.
    """

    name: str
    pictures: int
    groups: int
    recall: Share
    precision: Share
    escaped: Share | None = None


@dataclass(frozen=True)
class Bin:
    """Pictures whose defect score lies in [low, high), the last bin including 1; `mean` of their scores."""

    low: float
    high: float
    good: int
    defective: int
    mean: float | None = None

    @property
    def pictures(self) -> int:
        """All of them."""
        return self.good + self.defective

    @property
    def observed(self) -> float | None:
        """The share that is defective: what the mean score should be."""
        return self.defective / self.pictures if self.pictures else None


@dataclass(frozen=True)
class Mistake:
    """A defective picture that passed, or a good one that was flagged."""

    kind: CaseKind
    uri: str
    labels: tuple[str, ...]
    predicted: str
    score: float
    verdict: str
    group: str
    image_digest: str


@dataclass(frozen=True)
class GroupResult:
    """A part or lot on which the model went wrong."""

    name: str
    pictures: int
    escapes: int
    overkills: int


@dataclass(frozen=True, eq=False)
class Case:
    """A mistake with a page of its own; the map explains `page.class_name`."""

    mistake: Mistake
    page: FindingPage


@dataclass(frozen=True, eq=False)
class Examination:
    """The model on labelled pictures that the user names.

    `confusion`: rows are labels, columns the most probable class, both in the model's order; empty for
    multi-label models. `good_scores`, `defective_scores`: pictures by defect score, each number between two
    of `score_edges`.
    `zones`, `by_group` and the verdicts are None or empty without thresholds. In `by_group` a group counts as
    soon as one of its pictures does; of a model that was calibrated per part, it is judged as a part.
    `mistakes`: the worst first, escapes before overkill. `cases`: the worst of them. `worst_groups`: most
    mistakes first.
    """

    name: str
    digest: str
    pictures: int
    groups: int
    defective: int
    good: int
    overlaps: tuple[Overlap, ...]
    classes: tuple[ClassResult, ...]
    balanced_accuracy: float | None
    auroc: float | None
    device: str
    precision: str
    confusion: tuple[tuple[int, ...], ...] = ()
    good_scores: tuple[int, ...] = ()
    defective_scores: tuple[int, ...] = ()
    score_edges: tuple[float, ...] = ()
    bins: tuple[Bin, ...] = ()
    calibration_error: float | None = None
    zones: Zones | None = None
    by_group: Zones | None = None
    verdicts: tuple[tuple[str, int], ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    cases: tuple[Case, ...] = ()
    worst_groups: tuple[GroupResult, ...] = ()

    def __post_init__(self) -> None:
        if self.defective + self.good != self.pictures:
            raise ReportError(
                f"examination: {self.defective} defective and {self.good} good pictures are not "
                f"{self.pictures}; count again"
            )

    @property
    def escapes(self) -> tuple[Mistake, ...]:
        """Defective pictures that passed, the lowest score first."""
        return tuple(mistake for mistake in self.mistakes if mistake.kind == "escape")

    @property
    def overkills(self) -> tuple[Mistake, ...]:
        """Good pictures that were flagged, the highest score first."""
        return tuple(mistake for mistake in self.mistakes if mistake.kind == "overkill")

    @property
    def leaks(self) -> tuple[Overlap, ...]:
        """The overlaps that were found."""
        return tuple(overlap for overlap in self.overlaps if overlap.found)


@dataclass(frozen=True)
class Metric:
    """A metric's mean over maps with its 95 % interval (bootstrap over groups; None where one group alone).

    `better`: "high" or "low". Percent, but for the areas.
    """

    name: str
    title: str
    mean: float
    median: float
    count: int
    low: float | None = None
    high: float | None = None
    better: str | None = None
    digits: int = 1


@dataclass(frozen=True)
class MapQuality:
    """How good the maps of the flagged defective pictures are.

    `flagged`: findings on defective examined pictures; `judged`: those drawn and explained, of `groups`
    groups; `undefined`, `failed`: of them without a map; `with_mask`: of them with true pixels. `trust` holds
    (word, maps) as on finding pages.
    """

    method: str
    flagged: int
    judged: int
    groups: int
    metrics: tuple[Metric, ...]
    parameters: tuple[tuple[str, str], ...] = ()
    undefined: int = 0
    failed: int = 0
    with_mask: int = 0
    masks: str | None = None
    trust: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class FieldClass:
    """Findings of one class in inspection, by what people decided in the end."""

    name: str
    findings: int
    confirmed: int = 0
    overruled: int = 0
    reclassified: int = 0
    upheld: Share | None = None

    @property
    def undecided(self) -> int:
        """Findings without a decision in effect."""
        return self.findings - self.confirmed - self.overruled - self.reclassified


@dataclass(frozen=True)
class FieldExperience(Timed):
    """What the record says about this version in inspection; pictures carried over count where decided."""

    runs: int
    passed: int
    review: int
    reject: int
    unreadable: int
    first: datetime | None = None
    last: datetime | None = None
    classes: tuple[FieldClass, ...] = ()

    @property
    def pictures(self) -> int:
        """Pictures with an outcome."""
        return self.passed + self.review + self.reject + self.unreadable


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelReport(Report):
    """Everything a model report says. The same record gives the same bytes.

    `number` is the model's ("M000001"), or says that it is not recorded. What is None was not to be had: no
    training history or thresholds in the package, no labelled pictures named, no record of inspections.
    `maps_gap` says why there is no `quality`.
    """

    RECORDED: ClassVar[tuple[str, ...]] = ("standing",)

    model: ModelVersion
    data: tuple[DataSide, ...] = ()
    training: Training | None = None
    calibration: Calibration | None = None
    examination: Examination | None = None
    quality: MapQuality | None = None
    field: FieldExperience | None = None
    maps_gap: str | None = None
    title: str = "Model report"
    intended_use: str | None = None

    @property
    def unit(self) -> Unit:
        """What the targets are of."""
        return "picture" if self.calibration is None else self.calibration.unit

    @property
    def claims(self) -> tuple[tuple[str, Share], ...]:
        """The shares that have a target, as examined, by name."""
        if self.examination is None or self.examination.zones is None:
            return ()
        zones = self.examination.zones
        if self.unit == "part" and self.examination.by_group is not None:
            zones = self.examination.by_group
        return (("escape rate", zones.escape), ("overkill rate of automatic rejection", zones.rejected_good))

    @property
    def standing(self) -> Standing:
        """Whether the targets are met on examined pictures that the model has not seen."""
        standings = {share.standing for _, share in self.claims}
        if "not met" in standings:
            return "not met"
        if self.examination is None or self.examination.leaks or standings != {"met"}:
            return "not shown"
        return "met"
