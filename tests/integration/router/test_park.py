"""Parking: sessions stop at safe points, nothing is lost, and every way out leads somewhere."""

import asyncio
import contextlib
import socket

import msgspec
import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import (
    ALICE,
    Connection,
    Endpoint,
    Pair,
    Switchover,
    connect,
    has_sessions,
    one,
    park,
)
from tests.ports import host_ports
from verdigris.domain.errors import ParkBroken
from verdigris.domain.ports import Parked, ParkRefused, Route
from verdigris.router.client import RouterClient
from verdigris.router.errors import NotAbortable
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.startup import PROTOCOL_3_0, startup_message


async def parked_now(router: RouterClient) -> tuple[int, int]:
    (found,) = (await router.statistics()).endpoints
    return found.parked, found.waiting


async def test_everyone_waits_and_goes_on(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as first, await connect(endpoint) as second:
        parked = await park(router)
        assert parked.sessions == 2
        assert set(parked.server_pids) == {first.pgconn.backend_pid, second.pgconn.backend_pid}
        sessions = await router.sessions("app")
        assert (sessions.generation, sessions.committed) == (parked.generation, False)
        asked = asyncio.create_task(one(first, "SELECT label FROM which"))
        newcomer = asyncio.create_task(connect(endpoint))
        await until(lambda: waiting(router, 1))
        assert not asked.done()
        assert not newcomer.done()
        await router.release(parked.generation)
        assert await asked == "blue"
        async with await newcomer as connection:
            assert await one(connection, "SELECT 1") == 1
        assert (await router.sessions("app")).generation is None


async def waiting(router: RouterClient, count: int) -> bool:
    return (await parked_now(router))[1] == count


async def test_newcomers_wait_while_those_who_are_there_work(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as present:
        await router.hold("app")
        newcomer = asyncio.create_task(connect(endpoint))
        await until(lambda: waiting(router, 1))
        assert await one(present, "SELECT label FROM which") == "blue"
        assert not newcomer.done()
        await router.admit("app")
        async with await newcomer as connection:
            assert await one(connection, "SELECT 1") == 1


async def test_newcomers_that_were_held_back_wait_for_the_end_of_the_park(
    endpoint: Endpoint, router: RouterClient
) -> None:
    async with await connect(endpoint):
        await router.hold("app")
        newcomer = asyncio.create_task(connect(endpoint))
        await until(lambda: waiting(router, 1))
        parked = await park(router)
        await router.admit("app")
        assert await parked_now(router) == (1, 1)
        await router.release(parked.generation)
        async with await newcomer as connection:
            assert await one(connection, "SELECT 1") == 1


async def test_straggler_breaks_the_attempt_and_nothing_else(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as straggler, await connect(endpoint) as other:
        await straggler.set_autocommit(False)
        pid = await one(straggler, "SELECT pg_backend_pid()")
        refused = await router.park("app", budget_s=0.2, lease_s=5)
        assert isinstance(refused, ParkRefused)
        assert (refused.stragglers, refused.server_pids) == (1, (pid,))
        assert refused.waited_s > 0.15
        assert await one(other, "SELECT 1") == 1
        await straggler.commit()
        assert (await park(router)).sessions == 2


async def test_stragglers_may_be_left_out_of_a_park_for_the_fence_to_end(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    """What they hear is the server's own word, so that a commit on its way is acknowledged or has not happened."""
    await reset_work(pair)
    async with await connect(endpoint) as straggler, await connect(endpoint) as other:
        await straggler.set_autocommit(False)
        await straggler.execute("UPDATE work SET n = 1 WHERE id = 1")
        await switchover.ready()
        parked = await router.park("app", budget_s=0.2, lease_s=10, leave_stragglers=True)
        assert isinstance(parked, Parked)
        assert (parked.sessions, parked.stragglers) == (1, 1)
        assert parked.server_pids == (other.pgconn.backend_pid,)
        assert (await router.hand_over(parked.generation)).carried == 1
        async with await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True) as admin:
            await admin.execute("SELECT pg_terminate_backend(%s, 5000)", [straggler.pgconn.backend_pid])
        await router.commit(parked.generation, [switchover.switched], hold=False, leave_nobody=True)
        await router.release(parked.generation)
        assert await one(other, "SELECT label FROM which") == "green"
        with pytest.raises(psycopg.errors.AdminShutdown, match="terminating connection"):
            await straggler.execute("COMMIT")
    assert await work_done(pair) == 0


async def test_what_a_straggler_hears_of_its_commit_is_true(
    endpoint: Endpoint, router: RouterClient, pair: Pair
) -> None:
    """Ended in the very moment in which it commits: acknowledged and there, or refused and not there. A COMMIT that is
    written to a backend which has just gone is neither: its client is told that the connection was lost, no more."""
    await reset_work(pair)
    rows = range(1, 25)
    async with contextlib.AsyncExitStack() as stack:
        admin = await stack.enter_async_context(await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True))
        clients = {row: await connect(endpoint) for row in rows}
        for row, client in clients.items():
            stack.push_async_callback(client.close)
            await client.execute("BEGIN")
            await client.execute("UPDATE work SET n = 1 WHERE id = %s", [row])
        parked = await router.park("app", budget_s=0.1, lease_s=20, leave_stragglers=True)
        assert isinstance(parked, Parked)
        assert (parked.sessions, parked.stragglers) == (0, len(clients))

        async def commit(client: Connection) -> str:
            try:
                await client.execute("COMMIT")
            except psycopg.OperationalError as error:
                return error.sqlstate or "no reason given"
            return "acknowledged"

        pids = [client.pgconn.backend_pid for client in clients.values()]
        committing = asyncio.gather(*(commit(client) for client in clients.values()))
        await admin.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", [pids])
        told = dict(zip(rows, await committing, strict=True))
        await router.abort(parked.generation)
        cursor = await admin.execute("SELECT id FROM work WHERE n = 1")
        there = {row for (row,) in await cursor.fetchall()}
    assert set(told.values()) <= {"acknowledged", "57P01", "08006"}
    assert {row for row, answer in told.items() if answer == "acknowledged"} <= there
    assert not {row for row, answer in told.items() if answer == "57P01"} & there


async def test_a_straggler_that_nobody_ended_runs_nothing_on_the_backend_that_was_left(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute("BEGIN")
        await switchover.ready()
        parked = await router.park("app", budget_s=0.1, lease_s=10, leave_stragglers=True)
        assert isinstance(parked, Parked)
        await router.commit(parked.generation, [switchover.switched], hold=False)
        await router.release(parked.generation)
        await connection.execute("ROLLBACK")
        # libpq may find the end of the connection before it reads why.
        with pytest.raises(psycopg.OperationalError, match=r"after the switchover|closed the connection"):
            await connection.execute("SELECT label FROM which")


async def test_a_commit_that_is_to_leave_nobody_behind_is_refused(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        await switchover.ready()
        parked = await park(router)
        with pytest.raises(ParkBroken, match="leave 1 of the sessions of app behind"):
            await router.commit(parked.generation, [switchover.switched], hold=False, leave_nobody=True)
        await router.abort(parked.generation)
        assert await one(connection, "SELECT label FROM which") == "blue"


async def test_transaction_is_let_end(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as connection:
        await connection.set_autocommit(False)
        await connection.execute("SELECT 1")
        parking = asyncio.create_task(park(router))
        await until(lambda: being_parked(router))
        for _ in range(20):
            await connection.execute("SELECT 1")
        assert not parking.done()
        await connection.commit()
        parked = await parking
        assert parked.sessions == 1
        await router.release(parked.generation)
        assert await one(connection, "SELECT label FROM which") == "blue"


async def being_parked(router: RouterClient) -> bool:
    return (await router.sessions("app")).generation is not None


async def test_lease_runs_out(endpoint: Endpoint, router: RouterClient, switched: Route) -> None:
    async with await connect(endpoint) as connection:
        parked = await park(router)
        await router.renew(parked.generation, lease_s=0.3)
        assert await one(connection, "SELECT label FROM which") == "blue"  # waits for the end of the lease
        for call in (
            router.renew(parked.generation, lease_s=1),
            router.hand_over(parked.generation),
            router.commit(parked.generation, [switched], hold=False),
        ):
            with pytest.raises(ParkBroken):
                await call
        await router.abort(parked.generation)
        assert (await router.routes())[0].backend == endpoint.route.backend


async def test_newcomers_wait_after_a_lost_lease_until_the_control_plane_is_back(
    endpoint: Endpoint, router: RouterClient
) -> None:
    """A control plane that died may have left blue fenced: who comes now would be refused there."""
    async with await connect(endpoint) as connection:
        await park(router, lease_s=0.1)
        assert await one(connection, "SELECT 1") == 1  # the lease has run out: who was here goes on
        coming = asyncio.create_task(connect(endpoint))
        await asyncio.wait({coming}, timeout=0.5)
        assert not coming.done()
        await router.unready("app")  # what a control plane says that has come back and lifted the fence
        async with await coming as newcomer:
            assert await one(newcomer, "SELECT label FROM which") == "blue"
        async with await connect(endpoint) as later:
            assert await one(later, "SELECT 1") == 1


async def test_aborting_a_park_that_has_ended_admits_newcomers(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as connection:
        parked = await park(router, lease_s=0.1)
        assert await one(connection, "SELECT 1") == 1
        await router.abort(parked.generation)
        async with await connect(endpoint) as newcomer:
            assert await one(newcomer, "SELECT 1") == 1


async def test_newcomers_wait_on_after_an_abort_until_they_are_admitted(
    endpoint: Endpoint, router: RouterClient
) -> None:
    """A commit failed: who is here goes on, and blue, which is fenced still, would refuse whoever comes."""
    async with await connect(endpoint) as connection:
        parked = await park(router)
        await router.abort(parked.generation, admit=False)
        assert await one(connection, "SELECT 1") == 1
        coming = asyncio.create_task(connect(endpoint))
        await asyncio.wait({coming}, timeout=0.5)
        assert not coming.done()
        await router.admit("app")
        async with await coming as newcomer:
            assert await one(newcomer, "SELECT label FROM which") == "blue"


async def test_cancelled_park_lets_go(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as straggler, await connect(endpoint) as other:
        await straggler.set_autocommit(False)
        await straggler.execute("SELECT 1")
        parking = asyncio.create_task(router.park("app", budget_s=60, lease_s=5))
        await until(lambda: being_parked(router))
        parking.cancel()
        assert await one(other, "SELECT 1") == 1
        await until(lambda: not_parked(router))


async def not_parked(router: RouterClient) -> bool:
    return not await being_parked(router)


async def test_committed_sessions_wait_or_release_themselves(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        parked, _ = await switchover.ready_and_hand_over()
        await router.renew(parked.generation, lease_s=2)
        await router.commit(parked.generation, [switchover.switched], hold=False)
        await router.commit(parked.generation, [switchover.switched], hold=False)  # asked again: it is done
        assert (await router.sessions("app")).committed
        with pytest.raises(NotAbortable):
            await router.abort(parked.generation)
        assert await one(connection, "SELECT label FROM which") == "green"


async def test_sessions_that_nobody_waits_for_follow_and_need_the_old_backend_no_more(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    """A release is answered when those who wait have been let go. The old backend may end at once."""
    async with (
        contextlib.AsyncExitStack() as stack,
        await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True) as admin,
    ):
        busy, *idle = [await stack.enter_async_context(await connect(endpoint)) for _ in range(6)]
        await switchover.ready()
        parked, _ = await switchover.hand_over()
        asked = asyncio.create_task(one(busy, "SELECT label FROM which, pg_sleep(0.3)"))
        await asyncio.sleep(0)
        await router.commit(parked.generation, [switchover.switched], hold=False)
        await router.release(parked.generation)
        assert not asked.done()
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [ALICE])
        newcomer = await stack.enter_async_context(await connect(endpoint))
        for connection in (*idle, newcomer):
            assert await one(connection, "SELECT label FROM which") == "green"
        assert await asked == "green"

        async def all_gone() -> bool:
            return (await router.sessions("app")).generation is None

        await until(all_gone)
        (found,) = (await router.statistics()).endpoints
        assert (found.parked, found.handed_over_total) == (0, 6)


async def test_hold_waits_for_release(endpoint: Endpoint, router: RouterClient, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        parked, _ = await switchover.ready_and_hand_over()
        await router.renew(parked.generation, lease_s=2)
        await router.commit(parked.generation, [switchover.switched], hold=True)
        asked = asyncio.create_task(one(connection, "SELECT label FROM which"))
        await asyncio.wait({asked}, timeout=2.5)
        assert not asked.done()
        assert (await router.sessions("app")).committed
        await router.release(parked.generation)
        assert await asked == "green"


async def test_commit_adds_routes(endpoint: Endpoint, router: RouterClient, switchover: Switchover) -> None:
    old = msgspec.structs.replace(endpoint.route, name="app-old1", port=host_ports().allocate({endpoint.route.port}))
    parked, _ = await switchover.ready_and_hand_over()
    await router.commit(parked.generation, [switchover.switched, old], hold=False)
    await router.release(parked.generation)
    assert {route.name: route.backend for route in await router.routes()} == {
        "app": switchover.pair.green,
        "app-old1": switchover.pair.blue,
    }
    async with await connect(Endpoint(old)) as connection:
        assert await one(connection, "SELECT label FROM which") == "blue"


async def test_client_that_leaves_while_parked(endpoint: Endpoint, router: RouterClient, pair: Pair) -> None:
    polite = await connect(endpoint)
    rude = await connect(endpoint, sslmode="disable")
    await park(router)
    await polite.close()
    rude_socket = socket.socket(fileno=socket.dup(rude.pgconn.socket))
    rude_socket.shutdown(socket.SHUT_RDWR)
    rude_socket.close()
    await until(lambda: has_sessions(router, 0))
    await rude.close()
    async with await psycopg.AsyncConnection.connect(pair.blue_admin) as admin:

        async def gone() -> bool:
            cursor = await admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ALICE])
            return await cursor.fetchone() == (0,)

        await until(gone)


async def test_what_is_sent_while_parked_arrives_once(endpoint: Endpoint, switchover: Switchover) -> None:
    """More than the router holds: the rest stays in the client's socket until the release."""
    async with await connect(endpoint) as connection:
        parked, _ = await switchover.ready_and_hand_over()
        text = "x" * 1_000_000
        asked = asyncio.create_task(connection.execute("SELECT label, length(%s) FROM which", [text]))
        await asyncio.wait({asked}, timeout=0.2)
        await switchover.router.commit(parked.generation, [switchover.switched], hold=False)
        await switchover.router.release(parked.generation)
        assert await (await asked).fetchone() == ("green", len(text))


async def test_pipelining_client_is_stopped_between_requests(endpoint: Endpoint, router: RouterClient) -> None:
    """It never lets its pipe run empty, and is parked all the same."""
    reader, writer = await login_raw(endpoint)
    sent = 5000
    writer.write(messages.message(b"Q", b"SELECT 1\0") * sent)
    answered = asyncio.create_task(count_ready(reader, sent))
    generations: list[int] = []
    while not answered.done() and len(generations) < 5:
        parked = await park(router)
        generations.append(parked.generation)
        await router.release(parked.generation)
    assert generations
    await answered
    writer.close()


async def login_raw(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A logged-in connection of which the test has the bytes."""
    connection = await connect(endpoint, sslmode="disable")
    raw = socket.socket(fileno=socket.dup(connection.pgconn.socket))
    raw.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=raw)
    keep_alive[writer] = connection
    return reader, writer


# libpq's object closes the socket when it is collected.
keep_alive: dict[asyncio.StreamWriter, Connection] = {}


async def count_ready(reader: asyncio.StreamReader, count: int) -> int:
    found = 0
    while found < count:
        header = await reader.readexactly(5)
        await reader.readexactly(int.from_bytes(header[1:], "big") - 4)
        found += header[:1] == b"Z"
    return found


async def test_copy_is_let_end(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute("CREATE TEMP TABLE copied (n int)")
        async with connection.cursor() as cursor, cursor.copy("COPY copied FROM STDIN") as copy:
            await copy.write(b"1\n")
            refused = await router.park("app", budget_s=0.1, lease_s=5)
            assert isinstance(refused, ParkRefused)
            await copy.write(b"2\n")
        await park(router)


async def test_copy_that_failed_by_extended_protocol(endpoint: Endpoint, router: RouterClient) -> None:
    """The tracker is in doubt then; an exchange with the server settles it, unseen by the client."""
    async with await connect(endpoint) as connection:
        pgconn = connection.pgconn
        await connection.execute("CREATE TEMP TABLE copied (n int)")
        pgconn.exec_params(b"COPY copied FROM STDIN", [])
        pgconn.put_copy_data(b"nonsense\n")
        with contextlib.suppress(psycopg.Error):
            pgconn.put_copy_end()
        while pgconn.get_result() is not None:
            pass
        for _ in range(3):
            parked = await park(router)
            await router.release(parked.generation)
            assert await one(connection, "SELECT count(*) FROM copied") == 0


async def test_login_in_progress_does_not_prevent_a_park(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.route.port)
        writer.write(startup_message(PROTOCOL_3_0, {b"user": b"alice", b"database": b"app"}))
        assert await reader.readexactly(1) == b"R"  # the server has asked for the password
        parked = await park(router)
        assert parked.sessions == 1
        assert b"57P03" in await reader.read()
        writer.close()
        await router.release(parked.generation)
        assert await one(connection, "SELECT 1") == 1


async def test_parked_again_while_parked(endpoint: Endpoint, router: RouterClient, switched: Route) -> None:
    """A controller that comes anew takes the place of the one before."""
    async with await connect(endpoint) as connection:
        first = await park(router)
        second = await park(router)
        assert second.generation > first.generation
        assert second.sessions == 1
        with pytest.raises(ParkBroken):
            await router.commit(first.generation, [switched], hold=False)
        await router.release(second.generation)
        assert await one(connection, "SELECT 1") == 1


# --------------------------------------------------------------------------------------------------------- under load


async def test_load_through_parks_and_switchovers(endpoint: Endpoint, router: RouterClient, pair: Pair) -> None:
    """Sixteen clients commit all the time; every commit that was acknowledged is there, once, and no client fails."""
    await reset_work(pair)
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(await connect(endpoint, sslmode="disable" if n % 2 else "require"))
            for n in range(16)
        ]
        work = [asyncio.create_task(count_up(client, n + 1, stop)) for n, client in enumerate(clients)]
        for _ in range(5):
            parked = await park(router)
            await router.abort(parked.generation)
        target = pair.green
        for _ in range(4):
            await router.ready("app", target, pair.verifiers)
            parked = await park(router)
            report = await router.hand_over(parked.generation)
            assert (report.carried, report.pinned) == (16, {})
            route = msgspec.structs.replace(endpoint.route, backend=target)
            await router.commit(parked.generation, [route], hold=False)
            await router.release(parked.generation)
            target = pair.blue if target == pair.green else pair.green
        stop.set()
        counts = await asyncio.gather(*work)
    assert min(counts) > 0
    assert await work_done(pair) == sum(counts)


async def count_up(client: Connection, row: int, stop: asyncio.Event) -> int:
    """Transactions of three statements; how many were acknowledged."""
    acknowledged = 0
    while not stop.is_set():
        async with client.transaction():
            await client.execute("UPDATE work SET n = n + 1 WHERE id = %s", [row])
            await client.execute("SELECT n FROM work WHERE id = %s", [row])
        acknowledged += 1
    return acknowledged


async def reset_work(pair: Pair) -> None:
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
            await admin.execute("UPDATE work SET n = 0")


async def work_done(pair: Pair) -> int:
    total = 0
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo) as admin:
            row = await (await admin.execute("SELECT sum(n) FROM work")).fetchone()
            assert row is not None
            total += int(row[0])
    return total
