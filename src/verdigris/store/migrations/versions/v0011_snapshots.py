"""Snapshots: their own table, their work and their events; an instance of which one is taken."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from verdigris.store.columns import Moment
from verdigris.store.migrations.checks import change_check
from verdigris.store.migrations.workflow_kinds import change_workflow_kinds

revision = "v0011"
down_revision = "v0010"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_INSTANCE_STATUSES = (
    "status IN ('creating', 'available', 'modifying', 'renaming', 'upgrading', 'rebooting', 'backing-up', "
    "'resetting-master-credentials', 'stopping', 'stopped', 'starting', 'deleting', 'failed')"
)
_KINDS = (
    "kind IN ('create_instance', 'modify_instance', 'reboot_instance', 'stop_instance', 'start_instance', "
    "'delete_instance', 'create_read_replica', 'promote_read_replica', 'create_deployment', 'switch_over', "
    "'delete_deployment', 'create_cluster', 'modify_cluster', 'delete_cluster', 'create_snapshot', 'copy_snapshot', "
    "'delete_snapshot', 'restore_instance')"
)
_SOURCE_TYPES = (
    "source_type IN ('db-instance', 'db-cluster', 'db-parameter-group', 'db-snapshot', 'blue-green-deployment')"
)


def upgrade() -> None:
    op.create_table(
        "snapshots",
        sa.Column("snapshot_id", sa.Text, primary_key=True),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("resource_id", sa.Text, nullable=False),
        sa.Column("instance_identifier", sa.Text, nullable=False),
        sa.Column("instance_created_at", Moment, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("engine_version", sa.Text, nullable=False),
        sa.Column("instance_class", sa.Text, nullable=False),
        sa.Column("master_username", sa.Text, nullable=False),
        sa.Column("db_name", sa.Text),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("allocated_storage_gib", sa.Integer, nullable=False),
        sa.Column("taken_at", Moment),
        sa.Column("data_of", Moment),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("copy_of", sa.Text),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("instance_tags", _JSON, nullable=False),
        sa.Column("tags", _JSON, nullable=False),
        sa.CheckConstraint(
            "status IN ('creating', 'available', 'failed', 'deleting')", name=op.f("ck_snapshots_status")
        ),
        sa.CheckConstraint("identifier = lower(identifier) AND identifier <> ''", name=op.f("ck_snapshots_identifier")),
        sa.CheckConstraint("status <> 'available' OR taken_at IS NOT NULL", name=op.f("ck_snapshots_taken_at")),
        sa.UniqueConstraint("identifier", name=op.f("uq_snapshots_identifier")),
    )
    with op.batch_alter_table("instances") as table:
        table.drop_constraint(op.f("ck_instances_status"), type_="check")
        table.create_check_constraint(op.f("ck_instances_status"), _INSTANCE_STATUSES)
    change_check("events", "source_type", _SOURCE_TYPES, referring="deliveries")
    change_workflow_kinds(_KINDS)
