"""Read replicas: whom an instance follows, and why it does not at the moment."""

import sqlalchemy as sa
from alembic import op

from verdigris.store.migrations.workflow_kinds import change_workflow_kinds

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
    change_workflow_kinds(_KINDS)
