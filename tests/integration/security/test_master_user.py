"""The master user of a server is powerful over its data, and powerless over the server: what is tried is refused."""

import contextlib
from pathlib import Path

import psycopg
import pytest

from tests.conftest import MASTER, MASTER_PASSWORD, CreateServer
from tests.integration.replication.conftest import as_master, query, run_sql
from verdigris.engines.postgres import session_functions
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.roles import set_password
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers

# 14 and 15 let CREATEROLE grant itself more: see docs/reference/limits.md.
VERSIONS = ["16.15", "17.10", "18.6"]

# What a server refuses for want of rights, or because there is no such way.
REFUSED = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidAuthorizationSpecification,
    psycopg.errors.CantChangeRuntimeParam,
    psycopg.errors.ReservedName,
)

BECOMES_SUPERUSER = f"""
    ALTER ROLE {MASTER} SUPERUSER
    ALTER ROLE {MASTER} REPLICATION
    ALTER ROLE {MASTER} BYPASSRLS
    CREATE ROLE more SUPERUSER
    CREATE ROLE more REPLICATION
    CREATE ROLE more BYPASSRLS
    CREATE ROLE more IN ROLE rdsadmin
    CREATE ROLE more IN ROLE pg_execute_server_program
    ALTER ROLE rds_superuser SUPERUSER
    GRANT rdsadmin TO {MASTER}
    SET ROLE rdsadmin
    SET SESSION AUTHORIZATION rdsadmin
    ALTER ROLE rdsadmin PASSWORD 'x'
    ALTER ROLE rdsadmin RENAME TO gone
    ALTER ROLE rdsadmin SET search_path = public
    ALTER ROLE ALL SET search_path = public
    DROP ROLE rdsadmin
    REASSIGN OWNED BY rdsadmin TO {MASTER}
    DROP OWNED BY rdsadmin
    UPDATE pg_authid SET rolsuper = true
    DELETE FROM pg_auth_members
    SELECT rolpassword FROM pg_authid
    SELECT passwd FROM pg_shadow
    GRANT pg_read_server_files TO {MASTER}
    GRANT pg_write_server_files TO {MASTER}
    GRANT pg_execute_server_program TO {MASTER}
    GRANT pg_write_all_data TO {MASTER}
    ALTER SYSTEM SET shared_preload_libraries = 'x'
    ALTER SYSTEM RESET ALL
    SELECT pg_reload_conf()
    GRANT ALTER SYSTEM ON PARAMETER work_mem TO {MASTER}
    GRANT SET ON PARAMETER session_preload_libraries TO {MASTER}
    CREATE FUNCTION pg_catalog.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'
    CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'
    ALTER FUNCTION pg_catalog.now() OWNER TO {MASTER}
    ALTER TABLE pg_catalog.pg_class ADD COLUMN evil int
    CREATE TRIGGER evil BEFORE INSERT ON pg_class EXECUTE FUNCTION suppress_redundant_updates_trigger()
"""

READS_FILES = """
    SELECT pg_read_file('/etc/passwd')
    SELECT pg_read_file('postgresql.conf')
    SELECT pg_read_binary_file('/etc/passwd')
    SELECT pg_stat_file('/etc/passwd')
    SELECT pg_ls_dir('.')
    SELECT lo_import('/etc/passwd')
    SELECT lo_export(1, '/tmp/verdigris-evil')
    COPY kept FROM '/etc/passwd'
    COPY kept TO '/tmp/verdigris-evil'
    COPY kept FROM PROGRAM 'id'
    COPY kept TO PROGRAM 'cat'
    SELECT * FROM pg_hba_file_rules
    SELECT * FROM pg_file_settings
    CREATE EXTENSION file_fdw
    CREATE EXTENSION adminpack
    CREATE EXTENSION pageinspect
    CREATE EXTENSION pg_walinspect
    CREATE EXTENSION plperlu
    CREATE EXTENSION plpython3u
    CREATE TABLESPACE evil LOCATION '/tmp'
    SELECT pg_create_restore_point('evil')
    SELECT pg_backup_start('evil')
    SELECT pg_rotate_logfile()
"""

LOADS_LIBRARIES = f"""
    LOAD '/tmp/evil.so'
    LOAD 'auto_explain'
    CREATE FUNCTION evil() RETURNS int LANGUAGE c AS '/tmp/evil.so', 'evil'
    CREATE FUNCTION evil() RETURNS int LANGUAGE internal AS 'boolin'
    CREATE LANGUAGE evil HANDLER plpgsql_call_handler
    SET session_preload_libraries = 'evil'
    SET shared_preload_libraries = 'evil'
    SET dynamic_library_path = '/tmp'
    ALTER DATABASE app SET session_preload_libraries = 'evil'
    ALTER ROLE {MASTER} SET session_preload_libraries = 'evil'
    ALTER DATABASE app SET dynamic_library_path = '/tmp'
    CREATE ACCESS METHOD evil TYPE INDEX HANDLER bthandler
    CREATE TYPE evil (INPUT = int4in, OUTPUT = int4out, LIKE = int4)
    CREATE FUNCTION evil() RETURNS int LANGUAGE sql LEAKPROOF AS 'SELECT 1'
    CREATE OPERATOR CLASS evil FOR TYPE int USING btree AS OPERATOR 1 <
"""

REACHES_OUT_OR_AROUND = """
    CREATE EVENT TRIGGER evil ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()
    SET session_replication_role = replica
    SET log_statement = 'none'
    CREATE SUBSCRIPTION evil CONNECTION 'host=/tmp dbname=x' PUBLICATION p
    CREATE PUBLICATION evil FOR ALL TABLES
    SELECT pg_create_logical_replication_slot('evil', 'pgoutput')
    SELECT pg_create_physical_replication_slot('evil')
    SELECT pg_replication_origin_create('evil')
    SELECT pg_switch_wal()
    SELECT pg_promote()
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rdsadmin' AND pid <> pg_backend_pid()
"""


def statements(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.fixture(params=VERSIONS)
async def server(create_server: CreateServer, request: pytest.FixtureRequest) -> PostgresServer:
    return await create_server(version=request.param)


async def test_what_is_tried_is_refused(server: PostgresServer) -> None:
    every = statements(BECOMES_SUPERUSER + READS_FILES + LOADS_LIBRARIES + REACHES_OUT_OR_AROUND)
    got_through = []
    async with await server.connect("app"), await as_master(server) as master:
        await master.execute("CREATE TABLE kept (line text)")
        for statement in every:
            try:
                await master.execute(statement.encode())
            except REFUSED:
                continue
            except psycopg.errors.Error as error:
                if _is_no_way_in(error):
                    continue
                got_through.append(f"{statement}: {error}")
            else:
                got_through.append(statement)
    assert not got_through, "\n".join(got_through)
    assert not Path("/tmp/verdigris-evil").exists()  # noqa: S108 - what the server is asked to write
    await _is_an_ordinary_user(server)


def _is_no_way_in(error: psycopg.errors.Error) -> bool:
    """What the installation lacks, or the version does not know."""
    return isinstance(
        error,
        psycopg.errors.UndefinedFile  # an extension's control file
        | psycopg.errors.UndefinedFunction
        | psycopg.errors.FeatureNotSupported  # extensions that are not there
        | psycopg.errors.WrongObjectType,
    )


async def test_nor_in_a_replication_connection(server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="REPLICATION attribute"):
        await psycopg.AsyncConnection.connect(
            host=str(server.socket_dir), user=MASTER, password=MASTER_PASSWORD, dbname="app", replication="database"
        )
    with pytest.raises(psycopg.OperationalError):
        await psycopg.AsyncConnection.connect(
            host=str(server.socket_dir), user=MASTER, password=MASTER_PASSWORD, replication="true"
        )


async def test_nor_through_what_it_hands_on(server: PostgresServer) -> None:
    """A role that the master user makes has no more than itself."""
    async with await as_master(server) as master:
        await master.execute("CREATE ROLE helper LOGIN CREATEROLE CREATEDB PASSWORD 'helper'")
        await master.execute("GRANT rds_superuser TO helper WITH ADMIN OPTION")
    async with await psycopg.AsyncConnection.connect(
        host=str(server.socket_dir), user="helper", password="helper", dbname="app", autocommit=True
    ) as helper:
        for statement in statements(BECOMES_SUPERUSER.replace(MASTER, "helper")):
            with pytest.raises(psycopg.errors.Error):
                await helper.execute(statement.encode())
    await _is_an_ordinary_user(server)


async def _is_an_ordinary_user(server: PostgresServer) -> None:
    privileged = await query(
        server, "SELECT rolname FROM pg_roles WHERE rolsuper OR rolreplication OR rolbypassrls", "postgres"
    )
    assert privileged == [("rdsadmin",)]
    dangerous = await query(
        server,
        "SELECT m.member::regrole::text, m.roleid::regrole::text FROM pg_auth_members m"
        " WHERE roleid::regrole::text IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program',"
        " 'pg_write_all_data', 'pg_create_subscription', 'rdsadmin')",
        "postgres",
    )
    assert dangerous == []


async def test_nor_does_it_read_what_verifiers_are_made_of(servers: PostgresServers, server: PostgresServer) -> None:
    """It is a member of pg_monitor, and sees everybody's statements."""
    seen: list[str] = []
    async with await as_master(server, "postgres") as master, await server.connect() as ours:
        verifier = servers.conceal_password("another one")
        for secret in (verifier, None):
            await set_password(ours, MASTER, secret)
            rows = await master.execute("SELECT query FROM pg_stat_activity WHERE usename = 'rdsadmin'")
            seen += [str(row[0]) for row in await rows.fetchall()]
        await ours.execute("SELECT 'seen'")
        rows = await master.execute("SELECT query FROM pg_stat_activity WHERE usename = 'rdsadmin'")
        assert ("SELECT 'seen'",) in await rows.fetchall()
    assert not [query for query in seen if "PASSWORD" in query]


IN_A_DEPLOYMENT_S_SCHEMA = """
    CREATE FUNCTION {schema}.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'
    CREATE OR REPLACE FUNCTION {schema}.session_sequences(oid[], integer) RETURNS int LANGUAGE sql AS 'SELECT 1'
    ALTER FUNCTION {schema}.recall_sequence OWNER TO app_owner
    ALTER FUNCTION {schema}.recall_sequence RESET ALL
    DROP FUNCTION {schema}.recall_sequence
    CREATE TABLE {schema}.evil (id int)
    CREATE VIEW {schema}.pg_class AS SELECT 1
    INSERT INTO {schema}.marker VALUES (1, 'here')
    UPDATE {schema}.marker SET token = 'here'
    SELECT * FROM {schema}.marker
    CREATE TRIGGER evil BEFORE INSERT ON {schema}.marker EXECUTE FUNCTION suppress_redundant_updates_trigger()
    ALTER TABLE {schema}.marker ADD CHECK (id > 1)
    CREATE INDEX ON {schema}.marker (id)
    ALTER SCHEMA {schema} OWNER TO app_owner
    ALTER SCHEMA {schema} RENAME TO gone
    DROP SCHEMA {schema} CASCADE
    ALTER DEFAULT PRIVILEGES FOR ROLE rdsadmin GRANT ALL ON TABLES TO app_owner
"""


async def test_nor_does_it_change_what_a_deployment_has_put_there(server: PostgresServer) -> None:
    names = ObjectNames("bgd-0123456789abcdef")
    await session_functions.install_everywhere(server, names)
    await run_sql(server, f"CREATE TABLE {names.schema}.marker (id integer PRIMARY KEY, token text NOT NULL)")
    got_through = []
    async with await as_master(server) as master:
        for statement in statements(IN_A_DEPLOYMENT_S_SCHEMA.format(schema=names.schema)):
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                await master.execute(statement.encode())
                got_through.append(statement)
        for hostile in ("s; DROP TABLE kept", 's" RESTART; --', "x' || 'y"):
            with pytest.raises(psycopg.errors.UndefinedTable):
                await master.execute(
                    f"SELECT {names.schema}.recall_sequence('public', %s, 1, true)".encode(), [hostile]
                )
    assert not got_through, "\n".join(got_through)
