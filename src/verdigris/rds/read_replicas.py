"""CreateDBInstanceReadReplica and PromoteReadReplica, and what a read replica means for the other operations."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value, missing_parameter
from verdigris.domain.identifiers import is_instance_identifier, new_resource_id
from verdigris.domain.model import BlueGreenDeployment, DBInstance, PendingChange
from verdigris.domain.parameters import ApplyStatus
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.domain.versions import PostgresVersion
from verdigris.rds import checks, views
from verdigris.rds.catalogue import choose_parameter_group
from verdigris.rds.cluster_members import require_no_member
from verdigris.rds.context import Context
from verdigris.rds.instances import choose_port, require_free_name
from verdigris.rds.lookups import (
    deployment_of,
    identifier_rule,
    instance_identifier_of,
    require_cluster,
    require_instance,
)
from verdigris.rds.quotas import most, require_room
from verdigris.rds.settings import collect_settings
from verdigris.rds.states import GREEN_IS_FREE, invalid_instance_state, require_available, require_settled
from verdigris.rds.subnet_groups import require_usable
from verdigris.rds.tags import parse_tags
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments

# Members that create_db_instance_read_replica reads itself; the others are in ``settings``. There is nothing for
# UpgradeStorageConfig to upgrade: a replica's files are made anew.
CREATE_MEMBERS = frozenset(
    {
        "AllocatedStorage",
        "DBInstanceClass",
        "DBInstanceIdentifier",
        "DBParameterGroupName",
        "DeletionProtection",
        "EnableIAMDatabaseAuthentication",
        "Port",
        "SourceDBClusterIdentifier",
        "SourceDBInstanceIdentifier",
        "SourceRegion",
        "Tags",
        "UpgradeStorageConfig",
    }
)


def create_db_instance_read_replica(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    if params.get("SourceDBClusterIdentifier"):
        _require_there(context, params["SourceDBClusterIdentifier"])
        raise invalid_parameter_combination("Read replicas of DB clusters are not offered here: name a DB instance")
    source_identifier = _parse(context, params)
    settings, tags = collect_settings(params), parse_tags(params.get("Tags"))
    with context.store.transaction() as tx:
        require_free_name(tx, params["DBInstanceIdentifier"].lower())
        source = require_instance(tx, source_identifier)
        _require_usable_source(tx, source)
        _require_room_for_replica(context, tx, source, _storage_gib(source, params))
        require_usable(tx, settings)
        group = params.get("DBParameterGroupName") or source.parameter_group
        replica = structs.replace(
            source,
            resource_id=new_resource_id(context.random_text),
            identifier=params["DBInstanceIdentifier"].lower(),
            instance_class=params.get("DBInstanceClass", source.instance_class),
            status=InstanceStatus.CREATING,
            status_reason="",
            port=choose_port(context, tx, params.get("Port")),
            created_at=context.clock.now(),
            allocated_storage_gib=_storage_gib(source, params),
            deletion_protection=params.get("DeletionProtection", False),
            parameter_group=choose_parameter_group(tx, group, source.engine_version),
            parameter_status=ApplyStatus.IN_SYNC,
            token_logins=params.get("EnableIAMDatabaseAuthentication", source.token_logins),
            read_only=True,
            replica_of=source.resource_id,
            pending=PendingChange(),
            # A replica has no backups of its own until they are asked for.
            settings={**source.settings, "BackupRetentionPeriod": 0, **settings},
            tags=tags,
        )
        tx.put_instance(replica)
        told = arguments.CreateReadReplica(port_requested=params.get("Port") is not None)
        start_workflow(context, tx, WorkflowKind.CREATE_READ_REPLICA, replica.resource_id, told)
        around = views.surroundings(tx, [replica])
    context.wake()
    return {"DBInstance": views.instance_view(context, replica, around(replica))}


def _require_there(context: Context, cluster: str) -> None:
    with context.store.transaction() as tx:
        require_cluster(tx, cluster)


def _parse(context: Context, params: Mapping[str, Any]) -> str:
    """The source's identifier, of a request that is valid as far as can be told without looking at it."""
    if not is_instance_identifier(params["DBInstanceIdentifier"]):
        raise invalid_parameter_value(identifier_rule("DBInstanceIdentifier"))
    if not params.get("SourceDBInstanceIdentifier"):
        raise missing_parameter("SourceDBInstanceIdentifier")
    if params.get("SourceRegion", context.region) != context.region:
        raise invalid_parameter_value(f"Invalid value {params['SourceRegion']} for SourceRegion: there is one region")
    if "DBInstanceClass" in params:
        checks.check_instance_class(params["DBInstanceClass"])
    if "AllocatedStorage" in params:
        checks.check_storage("AllocatedStorage", params["AllocatedStorage"])
    if params.get("Port") is not None:
        checks.check_port(params["Port"])
    return instance_identifier_of(context, params["SourceDBInstanceIdentifier"])


def _storage_gib(source: DBInstance, params: Mapping[str, Any]) -> int:
    size_gib: int = params.get("AllocatedStorage", source.allocated_storage_gib)
    if size_gib < source.allocated_storage_gib:
        raise invalid_parameter_combination(
            f"AllocatedStorage must not be less than that of the source, {source.allocated_storage_gib}"
        )
    return size_gib


def _require_usable_source(tx: Transaction, source: DBInstance) -> None:
    name = source.identifier
    require_no_member(source, "has no read replicas of its own: add a DB instance to the cluster instead.")
    if source.replica_of is not None:
        raise invalid_instance_state(
            f"DB instance {name} is a read replica itself. Replicas of replicas are not offered here: name its source."
        )
    require_available(source)
    deployment = deployment_of(tx, source.resource_id)
    is_green = deployment is not None and deployment.primary.target_resource_id == source.resource_id
    if deployment is not None and not deployment.has_switched_over:
        # Green gets as many as anybody likes, and keeps them; what blue got now would stay with blue.
        if not is_green or deployment.status not in GREEN_IS_FREE:
            raise _in_deployment(source, deployment)
    elif source.read_only:
        raise invalid_instance_state(f"DB instance {name} is read-only since its switchover: nothing is written to it")
    if source.settings.get("BackupRetentionPeriod") == 0:
        raise invalid_instance_state(
            "Automated backups are not enabled for this database instance. To enable automated backups, use "
            "ModifyDBInstance to set the backup retention period to a non-zero value."
        )


def _require_room_for_replica(context: Context, tx: Transaction, source: DBInstance, storage_gib: int) -> None:
    allowed = most(context, Quota.READ_REPLICAS_PER_MASTER)
    if len(tx.replicas_of([source.resource_id])) >= allowed:
        raise invalid_instance_state(f"DB instance {source.identifier} has {allowed} read replicas, which is the limit")
    require_room(context, tx, [storage_gib])


def _in_deployment(instance: DBInstance, deployment: BlueGreenDeployment) -> Fault:
    return invalid_instance_state(
        f"DB instance {instance.identifier} is a member of the blue/green deployment {deployment.identifier} "
        f"({deployment.name}). Switch it over or delete it first."
    )


def promote_read_replica(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    asked = collect_settings(params)
    with context.store.transaction() as tx:
        replica = require_instance(tx, params["DBInstanceIdentifier"])
        require_no_member(replica, "cannot be promoted.")
        if replica.replica_of is None:
            raise invalid_instance_state(f"DB instance {replica.identifier} is not a read replica")
        require_available(replica)
        require_settled(tx, replica)
        deployment = deployment_of(tx, replica.resource_id)
        if deployment is not None and not deployment.has_switched_over:
            raise _in_deployment(replica, deployment)
        # Without having been told it has backups as an instance that was told nothing, whatever it had as a replica.
        kept = {name: value for name, value in replica.settings.items() if name != "BackupRetentionPeriod"}
        replica = structs.replace(replica, status=InstanceStatus.MODIFYING, settings={**kept, **asked})
        tx.put_instance(replica)
        start_workflow(context, tx, WorkflowKind.PROMOTE_READ_REPLICA, replica.resource_id)
        around = views.surroundings(tx, [replica])
    context.wake()
    return {"DBInstance": views.instance_view(context, replica, around(replica))}


# ------------------------------------------------------------------------------------------------ for other operations


def require_no_replicas_below(tx: Transaction, source: DBInstance, version: str) -> None:
    """A standby reads the WAL of its own minor version or an older one; so RDS upgrades replicas first, too."""
    wanted = PostgresVersion.parse(version)
    behind = [
        replica.identifier
        for replica in tx.replicas_of([source.resource_id])
        if PostgresVersion.parse(replica.engine_version) < wanted
    ]
    if behind:
        raise Fault(
            "DBUpgradeDependencyFailureFault",
            f"One or more of the DB Instance's read replicas need to be upgraded: {', '.join(behind)}",
        )


def require_backups_where_replicated(tx: Transaction, source: DBInstance, settings: Mapping[str, Any]) -> None:
    if settings.get("BackupRetentionPeriod") == 0 and tx.replicas_of([source.resource_id]):
        raise invalid_parameter_combination(
            f"BackupRetentionPeriod cannot be 0: DB instance {source.identifier} is the source of read replicas"
        )


def hold_replicas(tx: Transaction, source: DBInstance) -> bool:
    """The source is to be deleted, which promotes its replicas: until then nothing else is done to them. Whether there
    are any."""
    replicas = tx.replicas_of([source.resource_id])
    for replica in replicas:
        require_settled(tx, replica)
        if replica.status is InstanceStatus.AVAILABLE:
            tx.put_instance(structs.replace(replica, status=InstanceStatus.MODIFYING))
    return bool(replicas)
