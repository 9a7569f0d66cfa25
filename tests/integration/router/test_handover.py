"""Sessions move from blue to green with their state, without the password, and without the client doing anything."""

import asyncio
from collections.abc import Iterable

import asyncpg
import msgspec
import psycopg
import pytest
from psycopg import sql

from tests.conftest import MASTER, until
from tests.integration.router.clients import (
    ALICE,
    ALICE_PASSWORD,
    Connection,
    Endpoint,
    Pair,
    Switchover,
    bytes_from_clients,
    connect,
    has_heard,
    insist,
    one,
    park,
)
from verdigris.domain.errors import ParkBroken
from verdigris.domain.ports import Route
from verdigris.router.client import RouterClient


async def test_session_moves(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        assert await one(connection, "SELECT label FROM which") == "blue"
        assert await switchover.run() == {}
        assert await one(connection, "SELECT label FROM which") == "green"
        assert await one(connection, "SHOW transaction_read_only") == "off"


async def test_sessions_move_again_before_the_last_of_them_have_been_let_go(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    """Whoever is idle goes last, while somebody's request is at work; another switchover may follow at once."""
    async with await connect(endpoint) as busy, await connect(endpoint) as idle:
        parked, _ = await switchover.ready_and_hand_over()
        before = await bytes_from_clients(router)
        asked = asyncio.create_task(busy.execute("SELECT pg_sleep(0.5)"))
        await until(lambda: has_heard(router, before + 1))
        await switchover.commit(parked)
        assert await switchover.run() == {}
        await asked
        for connection in (busy, idle):
            assert await one(connection, "SELECT label FROM which") == "green"


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


async def test_session_authorization_moves(
    endpoint: Endpoint, router: RouterClient, pair: Pair, switched: Route
) -> None:
    """A login that may, with a role on top of the one it acts as."""
    verifiers: dict[str, str] = {}
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
            stored = verifiers.get("chief", "chief's own")
            await admin.execute(sql.SQL("CREATE ROLE chief SUPERUSER LOGIN PASSWORD {}").format(stored))
            cursor = await admin.execute("SELECT rolname, rolpassword FROM pg_authid WHERE rolname = 'chief'")
            verifiers = dict(await cursor.fetchall())
    switchover = Switchover(router, msgspec.structs.replace(pair, verifiers=verifiers), switched)
    try:
        conninfo = endpoint.conninfo("chief", "chief's own")
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
            await connection.execute(f"SET SESSION AUTHORIZATION {ALICE}")
            await connection.execute("SET ROLE reporting")
            assert await switchover.run() == {}
            assert await one(connection, "SELECT label FROM which") == "green"
            assert await one(connection, "SELECT current_user || ' ' || session_user") == "reporting alice"
            await connection.execute("RESET SESSION AUTHORIZATION")
            assert await one(connection, "SELECT current_user || ' ' || session_user") == "chief chief"
    finally:
        for conninfo in (pair.blue_admin, pair.green_admin):
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
                await admin.execute("DROP ROLE chief")


async def test_a_session_whose_triggers_are_silent_is_so_on_green(
    endpoint: Endpoint, switchover: Switchover, pair: Pair
) -> None:
    """``session_replication_role``, which a role may set that was given the right to: its loads fire no triggers and
    check no foreign keys, and would do both after the switchover."""
    fires = (
        "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''fired''; END'",
        "CREATE TABLE loaded (id int PRIMARY KEY)",
        "CREATE TRIGGER fires BEFORE INSERT ON loaded FOR EACH ROW EXECUTE FUNCTION fires()",
        "GRANT ALL ON loaded TO PUBLIC",
        f"GRANT SET ON PARAMETER session_replication_role TO {ALICE}",
    )
    undo = (
        "DROP TABLE loaded",
        "DROP FUNCTION fires",
        f"REVOKE SET ON PARAMETER session_replication_role FROM {ALICE}",
    )
    try:
        await _on_both(pair, fires)
        async with await connect(endpoint) as connection, await connect(endpoint) as other:
            await connection.execute("SET session_replication_role = replica")
            await connection.execute("INSERT INTO loaded VALUES (1)")
            assert await switchover.run() == {}
            assert await one(connection, "SELECT label FROM which") == "green"
            await connection.execute("INSERT INTO loaded VALUES (2)")
            with pytest.raises(psycopg.errors.RaiseException, match="fired"):
                await other.execute("INSERT INTO loaded VALUES (3)")
            await connection.execute("RESET session_replication_role")
            with pytest.raises(psycopg.errors.RaiseException, match="fired"):
                await connection.execute("INSERT INTO loaded VALUES (3)")
    finally:
        await _on_both(pair, undo)


async def _on_both(pair: Pair, statements: Iterable[str]) -> None:
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
            for statement in statements:
                await admin.execute(statement.encode())


OWN = "SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings WHERE source = 'session'"


async def test_what_a_session_has_not_set_follows_the_server(
    endpoint: Endpoint, switchover: Switchover, pair: Pair
) -> None:
    """What it has set is its own, also where the value is the default's."""
    async with await connect(endpoint) as plain, await connect(endpoint) as zero, await connect(endpoint) as long:
        await zero.execute("SET statement_timeout = 0")
        await long.execute("SET statement_timeout = '2h'")
        connections = (plain, zero, long)
        before = [await one(connection, OWN) for connection in connections]
        assert before == [None, ["statement_timeout=0"], ["statement_timeout=7200000"]]
        assert await switchover.run() == {}
        assert [await one(connection, OWN) for connection in connections] == before
        async with await psycopg.AsyncConnection.connect(pair.green_admin, autocommit=True) as admin:
            await admin.execute("ALTER SYSTEM SET statement_timeout = '77s'")
            try:
                await admin.execute("SELECT pg_reload_conf()")
                await until(lambda: shows(plain, "77s"))
                assert await shows(zero, "0")
                assert await shows(long, "2h")
            finally:
                await admin.execute("ALTER SYSTEM RESET statement_timeout")
                await admin.execute("SELECT pg_reload_conf()")


async def shows(connection: Connection, timeout: str) -> bool:
    return await one(connection, "SHOW statement_timeout") == timeout


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
        ("temporary-objects", ["CREATE FUNCTION pg_temp.scratch() RETURNS int LANGUAGE sql RETURN 1"]),
        ("held-cursors", ["DECLARE c CURSOR WITH HOLD FOR SELECT ROW(1, 2)"]),
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


async def test_state_is_read_whatever_the_session_has_set(
    endpoint: Endpoint, switchover: Switchover, pair: Pair
) -> None:
    """Another encoding, functions and operators that stand before pg_catalog's, and a timeout of a millisecond."""
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
            await admin.execute(TRAPS)
    try:
        async with await connect(endpoint) as connection:
            for statement in (
                "SET client_encoding = 'LATIN1'",
                "SET application_name = 'caf\u00e9'",
                "SET app.drink = 'caf\u00e9'",
                "PREPARE \"th\u00e9\" AS SELECT 'caf\u00e9'::text",
                "SET search_path = traps, public, pg_catalog",
                "SET statement_timeout = 1",
            ):
                await connection.execute(statement)
            assert await switchover.run() == {}
            await insist(connection, "SET statement_timeout = 0")
            assert await one(connection, "SHOW search_path") == "traps, public, pg_catalog"
            assert await one(connection, 'EXECUTE "th\u00e9"') == "caf\u00e9"
            assert await one(connection, "SHOW app.drink") == "caf\u00e9"
            assert await one(connection, "SELECT label FROM which") == "green"
    finally:
        for conninfo in (pair.blue_admin, pair.green_admin):
            async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
                await admin.execute("DROP SCHEMA traps CASCADE")


TRAPS = """
CREATE SCHEMA traps;
GRANT USAGE ON SCHEMA traps TO PUBLIC;
CREATE FUNCTION traps.trap(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END';
CREATE FUNCTION traps.trap(oid, oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END';
CREATE FUNCTION traps.joined(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END';
CREATE OPERATOR traps.= (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.trap);
CREATE OPERATOR traps.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.trap);
CREATE OPERATOR traps.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = traps.trap);
CREATE OPERATOR traps.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.joined);
CREATE FUNCTION traps.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END';
CREATE FUNCTION traps.current_setting(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''trapped''; END';
CREATE TABLE traps.pg_settings (name text);
CREATE TABLE traps.pg_prepared_statements (name text);
"""


async def test_statements_prepared_in_one_string(endpoint: Endpoint, pair: Pair, switchover: Switchover) -> None:
    """The server keeps the whole string of each; what else was in it does not run again."""
    async with await psycopg.AsyncConnection.connect(pair.green_admin, autocommit=True) as admin:
        await admin.execute("UPDATE work SET n = 0 WHERE id = 1")
    async with await connect(endpoint) as connection:
        connection.pgconn.exec_(
            b"UPDATE work SET n = 1 WHERE id = 1; PREPARE one AS SELECT label || ';' FROM which;"
            b'PREPARE "Two" (int) AS UPDATE work SET n = n + $1 WHERE id = 1 RETURNING n; EXECUTE "Two" (1)'
        )
        assert await switchover.run() == {}
        assert await one(connection, "EXECUTE one") == "green;"
        before = await one(connection, "SELECT n FROM work WHERE id = 1")
        assert before == 0
        assert await one(connection, 'EXECUTE "Two" (40)') == 40
        await connection.execute("UPDATE work SET n = 0 WHERE id = 1")
        # Once more, from where they are alone in their strings.
        assert await switchover.run() == {}
        assert await one(connection, "EXECUTE one") == "green;"


async def test_statements_that_cannot_be_made_again(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    """Both are known before a switchover."""
    async with await connect(endpoint) as first, await connect(endpoint) as second:
        first.pgconn.exec_(b"PREPARE one AS SELECT 1; DEALLOCATE one; PREPARE one AS SELECT 2")
        second.pgconn.prepare(b"", b"SELECT '" + b"x" * 300_000 + b"'")
        pins = {"prepared-statements": 1, "unnamed-statement": 1}
        assert (await router.pins("app", switchover.pair.verifiers, budget_s=20)).pinned == pins
        assert await switchover.run() == pins


async def test_what_cannot_move_is_named_beforehand(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as pinned, await connect(endpoint) as other, await connect(endpoint) as busy:
        await pinned.execute("SELECT set_config('app.' || 'computed', 'x', false)")
        await busy.set_autocommit(False)
        await busy.execute("CREATE TEMP TABLE scratch (x int)")
        report = await router.ready("app", switchover.pair.green, switchover.pair.verifiers)
        assert (report.sessions, report.dialled, report.pinned) == (3, 3, {"custom-settings": 1})
        assert await one(other, "SELECT label FROM which") == "blue"
        assert await one(pinned, "SELECT label FROM which") == "blue"
        await busy.rollback()
        assert await switchover.run() == {"custom-settings": 1}


async def test_only_who_has_logged_in_can_be_dialled(
    endpoint: Endpoint, router: RouterClient, pair: Pair, switched: Route
) -> None:
    """No verifier for the role, or another password by now: the session ends, and no password is ever guessed."""
    async with await connect(endpoint) as connection:
        other = pair.verifiers[MASTER]
        for verifiers in ({}, {ALICE: other}):
            report = await router.ready("app", pair.green, verifiers)
            assert (report.dialled, report.pinned) == (0, {"authentication": 1})
        parked = await park(router)
        assert (await router.hand_over(parked.generation)).pinned == {"authentication": 1}
        await router.commit(parked.generation, [switched], hold=False)
        await router.release(parked.generation)
        with pytest.raises(psycopg.errors.AdminShutdown, match="authentication"):
            await connection.execute("SELECT 1")


async def test_late_comers_are_dialled_and_leavers_forgotten(
    endpoint: Endpoint, router: RouterClient, pair: Pair, switched: Route
) -> None:
    leaver = await connect(endpoint)
    assert (await router.ready("app", pair.green, pair.verifiers)).dialled == 1
    await leaver.close()
    async with await connect(endpoint) as late:
        parked = await park(router)
        assert (await router.hand_over(parked.generation)).carried == 1
        assert (await router.hand_over(parked.generation)).carried == 1
        await router.commit(parked.generation, [switched], hold=False)
        await router.release(parked.generation)
        assert await one(late, "SELECT label FROM which") == "green"
    await until(lambda: none_on_green(pair))


async def none_on_green(pair: Pair) -> bool:
    async with await psycopg.AsyncConnection.connect(pair.green_admin) as admin:
        cursor = await admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ALICE])
        return await cursor.fetchone() == (0,)


async def test_unready_closes_what_was_dialled(endpoint: Endpoint, router: RouterClient, pair: Pair) -> None:
    async with await connect(endpoint) as connection:
        assert (await router.ready("app", pair.green, pair.verifiers)).dialled == 1
        assert not await none_on_green(pair)
        await router.unready("app")
        await until(lambda: none_on_green(pair))
        assert await one(connection, "SELECT label FROM which") == "blue"


async def test_cancel_follows_the_session(endpoint: Endpoint, switchover: Switchover) -> None:
    """The client keeps the key that blue gave it."""
    async with await connect(endpoint) as connection:
        assert await switchover.run() == {}
        assert await one(connection, "SELECT pg_backend_pid()") != connection.pgconn.backend_pid
        running = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await until(lambda: sleeping_on_green(switchover.pair))
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running


async def test_cancel_with_a_key_of_protocol_3_2(endpoint: Endpoint, pair: Pair, switchover: Switchover) -> None:
    """Such keys are longer; before the switchover, and after it by the key that the former backend gave."""
    await switchover.run()
    async with await connect(endpoint, min_protocol_version="3.2", max_protocol_version="3.2") as connection:
        assert await one(connection, "SELECT label FROM which") == "green"
        for _ in range(2):
            running = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
            await until(lambda: sleeping_on_green(pair))
            await connection.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                await running
            pid = await one(connection, "SELECT pg_backend_pid()")
            assert await switchover.run() == {}
            assert await one(connection, "SELECT pg_backend_pid()") != pid
        assert connection.pgconn.full_protocol_version == 30002


async def sleeping_on_green(pair: Pair) -> bool:
    async with await psycopg.AsyncConnection.connect(pair.green_admin) as admin:
        cursor = await admin.execute("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'")
        return await cursor.fetchone() == (1,)


async def test_asyncpg_moves(endpoint: Endpoint, switchover: Switchover) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=endpoint.route.port, user=ALICE, password=ALICE_PASSWORD, database="app"
    )
    try:
        prepared = await connection.prepare("SELECT label, $1::int FROM which")
        assert tuple(await prepared.fetchrow(1)) == ("blue", 1)
        assert await switchover.run() == {}
        assert tuple(await prepared.fetchrow(2)) == ("green", 2)
        assert await connection.fetchval("SHOW default_transaction_read_only") == "off"
    finally:
        await connection.close()


async def test_read_only_role_stays_read_only(endpoint: Endpoint, switchover: Switchover, pair: Pair) -> None:
    """Dialled connections override green's read-only default; what the role itself says must survive that."""
    async with await psycopg.AsyncConnection.connect(pair.blue_admin, autocommit=True) as admin:
        await admin.execute("ALTER ROLE alice SET default_transaction_read_only = on")
        try:
            async with await connect(endpoint) as connection:
                assert await switchover.run() == {}
                assert await one(connection, "SELECT label FROM which") == "green"
                assert await one(connection, "SHOW transaction_read_only") == "on"
        finally:
            await admin.execute("ALTER ROLE alice RESET default_transaction_read_only")


async def test_newer_protocol_than_blue_speaks(endpoint: Endpoint, switchover: Switchover) -> None:
    """Blue brings 3.2 down to 3.0; green, which speaks it, is dialled with what client and blue agreed on."""
    async with await connect(endpoint, max_protocol_version="3.2") as connection:
        assert await switchover.run() == {}
        assert await one(connection, "SELECT label FROM which") == "green"
        assert connection.pgconn.full_protocol_version == 30000
