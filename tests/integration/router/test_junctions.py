"""Endpoints that lead to other endpoints: who comes where, who is left out, and what follows the sessions."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Connection, Endpoint, Pair, connect, one
from tests.ports import host_ports
from verdigris.domain.errors import PortInUse
from verdigris.domain.ports import NOWHERE, BackendAddress, Branches, Route
from verdigris.router.client import RouterClient
from verdigris.router.process import RouterProcess
from verdigris.router.session import SILENT_S
from verdigris.wire.postgres import messages


async def put(router: RouterClient, name: str, backend: BackendAddress, branches: Branches | None = None) -> Endpoint:
    while True:
        route = Route(name=name, host="127.0.0.1", port=host_ports().allocate(()), backend=backend, branches=branches)
        with contextlib.suppress(PortInUse):  # taken since by another run of these tests
            await router.put_route(route)
            return Endpoint(route)


async def lead(router: RouterClient, shop: Endpoint, *members: str, otherwise: tuple[str, ...] = ()) -> None:
    branches = Branches(members=members, otherwise=otherwise)
    await router.put_route(msgspec.structs.replace(shop.route, branches=branches))


@pytest.fixture
async def shop(router: RouterClient, pair: Pair) -> Endpoint:
    """To two servers that know which they are."""
    await put(router, "blue", pair.blue)
    await put(router, "green", pair.green)
    return await put(router, "shop", NOWHERE, Branches(members=("blue", "green")))


async def label(connection: Connection) -> object:
    return await one(connection, "SELECT label FROM which")


async def labels(shop: Endpoint, number: int) -> Counter[object]:
    """Of so many sessions at a time."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(shop)) for _ in range(number)]
        return Counter([await label(connection) for connection in connections])


@pytest.fixture
async def busy(verdigris_home: Path) -> AsyncIterator[BackendAddress]:
    """A server that is starting up, for ever."""
    path = verdigris_home / "busy"

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(messages.error_response("FATAL", "57P03", "the database system is starting up"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(refuse, path)
    yield BackendAddress("db-BUSY", str(path))
    server.close()
    await server.wait_closed()


async def test_sessions_are_spread_and_stay(shop: Endpoint, router: RouterClient) -> None:
    assert await labels(shop, 6) == {"blue": 3, "green": 3}
    async with await connect(shop) as session:
        there = str(await label(session))
        await until(lambda: _has_sessions(router, [there], 1))  # those before are gone when the router has noticed
        await lead(router, shop)
        assert await label(session) == there
        await router.rename_route(there, "moved")
        assert await label(session) == there
        await router.disconnect("moved")
        with pytest.raises(psycopg.errors.AdminShutdown):
            await session.execute("SELECT 1")


async def test_the_emptier_one_comes_next(shop: Endpoint, router: RouterClient) -> None:
    """Whoever came to it directly counts, too."""
    blue = next(route for route in await router.routes() if route.name == "blue")
    async with await connect(Endpoint(blue)), await connect(Endpoint(blue)):
        assert await labels(shop, 4) == {"green": 3, "blue": 1}


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_who_does_not_answer_is_left_out(
    shop: Endpoint, router: RouterClient, busy: BackendAddress, sslmode: str
) -> None:
    await put(router, "dead", BackendAddress("db-DEAD", busy.socket_path + "-not"))
    await put(router, "busy", busy)
    await lead(router, shop, "dead", "busy", otherwise=("green",))
    for _ in range(2):
        async with await connect(shop, sslmode=sslmode) as session:
            assert await label(session) == "green"
    assert (await router.sessions("busy")).sessions == 0


async def test_a_server_that_dies_as_it_is_asked(shop: Endpoint, router: RouterClient, verdigris_home: Path) -> None:
    path = verdigris_home / "dying"

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_unix_server(die, path):
        await put(router, "dying", BackendAddress("db-DYING", str(path)))
        await lead(router, shop, "dying", otherwise=("blue",))
        async with await connect(shop) as session:
            assert await label(session) == "blue"
        await lead(router, shop, "dying")
        with pytest.raises(psycopg.OperationalError):
            await connect(shop)


@pytest.fixture
async def silent(router: RouterClient, verdigris_home: Path) -> AsyncIterator[socket.socket]:
    """As a server that is frozen: the kernel takes connections for it. It has an endpoint."""
    path = verdigris_home / "silent"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(100)
        listening.setblocking(False)
        await put(router, "silent", BackendAddress("db-SILENT", str(path)))
        yield listening


def taken(listening: socket.socket) -> int:
    """Connections that the kernel has taken since the last time."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_who_says_nothing_is_left_out_for_a_while(
    shop: Endpoint, router: RouterClient, silent: socket.socket, sslmode: str
) -> None:
    await lead(router, shop, "silent", otherwise=("green",))
    for _ in range(2):
        async with await connect(shop, sslmode=sslmode) as session:
            assert await label(session) == "green"
    assert taken(silent) == 1
    assert (await router.sessions("silent")).sessions == 0


async def test_where_there_is_nobody_else_an_answer_is_waited_for(
    shop: Endpoint, router: RouterClient, silent: socket.socket
) -> None:
    await lead(router, shop, "silent")
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        await connect(shop, connect_timeout="4")
    await lead(router, shop, "silent", otherwise=("green",))
    async with asyncio.timeout(SILENT_S * 5), await connect(shop) as session:
        assert await label(session) == "green"
    assert taken(silent) == 1


async def test_nobody_answers(shop: Endpoint, router: RouterClient, busy: BackendAddress) -> None:
    await lead(router, shop)
    with pytest.raises(psycopg.OperationalError, match="not accepting connections"):
        await connect(shop)
    await put(router, "busy", busy)
    await lead(router, shop, "busy")
    with pytest.raises(psycopg.OperationalError, match="starting up"):
        await connect(shop)


async def test_a_wrong_password_is_not_tried_elsewhere(shop: Endpoint, router: RouterClient) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        await psycopg.AsyncConnection.connect(shop.conninfo(password="wrong"))
    connections = {each.name: each.connections_total for each in (await router.statistics()).endpoints}
    assert connections["blue"] + connections["green"] == connections["shop"] == 1


async def test_a_member_that_is_held_is_the_last_choice(shop: Endpoint, router: RouterClient) -> None:
    await router.hold("blue")
    assert await labels(shop, 4) == {"green": 4}
    await lead(router, shop, "blue")
    waiting = asyncio.create_task(connect(shop))
    await until(lambda: _waits(router, "blue"))
    await router.admit("blue")
    async with await waiting as session:
        assert await label(session) == "blue"


async def _has_sessions(router: RouterClient, names: list[str], number: int) -> bool:
    return sum([(await router.sessions(name)).sessions for name in names]) == number


async def _waits(router: RouterClient, name: str) -> bool:
    return any(each.waiting for each in (await router.statistics()).endpoints if each.name == name)


async def test_cancelling(shop: Endpoint, router: RouterClient) -> None:
    async with await connect(shop) as session:
        await lead(router, shop)  # it is nobody's branch any more
        sleeping = asyncio.create_task(session.execute("SELECT pg_sleep(600)"))
        while not sleeping.done():
            await session.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await sleeping


async def test_a_new_router(shop: Endpoint, router: RouterClient, router_process: RouterProcess) -> None:
    """Replaced on purpose it has the sessions; killed it has its routes."""
    async with await connect(shop) as session, await connect(shop, sslmode="require") as secure:
        there = await label(session)
        await router_process.restart()
        assert await label(session) == there
        assert await label(secure) != there
        assert await labels(shop, 2) == {"blue": 1, "green": 1}
        await until(lambda: _has_sessions(router, ["blue", "green"], 2))
    await router_process.stop()
    await router_process.ensure_running()
    assert await labels(shop, 2) == {"blue": 1, "green": 1}


async def test_a_removed_member_is_gone_from_the_table(shop: Endpoint, router: RouterClient, pair: Pair) -> None:
    await router.remove_route("green")
    await put(router, "green", pair.green)
    assert await labels(shop, 2) == {"blue": 2}
    await router.remove_route("shop")
    with pytest.raises(psycopg.OperationalError):
        await connect(shop)
