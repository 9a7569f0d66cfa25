"""What was written on green by others than replication, found in green's own WAL.

A logical slot of green's own decodes it with ``test_decoding``, a contributed module that every PostgreSQL comes with,
and leaves out all that has an origin: what apply workers do. What is left is taken down by the names of the tables, in
a table of ours; contents never leave the server. Whatever we ourselves write into green's tables has to be done under
an origin too (``pg_replication_origin_session_setup``).
"""

import asyncio

import structlog
from psycopg import errors, sql

from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.own_sessions import UNNOTICED
from verdigris.engines.postgres.roles import MASTER_GROUP
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Database, Session, for_each, list_databases, session

log = structlog.get_logger(__name__)

_TABLE = "own_writes"
# Decoding begins each time at a point that PostgreSQL moves on every 15 s (LOG_SNAPSHOT_INTERVAL_MS in bgwriter.c),
# so to look more often only reads the same WAL more often.
INTERVAL_S = 30.0
# Green shares blue's disk. If nobody looks for so long, the slot is made anew: what was written meanwhile is not known.
KEEP_MIB = 1024

# The control plane and `verdigris deployments check` may look at the same time.
_BUSY_RETRIES = 20
_BUSY_POLL_S = 0.1

_LOST = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = %s"
# "table public.t: INSERT: ...", "table public.t, public.u: TRUNCATE: ...": names are quoted as SQL wants them.
_NOTE = sql.SQL("""
    INSERT INTO {} (relation)
    SELECT DISTINCT regexp_split_to_table(substring(data FROM '^table (.*?): (?:INSERT|UPDATE|DELETE|TRUNCATE)'), ', ')
      FROM pg_logical_slot_get_changes({}, NULL, NULL, 'only-local', '1', 'include-xids', '0', 'skip-empty-xacts', '1')
     WHERE starts_with(data, 'table ')
        ON CONFLICT DO NOTHING
""")


async def watch(target: PostgresServer, names: ObjectNames) -> None:
    """From now on. Waits for transactions that are running on the target, as PostgreSQL must."""

    async def one(database: Database) -> None:
        async with session(target, database.name, **UNNOTICED) as connection:
            if await connection.value("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", names.schema):
                await _make_table(connection, names)
                await _make_slot(connection, await _slot(connection, names))

    await for_each(await list_databases(target), one)


async def note_everywhere(target: PostgresServer, names: ObjectNames) -> None:
    async def one(database: Database) -> None:
        async with session(target, database.name) as connection:
            await note(connection, names)

    await for_each(await list_databases(target), one)


async def note(connection: Session, names: ObjectNames) -> list[str]:
    """In one database of the target: take down what has been written since the last time, and let go of the WAL.
    Returns all that is taken down: tables, quoted, with their schemas."""
    if not await connection.value("SELECT to_regclass(%s) IS NOT NULL", f"{names.schema}.{_TABLE}"):
        return []  # a database that was made on green
    slot = await _slot(connection, names)
    if await connection.value(_LOST, slot):
        log.warning("target.own_writes_unknown", database=connection.info.dbname, slot=slot)
        await connection.run("SELECT pg_drop_replication_slot(%s)", slot)
        await _make_slot(connection, slot)
    await _decode(connection, names, slot)
    rows = await connection.rows(sql.SQL("SELECT relation FROM {} ORDER BY 1").format(_table(names)))
    return [row[0] for row in rows]


async def _decode(connection: Session, names: ObjectNames, slot: str) -> None:
    for attempt in range(_BUSY_RETRIES):
        try:
            await connection.run(_NOTE.format(_table(names), sql.Literal(slot)))
        except errors.ObjectInUse:
            if attempt == _BUSY_RETRIES - 1:
                raise
            await asyncio.sleep(_BUSY_POLL_S)
        else:
            return


async def _make_table(connection: Session, names: ObjectNames) -> None:
    """The master user may take out what was meant to be written."""
    for statement in ("CREATE TABLE IF NOT EXISTS {} (relation text PRIMARY KEY)", "GRANT SELECT, DELETE ON {} TO {}"):
        await connection.run(sql.SQL(statement).format(_table(names), sql.Identifier(MASTER_GROUP)))


async def _make_slot(connection: Session, slot: str) -> None:
    if not await connection.value("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s)", slot):
        await connection.run("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", slot)


async def _slot(connection: Session, names: ObjectNames) -> str:
    oid: int = await connection.value("SELECT oid FROM pg_database WHERE datname = current_database()")
    return names.own_writes_slot(oid)


def _table(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, _TABLE)
