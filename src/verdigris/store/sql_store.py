"""``domain.ports.Store`` on SQLite or PostgreSQL."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from verdigris.domain.errors import ControllerSuperseded
from verdigris.store import schema
from verdigris.store.database import StoreError, create_engine
from verdigris.store.migrate import migrate
from verdigris.store.transaction import SqlTransaction


def open_store(url: str) -> "SqlStore":
    """Create or migrate the database at ``url`` and return a store on it.

    Raises ``StoreError`` if that is not possible. Close it with ``close()``.
    """
    engine = create_engine(url)
    try:
        migrate(engine)
    except sa.exc.SQLAlchemyError as error:
        engine.dispose()
        raise StoreError(f"cannot open the state database: {error.args[0] if error.args else error}") from error
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine)


class SqlStore:
    """Safe to use from any thread. A transaction takes well under a millisecond of work and one fsync, so that
    coroutines may use it directly; it must not be held over an ``await``.

    Once this store has raised the epoch, each of its transactions checks that nobody has raised it since: a control
    plane that was paused and superseded cannot write any more (``ControllerSuperseded``). A store that never raised
    it, such as a command line's, is not checked.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writer = threading.Lock()
        self._owner: int | None = None  # thread that is inside a transaction
        self._own_epoch: int | None = None

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        with self._begin() as connection:
            current = _read_epoch(connection)
            if self._own_epoch is not None and current != self._own_epoch:
                raise ControllerSuperseded(f"epoch {self._own_epoch} is over, {current} has begun")
            transaction = SqlTransaction(connection)
            yield transaction
            transaction.flush()

    def raise_epoch(self) -> int:
        with self._begin() as connection:
            raised = _read_epoch(connection) + 1
            connection.execute(sa.update(schema.epoch).values(epoch=raised))
        self._own_epoch = raised
        return raised

    def epoch(self) -> int:
        with self._begin() as connection:
            return _read_epoch(connection)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        if self._owner == threading.get_ident():
            # The lock would never be released: one coroutine holds a transaction over an await, or calls nest.
            raise RuntimeError("this thread is already inside a transaction")
        with self._writer:
            self._owner = threading.get_ident()
            try:
                with self._engine.begin() as connection:
                    yield connection
            finally:
                self._owner = None


def _read_epoch(connection: sa.Connection) -> int:
    """Locks the row where the database has row locks: from here on this is the only writer."""
    found: int = connection.execute(sa.select(schema.epoch.c.epoch).with_for_update()).scalar_one()
    return found
