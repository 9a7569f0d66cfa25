"""Single looks at a server through its endpoint: can it be read, does it refuse writes, how far behind is green."""

from typing import Any, LiteralString

import psycopg

from verdigris.demo.promises import Breach, Promise, breach_of
from verdigris.demo.sql import one_row, sqlstate_of

READ_ONLY = "25006"  # read_only_sql_transaction

# As the RDS user guide measures it for logical replication; a physical green's slot has only restart_lsn.
_LAG: LiteralString = (
    "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(confirmed_flush_lsn, restart_lsn)))::bigint"
    " FROM pg_replication_slots WHERE slot_type = 'logical' OR NOT EXISTS"
    " (SELECT FROM pg_replication_slots WHERE slot_type = 'logical')"
)


def probe_read_only(dsn: str, *, readable: Promise, refuses_writes: Promise) -> list[Breach]:
    """Reads a table, then tries to write one. Whatever got written is rolled back."""
    try:
        with psycopg.connect(dsn) as connection:
            one_row(connection, "SELECT count(*) FROM ledger.accounts")
            return _try_to_write(connection, refuses_writes)
    except psycopg.Error as error:
        return breach_of(readable, [f"{sqlstate_of(error)} {str(error).strip()}"])


def _try_to_write(connection: psycopg.Connection[tuple[Any, ...]], promise: Promise) -> list[Breach]:
    try:
        connection.execute("INSERT INTO ledger.receipts VALUES (0)")
    except psycopg.Error as error:
        if error.sqlstate == READ_ONLY:
            return []
        return breach_of(promise, [f"refused with {sqlstate_of(error)} instead of {READ_ONLY}"])
    finally:
        connection.rollback()
    return breach_of(promise, ["an INSERT was accepted"])


class LagProbe:
    """Bytes of WAL that green has not confirmed, asked of blue through a connection of its own."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)

    def lag_bytes(self) -> int | None:
        """None while nothing replicates, or where the connection does not serve."""
        try:
            (lag,) = one_row(self._connection, _LAG)
        except psycopg.Error:
            return None
        return lag if lag is None else int(lag)

    def close(self) -> None:
        self._connection.close()
