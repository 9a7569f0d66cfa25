"""Event subscriptions, and what is to be delivered to them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from verdigris.store.columns import Moment, RowNumber

revision = "v0007"
down_revision = "v0006"

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "event_subscriptions",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("topic_arn", sa.Text, nullable=False),
        sa.Column("source_type", sa.Text),
        sa.Column("source_identifiers", _JSON, nullable=False),
        sa.Column("categories", _JSON, nullable=False),
        sa.Column("enabled", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("tags", _JSON, nullable=False),
        sa.CheckConstraint(
            "source_type IS NOT NULL OR CAST(source_identifiers AS TEXT) = '[]'",
            name=op.f("ck_event_subscriptions_source_identifiers"),
        ),
    )
    op.create_table(
        "deliveries",
        sa.Column("number", RowNumber, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("subscription_name", sa.Text, nullable=False),
        sa.Column("event_number", RowNumber, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_deliveries_attempts")),
        sa.UniqueConstraint("message_id", name=op.f("uq_deliveries_message_id")),
        sa.ForeignKeyConstraint(
            ["subscription_name"],
            ["event_subscriptions.name"],
            ondelete="CASCADE",
            name=op.f("fk_deliveries_subscription_name"),
        ),
        sa.ForeignKeyConstraint(
            ["event_number"], ["events.number"], ondelete="CASCADE", name=op.f("fk_deliveries_event_number")
        ),
    )
    op.create_index(op.f("ix_deliveries_subscription_name"), "deliveries", ["subscription_name"])
    op.create_index(op.f("ix_deliveries_event_number"), "deliveries", ["event_number"])
