"""Remembering a sequence's value on a real server: the session does, and the sequence does not move for anybody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from tests.conftest import BLUE_VERSION, GREEN_VERSION, MASTER, MASTER_PASSWORD, CreateServer
from verdigris.engines.postgres import session_functions
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer

NAMES = ObjectNames("bgd-0123456789abcdef")
READ = sql.SQL("SELECT schema_name, sequence_name, value, is_last FROM {}(%s::oid[], %s)").format(
    sql.Identifier(NAMES.schema, "session_sequences")
)
RECALL = sql.SQL("SELECT {}(%s, %s, %s, %s)").format(sql.Identifier(NAMES.schema, "recall_sequence"))

Connection = psycopg.AsyncConnection[Any]

SHAPES = {
    "ascending": ("CREATE SEQUENCE s", 7),
    "descending": ("CREATE SEQUENCE s INCREMENT -3", -7),
    "cached": ("CREATE SEQUENCE s CACHE 50", 7),
    "cycling": ("CREATE SEQUENCE s MAXVALUE 4 CYCLE", 4),
    "at its maximum": ("CREATE SEQUENCE s MAXVALUE 7", 7),
    "at its minimum": ("CREATE SEQUENCE s INCREMENT -1 MINVALUE -7", -7),
    "smallint": ("CREATE SEQUENCE s AS smallint", 32767),
    "largest": ("CREATE SEQUENCE s", 2**63 - 1),
    "smallest": ("CREATE SEQUENCE s INCREMENT -1 MINVALUE -9223372036854775808", -(2**63)),
    "started elsewhere": ("CREATE SEQUENCE s START 1000 INCREMENT 10", 3),
    "serial": ("CREATE TABLE t (id serial); ALTER SEQUENCE t_id_seq RENAME TO s", 7),
    "identity": ("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME s))", 7),
    "unlogged": ("CREATE UNLOGGED SEQUENCE s", 7),
}


@asynccontextmanager
async def client(server: PostgresServer, user: str = MASTER) -> AsyncIterator[Connection]:
    conninfo = make_conninfo(server.conninfo("app"), user=user, password=MASTER_PASSWORD, passfile="/dev/null")
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        yield connection


async def recall(connection: Connection, name: str, value: int, *, last: bool = True, schema: str = "public") -> None:
    with pytest.raises(psycopg.Error) as caught:
        await connection.execute(RECALL, [schema, name, value, last])
    assert caught.value.sqlstate == "VG001", caught.value


async def one(connection: Connection, query: str) -> Any:
    row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


@pytest.fixture(params=[BLUE_VERSION, GREEN_VERSION])
async def server(request: pytest.FixtureRequest, create_server: CreateServer) -> PostgresServer:
    server = await create_server(version=request.param)
    async with await server.connect("app", options="") as connection:
        await connection.execute(f"GRANT CREATE ON SCHEMA public TO {MASTER}")
    await session_functions.install_everywhere(server, NAMES)
    return server


async def test_a_value_is_remembered_and_the_sequence_stays_as_it_is(server: PostgresServer) -> None:
    state = "SELECT s.last_value, s.is_called, s.log_cnt, c.relfilenode, q.seqcache FROM s, pg_class c, pg_sequence q"
    state += " WHERE c.oid = 's'::regclass AND q.seqrelid = c.oid"
    async with client(server) as owner, client(server) as session:
        for shape, (create, value) in SHAPES.items():
            for used in (False, True):
                await owner.execute(create.encode())
                if used:
                    await owner.execute("SELECT setval('s', 2, true)" if value > 0 else "SELECT setval('s', -2, true)")
                before = await one(owner, state)
                await session.execute("DISCARD SEQUENCES")
                await recall(session, "s", value)
                assert await one(session, "SELECT lastval(), currval('s')") == (value, value), shape
                assert await one(owner, state) == before, shape
                # The next value is the sequence's, not one that was kept with the remembered one.
                position, called, *_ = before
                step = await one(owner, "SELECT seqincrement FROM pg_sequence WHERE seqrelid = 's'::regclass")
                assert await one(session, "SELECT nextval('s')") == position + (step if called else 0), shape
                await owner.execute("DROP TABLE IF EXISTS t; DROP SEQUENCE IF EXISTS s")
    assert "ERROR" not in server.log_path.read_text()


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT lastval()'",
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT currval('s'); END",
        "CREATE TABLE t (id bigint DEFAULT currval('s'))",
        "CREATE VIEW v AS SELECT currval('s') AS last",
    ],
)
async def test_definitions_that_ask_are_found(server: PostgresServer, definition: str) -> None:
    async with client(server) as connection:
        await connection.execute("CREATE SEQUENCE s")
        await connection.execute("CREATE TABLE u (id bigserial)")
        assert (await session_functions.find(server, server, NAMES)).asking == ()
        await connection.execute(definition)
        assert (await session_functions.find(server, server, NAMES)).asking == ("app",)


async def test_only_the_last_one_is_the_one_of_lastval(server: PostgresServer) -> None:
    async with client(server) as session:
        await session.execute("CREATE SEQUENCE a; CREATE SEQUENCE b")
        await recall(session, "a", 3, last=True)
        await recall(session, "b", 5, last=False)
        assert await one(session, "SELECT lastval(), currval('a'), currval('b')") == (3, 3, 5)
        await recall(session, "b", 6, last=True)
        assert await one(session, "SELECT lastval(), currval('a'), currval('b')") == (6, 3, 6)


async def test_what_is_remembered_is_read(server: PostgresServer) -> None:
    async with client(server) as owner:
        await owner.execute('CREATE SCHEMA "Odd "" one"; CREATE SEQUENCE "Odd "" one"."s ""q"" 1"; CREATE SEQUENCE b')
        await owner.execute("CREATE SEQUENCE unused; CREATE SEQUENCE c; CREATE TEMP SEQUENCE own")
        oids = [row[0] async for row in await owner.execute("SELECT seqrelid FROM pg_sequence")]
        everything: list[tuple[list[int], int]] = [([], 100), (oids, 0)]
        for candidates, scan_up_to in everything:
            await owner.execute("DISCARD SEQUENCES")
            assert await (await owner.execute(READ, [candidates, scan_up_to])).fetchall() == []
            await owner.execute("""SELECT nextval('"Odd "" one"."s ""q"" 1"'), nextval('b'), nextval('b')""")
            await owner.execute("SELECT setval('c', 77), nextval('own')")
            await owner.execute("""SELECT nextval('"Odd "" one"."s ""q"" 1"')""")
            odd = await one(owner, """SELECT currval('"Odd "" one"."s ""q"" 1"')""")
            b, own = await one(owner, "SELECT currval('b'), currval('own')")
            found = set(await (await owner.execute(READ, [candidates, scan_up_to])).fetchall())
            assert found == {
                ('Odd " one', 's "q" 1', odd, True),
                ("public", "b", b, False),
                ("public", "c", 77, False),
                ("pg_temp", "own", own, False),
            }
        # The last one is known without being named, also when another has the same value.
        await owner.execute("SELECT nextval('c')")
        assert await (await owner.execute(READ, [[], 0])).fetchall() == [("public", "c", 78, True)]
        await owner.execute("SELECT nextval('own')")
        value = await one(owner, "SELECT lastval()")
        assert await (await owner.execute(READ, [[], 0])).fetchall() == [("pg_temp", "own", value, True)]
        await owner.execute("DISCARD SEQUENCES")
        await recall(owner, "own", value, schema="pg_temp")
        assert await one(owner, "SELECT lastval(), currval('own')") == (value, value)
    assert "ERROR" not in server.log_path.read_text()


async def test_nobody_gets_at_a_sequence_that_is_not_for_him(server: PostgresServer) -> None:
    async with await server.connect("app", options="") as admin:
        await admin.execute(
            sql.SQL("CREATE ROLE bob LOGIN PASSWORD {}; CREATE ROLE clerks; CREATE ROLE others").format(
                sql.Literal(MASTER_PASSWORD)
            )
        )
        # To become a clerk bob has to say so.
        await admin.execute("GRANT clerks TO bob WITH INHERIT FALSE, SET TRUE")
    async with client(server) as owner, client(server, "bob") as bob:
        await owner.execute("CREATE SEQUENCE mine; CREATE SEQUENCE clerical")
        await owner.execute("GRANT USAGE ON SEQUENCE clerical TO clerks")
        await owner.execute(
            "CREATE FUNCTION take() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT nextval('public.mine') $$"
        )
        await bob.execute("SELECT take()")
        assert await (await bob.execute(READ, [[], 100])).fetchall() == []
        with pytest.raises(errors.UndefinedTable):
            await bob.execute(RECALL, ["public", "mine", 5, True])
        with pytest.raises(errors.InsufficientPrivilege):
            await bob.execute("SELECT lastval()")
        await bob.execute("SET ROLE clerks")
        await bob.execute("SELECT nextval('clerical')")
        await bob.execute("RESET ROLE")
        assert await (await bob.execute(READ, [[], 100])).fetchall() == [("public", "clerical", 1, True)]
        await recall(bob, "clerical", 9)
        await bob.execute("SET ROLE clerks")
        assert await one(bob, "SELECT lastval()") == 9


async def test_whoever_catches_the_error_has_moved_nothing_either(server: PostgresServer) -> None:
    async with client(server) as session:
        await session.execute("CREATE SEQUENCE s; SELECT setval('s', 500)")
        async with session.transaction():
            await session.execute(
                sql.SQL(
                    "DO $$ BEGIN PERFORM {}('public', 's', 3, true); EXCEPTION WHEN OTHERS THEN NULL; END $$"
                ).format(sql.Identifier(NAMES.schema, "recall_sequence"))
            )
        assert await one(session, "SELECT currval('s')") == 3
        assert await one(session, "SELECT nextval('s')") == 501


async def test_event_triggers_take_no_part(server: PostgresServer) -> None:
    async with await server.connect("app", options="") as admin:
        await admin.execute("CREATE SEQUENCE s")
        await admin.execute(
            "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'no DDL on Fridays'; END $$"
        )
        await admin.execute("CREATE EVENT TRIGGER fridays ON ddl_command_start EXECUTE FUNCTION forbid()")
        await recall(admin, "s", 5)
        assert await one(admin, "SELECT lastval()") == 5


async def test_a_question_does_not_wait_for_ddl(server: PostgresServer) -> None:
    async with client(server) as owner, client(server) as session:
        await owner.execute("CREATE SEQUENCE a; CREATE SEQUENCE b")
        await session.execute("SELECT nextval('a'), nextval('b')")
        async with owner.transaction():
            await owner.execute("ALTER SEQUENCE a RESTART")
            async with asyncio.timeout(30):
                found = await (await session.execute(READ, [[], 100])).fetchall()
            assert found == [("public", "b", 1, True)]
        async with owner.transaction():
            await owner.execute("ALTER SEQUENCE b RESTART")
            async with asyncio.timeout(30):
                assert await (await session.execute(READ, [[], 100])).fetchall() == []


async def test_many_remember_the_same_sequences_at_once_while_they_are_set(server: PostgresServer) -> None:
    """In any order, and nobody waits for anybody in a circle: a deadlock would be told."""
    names = ["a", "b", "c"]

    async def remember(number: int) -> None:
        async with client(server) as session:
            own = names[number % 3 :] + names[: number % 3]
            for name in own:
                await recall(session, name, number + 1, last=name == own[-1])
            # One at a time: two who hold several, in different orders, would be in each other's way.
            for question in ("lastval()", *(f"currval('{name}')" for name in names)):
                assert await one(session, f"SELECT {question}") == number + 1

    async with client(server) as owner:
        await owner.execute("".join(f"CREATE SEQUENCE {name};" for name in names))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(remember(number)) for number in range(24)]
            while not all(task.done() for task in tasks):
                # As the positions are carried: in one transaction, in an order of its own.
                await owner.execute("SELECT setval('c', 5000), setval('a', 5000), setval('b', 5000)")
        for name in names:
            assert await one(owner, f"SELECT nextval('{name}')") == 5001
    assert "deadlock" not in server.log_path.read_text()


async def test_a_server_without_plpgsql_goes_without(create_server: CreateServer) -> None:
    server = await create_server()
    async with await server.connect("app", options="") as admin:
        await admin.execute("DROP EXTENSION plpgsql")
    await session_functions.install_everywhere(server, NAMES)
    found = await session_functions.find(server, server, NAMES)
    assert "app" not in found.databases
    assert "postgres" in found.databases
