"""The master user owns its databases, so it decides what a session in them begins with. Ours does not take that.

A superuser's session that looked names up where the master user says would run the master user's code as superuser.
"""

import psycopg
import pytest
from msgspec.structs import replace

from tests.conftest import MASTER, MASTER_PASSWORD, CreateServer, server_spec
from tests.integration.replication.conftest import as_master, query
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import list_databases, session

VERSIONS = ["17.10", "18.6"]

# A better "=" for names, which tells what it was run as, and takes what it can get.
TRAP = """
    CREATE SCHEMA trap;
    CREATE TABLE trap.sprung (as_whom text);
    CREATE FUNCTION trap.spring() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO trap.sprung VALUES (current_user);
        BEGIN
            EXECUTE 'ALTER ROLE app_owner SUPERUSER';
        EXCEPTION WHEN insufficient_privilege THEN NULL;
        END;
    END $$;
    CREATE FUNCTION trap.equal(name, name) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN PERFORM trap.spring(); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE FUNCTION trap.equal(name, text) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN PERFORM trap.spring(); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE FUNCTION trap.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN PERFORM trap.spring(); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
    CREATE FUNCTION trap.current_setting(text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN PERFORM trap.spring(); RETURN pg_catalog.current_setting($1); END $$;
    CREATE FUNCTION trap.pg_is_in_recovery() RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN PERFORM trap.spring(); RETURN pg_catalog.pg_is_in_recovery(); END $$;
    CREATE OPERATOR trap.= (LEFTARG = name, RIGHTARG = name, FUNCTION = trap.equal);
    CREATE OPERATOR trap.= (LEFTARG = name, RIGHTARG = text, FUNCTION = trap.equal);
    CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.equal);
"""


@pytest.fixture(params=VERSIONS)
async def server(create_server: CreateServer, request: pytest.FixtureRequest) -> PostgresServer:
    return await create_server(version=request.param)


async def everything(servers: PostgresServers, server: PostgresServer) -> None:
    """What the control plane does in sessions of its own beside a deployment's work."""
    assert MASTER in await servers.login_verifiers(server.resource_id, [MASTER])
    await servers.set_master_password(server.resource_id, MASTER, servers.conceal_password(MASTER_PASSWORD))
    await servers.extensions_in_use(server)
    server.save(created=False)  # as after a crash: roles and databases are looked at again
    await servers.create(replace(server_spec(servers, version=str(server.version)), resource_id=server.resource_id))
    for database in await list_databases(server):
        async with session(server, database.name) as connection:
            await connection.value("SELECT rolname = 'x'::text FROM pg_roles LIMIT 1")


async def test_no_name_is_looked_up_where_the_master_user_says(
    servers: PostgresServers, server: PostgresServer
) -> None:
    for dbname in ("postgres", "app"):
        async with await as_master(server, dbname) as master:
            await master.execute(TRAP.encode())
            await master.execute(f"ALTER DATABASE {dbname} SET search_path = trap, pg_catalog".encode())
        async with await as_master(server, dbname) as master:  # the trap works
            await master.execute("SELECT FROM pg_roles WHERE rolname = 'x'::text")
            assert await (await master.execute("SELECT DISTINCT as_whom FROM trap.sprung")).fetchall() == [(MASTER,)]
    await everything(servers, server)
    for dbname in ("postgres", "app"):
        found = await query(server, "SELECT DISTINCT as_whom FROM trap.sprung", dbname)
        assert found == [(MASTER,)], dbname
    assert await query(server, f"SELECT rolsuper FROM pg_roles WHERE rolname = '{MASTER}'") == [(False,)]


SETTINGS = (
    "local_preload_libraries = 'nothing'",  # a session fails that cannot load it
    "role = 'pg_monitor'",  # who we are then may nothing
    "statement_timeout = 1",
    "idle_in_transaction_session_timeout = 1",
    "transaction_timeout = 1",
    "default_transaction_read_only = on",
    "standard_conforming_strings = off",
    "lock_timeout = 1",
)


async def test_no_setting_keeps_us_out(servers: PostgresServers, server: PostgresServer) -> None:
    for dbname in ("postgres", "app"):
        async with await as_master(server, dbname) as master:
            for setting in SETTINGS:
                await master.execute(f"ALTER DATABASE {dbname} SET {setting}".encode())
    with pytest.raises(psycopg.OperationalError, match="nothing"):  # whoever else comes is kept out
        await as_master(server, "app")
    await everything(servers, server)
    async with session(server, "app") as connection:
        assert await connection.value("SELECT current_user") == "rdsadmin"
        assert await connection.value(r"SELECT '\x'") == r"\x"
        async with connection.transaction():
            await connection.run("CREATE TABLE public.t (id int)")
            await connection.run("SELECT pg_sleep(0.05)")


async def test_what_was_a_table_a_moment_ago_calls_no_function_of_the_master_user(server: PostgresServer) -> None:
    """A view calls functions as whoever reads it. Looked at by name, a sequence or table may have become one."""
    async with await as_master(server, "app") as master:
        await master.execute(TRAP.encode())
        await master.execute(
            "CREATE FUNCTION trap.peek() RETURNS bigint LANGUAGE sql AS 'SELECT trap.spring(); SELECT 1::bigint'"
        )
        await master.execute("CREATE VIEW public.was_a_sequence AS SELECT trap.peek() AS last_value, true AS is_called")
    async with session(server, "app") as connection:
        with pytest.raises(psycopg.errors.Error, match="was_a_sequence"):
            await connection.rows("SELECT last_value, is_called FROM public.was_a_sequence")
        assert await connection.rows("SELECT * FROM trap.sprung") == []
