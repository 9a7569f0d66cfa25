"""The green cluster of a deployment: the record, its custom endpoints and where they lead. Its members are made as
those of any green (``topology``)."""

from collections.abc import Mapping, Sequence

from msgspec import structs

from verdigris.domain.errors import StepFailed
from verdigris.domain.identifiers import (
    green_identifier,
    new_cluster_endpoint_resource_id,
    new_cluster_resource_id,
)
from verdigris.domain.model import BlueGreenDeployment, DBCluster, Member
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import ClusterEndpointStatus, ClusterStatus, MemberStatus
from verdigris.workflows import cluster_routes
from verdigris.workflows.services import (
    Services,
    replace_member,
    require_cluster,
    require_cluster_endpoint,
    require_deployment,
    taken_ports,
)


async def register(services: Services, deployment_id: str) -> None:
    """Its name, its id and its port. Repeated after a crash it finds them there."""
    with services.store.transaction() as tx:
        deployment = require_deployment(tx, deployment_id)
        member = _cluster_of(deployment)
        if member.target_resource_id is not None:
            return
        source, taken = require_cluster(tx, member.source_resource_id), {each.identifier for each in tx.clusters()}
        green = structs.replace(
            source,
            resource_id=new_cluster_resource_id(services.random_text),
            identifier=green_identifier(source.identifier, services.random_text, taken),
            engine_version=deployment.target.engine_version,
            status=ClusterStatus.CREATING,
            writer=None,
            port=services.ports.allocate(taken_ports(tx), on_both=True),
            created_at=services.clock.now(),
        )
        tx.put_cluster(green)
        tx.put_deployment(
            structs.replace(deployment, cluster=_with_target(member, green.resource_id, green.identifier))
        )


async def unregister(services: Services, deployment_id: str) -> None:
    with services.store.transaction() as tx:
        deployment = require_deployment(tx, deployment_id)
        member = _cluster_of(deployment)
        if member.target_resource_id is not None:
            tx.delete_cluster(member.target_resource_id)
        tx.put_deployment(structs.replace(deployment, cluster=_without_target(member)))


async def register_endpoints(services: Services, deployment_id: str) -> None:
    """Each on the address of its counterpart, so that it can take its place: the cluster's port is another one. Members
    are those that stand for the ones it names."""
    with services.store.transaction() as tx:
        deployment = require_deployment(tx, deployment_id)
        members = {each.source_resource_id: each.target_resource_id for each in deployment.members}
        taken = {each.identifier for each in tx.cluster_endpoints([each.resource_id for each in tx.clusters()])}
        for position, member in enumerate(deployment.endpoints):
            source = tx.cluster_endpoint(member.source_resource_id)
            if member.target_resource_id is not None or source is None:
                continue
            name = green_identifier(source.identifier, services.random_text, taken)
            green = structs.replace(
                source,
                resource_id=new_cluster_endpoint_resource_id(services.random_text),
                identifier=name,
                cluster=_cluster_of(deployment).target_resource_id or "",
                status=ClusterEndpointStatus.CREATING,
                static_members=_counterparts(source.static_members, members),
                excluded_members=_counterparts(source.excluded_members, members),
            )
            taken.add(name)
            tx.put_cluster_endpoint(green)
            _put_endpoint(tx, deployment_id, position, _with_target(member, green.resource_id, name))


async def unregister_endpoints(services: Services, deployment_id: str) -> None:
    with services.store.transaction() as tx:
        for position, member in enumerate(require_deployment(tx, deployment_id).endpoints):
            if member.target_resource_id is not None:
                tx.delete_cluster_endpoint(member.target_resource_id)
            _put_endpoint(tx, deployment_id, position, _without_target(member))


async def open_endpoints(services: Services, deployment_id: str) -> None:
    """All of them, to all members: everything is there, and shown as available when this has been done."""
    with services.store.transaction() as tx:
        deployment = require_deployment(tx, deployment_id)
    joining = {each.target_resource_id or "" for each in (*deployment.members, *deployment.endpoints)}
    cluster_id = _cluster_of(deployment).target_resource_id or ""
    await cluster_routes.open_endpoints(services, cluster_id, port_is_ours=True, joining=joining)


async def close_endpoints(services: Services, deployment_id: str) -> None:
    """Also of a cluster that has been deleted by itself meanwhile."""
    with services.store.transaction() as tx:
        deployment = require_deployment(tx, deployment_id)
        cluster = tx.cluster(_cluster_of(deployment).target_resource_id or "")
    if cluster is not None:
        await cluster_routes.close_endpoints(services, cluster)


def completed(tx: Transaction, deployment: BlueGreenDeployment) -> None:
    """Everything has been made: shown as such."""
    if deployment.cluster is None:
        return
    cluster = require_cluster(tx, deployment.cluster.target_resource_id or "")
    tx.put_cluster(structs.replace(cluster, status=ClusterStatus.AVAILABLE))
    for member in deployment.endpoints:
        if member.target_resource_id is not None:
            endpoint = require_cluster_endpoint(tx, member.target_resource_id)
            tx.put_cluster_endpoint(structs.replace(endpoint, status=ClusterEndpointStatus.AVAILABLE))


def forget(tx: Transaction, deployment: BlueGreenDeployment) -> list[DBCluster]:
    """The records of the cluster and of all its custom endpoints, those too that somebody has added; the cluster, if
    there was one."""
    cluster = None if deployment.cluster is None else tx.cluster(deployment.cluster.target_resource_id or "")
    if cluster is None:
        return []
    for endpoint in tx.cluster_endpoints([cluster.resource_id]):
        tx.delete_cluster_endpoint(endpoint.resource_id)
    tx.delete_cluster(cluster.resource_id)
    return [cluster]


def _cluster_of(deployment: BlueGreenDeployment) -> Member:
    if deployment.cluster is None:
        raise StepFailed("the deployment is none of a DB cluster")
    return deployment.cluster


def _counterparts(listed: Sequence[str], members: Mapping[str, str | None]) -> tuple[str, ...]:
    """A server that there is not any more stays in a list: an empty one would stand for everybody."""
    return tuple(members.get(each) or each for each in listed)


def _with_target(member: Member, resource_id: str, identifier: str) -> Member:
    return structs.replace(
        member, target_resource_id=resource_id, target_identifier=identifier, status=MemberStatus.PROVISIONING
    )


def _without_target(member: Member) -> Member:
    return structs.replace(member, target_resource_id=None, target_identifier=None, status=MemberStatus.MISSING_TARGET)


def _put_endpoint(tx: Transaction, deployment_id: str, position: int, member: Member) -> None:
    deployment = require_deployment(tx, deployment_id)
    tx.put_deployment(structs.replace(deployment, endpoints=replace_member(deployment.endpoints, position, member)))
