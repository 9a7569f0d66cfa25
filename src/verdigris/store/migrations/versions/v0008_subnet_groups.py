"""DB subnet groups."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0008"
down_revision = "v0007"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "subnet_groups",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("subnet_ids", _JSON, nullable=False),
        sa.Column("tags", _JSON, nullable=False),
        sa.CheckConstraint("name = lower(name) AND name <> ''", name=op.f("ck_subnet_groups_name")),
    )
