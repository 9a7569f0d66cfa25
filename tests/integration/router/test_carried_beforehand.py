"""What is carried before the pause counts in it only as far as it is still true."""

import asyncio
import contextlib

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Endpoint, Pair, Switchover, connect, insist, one
from verdigris.domain.ports import Parked
from verdigris.router.client import RouterClient


async def last_query_at(pair: Pair, pid: object) -> object:
    """When one backend was last asked something."""
    async with await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True) as admin:
        cursor = await admin.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", [pid])
        row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def last_query(pair: Pair, pid: object) -> object:
    async with await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True) as admin:
        cursor = await admin.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [pid])
        row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def take_over(router: RouterClient, switchover: Switchover, pair: Pair, pids: list[object]) -> int:
    """Switch over; how many of blue's backends were asked something for it in the pause."""
    before = [await last_query_at(pair, pid) for pid in pids]
    parked, pinned = await switchover.hand_over()
    assert pinned == {}
    after = [await last_query_at(pair, pid) for pid in pids]
    await router.commit(parked.generation, [switchover.switched], hold=False)
    await router.release(parked.generation)
    return sum(one != other for one, other in zip(before, after, strict=True))


async def test_silent_clients_are_not_asked_again(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    """But for one of them, which is asked for everybody's advisory locks."""
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(endpoint)) for _ in range(3)]
        for connection in connections:
            await connection.execute("SET work_mem = '7MB'")
        pids = [await one(connection, "SELECT pg_backend_pid()") for connection in connections]
        await switchover.ready()
        assert await take_over(router, switchover, pair, pids) == 1
        for connection in connections:
            assert await one(connection, "SHOW work_mem") == "7MB"
            assert await one(connection, "SELECT label FROM which") == "green"


async def test_clients_that_fall_silent_are_asked_before_the_pause(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    """What they say after they were made ready is carried as well, and costs nothing in the pause."""
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(await connect(endpoint)) for _ in range(3)]
        pids = [await one(connection, "SELECT pg_backend_pid()") for connection in connections]
        await switchover.ready()
        for connection in connections:
            await connection.execute("SET work_mem = '9MB'")

        async def all_asked() -> bool:
            return "SET work_mem = '9MB'" not in [await last_query(pair, pid) for pid in pids]

        await until(all_asked)
        assert await take_over(router, switchover, pair, pids) == 1
        for connection in connections:
            assert await one(connection, "SHOW work_mem") == "9MB"


async def test_who_has_stopped_is_asked_while_others_are_on_their_way(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    """The pause begins when the first session stops, and most of them have long stopped when the last one does."""
    async with await connect(endpoint) as straggler, await connect(endpoint) as other:
        pid = await one(other, "SELECT pg_backend_pid()")
        await switchover.ready()
        await straggler.set_autocommit(False)
        await straggler.execute("SELECT 1")
        await other.execute("SET work_mem = '9MB'")
        parking = asyncio.create_task(router.park("app", budget_s=20, lease_s=10))

        async def is_asked() -> bool:
            return await last_query(pair, pid) != "SET work_mem = '9MB'"

        await until(is_asked)
        asked_at = await last_query_at(pair, pid)
        assert not parking.done()
        await straggler.commit()
        parked = await parking
        assert isinstance(parked, Parked)
        assert (await router.hand_over(parked.generation)).pinned == {}
        # ``straggler`` is asked for the locks, or this one: then for nothing else.
        assert await last_query_at(pair, pid) == asked_at or "pg_locks" in str(await last_query(pair, pid))
        await switchover.commit(parked)
        assert await one(other, "SHOW work_mem") == "9MB"
        assert await one(other, "SELECT label FROM which") == "green"


async def test_who_stops_while_being_asked_is_asked_again(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    """Who falls silent is asked after 5 to 10 ms. A park that comes then leaves that question without its answer."""
    async with await connect(endpoint) as straggler, await connect(endpoint) as other:
        pid = await one(other, "SELECT pg_backend_pid()")
        await straggler.set_autocommit(False)
        for silence_ms in range(12):
            await switchover.ready()
            await straggler.execute("SELECT 1")
            await other.execute("SET work_mem = '9MB'")
            await asyncio.sleep(silence_ms / 1000)  # what is tried: when the park comes
            parking = asyncio.create_task(router.park("app", budget_s=20, lease_s=10))

            async def is_asked() -> bool:
                return await last_query(pair, pid) != "SET work_mem = '9MB'"

            await until(is_asked, limit_s=30)
            await straggler.commit()
            parked = await parking
            assert isinstance(parked, Parked)
            await router.abort(parked.generation)


@pytest.mark.parametrize(
    ("before", "after", "question", "answer"),
    [
        ("SET work_mem = '7MB'", "SET work_mem = '9MB'", "SHOW work_mem", "9MB"),
        ("SET work_mem = '7MB'", "RESET work_mem", "SHOW work_mem", "4MB"),
        ("SELECT 1", "SET app.tenant = 'late'", "SHOW app.tenant", "late"),
        ("SET ROLE reporting", "RESET ROLE", "SELECT current_user::text", "alice"),
        ("SELECT 1", "SET ROLE reporting", "SELECT current_user::text", "reporting"),
        ("PREPARE q AS SELECT 'old'", "DEALLOCATE q", "SELECT count(*)::text FROM pg_prepared_statements", "0"),
        ("SELECT 1", "PREPARE q AS SELECT 'new'", "EXECUTE q", "new"),
        ("SET statement_timeout = '1ms'", "SET statement_timeout = '60s'", "SHOW statement_timeout", "1min"),
    ],
)
async def test_what_changes_after_the_session_was_made_ready_is_what_counts(
    endpoint: Endpoint, switchover: Switchover, before: str, after: str, question: str, answer: str
) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute(before)
        await switchover.ready()
        await insist(connection, after)
        assert await switchover.finish() == {}
        assert await one(connection, question) == answer


async def test_the_unnamed_statement_may_change_alone(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        connection.pgconn.prepare(b"", b"SELECT 'first'")
        await switchover.ready()
        connection.pgconn.prepare(b"", b"SELECT 'second'")
        assert await switchover.finish() == {}
        assert connection.pgconn.exec_prepared(b"", []).get_value(0, 0) == b"second"


async def test_the_unnamed_statement_may_vanish(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        connection.pgconn.prepare(b"", b"SELECT 'first'")
        await switchover.ready()
        connection.pgconn.exec_(b"SELECT 1")  # a simple Query destroys it
        assert await switchover.finish() == {}
        assert connection.pgconn.exec_prepared(b"", []).error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000"


async def test_a_pin_that_came_after_the_session_was_made_ready(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        await switchover.ready()
        await connection.execute("SELECT set_config('app.' || 'computed', 'x', false)")
        assert await switchover.finish() == {"custom-settings": 1}


async def test_a_second_attempt_carries_what_is_true_then(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute("SET work_mem = '7MB'")
        await switchover.ready()
        parked, _ = await switchover.hand_over()
        await router.abort(parked.generation)
        await connection.execute("SET work_mem = '8MB'")
        await switchover.ready()
        await connection.execute("SET lock_timeout = '3s'")
        assert await switchover.finish() == {}
        assert (await one(connection, "SHOW work_mem"), await one(connection, "SHOW lock_timeout")) == ("8MB", "3s")


async def test_busy_clients_are_asked_between_two_requests(endpoint: Endpoint, switchover: Switchover) -> None:
    """None of them waits for us to come to a stop, and none sees an answer that is not its own."""
    stop = asyncio.Event()
    done = [0] * 8

    async def work(number: int) -> None:
        async with await connect(endpoint) as connection:
            await connection.execute(f"SET app.number = '{number}'")
            while not stop.is_set():
                answer = await (await connection.execute("SELECT %s::int + 1", [done[number]])).fetchone()
                done[number] += 1
                assert answer == (done[number],)
            assert await one(connection, "SHOW app.number") == str(number)
            assert await one(connection, "SELECT label FROM which") == "green"

    workers = [asyncio.create_task(work(number)) for number in range(len(done))]
    for round_number in range(1, 6):
        await until(lambda: min(done) >= 10 * round_number)  # noqa: B023  asked within the round
        await switchover.ready()
    assert await switchover.finish() == {}
    moved = list(done)
    await until(lambda: all(now > then for now, then in zip(done, moved, strict=True)))
    stop.set()
    await asyncio.gather(*workers)
