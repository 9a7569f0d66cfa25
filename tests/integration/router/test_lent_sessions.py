"""Sessions that are lent to threads and called back from them, with real clients and servers."""

import asyncio
import contextlib
import itertools
import socket

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Connection, Endpoint, Pair, Switchover, connect, one, park
from verdigris.router.client import RouterClient
from verdigris.wire.postgres import messages as m
from verdigris.wire.postgres.tracker import COMPILED

pytestmark = pytest.mark.skipif(not COMPILED, reason="not compiled here")

LIMIT_S = 20.0


async def lent(router: RouterClient) -> int:
    (found,) = (await router.statistics()).endpoints
    return found.lent


async def test_who_is_lent(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as connection:
        await until(lambda: lent_are(router, 1))
        async with await connect(endpoint, sslmode="require"):
            assert await lent(router) == 1
        parked = await park(router)
        assert await lent(router) == 0
        await router.abort(parked.generation)
        await until(lambda: lent_are(router, 1))
        assert await one(connection, "SELECT 1") == 1
        assert await lent(router) == 1


async def lent_are(router: RouterClient, count: int) -> bool:
    return await lent(router) == count


async def ask_simply(connection: Connection, running: asyncio.Event) -> int:
    for n in itertools.count():
        if not running.is_set():
            return n
        row = await (await connection.execute(f"SELECT {n}, repeat('x', {n * 7919 % 100_000})")).fetchone()
        assert row == (n, "x" * (n * 7919 % 100_000))
    return 0


async def ask_in_pipelines(connection: Connection, running: asyncio.Event) -> int:
    count = 0
    while running.is_set():
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", [n]) for n in range(30)]
        assert [await cursor.fetchone() for cursor in cursors] == [(n,) for n in range(30)]
        count += 1
    return count


async def copy_both_ways(connection: Connection, running: asyncio.Event) -> int:
    await connection.execute("CREATE TEMP TABLE copied (t text)")
    count = 0
    while running.is_set():
        lines = [f"{count} {n} " + "y" * (n % 997) for n in range(300)]
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY copied FROM STDIN") as copy:
                for line in lines:
                    await copy.write_row([line])
            async with cursor.copy("COPY copied TO STDOUT") as copy:
                assert [row[0] async for row in copy.rows()] == lines
        await connection.execute("TRUNCATE copied")
        count += 1
    return count


async def transact(connection: Connection, running: asyncio.Event) -> int:
    count = 0
    while running.is_set():
        async with connection.transaction():
            await connection.execute(f"SET LOCAL app.round = {count}")
            assert await one(connection, "SELECT current_setting('app.round')") == str(count)
        count += 1
    return count


async def test_called_back_again_and_again_under_load(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    """Made ready, parked and let go on, while its clients do all that they can: every answer is right."""
    running = asyncio.Event()
    running.set()
    kinds = (ask_simply, ask_in_pipelines, copy_both_ways, transact)
    connections = [await connect(endpoint) for _ in kinds]
    work = [asyncio.create_task(kind(connection, running)) for kind, connection in zip(kinds, connections, strict=True)]
    try:
        for _ in range(8):
            await switchover.ready()
            parked = await park(router)
            assert parked.sessions == len(kinds)
            await router.abort(parked.generation)
    finally:
        running.clear()
    assert all(count > 0 for count in await asyncio.gather(*work))
    assert await lent(router) > 0
    for connection in connections:
        await connection.close()


def talk_until_the_end(raw: socket.socket) -> bytes:
    """All that has come, once there is nobody at the other end."""
    heard = bytearray()
    raw.settimeout(LIMIT_S)
    with contextlib.suppress(ConnectionError):
        while True:
            raw.sendall(m.message(b"Q", b"SELECT 1\0"))
            while not heard.endswith(m.message(b"Z", b"I")):
                if not (data := raw.recv(4096)):
                    return bytes(heard)
                heard += data
            heard.clear()
    with contextlib.suppress(ConnectionError):
        while data := raw.recv(4096):
            heard += data
    return bytes(heard)


async def test_last_words_of_a_server_that_is_written_to(endpoint: Endpoint, pair: Pair) -> None:
    """A client that talks all the time hears why its server went away, or at least that it did."""
    async with await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True) as admin:
        for _ in range(10):
            async with await connect(endpoint) as victim:
                raw = socket.socket(fileno=socket.dup(victim.pgconn.socket))
                talking = asyncio.create_task(asyncio.to_thread(talk_until_the_end, raw))
                await admin.execute("SELECT pg_terminate_backend(%s)", [victim.pgconn.backend_pid])
                heard = await talking
                raw.close()
                assert b"57P01" in heard or b"08006" in heard, heard
