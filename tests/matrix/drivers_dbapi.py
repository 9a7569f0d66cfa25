"""Drivers of Python's DB-API: pg8000, which binds the unnamed statement in a round trip of its own, and psycopg 2."""

import io
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pg8000.dbapi
import pg8000.native
import psycopg2

from tests.matrix.case import case
from tests.matrix.stage import GREEN, LIMIT_S, Stage

PG8000, PSYCOPG2 = "pg8000", "psycopg2"


def _pg8000(stage: Stage) -> dict[str, Any]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    members = stage.address()
    return {name: members[name] for name in ("host", "port", "user", "password")} | {
        "database": members["dbname"],
        "ssl_context": context,
    }


@case("prepared statements", PG8000)
def prepared(stage: Stage) -> Iterator[None]:
    connection = pg8000.native.Connection(**_pg8000(stage))
    try:
        statement = connection.prepare("SELECT note, :n + 1 FROM work WHERE id = :id")
        assert statement.run(id=998, n=1) == [["row 998", 2]]
        connection.run("SELECT :x::int", x=1)
        yield
        assert statement.run(id=999, n=2) == [["row 999", 3]]
        assert connection.run("SELECT :x::int", x=2) == [[2]]
        assert connection.run("SHOW server_version") == [[GREEN]]
        assert connection.parameter_statuses["server_version"] == GREEN
        statement.close()
    finally:
        connection.close()


@case("unnamed statement", PG8000)
def unnamed(stage: Stage) -> Iterator[None]:
    """Parsed and bound in two round trips, again and again."""
    connection = pg8000.native.Connection(**_pg8000(stage))

    def go() -> int:
        n = 0
        while stage.goes_on():
            assert connection.run("SELECT :n::int, :text::text", n=n, text=f"n {n}") == [[n, f"n {n}"]]
            n += 1
        return n

    try:
        going = stage.meanwhile(go)
        yield
        assert going.result(LIMIT_S) > 0
        assert connection.run("SHOW server_version") == [[GREEN]]
    finally:
        connection.close()


@case("transaction and COPY", PG8000, straggles=True)
def transaction(stage: Stage) -> Iterator[None]:
    with closing(pg8000.dbapi.connect(**_pg8000(stage))) as connection:
        cursor = connection.cursor()
        cursor.execute("INSERT INTO written VALUES (%s, %s)", ("pg8000", 1))

        def end() -> None:
            cursor.execute("COPY written FROM STDIN", stream=io.BytesIO(b"pg8000\t2\npg8000\t3\n"))
            connection.commit()

        ending = stage.once_attempted(end)
        yield
        ending.result(LIMIT_S)
        cursor.execute("SELECT count(*), current_setting('server_version') FROM written WHERE by = %s", ("pg8000",))
        assert tuple(cursor.fetchone()) == (3, GREEN)


@case("session settings", PSYCOPG2)
def settings(stage: Stage) -> Iterator[None]:
    with closing(psycopg2.connect(stage.dsn())) as connection:
        connection.set_session(isolation_level="SERIALIZABLE", autocommit=True)
        connection.set_client_encoding("LATIN1")
        cursor = connection.cursor()
        cursor.execute("PREPARE by_hand AS SELECT 'café'::text")
        yield
        cursor.execute("EXECUTE by_hand")
        assert cursor.fetchall() == [("café",)]
        cursor.execute("SHOW default_transaction_isolation")
        assert cursor.fetchall() == [("serializable",)]
        cursor.execute("SHOW server_version")
        assert cursor.fetchall() == [(GREEN,)]


@case("transaction and named cursor", PSYCOPG2, straggles=True)
def named_cursor(stage: Stage) -> Iterator[None]:
    with closing(psycopg2.connect(stage.dsn())) as connection:
        cursor = connection.cursor("portal")
        cursor.execute("SELECT generate_series(1, 100)")
        assert len(cursor.fetchmany(10)) == 10

        def end() -> int:
            rest = len(cursor.fetchall())
            cursor.close()
            connection.commit()
            return rest

        ending = stage.once_attempted(end)
        yield
        assert ending.result(LIMIT_S) == 90
        with connection, connection.cursor() as again:
            again.execute("SHOW server_version")
            assert again.fetchall() == [(GREEN,)]


@case("COPY", PSYCOPG2)
def copy(stage: Stage) -> Iterator[None]:
    """One after the other, all the time."""
    with closing(psycopg2.connect(stage.dsn())) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        def go() -> int:
            n = 0
            while stage.goes_on():
                cursor.copy_expert("COPY written FROM STDIN", io.StringIO(f"psycopg2\t{n}\n"))
                out = io.StringIO()
                cursor.copy_expert(f"COPY (SELECT n FROM written WHERE by = 'psycopg2' AND n = {n}) TO STDOUT", out)
                assert out.getvalue() == f"{n}\n"
                n += 1
            return n

        going = stage.meanwhile(go)
        yield
        n = going.result(LIMIT_S)
        cursor.execute("SELECT count(*), current_setting('server_version') FROM written WHERE by = 'psycopg2'")
        assert cursor.fetchall() == [(n, GREEN)]
