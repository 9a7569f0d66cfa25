"""Endpoints of clusters: the two that each one has, and custom ones, which lead to some of the members."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value
from verdigris.domain.identifiers import is_instance_identifier, new_cluster_endpoint_resource_id
from verdigris.domain.model import DBCluster, DBClusterEndpoint
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import ClusterEndpointStatus, CustomEndpointType, InstanceStatus, WorkflowKind
from verdigris.rds.cluster_views import endpoint_view, own_endpoint_views, parts
from verdigris.rds.context import Context
from verdigris.rds.filters import Values, apply_filters
from verdigris.rds.lookups import (
    cluster_identifier_of,
    identifier_rule,
    require_cluster,
    require_cluster_endpoint,
    require_instance,
)
from verdigris.rds.pagination import paginate
from verdigris.rds.quotas import require_less
from verdigris.rds.states import (
    invalid_cluster_state,
    invalid_instance_state,
    require_available_cluster,
    require_free_cluster,
    require_growing_cluster,
)
from verdigris.rds.tags import parse_tags
from verdigris.rds.views import View
from verdigris.rds.work import start_workflow


def create_db_cluster_endpoint(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    identifier, tags = params["DBClusterEndpointIdentifier"].lower(), parse_tags(params.get("Tags"))
    if not is_instance_identifier(identifier):
        raise invalid_parameter_value(identifier_rule("DBClusterEndpointIdentifier"))
    kind = _type(params["EndpointType"])
    with context.store.transaction() as tx:
        cluster = require_cluster(tx, cluster_identifier_of(context, params["DBClusterIdentifier"]))
        require_available_cluster(cluster)
        require_growing_cluster(tx, cluster)
        if tx.cluster_endpoint_named(identifier) is not None:
            raise Fault("DBClusterEndpointAlreadyExistsFault", f"DB cluster endpoint {identifier} already exists")
        lists = _lists(tx, cluster, params)
        endpoint = DBClusterEndpoint(
            resource_id=new_cluster_endpoint_resource_id(context.random_text),
            identifier=identifier,
            cluster=cluster.resource_id,
            type=kind,
            status=ClusterEndpointStatus.CREATING,
            host=_free_host(context, tx, cluster),
            static_members=lists.static,
            excluded_members=lists.excluded,
            tags=tags,
        )
        view = _begin(context, tx, WorkflowKind.CREATE_CLUSTER_ENDPOINT, cluster, endpoint)
    context.wake()
    return view


def modify_db_cluster_endpoint(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """A list takes the place of the one that there was, of either kind."""
    kind = None if params.get("EndpointType") is None else _type(params["EndpointType"])
    with context.store.transaction() as tx:
        endpoint, cluster = _changeable(tx, params["DBClusterEndpointIdentifier"])
        require_growing_cluster(tx, cluster)
        lists = _Lists(static=endpoint.static_members, excluded=endpoint.excluded_members)
        if "StaticMembers" in params or "ExcludedMembers" in params:
            lists = _lists(tx, cluster, params)
        endpoint = structs.replace(
            endpoint,
            type=kind or endpoint.type,
            status=ClusterEndpointStatus.MODIFYING,
            static_members=lists.static,
            excluded_members=lists.excluded,
        )
        view = _begin(context, tx, WorkflowKind.MODIFY_CLUSTER_ENDPOINT, cluster, endpoint)
    context.wake()
    return view


def delete_db_cluster_endpoint(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Sessions that came by it are their members', and stay."""
    with context.store.transaction() as tx:
        endpoint, cluster = _changeable(tx, params["DBClusterEndpointIdentifier"])
        endpoint = structs.replace(endpoint, status=ClusterEndpointStatus.DELETING)
        view = _begin(context, tx, WorkflowKind.DELETE_CLUSTER_ENDPOINT, cluster, endpoint)
    context.wake()
    return view


def _begin(
    context: Context, tx: Transaction, kind: WorkflowKind, cluster: DBCluster, endpoint: DBClusterEndpoint
) -> View:
    tx.put_cluster_endpoint(endpoint)
    start_workflow(context, tx, kind, endpoint.resource_id)
    return endpoint_view(context, cluster, endpoint, tx.members_of([cluster.resource_id]))


def describe_db_cluster_endpoints(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """One that there is not is no error, as it is none of those documented."""
    named, of = params.get("DBClusterEndpointIdentifier"), params.get("DBClusterIdentifier")
    with context.store.transaction() as tx:
        clusters = tx.clusters() if of is None else [require_cluster(tx, cluster_identifier_of(context, of))]
        views = [
            view
            for cluster, its in zip(clusters, parts(tx, clusters), strict=True)
            for view in (
                *own_endpoint_views(context, cluster),
                *(endpoint_view(context, cluster, each, its.members) for each in its.endpoints),
            )
        ]
    if named is not None:
        views = [view for view in views if view.get("DBClusterEndpointIdentifier") == named.lower()]
    found = apply_filters(params.get("Filters"), sorted(views, key=_key), _FILTERS)
    page, marker = paginate("DescribeDBClusterEndpoints", params, found, _key)
    return {"DBClusterEndpoints": page, "Marker": marker}


def _key(view: View) -> list[str | int]:
    return [view["DBClusterIdentifier"], view.get("DBClusterEndpointIdentifier", ""), view["EndpointType"]]


_FILTERS: Mapping[str, Values[View]] = {
    "db-cluster-endpoint-custom-type": lambda view: [view.get("CustomEndpointType", "").lower()],
    "db-cluster-endpoint-id": lambda view: [view.get("DBClusterEndpointIdentifier", "")],
    "db-cluster-endpoint-status": lambda view: [view["Status"]],
    "db-cluster-endpoint-type": lambda view: [view["EndpointType"].lower()],
}


class _Lists(Struct, frozen=True, kw_only=True):
    """Resource ids."""

    static: tuple[str, ...]
    excluded: tuple[str, ...]


def _lists(tx: Transaction, cluster: DBCluster, params: Mapping[str, Any]) -> _Lists:
    static, excluded = params.get("StaticMembers") or (), params.get("ExcludedMembers") or ()
    if static and excluded:
        raise invalid_parameter_combination(
            "A custom endpoint has either a static list or an exclusion list: StaticMembers and ExcludedMembers cannot "
            "both be specified"
        )
    return _Lists(static=_members(tx, cluster, static), excluded=_members(tx, cluster, excluded))


def _members(tx: Transaction, cluster: DBCluster, names: Sequence[str]) -> tuple[str, ...]:
    found = [require_instance(tx, name) for name in names]
    for instance in found:
        if instance.cluster != cluster.resource_id:
            raise invalid_instance_state(
                f"DB instance {instance.identifier} is not a member of the DB cluster {cluster.identifier}"
            )
        if instance.status is InstanceStatus.DELETING:
            raise invalid_instance_state(f"DB instance {instance.identifier} is in state {instance.status}")
    return tuple(dict.fromkeys(instance.resource_id for instance in found))


def _type(text: str) -> CustomEndpointType:
    """A cluster has one writer, and an endpoint for it."""
    try:
        return CustomEndpointType(text.upper())
    except ValueError:
        raise invalid_parameter_value(
            f"Invalid EndpointType: {text}. Custom endpoints of this DB cluster are of type READER or ANY"
        ) from None


def _free_host(context: Context, tx: Transaction, cluster: DBCluster) -> str:
    present = tx.cluster_endpoints([cluster.resource_id])
    fault = "DBClusterEndpointQuotaExceededFault"
    require_less(context, Quota.CUSTOM_ENDPOINTS_PER_DB_CLUSTER, len(present), fault)
    taken = {each.host for each in present}
    for host in context.ports.custom_hosts:
        if host not in taken:
            return host
    raise Fault(
        fault,
        f"Each custom endpoint of a DB cluster needs an address of its own, and {len(taken)} are taken: give further "
        "addresses of this machine in VERDIGRIS_CUSTOM_HOSTS",
    )


def _changeable(tx: Transaction, identifier: str) -> tuple[DBClusterEndpoint, DBCluster]:
    endpoint = require_cluster_endpoint(tx, identifier)
    cluster = tx.cluster(endpoint.cluster)
    if cluster is None:
        raise invalid_cluster_state(f"The DB cluster of {endpoint.identifier} no longer exists")
    require_available_cluster(cluster)
    require_free_cluster(tx, cluster)
    if endpoint.status not in (ClusterEndpointStatus.AVAILABLE, ClusterEndpointStatus.INACTIVE):
        raise Fault(
            "InvalidDBClusterEndpointStateFault",
            f"DB cluster endpoint {endpoint.identifier} is in state {endpoint.status}",
        )
    return endpoint, cluster
