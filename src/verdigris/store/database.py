"""Opening the database: everything that differs between SQLite and PostgreSQL outside the schema."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pysqlite3
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from verdigris.domain.errors import VerdigrisError

# https://sqlite.org/wal.html#walresetbug: before this release a WAL database with two connections can be corrupted.
_OLDEST_SQLITE = (3, 51, 3)

BUSY_TIMEOUT_S = 10.0


class StoreError(VerdigrisError):
    """The control plane's database cannot be opened or is not what it should be."""


def sqlite_url(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def create_engine(url: str) -> sa.Engine:
    """An engine for a ``sqlite:`` or ``postgresql:`` URL, of which one connection is used at a time.

    Raises ``StoreError`` for any other URL, a SQLite library with known faults, or a file that cannot be made.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError("the state database's URL cannot be read") from error
    match parsed.get_backend_name():
        case "sqlite":
            return _create_sqlite_engine(parsed)
        case "postgresql":
            return _create_postgresql_engine(parsed)
        case other:
            raise StoreError(f"the state database can be SQLite or PostgreSQL, not {other}")


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _create_sqlite_engine(url: URL) -> sa.Engine:
    if pysqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(f"SQLite {pysqlite3.sqlite_version} has a fault that can corrupt the state: need 3.51.3")
    if not url.database or url.database == ":memory:":
        raise StoreError("the state database has to be a file")
    _make_private_file(Path(url.database))
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        module=pysqlite3,
        json_serializer=_encode,
        json_deserializer=msgspec.json.decode,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
        pool_size=1,
        max_overflow=0,
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _make_private_file(path: Path) -> None:
    """SQLite gives its -wal and -shm files the mode of the database file, so setting it here covers all three."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open the state database {path}: {error.strerror}") from error
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transaction by itself: _begin_immediate does
    cursor = connection.cursor()
    # foreign_keys is a setting of the connection, journal_mode one of the file. FULL: what was acknowledged to a
    # caller survives a power failure, for one fsync of the WAL per commit.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A deferred transaction that reads first and then writes fails at once when another process wrote in between,
    # busy timeout or not; one that starts as a writer waits its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _create_postgresql_engine(url: URL) -> sa.Engine:
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        json_serializer=_encode,
        json_deserializer=msgspec.json.decode,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,  # its server may have been restarted since the last transaction
    )
    event.listen(engine, "connect", _configure_postgresql)
    return engine


def _configure_postgresql(connection: Any, _record: Any) -> None:
    """A control plane that stands still inside a transaction holds the writers' lock: the server ends it, so that a
    successor gets on. ``lock_timeout`` is longer, so the successor is still waiting when that happens."""
    timeout_ms = round(BUSY_TIMEOUT_S * 1000)
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {timeout_ms}")
        cursor.execute(f"SET lock_timeout = {2 * timeout_ms}")
    connection.commit()
