"""Rows: prepared statements, the unnamed one, pipelines, batches."""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import pq

from tests.matrix.case import case
from tests.matrix.raw import ERROR, PARAMETER, ROW, RawSession, run, simple
from tests.matrix.stage import GREEN, LIMIT_S, Stage, assert_on_green, value
from verdigris.wire.postgres import messages

_INT4, _TEXT = 23, 25
# What there is of each statement, but for the time it was made and how often it was planned.
_STATEMENTS = """
    SELECT name, statement, parameter_types::oid[], result_types::oid[], from_sql
      FROM pg_prepared_statements ORDER BY name
"""


def _statements(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(_STATEMENTS, prepare=False).fetchall()


@case("named statements by protocol", "psycopg")
def by_protocol(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        pgconn = connection.pgconn
        pgconn.prepare(b"typed", b"SELECT $1 + 1, $2 || '!'", [_INT4, _TEXT])
        pgconn.prepare(b"inferred", b"SELECT n FROM work WHERE id = $1 AND note LIKE $2")
        pgconn.prepare(b'odd "name" \\', b"SELECT 'it''s', '\xc3\xa9'")
        pgconn.prepare(b"nothing", b"")
        pgconn.prepare(b"writes", b"UPDATE work SET note = $2 WHERE id = $1 RETURNING note")
        pgconn.prepare(b"enum", b"SELECT $1::mood > 'sad'")
        before = _statements(connection)
        assert len(before) == 6
        yield
        assert _statements(connection) == before
        assert pgconn.exec_prepared(b"typed", [b"41", b"x"]).get_value(0, 0) == b"42"
        assert pgconn.exec_prepared(b"inferred", [b"999", b"row%"]).ntuples == 1
        assert pgconn.exec_prepared(b'odd "name" \\', []).get_value(0, 1) == "é".encode()
        assert pgconn.exec_prepared(b"nothing", []).status == pq.ExecStatus.EMPTY_QUERY
        assert pgconn.exec_prepared(b"writes", [b"1000", b"green"]).get_value(0, 0) == b"green"
        assert pgconn.exec_prepared(b"enum", [b"ok"]).get_value(0, 0) == b"t"
        assert_on_green(connection)


@case("named statements by SQL", "psycopg")
def by_sql(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        for statement in (
            "PREPARE typed (int, text, numeric[]) AS SELECT $1 + 1, $2, $3[2]",
            "PREPARE unknown AS SELECT $1::timestamptz",
            "PREPARE \"Odd; name\" (mood) AS SELECT $1 < 'happy' /* a comment */ -- and another",
            "PREPARE writes (int) AS INSERT INTO written VALUES ('by sql', $1)",
        ):
            connection.execute(statement)
        # Several in one message: each keeps the text of its own alone.
        connection.execute("PREPARE gone AS SELECT 0; DEALLOCATE gone")
        before = _statements(connection)
        assert [row[0] for row in before] == ["Odd; name", "typed", "unknown", "writes"]
        connection.execute("INSERT INTO written VALUES ('by sql', 0); PREPARE a AS SELECT 'a;'; PREPARE b AS SELECT 2")
        yield
        # On blue each of the last two had the text of all three statements.
        assert [row for row in _statements(connection) if len(row[0]) > 1] == before
        assert (value(connection, "EXECUTE a"), value(connection, "EXECUTE b")) == ("a;", 2)
        assert value(connection, "SELECT count(*) FROM written WHERE by = 'by sql'") == 1
        assert connection.execute("EXECUTE typed (41, 'x', '{1,2.5}')").fetchall() == [(42, "x", 2.5)]
        assert value(connection, "EXECUTE \"Odd; name\" ('ok')") is True
        connection.execute("EXECUTE writes (1)")
        connection.execute("DEALLOCATE ALL")
        assert _statements(connection) == []
        assert_on_green(connection)


@case("generic and custom plans", "psycopg")
def plans(stage: Stage) -> Iterator[None]:
    with stage.connect() as generic, stage.connect() as custom:
        for connection, mode in ((generic, "force_generic_plan"), (custom, "force_custom_plan")):
            connection.execute(f"SET plan_cache_mode = {mode}")
            connection.execute("PREPARE by_id (int) AS SELECT n FROM work WHERE id = $1")
            connection.execute("EXECUTE by_id (1)")
        yield
        for connection, shown in ((generic, "(id = $1)"), (custom, "(id = 7)")):
            plan = connection.execute("EXPLAIN EXECUTE by_id (7)").fetchall()
            assert any(shown in line for (line,) in plan), plan
            assert_on_green(connection)


@case("plans that the server chooses", "psycopg")
def chosen_plans(stage: Stage) -> Iterator[None]:
    """After five custom plans it takes a generic one. Green counts anew, beginning with the generic plan that it may
    have made beforehand, and comes to the same."""
    planned = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'by_id'"

    def run(connection: psycopg.Connection[Any]) -> None:
        for number in range(1, 8):
            assert value(connection, f"EXECUTE by_id ({number})") == f"row {number}"

    with stage.connect() as connection:
        connection.execute("PREPARE by_id (int) AS SELECT note FROM work WHERE id = $1")
        run(connection)
        assert connection.execute(planned, prepare=False).fetchall() == [(2, 5)]
        yield
        [(beforehand, custom)] = connection.execute(planned, prepare=False).fetchall()
        assert (beforehand in (0, 1), custom) == (True, 0)
        run(connection)
        assert connection.execute(planned, prepare=False).fetchall() == [(beforehand + 2, 5)]
        assert_on_green(connection)


@case("driver's automatic statements", "psycopg")
def automatic(stage: Stage) -> Iterator[None]:
    """psycopg prepares what it has seen five times, and never asks whether the server still has it."""
    with stage.connect() as connection:
        query = "SELECT n IS NULL, %s::int FROM work WHERE id = %s"
        for number in range(8):
            connection.execute(query, (number, number + 1))
        before = _statements(connection)
        assert len(before) == 1
        yield
        assert connection.execute(query, (1, 2)).fetchall() == [(False, 1)]
        assert _statements(connection) == before
        assert_on_green(connection)


@case("unnamed statement", "bytes")
def unnamed(stage: Stage) -> Iterator[None]:
    """Parsed, and asked about, in one round trip; bound in the next one, twice."""
    with stage.raw() as raw:
        statement = b"SELECT $1 * 2, $2, current_setting('server_version')"
        raw.send(messages.parse(b"", statement, [_INT4, 0]), messages.describe_statement(b""), messages.SYNC)
        raw.answer()
        yield
        for number in (21, 22):
            raw.send(run(b"", b"%d" % number, b"text"), messages.SYNC)
            assert raw.answer() == [b"%d" % (number * 2), b"text", GREEN.encode()]
        assert raw.query("SELECT count(*) FROM pg_prepared_statements") == [b"0"]


@case("prepared without a Sync", "bytes")
def flushed(stage: Stage) -> Iterator[None]:
    """Parse, Flush and nothing else: an implicit transaction is open, though no ``ReadyForQuery`` has ever said so."""
    with stage.raw() as unnamed, stage.raw() as named, stage.raw() as failing:
        for raw, name in ((unnamed, b""), (named, b"mine"), (failing, b"mine")):
            prepare = messages.parse(name, b"SELECT $1::int + 1, current_setting('server_version')")
            raw.send(prepare, messages.describe_statement(name), messages.FLUSH)
            assert [raw.read().code for _ in range(3)] == [b"1", b"t", b"T"]
        yield
        for raw, name in ((unnamed, b""), (named, b"mine")):
            raw.send(run(name, b"41"), messages.SYNC)
            assert raw.answer() == [b"42", GREEN.encode()]
        failing.send(run(b"mine", b"x"), run(b"mine", b"1"), messages.FLUSH)
        assert {message.code for message in failing.read_until(ERROR)} <= {PARAMETER, ERROR}
        failing.send(messages.SYNC)
        assert failing.answer() == []
        assert failing.query("SELECT count(*) FROM pg_prepared_statements") == [b"1"]


@case("bound without a Sync", "bytes", straggles=True)
def bound(stage: Stage) -> Iterator[None]:
    """A portal lives in that transaction."""
    with stage.raw() as raw:
        raw.send(messages.parse(b"", b"SELECT $1::int + 1"), messages.bind(b"", [b"41"]), messages.FLUSH)
        assert [raw.read().code for _ in range(2)] == [b"1", b"2"]

        def end() -> list[bytes | None]:
            raw.send(messages.EXECUTE, messages.SYNC)
            return raw.answer()

        ending = stage.once_attempted(end)
        yield
        assert ending.result(LIMIT_S) == [b"42"]
        assert raw.query("SHOW server_version") == [GREEN.encode()]


@case("pipeline with several Syncs", "bytes")
def syncs_in_flight(stage: Stage) -> Iterator[None]:
    """Batches of requests in one write each, of every kind, one sent before the answers to the last have been read."""
    with stage.raw() as raw:
        raw.send(messages.parse(b"next", b"SELECT $1::int"), messages.SYNC)
        raw.answer()
        going = stage.meanwhile(_pipeline, stage, raw)
        yield
        assert going.result(LIMIT_S) > 10
        assert raw.query("SHOW server_version") == [GREEN.encode()]


def _pipeline(stage: Stage, raw: RawSession) -> int:
    """How many rounds; fails at the first answer that is not the one that is due."""
    sent = answered = 0
    while not stage.over.is_set() or answered < sent:
        while sent < answered + 2 and not stage.over.is_set():
            raw.send(_round(sent))
            sent += 1
        if answered < sent:
            for expected in _expected(answered):
                assert raw.answer() == expected
            answered += 1
    return answered


def _round(number: int) -> bytes:
    """Six requests that answer with ``ReadyForQuery``; one fails, with a statement behind it that is skipped."""
    value = b"%d" % number
    return b"".join(
        (
            run(b"next", value),
            messages.SYNC,
            messages.parse(b"", b"SELECT $1::text || '!'"),
            messages.FLUSH,
            run(b"", value),
            run(b"next", value),
            messages.SYNC,
            simple(f"SELECT {number}; SELECT {number} + 1"),
            messages.parse(b"", b"SELECT 'Z' || repeat('\x05', 1000)"),
            run(b""),
            messages.SYNC,
            messages.SYNC,
            simple(""),
        )
    )


def _expected(number: int) -> list[list[bytes | None]]:
    value = b"%d" % number
    return [[value], [value + b"!", value], [value, b"%d" % (number + 1)], [b"Z" + b"\x05" * 1000], [], []]


@case("pipeline whose requests fail", "bytes")
def errors_in_flight(stage: Stage) -> Iterator[None]:
    """What follows an error up to the next Sync is skipped, by the server and by nobody else."""
    with stage.raw() as raw:

        def go() -> int:
            rounds = 0
            while stage.goes_on() or rounds < 10:
                batch = messages.parse(b"", b"SELECT 1 / $1::int") + run(b"", b"0") + run(b"", b"1") + messages.SYNC
                raw.send(batch, messages.parse(b"", b"SELECT 7"), run(b""), messages.SYNC)
                failed = raw.read_until(b"Z")
                assert [m.code for m in failed if m.code in (ERROR, ROW)] == [ERROR]
                assert raw.answer() == [b"7"]
                rounds += 1
            return rounds

        going = stage.meanwhile(go)
        yield
        going.result(LIMIT_S)
        assert raw.query("SHOW server_version") == [GREEN.encode()]


@case("pipeline mode", "psycopg")
def pipeline_mode(stage: Stage) -> Iterator[None]:
    with stage.connect(options="-c application_name=pipeline") as connection:

        def go() -> int:
            last = 0
            while stage.goes_on():
                with connection.pipeline() as pipeline:
                    cursors = [connection.execute("SELECT %s::int", (last + n,)) for n in range(20)]
                    pipeline.sync()
                    cursors += [connection.execute("SELECT %s::int", (last + n,)) for n in range(20, 40)]
                assert [cursor.fetchall() for cursor in cursors] == [[(last + n,)] for n in range(40)]
                last += 40
            return last

        going = stage.meanwhile(go)
        yield
        assert going.result(LIMIT_S) > 0
        assert_on_green(connection)


@case("batches of statements", "bytes")
def batches(stage: Stage) -> Iterator[None]:
    """Implicit transactions: all of a message's statements, or none of them."""
    with stage.raw() as raw:

        def go() -> int:
            n = 0
            while stage.goes_on():
                n += 1
                whole = (
                    f"INSERT INTO written VALUES ('batch', {2 * n}); INSERT INTO written VALUES ('batch', {2 * n + 1});"
                )
                assert raw.query(whole + f"SELECT pg_sleep(0.01); SELECT {n}") == [b"", b"%d" % n]
                raw.send(simple(f"INSERT INTO written VALUES ('batch', -{n}); SELECT 1 / 0; SELECT 1"))
                assert ERROR in [message.code for message in raw.read_until(b"Z")]
                assert raw.query(f"BEGIN; SELECT {n}; COMMIT; SELECT {n}") == [b"%d" % n] * 2
            return n

        going = stage.meanwhile(go)
        yield
        n = going.result(LIMIT_S)
        assert raw.query("SELECT count(*), min(n), max(n) FROM written WHERE by = 'batch'") == [
            b"%d" % (2 * n),
            b"2",
            b"%d" % (2 * n + 1),
        ]
        assert raw.query("SHOW server_version") == [GREEN.encode()]


@case("messages in pieces", "bytes")
def in_pieces(stage: Stage) -> Iterator[None]:
    """A client whose every byte is a segment of its own, and one that has sent half a message when it is stopped."""
    with stage.raw() as raw:

        def go() -> int:
            rounds = 0
            while stage.goes_on():
                request = simple(f"SELECT {rounds}")
                for at in range(len(request)):
                    raw.send(request[at : at + 1])
                assert raw.answer() == [b"%d" % rounds]
                rounds += 1
            return rounds

        going = stage.meanwhile(go)
        yield
        assert going.result(LIMIT_S) > 0
        assert raw.query("SHOW server_version") == [GREEN.encode()]


@case("half a message", "bytes", straggles=True)
def half_a_message(stage: Stage) -> Iterator[None]:
    with stage.raw() as raw:
        request = simple("SELECT 42")
        raw.send(request[:7])

        def end() -> list[bytes | None]:
            raw.send(request[7:])
            return raw.answer()

        ending = stage.once_attempted(end)
        yield
        assert ending.result(LIMIT_S) == [b"42"]
        assert raw.query("SHOW server_version") == [GREEN.encode()]
