"""CreateBlueGreenDeployment."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value
from verdigris.domain.identifiers import new_deployment_identifier
from verdigris.domain.model import BlueGreenDeployment, DBInstance, Member, ReplicaSpec, TargetSpec, Task
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, TaskName, WorkflowKind
from verdigris.domain.versions import PostgresVersion, replication_mode
from verdigris.rds import checks, views
from verdigris.rds.catalogue import Catalogue, choose_parameter_group, parameter_group_family
from verdigris.rds.context import Context
from verdigris.rds.lookups import deployment_of, parse_own_arn, require_cluster, require_instance
from verdigris.rds.quotas import require_room
from verdigris.rds.settings import KEPT
from verdigris.rds.states import require_available, require_settled
from verdigris.rds.tags import parse_tags
from verdigris.rds.work import start_workflow

# What is kept of green's storage: member of the request -> the instance's setting.
_STORAGE_SETTINGS = {
    "TargetIops": "Iops",
    "TargetStorageThroughput": "StorageThroughput",
    "TargetStorageType": "StorageType",
}


def create_blue_green_deployment(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    tags, source_identifier = parse_tags(params.get("Tags")), _source_identifier(context, params["Source"])
    catalogue, settings = Catalogue(context), _storage_settings(params)
    _refuse_cluster_members(params)
    with context.store.transaction() as tx:
        source = require_instance(tx, source_identifier)
        _require_free_deployment_name(tx, params["BlueGreenDeploymentName"])
        _require_usable_source(tx, source)
        replicas = _usable_replicas(tx, source)
        target = _target(tx, catalogue, source, params, settings)
        target = structs.replace(target, replicas={r.resource_id: _replica(tx, r, target, params) for r in replicas})
        require_room(context, tx, [target.allocated_storage_gib] * (1 + len(replicas)))
        versions = PostgresVersion.parse(source.engine_version), PostgresVersion.parse(target.engine_version)
        deployment = BlueGreenDeployment(
            identifier=new_deployment_identifier(context.random_text),
            name=params["BlueGreenDeploymentName"],
            mode=replication_mode(*versions),
            target=target,
            status=DeploymentStatus.PROVISIONING,
            members=tuple(
                Member(source_resource_id=each.resource_id, source_identifier=each.identifier)
                for each in (source, *replicas)
            ),
            tasks=_tasks(upgrade=versions[1] > versions[0], replicas=bool(replicas)),
            created_at=context.clock.now(),
            tags=tags,
        )
        tx.put_deployment(deployment)
        start_workflow(context, tx, WorkflowKind.CREATE_DEPLOYMENT, deployment.identifier)
        view = views.deployment_view(context, deployment, tx)
    context.wake()
    return {"BlueGreenDeployment": view}


def _source_identifier(context: Context, text: str) -> str:
    arn = parse_own_arn(context, text)
    if arn.kind == "cluster":
        with context.store.transaction() as tx:
            cluster = require_cluster(tx, arn.name)
        raise Fault(
            "SourceClusterNotSupportedFault",
            f"DB cluster {cluster.identifier}: blue/green deployments of clusters are not offered here yet",
        )
    if arn.kind != "db":
        raise invalid_parameter_value(f"Source is not the ARN of a DB instance or DB cluster: {text}")
    return arn.name


def _refuse_cluster_members(params: Mapping[str, Any]) -> None:
    if params.get("TargetDBClusterParameterGroupName"):
        raise invalid_parameter_combination("TargetDBClusterParameterGroupName: the source is not a DB cluster")
    if params.get("TargetResourceConfigurations"):
        raise invalid_parameter_combination("TargetResourceConfigurations asks for what this server does not offer")


def _storage_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """``UpgradeTargetStorageConfig`` is accepted and has nothing to upgrade: green's files are made anew anyway."""
    settings = {setting: params[name] for name, setting in _STORAGE_SETTINGS.items() if name in params}
    for name, value in settings.items():
        KEPT[name](f"Target{name}", value)
    return settings


def _require_free_deployment_name(tx: Transaction, name: str) -> None:
    """One that is being deleted still holds its name."""
    if any(deployment.name == name for deployment in tx.deployments()):
        raise Fault(
            "BlueGreenDeploymentAlreadyExistsFault", f"A Blue Green Deployment with the name '{name}' already exists"
        )


def _require_usable_source(tx: Transaction, source: DBInstance) -> None:
    if source.cluster is not None:
        raise Fault(
            "SourceDatabaseNotSupportedFault",
            f"DB instance {source.identifier} is a member of a DB cluster: blue/green deployments of clusters are not "
            "offered here yet",
        )
    deployment = deployment_of(tx, source.resource_id)
    if deployment is not None:
        raise Fault(
            "InvalidDBInstanceStateFault",
            f"DB instance {source.identifier} is a member of the blue/green deployment {deployment.identifier} "
            f"({deployment.name}). Delete that deployment first.",
        )
    if source.status is not InstanceStatus.AVAILABLE:
        raise Fault(
            "InvalidDBInstanceStateFault",
            f"DB instance {source.identifier} is not in available state, but {source.status}",
        )
    if source.replica_of is not None:
        raise Fault(
            "SourceDatabaseNotSupportedFault",
            f"DB instance {source.identifier} is a read replica. Create the deployment for its source, or promote it "
            "first with PromoteReadReplica.",
        )
    if source.read_only:
        raise Fault(
            "SourceDatabaseNotSupportedFault",
            f"DB instance {source.identifier} is read-only since its switchover: it cannot be the source of another",
        )


def _usable_replicas(tx: Transaction, source: DBInstance) -> list[DBInstance]:
    """Those of the source: green gets as many. Each must be at rest, because the switchover will want it."""
    replicas = tx.replicas_of([source.resource_id])
    for replica in replicas:
        require_available(replica)
        require_settled(tx, replica)
    return replicas


def _replica(tx: Transaction, replica: DBInstance, green: TargetSpec, params: Mapping[str, Any]) -> ReplicaSpec:
    """What is asked for by name holds for all green instances. Otherwise each is as its counterpart: class, and
    parameter group if there can be one of the same family."""
    group = green.parameter_group
    if not params.get("TargetDBParameterGroupName"):
        kept = parameter_group_family(replica.engine_version) == parameter_group_family(green.engine_version)
        group = choose_parameter_group(tx, replica.parameter_group if kept else None, green.engine_version)
    return ReplicaSpec(
        instance_class=params.get("TargetDBInstanceClass", replica.instance_class), parameter_group=group
    )


def _target(
    tx: Transaction, catalogue: Catalogue, source: DBInstance, params: Mapping[str, Any], settings: dict[str, Any]
) -> TargetSpec:
    version = source.engine_version
    if params.get("TargetEngineVersion"):
        version = catalogue.require_upgrade(version, params["TargetEngineVersion"])
    instance_class = params.get("TargetDBInstanceClass", source.instance_class)
    checks.check_instance_class(instance_class)
    storage_gib = params.get("TargetAllocatedStorage", source.allocated_storage_gib)
    checks.check_storage("TargetAllocatedStorage", storage_gib)
    group = params.get("TargetDBParameterGroupName")
    if not group and parameter_group_family(version) == parameter_group_family(source.engine_version):
        group = source.parameter_group
    return TargetSpec(
        engine_version=version,
        instance_class=instance_class,
        parameter_group=choose_parameter_group(tx, group or None, version),
        allocated_storage_gib=storage_gib,
        settings=settings,
    )


def _tasks(*, upgrade: bool, replicas: bool) -> tuple[Task, ...]:
    needed = {TaskName.DB_ENGINE_VERSION_UPGRADE: upgrade, TaskName.CREATING_TOPOLOGY_OF_SOURCE: replicas}
    return tuple(Task(name) for name in TaskName if needed.get(name, True))
