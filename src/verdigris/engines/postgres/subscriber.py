"""The target's side of logical replication: subscriptions that begin at an exact LSN."""

from collections.abc import Mapping
from typing import LiteralString

import structlog
from psycopg import sql

from verdigris.engines.postgres import config
from verdigris.engines.postgres.carrying import ddl_capture, ddl_replay
from verdigris.engines.postgres.names import READ_ONLY, ObjectNames
from verdigris.engines.postgres.own_sessions import UNNOTICED
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Database, for_each, list_databases, session

# Subscriptions are the cluster's, their names each database's.
_OURS = "FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()"
_EXISTS: LiteralString = f"SELECT EXISTS (SELECT {_OURS} WHERE s.subname = %s)"
_ADVANCE: LiteralString = (
    f"SELECT pg_replication_origin_advance('pg_' || s.oid, %s::pg_lsn) {_OURS} WHERE s.subname = %s"
)

log = structlog.get_logger(__name__)


# Of a subscription: its apply worker, and those that stream large transactions (two by default).
_WORKERS_EACH = 3
# For everything else that needs worker processes: parallel queries, the launcher.
_OTHER_WORKERS = 16


def settings_for(databases: int, present: Mapping[str, str]) -> dict[str, str]:
    """What a target needs for one subscription in each database; never less than it has."""
    workers = databases * _WORKERS_EACH
    needed = {
        "max_logical_replication_workers": workers,
        "max_worker_processes": workers + _OTHER_WORKERS,
        # Origins, which before 18 are counted with slots, and the slots with which green's own writes are found.
        "max_replication_slots": databases * 2 + 1,
        # From 18 on origins are counted by themselves; older versions do not have it.
        "max_active_replication_origins": databases + 1,
    }
    return {name: str(max(value, int(present[name]))) for name, value in needed.items() if name in present}


async def subscribe(source: PostgresServer, target: PostgresServer, names: ObjectNames, lsn: str) -> None:
    """One subscription in each database, applying what committed at ``lsn`` or later. Those that exist stay.

    Slots that were made before the last one begin earlier than ``lsn``; the origin's position makes them skip what the
    copy already has.
    """
    oids = {database.name: database.oid for database in await list_databases(source)}
    await _let_workers_define(target, True)

    async def one(database: Database) -> None:
        await _subscribe(source, target, names, database, names.logical_slot(oids[database.name]), lsn)

    await for_each([database for database in await list_databases(target) if database.name in oids], one)


async def _subscribe(
    source: PostgresServer, target: PostgresServer, names: ObjectNames, database: Database, slot: str, lsn: str
) -> None:
    # The owner is a superuser, but changes are applied with the rights of each table's owner (run_as_owner=false, the
    # default): otherwise an expression in an index or a check would let that owner act as superuser.
    # origin=any, the default: "none" would drop what an application on the source wrote under an origin of its own.
    create = sql.SQL(
        "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {} WITH"
        " (create_slot = false, copy_data = false, enabled = false, slot_name = {}, streaming = {})"
    ).format(
        sql.Identifier(names.subscription),
        sql.Literal(source.conninfo(database.name, application_name=names.subscription)),
        sql.Identifier(names.publication),
        sql.Literal(slot),
        sql.SQL("parallel" if target.version.major >= 16 else "on"),
    )
    async with (
        session(source, database.name) as ours,
        session(target, database.name, **UNNOTICED) as connection,
    ):
        await ddl_replay.install(connection, names)
        await ddl_capture.tell_extensions(ours, connection, names)
        async with connection.transaction():
            if not await connection.value(_EXISTS, names.subscription):
                await connection.run(create)
                await connection.run(_ADVANCE, lsn, names.subscription)
        await connection.run(_alter(names, "ENABLE"))


async def disable(target: PostgresServer, names: ObjectNames) -> None:
    """Have the apply workers end. Takes no answer of theirs."""

    async def one(database: Database) -> None:
        # One that is open already, because this is waited for; so it is told on the way.
        async with session(target, database.name) as connection, connection.transaction():
            if await connection.value(_EXISTS, names.subscription):
                await connection.run("SET LOCAL session_replication_role = replica")
                await connection.run(_alter(names, "DISABLE"))

    await for_each(await list_databases(target), one)


async def unsubscribe(target: PostgresServer, names: ObjectNames) -> None:
    """Drop the subscriptions without a word to the source, which may be gone. Their origins go with them."""

    async def drop(database: Database) -> None:
        async with session(target, database.name, **UNNOTICED) as connection:
            if await connection.value(_EXISTS, names.subscription):
                await connection.run(_alter(names, "DISABLE"))
                await connection.run(_alter(names, "SET (slot_name = NONE)"))
                await connection.run(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(names.subscription)))

    await for_each(await list_databases(target), drop)
    await _let_workers_define(target, False)


async def _let_workers_define(target: PostgresServer, may: bool) -> None:
    """Rows are applied in a read-only transaction too; the statements that are carried are not. Apply workers log in
    as our role, whose own setting goes before the server's, and nobody else has it."""
    action = sql.SQL("SET {} = off" if may else "RESET {}").format(sql.Identifier(READ_ONLY))
    async with session(target) as connection:
        await connection.run(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(config.ADMIN_ROLE), action))


def _alter(names: ObjectNames, action: LiteralString) -> sql.Composed:
    return sql.SQL("ALTER SUBSCRIPTION {} {}").format(sql.Identifier(names.subscription), sql.SQL(action))
