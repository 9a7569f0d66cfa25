"""What forbids a deployment, found before anything is made."""

import asyncio
import shutil
from pathlib import Path

from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Finding, Pair
from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.installations import Installation
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.publisher import TABLES_WITHOUT_KEY
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import Database, Query, Session, databases, for_each, session

REPLICATION = "External replication"
UNSUPPORTED = "Unsupported PostgreSQL changes"
SOURCE = "Source database"
ENGINE = "Target engine version"
STORAGE = "Storage"

# A name too many does not help whoever reads StatusDetails.
_NAMED_AT_MOST = 20
# The copy itself, and as much again of WAL and working room as a tenth of it.
_FREE_DISK_FACTOR = 1.1

_UNLOGGED = sql.SQL("""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1, 2
""")

# Apply workers run as a replica: ordinary triggers stay silent there, these fire a second time.
_REPLICA_TRIGGERS = sql.SQL("""
    SELECT format('%I on %I.%I', t.tgname, n.nspname, c.relname)
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') ORDER BY 1
""")

# Changes are applied with the rights of a table's owner, whom row security then filters.
_FORCED_ROW_SECURITY = sql.SQL("""
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
     WHERE c.relkind = 'r' AND c.relrowsecurity AND c.relforcerowsecurity
       AND NOT (r.rolsuper OR r.rolbypassrls) ORDER BY 1
""")

# A row is found on the target by its old values, all of them compared; json, xml and the like have no equality.
_INCOMPARABLE_IDENTITY = sql.SQL("""
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relreplident = 'f' AND pg_relation_is_publishable(c.oid)
       AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
       AND EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                      AND t.typtype = 'b' AND t.typelem = 0
                      AND NOT EXISTS (SELECT FROM pg_opclass o
                                        JOIN pg_am m ON m.oid = o.opcmethod AND m.amname IN ('btree', 'hash')
                                       WHERE o.opcdefault AND (o.opcintype = t.oid OR EXISTS (
                                           SELECT FROM pg_cast k WHERE k.castsource = t.oid
                                              AND k.casttarget = o.opcintype AND k.castmethod = 'b'))))
     ORDER BY 1
""")

_ICU_DATABASES = sql.SQL("SELECT 'database ' || datname FROM pg_database WHERE datlocprovider = 'i' ORDER BY 1")

# Made by users, or one of initdb's that a column or index uses.
_ICU_COLLATIONS = sql.SQL("""
    SELECT format('%I.%I', n.nspname, c.collname)
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
     WHERE c.collprovider = 'i'
       AND (c.oid >= 16384 OR EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = c.oid AND a.attrelid >= 16384))
     ORDER BY 1
""")

EXTERNAL_REPLICATION = sql.SQL("""
    SELECT 'replication slot ' || slot_name FROM pg_replication_slots
     WHERE slot_name <> %s AND NOT starts_with(slot_name, %s)
     UNION ALL
    SELECT format('subscription %%I in database %%I', s.subname, d.datname)
      FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
     UNION ALL
    SELECT format('replication connection of %%s (%%s)', r.usename, r.application_name)
      FROM pg_stat_replication r
     WHERE NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid)
     ORDER BY 1
""")


async def check_source(servers: PostgresServers, pair: Pair) -> list[Finding]:
    """Everything that is wrong, not the first thing only. Changes nothing."""
    source = servers.server(pair.source_resource_id)
    if not source.is_running():
        return [Finding(guardrail=SOURCE, message="The source is not running.")]
    async with session(source) as connection:
        if await connection.value("SELECT pg_is_in_recovery()"):
            return [Finding(guardrail=SOURCE, message="The source is itself a standby.")]
        findings = await _cluster_findings(connection, ObjectNames(pair.deployment_id), pair.mode)
        carried = await databases(connection)

    async def look(database: Database) -> list[Finding]:
        async with session(source, database.name) as connection:
            return await _database_findings(connection, database, pair.mode)

    for found in (await for_each(carried, look)).values():
        findings += found
    findings += await _storage_findings(source)
    findings += await _engine_findings(servers, source, pair)
    return findings


async def external_replication(connection: Session, names: ObjectNames) -> list[Finding]:
    """Others who replicate from or to this server: nobody can move their positions to green for them."""
    others = await _names(connection, EXTERNAL_REPLICATION, names.base, names.base + "_")
    if not others:
        return []
    return [
        Finding(
            guardrail=REPLICATION,
            message=f"Blue takes part in replication that cannot be carried to green: {listed(others)}."
            " Remove it, and set it up again on green afterwards.",
        )
    ]


async def filled_unlogged_tables(connection: Session) -> list[str]:
    """Unlogged tables that have rows. No copy carries their contents."""
    filled = []
    for schema, table in await connection.rows(_UNLOGGED):
        if await connection.value(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, table))):
            filled.append(f"{schema}.{table}")
    return filled


async def prepared_transactions(connection: Session) -> list[str]:
    return await _names(connection, sql.SQL("SELECT gid FROM pg_prepared_xacts ORDER BY 1"))


async def _cluster_findings(connection: Session, names: ObjectNames, mode: ReplicationMode) -> list[Finding]:
    findings = []
    tablespaces = await _names(
        connection, sql.SQL("SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')")
    )
    if tablespaces:
        message = (
            f"Tablespaces cannot be copied on one machine: {listed(tablespaces)}. Move their tables to pg_default."
        )
        findings.append(Finding(guardrail=SOURCE, message=message))
    if mode is ReplicationMode.PHYSICAL:
        return findings
    findings += await external_replication(connection, names)
    if prepared := await prepared_transactions(connection):
        message = f"Prepared transactions are not replicated: {listed(prepared)}. Commit or roll them back."
        findings.append(Finding(guardrail=SOURCE, message=message))
    closed = await _names(
        connection,
        sql.SQL("SELECT datname FROM pg_database WHERE NOT datallowconn AND datname <> 'template0' ORDER BY 1"),
    )
    if closed:
        message = f"pg_upgrade needs to connect to every database, and these allow none: {listed(closed)}."
        findings.append(Finding(guardrail=SOURCE, message=message))
    return findings + await _capacity_findings(connection)


async def _capacity_findings(connection: Session) -> list[Finding]:
    """One slot for each database and one for the copy; a sender for each, and one more that streams the copy's WAL."""
    needed = len(await databases(connection)) + 2
    free: int = await connection.value(
        "SELECT least(current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),"
        " current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication))"
    )
    if free >= needed:
        return []
    return [
        Finding(
            guardrail=SOURCE,
            message=f"Green needs {needed} replication slots and WAL senders on blue, and {free} are free:"
            " raise max_replication_slots and max_wal_senders.",
        )
    ]


async def _database_findings(connection: Session, database: Database, mode: ReplicationMode) -> list[Finding]:
    findings: list[Finding] = []

    def add(objects: list[str], what: str, remedy: str) -> None:
        if objects:
            message = f"Database {database.name}: {what}: {listed(objects)}. {remedy}"
            findings.append(Finding(guardrail=UNSUPPORTED, message=message))

    add(
        await filled_unlogged_tables(connection),
        "unlogged tables, whose rows no copy carries",
        "Make them logged, or empty them.",
    )
    if mode is ReplicationMode.PHYSICAL:
        return findings
    add(
        await _names(connection, TABLES_WITHOUT_KEY),
        "tables without a primary key or other replica identity",
        "Add a primary key, with REPLICA IDENTITY DEFAULT where that was taken away, or set REPLICA IDENTITY FULL.",
    )
    add(
        await _names(connection, _INCOMPARABLE_IDENTITY),
        "tables with REPLICA IDENTITY FULL and columns of a type that has no equality",
        "Add a primary key.",
    )
    add(
        await _names(connection, _REPLICA_TRIGGERS),
        "triggers that would fire on green as well (ENABLE ALWAYS or REPLICA)",
        "Enable them for origin sessions only.",
    )
    add(
        await _names(connection, _FORCED_ROW_SECURITY),
        "tables that force row security on an owner who may not bypass it",
        "Give the owner BYPASSRLS, or use NO FORCE ROW LEVEL SECURITY until after the switchover.",
    )
    return findings


async def _storage_findings(source: PostgresServer) -> list[Finding]:
    size_bytes = await asyncio.to_thread(_tree_bytes, source.data_dir)
    free_bytes = shutil.disk_usage(source.data_dir).free
    if free_bytes >= size_bytes * _FREE_DISK_FACTOR:
        return []
    message = f"Green needs about {size_bytes >> 20} MiB of disk, and {free_bytes >> 20} MiB are free."
    return [Finding(guardrail=STORAGE, message=message)]


async def _engine_findings(servers: PostgresServers, source: PostgresServer, pair: Pair) -> list[Finding]:
    try:
        extensions = await servers.extensions_in_use(source)
        installation = await servers.catalogue.installation(pair.target_version, extensions=extensions)
    except EngineError as error:
        return [Finding(guardrail=ENGINE, message=f"{error}.")]
    if await asyncio.to_thread(_has_icu, installation):
        return []
    used: list[str] = []
    async with session(source) as connection:
        used += await _names(connection, _ICU_DATABASES)
        carried = await databases(connection)
    for database in carried:
        async with session(source, database.name) as connection:
            used += [f"collation {name} in {database.name}" for name in await _names(connection, _ICU_COLLATIONS)]
    if not used:
        return []
    message = (
        f"The PostgreSQL {pair.target_version} that would be used is built without ICU, needed by: {listed(used)}."
    )
    return [Finding(guardrail=ENGINE, message=message)]


def _has_icu(installation: Installation) -> bool:
    """Whether the server calls ICU: the function's name is among its dynamic symbols then."""
    return b"ucol_strcoll" in Path(installation.program("postgres")).read_bytes()


def _tree_bytes(directory: Path) -> int:
    """Space used. Files of a running server come and go."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


async def _names(connection: Session, query: Query, *parameters: object) -> list[str]:
    return [row[0] for row in await connection.rows(query, *parameters)]


def listed(names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
