"""What a switchover does for a cluster as a whole. Its members move as those of any deployment, and its endpoints go
with their names; what is left is where endpoints lead whose lists change with it, and the names in the records."""

from collections.abc import Iterator

import structlog
from msgspec import structs

from verdigris.domain.errors import PortInUse
from verdigris.domain.identifiers import cluster_endpoint_names, custom_endpoint_name, old_identifier
from verdigris.domain.model import BlueGreenDeployment, Member
from verdigris.domain.ports import Branches, Ports, Route, Transaction
from verdigris.domain.statuses import ClusterEndpointStatus
from verdigris.workflows import cluster_routes
from verdigris.workflows.services import (
    Services,
    require_cluster,
    require_cluster_endpoint,
    require_deployment,
    taken_ports,
)

log = structlog.get_logger(__name__)

# For the moment in which two clusters exchange their ports; no endpoint has it.
_NOBODYS = 1


def routes_after(tx: Transaction, ports: Ports, deployment: BlueGreenDeployment) -> list[Route]:
    """Of the endpoints that clients use, to be committed with those of the members: as green's are, under blue's names.
    A member of blue that stays where it is must be no branch any more, in the very moment in which the others move."""
    if deployment.cluster is None:
        return []
    blue = require_cluster(tx, deployment.cluster.source_resource_id)
    green = require_cluster(tx, deployment.cluster.target_resource_id or "")
    members = {each.target_identifier or "": each.source_identifier for each in deployment.moving}
    names = dict(_names(deployment))
    for each in deployment.moving_endpoints:
        # What has kept blue's from being opened would keep the commit from being made.
        if require_cluster_endpoint(tx, each.source_resource_id).status is ClusterEndpointStatus.INACTIVE:
            del names[custom_endpoint_name(each.target_identifier or "")]
    return [
        structs.replace(route, name=names[route.name], port=blue.port, branches=_renamed(route.branches, members))
        for route in cluster_routes.cluster_routes(tx, ports, green)
        if route.name in names
    ]


def _names(deployment: BlueGreenDeployment) -> Iterator[tuple[str, str]]:
    """Of green's endpoints in the router, with blue's; those that move."""
    if deployment.cluster is not None:
        cluster = deployment.cluster
        greens = cluster_endpoint_names(cluster.target_identifier or "")
        yield from zip(greens, cluster_endpoint_names(cluster.source_identifier), strict=True)
    for each in deployment.moving_endpoints:
        yield custom_endpoint_name(each.target_identifier or ""), custom_endpoint_name(each.source_identifier)


def _renamed(branches: Branches | None, names: dict[str, str]) -> Branches | None:
    """Members that somebody has added to green keep theirs."""
    if branches is None:
        return None
    members, otherwise = (
        tuple(names.get(each, each) for each in part) for part in (branches.members, branches.otherwise)
    )
    return Branches(members=members, otherwise=otherwise)


async def close_green(services: Services, deployment: BlueGreenDeployment) -> None:
    """The endpoints that green has had for tests. Called with ``cluster_routing`` held until the names are swapped."""
    for name, _ in _names(deployment):
        await services.router.remove_route(name)


def swap(services: Services, tx: Transaction, deployment: BlueGreenDeployment) -> BlueGreenDeployment:
    """Names, ports and tags. Blue's cluster gets a port that nobody knows yet, as its members do."""
    if deployment.cluster is None:
        return deployment
    blue = require_cluster(tx, deployment.cluster.source_resource_id)
    green = require_cluster(tx, deployment.cluster.target_resource_id or "")
    old_name = old_identifier(blue.identifier, {each.identifier for each in tx.clusters()})
    try:
        old_port = services.ports.allocate(taken_ports(tx), on_both=True)
    except PortInUse:
        old_port = green.port  # there is no way back: one that is known is better than none
        tx.put_cluster(structs.replace(green, port=_NOBODYS))
    # Blue first: its name and its port have to be free before green takes them.
    tx.put_cluster(structs.replace(blue, identifier=old_name, port=old_port))
    tx.put_cluster(
        structs.replace(
            green,
            identifier=blue.identifier,
            port=blue.port,
            master_password_verifier=blue.master_password_verifier,
            tags=blue.tags,
        )
    )
    return structs.replace(
        deployment,
        cluster=_swapped(deployment.cluster, old_name),
        endpoints=tuple(_swap_endpoint(tx, each) if each.is_whole else each for each in deployment.endpoints),
    )


def _swap_endpoint(tx: Transaction, member: Member) -> Member:
    blue = require_cluster_endpoint(tx, member.source_resource_id)
    green = require_cluster_endpoint(tx, member.target_resource_id or "")
    clusters = [each.resource_id for each in tx.clusters()]
    old_name = old_identifier(blue.identifier, {each.identifier for each in tx.cluster_endpoints(clusters)})
    # Whether it could be opened is its port's business, so that goes along, too.
    tx.put_cluster_endpoint(structs.replace(blue, identifier=old_name, status=green.status))
    tx.put_cluster_endpoint(structs.replace(green, identifier=blue.identifier, status=blue.status, tags=blue.tags))
    return _swapped(member, old_name)


def _swapped(member: Member, old_name: str) -> Member:
    return structs.replace(member, source_identifier=old_name, target_identifier=member.source_identifier)


async def open_both(services: Services, deployment_id: str) -> None:
    """Once names are swapped: blue's endpoints are opened under their new names, and production's lead as its record
    says. Blue's first: they leave the addresses that endpoints which somebody has added to green may have. A cluster
    that has been deleted by now has none."""
    with services.store.transaction() as tx:
        deployment = require_deployment(tx, deployment_id)
        blue = None if deployment.cluster is None else tx.cluster(deployment.cluster.source_resource_id)
    if deployment.cluster is None:
        return
    if blue is not None:
        try:
            await cluster_routes.open_endpoints(services, blue.resource_id, port_is_ours=True)
        except PortInUse as error:  # ``ClusterKeeper`` goes on trying; nobody waits for them
            log.warning("switchover.old_cluster_not_open", cluster=blue.identifier, reason=str(error))
    await cluster_routes.lead(services, deployment.cluster.target_resource_id or "")
