"""Roles and what belongs to them, changed on blue while green waits.

Green is a server of its own here, with blue's roles as a copy would have them; ``pg_dumpall`` says whether both agree.
"""

import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, MASTER, CreateServer
from tests.integration.replication.conftest import query, run_sql
from verdigris.domain.errors import StepFailed
from verdigris.engines.postgres.carrying import roles
from verdigris.engines.postgres.carrying.role_state import encode, read_state
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import sessions

NAMES = ObjectNames("bgd-0123456789abcdef")
ODD = '"Od""d; DROP ROLE x\'\\ %s {}"'  # as SQL spells it

SETUP = (
    "CREATE ROLE clerk LOGIN PASSWORD 'secret' CONNECTION LIMIT 3",
    "CREATE ROLE reader",
    "CREATE ROLE writer NOINHERIT VALID UNTIL '2030-01-01 00:00:00+00'",
    "CREATE ROLE leaves",
    "CREATE ROLE swapped_a CREATEDB",
    "CREATE ROLE swapped_b CREATEROLE",
    "CREATE ROLE hashed LOGIN PASSWORD 'md5a3556571e93b0d20722ba62be61e8c2d'",
    "GRANT reader TO clerk",
    "GRANT writer TO clerk WITH ADMIN OPTION",
    "GRANT writer TO leaves",
    'ALTER ROLE clerk SET search_path = "$user", \'Odd, "schema\', public',
    "ALTER ROLE clerk IN DATABASE app SET work_mem = '8MB'",
    "COMMENT ON ROLE reader IS 'reads'",
)

CHANGES = (
    f"ALTER ROLE clerk RENAME TO {ODD}",
    "CREATE ROLE clerk LOGIN REPLICATION BYPASSRLS CONNECTION LIMIT 7 PASSWORD 'other' VALID UNTIL 'infinity'",
    "ALTER ROLE reader LOGIN PASSWORD 'now one' CREATEDB",
    "ALTER ROLE writer INHERIT VALID UNTIL '2031-02-03 04:05:06.789+02'",
    "ALTER ROLE swapped_a RENAME TO passing",
    "ALTER ROLE swapped_b RENAME TO swapped_a",
    "ALTER ROLE passing RENAME TO swapped_b",
    "ALTER ROLE hashed RENAME TO unhashed",
    "COMMENT ON ROLE reader IS NULL",
    "COMMENT ON ROLE clerk IS 'it''s \\new'",
    "CREATE ROLE grouped",
    "GRANT grouped TO clerk WITH ADMIN OPTION",
    "SET ROLE clerk",
    "GRANT grouped TO swapped_b",
    "RESET ROLE",
    f"REVOKE reader FROM {ODD}",
    "GRANT pg_read_all_stats TO swapped_a WITH ADMIN OPTION",
    "DROP ROLE leaves",
    "ALTER ROLE reader SET search_path = ''",
    "ALTER ROLE reader SET session_preload_libraries = ''",
    "ALTER ROLE reader SET \"app.tenant\" = 'a=b, \"c\" '' \\'",
    "ALTER ROLE writer IN DATABASE app SET work_mem = '9MB'",
    "ALTER ROLE ALL SET statement_timeout = '1h'",
    "ALTER DATABASE app SET timezone = 'Asia/Tokyo'",
    "ALTER DATABASE app OWNER TO swapped_b",
    "ALTER DATABASE app CONNECTION LIMIT 17",
    "COMMENT ON DATABASE app IS 'the app'",
    "REVOKE TEMPORARY ON DATABASE app FROM PUBLIC",
    "GRANT CREATE ON DATABASE app TO clerk WITH GRANT OPTION",
    "SET ROLE clerk",
    "GRANT CREATE ON DATABASE app TO reader",
    "RESET ROLE",
    'GRANT SET ON PARAMETER log_statement, "app.tenant" TO reader',
    "GRANT ALTER SYSTEM ON PARAMETER work_mem TO reader WITH GRANT OPTION",
)


async def twins(create_server: CreateServer, source_version: str, target_version: str) -> list[PostgresServer]:
    pair = [await create_server(version=version) for version in (source_version, target_version)]
    for server in pair:
        # A copy has blue's passwords to the letter; here they are salted anew.
        await run_sql(server, f"ALTER ROLE {MASTER} PASSWORD NULL", *SETUP, "ALTER ROLE clerk PASSWORD NULL")
    async with sessions(pair[0], pair[1], "postgres") as (ours, theirs):
        digest, state = await read_state(ours)
        await theirs.execute(f"CREATE SCHEMA {NAMES.schema}".encode())
        await theirs.execute(f"CREATE TABLE {NAMES.schema}.roles (digest text, state text)".encode())
        await theirs.execute(f"INSERT INTO {NAMES.schema}.roles VALUES (%s, %s)".encode(), [digest, encode(state)])
    return pair


async def carry(source: PostgresServer, target: PostgresServer) -> list[str]:
    async with sessions(source, target, "postgres") as (ours, theirs):
        return await roles.carry(ours, theirs, NAMES, master=MASTER)


async def globals_of(server: PostgresServer, like: PostgresServer) -> list[str]:
    """As ``pg_dumpall`` of one version writes them, and what it leaves to ``pg_dump --create``."""
    dumped = await like.run(
        "pg_dumpall", "--globals-only", "--quote-all-identifiers", "--dbname", server.conninfo("postgres")
    )
    # Each server's internal user has its own password, and not every version has pg_maintain.
    ignored = ("--", "\\", 'ALTER ROLE "rdsadmin"', 'GRANT "pg_maintain"')
    lines = [line for line in dumped.stdout.splitlines() if line and not line.startswith(ignored)]
    databases = await query(
        server,
        "SELECT d.datname, pg_get_userbyid(d.datdba), d.datconnlimit, shobj_description(d.oid, 'pg_database'),"
        " (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(coalesce(datacl, acldefault('d', datdba))) a),"
        " (SELECT array_agg(format('%s: %s', setrole::regrole, c) ORDER BY setrole::regrole::text, c)"
        "    FROM pg_db_role_setting, unnest(setconfig) c WHERE setdatabase = d.oid),"
        " (SELECT array_agg(c ORDER BY c) FROM pg_db_role_setting, unnest(setconfig) c"
        "   WHERE setdatabase = 0 AND setrole = 0)"
        "  FROM pg_database d ORDER BY 1",
    )
    return sorted(lines) + [repr(row) for row in databases]


@pytest.mark.parametrize(
    ("source_version", "target_version"), [(BLUE_VERSION, GREEN_VERSION), ("15.19", GREEN_VERSION), ("16.15", "17.11")]
)
async def test_whatever_is_changed_on_blue_is_changed_on_green(
    create_server: CreateServer, source_version: str, target_version: str
) -> None:
    source, target = await twins(create_server, source_version, target_version)
    assert await carry(source, target) == []
    await run_sql(source, *CHANGES)
    assert await carry(source, target) == []
    ours, theirs = await globals_of(source, target), await globals_of(target, target)
    if source_version.startswith("15."):
        # Grantors meant nothing then, and who administers a role is added for CREATEROLE.
        ours, theirs = (
            [
                line.split(" WITH ")[0].split(" GRANTED BY ")[0].rstrip(";") if line.startswith("GRANT") else line
                for line in lines
                if f'TO "{MASTER}"' not in line
            ]
            for lines in (ours, theirs)
        )
        theirs = [line for line in theirs if ' TO "swapped_a"' not in line or "pg_read_all_stats" in line]
    assert theirs == ours
    assert await carry(source, target) == []


async def test_what_was_done_to_green_stays_until_blue_changes_the_same(create_server: CreateServer) -> None:
    source, target = await twins(create_server, BLUE_VERSION, GREEN_VERSION)
    await run_sql(
        target,
        "CREATE ROLE of_green",
        "ALTER ROLE reader CONNECTION LIMIT 5 CREATEDB",
        "GRANT writer TO of_green",
        "ALTER ROLE reader SET work_mem = '1MB'",
        "GRANT CREATE ON DATABASE app TO of_green",
    )
    await run_sql(
        source, "ALTER ROLE reader NOINHERIT", "ALTER ROLE reader SET lock_timeout = 5", "GRANT reader TO writer"
    )
    assert await carry(source, target) == []
    reader = "SELECT rolconnlimit, rolcreatedb, rolinherit FROM pg_roles WHERE rolname = 'reader'"
    assert await query(target, reader) == [(5, True, False)]
    assert await query(
        target, "SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'reader'::regrole AND setdatabase = 0"
    ) == [(["work_mem=1MB", "lock_timeout=5"],)]
    assert await query(target, "SELECT pg_has_role('of_green', 'writer', 'USAGE')") == [(True,)]
    await run_sql(source, "ALTER ROLE reader CONNECTION LIMIT 9")
    assert await carry(source, target) == []
    assert await query(target, reader) == [(9, True, False)]


async def test_a_role_is_dropped_once_nothing_belongs_to_it(create_server: CreateServer) -> None:
    source, target = await twins(create_server, BLUE_VERSION, GREEN_VERSION)
    await run_sql(target, "CREATE TABLE public.kept (id int)", "ALTER TABLE public.kept OWNER TO leaves")
    await run_sql(source, "DROP ROLE leaves")
    told = ["Role leaves was dropped on blue and still owns something on green."]
    assert await carry(source, target) == told
    # Meanwhile blue has another of the name.
    await run_sql(source, "CREATE ROLE leaves LOGIN")
    assert (await carry(source, target))[0].startswith("Role verdigris_aside_")
    async with sessions(source, target, "postgres") as (ours, theirs):
        with pytest.raises(StepFailed, match="still owns something"):
            await roles.carry_finally(ours, theirs, NAMES, master=MASTER)
    assert await query(target, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'leaves'") == [(True,)]
    await run_sql(target, "ALTER TABLE public.kept OWNER TO reader")
    assert await carry(source, target) == []
    assert await globals_of(source, target) == await globals_of(target, target)


async def test_all_of_it_or_nothing(create_server: CreateServer) -> None:
    """A statement that green refuses takes the others with it, and the next round tries them again."""
    source, target = await twins(create_server, BLUE_VERSION, GREEN_VERSION)
    await run_sql(target, "CREATE ROLE in_the_way")
    await run_sql(source, "ALTER ROLE reader CREATEDB", "ALTER ROLE writer RENAME TO in_the_way")
    before = await globals_of(target, target)
    with pytest.raises(Exception, match="in_the_way"):
        await carry(source, target)
    assert await globals_of(target, target) == before
    await run_sql(target, "DROP ROLE in_the_way")
    assert await carry(source, target) == []
    assert await globals_of(source, target) == await globals_of(target, target)
