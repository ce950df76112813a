"""The audit trail: who and why on each event, people, approvals, checkpoints, retention, replays.

Nothing recorded is rewritten: new columns are NULL in old rows, and a NULL column does not enter a row's
digest. All of it is one transaction, so each lock lasts until its end. On PostgreSQL, audit_event,
disposition and artifact cannot be read meanwhile (ACCESS EXCLUSIVE, for their columns and kinds), and the
tables that get an index cannot be written (SHARE). SQLite cannot be written at all, as in every migration.

Measured with 1,000,000 pictures (`python -m benchmarks.db --only migration`): 3.3 s on PostgreSQL, of which
the longest index takes 0.7 s; 6.5 s on SQLite.

Revision 0002.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db import views
from db.columns import Json, PlainText, Sequence64, Time
from db.errors import RecordError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KINDS = "kind IN ('picture', 'map', 'block_map', 'report'{})"
_TABLES = (
    "replay",
    "artifact_retention",
    "checkpoint",
    "approval",
    "person_revision",
    "person",
)
# Indexes by a key alone, replaced by ones in which a key's rows lie in the order of their events.
_REPLACED = (
    ("audit_event", "at"),
    ("part", "lot"),
    ("run_image", "part_id"),
    ("run_image", "station"),
    ("finding", "created_at"),
)
_INDEXES = (
    ("audit_event", "at", "sequence"),
    ("part", "lot", "event_sequence"),
    ("prediction", "score", "event_sequence"),
    ("run_image", "part_id", "event_sequence"),
    ("run_image", "station", "event_sequence"),
    ("finding", "class_name", "event_sequence"),
    ("finding", "score", "event_sequence"),
    ("finding", "created_at", "event_sequence"),
    ("disposition", "person", "event_sequence"),
)
_PARTIAL = (
    ("ix_audit_event_reasoned", "audit_event", ["sequence"], "reason IS NOT NULL"),
    ("ix_run_image_flagged_verdict", "run_image", ["verdict", "event_sequence"], "verdict <> 'pass'"),
    ("ix_run_image_flagged_station", "run_image", ["station", "event_sequence"], "verdict <> 'pass'"),
    ("ix_run_image_carried", "run_image", ["event_sequence", "verdict"], "carried_over"),
)


def _create(name: str, *columns: sa.Column[Any] | sa.Constraint) -> None:
    """Create a table with what every domain table has."""
    op.create_table(
        name,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        *columns,
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f(f"fk_{name}_event_sequence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    op.create_index(op.f(f"ix_{name}_event_sequence"), name, ["event_sequence"], unique=False)


def _allow_kinds(further: str) -> None:
    name, wanted = op.f("ck_artifact_kind"), _KINDS.format(further)
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(name, "artifact", type_="check")
        op.create_check_constraint(name, "artifact", wanted)
        return
    # SQLite changes a constraint by recreating the table, with the other constraints that it has.
    with op.batch_alter_table("artifact", recreate="always") as artifact:
        artifact.drop_constraint(name, type_="check")
        artifact.create_check_constraint(name, wanted)


def upgrade() -> None:
    for name in ("actor_name", "actor_role", "reason"):
        op.add_column("audit_event", sa.Column(name, PlainText, nullable=True))
    for name in ("old_value", "new_value"):
        op.add_column("audit_event", sa.Column(name, Json(), nullable=True))
    op.add_column("disposition", sa.Column("class_name", PlainText, nullable=True))
    op.add_column("disposition", sa.Column("needs_approval", sa.Boolean(), nullable=True))
    _allow_kinds(", 'model'")
    _create(
        "person",
        sa.Column("login", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.UniqueConstraint("login", name=op.f("uq_person_login")),
    )
    _create(
        "person_revision",
        sa.Column("person_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("role", PlainText, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("password_hash", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_person_revision_revision")),
        sa.CheckConstraint(
            "role IN ('quality-engineer', 'quality-manager', 'auditor', 'administrator')",
            name=op.f("ck_person_revision_role"),
        ),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("fk_person_revision_person_id")),
        sa.UniqueConstraint("person_id", "revision", name=op.f("uq_person_revision_person_id_revision")),
    )
    _create(
        "approval",
        sa.Column("disposition_id", sa.Uuid(), nullable=False),
        sa.Column("decision", PlainText, nullable=False),
        sa.Column("reason", PlainText, nullable=False),
        sa.Column("person", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("signature", Json(), nullable=False),
        sa.CheckConstraint("decision IN ('approve', 'refuse')", name=op.f("ck_approval_decision")),
        sa.ForeignKeyConstraint(
            ["disposition_id"], ["disposition.id"], name=op.f("fk_approval_disposition_id")
        ),
        sa.UniqueConstraint("disposition_id", name=op.f("uq_approval_disposition_id")),
    )
    _create(
        "checkpoint",
        sa.Column("tree_size", Sequence64, nullable=False),
        sa.Column("root", PlainText, nullable=False),
        sa.Column("head_hash", PlainText, nullable=False),
        sa.Column("frontier", Json(), nullable=False),
        sa.Column("note", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint("tree_size >= 1", name=op.f("ck_checkpoint_tree_size")),
        sa.UniqueConstraint("tree_size", name=op.f("uq_checkpoint_tree_size")),
    )
    _create(
        "artifact_retention",
        sa.Column("artifact_digest", PlainText, nullable=False),
        sa.Column("state", PlainText, nullable=False),
        sa.Column("policy", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint("state IN ('pruned', 'restored')", name=op.f("ck_artifact_retention_state")),
        sa.ForeignKeyConstraint(
            ["artifact_digest"], ["artifact.digest"], name=op.f("fk_artifact_retention_artifact_digest")
        ),
    )
    op.create_index(
        op.f("ix_artifact_retention_artifact_digest"), "artifact_retention", ["artifact_digest"], unique=False
    )
    _create(
        "replay",
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("result", PlainText, nullable=False),
        sa.Column("details", Json(), nullable=False),
        sa.Column("software_version", PlainText, nullable=False),
        sa.Column("host", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint(
            "result IN ('identical', 'equal', 'different', 'impossible')", name=op.f("ck_replay_result")
        ),
        sa.ForeignKeyConstraint(["prediction_id"], ["prediction.id"], name=op.f("fk_replay_prediction_id")),
    )
    op.create_index(op.f("ix_replay_prediction_id"), "replay", ["prediction_id"], unique=False)
    op.create_index(op.f("ix_approval_person_event_sequence"), "approval", ["person", "event_sequence"])
    for table, column in _REPLACED:
        op.drop_index(op.f(f"ix_{table}_{column}"), table)
    op.drop_index(op.f("ix_finding_class_name_id"), "finding")
    for table, key, order in _INDEXES:
        op.create_index(op.f(f"ix_{table}_{key}_{order}"), table, [key, order], unique=False)
    for name, table, columns, where in _PARTIAL:
        condition = sa.text(where)
        op.create_index(
            name, table, columns, unique=False, sqlite_where=condition, postgresql_where=condition
        )


def downgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM audit_event")):
        raise RecordError(
            "this database holds a history: kensa does not delete one; remove the database instead"
        )
    views.drop(op.get_bind())
    for name, table, _, _ in _PARTIAL:
        op.drop_index(name, table)
    for table, key, order in _INDEXES:
        op.drop_index(op.f(f"ix_{table}_{key}_{order}"), table)
    op.create_index(op.f("ix_finding_class_name_id"), "finding", ["class_name", "id"], unique=False)
    for table, column in _REPLACED:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column], unique=False)
    for name in _TABLES:
        op.drop_table(name)
    _allow_kinds("")
    op.drop_column("disposition", "needs_approval")
    op.drop_column("disposition", "class_name")
    for name in ("new_value", "old_value", "reason", "actor_role", "actor_name"):
        op.drop_column("audit_event", name)
