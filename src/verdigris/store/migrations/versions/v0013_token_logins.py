"""Instances can take tokens. A version from before this one must not serve them: its router verifies none."""

import sqlalchemy as sa
from alembic import op

revision = "v0013"
down_revision = "v0012"

_FLAG = sa.Boolean(create_constraint=False)


def upgrade() -> None:
    with op.batch_alter_table("instances") as table:
        table.add_column(sa.Column("token_logins", _FLAG, nullable=False, server_default=sa.false()))
    with op.batch_alter_table("instances") as table:
        table.alter_column("token_logins", existing_type=_FLAG, existing_nullable=False, server_default=None)
