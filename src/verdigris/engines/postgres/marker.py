"""Proof that the target has everything the source has: a row or a record written there and seen here.

Logical replication applies transactions in the order of their commits, one stream for each database, so the arrival of
a row proves the arrival of all that committed before it in that database. It comes within milliseconds, where
``confirmed_flush_lsn`` waits for the next status message.
"""

import secrets
from collections.abc import Iterable

from psycopg import sql

from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Database, Session, for_each, list_databases, session, sessions, until
from verdigris.engines.postgres.standby import wait_for_replay

_POLL_S = 0.001

# A transaction of its own that writes: its commit, with synchronous_commit on, flushes all WAL before it.
_SHOWN = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() END::text"
_FLUSH = sql.SQL("SELECT pg_logical_emit_message(true, 'verdigris', '')")


async def prove_logical(source: PostgresServer, target: PostgresServer, names: ObjectNames) -> None:
    """Return when all that is committed on the source now is applied on the target, and durable there."""

    async def one(database: Database) -> None:
        async with sessions(source, target, database.name) as (ours, theirs):
            await wait_for(theirs, names, await send(ours, names))
            await flush(theirs)

    await for_each(await list_databases(source), one)


async def send(source: Session, names: ObjectNames) -> str:
    """Write the marker of one database; returns what to look for."""
    token = secrets.token_hex(8)
    await source.run(
        sql.SQL("INSERT INTO {} VALUES (1, {}) ON CONFLICT (id) DO UPDATE SET token = excluded.token").format(
            _table(names), sql.Literal(token)
        )
    )
    return token


async def wait_for(target: Session, names: ObjectNames, token: str) -> None:
    seen = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE token = {})").format(_table(names), sql.Literal(token))
    await until(lambda: target.value(seen), every_s=_POLL_S)


def _table(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, "marker")


async def flush(connection: Session) -> None:
    """Make everything that is committed durable. Apply workers commit asynchronously: without this a target that dies
    right after the switchover would lose what the source, its slot gone, can no longer send."""
    await connection.run(_FLUSH)


async def prove_physical(source: PostgresServer, target: PostgresServer) -> None:
    """Return when the standby has replayed all that is committed on the source now. A standby replays only what it has
    flushed."""
    async with session(source) as connection:
        await flush(connection)
        lsn: str = await connection.value("SELECT pg_current_wal_flush_lsn()::text")
    await wait_for_replay(target, lsn)


async def prove_replicas(source: PostgresServer, replicas: Iterable[PostgresServer]) -> None:
    """The same of several, and of a source that may be a standby itself: then they have all that it shows now."""
    async with session(source) as connection:
        lsn: str | None = await connection.value(_SHOWN)
        if lsn is None:
            await flush(connection)
            lsn = await connection.value("SELECT pg_current_wal_flush_lsn()::text")
    for replica in replicas:
        await wait_for_replay(replica, str(lsn))
