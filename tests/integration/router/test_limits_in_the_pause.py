"""What clients may take of the router while they wait, by the bytes, and what they leave behind if they go."""

import asyncio
import socket

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import (
    ALICE,
    Endpoint,
    Pair,
    Switchover,
    bytes_from_clients,
    connect,
    has_heard,
    has_sessions,
    one,
    park,
)
from tests.integration.router.test_limits import BOUND_BYTES, limited, resident_bytes
from verdigris.router.client import RouterClient
from verdigris.router.limits import Limits
from verdigris.router.process import RouterProcess
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.startup import PROTOCOL_3_0, startup_message

STARTUP = startup_message(PROTOCOL_3_0, {b"user": ALICE.encode(), b"database": b"app"})
MUCH = 64 * 1024 * 1024


async def opened(endpoint: Endpoint, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(endpoint.route.host, endpoint.route.port)
    writer.write(data)
    return reader, writer


async def refusal(endpoint: Endpoint) -> messages.ServerError:
    """What a newcomer is told, and nothing else."""
    reader, writer = await opened(endpoint, STARTUP)
    try:
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    assert answer[:1] == b"E"
    assert int.from_bytes(answer[1:5]) == len(answer) - 1
    return messages.read_error(answer[5:])


async def test_refusals_have_the_codes_of_postgres(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess
) -> None:
    await limited(router_process, Limits(max_connections=2, max_wait_s=0.5))
    async with await connect(endpoint):
        parked = await park(router, lease_s=60)
        late = await refusal(endpoint)
        assert (late.severity, late.sqlstate) == ("FATAL", "57P03")
        await router.release(parked.generation)
        async with await connect(endpoint):
            one_too_many = await refusal(endpoint)
            assert (one_too_many.severity, one_too_many.sqlstate) == ("FATAL", "53300")


async def test_parked_client_that_sends_much(
    endpoint: Endpoint, router_process: RouterProcess, switchover: Switchover
) -> None:
    """It is not read beyond what the router may hold; all of it arrives after the pause."""
    async with await connect(endpoint, sslmode="disable") as connection, await connect(endpoint) as other:
        parked, _ = await switchover.ready_and_hand_over()
        before = resident_bytes(router_process)
        begun_at = await bytes_from_clients(switchover.router)
        asked = asyncio.create_task(asyncio.to_thread(send_much, connection))
        await until(lambda: has_heard(switchover.router, begun_at + 64 * 1024))
        await asyncio.wait({asked}, timeout=1)  # time enough for all of it, if it were taken
        assert not asked.done()
        assert resident_bytes(router_process) - before < BOUND_BYTES
        await switchover.commit(parked)
        assert await asked == str(MUCH).encode()
        assert await one(other, "SELECT label FROM which") == "green"


def send_much(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> bytes | None:
    """Blocking, so that the event loop of the test is not what waits."""
    return connection.pgconn.exec_params(b"SELECT length($1::text)", [b"x" * MUCH]).get_value(0, 0)


async def test_newcomer_that_sends_much_while_it_waits(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess
) -> None:
    async with await connect(endpoint) as other:
        parked = await park(router)
        before = resident_bytes(router_process)
        _, writer = await opened(endpoint, STARTUP)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(writer), 1)
        assert resident_bytes(router_process) - before < BOUND_BYTES
        await router.release(parked.generation)
        writer.transport.abort()
        await until(lambda: has_sessions(router, 1))
        assert await one(other, "SELECT 1") == 1


async def flood(writer: asyncio.StreamWriter) -> None:
    for _ in range(MUCH // 65536):
        writer.write(bytes(65536))
        await writer.drain()


@pytest.mark.parametrize("rude", [True, False])
async def test_who_leaves_after_the_handover_leaves_nothing_on_either_side(
    endpoint: Endpoint, switchover: Switchover, pair: Pair, rude: bool
) -> None:
    """A lock on both servers. ``rude``: with a question unanswered, by RST."""
    leaver = await connect(endpoint, sslmode="disable")
    async with await connect(endpoint) as other:
        await leaver.execute("SELECT pg_advisory_lock(77)")
        parked, _ = await switchover.ready_and_hand_over()
        if rude:
            leaver.pgconn.send_query(b"SELECT pg_sleep(60)")
            leaver.pgconn.flush()
            with socket.socket(fileno=socket.dup(leaver.pgconn.socket)) as its_socket:
                its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await leaver.close()
        for conninfo in (pair.blue_admin, pair.green_admin):
            await until(lambda: nobody_holds_a_lock(conninfo))  # noqa: B023  asked within the round
        await switchover.commit(parked)
        assert await one(other, "SELECT pg_try_advisory_lock(77)::text || label FROM which") == "truegreen"
        await until(lambda: has_sessions(switchover.router, 1))


async def nobody_holds_a_lock(conninfo: str) -> bool:
    async with await psycopg.AsyncConnection.connect(conninfo) as admin:
        cursor = await admin.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77")
        return await cursor.fetchone() == (0,)


async def test_statistics_are_a_snapshot(endpoint: Endpoint, router: RouterClient, switchover: Switchover) -> None:
    """What was told once stays as it was, whatever happens afterwards; nobody can change it."""
    before = await router.statistics()
    shown = repr(before)
    async with await connect(endpoint) as connection, await connect(endpoint) as pinned:
        await pinned.execute("SELECT set_config('app.' || 'computed', 'x', false)")
        assert await switchover.run() == {"custom-settings": 1}
        assert await one(connection, "SELECT label FROM which") == "green"
        (after,) = (await router.statistics()).endpoints
        assert (after.connections_total, after.handed_over_total) == (2, 1)
        assert after.pinned_last == {"custom-settings": 1}
        assert repr(before) == shown
        with pytest.raises(AttributeError):
            before.pid = 0  # type: ignore[misc]
        with pytest.raises(AttributeError):
            after.sessions = 0  # type: ignore[misc]
