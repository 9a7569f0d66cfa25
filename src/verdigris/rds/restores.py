"""RestoreDBInstanceFromDBSnapshot."""

from collections.abc import Mapping
from typing import Any

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value, missing_parameter
from verdigris.domain.identifiers import is_instance_identifier, new_resource_id
from verdigris.domain.model import DBInstance, DBSnapshot
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus, SnapshotStatus, WorkflowKind
from verdigris.rds import checks, views
from verdigris.rds.catalogue import ENGINE, Catalogue, choose_parameter_group
from verdigris.rds.context import Context
from verdigris.rds.instances import choose_port, require_free_name
from verdigris.rds.lookups import identifier_rule, require_snapshot, snapshot_identifier_of
from verdigris.rds.quotas import require_room
from verdigris.rds.settings import collect_settings
from verdigris.rds.snapshots import invalid_snapshot_state
from verdigris.rds.subnet_groups import require_usable
from verdigris.rds.tags import parse_tags
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments
from verdigris.workflows.services import taken_ports

# Members that restore_db_instance_from_db_snapshot reads itself; the others are in ``settings``.
RESTORE_MEMBERS = frozenset(
    {
        "AllocatedStorage",
        "DBClusterSnapshotIdentifier",
        "DBInstanceClass",
        "DBInstanceIdentifier",
        "DBName",
        "DBParameterGroupName",
        "DBSnapshotIdentifier",
        "DeletionProtection",
        "EnableIAMDatabaseAuthentication",
        "Engine",
        "Port",
        "Tags",
    }
)
# Where it is in the network is said anew, as on RDS.
_NOT_INHERITED = frozenset({"DBSubnetGroupName", "VpcSecurityGroupIds"})


def restore_db_instance_from_db_snapshot(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    _check(params)
    asked, tags = collect_settings(params), parse_tags(params.get("Tags"))
    catalogue = Catalogue(context)
    with context.store.transaction() as tx:
        require_free_name(tx, params["DBInstanceIdentifier"].lower())
        snapshot = require_snapshot(tx, snapshot_identifier_of(context, params["DBSnapshotIdentifier"]))
        if snapshot.status is not SnapshotStatus.AVAILABLE:
            raise invalid_snapshot_state(
                f"The DB snapshot {snapshot.identifier} is not in available state, but {snapshot.status}"
            )
        version = catalogue.require(snapshot.engine_version).version
        storage_gib = _storage_gib(snapshot, params)
        require_room(context, tx, [storage_gib])
        require_usable(tx, asked)
        inherited = {name: value for name, value in snapshot.settings.items() if name not in _NOT_INHERITED}
        instance = DBInstance(
            resource_id=new_resource_id(context.random_text),
            identifier=params["DBInstanceIdentifier"].lower(),
            engine=ENGINE,
            engine_version=version,
            instance_class=params.get("DBInstanceClass", snapshot.instance_class),
            status=InstanceStatus.CREATING,
            master_username=snapshot.master_username,
            db_name=snapshot.db_name,
            port=_port(context, tx, snapshot, params.get("Port")),
            created_at=context.clock.now(),
            allocated_storage_gib=storage_gib,
            deletion_protection=params.get("DeletionProtection", False),
            parameter_group=choose_parameter_group(tx, params.get("DBParameterGroupName"), version),
            token_logins=params.get("EnableIAMDatabaseAuthentication", False),  # anew, as on RDS
            settings={**inherited, **asked},
            tags=tags or snapshot.instance_tags,
        )
        tx.put_instance(instance)
        told = arguments.RestoreInstance(
            snapshot_id=snapshot.snapshot_id, port_requested=params.get("Port") is not None
        )
        start_workflow(context, tx, WorkflowKind.RESTORE_INSTANCE, instance.resource_id, told)
        around = views.surroundings(tx, [instance])
    context.wake()
    return {"DBInstance": views.instance_view(context, instance, around(instance))}


def _check(params: Mapping[str, Any]) -> None:
    if not is_instance_identifier(params["DBInstanceIdentifier"]):
        raise invalid_parameter_value(identifier_rule("DBInstanceIdentifier"))
    if params.get("DBClusterSnapshotIdentifier"):
        name = params["DBClusterSnapshotIdentifier"].lower()
        raise Fault("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot {name} not found.")
    if not params.get("DBSnapshotIdentifier"):
        raise missing_parameter("DBSnapshotIdentifier")
    if params.get("Engine", ENGINE).lower() != ENGINE:
        raise invalid_parameter_combination("The engine of a DB snapshot cannot be changed when it is restored")
    if params.get("DBName"):
        raise invalid_parameter_combination(
            f"DBName cannot be specified for {ENGINE}: the databases are those that the DB snapshot has"
        )
    if "DBInstanceClass" in params:
        checks.check_instance_class(params["DBInstanceClass"])
    if "AllocatedStorage" in params:
        checks.check_storage("AllocatedStorage", params["AllocatedStorage"])
    if params.get("Port") is not None:
        checks.check_port(params["Port"])


def _storage_gib(snapshot: DBSnapshot, params: Mapping[str, Any]) -> int:
    size_gib: int = params.get("AllocatedStorage", snapshot.allocated_storage_gib)
    if size_gib < snapshot.allocated_storage_gib:
        raise invalid_parameter_combination(
            f"AllocatedStorage must not be less than that of the DB snapshot, {snapshot.allocated_storage_gib}"
        )
    return size_gib


def _port(context: Context, tx: Transaction, snapshot: DBSnapshot, wanted: int | None) -> int:
    """The original's, as on RDS, if nobody has it any more: here all endpoints are on one host."""
    if wanted is None and snapshot.port not in taken_ports(tx) and context.ports.is_free(snapshot.port):
        return snapshot.port
    return choose_port(context, tx, wanted)
