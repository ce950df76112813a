"""The first schema. `env.py` puts the guards on in the same transaction, as after every migration.

Revision 0001.
"""

import sqlalchemy as sa
from alembic import op

from db import guards
from db.columns import Json, PlainText, Sequence64, Time
from db.errors import RecordError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_event",
        sa.Column("sequence", Sequence64, autoincrement=False, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", Time(), nullable=False),
        sa.Column("actor_id", PlainText, nullable=False),
        sa.Column("actor_kind", PlainText, nullable=False),
        sa.Column("action", PlainText, nullable=False),
        sa.Column("entity", PlainText, nullable=False),
        sa.Column("entity_id", PlainText, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("payload", Json(), nullable=False),
        sa.Column("software_version", PlainText, nullable=False),
        sa.Column("model_digest", PlainText, nullable=True),
        sa.Column("settings_digest", PlainText, nullable=True),
        sa.Column("image_digest", PlainText, nullable=True),
        sa.Column("artifact_digests", Json(), nullable=False),
        sa.Column("rows", Json(), nullable=False),
        sa.Column("rows_digest", PlainText, nullable=False),
        sa.Column("previous_hash", PlainText, nullable=False),
        sa.Column("hash", PlainText, nullable=False),
        sa.Column("scheme", sa.Integer(), nullable=False),
        sa.CheckConstraint("actor_kind IN ('human', 'system')", name=op.f("ck_audit_event_actor_kind")),
        sa.CheckConstraint("sequence >= 1", name=op.f("ck_audit_event_sequence")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_event")),
        sa.UniqueConstraint("hash", name=op.f("uq_audit_event_hash")),
        sa.UniqueConstraint("id", name=op.f("uq_audit_event_id")),
    )
    op.create_index(
        op.f("ix_audit_event_action_sequence"), "audit_event", ["action", "sequence"], unique=False
    )
    op.create_index(
        op.f("ix_audit_event_actor_id_sequence"), "audit_event", ["actor_id", "sequence"], unique=False
    )
    op.create_index(op.f("ix_audit_event_at"), "audit_event", ["at"], unique=False)
    op.create_index(
        op.f("ix_audit_event_model_digest_sequence"),
        "audit_event",
        ["model_digest", "sequence"],
        unique=False,
    )
    op.create_index(
        op.f("ix_audit_event_run_id_sequence"), "audit_event", ["run_id", "sequence"], unique=False
    )
    op.create_table(
        "artifact",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("digest", PlainText, nullable=False),
        sa.Column("kind", PlainText, nullable=False),
        sa.Column("media_type", PlainText, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('picture', 'map', 'block_map', 'report')", name=op.f("ck_artifact_kind")
        ),
        sa.CheckConstraint("size >= 0", name=op.f("ck_artifact_size")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_artifact_event_sequence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
        sa.UniqueConstraint("digest", name=op.f("uq_artifact_digest")),
    )
    op.create_index(op.f("ix_artifact_event_sequence"), "artifact", ["event_sequence"], unique=False)
    op.create_table(
        "image",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("digest", PlainText, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("format", PlainText, nullable=True),
        sa.Column("mode", PlainText, nullable=True),
        sa.CheckConstraint("size >= 0", name=op.f("ck_image_size")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_image_event_sequence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("digest", name=op.f("uq_image_digest")),
    )
    op.create_index(op.f("ix_image_event_sequence"), "image", ["event_sequence"], unique=False)
    op.create_table(
        "model_version",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("digest", PlainText, nullable=False),
        sa.Column("name", PlainText, nullable=False),
        sa.Column("architecture", PlainText, nullable=False),
        sa.Column("classes", Json(), nullable=False),
        sa.Column("task", PlainText, nullable=False),
        sa.Column("thresholds", Json(), nullable=True),
        sa.Column("card", Json(), nullable=False),
        sa.CheckConstraint("task IN ('single-label', 'multi-label')", name=op.f("ck_model_version_task")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_model_version_event_sequence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_version")),
        sa.UniqueConstraint("digest", name=op.f("uq_model_version_digest")),
    )
    op.create_index(
        op.f("ix_model_version_event_sequence"), "model_version", ["event_sequence"], unique=False
    )
    op.create_table(
        "part",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("serial", PlainText, nullable=False),
        sa.Column("lot", PlainText, nullable=False),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_part_event_sequence")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_part")),
        sa.UniqueConstraint("serial", "lot", name=op.f("uq_part_serial_lot")),
    )
    op.create_index(op.f("ix_part_event_sequence"), "part", ["event_sequence"], unique=False)
    op.create_index(op.f("ix_part_lot"), "part", ["lot"], unique=False)
    op.create_table(
        "run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", PlainText, nullable=False),
        sa.Column("settings", Json(), nullable=False),
        sa.Column("settings_digest", PlainText, nullable=False),
        sa.Column("model_version_id", sa.Uuid(), nullable=False),
        sa.Column("software_version", PlainText, nullable=False),
        sa.Column("host", PlainText, nullable=False),
        sa.Column("trigger", PlainText, nullable=False),
        sa.Column("started_at", Time(), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_run_number")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_run_event_sequence")
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_run_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("number", name=op.f("uq_run_number")),
    )
    op.create_index(op.f("ix_run_event_sequence"), "run", ["event_sequence"], unique=False)
    op.create_index(op.f("ix_run_started_at"), "run", ["started_at"], unique=False)
    op.create_table(
        "prediction",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("model_version_id", sa.Uuid(), nullable=False),
        sa.Column("settings_digest", PlainText, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("verdict", PlainText, nullable=False),
        sa.Column("reason", PlainText, nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("review_threshold", sa.Double(), nullable=True),
        sa.Column("reject_threshold", sa.Double(), nullable=True),
        sa.Column("probabilities", Json(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint(
            "(verdict = 'unreadable') = (reason IS NOT NULL)", name=op.f("ck_prediction_reasoned")
        ),
        sa.CheckConstraint("(verdict = 'unreadable') = (score IS NULL)", name=op.f("ck_prediction_scored")),
        sa.CheckConstraint(
            "verdict IN ('pass', 'review', 'reject', 'unreadable')", name=op.f("ck_prediction_verdict")
        ),
        sa.CheckConstraint(
            "reject_threshold >= 0 AND reject_threshold <= 1", name=op.f("ck_prediction_reject_threshold")
        ),
        sa.CheckConstraint(
            "review_threshold >= 0 AND review_threshold <= 1", name=op.f("ck_prediction_review_threshold")
        ),
        sa.CheckConstraint("score >= 0 AND score <= 1", name=op.f("ck_prediction_score")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_prediction_event_sequence")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_prediction_image_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_version.id"], name=op.f("fk_prediction_model_version_id")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_prediction_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prediction")),
        sa.UniqueConstraint(
            "image_id",
            "model_version_id",
            "settings_digest",
            name=op.f("uq_prediction_image_id_model_version_id_settings_digest"),
        ),
    )
    op.create_index(op.f("ix_prediction_event_sequence"), "prediction", ["event_sequence"], unique=False)
    op.create_index(op.f("ix_prediction_run_id"), "prediction", ["run_id"], unique=False)
    op.create_table(
        "report",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("artifact_digest", PlainText, nullable=False),
        sa.Column("head_sequence", Sequence64, nullable=False),
        sa.Column("head_hash", PlainText, nullable=False),
        sa.Column("supersedes_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_report_revision")),
        sa.ForeignKeyConstraint(
            ["artifact_digest"], ["artifact.digest"], name=op.f("fk_report_artifact_digest")
        ),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_report_event_sequence")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_report_run_id")),
        sa.ForeignKeyConstraint(["supersedes_id"], ["report.id"], name=op.f("fk_report_supersedes_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_report")),
        sa.UniqueConstraint("run_id", "revision", name=op.f("uq_report_run_id_revision")),
        sa.UniqueConstraint("supersedes_id", name=op.f("uq_report_supersedes_id")),
    )
    op.create_index(op.f("ix_report_event_sequence"), "report", ["event_sequence"], unique=False)
    op.create_table(
        "run_end",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("status", PlainText, nullable=False),
        sa.Column("finished_at", Time(), nullable=False),
        sa.Column("counts", Json(), nullable=False),
        sa.Column("missing", Json(), nullable=False),
        sa.Column("note", PlainText, nullable=False),
        sa.CheckConstraint("status IN ('completed', 'failed')", name=op.f("ck_run_end_status")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_run_end_event_sequence")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_end_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_end")),
        sa.UniqueConstraint("run_id", name=op.f("uq_run_end_run_id")),
    )
    op.create_index(op.f("ix_run_end_event_sequence"), "run_end", ["event_sequence"], unique=False)
    op.create_table(
        "finding",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("reference", PlainText, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("class_name", PlainText, nullable=False),
        sa.Column("class_score", sa.Double(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint("class_score >= 0 AND class_score <= 1", name=op.f("ck_finding_class_score")),
        sa.CheckConstraint("number >= 1", name=op.f("ck_finding_number")),
        sa.CheckConstraint("score >= 0 AND score <= 1", name=op.f("ck_finding_score")),
        sa.CheckConstraint("threshold >= 0 AND threshold <= 1", name=op.f("ck_finding_threshold")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_finding_event_sequence")
        ),
        sa.ForeignKeyConstraint(["prediction_id"], ["prediction.id"], name=op.f("fk_finding_prediction_id")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_finding_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_finding")),
        sa.UniqueConstraint("prediction_id", "class_name", name=op.f("uq_finding_prediction_id_class_name")),
        sa.UniqueConstraint("reference", name=op.f("uq_finding_reference")),
        sa.UniqueConstraint("run_id", "number", name=op.f("uq_finding_run_id_number")),
    )
    op.create_index(op.f("ix_finding_class_name_id"), "finding", ["class_name", "id"], unique=False)
    op.create_index(op.f("ix_finding_created_at"), "finding", ["created_at"], unique=False)
    op.create_index(op.f("ix_finding_event_sequence"), "finding", ["event_sequence"], unique=False)
    op.create_table(
        "run_image",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("uri", PlainText, nullable=False),
        sa.Column("version", PlainText, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("part_id", sa.Uuid(), nullable=True),
        sa.Column("station", PlainText, nullable=True),
        sa.Column("captured_at", Time(), nullable=True),
        sa.Column("image_id", sa.Uuid(), nullable=True),
        sa.Column("prediction_id", sa.Uuid(), nullable=True),
        sa.Column("verdict", PlainText, nullable=False),
        sa.Column("reason", PlainText, nullable=True),
        sa.Column("carried_over", sa.Boolean(), nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint(
            "(verdict = 'unreadable') = (reason IS NOT NULL)", name=op.f("ck_run_image_reasoned")
        ),
        sa.CheckConstraint(
            "verdict = 'unreadable' OR prediction_id IS NOT NULL", name=op.f("ck_run_image_decided")
        ),
        sa.CheckConstraint(
            "verdict IN ('pass', 'review', 'reject', 'unreadable')", name=op.f("ck_run_image_verdict")
        ),
        sa.CheckConstraint("(image_id IS NULL) = (prediction_id IS NULL)", name=op.f("ck_run_image_image")),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_run_image_event_sequence")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_run_image_image_id")),
        sa.ForeignKeyConstraint(["part_id"], ["part.id"], name=op.f("fk_run_image_part_id")),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["prediction.id"], name=op.f("fk_run_image_prediction_id")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_image_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_image")),
        sa.UniqueConstraint("run_id", "uri", name=op.f("uq_run_image_run_id_uri")),
    )
    op.create_index(op.f("ix_run_image_event_sequence"), "run_image", ["event_sequence"], unique=False)
    op.create_index(op.f("ix_run_image_image_id"), "run_image", ["image_id"], unique=False)
    op.create_index(op.f("ix_run_image_part_id"), "run_image", ["part_id"], unique=False)
    op.create_index(op.f("ix_run_image_prediction_id"), "run_image", ["prediction_id"], unique=False)
    op.create_index(op.f("ix_run_image_uri_version"), "run_image", ["uri", "version"], unique=False)
    op.create_index(op.f("ix_run_image_station"), "run_image", ["station"], unique=False)
    op.create_table(
        "disposition",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("finding_id", sa.Uuid(), nullable=False),
        sa.Column("decision", PlainText, nullable=False),
        sa.Column("reason", PlainText, nullable=False),
        sa.Column("person", PlainText, nullable=False),
        sa.Column("created_at", Time(), nullable=False),
        sa.Column("supersedes_id", sa.Uuid(), nullable=True),
        sa.Column("signature", Json(), nullable=True),
        sa.CheckConstraint(
            "decision IN ('confirm', 'overrule', 'reclassify', "
            "'use-as-is', 'rework', 'repair', 'scrap', 'return')",
            name=op.f("ck_disposition_decision"),
        ),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_disposition_event_sequence")
        ),
        sa.ForeignKeyConstraint(["finding_id"], ["finding.id"], name=op.f("fk_disposition_finding_id")),
        sa.ForeignKeyConstraint(
            ["supersedes_id"], ["disposition.id"], name=op.f("fk_disposition_supersedes_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_disposition")),
        sa.UniqueConstraint("supersedes_id", name=op.f("uq_disposition_supersedes_id")),
    )
    op.create_index(op.f("ix_disposition_event_sequence"), "disposition", ["event_sequence"], unique=False)
    op.create_index(op.f("ix_disposition_finding_id"), "disposition", ["finding_id"], unique=False)
    op.create_table(
        "explanation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_sequence", Sequence64, nullable=False),
        sa.Column("finding_id", sa.Uuid(), nullable=False),
        sa.Column("method", PlainText, nullable=False),
        sa.Column("parameters", Json(), nullable=False),
        sa.Column("layers", Json(), nullable=False),
        sa.Column("status", PlainText, nullable=False),
        sa.Column("masked_score", sa.Double(), nullable=True),
        sa.Column("score_drop", sa.Double(), nullable=True),
        sa.Column("score_increase", sa.Boolean(), nullable=True),
        sa.Column("map_digest", PlainText, nullable=True),
        sa.Column("block_map_digests", Json(), nullable=False),
        sa.Column("box", Json(), nullable=True),
        sa.Column("created_at", Time(), nullable=False),
        sa.CheckConstraint(
            "masked_score >= 0 AND masked_score <= 1", name=op.f("ck_explanation_masked_score")
        ),
        sa.ForeignKeyConstraint(
            ["event_sequence"], ["audit_event.sequence"], name=op.f("fk_explanation_event_sequence")
        ),
        sa.ForeignKeyConstraint(["finding_id"], ["finding.id"], name=op.f("fk_explanation_finding_id")),
        sa.ForeignKeyConstraint(["map_digest"], ["artifact.digest"], name=op.f("fk_explanation_map_digest")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_explanation")),
        sa.UniqueConstraint("finding_id", name=op.f("uq_explanation_finding_id")),
    )
    op.create_index(op.f("ix_explanation_event_sequence"), "explanation", ["event_sequence"], unique=False)


def downgrade() -> None:
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM audit_event")):
        raise RecordError(
            "this database holds a history: kensa does not delete one; remove the database instead"
        )
    op.drop_table("explanation")
    op.drop_table("disposition")
    op.drop_table("run_image")
    op.drop_table("finding")
    op.drop_table("run_end")
    op.drop_table("report")
    op.drop_table("prediction")
    op.drop_table("run")
    op.drop_table("part")
    op.drop_table("model_version")
    op.drop_table("image")
    op.drop_table("artifact")
    op.drop_table("audit_event")
    guards.remove(op.get_bind())
