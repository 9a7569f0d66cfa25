"""Snapshots that nobody asked for. A version from before this one must not serve them: it would let them be deleted."""

import sqlalchemy as sa
from alembic import op

from verdigris.store.columns import Moment

revision = "v0014"
down_revision = "v0013"


def upgrade() -> None:
    with op.batch_alter_table("snapshots") as table:
        table.add_column(sa.Column("type", sa.Text, nullable=False, server_default="manual"))
        table.add_column(sa.Column("begun_at", Moment))
        table.create_check_constraint(op.f("ck_snapshots_type"), "type IN ('manual', 'automated')")
        table.create_check_constraint(op.f("ck_snapshots_begun_at"), "type <> 'automated' OR begun_at IS NOT NULL")
    with op.batch_alter_table("snapshots") as table:
        table.alter_column("type", existing_type=sa.Text, existing_nullable=False, server_default=None)
