"""Instances can be stopped and started."""

from alembic import op

from verdigris.store.migrations.workflow_kinds import change_workflow_kinds

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
    change_workflow_kinds(_KINDS)
