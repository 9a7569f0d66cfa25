"""psql of 18, with its own ways: variables, statements named by hand, and the protocol's versions."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.matrix.case import case
from tests.matrix.stage import GREEN, Stage

MARK = "-- done --"


class Psql:
    """Fed by its standard input; what it prints, errors included, comes back a command at a time.

    Without TLS, which the one of the wheel lacks.
    """

    def __init__(self, stage: Stage, **parameters: str) -> None:
        programs = stage.inspector(stage.green_id).installation
        self._process = subprocess.Popen(
            [programs.program("psql"), "-XqAt", stage.dsn(sslmode="disable", **parameters)],
            env={**os.environ, **programs.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
        )

    def run(self, *lines: str) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n".join([*lines, f"\\echo '{MARK}'", ""]))
        printed: list[str] = []
        for line in self._process.stdout:
            if line.rstrip("\n") == MARK:
                return printed
            printed.append(line.rstrip("\n"))
        raise AssertionError(f"psql ended: {printed}")

    def close(self) -> None:
        self._process.communicate("\\q\n", timeout=30)


@contextmanager
def _psql(stage: Stage, **parameters: str) -> Iterator[Psql]:
    psql = Psql(stage, **parameters)
    try:
        yield psql
    finally:
        psql.close()


@case("session", "psql")
def session(stage: Stage) -> Iterator[None]:
    with _psql(stage) as psql:
        assert psql.run(
            "\\set answer 42",
            "SET work_mem = '6MB';",
            "PREPARE by_sql (int) AS SELECT $1 + 1;",
            "SELECT $1::int * 2 \\parse by_protocol",
            "SELECT :answer;",
        ) == ["42"]
        yield
        assert psql.run(
            "SHOW work_mem;",
            "EXECUTE by_sql (:answer);",
            "\\bind_named by_protocol 21 \\g",
            "SELECT $1::text || 'x' \\bind it \\g",
            "SHOW server_version;",
            "\\copy (SELECT 1, 2) TO STDOUT",
            "SELECT count(*) FROM pg_prepared_statements;",
        ) == ["6MB", "43", "42", "itx", GREEN, "1\t2", "2"]


@case("pipeline", "psql")
def pipeline(stage: Stage) -> Iterator[None]:
    """18's \\startpipeline, once before and once after."""
    commands = (
        "\\startpipeline",
        "SELECT $1::int \\bind 1 \\sendpipeline",
        "\\syncpipeline",
        "SELECT $1::int \\bind 2 \\sendpipeline",
        "\\endpipeline",
    )
    with _psql(stage) as psql:
        assert psql.run(*commands) == ["1", "2"]
        yield
        assert psql.run(*commands, "SHOW server_version;") == ["1", "2", GREEN]


@case("LISTEN", "psql")
def listen(stage: Stage) -> Iterator[None]:
    with _psql(stage) as psql:
        psql.run("LISTEN psql;")
        yield
        with stage.connect() as other:
            other.execute("NOTIFY psql, 'hello'")
        printed = psql.run("SHOW server_version;")
        assert printed[0] == GREEN
        assert 'notification "psql" with payload "hello"' in printed[1]


@case("newer protocol", "psql")
def protocol(stage: Stage) -> Iterator[None]:
    """It asks for 3.2: blue comes down to 3.0, and so does the session; those that come to green later have 3.2."""
    with _psql(stage, max_protocol_version="latest") as psql:
        psql.run("SELECT 1;")
        yield
        assert psql.run("SHOW server_version;") == [GREEN]
    with _psql(stage, min_protocol_version="3.2", max_protocol_version="3.2") as psql:
        assert psql.run("SHOW server_version;") == [GREEN]
