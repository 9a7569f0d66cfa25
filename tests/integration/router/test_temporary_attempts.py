"""Temporary tables of sessions that go on, before the pause and after an attempt that was given up."""

import asyncio

import pytest

from tests.integration.router.clients import Connection, Endpoint, Switchover, connect, one
from tests.integration.router.odd import rows
from verdigris.router.client import RouterClient

pytestmark = pytest.mark.usefixtures("odd_schema")


TEMPORARY = """
SELECT relname, relkind, relnatts, relowner, pg_relation_filenode(oid), relhasindex, relhastriggers
  FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY oid
"""


async def test_an_attempt_leaves_nothing_behind(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        for statement in (
            "CREATE TEMP TABLE empty (x int)",
            "CREATE TEMP TABLE cleared (x int) ON COMMIT DELETE ROWS",
            "CREATE TEMP TABLE filled AS SELECT g FROM generate_series(1, 10) g",
            "CREATE TEMP SEQUENCE s",
        ):
            await connection.execute(statement)
        before = await rows(connection, TEMPORARY)
        connection.pgconn.prepare(b"", b"SELECT $1::int * 2, count(*) FROM filled, which")
        parked, pinned = await switchover.ready_and_hand_over()
        assert pinned == {}
        await router.abort(parked.generation)
        result = connection.pgconn.exec_prepared(b"", [b"21"])
        assert (result.get_value(0, 0), result.get_value(0, 1)) == (b"42", b"10")
        assert await rows(connection, TEMPORARY) == before
        assert await one(connection, "SELECT count(*) FROM pg_prepared_statements") == 0
        assert await one(connection, "SELECT last_value FROM s") == 1
        await connection.execute("DROP TABLE empty, cleared, filled")
        await connection.execute("DROP SEQUENCE s")
        assert await switchover.run() == {}
        assert await one(connection, "SELECT label FROM which") == "green"
        assert await rows(connection, TEMPORARY) == []


@pytest.mark.parametrize(
    ("after", "question", "answer"),
    [
        ("SELECT 1", "SELECT sum(x) FROM t", 3),
        ("INSERT INTO t VALUES (4)", "SELECT sum(x) FROM t", 7),
        ("UPDATE t SET x = x", "SELECT sum(x) FROM t", 3),
        ("TRUNCATE t", "SELECT count(*) FROM t", 0),
        ("ALTER TABLE t ADD COLUMN y int DEFAULT 9", "SELECT sum(y) FROM t", 18),
        ("DROP TABLE t", "SELECT to_regclass('pg_temp.t')", None),
        ("DISCARD ALL", "SELECT to_regclass('pg_temp.t')", None),
        ("CREATE TEMP TABLE late AS SELECT 5 AS z", "SELECT z FROM late", 5),
        ("SELECT nextval('s')", "SELECT nextval('s')", 2),
        ("SET work_mem = '7MB'", "SELECT sum(x) FROM t", 3),
    ],
)
async def test_what_is_done_after_it_was_made_ready(
    endpoint: Endpoint, switchover: Switchover, after: str, question: str, answer: object
) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute("CREATE TEMP TABLE t AS VALUES (1), (2)")
        await connection.execute("ALTER TABLE t RENAME column1 TO x")
        await connection.execute("CREATE TEMP SEQUENCE s")
        await switchover.ready()
        await connection.execute(after)
        assert await switchover.finish() == {}
        assert await one(connection, question) == answer
        assert await one(connection, "SELECT label FROM which") == "green"


async def test_many_sessions(endpoint: Endpoint, switchover: Switchover) -> None:
    async def work(number: int) -> Connection:
        connection = await connect(endpoint)
        await connection.execute(f"CREATE TEMP TABLE t AS SELECT {number} AS x FROM generate_series(1, 1000)")
        return connection

    connections = await asyncio.gather(*(work(number) for number in range(20)))
    await switchover.ready()
    for connection in connections[::2]:
        await connection.execute("UPDATE t SET x = x + 100")
    assert await switchover.finish() == {}
    for number, connection in enumerate(connections):
        expected = number if number % 2 else number + 100
        assert await rows(connection, "SELECT x, count(*) FROM t GROUP BY x") == [(expected, 1000)]
        await connection.close()
