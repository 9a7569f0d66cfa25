"""Clusters: their own table, whom an instance is a member of, their work and their events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from verdigris.store.columns import Moment
from verdigris.store.migrations.checks import change_check
from verdigris.store.migrations.workflow_kinds import change_workflow_kinds

revision = "v0010"
down_revision = "v0009"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_STATUSES = "status IN ('creating', 'available', 'modifying', 'resetting-master-credentials', 'deleting', 'failed')"
_KINDS = (
    "kind IN ('create_instance', 'modify_instance', 'reboot_instance', 'stop_instance', 'start_instance', "
    "'delete_instance', 'create_read_replica', 'promote_read_replica', 'create_deployment', 'switch_over', "
    "'delete_deployment', 'create_cluster', 'modify_cluster', 'delete_cluster')"
)
_SOURCE_TYPES = "source_type IN ('db-instance', 'db-cluster', 'db-parameter-group', 'blue-green-deployment')"


def upgrade() -> None:
    op.create_table(
        "clusters",
        sa.Column("resource_id", sa.Text, primary_key=True),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("engine_version", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("writer", sa.Text),
        sa.Column("master_username", sa.Text, nullable=False),
        sa.Column("master_password_verifier", sa.Text, nullable=False),
        sa.Column("db_name", sa.Text),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("deletion_protection", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("settings", _JSON, nullable=False),
        sa.Column("tags", _JSON, nullable=False),
        sa.CheckConstraint(_STATUSES, name=op.f("ck_clusters_status")),
        sa.CheckConstraint("identifier = lower(identifier) AND identifier <> ''", name=op.f("ck_clusters_identifier")),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_clusters_port")),
        sa.UniqueConstraint("identifier", name=op.f("uq_clusters_identifier")),
        sa.UniqueConstraint("port", name=op.f("uq_clusters_port")),
    )
    comment = "resource id of the cluster that it is a member of"
    op.add_column("instances", sa.Column("cluster", sa.Text, comment=comment))
    op.create_index(op.f("ix_instances_cluster"), "instances", ["cluster"])
    change_check("events", "source_type", _SOURCE_TYPES, referring="deliveries")
    change_workflow_kinds(_KINDS)
