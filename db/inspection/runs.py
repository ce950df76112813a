"""The life of a run: its model, its start or resumption, its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from db.artifacts import ArtifactRef
from db.chain.events import Actor
from db.columns import storable, utc_now
from db.engine import Database
from db.errors import RecordError
from db.inspection.missing_images import MissingImage
from db.lookup import those
from db.schema import (
    RUN_STATUSES,
    Artifact,
    AuditEvent,
    DomainRow,
    Finding,
    ModelVersion,
    Run,
    RunEnd,
    RunImage,
)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A registered model package."""

    id: UUID
    digest: str
    name: str
    architecture: str
    classes: tuple[str, ...]
    task: str
    thresholds: Mapping[str, Any] | None
    card: Mapping[str, Any]

    @classmethod
    def of(cls, row: ModelVersion) -> ModelRecord:
        """Return the record of a row."""
        return cls(
            id=row.id,
            digest=row.digest,
            name=row.name,
            architecture=row.architecture,
            classes=tuple(row.classes),
            task=row.task,
            thresholds=row.thresholds,
            card=row.card,
        )


class RunKind(NamedTuple):
    """What makes two runs the same: the later one resumes the earlier, and both have one lock."""

    source: str
    settings_digest: str
    model_digest: str


@dataclass(frozen=True, slots=True)
class RunHandle:
    """A run that is under way. `resumed`: it was started before and not finished."""

    id: UUID
    number: int
    source: str
    settings_digest: str
    model: ModelRecord
    started_at: datetime
    resumed: bool

    @classmethod
    def of(cls, row: Run, model: ModelRecord, *, resumed: bool) -> RunHandle:
        """Return the handle of a row."""
        return cls(
            id=row.id,
            number=row.number,
            source=row.source,
            settings_digest=row.settings_digest,
            model=model,
            started_at=row.started_at,
            resumed=resumed,
        )

    @property
    def reference(self) -> str:
        """The run's printed number, such as R000012."""
        return run_reference(self.number)

    @property
    def kind(self) -> RunKind:
        """What it has in common with the run that would resume it."""
        return RunKind(self.source, self.settings_digest, self.model.digest)


@dataclass(frozen=True, slots=True)
class RunCounts:
    """The accounting: listed = passed + review + reject + unreadable. `missing`: announced and not found."""

    listed: int
    passed: int
    review: int
    reject: int
    unreadable: int
    carried_over: int
    missing: int
    findings: int

    def as_dict(self) -> dict[str, int]:
        """Return the counts under the glossary's names (`pass` is a keyword of Python)."""
        return {("pass" if name == "passed" else name): count for name, count in asdict(self).items()}


def run_reference(number: int) -> str:
    """Return the printed number of a run, such as R000012."""
    return f"R{number:06d}"


def find_run_id(session: Session, which: UUID | int | str) -> UUID:
    """Return the id of a run named by id, number, "12" or "R000012"; RecordError if there is none."""
    key: ColumnElement[bool] | None = None
    if isinstance(which, UUID):
        key = Run.id == which
    elif isinstance(which, int):
        key = Run.number == which
    elif (digits := which.strip().lstrip("Rr")).isdecimal() and len(digits) < 10:
        key = Run.number == int(digits)
    found = None if key is None else session.scalar(select(Run.id).where(key))
    if found is None:
        latest = session.scalar(select(func.max(Run.number)))
        hint = "give a number such as 12 or R000012"
        if key is not None:
            hint = "the record holds none yet" if latest is None else f"the latest is {run_reference(latest)}"
        raise RecordError(f"there is no run {which}: {hint}")
    return found


def register_model(
    db: Database,
    *,
    digest: str,
    name: str,
    architecture: str,
    classes: Sequence[str],
    task: str,
    thresholds: Mapping[str, Any] | None,
    card: Mapping[str, Any],
    actor: Actor,
    artifacts: Sequence[ArtifactRef] = (),
) -> ModelRecord:
    """Record a model package under its digest; return the record, which may be there already.

    `artifacts`: the package's files in the artifact store. Where the model was recorded without them, an
    event of its own says that they are stored now.
    """
    with db.write() as recorder:
        session = recorder.session
        row = session.scalar(select(ModelVersion).where(ModelVersion.digest == digest))
        wanted = {ref.digest: ref for ref in artifacts}
        known = session.scalars(select(Artifact.digest).where(Artifact.digest.in_(wanted)))
        new: list[DomainRow] = [artifact_row(wanted[each]) for each in sorted(wanted.keys() - set(known))]
        action = "model.stored"
        if row is None:
            action = "model.registered"
            row = ModelVersion(
                digest=digest,
                name=name,
                architecture=architecture,
                classes=list(classes),
                task=task,
                thresholds=None if thresholds is None else dict(thresholds),
                card=dict(card),
            )
            new.append(row)
        if new:
            recorder.add(
                new,
                action=action,
                actor=actor,
                entity="model_version",
                entity_id=row.id,
                payload={"name": row.name},
                model_digest=digest,
                artifact_digests=list(wanted),
            )
        return ModelRecord.of(row)


def model_artifacts(session: Session, model_digest: str) -> dict[str, ArtifactRef]:
    """Return the stored files of a model package by their media type; empty where none were stored."""
    listed = session.scalars(
        select(AuditEvent.artifact_digests)
        .where(
            AuditEvent.model_digest == model_digest,
            AuditEvent.action.in_(("model.registered", "model.stored")),
        )
        .order_by(AuditEvent.sequence)
    ).all()
    digests = {digest for each in listed for digest in each}
    rows = session.scalars(select(Artifact).where(Artifact.digest.in_(digests), Artifact.kind == "model"))
    return {row.media_type: ArtifactRef(row.digest, row.kind, row.media_type, row.size) for row in rows}


def start_or_resume_run(
    db: Database,
    *,
    source: str,
    settings: Mapping[str, Any],
    settings_digest: str,
    model: ModelRecord,
    actor: Actor,
    host: str,
    trigger: str = "manual",
    computing: Mapping[str, str] | None = None,
    check: Callable[[Session], None] | None = None,
) -> RunHandle:
    """Start a run under the next number, or resume the latest unfinished run of the same kind.

    Of the same kind are runs with the same source, settings digest and model. `settings` are recorded as they
    are; `computing`, what this process computes with, is in the event. `check` may refuse by an error, while
    nobody else can begin a run.
    """
    with db.write() as recorder:
        if check is not None:
            check(recorder.session)
        row = recorder.session.scalar(_unfinished(source, model.digest, [settings_digest]))
        resumed = row is not None
        if row is None:
            row = Run(
                number=(recorder.session.scalar(select(func.max(Run.number))) or 0) + 1,
                source=storable(source),
                settings=dict(settings),
                settings_digest=settings_digest,
                model_version_id=model.id,
                software_version=db.software_version,
                host=host,
                trigger=trigger,
                started_at=utc_now(),
            )
        recorder.add(
            [] if resumed else [row],
            action="run.resumed" if resumed else "run.started",
            actor=actor,
            entity="run",
            entity_id=row.id,
            run_id=row.id,
            payload={"number": row.number, "host": host, "trigger": trigger, **(computing or {})},
            model_digest=model.digest,
            settings_digest=settings_digest,
        )
        return RunHandle.of(row, model, resumed=resumed)


def unfinished_run(session: Session, kind: RunKind) -> RunHandle | None:
    """Return the unfinished run that `start_or_resume_run` would resume, if there is one."""
    return latest_unfinished_run(session, kind.source, kind.model_digest, [kind.settings_digest])


def latest_unfinished_run(
    session: Session,
    source: str,
    model_digest: str,
    settings_digests: Sequence[str],
    *,
    overtaken: bool = True,
) -> RunHandle | None:
    """Return the latest unfinished run of a source and a model with one of these settings, or None.

    Without `overtaken`, one after which another of them was completed does not count.
    """
    row = session.scalar(_unfinished(source, model_digest, settings_digests))
    if row is None:
        return None
    if not overtaken:
        completed = (
            select(Run.id)
            .join(RunEnd, RunEnd.run_id == Run.id)
            .where(
                RunEnd.status == "completed",
                Run.source == row.source,
                Run.settings_digest.in_(settings_digests),
                Run.model_version_id == row.model_version_id,
                Run.number > row.number,
            )
            .limit(1)
        )
        if session.scalar(completed) is not None:
            return None
    model = session.scalars(select(ModelVersion).where(ModelVersion.id == row.model_version_id)).one()
    return RunHandle.of(row, ModelRecord.of(model), resumed=True)


def _unfinished(source: str, model_digest: str, settings_digests: Sequence[str]) -> Select[tuple[Run]]:
    """Select the latest unfinished run of a source and a model with one of these settings."""
    return (
        select(Run)
        .join(ModelVersion, ModelVersion.id == Run.model_version_id)
        .outerjoin(RunEnd, RunEnd.run_id == Run.id)
        .where(
            RunEnd.id.is_(None),
            Run.source == storable(source),
            Run.settings_digest.in_(settings_digests),
            ModelVersion.digest == model_digest,
        )
        .order_by(Run.number.desc())
        .limit(1)
    )


def run_counts(session: Session, run_id: UUID, missing: int, upto: int | None = None) -> RunCounts:
    """Return how many pictures a run listed, by verdict, and the findings on them, as of event `upto`."""
    mine = [RunImage.run_id == run_id]
    if upto is not None:
        mine.append(RunImage.event_sequence <= upto)
    rows = session.execute(
        select(RunImage.verdict, RunImage.carried_over, func.count())
        .where(*mine)
        .group_by(RunImage.verdict, RunImage.carried_over)
    ).all()
    by_verdict: Counter[str] = Counter()
    for verdict, _, number in rows:
        by_verdict[verdict] += number
    findings = session.scalar(
        select(func.count(Finding.id))
        .join(RunImage, RunImage.prediction_id == Finding.prediction_id)
        .where(*mine)
    )
    return RunCounts(
        listed=by_verdict.total(),
        passed=by_verdict["pass"],
        review=by_verdict["review"],
        reject=by_verdict["reject"],
        unreadable=by_verdict["unreadable"],
        carried_over=sum(n for _, carried_over, n in rows if carried_over),
        missing=missing,
        findings=findings or 0,
    )


def finish_run(
    db: Database,
    run: RunHandle,
    *,
    actor: Actor,
    status: str = "completed",
    listed: int | None = None,
    missing: Sequence[MissingImage] = (),
    gone: Sequence[str] = (),
    inspected_before: int = 0,
    note: str = "",
    reason: str | None = None,
) -> RunCounts:
    """Record a run's end with its counts, taken from its rows; a run that has ended keeps its end.

    What was recorded was listed, by the listing of before an interruption: it counts as such, also where the
    source no longer held it at the end. The event names those pictures.

    Args:
        db: the record.
        run: which run.
        actor: who ends it.
        status: completed or failed.
        listed: how many pictures the source listed last.
        missing: pictures that were announced and not found.
        gone: uris that the run recorded, and that the source did not list any more.
        inspected_before: how many pictures the source held that `only_new` left out. The event says it.
        note: what a reader of the record should know.
        reason: why a person ends it.

    Raises:
        RecordError: the status is unknown, a picture that is gone was never recorded, or the run is completed
            and recorded another number of pictures than were listed: one would have been skipped.
    """
    if status not in RUN_STATUSES:
        raise RecordError(f"run status {status!r} is none of {', '.join(RUN_STATUSES)}")
    with db.write() as recorder:
        ended = recorder.session.scalar(select(RunEnd).where(RunEnd.run_id == run.id))
        if ended is not None:
            return counts_from(ended.counts)
        counts = run_counts(recorder.session, run.id, len(missing))
        gone = [storable(uri) for uri in gone]
        mine = select(RunImage.uri).where(RunImage.run_id == run.id)
        recorded = {uri for (uri,) in those(recorder.session, mine, RunImage.uri, gone)}
        if never := sorted(set(gone) - recorded):
            raise RecordError(f"run {run.reference} has no record of {never[0]!r}: it cannot be gone")
        if status == "completed" and listed is not None and listed + len(recorded) != counts.listed:
            raise RecordError(
                f"run {run.reference} listed {listed + len(recorded)} pictures and recorded {counts.listed}: "
                "run it again to record the others, or end it as failed (`kensa run --abandon --reason TEXT`)"
            )
        row = RunEnd(
            run_id=run.id,
            status=status,
            finished_at=utc_now(),
            counts=counts.as_dict(),
            missing=[each.entry() for each in missing],
            note=storable(note),
        )
        payload: dict[str, Any] = {"status": status}
        if missing:
            payload["missing"] = len(missing)
        if gone:
            payload["gone"] = gone
        if inspected_before:
            payload["inspected_before"] = inspected_before
        recorder.add(
            [row],
            action="run.finished",
            actor=actor,
            entity="run",
            entity_id=run.id,
            run_id=run.id,
            payload=payload,
            model_digest=run.model.digest,
            settings_digest=run.settings_digest,
            reason=reason,
        )
        return counts


def counts_from(stored: Mapping[str, int]) -> RunCounts:
    """Return the counts of a mapping that `RunCounts.as_dict` made."""
    return RunCounts(**{("passed" if name == "pass" else name): count for name, count in stored.items()})


def artifact_row(ref: ArtifactRef) -> Artifact:
    """Return the row that records stored bytes."""
    return Artifact(**asdict(ref))
