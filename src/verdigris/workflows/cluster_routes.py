"""Where a cluster's endpoints lead: the writer's to its writer, the readers' to its readers, or else to the writer, a
custom one to whom its lists and its type include.

Workflows lead them anew where members come or go; ``ClusterKeeper`` does so after everything else that happens to a
member, and for a router that has lost them.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

import structlog
from msgspec import structs

from verdigris.domain.errors import ControllerSuperseded, PortInUse, VerdigrisError
from verdigris.domain.identifiers import cluster_endpoint_names, custom_endpoint_name
from verdigris.domain.model import DBCluster, DBClusterEndpoint, DBInstance
from verdigris.domain.ports import NOWHERE, Branches, Ports, Route, Transaction
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    CustomEndpointType,
    DeploymentStatus,
    InstanceStatus,
)
from verdigris.workflows.services import Services, require_cluster, taken_ports

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0

# Their endpoints are opened and closed by their own workflow.
_ATTENDED_BY_WORKFLOW = frozenset({ClusterStatus.CREATING, ClusterStatus.FAILED, ClusterStatus.DELETING})
# Opened by their own workflow, or not at all; one that is being changed is open.
_OPEN = frozenset({ClusterEndpointStatus.AVAILABLE, ClusterEndpointStatus.MODIFYING})
_ABSENT = frozenset({InstanceStatus.CREATING, InstanceStatus.DELETING})


def cluster_routes(tx: Transaction, ports: Ports, cluster: DBCluster, *, joining: Collection[str] = ()) -> list[Route]:
    """``joining``: members and custom endpoints that are as good as created. A member that does not run at the moment
    stays: the router sends clients to others, and to it as soon as it is back."""
    members = _present(tx, cluster, joining)
    writer = tuple(each.identifier for each in members if each.resource_id == cluster.writer)
    readers = tuple(each.identifier for each in members if each.resource_id != cluster.writer and _is_current(each))
    writers_name, readers_name = cluster_endpoint_names(cluster.identifier)
    route = Route(
        name=writers_name, host=ports.host, port=cluster.port, backend=NOWHERE, branches=Branches(members=writer)
    )
    branches = Branches(members=readers, otherwise=writer)
    return [
        route,
        structs.replace(route, name=readers_name, host=ports.reader_host or ports.host, branches=branches),
        *(
            _custom_route(cluster, endpoint, members)
            for endpoint in tx.cluster_endpoints([cluster.resource_id])
            if endpoint.status in _OPEN or endpoint.resource_id in joining
        ),
    ]


def custom_route(tx: Transaction, endpoint: DBClusterEndpoint) -> Route:
    cluster = require_cluster(tx, endpoint.cluster)
    return _custom_route(cluster, endpoint, _present(tx, cluster))


def _custom_route(cluster: DBCluster, endpoint: DBClusterEndpoint, present: Sequence[DBInstance]) -> Route:
    """Nobody stands in: whom it must not lead to is what it is for."""
    found = tuple(
        each.identifier
        for each in present
        if endpoint.includes(each.resource_id)
        and (_is_current(each) if each.resource_id != cluster.writer else endpoint.type is CustomEndpointType.ANY)
    )
    return Route(
        name=custom_endpoint_name(endpoint.identifier),
        host=endpoint.host,
        port=cluster.port,
        backend=NOWHERE,
        branches=Branches(members=found),
    )


def _inactive(tx: Transaction, clusters: Sequence[DBCluster]) -> list[tuple[str, Route]]:
    """Custom endpoints that could not be opened, with what they would be: what has their port may have gone."""
    found = tx.cluster_endpoints([each.resource_id for each in clusters])
    return [(e.resource_id, custom_route(tx, e)) for e in found if e.status is ClusterEndpointStatus.INACTIVE]


def _present(tx: Transaction, cluster: DBCluster, joining: Collection[str] = ()) -> list[DBInstance]:
    members = tx.members_of([cluster.resource_id])
    return [each for each in members if each.resource_id in joining or each.status not in _ABSENT]


def _is_current(reader: DBInstance) -> bool:
    """One that has stopped to follow its writer shows what has been, for good perhaps."""
    return not reader.replication_error


async def open_endpoints(
    services: Services, cluster_id: str, *, port_is_ours: bool, joining: Collection[str] = ()
) -> None:
    """As ``instances.open_endpoint``; ``joining`` as for ``cluster_routes``."""
    async with services.cluster_routing:
        while True:
            with services.store.transaction() as tx:
                cluster = require_cluster(tx, cluster_id)
                routes = cluster_routes(tx, services.ports, cluster, joining=joining)
            try:
                for route in routes:
                    await services.router.put_route(route)
            except PortInUse:
                if not port_is_ours:
                    raise
            else:
                return
            with services.store.transaction() as tx:
                port = services.ports.allocate(taken_ports(tx), on_both=True)
                tx.put_cluster(structs.replace(require_cluster(tx, cluster_id), port=port))


async def close_endpoints(services: Services, cluster: DBCluster) -> None:
    """The custom ones, too."""
    async with services.cluster_routing:
        with services.store.transaction() as tx:
            custom = [custom_endpoint_name(each.identifier) for each in tx.cluster_endpoints([cluster.resource_id])]
        for name in (*custom, *cluster_endpoint_names(cluster.identifier)):
            await services.router.remove_route(name)


async def lead(services: Services, cluster_id: str, *, joining: Collection[str] = ()) -> None:
    """To the members that there are now. Without effect on a cluster whose endpoints are not open."""
    async with services.cluster_routing:
        with services.store.transaction() as tx:
            cluster = tx.cluster(cluster_id)
            if cluster is None or cluster.status in _ATTENDED_BY_WORKFLOW:
                return
            routes = cluster_routes(tx, services.ports, cluster, joining=joining)
        present = {route.name: route for route in await services.router.routes()}
        for route in routes:
            if route.name in present:
                await services.router.put_route(structs.replace(present[route.name], branches=route.branches))


def _ahead_of_records(tx: Transaction, routes: Iterable[Route]) -> frozenset[str]:
    """Clusters, of both sides, whose switchover is committed and not recorded yet: their records would lead endpoints
    to where members were."""
    backends = {route.name: route.backend.resource_id for route in routes}
    return frozenset(
        resource_id
        for deployment in tx.deployments()
        if deployment.cluster is not None and deployment.status is DeploymentStatus.SWITCHOVER_IN_PROGRESS
        if backends.get(deployment.primary.source_identifier) == deployment.primary.target_resource_id
        for resource_id in deployment.cluster.resource_ids
    )


class ClusterKeeper:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except ControllerSuperseded:
                raise
            except Exception as error:
                log.warning("clusters.not_led", reason=repr(error))
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """One round over all clusters. Nothing is asked of the router where there are none."""
        async with self._services.cluster_routing:
            with self._services.store.transaction() as tx:
                kept = [each for each in tx.clusters() if each.status is ClusterStatus.AVAILABLE]
            if not kept:
                return
            present = await self._services.router.routes()
            with self._services.store.transaction() as tx:
                ahead = _ahead_of_records(tx, present)
                kept = [each for each in kept if each.resource_id not in ahead]
                wanted = [route for each in kept for route in cluster_routes(tx, self._services.ports, each)]
                closed = _inactive(tx, kept)
            for route in wanted:
                if route not in present:
                    await self._put(route)
            for endpoint_id, route in closed:
                if await self._put(route):
                    self._activate(endpoint_id)

    def _activate(self, endpoint_id: str) -> None:
        with self._services.store.transaction() as tx:
            endpoint = tx.cluster_endpoint(endpoint_id)
            if endpoint is not None and endpoint.status is ClusterEndpointStatus.INACTIVE:
                tx.put_cluster_endpoint(structs.replace(endpoint, status=ClusterEndpointStatus.AVAILABLE))

    async def _put(self, route: Route) -> bool:
        """Whether it could be: one whose port is taken must not keep the others from being led."""
        try:
            await self._services.router.put_route(route)
        except ControllerSuperseded:
            raise
        except VerdigrisError as error:
            log.warning("cluster.not_led", endpoint=route.name, port=route.port, reason=str(error))
            return False
        return True
