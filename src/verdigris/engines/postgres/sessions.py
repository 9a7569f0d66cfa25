"""Our own sessions on servers: hardened, able to write where others may not, and never in the way of a cancellation."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from msgspec import Struct
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.engines.postgres.server import PostgresServer

# Every cluster has it; what belongs to no database in particular is done there.
MAINTENANCE_DATABASE = "postgres"

# How long the server is given to answer our cancel request before its socket is shut. A frozen server never does.
_CANCEL_GRACE_S = 0.5
# Sessions that one operation opens at a time; ``superuser_reserved_connections`` keeps ten for us.
_DATABASES_AT_ONCE = 6

# Given at start-up, so they beat what ALTER DATABASE or ALTER ROLE say.
_SESSION_SETTINGS = {
    # A superuser who looks names up in public runs what others put there.
    "search_path": "",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": r"read\ committed",
    "session_replication_role": "origin",
    # Durable here; waiting for somebody's synchronous standby is not ours to do.
    "synchronous_commit": "local",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    # Verifiers pass through our statements.
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "jit": "off",
}

Query = LiteralString | sql.SQL | sql.Composed
Row = tuple[Any, ...]
T = TypeVar("T")


class Database(Struct, frozen=True, order=True):
    name: str
    oid: int


class Session(psycopg.AsyncConnection[Row]):
    """A connection whose queries can be cancelled even when the server is frozen (SIGSTOP).

    psycopg, cancelled, asks the server to cancel and then waits for it, up to ten seconds. We wait a moment and shut
    the socket.
    """

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        waiting = asyncio.ensure_future(super().wait(gen, *args, **kwargs))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            waiting.cancel()
            done, _ = await asyncio.wait({waiting}, timeout=_CANCEL_GRACE_S)
            if not done:
                self._shut_socket()
                await asyncio.wait({waiting}, timeout=_CANCEL_GRACE_S)
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # looked at, so that asyncio does not report it as lost
            raise

    def _shut_socket(self) -> None:
        with (
            contextlib.suppress(OSError, psycopg.OperationalError),
            socket.socket(fileno=os.dup(self.pgconn.socket)) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)

    async def rows(self, query: Query, *parameters: Any) -> list[Row]:
        cursor = await self.execute(query, parameters or None)
        return await cursor.fetchall()

    async def value(self, query: Query, *parameters: Any) -> Any:
        """The one column of the one row; None if there is no row."""
        rows = await self.rows(query, *parameters)
        return rows[0][0] if rows else None

    async def run(self, query: Query, *parameters: Any) -> None:
        await self.execute(query, parameters or None)

    @classmethod
    async def open(cls, server: PostgresServer, dbname: str = MAINTENANCE_DATABASE, **settings: str) -> Self:
        """Log in as the internal superuser. Raises ``EngineError``."""
        options = " ".join(f"-c {name}={value}" for name, value in (_SESSION_SETTINGS | settings).items())
        conninfo = server.conninfo(dbname, application_name="verdigris", options=options)
        try:
            return await cls.connect(conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            raise EngineError(f"cannot connect to {server.resource_id}: {error}") from error


@contextlib.asynccontextmanager
async def session(
    server: PostgresServer, dbname: str = MAINTENANCE_DATABASE, **settings: str
) -> AsyncIterator[Session]:
    """A session for the length of a block; errors of the database leave it as ``EngineError``."""
    connection = await Session.open(server, dbname, **settings)
    try:
        yield connection
    except psycopg.Error as error:
        raise EngineError(f"{server.resource_id}, database {dbname}: {describe(error)}") from error
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def sessions(
    source: PostgresServer, target: PostgresServer, dbname: str
) -> AsyncIterator[tuple[Session, Session]]:
    """One on each side, opened at the same time: most of a login is waiting for the other's SCRAM arithmetic."""
    opening = [asyncio.ensure_future(Session.open(server, dbname)) for server in (source, target)]
    try:
        ours, theirs = await asyncio.gather(*opening)
        try:
            yield ours, theirs
        except psycopg.Error as error:
            pair = f"{source.resource_id} and {target.resource_id}"
            raise EngineError(f"{pair}, database {dbname}: {describe(error)}") from error
    finally:
        await asyncio.shield(_close_opened(opening))


async def _close_opened(opening: Iterable[asyncio.Future[Session]]) -> None:
    for future in opening:
        future.cancel()
    for opened in await asyncio.gather(*opening, return_exceptions=True):
        if isinstance(opened, Session):
            await opened.close()


def describe(error: psycopg.Error) -> str:
    """The server's message with its detail and hint, on one line."""
    diag = error.diag
    parts = [diag.message_primary or str(error).strip(), diag.message_detail, diag.message_hint]
    return ". ".join(part.rstrip(".") for part in parts if part)


async def databases(connection: Session) -> list[Database]:
    """Those that a deployment carries: every one that is no template."""
    rows = await connection.rows(
        "SELECT datname, oid FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
    )
    return [Database(name, oid) for name, oid in rows]


async def list_databases(server: PostgresServer) -> list[Database]:
    async with session(server) as connection:
        return await databases(connection)


async def for_each(items: Collection[Database], work: Callable[[Database], Awaitable[T]]) -> dict[Database, T]:
    """Do ``work`` for several databases at once, not too many. The first failure cancels the others and is raised."""
    limit = asyncio.Semaphore(_DATABASES_AT_ONCE)
    results: dict[Database, T] = {}

    async def one(item: Database) -> None:
        async with limit:
            results[item] = await work(item)

    await all_of(*(one(item) for item in items))
    return results


async def all_of(*work: Awaitable[None]) -> None:
    """Run together; the first failure cancels the rest and is raised bare, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for awaitable in work:
                group.create_task(_run(awaitable))
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from None


async def _run(awaitable: Awaitable[None]) -> None:
    await awaitable


def first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


async def until(condition: Callable[[], Awaitable[bool]], *, every_s: float) -> None:
    """Ask again and again. The limit is the caller's, who cancels."""
    while True:
        if await condition():
            return
        await asyncio.sleep(every_s)
