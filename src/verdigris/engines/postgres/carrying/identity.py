"""Tables without a key: they are given ``REPLICA IDENTITY FULL`` for as long as a publication of ours holds them.

A published table whose updates could not be described has them refused, on the source. What it was is written down on
the source itself, in the deployment's schema, in the transaction that alters it: no crash can part the two. It is put
back when the publication is gone, never while it is there.

``ALTER TABLE`` waits for an exclusive lock, and everybody else who wants the table waits behind it. So each table is
altered in a transaction of its own that waits for a moment only, and is tried again.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from psycopg import errors, sql

from verdigris.domain.errors import EngineError
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.sessions import Session

log = structlog.get_logger(__name__)

# How long one attempt keeps others waiting who come after it, at most; a moment nobody complains of.
_LOCK_WAIT_MS = 100
# Between attempts those who were kept waiting get through.
_RETRY_S = 0.4
# A table that is never free for so long is in a transaction that a switchover would refuse anyway.
_GIVE_UP_AFTER_S = 30.0


async def take_back(connection: Session, names: ObjectNames) -> None:
    """Every table as it was, once nothing publishes it any more."""
    if not await connection.value("SELECT to_regclass(%s) IS NOT NULL", _journal(names).as_string()):
        return
    given = await connection.rows(
        sql.SQL(
            "SELECT n.nspname, c.relname, g.was FROM {} g"
            "  JOIN pg_class c ON c.oid = g.relation AND c.relreplident = 'f' AND g.was <> 'x'"
            "  JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2"
        ).format(_journal(names))
    )
    for schema, table, was in given:
        await _take_back_one(connection, schema, table, was)
    if given:
        log.info("identity.taken_back", deployment=names.base, database=connection.info.dbname, tables=len(given))


async def _take_back_one(connection: Session, schema: str, table: str, was: str) -> None:
    identity = sql.SQL("NOTHING") if was == "n" else sql.SQL("DEFAULT")

    async def alter() -> None:
        await connection.run(
            sql.SQL("ALTER TABLE IF EXISTS ONLY {} REPLICA IDENTITY {}").format(sql.Identifier(schema, table), identity)
        )

    await _without_queueing(connection, alter, f"table {schema}.{table}")


async def _without_queueing(connection: Session, alter: Callable[[], Awaitable[None]], what: str) -> None:
    """In a transaction of its own, with nobody kept waiting behind it for long."""
    give_up_at = asyncio.get_running_loop().time() + _GIVE_UP_AFTER_S
    while True:
        try:
            async with connection.transaction():
                await connection.run(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT_MS)))
                # Event triggers are for what is done to the source, not for what is undone again.
                await connection.run("SET LOCAL session_replication_role = replica")
                await alter()
        except errors.LockNotAvailable:
            if asyncio.get_running_loop().time() > give_up_at:
                raise EngineError(
                    f"{what} of database {connection.info.dbname} was in use for {_GIVE_UP_AFTER_S:g} s without a"
                    " break, and its replica identity could not be set"
                ) from None
            await asyncio.sleep(_RETRY_S)
        else:
            return


def _journal(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, "identities")
