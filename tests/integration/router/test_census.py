"""Sessions that a switchover would not carry are counted without one, and without anybody noticing."""

import asyncio

import psycopg
from psycopg import sql

from tests.conftest import until
from tests.integration.router.clients import ALICE, ALICE_PASSWORD, Endpoint, Pair, Switchover, connect, one, park
from verdigris.domain.ports import PinReport
from verdigris.router.client import RouterClient

# What its server keeps is the whole string, and nobody can run that again by the extended protocol.
PIN = b"PREPARE pin AS SELECT 1; DEALLOCATE pin; PREPARE pin AS SELECT 2"
UNPIN = "DEALLOCATE pin"


async def look(router: RouterClient, pair: Pair, *, budget_s: float = 5.0) -> PinReport:
    return await router.pins("app", pair.verifiers, budget_s=budget_s)


async def query_started_at(pair: Pair, pid: int) -> object:
    async with await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True) as admin:
        cursor = await admin.execute("SELECT query_start FROM pg_stat_activity WHERE pid = %s", [pid])
        row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def test_pins_are_counted_by_reason_and_follow_what_clients_do(
    endpoint: Endpoint, router: RouterClient, pair: Pair
) -> None:
    assert await look(router, pair) == PinReport(sessions=0)
    async with await connect(endpoint) as first, await connect(endpoint) as second, await connect(endpoint):
        first.pgconn.exec_(PIN)
        await second.execute("SELECT set_config('app.' || 'computed', 'x', false)")
        expected = {"prepared-statements": 1, "custom-settings": 1}
        assert await look(router, pair) == PinReport(sessions=3, pinned=expected)
        await first.execute(UNPIN)
        assert await look(router, pair) == PinReport(sessions=3, pinned={"custom-settings": 1})
    await until(lambda: nobody_is_left(router, pair))


async def nobody_is_left(router: RouterClient, pair: Pair) -> bool:
    return await look(router, pair) == PinReport(sessions=0)


async def test_a_login_that_cannot_be_repeated_is_known_from_the_passwords_of_now(
    endpoint: Endpoint, router: RouterClient, pair: Pair
) -> None:
    async with await connect(endpoint):
        assert (await look(router, pair)).pinned == {}
        async with await psycopg.AsyncConnection.connect(pair.blue_admin) as admin:  # rolled back at its end
            await admin.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ALICE), sql.Literal("another"))
            )
            cursor = await admin.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ALICE])
            row = await cursor.fetchone()
            assert row is not None
            changed = {ALICE: str(row[0])}
            await admin.rollback()
        assert (await router.pins("app", changed, budget_s=5)).pinned == {"authentication": 1}
        assert (await router.pins("app", {}, budget_s=5)).pinned == {"authentication": 1}
        assert (await look(router, pair)).pinned == {}
        async with await connect(endpoint, password=ALICE_PASSWORD):
            assert (await look(router, pair)) == PinReport(sessions=2)


async def test_a_silent_client_is_asked_once(endpoint: Endpoint, router: RouterClient, pair: Pair) -> None:
    async with await connect(endpoint) as connection:
        connection.pgconn.exec_(PIN)
        await look(router, pair)
        asked = await query_started_at(pair, connection.pgconn.backend_pid)
        assert (await look(router, pair)).pinned == {"prepared-statements": 1}
        assert await query_started_at(pair, connection.pgconn.backend_pid) == asked
        await connection.execute("SELECT 1")
        spoken = await query_started_at(pair, connection.pgconn.backend_pid)
        await look(router, pair)
        assert await query_started_at(pair, connection.pgconn.backend_pid) != spoken


async def test_a_session_in_a_transaction_is_left_alone_and_counted_as_unseen(
    endpoint: Endpoint, router: RouterClient, pair: Pair
) -> None:
    async with await connect(endpoint) as connection:
        await connection.set_autocommit(False)
        await connection.execute("SELECT 1")
        connection.pgconn.exec_(PIN)
        before = await query_started_at(pair, connection.pgconn.backend_pid)
        assert await look(router, pair) == PinReport(sessions=1, unseen=1)
        assert await query_started_at(pair, connection.pgconn.backend_pid) == before
        await connection.commit()
        assert await look(router, pair) == PinReport(sessions=1, pinned={"prepared-statements": 1})
        await connection.execute("SELECT 1")  # a transaction again: what was seen last stands
        assert await look(router, pair) == PinReport(sessions=1, pinned={"prepared-statements": 1})


async def test_sessions_in_long_transactions_do_not_use_the_time_of_the_others_up(
    endpoint: Endpoint, router: RouterClient, pair: Pair
) -> None:
    async with await connect(endpoint) as idle:
        holders = [await connect(endpoint) for _ in range(24)]
        for holder in holders:
            await holder.execute("BEGIN")
        idle.pgconn.exec_(PIN)
        report = await look(router, pair, budget_s=0.5)
        assert (report.sessions, report.unseen, report.pinned) == (25, 24, {"prepared-statements": 1})
        for holder in holders:
            await holder.close()


async def test_nobody_is_asked_in_a_park(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover, pair: Pair
) -> None:
    async with await connect(endpoint) as connection:
        await switchover.ready()
        before = await query_started_at(pair, connection.pgconn.backend_pid)
        parked = await park(router)
        assert await look(router, pair) == PinReport(sessions=1, unseen=1)
        assert await query_started_at(pair, connection.pgconn.backend_pid) == before
        assert (await router.hand_over(parked.generation)).carried == 1
        await router.commit(parked.generation, [switchover.switched], hold=False)
        await router.release(parked.generation)
        assert await look(router, pair) == PinReport(sessions=1)
        assert await one(connection, "SELECT label FROM which") == "green"


async def test_busy_clients_do_not_notice(endpoint: Endpoint, router: RouterClient, pair: Pair) -> None:
    """Each gets its own answers, in order, while it is looked at again and again; and a park comes in between."""
    stop = asyncio.Event()
    done = [0] * 8

    async def work(number: int) -> None:
        async with await connect(endpoint) as connection:
            while not stop.is_set():
                answer = await (await connection.execute("SELECT %s::int + 1", [done[number]])).fetchone()
                done[number] += 1
                assert answer == (done[number],)

    async def look_on() -> int:
        looks = 0
        while not stop.is_set():
            report = await look(router, pair)
            assert report.pinned == {}
            looks += 1
        return looks

    workers = [asyncio.create_task(work(number)) for number in range(len(done))]
    looking = asyncio.create_task(look_on())
    for round_number in range(1, 6):
        await until(lambda: min(done) >= 20 * round_number)  # noqa: B023  asked within the round
        parked = await park(router)
        await router.release(parked.generation)
    stop.set()
    await asyncio.gather(*workers)
    assert await looking > 5
