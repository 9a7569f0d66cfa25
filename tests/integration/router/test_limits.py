"""What one client, or many, may take: it ends with an error that drivers know, and harms nobody else."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import ALICE, Endpoint, Pair, connect, has_sessions, one, park
from verdigris.router.client import RouterClient
from verdigris.router.limits import Limits
from verdigris.router.process import RouterProcess

# Of <linux/tcp.h>: a socket in this state is closed without a word to the other end.
TCP_REPAIR = 19
# What the kernel holds of one connection is not the router's; what the router itself holds of it is far below.
BOUND_BYTES = 12 * 1024 * 1024


async def limited(router_process: RouterProcess, limits: Limits) -> None:
    """New settings need a new process."""
    await RouterProcess(router_process.home, router_process.loop, limits).restart()


def resident_bytes(router_process: RouterProcess) -> int:
    fields = Path(f"/proc/{router_process.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


async def gone(pair: Pair) -> None:
    async def nobody() -> bool:
        async with await psycopg.AsyncConnection.connect(pair.blue_admin) as admin:
            cursor = await admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ALICE])
            return await cursor.fetchone() == (0,)

    await until(nobody)


async def test_too_many_connections(endpoint: Endpoint, router: RouterClient, router_process: RouterProcess) -> None:
    await limited(router_process, Limits(max_connections=3))
    async with await connect(endpoint) as first, await connect(endpoint), await connect(endpoint) as third:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            await connect(endpoint)
        running = asyncio.create_task(first.execute("SELECT pg_sleep(30)"))
        await until(lambda: busy(router))

        async def is_cancelled() -> bool:
            await first.cancel_safe()  # is no connection that counts
            return running.done()

        # Once may be too early: a server that has not begun with the query yet passes it over.
        await until(is_cancelled)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running
        await third.close()
        await until(lambda: has_sessions(router, 2))
        parked = await park(router)
        waiting = asyncio.create_task(connect(endpoint))
        await until(lambda: are_waiting(router, 1))
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            await connect(endpoint)  # it would be one too many when the pause ends
        await router.release(parked.generation)
        async with await waiting as newcomer:
            assert await one(newcomer, "SELECT 1") == 1
        # libpq tries again without TLS where the first try was with it: each refusal counts.
        assert (await router.statistics()).endpoints[0].turned_away_total >= 2


async def busy(router: RouterClient) -> bool:
    return (await router.sessions("app")).active > 0


async def are_waiting(router: RouterClient, number: int) -> bool:
    return (await router.statistics()).endpoints[0].waiting == number


async def test_nobody_waits_for_ever(endpoint: Endpoint, router: RouterClient, router_process: RouterProcess) -> None:
    await limited(router_process, Limits(max_wait_s=0.5))
    async with await connect(endpoint) as idle, await connect(endpoint) as asks:
        parked = await park(router, lease_s=60)
        newcomer = asyncio.create_task(connect(endpoint, sslmode="disable"))
        with pytest.raises(psycopg.errors.AdminShutdown, match="not been executed"):
            await asks.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="not accepting connections"):
            await newcomer
        (found,) = (await router.statistics()).endpoints
        assert (found.parked, found.waiting, found.waited_too_long_total) == (1, 0, 2)
        await router.release(parked.generation)
        assert await one(idle, "SELECT 1") == 1
        # The limit is over with the pause.
        assert await one(idle, "SELECT 'slow' FROM pg_sleep(1)") == "slow"


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_client_that_stops_reading(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, pair: Pair, sslmode: str
) -> None:
    async with await connect(endpoint) as other:
        idle = await connect(endpoint, sslmode=sslmode)
        before = resident_bytes(router_process)
        idle.pgconn.send_query(b"SELECT repeat('x', 10000) FROM generate_series(1, 20000)")
        idle.pgconn.flush()
        await until(lambda: held_up(pair, "ClientWrite"))
        for number in range(100):
            assert await one(other, f"SELECT {number}") == number
        assert resident_bytes(router_process) - before < BOUND_BYTES
        await idle.close()
        await until(lambda: has_sessions(router, 1))
    await gone(pair)


async def held_up(pair: Pair, what: str) -> bool:
    """A server process waits for its client."""
    async with await psycopg.AsyncConnection.connect(pair.blue_admin) as admin:
        cursor = await admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND state = 'active' AND wait_event = %s",
            [ALICE, what],
        )
        return await cursor.fetchone() == (1,)


@pytest.mark.parametrize("stopping", [False, True])
async def test_server_that_stops_reading(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, pair: Pair, stopping: bool
) -> None:
    """A COPY into a table whose trigger sleeps: what its client sends must stay with the client, also while a park
    waits for its end."""
    copying = await connect(endpoint, sslmode="disable")  # its own end would wait for the COPY's
    parking: asyncio.Task[object] | None = None
    try:
        await copying.execute("CREATE TEMP TABLE slow (t text)")
        await copying.execute(
            "CREATE FUNCTION pg_temp.doze() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$"
        )
        await copying.execute("CREATE TRIGGER doze BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION pg_temp.doze()")
        before = resident_bytes(router_process)
        entering = copying.cursor().copy("COPY slow FROM STDIN")  # never left: the connection is closed under it
        copy = await entering.__aenter__()
        if stopping:
            parking = asyncio.create_task(router.park("app", budget_s=60, lease_s=5))
            await until(lambda: being_parked(router))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):  # twice as much would be there by then
                await send_much(copy)
        assert resident_bytes(router_process) - before < BOUND_BYTES
    finally:
        if parking is not None:
            parking.cancel()
            await asyncio.wait({parking})
        async with await connect(endpoint) as other:
            assert await one(other, "SELECT 1") == 1
        await copying.cancel_safe()
        await copying.close()
    await until(lambda: has_sessions(router, 0))
    await gone(pair)


async def being_parked(router: RouterClient) -> bool:
    return (await router.sessions("app")).generation is not None


async def send_much(copy: psycopg.AsyncCopy) -> None:
    for _ in range(1000):
        await copy.write(b"x" * 99_999 + b"\n")


async def test_client_killed_in_the_middle(endpoint: Endpoint, router: RouterClient, pair: Pair) -> None:
    """With an answer half read, and a transaction open."""
    program = (
        "import psycopg, sys, time; c = psycopg.connect(sys.argv[1]);"
        "c.execute('SELECT 1'); c.pgconn.send_query(b\"SELECT repeat('x', 10000) FROM generate_series(1, 20000)\");"
        "c.pgconn.flush(); print('ready', flush=True); time.sleep(60)"
    )
    async with await connect(endpoint) as other:
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, endpoint.conninfo(sslmode="disable"), stdout=asyncio.subprocess.PIPE
        )
        assert client.stdout is not None
        assert await client.stdout.readline() == b"ready\n"
        await until(lambda: held_up(pair, "ClientWrite"))
        client.send_signal(signal.SIGKILL)
        await client.wait()
        await until(lambda: has_sessions(router, 1))
        assert await one(other, "SELECT 1") == 1
    await gone(pair)


async def test_client_that_vanishes(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, pair: Pair
) -> None:
    """Its machine is gone: nothing comes from it any more, not even the end of the connection."""
    await limited(router_process, Limits(keepalive_s=1))
    async with await connect(endpoint) as other:
        vanishing = await connect(endpoint, sslmode="disable")
        raw = socket.socket(fileno=socket.dup(vanishing.pgconn.socket))
        try:
            raw.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except PermissionError:
            raw.close()
            await vanishing.close()
            pytest.skip("needs CAP_NET_ADMIN")
        os.close(vanishing.pgconn.socket)
        raw.close()
        await until(lambda: has_sessions(router, 1))
        assert await one(other, "SELECT 1") == 1
        assert vanishing is not None  # until here, or its end would close what has its descriptor's number by now
    await gone(pair)
