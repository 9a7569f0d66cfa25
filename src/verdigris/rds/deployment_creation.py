"""CreateBlueGreenDeployment."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_combination
from verdigris.domain.green import planned_tasks
from verdigris.domain.identifiers import Arn, new_deployment_identifier
from verdigris.domain.model import BlueGreenDeployment, DBInstance, ReplicaSpec, TargetSpec
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import DeploymentStatus, WorkflowKind
from verdigris.domain.versions import PostgresVersion, replication_mode
from verdigris.rds import checks, deployment_views
from verdigris.rds.catalogue import Catalogue, choose_parameter_group, parameter_group_family
from verdigris.rds.clusters import require_default_parameter_group
from verdigris.rds.context import Context
from verdigris.rds.deployment_sources import Source, parse_source, usable_source
from verdigris.rds.quotas import cluster_count, require_less, require_room
from verdigris.rds.settings import KEPT
from verdigris.rds.tags import parse_tags
from verdigris.rds.work import start_workflow

# What is kept of green's storage: member of the request -> the instance's setting.
_STORAGE_SETTINGS = {
    "TargetIops": "Iops",
    "TargetStorageThroughput": "StorageThroughput",
    "TargetStorageType": "StorageType",
}


# Of a cluster's source: members that RDS has for instances alone. Classes are blue's.
_OF_INSTANCES = (
    "TargetAllocatedStorage",
    "TargetDBInstanceClass",
    "TargetIops",
    "TargetStorageThroughput",
    "TargetStorageType",
)


def create_blue_green_deployment(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    tags, arn = parse_tags(params.get("Tags")), parse_source(context, params["Source"])
    catalogue, settings = Catalogue(context), _storage_settings(params)
    _require_fitting(arn, params)
    with context.store.transaction() as tx:
        _require_free_deployment_name(tx, params["BlueGreenDeploymentName"])
        source = usable_source(tx, arn)
        target = _target(tx, catalogue, source.primary, params, settings)
        specs = {each.resource_id: _replica(tx, each, target, params) for each in source.replicas}
        target = structs.replace(target, replicas=specs)
        _require_room(context, tx, source, target, params)
        versions = PostgresVersion.parse(source.primary.engine_version), PostgresVersion.parse(target.engine_version)
        deployment = BlueGreenDeployment(
            identifier=new_deployment_identifier(context.random_text),
            name=params["BlueGreenDeploymentName"],
            mode=replication_mode(*versions),
            target=target,
            status=DeploymentStatus.PROVISIONING,
            members=source.members,
            cluster=source.cluster_member,
            endpoints=source.endpoint_members,
            tasks=planned_tasks(
                upgrade=versions[1] > versions[0],
                replicas=bool(source.replicas),
                cluster=source.cluster is not None,
            ),
            created_at=context.clock.now(),
            tags=tags,
        )
        tx.put_deployment(deployment)
        start_workflow(context, tx, WorkflowKind.CREATE_DEPLOYMENT, deployment.identifier)
        view = deployment_views.deployment_view(context, deployment, tx)
    context.wake()
    return {"BlueGreenDeployment": view}


def _require_fitting(arn: Arn, params: Mapping[str, Any]) -> None:
    """To an instance or to a cluster."""
    if params.get("TargetResourceConfigurations"):
        raise invalid_parameter_combination("TargetResourceConfigurations asks for what this server does not offer")
    if arn.kind != "cluster":
        if params.get("TargetDBClusterParameterGroupName"):
            raise invalid_parameter_combination("TargetDBClusterParameterGroupName: the source is not a DB cluster")
        return
    for name in _OF_INSTANCES:
        if params.get(name):
            raise invalid_parameter_combination(f"{name} cannot be specified: the source is a DB cluster")


def _require_room(
    context: Context, tx: Transaction, source: Source, target: TargetSpec, params: Mapping[str, Any]
) -> None:
    require_room(context, tx, [target.allocated_storage_gib] * len(source.members))
    if source.cluster is not None:
        require_less(context, Quota.DB_CLUSTERS, cluster_count(tx), "DBClusterQuotaExceededFault")
        wanted = params.get("TargetDBClusterParameterGroupName")
        require_default_parameter_group(wanted, source.cluster.engine, target.engine_version)


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
