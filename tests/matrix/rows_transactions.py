"""Rows: transactions and copies that are under way when the switchover begins. It waits for their end."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.matrix.case import case
from tests.matrix.raw import COPY_DATA, COPY_DONE, COPY_IN, ROW, simple
from tests.matrix.stage import BLUE, GREEN, LIMIT_S, Stage, assert_on_green, value
from verdigris.wire.postgres import messages


@case("BEGIN idle for long", "psycopg", straggles=True)
def idle_in_transaction(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        count = value(connection, "SELECT count(*) FROM work")

        def end() -> Any:
            seen = value(connection, "SELECT count(*) || current_setting('server_version') FROM work")
            connection.execute("COMMIT")
            return seen

        ending = stage.once_attempted(end)
        yield
        assert ending.result(LIMIT_S) == f"{count}{BLUE}"
        assert_on_green(connection)


@case("transaction with writes and savepoints", "psycopg", straggles=True)
def writing_transaction(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        with_rows = "SELECT array_agg(n ORDER BY n) FROM written WHERE by = 'savepoints'"
        connection.execute("BEGIN")
        connection.execute("INSERT INTO written VALUES ('savepoints', 1)")
        connection.execute("SAVEPOINT one")
        connection.execute("INSERT INTO written VALUES ('savepoints', 2)")

        def end() -> None:
            connection.execute("ROLLBACK TO one")
            connection.execute("INSERT INTO written VALUES ('savepoints', 3)")
            connection.execute("COMMIT")

        ending = stage.once_attempted(end)
        yield
        ending.result(LIMIT_S)
        assert value(connection, with_rows) == [1, 3]
        assert_on_green(connection)


@case("failed transaction", "psycopg", straggles=True)
def failed_transaction(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO written VALUES ('failed', 1)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")

        def end() -> None:
            with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                connection.execute("SELECT 1")
            connection.execute("ROLLBACK")

        ending = stage.once_attempted(end)
        yield
        ending.result(LIMIT_S)
        assert value(connection, "SELECT count(*) FROM written WHERE by = 'failed'") == 0
        assert_on_green(connection)


@case("transaction blocks of the driver", "psycopg", straggles=True)
def helper(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        block = connection.transaction()
        block.__enter__()
        connection.execute("INSERT INTO written VALUES ('helper', 1)")
        ending = stage.once_attempted(lambda: block.__exit__(None, None, None))
        yield
        ending.result(LIMIT_S)
        with connection.transaction(), connection.transaction():
            connection.execute("INSERT INTO written VALUES ('helper', 2)")
        assert value(connection, "SELECT count(*) FROM written WHERE by = 'helper'") == 2
        assert_on_green(connection)


@case("COPY in", "psycopg", straggles=True)
def copy_in(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection, connection.cursor() as cursor:
        copying = cursor.copy("COPY written FROM STDIN")
        copy = copying.__enter__()
        for n in range(5000):
            copy.write_row(("copy in", n))

        def end() -> None:
            for n in range(5000, 10_000):
                copy.write_row(("copy in", n))
            copying.__exit__(None, None, None)

        ending = stage.once_attempted(end)
        yield
        ending.result(LIMIT_S)
        assert value(connection, "SELECT count(*) FROM written WHERE by = 'copy in'") == 10_000
        assert_on_green(connection)


@case("COPY out", "psycopg", straggles=True)
def copy_out(stage: Stage) -> Iterator[None]:
    """So much that the server is still at it."""
    with stage.connect() as connection, connection.cursor() as cursor:
        copying = cursor.copy("COPY (SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g) TO STDOUT")
        copy = copying.__enter__()
        first = copy.read_row()

        def end() -> int:
            rows = 1 + sum(1 for _ in copy.rows())
            copying.__exit__(None, None, None)
            return rows

        ending = stage.once_attempted(end)
        yield
        assert first is not None
        assert ending.result(LIMIT_S) == 20_000
        assert_on_green(connection)


@case("COPY in by extended protocol", "bytes", straggles=True)
def copy_in_extended(stage: Stage) -> Iterator[None]:
    """The Sync that is sent with it is ignored by the server, which wants another one when the copy has ended."""
    with stage.raw() as raw:
        batch = messages.parse(b"", b"COPY written FROM STDIN") + messages.bind(b"") + messages.EXECUTE
        raw.send(batch, messages.SYNC)
        raw.read_until(COPY_IN)
        raw.send(messages.message(COPY_DATA, b"copy extended\t1\n"))

        def end() -> list[bytes | None]:
            raw.send(messages.message(COPY_DATA, b"copy extended\t2\n"), COPY_DONE, messages.SYNC)
            return raw.answer()

        ending = stage.once_attempted(end)
        yield
        assert ending.result(LIMIT_S) == []
        assert raw.query("SELECT sum(n) FROM written WHERE by = 'copy extended'") == [b"3"]
        assert raw.query("SHOW server_version") == [GREEN.encode()]


@case("slow consumer", "bytes", straggles=True)
def slow_consumer(stage: Stage) -> Iterator[None]:
    """It asks for 64 MB and does not read. The router holds no more of it than its buffers."""
    with stage.raw() as raw:
        before = stage.router_memory_bytes()
        raw.send(simple("SELECT repeat(g::text, 10000) FROM generate_series(100000, 101066) g"))
        assert raw.read().code == b"T"

        def end() -> tuple[int, int]:
            grown = stage.router_memory_bytes() - before
            rows = [message for message in raw.read_until(b"Z") if message.code == ROW]
            assert [message.body[6:12] for message in rows] == [b"%d" % n for n in range(100_000, 101_067)]
            return grown, sum(len(message.body) for message in rows)

        ending = stage.once_attempted(end)
        yield
        grown, size = ending.result(LIMIT_S)
        assert size > 60_000_000
        assert grown < size / 3, f"the router has grown by {grown} bytes"
        assert raw.query("SHOW server_version") == [GREEN.encode()]
