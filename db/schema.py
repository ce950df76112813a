"""The tables. All are append-only: a change of state is a new row.

Each domain row carries the sequence number of the one audit event that was written with it and covers it by a
digest. A column that is added later is NULL in older rows and does not enter their digest.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    MetaData,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from db.columns import Json, PlainText, Sequence64, Time, uuid7

VERDICTS = ("pass", "review", "reject", "unreadable")
RUN_STATUSES = ("completed", "failed")
ARTIFACT_KINDS = ("picture", "map", "block_map", "report", "model")
DECISIONS = ("confirm", "overrule", "reclassify", "use-as-is", "rework", "repair", "scrap", "return")
ACTOR_KINDS = ("human", "system")
ROLES = ("quality-engineer", "quality-manager", "auditor", "administrator")
APPROVALS = ("approve", "refuse")
RETENTION_STATES = ("pruned", "restored")
REPORT_KINDS = ("run", "period", "finding", "part", "model")
CAPACITIES = ("reviewed", "approved")
SIGN_OFFS = ("accept", "accept with concession", "do not accept")
REPLAY_RESULTS = ("identical", "equal", "different", "impossible")
# Conditions of partial indexes. A query is served by one only if it spells the condition just so, without
# parameters.
FLAGGED = "verdict <> 'pass'"
CARRIED_OVER = "carried_over"


def partial_index(name: str, *columns: str, where: str) -> Index:
    """Return an index over the rows that meet a condition, on both databases."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _share(column: str) -> str:
    return f"{column} >= 0 AND {column} <= 1"


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Declarative base: constructors take keyword arguments and are checked by mypy."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: PlainText,
        float: Double(),
        datetime: Time(),
        UUID: Uuid(),
        dict[str, Any]: Json(),
        list[Any]: Json(),
    }


class DomainRow(Base, kw_only=True):
    """What every domain row has: its identifier and the event that speaks for it."""

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default_factory=uuid7, sort_order=-2)
    event_sequence: Mapped[int] = mapped_column(
        Sequence64, ForeignKey("audit_event.sequence"), index=True, init=False, sort_order=-1
    )


class AuditEvent(Base, kw_only=True):
    """One line of the history. `rows` lists [table, id] of the domain rows written with it.

    `old_value`, `new_value`, `reason`: what a person's change replaced, by what, and why.
    """

    __tablename__ = "audit_event"

    sequence: Mapped[int] = mapped_column(Sequence64, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column(unique=True)
    at: Mapped[datetime]
    actor_id: Mapped[str]
    actor_kind: Mapped[str]
    actor_name: Mapped[str | None]
    actor_role: Mapped[str | None]
    action: Mapped[str]
    entity: Mapped[str]
    entity_id: Mapped[str]
    run_id: Mapped[UUID | None]  # no foreign key: the log stands on its own and is written before its rows
    payload: Mapped[dict[str, Any]]
    old_value: Mapped[dict[str, Any] | None]
    new_value: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]
    software_version: Mapped[str]
    model_digest: Mapped[str | None]
    settings_digest: Mapped[str | None]
    image_digest: Mapped[str | None]
    artifact_digests: Mapped[list[Any]]
    rows: Mapped[list[Any]]
    rows_digest: Mapped[str]
    previous_hash: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    scheme: Mapped[int]

    __table_args__ = (
        CheckConstraint("sequence >= 1", name="sequence"),
        CheckConstraint(_one_of("actor_kind", ACTOR_KINDS), name="actor_kind"),
        Index(None, "action", "sequence"),
        Index(None, "actor_id", "sequence"),
        Index(None, "run_id", "sequence"),
        Index(None, "model_digest", "sequence"),
        Index(None, "at", "sequence"),  # covers: which events a time range spans
        partial_index("ix_audit_event_reasoned", "sequence", where="reason IS NOT NULL"),  # free-text search
    )


class Part(DomainRow, kw_only=True):
    """An inspected item. A serial or lot that was not given is empty (NULL would escape the unique key)."""

    __tablename__ = "part"

    serial: Mapped[str]
    lot: Mapped[str]

    __table_args__ = (
        UniqueConstraint("serial", "lot"),
        Index(None, "lot", "event_sequence"),  # a lot's parts, newest first (audit trace)
    )


class Image(DomainRow, kw_only=True):
    """One picture, known by the SHA-256 of its bytes. Width to mode are NULL where it cannot be decoded."""

    __tablename__ = "image"

    digest: Mapped[str] = mapped_column(unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int | None]
    height: Mapped[int | None]
    format: Mapped[str | None]
    mode: Mapped[str | None]

    __table_args__ = (CheckConstraint("size >= 0", name="size"),)


class ModelVersion(DomainRow, kw_only=True):
    """A model package, known by its digest."""

    __tablename__ = "model_version"

    digest: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    architecture: Mapped[str]
    classes: Mapped[list[Any]]
    task: Mapped[str]
    thresholds: Mapped[dict[str, Any] | None]
    card: Mapped[dict[str, Any]]

    __table_args__ = (CheckConstraint(_one_of("task", ("single-label", "multi-label")), name="task"),)


class Run(DomainRow, kw_only=True):
    """One execution of the inspection flow, with a frozen copy of its settings.

    `number`: as printed (R000012); `settings_digest`: of the settings that decide an outcome.
    """

    __tablename__ = "run"

    number: Mapped[int] = mapped_column(unique=True)
    source: Mapped[str]
    settings: Mapped[dict[str, Any]]
    settings_digest: Mapped[str]
    model_version_id: Mapped[UUID] = mapped_column(ForeignKey("model_version.id"))
    software_version: Mapped[str]
    host: Mapped[str]
    trigger: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (CheckConstraint("number >= 1", name="number"),)


class RunEnd(DomainRow, kw_only=True):
    """The end of a run: its status and what it counted. A run without one is unfinished.

    `missing`: what was announced and not found, as `MissingImage.entry` gives it; before kensa 0.3, uris.
    """

    __tablename__ = "run_end"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("run.id"), unique=True)
    status: Mapped[str]
    finished_at: Mapped[datetime]
    counts: Mapped[dict[str, Any]]
    missing: Mapped[list[Any]]
    note: Mapped[str]

    __table_args__ = (CheckConstraint(_one_of("status", RUN_STATUSES), name="status"),)


class Prediction(DomainRow, kw_only=True):
    """The one outcome of an image under a model and settings. `run_id`: the run that made it.

    `brightness`, `contrast`, `sharpness`: of the picture as decoded, without a unit
    (`sources.picture_statistics` says how they are computed). They are NULL for an unreadable picture, and in
    rows older than the columns. `tile_count`, `deciding_tile`: of a tiled picture, how many tiles it has, and
    the one whose probabilities these are ([left, top, right, bottom] in the picture's pixels).
    """

    __tablename__ = "prediction"

    image_id: Mapped[UUID] = mapped_column(ForeignKey("image.id"))
    model_version_id: Mapped[UUID] = mapped_column(ForeignKey("model_version.id"))
    settings_digest: Mapped[str]
    run_id: Mapped[UUID] = mapped_column(ForeignKey("run.id"), index=True)
    verdict: Mapped[str]
    reason: Mapped[str | None]
    score: Mapped[float | None]
    review_threshold: Mapped[float | None]
    reject_threshold: Mapped[float | None]
    probabilities: Mapped[list[Any] | None]
    created_at: Mapped[datetime]
    brightness: Mapped[float | None]
    contrast: Mapped[float | None]
    sharpness: Mapped[float | None]
    tile_count: Mapped[int | None]
    deciding_tile: Mapped[list[Any] | None]

    __table_args__ = (
        UniqueConstraint("image_id", "model_version_id", "settings_digest"),
        Index(None, "score", "event_sequence"),  # covers: events by score range, passes included
        CheckConstraint(_one_of("verdict", VERDICTS), name="verdict"),
        CheckConstraint(_share("score"), name="score"),
        CheckConstraint(_share("review_threshold"), name="review_threshold"),
        CheckConstraint(_share("reject_threshold"), name="reject_threshold"),
        CheckConstraint("(verdict = 'unreadable') = (score IS NULL)", name="scored"),
        CheckConstraint("(verdict = 'unreadable') = (reason IS NOT NULL)", name="reasoned"),
    )


class RunImage(DomainRow, kw_only=True):
    """The accounting: one row for each picture a run listed, whatever became of it."""

    __tablename__ = "run_image"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("run.id"))
    uri: Mapped[str]
    version: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    part_id: Mapped[UUID | None] = mapped_column(ForeignKey("part.id"))
    station: Mapped[str | None]
    captured_at: Mapped[datetime | None]
    image_id: Mapped[UUID | None] = mapped_column(ForeignKey("image.id"), index=True)
    prediction_id: Mapped[UUID | None] = mapped_column(ForeignKey("prediction.id"), index=True)
    verdict: Mapped[str]
    reason: Mapped[str | None]
    carried_over: Mapped[bool]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("run_id", "uri"),
        Index(None, "uri", "version"),
        Index(None, "part_id", "event_sequence"),  # covers: events of a part, and of a lot's parts
        Index(None, "station", "event_sequence"),  # events of a station, newest first
        # Small, over what did not pass: events by verdict and unreadable reason; findings by station.
        partial_index("ix_run_image_flagged_verdict", "verdict", "event_sequence", where=FLAGGED),
        partial_index("ix_run_image_flagged_station", "station", "event_sequence", where=FLAGGED),
        # Small, over pictures carried over: events by class or score, findings met again by a run.
        partial_index("ix_run_image_carried", "event_sequence", "verdict", where=CARRIED_OVER),
        CheckConstraint(_one_of("verdict", VERDICTS), name="verdict"),
        CheckConstraint("verdict = 'unreadable' OR prediction_id IS NOT NULL", name="decided"),
        CheckConstraint("(verdict = 'unreadable') = (reason IS NOT NULL)", name="reasoned"),
        CheckConstraint("(image_id IS NULL) = (prediction_id IS NULL)", name="image"),
    )


class Finding(DomainRow, kw_only=True):
    """One flagged class on one image. `number` counts within the run that made it."""

    __tablename__ = "finding"

    reference: Mapped[str] = mapped_column(unique=True)
    run_id: Mapped[UUID] = mapped_column(ForeignKey("run.id"))
    number: Mapped[int]
    prediction_id: Mapped[UUID] = mapped_column(ForeignKey("prediction.id"))
    class_name: Mapped[str]
    class_score: Mapped[float]
    score: Mapped[float]
    threshold: Mapped[float]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("run_id", "number"),
        UniqueConstraint("prediction_id", "class_name"),
        Index(None, "class_name", "event_sequence"),  # findings, and events, by class, newest first
        Index(None, "score", "event_sequence"),  # covers: findings by score range
        Index(None, "created_at", "event_sequence"),  # covers: findings by time range
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint(_share("class_score"), name="class_score"),
        CheckConstraint(_share("score"), name="score"),
        CheckConstraint(_share("threshold"), name="threshold"),
    )


class Explanation(DomainRow, kw_only=True):
    """A finding's attribution map with everything needed to make it again.

    `layers`: [{name, kept, total}]; `block_map_digests`: [{layer, digest}], shallow to deep;
    `box`: [left, top, right, bottom] in pixels; `score_drop` in percent. Of a tiled picture `tiles` holds the
    tiles that were explained, strongest first (`ExplainedTile.entry`), and `tiles_left_out` how many more
    reached the threshold; maps and layers are the tiles' then, and NULL or empty here.
    """

    __tablename__ = "explanation"

    finding_id: Mapped[UUID] = mapped_column(ForeignKey("finding.id"), unique=True)
    method: Mapped[str]
    parameters: Mapped[dict[str, Any]]
    layers: Mapped[list[Any]]
    status: Mapped[str]
    masked_score: Mapped[float | None]
    score_drop: Mapped[float | None]
    score_increase: Mapped[bool | None]
    map_digest: Mapped[str | None] = mapped_column(ForeignKey("artifact.digest"))
    block_map_digests: Mapped[list[Any]]
    box: Mapped[list[Any] | None]
    created_at: Mapped[datetime]
    tiles: Mapped[list[Any] | None]
    tiles_left_out: Mapped[int | None]

    __table_args__ = (CheckConstraint(_share("masked_score"), name="masked_score"),)


class Artifact(DomainRow, kw_only=True):
    """Bytes in the artifact store: a picture, a map, a report, a model's weights."""

    __tablename__ = "artifact"

    digest: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    media_type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint(_one_of("kind", ARTIFACT_KINDS), name="kind"),
        CheckConstraint("size >= 0", name="size"),
    )


class Person(DomainRow, kw_only=True):
    """Somebody who can sign, known by a login that is never given to anybody else."""

    __tablename__ = "person"

    login: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]


class PersonRevision(DomainRow, kw_only=True):
    """What is true of a person from then on: printed name, role, password (argon2), whether they may act."""

    __tablename__ = "person_revision"

    person_id: Mapped[UUID] = mapped_column(ForeignKey("person.id"))
    revision: Mapped[int]
    name: Mapped[str]
    role: Mapped[str]
    active: Mapped[bool]
    password_hash: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("person_id", "revision"),
        CheckConstraint("revision >= 1", name="revision"),
        CheckConstraint(_one_of("role", ROLES), name="role"),
    )


class Disposition(DomainRow, kw_only=True):
    """What a person decided about a finding; a later one supersedes, the earlier stays.

    `class_name`: the defect's class after a reclassify. `needs_approval`: it takes effect when a second
    person approves it. `person`: login of who decided, whose `signature` holds what
    `db.dispositions.signatures` says.
    """

    __tablename__ = "disposition"

    finding_id: Mapped[UUID] = mapped_column(ForeignKey("finding.id"), index=True)
    decision: Mapped[str]
    class_name: Mapped[str | None]
    reason: Mapped[str]
    person: Mapped[str]
    needs_approval: Mapped[bool | None]
    created_at: Mapped[datetime]
    supersedes_id: Mapped[UUID | None] = mapped_column(ForeignKey("disposition.id"), unique=True)
    signature: Mapped[dict[str, Any] | None]

    __table_args__ = (
        Index(None, "person", "event_sequence"),  # what a person decided, newest first
        CheckConstraint(_one_of("decision", DECISIONS), name="decision"),
    )


class Approval(DomainRow, kw_only=True):
    """The second pair of eyes: another person approved or refused a disposition, and signed that."""

    __tablename__ = "approval"

    disposition_id: Mapped[UUID] = mapped_column(ForeignKey("disposition.id"), unique=True)
    decision: Mapped[str]
    reason: Mapped[str]
    person: Mapped[str]
    created_at: Mapped[datetime]
    signature: Mapped[dict[str, Any]]

    __table_args__ = (
        Index(None, "person", "event_sequence"),  # what a person approved or refused, newest first
        CheckConstraint(_one_of("decision", APPROVALS), name="decision"),
    )


class Checkpoint(DomainRow, kw_only=True):
    """A signed head of the log, as it was written outside the database.

    `tree_size`: how many events it covers; `root`: of the Merkle tree over them; `head_hash`: of the last
    one; `frontier`: the roots of the tree's perfect subtrees, left to right, from which it is continued;
    `note`: the signed text. Digests in hex.
    """

    __tablename__ = "checkpoint"

    tree_size: Mapped[int] = mapped_column(Sequence64, unique=True)
    root: Mapped[str]
    head_hash: Mapped[str]
    frontier: Mapped[list[Any]]
    note: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("tree_size >= 1", name="tree_size"),)


class ArtifactRetention(DomainRow, kw_only=True):
    """The removal of an artifact's bytes by policy, or their return after that; the latest row counts."""

    __tablename__ = "artifact_retention"

    artifact_digest: Mapped[str] = mapped_column(ForeignKey("artifact.digest"), index=True)
    state: Mapped[str]
    policy: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (CheckConstraint(_one_of("state", RETENTION_STATES), name="state"),)


class Replay(DomainRow, kw_only=True):
    """A recorded decision that was computed again, and how the two compare. `details`: figures by name."""

    __tablename__ = "replay"

    prediction_id: Mapped[UUID] = mapped_column(ForeignKey("prediction.id"), index=True)
    result: Mapped[str]
    details: Mapped[dict[str, Any]]
    software_version: Mapped[str]
    host: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (CheckConstraint(_one_of("result", REPLAY_RESULTS), name="result"),)


class Report(DomainRow, kw_only=True):
    """An issued report, what it is about, and the audit head it carries. One without `kind` is a run's.

    `number`: as printed, shared by all revisions about the same subject; `subject`: as `ReportSubject` in
    `db.issued.reports` describes it; `artifact_digest`: of the PDF as issued; `content_digest`: of the PDF
    before the house's signature, where it has one; `record_digest`: of the machine-readable record inside.
    All but `artifact_digest` may be NULL in rows older than the columns. Those are all about runs.
    """

    __tablename__ = "report"

    run_id: Mapped[UUID | None] = mapped_column(ForeignKey("run.id"))
    revision: Mapped[int]
    artifact_digest: Mapped[str] = mapped_column(ForeignKey("artifact.digest"), index=True)
    head_sequence: Mapped[int] = mapped_column(Sequence64)
    head_hash: Mapped[str]
    supersedes_id: Mapped[UUID | None] = mapped_column(ForeignKey("report.id"), unique=True)
    created_at: Mapped[datetime]
    kind: Mapped[str | None]
    number: Mapped[str | None]
    subject: Mapped[dict[str, Any] | None]
    record_digest: Mapped[str | None]
    content_digest: Mapped[str | None]

    __table_args__ = (
        # A run's reports by the first, old ones among them; all others by the second.
        UniqueConstraint("run_id", "revision"),
        UniqueConstraint("number", "revision"),
        CheckConstraint("revision >= 1", name="revision"),
        CheckConstraint(_one_of("kind", REPORT_KINDS), name="kind"),
        CheckConstraint("(coalesce(kind, 'run') = 'run') = (run_id IS NOT NULL)", name="run"),
        CheckConstraint("(kind IS NULL) = (number IS NULL)", name="number"),
        CheckConstraint("(kind IS NULL) = (subject IS NULL)", name="subject"),
    )


class ReportSignature(DomainRow, kw_only=True):
    """A person's signature on an issued report: in which capacity, and whether they accept what it says.

    `number` counts within the report; `artifact_digest`: of the PDF with this signature in it and those
    before it; `person`: login of who signed; `signature`: as `db.dispositions.signatures` describes it.
    """

    __tablename__ = "report_signature"

    report_id: Mapped[UUID] = mapped_column(ForeignKey("report.id"))
    number: Mapped[int]
    capacity: Mapped[str]
    decision: Mapped[str]
    reason: Mapped[str]
    person: Mapped[str]
    artifact_digest: Mapped[str] = mapped_column(ForeignKey("artifact.digest"), unique=True)
    created_at: Mapped[datetime]
    signature: Mapped[dict[str, Any]]

    __table_args__ = (
        UniqueConstraint("report_id", "number"),
        UniqueConstraint("report_id", "person"),
        Index(None, "person", "event_sequence"),  # what a person signed, newest first
        CheckConstraint("number >= 1", name="number"),
        CheckConstraint(_one_of("capacity", CAPACITIES), name="capacity"),
        CheckConstraint(_one_of("decision", SIGN_OFFS), name="decision"),
    )


# In the order in which rows can be inserted: referenced tables first.
DOMAIN_TABLES = tuple(table for table in Base.metadata.sorted_tables if table.name != "audit_event")
