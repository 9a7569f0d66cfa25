"""Parameter groups, and whether an instance has its group's values."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "v0002"
down_revision = "v0001"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "parameter_groups",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("family", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("parameters", _JSON, nullable=False),
        sa.Column("tags", _JSON, nullable=False),
        sa.CheckConstraint("name = lower(name) AND name <> ''", name=op.f("ck_parameter_groups_name")),
    )
    # SQLite cannot add a constraint to a table that is there: it is copied.
    with op.batch_alter_table("instances") as table:
        table.add_column(sa.Column("parameter_status", sa.Text, nullable=False, server_default="in-sync"))
        table.create_check_constraint(
            op.f("ck_instances_parameter_status"),
            "parameter_status IN ('in-sync', 'applying', 'pending-reboot', 'failed-to-apply')",
        )
    with op.batch_alter_table("instances") as table:
        table.alter_column("parameter_status", existing_type=sa.Text, existing_nullable=False, server_default=None)
