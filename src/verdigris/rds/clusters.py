"""CreateDBCluster and DescribeDBClusters. A cluster's members are in ``cluster_members``, its changes in
``cluster_changes``."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value, missing_parameter
from verdigris.domain.identifiers import is_instance_identifier, new_cluster_resource_id
from verdigris.domain.model import DBCluster
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import ClusterStatus, WorkflowKind
from verdigris.rds import checks, cluster_views
from verdigris.rds.catalogue import CLUSTER_ENGINES, Catalogue, default_cluster_parameter_group
from verdigris.rds.context import Context
from verdigris.rds.filters import Values, apply_filters
from verdigris.rds.instances import choose_port
from verdigris.rds.lookups import cluster_identifier_of, identifier_rule, require_cluster
from verdigris.rds.pagination import paginate
from verdigris.rds.quotas import cluster_count, require_less
from verdigris.rds.settings import collect_cluster_settings
from verdigris.rds.subnet_groups import require_usable
from verdigris.rds.tags import parse_tags
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments

# Members that create_db_cluster reads itself; the others are in ``settings``.
CREATE_MEMBERS = frozenset(
    {
        "DatabaseName",
        "DBClusterIdentifier",
        "DBClusterParameterGroupName",
        "DeletionProtection",
        "Engine",
        "EngineVersion",
        "MasterUserPassword",
        "MasterUsername",
        "Port",
        "Tags",
    }
)


def describe_db_clusters(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    named = params.get("DBClusterIdentifier")
    with context.store.transaction() as tx:
        found = tx.clusters() if named is None else [require_cluster(tx, cluster_identifier_of(context, named))]
        passed = apply_filters(params.get("Filters"), found, _filters(context))
        page, marker = paginate("DescribeDBClusters", params, passed, lambda cluster: [cluster.identifier])
        parts = cluster_views.parts(tx, page)
    views = [cluster_views.cluster_view(context, each, its) for each, its in zip(page, parts, strict=True)]
    return {"DBClusters": views, "Marker": marker}


def _filters(context: Context) -> Mapping[str, Values[DBCluster]]:
    return {
        "clone-group-id": lambda _cluster: [],
        "db-cluster-id": lambda cluster: [cluster.identifier, context.cluster_arn(cluster.identifier)],
        "db-cluster-resource-id": lambda cluster: [cluster.resource_id.lower()],
        "domain": lambda _cluster: [],
        "engine": lambda cluster: [cluster.engine],
    }


class _Wanted(Struct, frozen=True, kw_only=True):
    """What a valid request asks for; names and ports are still to be checked."""

    identifier: str
    engine: str
    version: str
    username: str
    password: str
    db_name: str | None
    port: int | None


def create_db_cluster(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    wanted = _parse(context, params)
    settings, tags = collect_cluster_settings(params), parse_tags(params.get("Tags"))
    verifier = context.servers.conceal_password(wanted.password)
    with context.store.transaction() as tx:
        if tx.cluster_named(wanted.identifier) is not None:
            raise Fault("DBClusterAlreadyExistsFault", f"DB Cluster {wanted.identifier} already exists")
        require_less(context, Quota.DB_CLUSTERS, cluster_count(tx), "DBClusterQuotaExceededFault")
        require_usable(tx, settings)
        cluster = DBCluster(
            resource_id=new_cluster_resource_id(context.random_text),
            identifier=wanted.identifier,
            engine=wanted.engine,
            engine_version=wanted.version,
            status=ClusterStatus.CREATING,
            master_username=wanted.username,
            master_password_verifier=verifier,
            db_name=wanted.db_name,
            port=choose_port(context, tx, wanted.port, on_both=True),
            created_at=context.clock.now(),
            deletion_protection=params.get("DeletionProtection", False),
            settings=settings,
            tags=tags,
        )
        tx.put_cluster(cluster)
        told = arguments.CreateCluster(port_requested=wanted.port is not None)
        start_workflow(context, tx, WorkflowKind.CREATE_CLUSTER, cluster.resource_id, told)
    context.wake()
    return {"DBCluster": cluster_views.cluster_view(context, cluster, cluster_views.Parts())}


def _parse(context: Context, params: Mapping[str, Any]) -> _Wanted:
    identifier, engine = params["DBClusterIdentifier"], params["Engine"].lower()
    if not is_instance_identifier(identifier):
        raise invalid_parameter_value(identifier_rule("DBClusterIdentifier"))
    if engine not in CLUSTER_ENGINES:
        raise invalid_parameter_value(f"Invalid DB engine: {engine}. Clusters are of {', '.join(CLUSTER_ENGINES)}")
    if params.get("DBClusterInstanceClass"):
        raise invalid_parameter_combination(
            f"DBClusterInstanceClass isn't supported for DB engine {engine} here: create the members of the cluster "
            "one by one, with CreateDBInstance"
        )
    for name in ("MasterUsername", "MasterUserPassword"):
        if not params.get(name):
            raise missing_parameter(name)
    checks.check_master_username(params["MasterUsername"])
    checks.check_password(params["MasterUserPassword"])
    if params.get("DatabaseName"):
        checks.check_db_name(params["DatabaseName"])
    if params.get("Port") is not None:
        checks.check_port(params["Port"])
    if context.ports.reader_host is None:
        raise Fault(
            "InvalidVPCNetworkStateFault",
            "The reader endpoints of DB clusters need an address of their own: set VERDIGRIS_READER_HOST to another "
            "address of this machine",
        )
    catalogue, wanted_version = Catalogue(context), params.get("EngineVersion")
    version = (catalogue.require(wanted_version) if wanted_version else catalogue.default()).version
    require_default_parameter_group(params.get("DBClusterParameterGroupName"), engine, version)
    return _Wanted(
        identifier=identifier.lower(),
        engine=engine,
        version=version,
        username=params["MasterUsername"],
        password=params["MasterUserPassword"],
        db_name=params.get("DatabaseName") or None,
        port=params.get("Port"),
    )


def require_default_parameter_group(name: str | None, engine: str, version: str) -> None:
    """There are no others of clusters: what can be set is set in the parameter groups of their members."""
    if name is not None and name.lower() != default_cluster_parameter_group(engine, version):
        raise Fault("DBClusterParameterGroupNotFoundFault", f"DBClusterParameterGroup not found: {name}")
