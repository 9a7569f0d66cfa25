"""Custom endpoints of clusters: their own table, and their work."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from verdigris.store.migrations.workflow_kinds import change_workflow_kinds

revision = "v0012"
down_revision = "v0011"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_IDENTIFIER = "identifier = lower(identifier) AND identifier <> ''"
_STATUSES = "status IN ('creating', 'available', 'modifying', 'deleting', 'inactive')"
_KINDS = (
    "kind IN ('create_instance', 'modify_instance', 'reboot_instance', 'stop_instance', 'start_instance', "
    "'delete_instance', 'create_read_replica', 'promote_read_replica', 'create_deployment', 'switch_over', "
    "'delete_deployment', 'create_cluster', 'modify_cluster', 'delete_cluster', 'create_snapshot', 'copy_snapshot', "
    "'delete_snapshot', 'restore_instance', 'create_cluster_endpoint', 'modify_cluster_endpoint', "
    "'delete_cluster_endpoint')"
)


def upgrade() -> None:
    op.create_table(
        "cluster_endpoints",
        sa.Column("resource_id", sa.Text, primary_key=True),
        sa.Column("identifier", sa.Text, nullable=False),
        sa.Column("cluster", sa.Text, nullable=False, comment="resource id"),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("static_members", _JSON, nullable=False),
        sa.Column("excluded_members", _JSON, nullable=False),
        sa.Column("tags", _JSON, nullable=False),
        sa.CheckConstraint("type IN ('READER', 'ANY')", name=op.f("ck_cluster_endpoints_type")),
        sa.CheckConstraint(_STATUSES, name=op.f("ck_cluster_endpoints_status")),
        sa.CheckConstraint(_IDENTIFIER, name=op.f("ck_cluster_endpoints_identifier")),
        sa.UniqueConstraint("identifier", name=op.f("uq_cluster_endpoints_identifier")),
        sa.UniqueConstraint("cluster", "host", name=op.f("uq_cluster_endpoints_cluster_host")),
    )
    op.create_index(op.f("ix_cluster_endpoints_cluster"), "cluster_endpoints", ["cluster"])
    change_workflow_kinds(_KINDS)
