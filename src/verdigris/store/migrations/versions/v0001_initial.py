"""The first schema.

Revisions are history: they spell out names and values instead of importing what is current.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0001"
down_revision = None

_MOMENT = sa.Text().with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_instances()
    _create_deployments()
    _create_events()
    _create_workflows()
    _create_epoch()


def _create_instances() -> None:
    op.create_table(
        "instances",
        sa.Column("resource_id", sa.Text, primary_key=True),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("engine_version", sa.Text, nullable=False),
        sa.Column("instance_class", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("status_reason", sa.Text, nullable=False),
        sa.Column("master_username", sa.Text, nullable=False),
        sa.Column("db_name", sa.Text),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("allocated_storage_gib", sa.Integer, nullable=False),
        sa.Column("deletion_protection", sa.Boolean, nullable=False),
        sa.Column("parameter_group", sa.Text, nullable=False),
        sa.Column("read_only", sa.Boolean, nullable=False),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("tags", _JSON, nullable=False),
        sa.UniqueConstraint("identifier", name="uq_instances_identifier"),
        sa.UniqueConstraint("port", name="uq_instances_port"),
        sa.CheckConstraint(
            "status IN ('creating', 'available', 'modifying', 'renaming', 'upgrading', 'rebooting', "
            "'resetting-master-credentials', 'deleting', 'failed')",
            name=op.f("ck_instances_status"),
        ),
        sa.CheckConstraint("identifier = lower(identifier) AND identifier <> ''", name=op.f("ck_instances_identifier")),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_instances_port")),
    )


def _create_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("identifier", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("target", _JSON, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("status_details", sa.Text),
        sa.Column("tasks", _JSON, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("deleted_at", _MOMENT),
        sa.Column("tags", _JSON, nullable=False),
        sa.UniqueConstraint("name", name="uq_deployments_name"),
        sa.CheckConstraint("mode IN ('physical', 'logical')", name=op.f("ck_deployments_mode")),
        sa.CheckConstraint(
            "status IN ('PROVISIONING', 'AVAILABLE', 'SWITCHOVER_IN_PROGRESS', 'SWITCHOVER_COMPLETED', "
            "'INVALID_CONFIGURATION', 'SWITCHOVER_FAILED', 'DELETING')",
            name=op.f("ck_deployments_status"),
        ),
        sa.CheckConstraint("status <> 'DELETING' OR deleted_at IS NOT NULL", name=op.f("ck_deployments_deleted_at")),
    )
    op.create_table(
        "deployment_members",
        sa.Column("deployment_identifier", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False, comment="0 is the primary"),
        sa.Column("source_resource_id", sa.Text, nullable=False),
        sa.Column("source_identifier", sa.Text, nullable=False),
        sa.Column("target_resource_id", sa.Text),
        sa.Column("target_identifier", sa.Text),
        sa.Column("status", sa.Text),
        sa.ForeignKeyConstraint(
            ["deployment_identifier"],
            ["deployments.identifier"],
            name="fk_deployment_members_deployment_identifier",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("source_resource_id", name="uq_deployment_members_source_resource_id"),
        sa.UniqueConstraint("target_resource_id", name="uq_deployment_members_target_resource_id"),
        sa.CheckConstraint(
            "status IN ('PROVISIONING', 'AVAILABLE', 'SWITCHOVER_IN_PROGRESS', 'SWITCHOVER_COMPLETED', "
            "'SWITCHOVER_FAILED', 'MISSING_SOURCE', 'MISSING_TARGET')",
            name=op.f("ck_deployment_members_status"),
        ),
        sa.CheckConstraint("source_resource_id <> target_resource_id", name=op.f("ck_deployment_members_ends")),
        sa.CheckConstraint(
            "(target_resource_id IS NULL) = (target_identifier IS NULL)", name=op.f("ck_deployment_members_target")
        ),
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("number", _ROW_NUMBER, primary_key=True),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("source_type", sa.Text, nullable=False),
        sa.Column("source_identifier", sa.Text, nullable=False),
        sa.Column("source_resource_id", sa.Text, nullable=False),
        sa.Column("categories", _JSON, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "source_type IN ('db-instance', 'blue-green-deployment')", name=op.f("ck_events_source_type")
        ),
    )
    op.create_index("ix_events_at", "events", ["at"])


def _create_workflows() -> None:
    op.create_table(
        "workflows",
        sa.Column("number", _ROW_NUMBER, primary_key=True),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("arguments", _JSON, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("deadline_at", _MOMENT),
        sa.UniqueConstraint("workflow_id", name="uq_workflows_workflow_id"),
        sa.CheckConstraint(
            "kind IN ('create_instance', 'modify_instance', 'reboot_instance', 'delete_instance', "
            "'create_deployment', 'switch_over', 'delete_deployment')",
            name=op.f("ck_workflows_kind"),
        ),
        sa.CheckConstraint("status IN ('running', 'undoing', 'completed', 'failed')", name=op.f("ck_workflows_status")),
    )
    for name, kinds in (
        ("uq_workflows_unfinished", "kind <> 'delete_deployment'"),
        ("uq_workflows_unfinished_deletion", "kind = 'delete_deployment'"),
    ):
        unfinished = sa.text(f"status IN ('running', 'undoing') AND {kinds}")
        op.create_index(
            name, "workflows", ["subject"], unique=True, sqlite_where=unfinished, postgresql_where=unfinished
        )
    op.create_table(
        "journal",
        sa.Column("number", _ROW_NUMBER, primary_key=True),
        sa.Column("workflow_id", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False, comment="the last entry of a step is its state"),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.workflow_id"], name="fk_journal_workflow_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("outcome IN ('started', 'done', 'failed', 'undone')", name=op.f("ck_journal_outcome")),
    )
    op.create_index("ix_journal_workflow_id", "journal", ["workflow_id"])


def _create_epoch() -> None:
    epoch = op.create_table(
        "epoch",
        sa.Column("only_row", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.CheckConstraint("only_row = 1", name=op.f("ck_epoch_only_row")),
        sa.CheckConstraint("epoch >= 0", name=op.f("ck_epoch_epoch")),
    )
    op.bulk_insert(epoch, [{"only_row": 1, "epoch": 0}])
