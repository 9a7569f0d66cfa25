"""Deployments of clusters: the cluster and its custom endpoints, each with its target."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0015"
down_revision = "v0014"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("cluster", _JSON))
        table.add_column(sa.Column("endpoints", _JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("deployments") as table:
        table.alter_column("endpoints", existing_type=_JSON, existing_nullable=False, server_default=None)
