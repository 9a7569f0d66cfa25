"""Where a cluster's endpoints lead: the writer's to its writer, the readers' to its readers, or else to the writer.

Workflows lead them anew where members come or go; ``ClusterKeeper`` does so after everything else that happens to a
member, and for a router that has lost them.
"""

import asyncio

import structlog
from msgspec import structs

from verdigris.domain.errors import ControllerSuperseded, PortInUse, VerdigrisError
from verdigris.domain.identifiers import cluster_endpoint_names
from verdigris.domain.model import DBCluster, DBInstance
from verdigris.domain.ports import NOWHERE, Branches, Ports, Route, Transaction
from verdigris.domain.statuses import ClusterStatus, InstanceStatus
from verdigris.workflows.services import Services, require_cluster, taken_ports

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0

# Their endpoints are opened and closed by their own workflow.
_ATTENDED_BY_WORKFLOW = frozenset({ClusterStatus.CREATING, ClusterStatus.FAILED, ClusterStatus.DELETING})
_ABSENT = frozenset({InstanceStatus.CREATING, InstanceStatus.DELETING})


def cluster_routes(tx: Transaction, ports: Ports, cluster: DBCluster, *, joining: str = "") -> list[Route]:
    """``joining``: a member that is as good as created. One that does not run at the moment stays: the router sends
    clients to others, and to it as soon as it is back."""
    members = [i for i in tx.members_of([cluster.resource_id]) if i.resource_id == joining or i.status not in _ABSENT]
    writer = tuple(each.identifier for each in members if each.resource_id == cluster.writer)
    readers = tuple(each.identifier for each in members if each.resource_id != cluster.writer and _is_current(each))
    writers_name, readers_name = cluster_endpoint_names(cluster.identifier)
    route = Route(
        name=writers_name, host=ports.host, port=cluster.port, backend=NOWHERE, branches=Branches(members=writer)
    )
    branches = Branches(members=readers, otherwise=writer)
    return [route, structs.replace(route, name=readers_name, host=ports.reader_host or ports.host, branches=branches)]


def _is_current(reader: DBInstance) -> bool:
    """One that has stopped to follow its writer shows what has been, for good perhaps."""
    return not reader.replication_error


async def open_endpoints(services: Services, cluster_id: str, *, port_is_ours: bool) -> None:
    """As ``instances.open_endpoint``."""
    async with services.cluster_routing:
        while True:
            with services.store.transaction() as tx:
                routes = cluster_routes(tx, services.ports, require_cluster(tx, cluster_id))
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


async def close_endpoints(services: Services, identifier: str) -> None:
    async with services.cluster_routing:
        for name in cluster_endpoint_names(identifier):
            await services.router.remove_route(name)


async def lead(services: Services, cluster_id: str, *, joining: str = "") -> None:
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
                wanted = [route for each in kept for route in cluster_routes(tx, self._services.ports, each)]
            if not wanted:
                return
            present = await self._services.router.routes()
            for route in wanted:
                if route not in present:
                    await self._put(route)

    async def _put(self, route: Route) -> None:
        """One whose port is taken must not keep the others from being led."""
        try:
            await self._services.router.put_route(route)
        except ControllerSuperseded:
            raise
        except VerdigrisError as error:
            log.warning("cluster.not_led", endpoint=route.name, port=route.port, reason=str(error))
