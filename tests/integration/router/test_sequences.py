"""currval() and lastval() go on: a session that has inserted in one transaction asks in the next, on another server."""

from collections.abc import AsyncIterator, Callable

import msgspec
import psycopg
import pytest
from psycopg import errors, sql

from tests.integration.router.clients import ALICE, Connection, Endpoint, Pair, Switchover, connect, insist, one
from verdigris.domain.ports import Helpers, Route
from verdigris.engines.postgres import session_functions
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.sessions import Session
from verdigris.router.client import RouterClient
from verdigris.router.state.sequences import SCAN_BEFOREHAND

NAMES = ObjectNames("bgd-0123456789abcdef")
HELPERS = Helpers(schema=NAMES.schema, databases=("app",), asking=("app",))
# What green's sequences stand at, as if they had been carried over.
GREEN_POSITION = 1000

MakeSwitchover = Callable[[Helpers | None], Switchover]


@pytest.fixture
async def sequences(pair: Pair) -> AsyncIterator[None]:
    """Tables with a sequence each on both sides, and the functions."""
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await Session.connect(conninfo, autocommit=True) as admin:
            await admin.run(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(NAMES.schema)))
            await session_functions.install(admin, NAMES)
            await admin.run("CREATE SCHEMA shop")
            await admin.run(f"GRANT ALL ON SCHEMA shop TO {ALICE}, reporting")
            for table in ("orders", "audit", '"Ä ""q"""'):
                await admin.execute(f"CREATE TABLE shop.{table} (id serial, note text)".encode())
            await admin.run(f"GRANT ALL ON ALL TABLES IN SCHEMA shop TO {ALICE}")
            await admin.run(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA shop TO {ALICE}")
            if conninfo == pair.green_admin:
                await admin.run("SELECT setval(seqrelid, %s) FROM pg_sequence", GREEN_POSITION)
    try:
        yield
    finally:
        for conninfo in (pair.blue_admin, pair.green_admin):
            async with await Session.connect(conninfo, autocommit=True) as admin:
                await admin.run("DROP SCHEMA shop CASCADE")
                await admin.run(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(NAMES.schema)))


@pytest.fixture
def switching(router: RouterClient, pair: Pair, switched: Route, sequences: None) -> MakeSwitchover:
    return lambda helpers: Switchover(router, pair, switched, helpers)


@pytest.fixture
def switchover(switching: MakeSwitchover) -> Switchover:
    return switching(HELPERS)


async def insert(connection: Connection, table: str = "orders", times: int = 1) -> None:
    for _ in range(times):
        await connection.execute(f"INSERT INTO shop.{table} DEFAULT VALUES".encode())


async def currval(connection: Connection, table: str = "orders") -> object:
    return await one(connection, f"SELECT currval('shop.{table}_id_seq')")


async def lastval(connection: Connection) -> object:
    return await one(connection, "SELECT lastval()")


async def assert_on_green(connection: Connection) -> None:
    assert await one(connection, "SELECT label FROM which") == "green"


async def forgotten(router: RouterClient) -> int:
    [statistics] = (await router.statistics()).endpoints
    return statistics.sequences_forgotten_total


async def positions(pair: Pair) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(pair.green_admin) as admin:
        cursor = await admin.execute("SELECT sequencename, last_value, cache_size FROM pg_sequences ORDER BY 1")
        return await cursor.fetchall()


@pytest.mark.parametrize("beforehand", [True, False])
async def test_a_session_gets_the_values_of_what_it_inserted(
    endpoint: Endpoint, switchover: Switchover, router: RouterClient, pair: Pair, beforehand: bool
) -> None:
    async with await connect(endpoint) as connection, await connect(endpoint) as other:
        if not beforehand:
            await switchover.ready()
        await insert(other, "audit", 2)
        await insert(connection, "audit", 3)
        await insert(connection, "orders", 2)
        wanted = [await lastval(connection), await currval(connection), await currval(connection, "audit")]
        of_other = await currval(other, "audit")
        before = await positions(pair)
        if beforehand:
            await switchover.ready()
        assert await switchover.finish() == {}
        await assert_on_green(connection)
        assert [await lastval(connection), await currval(connection), await currval(connection, "audit")] == wanted
        assert await lastval(other) == await currval(other, "audit") == of_other
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            await currval(other)
        assert await positions(pair) == before
        # And from here on green's own.
        await insert(connection)
        assert await lastval(connection) == await currval(connection) == GREEN_POSITION + 1
        assert await currval(connection, "audit") == wanted[2]
    assert await forgotten(router) == 0


@pytest.mark.parametrize("somebody_asks", [True, False])
async def test_only_where_somebody_asks(endpoint: Endpoint, switching: MakeSwitchover, somebody_asks: bool) -> None:
    """One that has left counts, too."""
    switchover = switching(msgspec.structs.replace(HELPERS, asking=()))
    async with await connect(endpoint) as connection:
        await insert(connection)
        if somebody_asks:
            async with await connect(endpoint) as other:
                await insert(other)
                await lastval(other)
        assert await switchover.run() == {}
        await assert_on_green(connection)
        if somebody_asks:
            assert await lastval(connection) == await currval(connection)
        else:
            with pytest.raises(errors.ObjectNotInPrerequisiteState):
                await lastval(connection)


async def test_lastval_goes_on_speaking_of_the_same_sequence(endpoint: Endpoint, switchover: Switchover) -> None:
    """Also where two have the same value: it follows the next setval() of the one, not of the other."""
    async with await connect(endpoint) as connection:
        for table in ("audit", "orders"):
            await connection.execute(f"SELECT setval('shop.{table}_id_seq', 40)".encode())
            await insert(connection, table)
        await switchover.run()
        assert await lastval(connection) == 41
        await connection.execute("SELECT setval('shop.audit_id_seq', 2000)")
        assert await lastval(connection) == 41
        await connection.execute("SELECT setval('shop.orders_id_seq', 3000)")
        assert await lastval(connection) == 3000


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
async def test_names_are_taken_as_they_are(endpoint: Endpoint, switchover: Switchover, encoding: str) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute(f"SET client_encoding TO {encoding}".encode())
        await connection.execute('INSERT INTO shop."Ä ""q""" DEFAULT VALUES')
        question = """SELECT currval('shop."Ä ""q""_id_seq"')"""
        value = await one(connection, question)
        await switchover.run()
        assert await one(connection, question) == await lastval(connection) == value


@pytest.mark.parametrize(
    "setting",
    [
        "SET default_transaction_read_only = on",
        "SET statement_timeout = '1ms'",
        "SET lock_timeout = '1ms'",
        "SET default_transaction_isolation = serializable",
        "SET search_path = ''",
        "SET standard_conforming_strings = off",
        "SET ROLE reporting",
        "SET client_min_messages = error",
    ],
)
async def test_what_the_session_has_set_is_not_in_the_way(
    endpoint: Endpoint, switchover: Switchover, setting: str
) -> None:
    async with await connect(endpoint) as connection:
        await insert(connection, times=3)
        value = await lastval(connection)
        await connection.execute(setting.encode())
        assert await switchover.run() == {}
        for reset in ("SET statement_timeout = 0", "RESET ROLE", "RESET search_path"):
            await insist(connection, reset)
        assert await lastval(connection) == value
        await assert_on_green(connection)


async def test_what_is_discarded_after_the_session_was_made_ready_is_gone(
    endpoint: Endpoint, switchover: Switchover, router: RouterClient
) -> None:
    async with await connect(endpoint) as connection, await connect(endpoint) as another:
        await insert(connection)
        await insert(another)
        await switchover.ready()
        await connection.execute("DISCARD SEQUENCES")
        await another.execute("DISCARD ALL")
        await insert(another, "audit")
        value = await lastval(another)
        assert await switchover.finish() == {}
        for question in (lastval, currval):
            with pytest.raises(errors.ObjectNotInPrerequisiteState):
                await question(connection)
        assert await lastval(another) == value
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            await currval(another)
    assert await forgotten(router) == 0


async def test_an_attempt_that_was_given_up_leaves_nothing_stale(
    endpoint: Endpoint, switchover: Switchover, router: RouterClient
) -> None:
    async with await connect(endpoint) as connection:
        await insert(connection, "audit")
        parked, _ = await switchover.ready_and_hand_over()
        await router.abort(parked.generation)
        await insert(connection, "orders", 2)
        await insert(connection, "audit", 2)
        wanted = [await lastval(connection), await currval(connection), await currval(connection, "audit")]
        assert await switchover.run() == {}
        await assert_on_green(connection)
        assert [await lastval(connection), await currval(connection), await currval(connection, "audit")] == wanted


async def test_with_many_sequences_those_in_use_are_known(
    endpoint: Endpoint, switchover: Switchover, pair: Pair
) -> None:
    """Too many to be looked through. The sequence of lastval() is always found; another one if it was somebody's
    lastval(), or is not known and then undefined, never wrong."""
    for conninfo in (pair.blue_admin, pair.green_admin):
        async with await psycopg.AsyncConnection.connect(conninfo) as admin:
            for number in range(SCAN_BEFOREHAND + 1):
                await admin.execute(f"CREATE SEQUENCE shop.of_tenant_{number}".encode())
    async with await connect(endpoint) as connection, await connect(endpoint) as other:
        await insert(other, "audit")
        await switchover.ready()
        # In one go: a client that is silent in between, as on a busy machine, may be asked then, with that lastval().
        await connection.execute('SELECT nextval(\'shop."Ä ""q""_id_seq"\'); INSERT INTO shop.audit DEFAULT VALUES')
        await insert(connection, "orders", 2)
        wanted = [await lastval(connection), await currval(connection), await currval(connection, "audit")]
        assert await switchover.finish() == {}
        assert [await lastval(connection), await currval(connection), await currval(connection, "audit")] == wanted
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            await one(connection, """SELECT currval('shop."Ä ""q""_id_seq"')""")


async def test_a_session_that_cannot_be_helped_goes_on_without(
    endpoint: Endpoint, switching: MakeSwitchover, pair: Pair, router: RouterClient
) -> None:
    async with await connect(endpoint) as connection:
        await insert(connection)
        helpless = (None, msgspec.structs.replace(HELPERS, databases=("postgres",)))
        for helpers in helpless:
            parked, pinned = await switching(helpers).ready_and_hand_over()
            assert pinned == {}
            await router.abort(parked.generation)
        async with await psycopg.AsyncConnection.connect(pair.green_admin) as admin:
            function = sql.Identifier(NAMES.schema, "recall_sequence")
            await admin.execute(sql.SQL("DROP FUNCTION {}").format(function))
        assert await switching(HELPERS).run() == {}
        await assert_on_green(connection)
        for question in (lastval, currval):
            with pytest.raises(errors.ObjectNotInPrerequisiteState):
                await question(connection)
    assert await forgotten(router) > 0
