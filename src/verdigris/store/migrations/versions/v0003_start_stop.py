"""Instances can be stopped and started."""

from alembic import op

revision = "v0003"
down_revision = "v0002"

_STATUSES = (
    "status IN ('creating', 'available', 'modifying', 'renaming', 'upgrading', 'rebooting', "
    "'resetting-master-credentials', 'stopping', 'stopped', 'starting', 'deleting', 'failed')"
)
_KINDS = (
    "kind IN ('create_instance', 'modify_instance', 'reboot_instance', 'stop_instance', 'start_instance', "
    "'delete_instance', 'create_deployment', 'switch_over', 'delete_deployment')"
)


def upgrade() -> None:
    with op.batch_alter_table("instances") as table:
        table.drop_constraint(op.f("ck_instances_status"), type_="check")
        table.create_check_constraint(op.f("ck_instances_status"), _STATUSES)
    _keep_journal()
    with op.batch_alter_table("workflows") as table:
        table.drop_constraint(op.f("ck_workflows_kind"), type_="check")
        table.create_check_constraint(op.f("ck_workflows_kind"), _KINDS)
    _bring_journal_back()


# SQLite changes a constraint by copying the table and dropping the old one, and a row that is dropped takes with it
# what refers to it. So the journal is put aside meanwhile.


def _keep_journal() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("CREATE TEMPORARY TABLE kept_journal AS SELECT * FROM journal")


def _bring_journal_back() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("INSERT INTO journal SELECT * FROM kept_journal")
        op.execute("DROP TABLE kept_journal")
