"""Our own sessions on servers: hardened, able to write where others may not, and never in the way of a cancellation."""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, LiteralString, Self, TypeVar

import psycopg
from msgspec import Struct
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.undoing import to_its_end
from verdigris.engines.postgres import own_sessions
from verdigris.engines.postgres.own_sessions import Setting
from verdigris.engines.postgres.server import PostgresServer

if TYPE_CHECKING:
    from verdigris.engines.control import Control

# Every cluster has it; what belongs to no database in particular is done there.
MAINTENANCE_DATABASE = "postgres"

# How long the server is given to answer our cancel request before its socket is shut. A frozen server never does.
_CANCEL_GRACE_S = 0.5
# Reads of what a server says unasked (a setting reloaded, that it ends) before its session is given up.
_UNASKED_MAX = 4
# Sessions that one operation opens at a time; ``superuser_reserved_connections`` keeps ten for us.
_DATABASES_AT_ONCE = 6

Query = LiteralString | sql.SQL | sql.Composed
Row = tuple[Any, ...]
T = TypeVar("T")
U = TypeVar("U")


class Database(Struct, frozen=True, order=True):
    name: str
    oid: int


class Session(psycopg.AsyncConnection[Row]):
    """A connection whose queries can be cancelled even when the server is frozen (SIGSTOP).

    psycopg, cancelled, asks the server to cancel and then waits for it, up to ten seconds. We wait a moment and shut
    the socket.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._planned: set[str] = set()
        self._control: Control | None = None

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

    def _require_control(self) -> None:
        if self._control is not None:
            self._control.require()

    async def rows(self, query: Query, *parameters: Any) -> list[Row]:
        self._require_control()
        cursor = await self.execute(query, parameters or None)
        return await cursor.fetchall()

    async def rows_prepared(self, name: str, query: Callable[[], Awaitable[sql.Composed]]) -> list[Row]:
        """The rows of a statement without parameters that is put together and planned once, for as long as the session
        is kept. ``name`` names it, and its text: ``query`` is asked for that only the first time."""
        if name not in self._planned:
            await self.run(sql.SQL("PREPARE {} AS {}").format(sql.Identifier(name), await query()))
            self._planned.add(name)
        return await self.rows(sql.SQL("EXECUTE {}").format(sql.Identifier(name)))

    async def value(self, query: Query, *parameters: Any) -> Any:
        """The one column of the one row; None if there is no row."""
        rows = await self.rows(query, *parameters)
        return rows[0][0] if rows else None

    async def run(self, query: Query, *parameters: Any) -> None:
        self._require_control()
        await self.execute(query, parameters or None)

    @property
    def reusable(self) -> bool:
        """Idle, and the server has not hung up meanwhile. What it has said unasked is read without waiting."""
        if self.closed or self.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            return False
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        try:
            for _ in range(_UNASKED_MAX):
                if not poll.poll(0):
                    return True
                self.pgconn.consume_input()
        except psycopg.OperationalError:
            pass
        return False

    @classmethod
    async def open(cls, server: PostgresServer, dbname: str = MAINTENANCE_DATABASE, **settings: Setting) -> Self:
        """Log in as the internal superuser. Raises ``EngineError``."""
        options = own_sessions.options(server.version, settings)
        conninfo = server.conninfo(dbname, application_name=own_sessions.APPLICATION_NAME, options=options)
        server.control.require()
        try:
            connection = await cls.connect(conninfo, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            raise EngineError(f"cannot connect to {server.resource_id}: {error}") from error
        connection._control = server.control
        return connection


class KeptSessions:
    """Sessions of one server that stay open between uses, for as long as this object is the server's ``kept``.

    A login costs milliseconds of SCRAM arithmetic and a new backend knows no catalogue yet: in a switchover's pause
    everybody would wait for both. What was opened and used before it is taken up again in it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit  # ``superuser_reserved_connections`` are few
        self._idle: dict[_Key, list[Session]] = {}
        self._closed = False

    async def take(self, key: "_Key") -> Session | None:
        while kept := self._idle.get(key):
            connection = kept.pop()
            if connection.reusable:
                return connection
            await connection.close()
        return None

    async def give_back(self, key: "_Key", connection: Session) -> None:
        if self._closed or not connection.reusable or sum(map(len, self._idle.values())) >= self._limit:
            await connection.close()
        else:
            self._idle.setdefault(key, []).append(connection)

    def has(self, dbname: str) -> bool:
        """Whether an ordinary session of ours in that database is waiting to be used."""
        return any(connection.reusable for connection in self._idle.get((dbname, frozenset()), ()))

    async def close(self) -> None:
        self._closed = True
        for kept in self._idle.values():
            for connection in kept:
                await connection.close()
        self._idle.clear()


_Key = tuple[str, frozenset[tuple[str, Setting]]]


# Whether this task, and those that it begins, work for the switchover.
_for_switchover: ContextVar[bool] = ContextVar("_for_switchover", default=False)


@contextlib.contextmanager
def kept_sessions() -> Iterator[None]:
    """A block that takes kept sessions up. Nobody else does: behind a seal the switchover has no others, and one that
    was on loan to a look of the monitor, or to somebody who asks for the lag, would make it fail."""
    token = _for_switchover.set(True)
    try:
        yield
    finally:
        _for_switchover.reset(token)


def keep_sessions(server: PostgresServer, limit: int) -> None:
    """From now on, sessions of ``server`` that ``kept_sessions`` uses are kept, up to ``limit`` of them."""
    if server.kept is None:
        server.kept = KeptSessions(limit)


async def let_go_of_sessions(server: PostgresServer) -> None:
    """Close the kept ones, and each that is in use once it is given back."""
    kept, server.kept = server.kept, None
    if kept is not None:
        await kept.close()


async def _acquire(server: PostgresServer, dbname: str, **settings: Setting) -> Session:
    if server.kept is not None and _for_switchover.get():
        kept = await server.kept.take((dbname, frozenset(settings.items())))
        if kept is not None:
            return kept
    return await Session.open(server, dbname, **settings)


async def _return(server: PostgresServer, connection: Session, dbname: str, **settings: Setting) -> None:
    if server.kept is not None and _for_switchover.get():
        await server.kept.give_back((dbname, frozenset(settings.items())), connection)
    else:
        await connection.close()


@contextlib.asynccontextmanager
async def session(
    server: PostgresServer, dbname: str = MAINTENANCE_DATABASE, **settings: Setting
) -> AsyncIterator[Session]:
    """A session for the length of a block; errors of the database leave it as ``EngineError``.

    A setting that is None is left as the server has it, instead of what our sessions otherwise ask for.
    """
    connection = await _acquire(server, dbname, **settings)
    try:
        yield connection
    except psycopg.Error as error:
        raise EngineError(f"{server.resource_id}, database {dbname}: {describe(error)}") from error
    finally:
        await _return(server, connection, dbname, **settings)


@contextlib.asynccontextmanager
async def sessions(
    source: PostgresServer, target: PostgresServer, dbname: str
) -> AsyncIterator[tuple[Session, Session]]:
    """One on each side, opened at the same time: most of a login is waiting for the other's SCRAM arithmetic."""
    servers = (source, target)
    opening = [asyncio.ensure_future(_acquire(server, dbname)) for server in servers]
    try:
        ours, theirs = await asyncio.gather(*opening)
        try:
            yield ours, theirs
        except psycopg.Error as error:
            pair = f"{source.resource_id} and {target.resource_id}"
            raise EngineError(f"{pair}, database {dbname}: {describe(error)}") from error
    finally:
        await to_its_end(_return_opened(servers, opening, dbname))


async def _return_opened(
    servers: Iterable[PostgresServer], opening: Iterable[asyncio.Future[Session]], dbname: str
) -> None:
    for future in opening:
        future.cancel()
    for server, opened in zip(servers, await asyncio.gather(*opening, return_exceptions=True), strict=True):
        if isinstance(opened, Session):
            await _return(server, opened, dbname)


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


async def both(one: Awaitable[T], other: Awaitable[U]) -> tuple[T, U]:
    """Two questions at the same time, mostly one to each side. When one fails the other has ended too before that is
    raised: nobody closes a session that is still being waited for. Its number would soon be another connection's, which
    would then wait for answers that the first one takes."""
    found: dict[int, Any] = {}

    async def ask(place: int, question: Awaitable[Any]) -> None:
        found[place] = await question

    await all_of(ask(0, one), ask(1, other))
    return found[0], found[1]


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
