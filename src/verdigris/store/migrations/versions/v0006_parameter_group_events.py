"""Parameter groups have events."""

from alembic import op

revision = "v0006"
down_revision = "v0005"

_SOURCE_TYPES = "source_type IN ('db-instance', 'db-parameter-group', 'blue-green-deployment')"


def upgrade() -> None:
    with op.batch_alter_table("events") as table:
        table.drop_constraint(op.f("ck_events_source_type"), type_="check")
        table.create_check_constraint(op.f("ck_events_source_type"), _SOURCE_TYPES)
