"""What the router's tests do with clients."""

import asyncio
import contextlib
from collections.abc import Mapping

import psycopg
from msgspec import Struct
from psycopg.conninfo import make_conninfo

from tests.conftest import MASTER, MASTER_PASSWORD
from verdigris.domain.ports import BackendAddress, Helpers, Parked, Route
from verdigris.router.client import RouterClient

# The second user of the tests: its verifier is the same on both servers, as after a copy.
ALICE = "alice"
ALICE_PASSWORD = "wonder land"


class Pair(Struct, frozen=True):
    """A blue and a green that do not follow each other: the router does not care."""

    blue: BackendAddress
    green: BackendAddress
    blue_admin: str  # conninfos of the internal superuser
    green_admin: str
    verifiers: dict[str, str]


class Endpoint(Struct, frozen=True):
    """A route to blue that is there, and how a client names it."""

    route: Route

    def conninfo(self, user: str = ALICE, password: str = ALICE_PASSWORD, **more: str) -> str:
        """Without TLS unless asked for: the router has more to do with such a session (see ``lending``)."""
        more.setdefault("sslmode", "disable")
        address = f"host={self.route.host} port={self.route.port} dbname=app"
        return make_conninfo(address, user=user, password=password, **more)

    def master(self, **more: str) -> str:
        return self.conninfo(MASTER, MASTER_PASSWORD, **more)


Connection = psycopg.AsyncConnection[tuple[object, ...]]


async def connect(endpoint: Endpoint, **parameters: str) -> Connection:
    return await psycopg.AsyncConnection.connect(endpoint.conninfo(**parameters), autocommit=True)


async def one(connection: Connection, query: str) -> object:
    row = await (await connection.execute(query)).fetchone()
    return row[0] if row else None


async def insist(connection: Connection, query: str) -> object:
    """``one``, again for as long as the session's own ``statement_timeout`` of a few milliseconds strikes it.

    A busy machine may take longer than that for anything.
    """
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                cursor = await connection.execute(query)
                row = await cursor.fetchone() if cursor.description else None
                return row[0] if row else None


async def has_sessions(router: RouterClient, number: int) -> bool:
    return (await router.sessions("app")).sessions == number


async def bytes_from_clients(router: RouterClient) -> int:
    return (await router.statistics()).endpoints[0].client_bytes_total


async def has_heard(router: RouterClient, size: int) -> bool:
    """From clients, all in all."""
    return await bytes_from_clients(router) >= size


async def park(router: RouterClient, *, budget_s: float = 5, lease_s: float = 10) -> Parked:
    parked = await router.park("app", budget_s=budget_s, lease_s=lease_s)
    assert isinstance(parked, Parked)
    return parked


class Switchover:
    """The router's part of one, in order."""

    def __init__(self, router: RouterClient, pair: Pair, switched: Route, helpers: Helpers | None = None) -> None:
        self.router, self.pair, self.switched, self.helpers = router, pair, switched, helpers

    async def ready(self) -> None:
        await self.router.ready("app", self.pair.green, self.pair.verifiers, self.helpers)

    async def ready_and_hand_over(self) -> tuple[Parked, Mapping[str, int]]:
        await self.ready()
        return await self.hand_over()

    async def hand_over(self) -> tuple[Parked, Mapping[str, int]]:
        parked = await park(self.router)
        report = await self.router.hand_over(parked.generation)
        assert report.carried + sum(report.pinned.values()) == parked.sessions
        return parked, report.pinned

    async def run(self) -> Mapping[str, int]:
        await self.ready()
        return await self.finish()

    async def finish(self) -> Mapping[str, int]:
        """All that follows ``ready``."""
        parked, pinned = await self.hand_over()
        await self.commit(parked)
        return pinned

    async def commit(self, parked: Parked) -> Mapping[str, int]:
        """Those that were refused too late."""
        await self.router.commit(parked.generation, [self.switched], hold=False)
        return await self.router.release(parked.generation)
