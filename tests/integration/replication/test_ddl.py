"""Definitions that blue's users make while green follows: carried in order, or refused by name; never in their way."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, MASTER, CreateServer
from tests.integration.replication.conftest import (
    MakePair,
    as_master,
    build,
    contents,
    load_rich_schema,
    query,
    run_sql,
    traces,
    writing,
)
from verdigris.domain.errors import SetBack, StepFailed
from verdigris.domain.ports import Pair
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.marker import prove_logical
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import until
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine

CARRIED = Path(__file__).parents[2] / "data" / "carried_definitions.sql"
# A statement of a client's never takes longer because of us; a busy machine may.
AT_ONCE_S = 5.0
# The newer of the two versions comes without it.
BY_EXTENSION = "CREATE EXTENSION pgcrypto; CREATE TABLE a (id int PRIMARY KEY, salt text DEFAULT gen_salt('md5'))"
FIRES = (
    "CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.orders VALUES (NEW.i);"
    " RETURN NULL; END'; CREATE TABLE a (i int PRIMARY KEY);"
    " CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION fires()"
)
BIG = "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a SELECT generate_series(1, 90000)"


@pytest.fixture
async def pair(green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair) -> AsyncIterator[Pair]:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, "CREATE TABLE public.orders (id int PRIMARY KEY, note text)")
    await run_sql(source, f"ALTER TABLE public.orders OWNER TO {MASTER}", f"GRANT ALL ON SCHEMA public TO {MASTER}")
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    yield pair
    await green.dismantle(pair)
    assert await traces(source, pair) == []


@pytest.fixture
def source(servers: PostgresServers, pair: Pair) -> PostgresServer:
    return servers.server(pair.source_resource_id)


@pytest.fixture
def target(servers: PostgresServers, pair: Pair) -> PostgresServer:
    return servers.server(pair.target_resource_id)


# Half a minute on two cores: two servers, an upgrade, and a hundred statements.
@pytest.mark.parametrize(
    ("source_version", "target_version"),
    [
        (BLUE_VERSION, GREEN_VERSION),
        pytest.param("15.19", GREEN_VERSION, marks=pytest.mark.long),
        pytest.param("16.15", "17.11", marks=pytest.mark.long),
    ],
)
async def test_definitions_are_carried_amid_the_rows(
    source_version: str,
    target_version: str,
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
) -> None:
    source = await create_server(version=source_version)
    await load_rich_schema(source)
    pair = make_pair(source, target_version)
    async with writing(source) as acknowledged:
        await build(green, pair)
        target = servers.server(pair.target_resource_id)
        async with await as_master(source) as client:
            for part in CARRIED.read_text().split("\n-- ====\n")[1:]:
                await client.execute(part.encode())
        assert await switchover.guardrails(pair) == []
        await switchover.prepare(pair)
    assert acknowledged
    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    assert await contents(target) == await contents(source)
    await switchover.open_target(pair)
    async with await as_master(target) as client:
        await client.execute("INSERT INTO app2.things (kind, price) VALUES ('first on green', 2)")
    await switchover.retire_source(pair)
    ours, theirs = await _schema(source, target), await _schema(target, target)
    if source_version < "16":  # where views name each column's table
        ours, theirs = ({re.sub(r"\b[a-z_]+\.", "", line) for line in lines} for lines in (ours, theirs))
    assert (ours - theirs, theirs - ours) == (set(), set())
    assert (await traces(source, pair), await traces(target, pair)) == ([], [])
    for server in (source, target):
        assert await query(server, "SELECT evtname FROM pg_event_trigger") == []
        assert await query(server, "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'rdsadmin'::regrole") == []


async def test_what_is_not_carried_is_refused_by_name_and_forgiven_when_it_is_gone(
    switchover: PostgresSwitchoverEngine, pair: Pair, source: PostgresServer
) -> None:
    cases = (
        ("BEGIN; CREATE TABLE a (i int); COMMIT; ROLLBACK", "TABLE a", "table public.a ("),
        ("CREATE TABLE a (j json)", "TABLE a", "rows of table public.a"),
        ("CREATE TABLE a (p point, j json[])", "TABLE a", "rows of table public.a"),
        ("CREATE TABLE a AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)", "TABLE a", "table public.a ("),
        (BY_EXTENSION, "TABLE a CASCADE; DROP EXTENSION pgcrypto", "extension pgcrypto (created)"),
        ("CREATE AGGREGATE a (int) (sfunc = int4pl, stype = int)", "AGGREGATE a (int)", "function public.a(integer) ("),
        ("CREATE COLLATION a FROM \"C\"", "COLLATION a", "collation public.a (created)"),
        (f"{FIRES}; ALTER TABLE a ENABLE ALWAYS TRIGGER t", "TABLE a", "(on green it would change"),
        (f"{FIRES}; ALTER TABLE a ENABLE REPLICA TRIGGER t", "TABLE a", "replica-triggers"),
        ("CREATE TABLE a (i int PRIMARY KEY); ALTER TABLE a FORCE ROW LEVEL SECURITY", "TABLE a", "(on green it would"),
        (f"{BIG}; ALTER TABLE a ADD COLUMN token uuid DEFAULT gen_random_uuid()", "TABLE a", "rows of table public.a"),
    )  # fmt: skip
    async with await as_master(source) as client:
        for statement, undo, name in cases:
            await client.execute(statement.encode())
            # What is built upon it is not carried either, so that replication goes on.
            if undo.startswith("TABLE a"):
                await client.execute("CREATE VIEW on_a AS SELECT * FROM a; COMMENT ON TABLE a IS 'here'")
                await client.execute("GRANT SELECT ON a TO PUBLIC")
            await client.execute("INSERT INTO orders SELECT count(*) FROM orders")
            text = " ".join(map(str, await switchover.guardrails(pair)))
            assert name in text, (statement, text)
            await client.execute(f"DROP {undo} CASCADE; DROP FUNCTION IF EXISTS fires".encode())
            assert " ".join(map(str, await switchover.guardrails(pair))) == "", statement
    await switchover.prepare(pair)


async def test_a_session_whose_triggers_are_silent(
    switchover: PostgresSwitchoverEngine, pair: Pair, source: PostgresServer, target: PostgresServer
) -> None:
    """``session_replication_role``: its rows come over like any other's, and so does what it defines, and what an
    ordinary session builds upon that."""
    await run_sql(source, f"GRANT SET ON PARAMETER session_replication_role TO {MASTER}")
    async with await as_master(source) as silent, await as_master(source) as ordinary:
        await silent.execute(f"{FIRES}; INSERT INTO a VALUES (1)".encode())
        await silent.execute("SET session_replication_role = replica")
        await silent.execute("INSERT INTO a VALUES (2)")
        await silent.execute("CREATE TABLE made (i int PRIMARY KEY); INSERT INTO made VALUES (1)")
        await ordinary.execute("ALTER TABLE made ADD COLUMN n int DEFAULT 7")
        await ordinary.execute("CREATE TABLE on_made (i int REFERENCES made); INSERT INTO on_made VALUES (1)")
        # Sent again by statements of the trigger's own, for which it is silent.
        await silent.execute("CREATE TABLE filled AS SELECT i, n FROM made")
        await ordinary.execute("CREATE TABLE passing (i int PRIMARY KEY)")
        await silent.execute("DROP TABLE passing")
    assert await switchover.guardrails(pair) == []
    await switchover.prepare(pair)
    await switchover.stand_down(pair)
    assert await query(target, "SELECT id FROM public.orders", "app") == [(1,)]
    assert await contents(target) == await contents(source)


async def test_what_is_built_upon_definitions_of_the_internal_superuser_is_not_carried_either(
    switchover: PostgresSwitchoverEngine, pair: Pair, source: PostgresServer, target: PostgresServer
) -> None:
    """A script of the operator's, under a name that is not ours."""
    conninfo = source.conninfo("app", application_name="maintenance.sh")
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as script:
        await script.execute("CREATE TABLE public.theirs (id int PRIMARY KEY)")
        await script.execute("CREATE TABLE public.copied AS SELECT 1 AS x")
        for table in ("theirs", "copied"):
            await script.execute(f"ALTER TABLE public.{table} OWNER TO {MASTER}".encode())
    async with await as_master(source) as client:
        await client.execute("ALTER TABLE theirs ADD COLUMN n int")
        await client.execute("CREATE TABLE child (id int REFERENCES theirs)")
        await client.execute("INSERT INTO orders VALUES (1)")
        async with asyncio.timeout(60):
            await prove_logical(source, target, ObjectNames(pair.deployment_id))
        [finding] = await switchover.guardrails(pair)
        assert finding.check == "definitions-changed"
        for told in (
            "table public.theirs (created)",
            "table public.copied (created)",
            "CREATE TABLE public.theirs, public.theirs_pkey (what rdsadmin does is not carried)",
            "ALTER TABLE public.theirs (it builds on table public.theirs, which was not carried)",
            "CREATE TABLE public.child (it builds on table public.theirs, which was not carried)",
        ):
            assert told in finding.message
        await client.execute("DROP TABLE child, theirs, copied")
    assert await switchover.guardrails(pair) == []
    assert await contents(target) == await contents(source)


async def test_what_is_made_just_before_the_fence_sets_the_attempt_back_and_is_carried_for_the_next(
    switchover: PostgresSwitchoverEngine, pair: Pair, source: PostgresServer, target: PostgresServer
) -> None:
    assert await switchover.guardrails(pair) == []
    await switchover.prepare(pair)
    async with await as_master(source) as client:
        await client.execute("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)")
    await switchover.fence(pair, [])
    with pytest.raises(SetBack, match=r"table public\.late \(created\)"):
        await switchover.catch_up(pair)
    await switchover.unfence(pair)
    await switchover.prepare(pair)
    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    assert await contents(target) == await contents(source)
    await switchover.unfence(pair)
    async with await as_master(source) as client:
        await client.execute("CREATE AGGREGATE a (int) (sfunc = int4pl, stype = int)")
    with pytest.raises(StepFailed, match=r"function public\.a\(integer\)"):
        await switchover.prepare(pair)
    await switchover.stand_down(pair)


async def test_whatever_goes_wrong_with_us_a_clients_statement_succeeds(
    switchover: PostgresSwitchoverEngine, pair: Pair, source: PostgresServer
) -> None:
    schema = ObjectNames(pair.deployment_id).schema
    async with await as_master(source) as client, await as_master(source) as other:
        await other.execute("BEGIN; CREATE TABLE mine (id int PRIMARY KEY)")
        async with asyncio.timeout(AT_ONCE_S):  # although the publication is locked
            await client.execute("CREATE TABLE yours (id int PRIMARY KEY)")
        await other.execute("ROLLBACK")
        await run_sql(source, f"DROP FUNCTION {schema}.the_statement")
        await client.execute("CREATE TABLE theirs (id int PRIMARY KEY); DROP TABLE theirs")
        await run_sql(source, f"ALTER TABLE {schema}.ddl RENAME TO elsewhere")
        await client.execute("CREATE TABLE ours (id int PRIMARY KEY)")
        await run_sql(source, f"ALTER TABLE {schema}.elsewhere RENAME TO ddl")
    text = " ".join(map(str, await switchover.guardrails(pair)))
    assert "table public.yours (created)" in text
    assert "table public.ours (created)" in text
    assert "theirs" not in text


async def test_nobody_becomes_more_than_he_was(pair: Pair, source: PostgresServer, target: PostgresServer) -> None:
    """The function is called by both sides' ALTER TABLE; on green in a process that is a superuser's."""
    async with await as_master(source) as client:
        await client.execute("CREATE TABLE tried (id int PRIMARY KEY, outcome text); INSERT INTO tried VALUES (1, '')")
        await client.execute(
            """
            CREATE FUNCTION try(before text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
            BEGIN
                BEGIN SET ROLE rdsadmin; RETURN 'became rdsadmin'; EXCEPTION WHEN OTHERS THEN NULL; END;
                BEGIN SET SESSION AUTHORIZATION DEFAULT; EXCEPTION WHEN OTHERS THEN NULL; END;
                BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END;
                RETURN current_user || ' ' || (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
            END $$
            """
        )
        # An operator of its own must not be called by what runs with our rights.
        await client.execute("CREATE SCHEMA evil; SET search_path = evil, pg_catalog, public")
        await client.execute(
            "CREATE FUNCTION evil.hit(name, text) RETURNS boolean LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'called as %', current_user; END $$"
        )
        await client.execute(
            "CREATE FUNCTION evil.hit(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.hit($1::name, $2)'"
        )
        for types in ("name, text", "text, text"):
            left, right = types.split(", ")
            await run_sql(source, f"CREATE OPERATOR evil.= (FUNCTION = evil.hit, LEFTARG = {left}, RIGHTARG = {right})")
        await client.execute("ALTER TABLE public.tried ALTER outcome TYPE text USING public.try(outcome) || ''")
        await client.execute("SET search_path = public")
        # Nor what a text says that only a built-in function is given: rows that are sent again are written by us.
        await client.execute(
            "CREATE TABLE callers (name text PRIMARY KEY);"
            "CREATE FUNCTION note_caller() RETURNS text LANGUAGE plpgsql AS $$"
            " BEGIN INSERT INTO public.callers VALUES (current_user) ON CONFLICT DO NOTHING; RETURN 'a'; END $$"
        )
        await client.execute(
            "CREATE TABLE checked (id int PRIMARY KEY,"
            " CHECK (ts_rewrite('a', 'SELECT public.note_caller()::tsquery, ''b''::tsquery') IS NOT NULL));"
            "INSERT INTO checked VALUES (1)"
        )
        await client.execute("ALTER TABLE checked ADD COLUMN chance float8 DEFAULT random()")
        for side in (source, target):  # the switchover's rounds would carry it
            await run_sql(side, "CREATE ROLE lowly", f"GRANT lowly TO {MASTER}")
        # Nor does the one who calls a function lend its owner more than he has: what it does, its owner does.
        await client.execute(
            "CREATE SCHEMA lowlands AUTHORIZATION lowly;"
            "SET ROLE lowly; CREATE TABLE lowlands.callers (name text PRIMARY KEY);"
            "CREATE FUNCTION lowlands.note_caller() RETURNS text LANGUAGE plpgsql AS $$"
            " BEGIN INSERT INTO lowlands.callers VALUES (current_user) ON CONFLICT DO NOTHING; RETURN 'a'; END $$;"
            "SELECT lowlands.note_caller();"
            "CREATE TABLE lowlands.called (id int PRIMARY KEY); INSERT INTO lowlands.called VALUES (1);"
            "CREATE FUNCTION lowlands.define() RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
            " ALTER TABLE lowlands.called ADD COLUMN who text DEFAULT lowlands.note_caller();"
            " CREATE TABLE lowlands.made (id int PRIMARY KEY); END $$; RESET ROLE"
        )
        await client.execute("SELECT lowlands.define()")
    async with asyncio.timeout(60):
        await prove_logical(source, target, ObjectNames(pair.deployment_id))
    for side in (source, target):
        assert await query(side, "SELECT DISTINCT name FROM public.callers") == [(MASTER,)]
        assert await query(side, "SELECT name FROM lowlands.callers") == [("lowly",)]
        assert await query(side, "SELECT tableowner FROM pg_tables WHERE tablename = 'made'") == [("lowly",)]
    expected = [(f"{MASTER} false",)]
    assert await query(source, "SELECT outcome FROM public.tried") == expected
    assert await query(target, "SELECT outcome FROM public.tried") == expected


async def test_a_statement_that_fails_on_green_is_named_and_goes_on_when_it_can(
    green: PostgresGreenBuilder, pair: Pair, source: PostgresServer, target: PostgresServer
) -> None:
    """Of a role that green does not have yet."""
    await run_sql(source, "CREATE ROLE newcomer")
    async with await as_master(source) as client:
        await client.execute("GRANT SELECT ON orders TO newcomer")
        await client.execute("INSERT INTO orders VALUES (1, 'after it')")
    found: list[str] = []

    async def is_named() -> bool:
        found[:] = [str(await green.health(pair))]
        return "next is GRANT" in found[0]

    async with asyncio.timeout(60):
        await until(is_named, every_s=0.5)
    await run_sql(target, "CREATE ROLE newcomer")
    async with asyncio.timeout(60):
        await prove_logical(source, target, ObjectNames(pair.deployment_id))
    assert await query(target, "SELECT has_table_privilege('newcomer', 'public.orders', 'SELECT')") == [(True,)]
    assert await contents(target) == await contents(source)


async def _schema(server: PostgresServer, newer: PostgresServer) -> set[str]:
    """Lines of what the newer version's pg_dump says, without what versions add: names of NOT NULL."""
    dumped = await newer.run(
        "pg_dump", "--schema-only", "--no-publications", "--no-subscriptions", "--exclude-schema=verdigris_*",
        server.conninfo("app"),
    )  # fmt: skip
    text = re.sub(r" CONSTRAINT \S+ NOT NULL", " NOT NULL", dumped.stdout)
    lines = [line.rstrip(",") for line in text.splitlines() if line and not line.startswith(("--", "\\"))]
    return set(lines)
