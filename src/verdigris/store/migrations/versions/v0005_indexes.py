"""Indexes for what is asked about a few instances, so that it costs the same however many there are."""

from alembic import op

revision = "v0005"
down_revision = "v0004"


def upgrade() -> None:
    op.create_index(op.f("ix_instances_replica_of"), "instances", ["replica_of"])
    op.create_index(op.f("ix_workflows_subject"), "workflows", ["subject"])
