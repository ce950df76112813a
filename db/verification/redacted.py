"""Runs whose settings were redacted: what is no longer proved of them, and what still must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from configs.credentials import MASK
from db.chain.redactions import Redaction
from db.columns import digest_of, time_text
from db.inspection.runs import run_reference
from db.schema import AuditEvent, ModelVersion, Run


def redacted_runs(
    session: Session, redactions: Mapping[int, Redaction], report: Callable[[str, str, str], None]
) -> list[str]:
    """Return a sentence about each redacted run; report one that differs in more than what was redacted.

    Its row no longer has the digest of the event that speaks for it. But that event holds its number, host,
    trigger, software, model and settings digest as well, and a redacted text is a mask.
    """
    told = []
    for number, redaction in sorted(redactions.items()):
        event = session.scalar(select(AuditEvent).where(AuditEvent.sequence == redaction.sequence))
        started = session.scalar(select(AuditEvent).where(AuditEvent.sequence == number))
        found = session.execute(
            select(Run, ModelVersion.digest).join(ModelVersion).where(Run.event_sequence == number)
        ).first()
        if event is None or started is None or found is None or found[0].id != UUID(redaction.row):
            continue  # not a run's redaction: the walk compares the event's rows with its own digest
        run, model_digest = found
        if differing := _differing_columns(run, model_digest, started):
            message = (
                f"differs in {', '.join(differing)} from the event that speaks for it: no redaction does that"
            )
            report("run", f"run {run_reference(run.number)}", message)
        for path in redaction.paths:
            if MASK not in str(_value_at(run.settings, path)):
                report(
                    "run", f"run {run_reference(run.number)}", f"{path} is no mask, though it was redacted"
                )
        told.append(
            f"run {run_reference(run.number)}, {', '.join(redaction.paths)}: content no longer proved; "
            f"redacted by {event.actor_id} on {time_text(event.at)} (event {event.sequence}): {event.reason}"
        )
    return told


def _differing_columns(run: Run, model_digest: str, started: AuditEvent) -> list[str]:
    decision = run.settings.get("decision", {})
    pairs = {
        "number": (run.number, started.payload.get("number")),
        "host": (run.host, started.payload.get("host")),
        "trigger": (run.trigger, started.payload.get("trigger")),
        "software_version": (run.software_version, started.software_version),
        "model": (model_digest, started.model_digest),
        "settings_digest": (run.settings_digest, started.settings_digest),
        "what decides an outcome": (digest_of(decision), started.settings_digest),
    }
    return [name for name, (present, recorded) in pairs.items() if present != recorded]


def _value_at(settings: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(settings, list):
            settings = settings[int(key)] if key.isdecimal() and int(key) < len(settings) else None
        else:
            settings = settings.get(key) if isinstance(settings, dict) else None
    return settings
