"""The endpoints of this process: one for each stored route, and what listens on its port."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from verdigris.domain.errors import PortInUse
from verdigris.domain.ports import Route
from verdigris.router.endpoint import Counters, Endpoint
from verdigris.router.errors import RouteConflict
from verdigris.router.junction import Junction
from verdigris.router.lending import lender
from verdigris.router.limits import Limits
from verdigris.router.listener import Listener
from verdigris.router.routes import RouteStore, Table
from verdigris.router.tokens import Verifier

if TYPE_CHECKING:
    from verdigris.router.succession.predecessor import Predecessor

log = structlog.get_logger()

# A port taken by somebody else when the router starts may be free in a moment.
REBIND_S = 1.0
# How long a router that ends waits for its last words to be read.
FAREWELL_S = 1.0


class Endpoints:
    """Every method that changes the route table is to be run to its end."""

    def __init__(self, store: RouteStore, tls: ssl.SSLContext, limits: Limits | None = None) -> None:
        self.predecessor: Predecessor | None = None  # a router that has been replaced and still has clients
        self._store = store
        self._tls = tls
        self._limits = limits or Limits()
        self.verifier = Verifier()
        self._lender = lender()
        self._endpoints: dict[str, Endpoint] = {}
        self._rebind: asyncio.TimerHandle | None = None

    # --------------------------------------------------------------------------------------------------------- its life

    def open(self) -> None:
        """Listen on every stored route, and go on trying those whose port is taken: the others shall serve."""
        self._rebind = None
        for route in self._store.table.routes:
            endpoint = self._endpoints.get(route.name)
            if endpoint is not None and not endpoint.listener.closed:
                continue
            try:
                self._apply(route, Listener.bind(route.host, route.port))
            except PortInUse as error:
                log.warning("endpoint.not_listening", endpoint=route.name, error=str(error))
                self._rebind = asyncio.get_running_loop().call_later(REBIND_S, self.open)

    def inherit(self, listeners: Mapping[tuple[str, int], tuple[Listener, Counters]]) -> None:
        """Before ``open``: endpoints whose ports another process has been listening on, and what it has counted."""
        nobodys = dict(listeners)
        for route in self._store.table.routes:
            if (route.host, route.port) in nobodys:
                listener, counters = nobodys.pop((route.host, route.port))
                self._apply(route, listener)
                self._endpoints[route.name].counters = counters
        for listener, _ in nobodys.values():
            listener.close()

    async def close(self) -> None:
        """Tell every client, and give them a moment to hear it."""
        if self._rebind is not None:
            self._rebind.cancel()
        for endpoint in self._endpoints.values():
            endpoint.close()
        await self.last_words()
        if self._lender is not None:
            self._lender.close()

    async def last_words(self) -> None:
        """Give clients whose sessions have ended a moment to hear why."""
        endpoints = list(self._endpoints.values())
        try:
            async with asyncio.timeout(FAREWELL_S):
                while any(endpoint.departing for endpoint in endpoints):  # noqa: ASYNC110  once in a process's life
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.info("router.left_clients_behind", sessions=sum(len(endpoint.departing) for endpoint in endpoints))

    @property
    def epoch(self) -> int:
        return self._store.table.epoch

    async def raise_epoch(self, epoch: int) -> None:
        """Durably. A lower one than is known changes nothing."""
        async with self._store.lock:
            if epoch > self._store.table.epoch:
                await self._store.write(msgspec.structs.replace(self._store.table, epoch=epoch))

    # ------------------------------------------------------------------------------------------------------- succession

    def engagement(self) -> str | None:
        """Why another process cannot take over now."""
        if self.predecessor is not None:
            return "the router that it has replaced itself still has clients"
        for endpoint in self._endpoints.values():
            if endpoint.park is not None or endpoint.target is not None or not endpoint.admits:
                return f"a switchover of {endpoint.name} is under way"
        return None

    async def stand_still(self) -> None:
        """Take no clients, and write nothing until ``go_on``."""
        await self._store.lock.acquire()
        if self._rebind is not None:
            self._rebind.cancel()
        for endpoint in self._endpoints.values():
            endpoint.listener.pause()

    async def go_on(self) -> None:
        """As the router again, with the table as another process may have left it."""
        self._store.reload()
        for name, endpoint in list(self._endpoints.items()):
            route = self._store.table.named(name)
            if route is None:
                endpoint.close()
                del self._endpoints[name]
            elif (route.host, route.port) != (endpoint.route.host, endpoint.route.port):
                endpoint.route = route
                endpoint.listener.close()
            else:
                endpoint.route = route
                endpoint.listener.resume()
        self.open()
        self._store.lock.release()

    def endpoints(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    def find(self, name: str) -> Endpoint | None:
        return self._endpoints.get(name)

    def close_endpoint(self, name: str, *, clients: bool, listener: bool) -> None:
        """In a process that has been replaced."""
        endpoint = self._endpoints.get(name)
        if endpoint is not None and clients:
            endpoint.disconnect()
        if endpoint is not None and listener:
            endpoint.listener.close()

    def rename_endpoint(self, name: str, new_name: str) -> None:
        """In a process that has been replaced."""
        endpoint = self._endpoints.pop(name, None)
        if endpoint is not None:
            endpoint.route = msgspec.structs.replace(endpoint.route, name=new_name)
            self._endpoints[new_name] = endpoint

    # ----------------------------------------------------------------------------------------------------------- routes

    async def routes(self) -> list[Route]:
        return list(self._store.table.routes)

    async def put_route(self, route: Route) -> None:
        async with self._store.lock:
            table = self._store.table
            present = table.named(route.name)
            if present is not None and present.backend != route.backend:
                raise RouteConflict(f"endpoint {route.name} leads to another backend: only a switchover changes that")
            self._require_no_return(present, route)
            listener = self._listener_for(table, route)
            await self._write_or_close(table.with_routes(route), [listener])
            if self.predecessor is not None and listener is not None:
                await self.predecessor.close_endpoint(route.name, clients=False, listener=True)
            self._apply(route, listener)
            log.info("route.put", endpoint=route.name, port=route.port, resource_id=route.backend.resource_id)

    async def remove_route(self, name: str) -> None:
        async with self._store.lock:
            if self._store.table.named(name) is not None:
                await self._store.write(self._store.table.without(name))
                self._follow_branches()
                log.info("route.removed", endpoint=name)
        if self.predecessor is not None:
            await self.predecessor.close_endpoint(name, clients=True, listener=True)
        endpoint = self._endpoints.pop(name, None)
        if endpoint is not None:
            if endpoint.park is not None:
                endpoint.park.end()
            endpoint.close()

    async def rename_route(self, name: str, new_name: str) -> None:
        async with self._store.lock:
            table = self._store.table
            route = table.named(name)
            if route is None and table.named(new_name) is not None:
                return  # done before
            if route is None:
                raise RouteConflict(f"there is no endpoint {name}")
            if name == new_name:
                return
            if table.named(new_name) is not None:
                raise RouteConflict(f"there is an endpoint {new_name} already")
            await self._store.write(table.renamed(name, new_name))
            self._follow_branches()
            if self.predecessor is not None:
                await self.predecessor.rename_endpoint(name, new_name)
            endpoint = self._endpoints.pop(name, None)
            if endpoint is not None:
                endpoint.route = msgspec.structs.replace(route, name=new_name)
                self._endpoints[new_name] = endpoint
            log.info("route.renamed", endpoint=name, new_name=new_name)

    def _require_no_return(self, present: Route | None, route: Route) -> None:
        """A router of before tokens, which would let in everybody that its server asks nothing, must not come back."""
        begins = route.token_logins and not (present is not None and present.token_logins)
        if begins and self.predecessor is not None and not self.predecessor.verifies_tokens:
            raise RouteConflict(
                "a router of an older version still has clients: tokens have to wait until it has ended"
            )

    def _listener_for(self, table: Table, route: Route) -> Listener | None:
        """A bound socket for ``route``, None if its endpoint has it already. Raises ``PortInUse``."""
        taken_by = table.on_port(route)
        if taken_by is not None:
            raise PortInUse(f"port {route.port} on {route.host} belongs to endpoint {taken_by.name}")
        endpoint = self._endpoints.get(route.name)
        if endpoint is not None and (endpoint.route.host, endpoint.route.port) == (route.host, route.port):
            return None
        return Listener.bind(route.host, route.port)

    async def _write_or_close(self, table: Table, listeners: Sequence[Listener | None]) -> None:
        try:
            await self._store.write(table)
        except BaseException:
            for listener in listeners:
                if listener is not None:
                    listener.close()
            raise

    def _apply(self, route: Route, listener: Listener | None) -> None:
        endpoint = self._endpoints.get(route.name)
        if endpoint is None:
            assert listener is not None  # noqa: S101  only a listening endpoint goes without a new one
            self._endpoints[route.name] = endpoint = self._make(route, listener)
            if self.predecessor is not None:
                endpoint.cancel_elsewhere = self.predecessor.cancel
            return
        endpoint.route = route
        if listener is not None:
            endpoint.listen(listener)

    def _make(self, route: Route, listener: Listener) -> Endpoint:
        if route.branches is None:
            return Endpoint(route, listener, self._tls, self._limits, self._lender, self.verifier)
        return Junction(route, listener, self._tls, self._limits, self._lender, self.verifier, others=self._endpoints)

    def _follow_branches(self) -> None:
        """Endpoints that lead to others, as the table has them now."""
        for route in self._store.table.routes:
            if route.branches is not None and route.name in self._endpoints:
                self._endpoints[route.name].route = route

    def _bind(self, table: Table, routes: Sequence[Route]) -> list[Listener | None]:
        bound: list[Listener | None] = []
        try:
            bound.extend(self._listener_for(table, route) for route in routes)
        except PortInUse:
            for listener in bound:
                if listener is not None:
                    listener.close()
            raise
        return bound
