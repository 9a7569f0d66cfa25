"""``python -m tests.acceptance.migrations.alembic_history SQLALCHEMY_URL``: revisions as Alembic users write them."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config

_ENV = """
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""

_REVISION = """
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = {revision!r}
down_revision = {down!r}


def upgrade():
{upgrade}


def downgrade():
{downgrade}
"""

# Upgrade and downgrade of each revision, in their order.
_HISTORY = (
    (
        """
    op.create_table(
        "account",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("kind", sa.Enum("person", "firm", name="account_kind"), nullable=False),
    )
    op.bulk_insert(
        sa.table("account", sa.column("name"), sa.column("kind")),
        [{"name": f"n{i}", "kind": "person" if i % 2 else "firm"} for i in range(200)],
    )""",
        """
    op.drop_table("account")
    op.execute("DROP TYPE account_kind")""",
    ),
    (
        """
    op.add_column("account", sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now()))
    op.add_column("account", sa.Column("token", postgresql.UUID, server_default=sa.text("gen_random_uuid()")))
    op.create_index("ix_account_name", "account", [sa.text("lower(name)")])""",
        """
    op.drop_index("ix_account_name")
    op.drop_column("account", "token")
    op.drop_column("account", "created_at")""",
    ),
    (
        """
    op.create_table(
        "entry",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), nullable=False),
        sa.Column("data", postgresql.JSONB, server_default="{}"),
        sa.CheckConstraint("amount <> 0", name="ck_entry_amount"),
    )
    op.execute("INSERT INTO entry (account_id, amount) SELECT id, id * 1.5 FROM account")
    op.execute("COMMENT ON TABLE entry IS 'one; two'; CREATE VIEW balance AS"
               " SELECT account_id, sum(amount) FROM entry GROUP BY 1")""",
        """
    op.execute("DROP VIEW balance")
    op.drop_table("entry")""",
    ),
    (
        """
    op.execute("ALTER TYPE account_kind ADD VALUE IF NOT EXISTS 'state'")
    with op.get_context().autocommit_block():
        op.create_index("ix_entry_account", "entry", ["account_id"], postgresql_concurrently=True)
    op.alter_column("account", "name", type_=sa.Text, nullable=True, new_column_name="title")
    op.create_unique_constraint("uq_account_token", "account", ["token"])
    op.rename_table("entry", "posting")""",
        """
    op.rename_table("posting", "entry")
    op.drop_constraint("uq_account_token", "account")
    op.alter_column("account", "title", type_=sa.String(50), nullable=False, new_column_name="name")
    op.drop_index("ix_entry_account", table_name="entry")""",
    ),
)


def run(url: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        _write(Path(directory))
        config = Config()
        config.set_main_option("script_location", directory)
        config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        command.upgrade(config, "head")
        command.downgrade(config, "-3")
        command.upgrade(config, "head")


def _write(directory: Path) -> None:
    versions = directory / "versions"
    versions.mkdir()
    (directory / "env.py").write_text(_ENV)
    for number, (upgrade, downgrade) in enumerate(_HISTORY):
        text = _REVISION.replace("{revision!r}", repr(f"r{number}"))
        text = text.replace("{down!r}", repr(f"r{number - 1}" if number else None))
        text = text.replace("{upgrade}", upgrade).replace("{downgrade}", downgrade)
        (versions / f"r{number}.py").write_text(text)


if __name__ == "__main__":
    run(sys.argv[1])
