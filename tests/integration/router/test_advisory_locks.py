"""Session advisory locks through a switchover: held as often as before, and nobody gets in between."""

import asyncio

import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Connection, Endpoint, Pair, Switchover, connect, insist, one
from verdigris.router.client import RouterClient

HELD = {
    "7": 1,
    "-9223372036854775808": 3,
    "9223372036854775807": 1,
    "1, 2": 2,
    "-1, -2147483648": 1,
}
SHARED = {"8": 2, "3, -4": 1}


async def lock_all(connection: Connection) -> None:
    for key, times in HELD.items():
        for _ in range(times):
            await connection.execute(f"SELECT pg_advisory_lock({key})")
    for key, times in SHARED.items():
        for _ in range(times):
            await connection.execute(f"SELECT pg_advisory_lock_shared({key})")


async def unlock_all(connection: Connection) -> None:
    """Each as often as it was taken, and not once more."""
    for kind, held in (("", HELD), ("_shared", SHARED)):
        for key, times in held.items():
            given_back = [await one(connection, f"SELECT pg_advisory_unlock{kind}({key})") for _ in range(times + 1)]
            assert given_back == [True] * times + [False], (kind, key)


@pytest.mark.parametrize("idle", [True, False])
async def test_held_as_often_as_before(endpoint: Endpoint, switchover: Switchover, idle: bool) -> None:
    notices: list[str | None] = []
    async with await connect(endpoint) as connection:
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
        await lock_all(connection)
        await connection.execute("SET statement_timeout = 3")
        await switchover.ready()
        if not idle:
            await insist(connection, "SELECT 1")
        assert await switchover.finish() == {}
        assert await insist(connection, "SHOW statement_timeout") == "3ms"
        await insist(connection, "SET statement_timeout = 0")
        assert await one(connection, "SELECT label FROM which") == "green"
        assert await one(connection, "SHOW client_min_messages") == "notice"
        assert notices == []
        async with await connect(endpoint) as other:
            for key in HELD:
                assert await one(other, f"SELECT pg_try_advisory_lock({key})") is False
                assert await one(other, f"SELECT pg_try_advisory_lock_shared({key})") is False
            for key in SHARED:
                assert await one(other, f"SELECT pg_try_advisory_lock({key})") is False
                assert await one(other, f"SELECT pg_try_advisory_lock_shared({key})") is True
        await unlock_all(connection)


async def test_given_up_switchover_leaves_the_locks(
    endpoint: Endpoint, switchover: Switchover, router: RouterClient, pair: Pair
) -> None:
    async with await connect(endpoint) as connection, await connect(endpoint) as other:
        await lock_all(connection)
        await switchover.ready()
        parked, pinned = await switchover.hand_over()
        assert pinned == {}
        await router.abort(parked.generation)
        assert await one(connection, "SELECT label FROM which") == "blue"
        await unlock_all(connection)
        # Another session takes the lock before the next attempt: nothing on green may be in its way.
        assert await one(other, "SELECT pg_try_advisory_lock(7)") is True
        assert await switchover.run() == {}
        assert await one(connection, "SELECT pg_try_advisory_lock(7)") is False
        assert await one(other, "SELECT pg_advisory_unlock(7)") is True


async def test_lock_that_is_taken_on_the_target_is_a_pin(
    endpoint: Endpoint, switchover: Switchover, pair: Pair
) -> None:
    async with (
        await connect(endpoint) as connection,
        await psycopg.AsyncConnection.connect(pair.green_admin, autocommit=True) as admin,
    ):
        await connection.execute("SELECT pg_advisory_lock(7)")
        await admin.execute("SELECT pg_advisory_lock(7)")
        assert await switchover.run() == {"advisory-locks": 1}
        with pytest.raises(psycopg.errors.AdminShutdown, match="switchover"):
            await connection.execute("SELECT 1")


async def test_nobody_gets_in_between(endpoint: Endpoint, switchover: Switchover, pair: Pair) -> None:
    """Contenders by the router and past it try all the time; only the holder ever has the lock."""
    stop = asyncio.Event()
    tried: dict[str, int] = {}
    got: list[str] = []

    async def contend(name: str, conninfo: str) -> None:
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            while not stop.is_set():
                if await one(connection, "SELECT pg_try_advisory_lock(42)"):
                    got.append(name)
                    return
                tried[name] = tried.get(name, 0) + 1

    async with await connect(endpoint) as holder, asyncio.timeout(30), asyncio.TaskGroup() as group:
        await holder.execute("SELECT pg_advisory_lock(42)")
        await holder.execute("SELECT pg_advisory_lock(42)")
        for number in range(3):
            group.create_task(contend(f"client {number}", endpoint.conninfo()))
        group.create_task(contend("on blue", pair.blue_admin))
        await until(lambda: len(tried) == 4)
        parked, pinned = await switchover.ready_and_hand_over()
        assert pinned == {}
        # Past the router, on green: from the moment of the handover on.
        async with await psycopg.AsyncConnection.connect(pair.green_admin, autocommit=True) as admin:
            assert await one(admin, "SELECT pg_try_advisory_lock(42)") is False
        await switchover.commit(parked)
        before = dict(tried)
        await until(lambda: all(tried[name] > before[name] + 5 for name in tried if name != "on blue"))
        assert await one(holder, "SELECT label FROM which") == "green"
        stop.set()
    assert [name for name in got if name != "on blue"] == []
