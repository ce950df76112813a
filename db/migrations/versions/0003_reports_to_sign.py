"""Reports of more than runs, people's signatures on them, and picture statistics beside each decision.

Nothing recorded is rewritten: new columns are NULL in old rows, and a NULL column does not enter a row's
digest. `report` gets new columns and no second table beside it: a number, its revisions and the head that
each prints are one idea, whatever the report is about. Only `run_id` loses its NOT NULL. For that SQLite
recreates the table, which has a row for each report and so is small.

All of it is one transaction, so each lock lasts until its end. On PostgreSQL, report and prediction cannot be
read meanwhile (ACCESS EXCLUSIVE). Prediction's new columns have neither default nor check and touch no row,
so the time does not grow with the record. SQLite cannot be written at all, as in every migration.

Measured with 200,000 pictures (`python -m benchmarks.db --only migration`): 0.3 s on PostgreSQL, with no
statement above 0.04 s; 0.1 s on SQLite.

Revision 0003.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db import views
from db.columns import Json, PlainText, Sequence64, Time
from db.errors import RecordError

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATISTICS = ("brightness", "contrast", "sharpness")
_CHECKS = (
    ("kind", "kind IN ('run', 'period', 'finding', 'part', 'model')"),
    ("run", "(coalesce(kind, 'run') = 'run') = (run_id IS NOT NULL)"),
    ("number", "(kind IS NULL) = (number IS NULL)"),
    ("subject", "(kind IS NULL) = (subject IS NULL)"),
)


def _columns() -> list[sa.Column[Any]]:
    text = [sa.Column(name, PlainText, nullable=True) for name in ("kind", "number")]
    digests = [sa.Column(name, PlainText, nullable=True) for name in ("record_digest", "content_digest")]
    return [*text, sa.Column("subject", Json(), nullable=True), *digests]


def upgrade() -> None:
    for name in _STATISTICS:
        op.add_column("prediction", sa.Column(name, sa.Double(), nullable=True))
    # SQLite changes a column by recreating the table, with the constraints that it has.
    with op.batch_alter_table("report") as report:
        report.alter_column("run_id", existing_type=sa.Uuid(), nullable=True)
        for column in _columns():
            report.add_column(column)
        for name, condition in _CHECKS:
            report.create_check_constraint(op.f(f"ck_report_{name}"), condition)
        report.create_unique_constraint(op.f("uq_report_number_revision"), ["number", "revision"])
    op.create_index(op.f("ix_report_artifact_digest"), "report", ["artifact_digest"], unique=False)
    op.create_table(
        "report_signature",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("capacity", PlainText, nullable=False),
        sa.Column("decision", PlainText, nullable=False),
        sa.Column("reason", PlainText, nullable=False),
        sa.Column("person", PlainText, nullable=False),
        sa.Column("artifact_digest", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("signature", Json(), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_report_signature_number")),
        sa.CheckConstraint("capacity IN ('reviewed', 'approved')", name=op.f("ck_report_signature_capacity")),
        sa.CheckConstraint(
            "decision IN ('accept', 'accept with concession', 'do not accept')",
            name=op.f("ck_report_signature_decision"),
        ),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_report_signature_event_sequence")
        ),
        sa.ForeignKeyConstraint(["report_id"], ["report.id"], name=op.f("fk_report_signature_report_id")),
        sa.ForeignKeyConstraint(
            ["artifact_digest"], ["artifact.digest"], name=op.f("fk_report_signature_artifact_digest")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report_signature")),
        sa.UniqueConstraint("report_id", "number", name=op.f("uq_report_signature_report_id_number")),
        sa.UniqueConstraint("report_id", "person", name=op.f("uq_report_signature_report_id_person")),
        sa.UniqueConstraint("artifact_digest", name=op.f("uq_report_signature_artifact_digest")),
    )
    op.create_index(
        op.f("ix_report_signature_event_sequence"), "report_signature", ["event_sequence"], unique=False
    )
    op.create_index(
        op.f("ix_report_signature_person_event_sequence"), "report_signature", ["person", "event_sequence"]
    )


def downgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM audit_event")):
        raise RecordError(
            "this database holds a history: kensa does not delete one; remove the database instead"
        )
    views.drop(op.get_bind())
    op.drop_table("report_signature")
    op.drop_index(op.f("ix_report_artifact_digest"), "report")
    with op.batch_alter_table("report") as report:
        report.drop_constraint(op.f("uq_report_number_revision"), type_="unique")
        for name, _ in _CHECKS:
            report.drop_constraint(op.f(f"ck_report_{name}"), type_="check")
        for column in _columns():
            report.drop_column(column.name)
        report.alter_column("run_id", existing_type=sa.Uuid(), nullable=False)
    for name in _STATISTICS:
        op.drop_column("prediction", name)
