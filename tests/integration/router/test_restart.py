"""Replacing the router's process: nobody is cut off, nothing is lost, and no session is served by two."""

import asyncio
import socket
from contextlib import AsyncExitStack

import msgspec
import psycopg
import pytest
from psycopg import pq

from tests.conftest import until
from tests.integration.router.clients import ALICE, Connection, Endpoint, Pair, Switchover, connect, one, park
from tests.ports import host_ports
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.ports import ParkRefused, Route
from verdigris.router.client import RouterClient
from verdigris.router.limits import Limits
from verdigris.router.process import RouterProcess
from verdigris.router.record import started_ticks
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.startup import PROTOCOL_3_0, startup_message


async def plain(endpoint: Endpoint, **parameters: str) -> Connection:
    """A connection that can be moved."""
    return await connect(endpoint, sslmode="disable", **parameters)


def alive(pid: int) -> bool:
    return started_ticks(pid) is not None


async def restart(router_process: RouterProcess) -> int:
    """Pid of the process that has been replaced."""
    before = router_process.pid
    assert before is not None
    after = await router_process.restart()
    assert after != before
    assert router_process.pid == after
    return before


async def gone(router_process: RouterProcess, pid: int) -> None:
    def ended() -> bool:
        assert router_process.pid != pid
        return not alive(pid)

    await until(ended)


async def left_behind(router: RouterClient) -> int:
    return sum(endpoint.with_predecessor for endpoint in (await router.statistics()).endpoints)


async def test_idle_sessions_move(endpoint: Endpoint, router: RouterClient, router_process: RouterProcess) -> None:
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await plain(endpoint)) for _ in range(50)]
        for number, connection in enumerate(connections):
            await connection.execute(f"SET app.number = {number}")
            await connection.execute("PREPARE mine AS SELECT current_setting('app.number')::int")
        before = (await router.statistics()).endpoints[0]
        await gone(router_process, await restart(router_process))
        statistics = await router.statistics()
        assert statistics.pid == router_process.pid
        (found,) = statistics.endpoints
        assert (found.sessions, found.with_predecessor, found.connections_total) == (50, 0, 50)
        assert found.client_bytes_total == before.client_bytes_total
        assert found.server_bytes_total == before.server_bytes_total
        assert (await router.sessions("app")).usernames == (ALICE,)
        for number, connection in enumerate(connections):
            assert await one(connection, "EXECUTE mine") == number
            assert await one(connection, "SELECT pg_backend_pid()") == connection.info.backend_pid


async def test_again_and_again(endpoint: Endpoint, router_process: RouterProcess) -> None:
    async with await plain(endpoint) as connection:
        for number in range(3):
            await gone(router_process, await restart(router_process))
            assert await one(connection, f"SELECT {number}") == number
            async with await connect(endpoint) as newcomer:
                assert await one(newcomer, "SELECT 1") == 1


# ---------------------------------------------------------------------------------------------------- what is under way


async def test_transaction_is_let_end(endpoint: Endpoint, router: RouterClient, router_process: RouterProcess) -> None:
    async with await plain(endpoint) as connection, await plain(endpoint) as other:
        await connection.set_autocommit(False)
        await connection.execute("CREATE TEMP TABLE mine (n int)")
        old = await restart(router_process)
        await until(lambda: is_left(router, 1))
        for number in range(20):
            await connection.execute("INSERT INTO mine VALUES (%s)", [number])
            assert await one(other, "SELECT 1") == 1
        assert await left_behind(router) == 1
        assert alive(old)
        await connection.commit()
        await gone(router_process, old)
        assert await one(connection, "SELECT count(*) FROM mine") == 20
        await connection.commit()


async def is_left(router: RouterClient, number: int) -> bool:
    return await left_behind(router) == number


async def test_failed_transaction_and_pipeline(endpoint: Endpoint, router_process: RouterProcess) -> None:
    async with await plain(endpoint) as failed, await plain(endpoint) as piped:
        await failed.set_autocommit(False)
        with pytest.raises(psycopg.errors.DivisionByZero):
            await failed.execute("SELECT 1/0")
        async with piped.pipeline() as pipeline:
            sent = [await piped.execute("SELECT %s::int, pg_sleep(0.01)", [n]) for n in range(50)]
            old = await restart(router_process)
            sent += [await piped.execute("SELECT %s::int, pg_sleep(0.01)", [n]) for n in range(50, 100)]
            await pipeline.sync()
            assert [(await cursor.fetchone() or ())[0] for cursor in sent] == list(range(100))
        assert failed.info.transaction_status is pq.TransactionStatus.INERROR
        await failed.rollback()
        assert await one(failed, "SELECT 1") == 1
        await failed.commit()
        await gone(router_process, old)
        assert await one(piped, "SELECT 1") == 1


async def test_copy_in_progress(endpoint: Endpoint, router_process: RouterProcess) -> None:
    rows = 20_000
    async with await plain(endpoint) as incoming, await plain(endpoint) as outgoing:
        await incoming.execute("CREATE TEMP TABLE copied (n int, t text)")
        cursor_in, cursor_out = incoming.cursor(), outgoing.cursor()
        async with (
            cursor_in.copy("COPY copied FROM STDIN") as copy_in,
            cursor_out.copy(
                f"COPY (SELECT g, repeat('x', 1000) FROM generate_series(1, {rows}) g) TO STDOUT"
            ) as copy_out,
        ):
            copy_out.set_types(["int4", "text"])
            found = aiter(copy_out.rows())
            old = -1
            for number in range(rows):
                await copy_in.write_row((number, "y" * 500))
                row = await anext(found)
                assert (row[0], len(str(row[1]))) == (number + 1, 1000)
                if number == rows // 4:
                    old = await restart(router_process)
            assert alive(old)
            with pytest.raises(StopAsyncIteration):
                await anext(found)
        await gone(router_process, old)
        cursor = await incoming.execute("SELECT count(*), sum(n), sum(length(t)) FROM copied")
        assert await cursor.fetchone() == (rows, rows * (rows - 1) // 2, rows * 500)
        assert await one(outgoing, "SELECT 1") == 1


async def test_every_notification_once_and_in_order(endpoint: Endpoint, router_process: RouterProcess) -> None:
    async with await plain(endpoint) as listener, await plain(endpoint) as speaker:
        await listener.execute("LISTEN news")
        said = 0

        async def speak() -> None:
            nonlocal said
            while True:
                await speaker.execute(f"NOTIFY news, '{said}'")
                said += 1

        speaking = asyncio.create_task(speak())
        try:
            for _ in range(2):
                until_more = said + 50
                await until(lambda: said > until_more)  # noqa: B023  used at once
                await gone(router_process, await restart(router_process))
        finally:
            speaking.cancel()
            await asyncio.wait({speaking})
        assert speaking.cancelled()
        heard: list[int] = []
        async for notification in listener.notifies(timeout=20):
            heard.append(int(notification.payload))
            if len(heard) >= said:
                break
        assert heard[:said] == list(range(said))


async def test_what_slow_clients_have_not_read(endpoint: Endpoint, router_process: RouterProcess) -> None:
    """Answers that are anywhere when the restart comes: in the server, in the old process, all in the kernel. With one
    of the second kind the server is done, and the session is at a safe point without being movable."""
    sizes = [500, 1000, 2000, 3000, 4000, 6000]
    clients = [await raw_client(endpoint) for _ in sizes]
    for (_, writer), rows in zip(clients, sizes, strict=True):
        query = f"SELECT repeat('x', 1000) FROM generate_series(1, {rows})"
        writer.write(messages.message(b"Q", query.encode() + b"\0"))
    old = await restart(router_process)
    for (reader, writer), rows in zip(clients, sizes, strict=True):
        writer.write(messages.message(b"Q", b"SELECT 'after'\0"))
        seen = 0
        while (code := await read_message(reader)) != b"Z":
            seen += code == b"D"
        assert seen == rows
        assert [await read_message(reader) for _ in range(4)] == [b"T", b"D", b"C", b"Z"]
    await gone(router_process, old)
    for reader, writer in clients:
        writer.write(messages.message(b"Q", b"SELECT 'moved'\0"))
        assert [await read_message(reader) for _ in range(4)] == [b"T", b"D", b"C", b"Z"]
        writer.close()


async def raw_client(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Logged in by psycopg, then taken from it: a client that reads only when it is told to."""
    connection = await plain(endpoint)
    raw = socket.socket(fileno=socket.dup(connection.pgconn.socket))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    raw.setblocking(False)
    KEPT.append(connection)  # its end would close the session
    return await asyncio.open_connection(sock=raw, limit=2**16)


KEPT: list[Connection] = []


async def read_message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(5)
    await reader.readexactly(int.from_bytes(header[1:], "big") - 4)
    return header[:1]


async def test_client_that_has_not_said_who_it_is(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess
) -> None:
    packet = startup_message(PROTOCOL_3_0, {b"user": b"nobody", b"database": b"app"})
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.route.port)
    writer.write(packet[:5])
    await writer.drain()
    async with await plain(endpoint):  # it came later, so the other one has been accepted
        old = await restart(router_process)
        await until(lambda: is_left(router, 1))
        writer.write(packet[5:])
        assert await reader.read(1) == b"R"  # the server asks for a password
        writer.close()
        await gone(router_process, old)


# The server is shared: what clients of other tests have asked for may go on after they have left.
MARK = "/* of test_restart */"


@pytest.mark.parametrize("moved", [False, True])
async def test_cancel(endpoint: Endpoint, router_process: RouterProcess, moved: bool) -> None:
    async with await plain(endpoint) as connection, await plain(endpoint) as bystander:
        if moved:
            await gone(router_process, await restart(router_process))
        running = asyncio.create_task(connection.execute(f"SELECT pg_sleep(30) {MARK}"))
        unharmed = asyncio.create_task(bystander.execute(f"SELECT pg_sleep(1) {MARK}"))
        await until(lambda: are_asleep(endpoint, 2))
        if not moved:
            old = await restart(router_process)  # the cancel request comes to the new process
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running
        await unharmed
        assert await one(connection, "SELECT 1") == 1
        if not moved:
            await gone(router_process, old)


async def are_asleep(endpoint: Endpoint, number: int) -> bool:
    async with await connect(endpoint) as watcher:
        asleep = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{MARK}' AND state = 'active'"
        return await one(watcher, asleep) == number


# -------------------------------------------------------------------------------------------------------------- TLS


async def test_tls_sessions_stay_and_end_by_themselves(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess
) -> None:
    async with await connect(endpoint, sslmode="require") as encrypted, await plain(endpoint) as moved:
        old = await restart(router_process)
        await until(lambda: is_left(router, 1))
        assert await one(encrypted, "SELECT repeat('x', 1000000)") == "x" * 1_000_000
        assert await one(moved, "SELECT 1") == 1
        refused = await router.park("app", budget_s=5, lease_s=5)
        assert isinstance(refused, ParkRefused)
        assert refused.stragglers == 1
        assert (await router.sessions("app")).sessions == 2
        with pytest.raises(VerdigrisError, match="still has clients"):
            await router_process.restart()
        assert alive(old)
        assert await one(encrypted, "SELECT 1") == 1
    await gone(router_process, old)
    await park(router)


async def test_what_cannot_move_is_ended_at_the_limit(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, verdigris_home: object
) -> None:
    hasty = type(router_process)(router_process.home, router_process.loop, Limits(drain_s=0.3))
    async with (
        await connect(endpoint, sslmode="require") as idle,
        await connect(endpoint, sslmode="require") as busy,
        await plain(endpoint) as in_transaction,
        await plain(endpoint) as moved,
    ):
        await in_transaction.set_autocommit(False)
        await in_transaction.execute("SELECT 1")
        answer = asyncio.create_task(one(busy, "SELECT 'done' FROM pg_sleep(1)"))
        old = await restart(hasty)
        assert await answer == "done"  # it is let come to its safe point
        await gone(hasty, old)
        for connection in (idle, busy, in_transaction):
            with pytest.raises(psycopg.errors.AdminShutdown):
                await connection.execute("SELECT 1")
        assert await one(moved, "SELECT 1") == 1


# ---------------------------------------------------------------------------------------------------------- switchover


async def test_switchover_after_a_restart(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, switchover: Switchover
) -> None:
    """The login that passed through the old process, and all that it knew of the session, is needed now."""
    async with await plain(endpoint) as connection, await plain(endpoint) as unnamed:
        await connection.execute("SET app.tenant = 'seven'")
        await connection.execute("PREPARE mine AS SELECT label FROM which")
        unnamed.pgconn.send_prepare(b"", b"SELECT label || $1::text FROM which")
        await until(lambda: result_is_there(unnamed))
        unnamed.pgconn.get_result()
        unnamed.pgconn.get_result()
        await gone(router_process, await restart(router_process))
        assert not await switchover.run()
        assert await one(connection, "EXECUTE mine") == "green"
        assert await one(connection, "SELECT current_setting('app.tenant')") == "seven"
        result = unnamed.pgconn.exec_prepared(b"", [b"!"])
        assert result.get_value(0, 0) == b"green!"
        # The client's key is blue's, what it stands for is green's.
        old = await restart(router_process)
        await gone(router_process, old)
        running = asyncio.create_task(connection.execute(f"SELECT pg_sleep(30) {MARK}"))
        await until(lambda: are_asleep(endpoint, 1))  # else the request is not for that query
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running


def result_is_there(connection: Connection) -> bool:
    connection.pgconn.consume_input()
    return not connection.pgconn.is_busy()


async def test_not_in_the_middle_of_a_switchover(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, switchover: Switchover
) -> None:
    before = router_process.pid
    async with await plain(endpoint) as connection:
        await switchover.ready()
        with pytest.raises(VerdigrisError, match="switchover of app is under way"):
            await router_process.restart()
        parked = await park(router)
        with pytest.raises(VerdigrisError, match="switchover of app is under way"):
            await router_process.restart()
        assert router_process.pid == before
        await router.hand_over(parked.generation)
        await router.commit(parked.generation, [switchover.switched], hold=True)
        await router.release(parked.generation)
        assert await one(connection, "SELECT label FROM which") == "green"
        await gone(router_process, await restart(router_process))
        assert await one(connection, "SELECT label FROM which") == "green"


# ------------------------------------------------------------------------------------- what is told to both processes


async def test_endpoints_are_closed_in_both(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, pair: Pair
) -> None:
    other_route = Route(
        name="other", host="127.0.0.1", port=host_ports().allocate({endpoint.route.port}), backend=pair.blue
    )
    await router.put_route(other_route)
    other = Endpoint(other_route)
    async with (
        await connect(endpoint, sslmode="require") as stays,
        await connect(other, sslmode="require") as ended,
        await plain(other) as ended_too,
    ):
        old = await restart(router_process)
        await until(lambda: is_left(router, 2))
        await router.rename_route("app", "app-old1")
        assert (await router.sessions("app-old1")).sessions == 1
        await router.remove_route("other")
        for connection in (ended, ended_too):
            with pytest.raises(psycopg.errors.AdminShutdown):
                await connection.execute("SELECT 1")
        assert host_ports().is_free(other_route.port)
        moved = msgspec.structs.replace(
            endpoint.route, name="app-old1", port=host_ports().allocate({endpoint.route.port, other_route.port})
        )
        await router.put_route(moved)
        assert host_ports().is_free(endpoint.route.port)
        assert await one(stays, "SELECT 1") == 1
        assert alive(old)
        await router.disconnect("app-old1")
        with pytest.raises(psycopg.errors.AdminShutdown):
            await stays.execute("SELECT 1")
    await gone(router_process, old)


async def test_stop_ends_both(endpoint: Endpoint, router: RouterClient, router_process: RouterProcess) -> None:
    async with await connect(endpoint, sslmode="require") as stays, await plain(endpoint) as moves:
        old = await restart(router_process)
        await until(lambda: is_left(router, 1))
        await router_process.stop()
        await until(lambda: not alive(old))
        for connection in (stays, moves):
            with pytest.raises(psycopg.errors.AdminShutdown):
                await connection.execute("SELECT 1")
