"""Changes can wait for an instance's next reboot."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0009"
down_revision = "v0008"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    with op.batch_alter_table("instances") as table:
        table.add_column(sa.Column("pending", _JSON, nullable=False, server_default="{}"))
    with op.batch_alter_table("instances") as table:
        table.alter_column("pending", existing_type=_JSON, existing_nullable=False, server_default=None)
