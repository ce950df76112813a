"""Views for people with database tools of their own; docs/queries.md describes their columns.

Identifiers are text (32 hex digits). Runs and findings go by their printed references. JSON columns are text.
"""

from __future__ import annotations

import hashlib
import re

from sqlalchemy import Connection, inspect, text

from db.schema import Base

# What the dialects spell differently, as _VIEWS writes it: <id:COLUMN>, <run:COLUMN>, a key of a JSON column
# as text or number, <text:COLUMN:KEY> and <int:COLUMN:KEY>; the entries of a JSON list, <each:COLUMN>, and of
# the entry j a key, <entry:KEY>, where it is an object, or the key or else the entry itself, <name:KEY>.
_SPELLINGS = {
    "sqlite": {
        "id": "{0}",
        "run": "CASE WHEN {0} IS NOT NULL THEN printf('R%06d', {0}) END",
        "text": "({0} ->> '$.{1}')",
        "int": "({0} ->> '$.{1}')",
        "each": "json_each({0})",
        "entry": "CASE WHEN j.type = 'object' THEN j.value ->> '$.{0}' END",
        "name": "CASE WHEN j.type = 'object' THEN j.value ->> '$.{0}' ELSE j.value END",
    },
    "postgresql": {
        "id": "replace(({0})::text, '-', '')",
        "run": "('R' || lpad({0}::text, greatest(6, length({0}::text)), '0'))",
        "text": "({0}::json ->> '{1}')",
        "int": "({0}::json ->> '{1}')::integer",
        "each": "json_array_elements({0}::json)",
        "entry": "CASE WHEN json_typeof(j.value) = 'object' THEN j.value ->> '{0}' END",
        "name": "CASE json_typeof(j.value) WHEN 'object' THEN j.value ->> '{0}' ELSE j.value #>> '{{}}' END",
    },
}

_VIEWS = {
    "kensa_runs": """
SELECT <run:r.number> AS run, r.source, coalesce(e.status, 'unfinished') AS status, e.note,
    r.started_at, e.finished_at,
    <int:e.counts:listed> AS listed, <int:e.counts:pass> AS pass, <int:e.counts:review> AS review,
    <int:e.counts:reject> AS reject, <int:e.counts:unreadable> AS unreadable,
    <int:e.counts:carried_over> AS carried_over, <int:e.counts:missing> AS missing,
    <int:e.counts:findings> AS findings,
    m.name AS model_name, m.digest AS model_digest, r.settings, r.settings_digest, r.software_version,
    r.host, r.trigger, <id:r.id> AS run_id, r.event_sequence AS event
FROM run r
JOIN model_version m ON m.id = r.model_version_id
LEFT JOIN run_end e ON e.run_id = r.id""",
    "kensa_images": """
SELECT <run:r.number> AS run, l.uri, p.serial AS part, p.lot, l.station, l.captured_at, l.verdict, l.reason,
    d.score, d.review_threshold, d.reject_threshold, d.brightness, d.contrast, d.sharpness,
    l.carried_over, i.digest AS image_digest, i.width,
    i.height, m.name AS model_name, m.digest AS model_digest, l.created_at, l.event_sequence AS event
FROM run_image l
JOIN run r ON r.id = l.run_id
JOIN model_version m ON m.id = r.model_version_id
LEFT JOIN part p ON p.id = l.part_id
LEFT JOIN image i ON i.id = l.image_id
LEFT JOIN prediction d ON d.id = l.prediction_id""",
    "kensa_missing": """
SELECT <run:r.number> AS run, <name:uri> AS uri, <entry:part> AS part, <entry:lot> AS lot,
    <entry:station> AS station, r.source, e.event_sequence AS event
FROM run_end e
JOIN run r ON r.id = e.run_id,
    <each:e.missing> AS j""",
    "kensa_findings": """
SELECT f.reference AS finding, <run:r.number> AS run, f.class_name, f.class_score, f.score, f.threshold,
    d.verdict, l.uri, p.serial AS part, p.lot, l.station, i.digest AS image_digest, m.name AS model_name,
    m.digest AS model_digest, x.method AS explanation_method, x.status AS explanation_status,
    x.masked_score, x.score_drop, x.score_increase, x.map_digest, s.decision AS disposition,
    s.class_name AS disposition_class, s.person AS disposition_person, f.created_at,
    f.event_sequence AS event
FROM finding f
JOIN run r ON r.id = f.run_id
JOIN prediction d ON d.id = f.prediction_id
JOIN image i ON i.id = d.image_id
JOIN model_version m ON m.id = d.model_version_id
JOIN run_image l ON l.id = (
    SELECT w.id FROM run_image w WHERE w.prediction_id = f.prediction_id ORDER BY w.event_sequence + 0 LIMIT 1
)
LEFT JOIN part p ON p.id = l.part_id
LEFT JOIN explanation x ON x.finding_id = f.id
LEFT JOIN disposition s ON s.id = <effective:f.id>""",
    "kensa_dispositions": """
SELECT <id:s.id> AS disposition_id, f.reference AS finding, s.decision, s.class_name, s.reason, s.person,
    s.created_at,
    CASE
        WHEN s.needs_approval IS NOT TRUE THEN 'not needed'
        WHEN a.decision IS NULL THEN 'awaiting'
        WHEN a.decision = 'approve' THEN 'approved'
        ELSE 'refused'
    END AS approval,
    s.id = <effective:s.finding_id> AS in_effect,
    <text:s.signature:name> AS signed_name, <text:s.signature:role> AS signed_role,
    <text:s.signature:at> AS signed_at, <text:s.signature:meaning> AS signed_meaning,
    <text:s.signature:digest> AS signature_digest,
    a.person AS approval_person, a.reason AS approval_reason, a.created_at AS approval_at,
    <text:a.signature:name> AS approval_signed_name, <text:a.signature:at> AS approval_signed_at,
    <text:a.signature:meaning> AS approval_signed_meaning, <id:s.supersedes_id> AS supersedes_id,
    s.event_sequence AS event, a.event_sequence AS approval_event
FROM disposition s
JOIN finding f ON f.id = s.finding_id
LEFT JOIN approval a ON a.disposition_id = s.id""",
    "kensa_reports": """
SELECT coalesce(t.number, <run:r.number>) AS report, t.revision, coalesce(t.kind, 'run') AS kind,
    <run:r.number> AS run, t.subject, t.artifact_digest, t.content_digest, t.record_digest, t.head_sequence,
    t.head_hash, t.created_at, n.id IS NOT NULL AS superseded, <id:t.id> AS report_id,
    <id:t.supersedes_id> AS supersedes_id, t.event_sequence AS event
FROM report t
LEFT JOIN run r ON r.id = t.run_id
LEFT JOIN report n ON n.supersedes_id = t.id""",
    "kensa_report_signatures": """
SELECT coalesce(t.number, <run:r.number>) AS report, t.revision, s.number AS signature, s.capacity,
    s.decision, s.reason, s.person, s.created_at, <text:s.signature:name> AS signed_name,
    <text:s.signature:role> AS signed_role, <text:s.signature:at> AS signed_at,
    <text:s.signature:meaning> AS signed_meaning, <text:s.signature:digest> AS signature_digest,
    s.artifact_digest, <id:s.report_id> AS report_id, s.event_sequence AS event
FROM report_signature s
JOIN report t ON t.id = s.report_id
LEFT JOIN run r ON r.id = t.run_id""",
    "kensa_events": """
SELECT e.sequence AS event, <id:e.id> AS event_id, e.at, e.actor_id, e.actor_kind, e.actor_name,
    e.actor_role, e.action, e.entity, e.entity_id, <run:r.number> AS run, e.payload, e.old_value,
    e.new_value, e.reason, e.software_version, e.model_digest, e.settings_digest, e.image_digest,
    e.artifact_digests, e.rows AS row_list, e.rows_digest, e.previous_hash, e.hash, e.scheme
FROM audit_event e
LEFT JOIN run r ON r.id = e.run_id""",
    "kensa_artifacts": """
SELECT a.digest, a.kind, a.media_type, a.size,
    CASE WHEN t.state = 'pruned' THEN 'pruned' ELSE 'stored' END AS state, t.created_at AS state_since,
    t.policy, a.event_sequence AS event, t.event_sequence AS state_event
FROM artifact a
LEFT JOIN artifact_retention t ON t.id = (
    SELECT w.id FROM artifact_retention w WHERE w.artifact_digest = a.digest
    ORDER BY w.event_sequence + 0 DESC, w.id DESC LIMIT 1
)""",
}

# The newest decision on a finding that needs no approval or has got it.
_EFFECTIVE = """(
    SELECT w.id FROM disposition w LEFT JOIN approval v ON v.disposition_id = w.id
    WHERE w.finding_id = {} AND (w.needs_approval IS NOT TRUE OR v.decision = 'approve')
    ORDER BY w.event_sequence + 0 DESC, w.id DESC LIMIT 1
)"""


def definitions(dialect: str) -> dict[str, str]:
    """Return each view's query for `sqlite` or `postgresql`."""
    spelling = _SPELLINGS[dialect] | {"effective": _EFFECTIVE}

    def spelled(match: re.Match[str]) -> str:
        kind, *given = match[1].split(":")
        return spelling[kind].format(*given)

    return {name: re.sub("<([a-z]+:[^<>]+)>", spelled, query).strip() for name, query in _VIEWS.items()}


def missing(connection: Connection) -> list[str]:
    """Return the names of views that are not there as they should be."""
    present = _present_marks(connection)
    wanted = definitions(connection.dialect.name)
    return [name for name, query in wanted.items() if present.get(name) != _mark(query)]


def install(connection: Connection) -> None:
    """Create the views that are missing or differ, once all tables are there."""
    if not set(Base.metadata.tables) <= set(inspect(connection).get_table_names()):
        return
    wanted = definitions(connection.dialect.name)
    for name in missing(connection):  # dropping a view drops what was granted on it: the others stay
        query = wanted[name]
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
        connection.exec_driver_sql(f"CREATE VIEW {name} AS /* {_mark(query)} */\n{query}")
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"COMMENT ON VIEW {name} IS '{_mark(query)}'")


def drop(connection: Connection) -> None:
    """Remove the views, as before a migration: a table that a view reads cannot be changed."""
    for name in _VIEWS:
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


def _mark(query: str) -> str:
    """Return the comment by which a view's query is recognised: PostgreSQL rewrites the query's own text."""
    return f"kensa {hashlib.sha256(query.encode()).hexdigest()[:16]}"


def _present_marks(connection: Connection) -> dict[str, str]:
    """Return the mark of each view that is there."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
        return {name: found[0] for name, sql in rows if (found := re.findall("kensa [0-9a-f]{16}", sql))}
    rows = connection.execute(
        text(
            "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class "
            "WHERE relkind = 'v' AND relnamespace = current_schema()::regnamespace"
        )
    )
    return {name: mark for name, mark in rows if mark}
