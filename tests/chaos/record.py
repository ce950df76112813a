"""What a record holds, in a form in which two records can be compared: no identifiers, no times."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from db.artifacts import ArtifactStore
from db.engine import open_database
from db.inspection.runs import run_reference
from db.issued.reports import run_reports
from db.schema import AuditEvent, Explanation, Finding, Image, Part, Prediction, Run, RunEnd, RunImage
from db.transparency.checkpoints import CheckpointFolder


@dataclass(frozen=True)
class Outcome:
    """What a picture got, bit for bit; `findings` as canonical JSON texts, each with its maps' digests."""

    verdict: str
    score: float | None
    reason: str | None
    digest: str | None
    part: str | None
    probabilities: tuple[float, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class RecordedRun:
    """A run with its pictures in the order of their uris, a picture as often as it is there.

    `counts`: those of its end, None where it has none. `reported`: whether it has a report, and the file in
    the report folder is the one that was issued. `signed`: whether a signed checkpoint covers its end.
    """

    reference: str
    status: str
    counts: Mapping[str, int] | None
    pictures: tuple[tuple[str, Outcome], ...]
    reported: bool
    signed: bool


@dataclass(frozen=True)
class Record:
    """All runs, oldest first; and the pictures that were decided more than once under one set of settings."""

    runs: tuple[RecordedRun, ...]
    decided_twice: tuple[str, ...]

    def outcomes(self) -> dict[str, Outcome]:
        """Return what the pictures of the first run got, by uri."""
        return dict(self.runs[0].pictures)


def read_record(url: str, store: ArtifactStore, reports: Path, notes: Path) -> Record:
    """Read a record and what belongs to it: artifact store, report folder, folder of checkpoints."""
    with open_database(url) as database, database.session() as session:
        explained: dict[Any, list[str]] = defaultdict(list)
        for finding, explanation in session.execute(
            select(Finding, Explanation).outerjoin(Explanation, Explanation.finding_id == Finding.id)
        ):
            explained[finding.prediction_id].append(_finding_text(finding, explanation))
        pictures: dict[Any, list[tuple[str, Outcome]]] = defaultdict(list)
        for line, digest, serial, prediction in session.execute(
            select(RunImage, Image.digest, Part.serial, Prediction)
            .outerjoin(Image, Image.id == RunImage.image_id)
            .outerjoin(Part, Part.id == RunImage.part_id)
            .outerjoin(Prediction, Prediction.id == RunImage.prediction_id)
            .order_by(RunImage.uri)
        ):
            outcome = Outcome(
                verdict=line.verdict,
                score=prediction.score if prediction else None,
                reason=line.reason,
                digest=digest,
                part=serial,
                probabilities=tuple(prediction.probabilities or ()) if prediction else (),
                findings=tuple(sorted(explained[line.prediction_id])) if line.prediction_id else (),
            )
            pictures[line.run_id].append((line.uri, outcome))
        ends = {end.run_id: end for end in session.scalars(select(RunEnd))}
        finished = dict(
            session.execute(
                select(AuditEvent.run_id, AuditEvent.sequence).where(AuditEvent.action == "run.finished")
            )
            .tuples()
            .all()
        )
        covered = CheckpointFolder(notes).newest()
        runs = []
        for run in session.scalars(select(Run).order_by(Run.number)):
            end = ends.get(run.id)
            issued = run_reports(session, run.id)
            runs.append(
                RecordedRun(
                    reference=run_reference(run.number),
                    status=end.status if end else "unfinished",
                    counts=dict(end.counts) if end else None,
                    pictures=tuple(pictures[run.id]),
                    reported=bool(issued)
                    and all(
                        _is_file(reports / f"{each.number}-{each.revision}.pdf", each.artifact_digest, store)
                        for each in issued
                    ),
                    signed=run.id in finished and covered >= finished[run.id],
                )
            )
        twice = session.scalars(
            select(Image.digest)
            .join(Prediction, Prediction.image_id == Image.id)
            .group_by(Image.digest, Prediction.model_version_id, Prediction.settings_digest)
            .having(func.count() > 1)
        )
        return Record(tuple(runs), tuple(twice))


def _finding_text(finding: Finding, explanation: Explanation | None) -> str:
    said: dict[str, Any] = {
        name: getattr(finding, name) for name in ("class_name", "class_score", "score", "threshold")
    }
    if explanation is not None:
        said |= {
            name: getattr(explanation, name)
            for name in (
                *("method", "parameters", "layers", "status", "masked_score", "score_drop"),
                *("score_increase", "map_digest", "block_map_digests", "box"),
            )
        }
    return json.dumps(said, sort_keys=True)


def _is_file(path: Path, digest: str, store: ArtifactStore) -> bool:
    return (
        path.is_file() and sha256(path.read_bytes()).hexdigest() == digest and store.get(digest) is not None
    )
