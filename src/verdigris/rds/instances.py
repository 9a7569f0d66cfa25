"""DescribeDBInstances, and CreateDBInstance but for members of clusters, which are in ``cluster_members``. Changes of
instances are in ``instance_changes``."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value, missing_parameter
from verdigris.domain.errors import PortInUse
from verdigris.domain.identifiers import is_instance_identifier, new_resource_id
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, WorkflowKind
from verdigris.rds import checks, views
from verdigris.rds.catalogue import ENGINE, Catalogue, choose_parameter_group
from verdigris.rds.context import Context
from verdigris.rds.filters import Values, apply_filters
from verdigris.rds.lookups import identifier_rule, instance_identifier_of, require_instance
from verdigris.rds.pagination import marked_name, paginate
from verdigris.rds.quotas import require_room
from verdigris.rds.settings import collect_settings
from verdigris.rds.subnet_groups import require_usable
from verdigris.rds.tags import parse_tags
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments
from verdigris.workflows.services import taken_ports

DEFAULT_STORAGE_GIB = 20

# Members that CreateDBInstance reads itself; the others are in ``settings``.
CREATE_MEMBERS = frozenset(
    {
        "AllocatedStorage",
        "DBClusterIdentifier",
        "DBInstanceClass",
        "DBInstanceIdentifier",
        "DBName",
        "DBParameterGroupName",
        "DeletionProtection",
        "EnableIAMDatabaseAuthentication",
        "Engine",
        "EngineVersion",
        "MasterUserPassword",
        "MasterUsername",
        "Port",
        "Tags",
    }
)


def describe_db_instances(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    named = params.get("DBInstanceIdentifier")
    with context.store.transaction() as tx:
        if named is None:
            found = tx.instances_after(marked_name("DescribeDBInstances", params))
        else:
            found = [require_instance(tx, instance_identifier_of(context, named))]
        passed = apply_filters(params.get("Filters"), found, _filters(context, tx))
        page, marker = paginate("DescribeDBInstances", params, passed, lambda instance: [instance.identifier])
        around = views.surroundings(tx, page)
    return {"DBInstances": [views.instance_view(context, i, around(i)) for i in page], "Marker": marker}


def _filters(context: Context, tx: Transaction) -> Mapping[str, Values[DBInstance]]:
    return {
        "db-cluster-id": lambda instance: _cluster_names(context, tx, instance),
        "db-instance-id": lambda instance: [instance.identifier, context.instance_arn(instance.identifier)],
        "dbi-resource-id": lambda instance: [instance.resource_id.lower()],
        "domain": lambda _instance: [],
        "engine": lambda instance: [instance.engine],
    }


def _cluster_names(context: Context, tx: Transaction, instance: DBInstance) -> list[str]:
    cluster = None if instance.cluster is None else tx.cluster(instance.cluster)
    return [] if cluster is None else [cluster.identifier, context.cluster_arn(cluster.identifier)]


class _Wanted(Struct, frozen=True, kw_only=True):
    """What a valid request asks for, with RDS's defaults; names and ports are still to be checked."""

    identifier: str
    version: str
    instance_class: str
    username: str
    password: str
    db_name: str | None
    port: int | None
    storage_gib: int


def create_instance_alone(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    wanted = _parse(context, params)
    settings, tags = collect_settings(params), parse_tags(params.get("Tags"))
    verifier = context.servers.conceal_password(wanted.password)
    with context.store.transaction() as tx:
        require_free_name(tx, wanted.identifier)
        require_room(context, tx, [wanted.storage_gib])
        require_usable(tx, settings)
        instance = DBInstance(
            resource_id=new_resource_id(context.random_text),
            identifier=wanted.identifier,
            engine=ENGINE,
            engine_version=wanted.version,
            instance_class=wanted.instance_class,
            status=InstanceStatus.CREATING,
            master_username=wanted.username,
            db_name=wanted.db_name,
            port=choose_port(context, tx, wanted.port),
            created_at=context.clock.now(),
            allocated_storage_gib=wanted.storage_gib,
            deletion_protection=params.get("DeletionProtection", False),
            parameter_group=choose_parameter_group(tx, params.get("DBParameterGroupName"), wanted.version),
            token_logins=params.get("EnableIAMDatabaseAuthentication", False),
            settings=settings,
            tags=tags,
        )
        tx.put_instance(instance)
        told = arguments.CreateInstance(master_password_verifier=verifier, port_requested=wanted.port is not None)
        start_workflow(context, tx, WorkflowKind.CREATE_INSTANCE, instance.resource_id, told)
        around = views.surroundings(tx, [instance])
    context.wake()
    return {"DBInstance": views.instance_view(context, instance, around(instance))}


def _parse(context: Context, params: Mapping[str, Any]) -> _Wanted:
    identifier = params["DBInstanceIdentifier"]
    if not is_instance_identifier(identifier):
        raise invalid_parameter_value(identifier_rule("DBInstanceIdentifier"))
    if params["Engine"].lower() != ENGINE:
        raise invalid_parameter_value(f"Invalid DB engine: {params['Engine']}. This server offers: {ENGINE}")
    for name in ("MasterUsername", "MasterUserPassword"):
        if not params.get(name):
            raise missing_parameter(name)
    checks.check_instance_class(params["DBInstanceClass"])
    checks.check_master_username(params["MasterUsername"])
    checks.check_password(params["MasterUserPassword"])
    if params.get("DBName"):
        checks.check_db_name(params["DBName"])
    storage_gib = params.get("AllocatedStorage", DEFAULT_STORAGE_GIB)
    checks.check_storage("AllocatedStorage", storage_gib)
    if params.get("Port") is not None:
        checks.check_port(params["Port"])
    catalogue = Catalogue(context)
    wanted_version = params.get("EngineVersion")
    version = (catalogue.require(wanted_version) if wanted_version else catalogue.default()).version
    return _Wanted(
        identifier=identifier.lower(),
        version=version,
        instance_class=params["DBInstanceClass"],
        username=params["MasterUsername"],
        password=params["MasterUserPassword"],
        db_name=params.get("DBName") or None,
        port=params.get("Port"),
        storage_gib=storage_gib,
    )


def choose_port(context: Context, tx: Transaction, wanted: int | None, *, on_both: bool = False) -> int:
    """``on_both``: addresses of a cluster."""
    if wanted is not None:
        require_free_port(context, tx, wanted, on_both=on_both)
        return wanted
    try:
        return context.ports.allocate(taken_ports(tx), on_both=on_both)
    except PortInUse as error:
        raise Fault("InsufficientDBInstanceCapacityFault", str(error)) from error


def require_free_port(context: Context, tx: Transaction, port: int, *, on_both: bool = False) -> None:
    """Neither an endpoint's, nor about to become one's, nor another program's. ``on_both``: addresses of a cluster."""
    owner = next((instance.identifier for instance in tx.instances() if instance.port == port), None)
    if owner is not None:
        raise invalid_parameter_value(f"Invalid port {port}: it belongs to the DB instance {owner}")
    cluster = next((cluster.identifier for cluster in tx.clusters() if cluster.port == port), None)
    if cluster is not None:
        raise invalid_parameter_value(f"Invalid port {port}: it belongs to the DB cluster {cluster}")
    if port in taken_ports(tx):
        raise invalid_parameter_value(f"Invalid port {port}: another endpoint is being moved to it")
    if not context.ports.is_free(port, on_both=on_both):
        raise invalid_parameter_value(f"Invalid port {port}: another program on {context.ports.host} uses it")


def require_free_name(tx: Transaction, identifier: str, *, wanted_by: str = "") -> None:
    """Neither an instance's name, nor about to become one: by a rename, under way or pending (but for that of the
    instance that wants it, by its resource id), or by a switchover that retires its blue."""
    instances = tx.instances()
    taken = {instance.identifier for instance in instances}
    taken.update(i.pending.new_identifier for i in instances if i.pending.new_identifier and i.resource_id != wanted_by)
    taken.update(
        workflow.arguments["new_identifier"].lower()
        for workflow in tx.unfinished_workflows()
        if workflow.arguments.get("new_identifier")
    )
    if identifier in taken:
        raise Fault("DBInstanceAlreadyExistsFault", f"DB instance {identifier} already exists")
    is_old_name = re.fullmatch(r"(.+)-old[0-9]+", identifier)
    if is_old_name is None:
        return
    moving = [d for d in tx.deployments() if d.status is DeploymentStatus.SWITCHOVER_IN_PROGRESS]
    for blue in (member.source_identifier for deployment in moving for member in deployment.moving):
        if blue.startswith(is_old_name[1]):
            raise invalid_parameter_combination(
                f"{identifier} may become the name of the former {blue}, whose switchover is in progress"
            )
