"""A model version in inspection: its runs and outcomes, and what people made of its findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.dispositions.history import histories, label_of
from db.index_walk import NEWEST
from db.schema import Disposition, Finding, ModelVersion, Prediction, Run, RunImage


@dataclass(frozen=True, slots=True)
class ClassExperience:
    """Findings of one class, and of those decided about, what decisions in effect say."""

    name: str
    findings: int
    confirmed: int
    overruled: int
    reclassified: int


@dataclass(frozen=True, slots=True)
class ModelExperience:
    """A model version in inspection. `verdicts`: listed pictures, those carried over among them.

    `first`, `last`: when its first and last run started. `classes`: most findings first.
    """

    runs: int
    first: datetime | None
    last: datetime | None
    verdicts: Mapping[str, int]
    classes: tuple[ClassExperience, ...]


def model_experience(session: Session, model_digest: str, upto: int | None = None) -> ModelExperience | None:
    """Sum up the runs and findings of a model version, as of event `upto`; None where it is not recorded."""
    newest = upto or NEWEST
    model = session.scalar(select(ModelVersion.id).where(ModelVersion.digest == model_digest))
    if model is None:
        return None
    runs, first, last = session.execute(
        select(func.count(), func.min(Run.started_at), func.max(Run.started_at)).where(
            Run.model_version_id == model, Run.event_sequence <= newest
        )
    ).one()
    verdicts = session.execute(
        select(RunImage.verdict, func.count())
        .join(Run, Run.id == RunImage.run_id)
        .where(Run.model_version_id == model, RunImage.event_sequence <= newest)
        .group_by(RunImage.verdict)
    )
    findings = session.execute(
        select(Finding.class_name, func.count())
        .join(Prediction, Prediction.id == Finding.prediction_id)
        .where(Prediction.model_version_id == model, Finding.event_sequence <= newest)
        .group_by(Finding.class_name)
        .order_by(func.count().desc(), Finding.class_name)
    ).all()
    decided = session.execute(
        select(Finding.id, Finding.class_name)
        .join(Prediction, Prediction.id == Finding.prediction_id)
        .where(Prediction.model_version_id == model, Finding.event_sequence <= newest)
        .where(select(Disposition.id).where(Disposition.finding_id == Finding.id).exists())
    ).all()
    history = histories(session, [finding for finding, _ in decided], upto)
    shown: Counter[tuple[str, str]] = Counter()
    for finding, name in decided:
        if not any(row.state == "in effect" for row in history.get(finding, ())):
            continue
        label = label_of(name, history[finding])
        said = "confirmed" if label == name else "overruled" if label is None else "reclassified"
        shown[name, said] += 1
    return ModelExperience(
        runs=runs,
        first=first,
        last=last,
        verdicts=dict(verdicts.tuples().all()),
        classes=tuple(
            ClassExperience(
                name,
                count,
                *(shown[name, said] for said in ("confirmed", "overruled", "reclassified")),
            )
            for name, count in findings
        ),
    )
