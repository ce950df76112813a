"""What a run report is made of: frozen records, without a database and without a renderer."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

FlaggedVerdict = Literal["review", "reject"]
Map = npt.NDArray[np.floating]


class ReportError(ValueError):
    """A report cannot be made from this record; the message names the field and the remedy."""


@dataclass(frozen=True)
class Counts:
    """How many pictures a run listed and what became of them; `carried_over` were decided by earlier runs."""

    listed: int
    passed: int
    review: int
    reject: int
    unreadable: int
    carried_over: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ReportError(f"counts.{name}: {value} is below zero; count again")

    @property
    def decided(self) -> int:
        """Pictures with an outcome."""
        return self.passed + self.review + self.reject + self.unreadable

    @property
    def unaccounted(self) -> int:
        """Listed pictures without an outcome: 0 in a sound, finished run."""
        return self.listed - self.decided


@dataclass(frozen=True)
class Rate:
    """A rate in [0, 1] measured on `n` pictures, its one-sided upper confidence bound, the target if any."""

    measured: float
    bound: float
    n: int
    target: float | None = None


@dataclass(frozen=True)
class Criterion:
    """One score threshold in [0, 1] and the rates measured at it on the calibration set."""

    threshold: float
    escape: Rate | None = None
    overkill: Rate | None = None


@dataclass(frozen=True)
class Criteria:
    """The thresholds in force: pass below `review`, reject from `reject` on, review between the two."""

    review: Criterion
    reject: Criterion
    confidence: float = 0.95
    dataset_digest: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.review.threshold <= self.reject.threshold <= 1.0:
            raise ReportError(
                "criteria: thresholds must satisfy 0 <= review <= reject <= 1, got "
                f"{self.review.threshold} and {self.reject.threshold}; take them from the model package"
            )


@dataclass(frozen=True)
class Model:
    """The model version that decided; `task` is "single-label" or "multi-label"."""

    name: str
    architecture: str
    digest: str
    classes: tuple[str, ...]
    task: str
    criteria: Criteria
    good_class: str | None = None


@dataclass(frozen=True)
class LayerMasks:
    """How many of a layer's feature maps became masks."""

    layer: str
    kept: int
    total: int


@dataclass(frozen=True, eq=False)
class Explanation:
    """An attribution map with everything needed to make it again.

    `map` and the maps of `block_maps` (shallow to deep) are (h, w) floats in [0, 1] at any resolution; each
    covers the whole upright picture. `status` is the explainer's: "ok",
    "partial: ..." or "undefined: ..." with the reason. `masked_score` in
    [0, 1] is the class's score with only the top `kept_share` of the map's pixels left, `drop` the percentage
    lost by that in [0, 100], `increase` whether the score rose instead. `box` is (left, top, right, bottom)
    in pixels of the upright picture.
    """

    method: str
    status: str = "ok"
    map: Map | None = None
    block_maps: tuple[tuple[str, Map], ...] = ()
    masks: tuple[LayerMasks, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    masked_score: float | None = None
    drop: float | None = None
    increase: bool | None = None
    map_digest: str | None = None
    box: tuple[int, int, int, int] | None = None
    kept_share: float = 0.15
    outline_share: float = 0.2

    @property
    def drawn_map(self) -> Map | None:
        """The map to print: none where the attribution is undefined (the explainer's map is all 0 then)."""
        return None if self.status.startswith("undefined") else self.map

    def __post_init__(self) -> None:
        maps = [("fused map", self.map)] if self.map is not None else []
        for name, values in (*maps, *self.block_maps):
            if values.ndim != 2 or values.size == 0:
                raise ReportError(f"{name}: expected an (h, w) array, got shape {values.shape}")
            if not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0):
                raise ReportError(
                    f"{name}: values must lie in [0, 1]; store the map as the explainer returned it"
                )


@dataclass(frozen=True, eq=False)
class FindingPage:
    """One flagged class on one picture.

    `picture` holds the bytes of any picture that `sources.decoding` reads, or None when it is not to be had,
    for the reason that `picture_gap` gives (a sentence);
    `score` in [0, 1] is the picture's defect score, on which the verdict rests; `class_score` in [0, 1] the
    flagged class's own.
    """

    reference: str
    uri: str
    class_name: str
    class_score: float
    score: float
    review_threshold: float
    reject_threshold: float
    verdict: FlaggedVerdict
    image_digest: str
    explanation: Explanation
    picture: bytes | None = None
    part: str | None = None
    lot: str | None = None
    station: str | None = None
    captured_at: datetime | None = None
    carried_over: bool = False
    grey_range: tuple[int, int] | None = None
    picture_gap: str | None = None

    def __post_init__(self) -> None:
        _aware(self, ("captured_at",))
        for name in ("score", "class_score", "review_threshold", "reject_threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ReportError(f"finding {self.reference}: {name} {getattr(self, name)} is outside [0, 1]")


@dataclass(frozen=True)
class AuditHead:
    """The last event of the audit log when the report was made."""

    sequence: int
    hash: str


@dataclass(frozen=True)
class SignedCheckpoint:
    """The last signed checkpoint of the audit log: how many events it covers, their Merkle root (hex), who
    signed when, and the signed note itself."""

    tree_size: int
    root: str
    key: str
    signed_at: datetime
    note: str

    def __post_init__(self) -> None:
        _aware(self, ("signed_at",))


@dataclass(frozen=True)
class AttachedFile:
    """A file to attach to a document; `at` dates it."""

    name: str
    description: str
    text: str
    at: datetime


@dataclass(frozen=True, eq=False)
class RunReport:
    """Everything a run report says. The same record gives the same bytes.

    `number` is the run's ("R000012"); `run_id` its database id. `status` is "completed" or says what happened
    instead; anything but "completed", or counts that do not add up, is announced on every page.
    `class_counts` holds the findings per class of the whole run, also of those not in `findings`; left empty
    it is counted from `findings`. At most `max_finding_pages` findings get a page, those with the highest
    scores.
    `unreadable` holds (uri, reason); `missing` the manifest entries without a picture. `timezone` is the IANA
    name of the zone in which times are printed; `issued_at` dates the document.
    """

    number: str
    source: str
    started_at: datetime
    finished_at: datetime | None
    issued_at: datetime
    status: str
    model: Model
    settings_digest: str
    software_version: str
    counts: Counts
    revision: int = 1
    run_id: str | None = None
    title: str = "Inspection report"
    organisation: str | None = None
    trigger: str | None = None
    host: str | None = None
    lots: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    timezone: str = "UTC"
    status_note: str | None = None
    class_counts: tuple[tuple[str, int], ...] = ()
    findings: tuple[FindingPage, ...] = ()
    max_finding_pages: int = 200
    unreadable: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    audit_head: AuditHead | None = None
    checkpoint: SignedCheckpoint | None = None

    def __post_init__(self) -> None:
        _aware(self, ("started_at", "finished_at", "issued_at"))
        if self.max_finding_pages < 0:
            raise ReportError(f"max_finding_pages: {self.max_finding_pages} is below zero")
        if self.class_counts and self.findings_total < len(self.findings):
            raise ReportError(
                f"class_counts add up to {self.findings_total}, but there are {len(self.findings)} findings; "
                "count the findings of the whole run per class, or leave class_counts empty"
            )
        references = Counter(finding.reference for finding in self.findings)
        if repeated := [name for name, count in references.items() if count > 1]:
            raise ReportError(
                f"findings: reference {repeated[0]!r} occurs more than once; references are unique"
            )
        if len(self.unreadable) > self.counts.unreadable:
            raise ReportError(
                f"unreadable names {len(self.unreadable)} pictures, but counts.unreadable is "
                f"{self.counts.unreadable}; count again"
            )

    @property
    def complete(self) -> bool:
        """Whether every listed picture has an outcome and the run says it finished."""
        return self.status == "completed" and self.finished_at is not None and self.counts.unaccounted == 0

    @property
    def zone(self) -> tzinfo:
        """The zone in which times are printed; "UTC" needs no zone database. Raises `ReportError`."""
        if self.timezone == "UTC":
            return UTC
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ReportError(
                f"timezone: no zone {self.timezone!r}; give an IANA name such as 'Europe/Berlin', and where "
                "the system has no zone database install the tzdata package"
            ) from error

    @property
    def findings_by_class(self) -> tuple[tuple[str, int], ...]:
        """Findings per class, most frequent first, ties by name."""
        counts = self.class_counts or tuple(Counter(finding.class_name for finding in self.findings).items())
        return tuple(sorted(((name, n) for name, n in counts if n), key=lambda item: (-item[1], item[0])))

    @property
    def findings_total(self) -> int:
        """Findings of the whole run."""
        return sum(n for _, n in self.findings_by_class)

    @property
    def printed_findings(self) -> tuple[FindingPage, ...]:
        """The findings that get a page, in the record's order."""
        if len(self.findings) <= self.max_finding_pages:
            return self.findings
        order = sorted(range(len(self.findings)), key=lambda i: (-self.findings[i].score, i))
        return tuple(self.findings[i] for i in sorted(order[: self.max_finding_pages]))


def _aware(record: object, names: Iterable[str]) -> None:
    for name in names:
        value: datetime | None = getattr(record, name)
        if value is not None and value.utcoffset() is None:
            raise ReportError(f"{name}: {value} has no time zone; give an aware datetime")
