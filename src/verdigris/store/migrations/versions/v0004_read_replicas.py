"""Read replicas: whom an instance follows, and why it does not at the moment."""

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"

_KINDS = (
    "kind IN ('create_instance', 'modify_instance', 'reboot_instance', 'stop_instance', 'start_instance', "
    "'delete_instance', 'create_read_replica', 'promote_read_replica', 'create_deployment', 'switch_over', "
    "'delete_deployment')"
)


def upgrade() -> None:
    with op.batch_alter_table("instances") as table:
        table.add_column(sa.Column("replica_of", sa.Text, comment="resource id of a read replica's source"))
        table.add_column(sa.Column("replication_error", sa.Text, nullable=False, server_default=""))
        table.create_check_constraint(op.f("ck_instances_replica_of"), "replica_of <> resource_id")
    with op.batch_alter_table("instances") as table:
        table.alter_column("replication_error", existing_type=sa.Text, existing_nullable=False, server_default=None)
    _keep_journal()
    with op.batch_alter_table("workflows") as table:
        table.drop_constraint(op.f("ck_workflows_kind"), type_="check")
        table.create_check_constraint(op.f("ck_workflows_kind"), _KINDS)
    _bring_journal_back()


# As in v0003: SQLite copies the table and drops the old one, whose rows take the journal's with them.


def _keep_journal() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("CREATE TEMPORARY TABLE kept_journal AS SELECT * FROM journal")


def _bring_journal_back() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("INSERT INTO journal SELECT * FROM kept_journal")
        op.execute("DROP TABLE kept_journal")
