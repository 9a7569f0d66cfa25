"""Sessions move from blue to green with their state, without the password, and without the client doing anything."""

import psycopg
import pytest

from tests.integration.router.clients import Endpoint, Switchover, connect, one
from verdigris.domain.errors import ParkBroken
from verdigris.router.client import RouterClient


async def test_session_moves(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        assert await one(connection, "SELECT label FROM which") == "blue"
        assert await switchover.run() == {}
        assert await one(connection, "SELECT label FROM which") == "green"
        assert await one(connection, "SHOW transaction_read_only") == "off"


async def test_settings_move(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint, options="-c work_mem=5MB") as connection:
        for statement in (
            "SET search_path = information_schema, public, pg_catalog",
            "SET application_name = 'o''reilly'",
            "SET TimeZone = 'Asia/Tokyo'",
            "SET statement_timeout = '7s'",
            "SET default_transaction_isolation = 'serializable'",
            "SET standard_conforming_strings = off",
            "SET escape_string_warning = off",
            "SET app.tenant = 'forty two'",
            "SET app.\"Odd\" TO 'x'",
            "SET ROLE reporting",
        ):
            await connection.execute(statement)
        shown = ("search_path", "application_name", "TimeZone", "statement_timeout", "default_transaction_isolation",
                 "standard_conforming_strings", "app.tenant", "app.odd", "work_mem", "lock_timeout")  # fmt: skip
        before = [await one(connection, f"SHOW {name}") for name in shown]
        assert await switchover.run() == {}
        assert [await one(connection, f"SHOW {name}") for name in shown] == before
        assert await one(connection, "SELECT current_user") == "reporting"
        assert await one(connection, "SELECT session_user") == "alice"
        assert await one(connection, "SELECT count(*) FROM pg_prepared_statements") == 0
        assert connection.pgconn.parameter_status(b"server_version") == b"18.6"
        await connection.execute("RESET ROLE")
        await connection.execute("SET standard_conforming_strings = on")
        assert await one(connection, "SELECT label FROM public.which") == "green"


async def test_prepared_statements_move(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute("PREPARE by_sql (int) AS SELECT $1 + 1")
        for _ in range(2):
            await connection.execute("SELECT %s::int + 40", [2], prepare=True)
        assert await switchover.run() == {}
        cursor = await connection.execute("SELECT %s::int + 40", [2], prepare=True)
        assert await cursor.fetchone() == (42,)
        assert await one(connection, "EXECUTE by_sql (41)") == 42
        assert await one(connection, "SELECT count(*) FROM pg_prepared_statements") == 2


async def test_unnamed_statement_moves(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        pgconn = connection.pgconn
        pgconn.prepare(b"", b"SELECT $1::int * 2, label FROM which")
        assert await switchover.run() == {}
        result = pgconn.exec_prepared(b"", [b"21"])
        assert (result.get_value(0, 0), result.get_value(0, 1)) == (b"42", b"green")


async def test_abort_leaves_the_session_as_it_was(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        pgconn = connection.pgconn
        pid = await one(connection, "SELECT pg_backend_pid()")
        pgconn.prepare(b"", b"SELECT $1::int * 2, label FROM which")
        parked, pinned = await switchover.ready_and_hand_over()
        assert parked.server_pids == (pid,)
        assert pinned == {}
        await router.abort(parked.generation)
        result = pgconn.exec_prepared(b"", [b"21"])
        assert (result.get_value(0, 0), result.get_value(0, 1)) == (b"42", b"blue")
        assert await one(connection, "SELECT count(*) FROM pg_prepared_statements") == 0
        assert await one(connection, "SELECT pg_backend_pid()") == pid
        with pytest.raises(ParkBroken):
            await router.commit(parked.generation, [switchover.switched], hold=False)
        assert await switchover.run() == {}
        assert await one(connection, "SELECT label FROM which") == "green"


@pytest.mark.parametrize(
    ("reason", "statements"),
    [
        ("listen", ["LISTEN news"]),
        ("advisory-locks", ["SELECT pg_advisory_lock(7)"]),
        ("temporary-objects", ["CREATE TEMP TABLE scratch (x int)"]),
        ("held-cursors", ["DECLARE c CURSOR WITH HOLD FOR SELECT 1"]),
        ("custom-settings", ["SELECT set_config('app.' || 'computed', 'x', false)"]),
    ],
)
async def test_pinned_session_ends_at_release(
    endpoint: Endpoint, switchover: Switchover, reason: str, statements: list[str]
) -> None:
    async with await connect(endpoint) as connection:
        for statement in statements:
            await connection.execute(statement)
        assert await switchover.run() == {reason: 1}
        with pytest.raises(psycopg.errors.AdminShutdown, match="switchover"):
            await connection.execute("SELECT 1")
    async with await connect(endpoint) as connection:
        assert await one(connection, "SELECT label FROM which") == "green"
