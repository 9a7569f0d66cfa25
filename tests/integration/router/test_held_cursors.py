"""Cursors WITH HOLD go on where they were, on the other server."""

import psycopg
import pytest

from tests.integration.router.clients import Connection, Endpoint, Switchover, connect, one
from verdigris.router.client import RouterClient

# A query that cannot be read backwards, so that the cursor does not scroll unless it is told to.
JOINED = "SELECT a.n, a.n || 'x' AS s FROM generate_series(1, 5) a (n) JOIN generate_series(1, 9) b (n) USING (n)"
PLAIN = "SELECT n, n || 'x' AS s FROM generate_series(1, 5) n"


async def tags(connection: Connection, *statements: str) -> list[object]:
    """What each statement answers: its rows and its tag, or the code of its error."""
    answers: list[object] = []
    for statement in statements:
        try:
            cursor = await connection.execute(statement)
            answers.append((await cursor.fetchall() if cursor.description else None, cursor.statusmessage))
        except psycopg.Error as error:
            answers.append(error.sqlstate)
    return answers


@pytest.mark.parametrize("before", ["MOVE 0 IN c", "FETCH 1 IN c", "FETCH 3 IN c", "FETCH 5 IN c", "FETCH ALL IN c"])
@pytest.mark.parametrize("after", [
    ["FETCH 1 IN c", "FETCH ALL IN c", "FETCH 1 IN c"],
    ["FETCH PRIOR IN c", "FETCH BACKWARD ALL IN c", "FETCH FIRST IN c"],
    ["FETCH RELATIVE 0 IN c", "FETCH ABSOLUTE 2 IN c"],
    ["MOVE RELATIVE 0 IN c", "MOVE RELATIVE 2 IN c", "MOVE BACKWARD ALL IN c", "FETCH LAST IN c"],
], ids=["forward", "backward", "here", "moves"])  # fmt: skip
@pytest.mark.parametrize("kind", ["SCROLL", ""])
async def test_scrolling(endpoint: Endpoint, switchover: Switchover, kind: str, before: str, after: list[str]) -> None:
    declare = f"DECLARE c {kind} CURSOR WITH HOLD FOR {PLAIN if not kind else JOINED} ORDER BY 1"
    async with await connect(endpoint) as moved, await connect(endpoint) as other:
        expected = await tags(other, declare, before, *after)
        await other.close()
        begun = await tags(moved, declare, before)
        assert await switchover.run() == {}
        assert [*begun, *await tags(moved, *after)] == expected
        assert await one(moved, "SELECT label FROM which") == "green"


@pytest.mark.parametrize("before", ["MOVE 0 IN c", "FETCH 1 IN c", "FETCH 3 IN c", "FETCH 5 IN c", "FETCH ALL IN c"])
@pytest.mark.parametrize("after", [
    ["FETCH 1 IN c", "FETCH ALL IN c", "FETCH 1 IN c"],
    ["MOVE RELATIVE 0 IN c", "MOVE 1 IN c", "FETCH RELATIVE 1 IN c"],
    ["FETCH PRIOR IN c", "FETCH NEXT IN c"],
], ids=["forward", "moves", "backward"])  # fmt: skip
async def test_not_scrolling(endpoint: Endpoint, switchover: Switchover, before: str, after: list[str]) -> None:
    """Nobody can look at it without using it up: its rows are taken from blue when there is no way back any more."""
    declare = f"DECLARE c CURSOR WITH HOLD FOR {JOINED} ORDER BY 1"
    async with await connect(endpoint) as moved, await connect(endpoint) as other:
        expected = await tags(other, declare, before, *after)
        await other.close()
        begun = await tags(moved, declare, before)
        assert await one(moved, "SELECT is_scrollable FROM pg_cursors") is False
        assert await switchover.run() == {}
        assert [*begun, *await tags(moved, *after)] == expected
        assert await one(moved, "SELECT label FROM which") == "green"


async def test_a_row_of_unknown_number_is_refused(endpoint: Endpoint, switchover: Switchover) -> None:
    """How many rows have been read of a cursor that does not scroll is not to be known. Better none than another."""
    async with await connect(endpoint) as connection:
        await connection.execute(f"DECLARE fresh NO SCROLL CURSOR WITH HOLD FOR {PLAIN}")
        await connection.execute(f"DECLARE read NO SCROLL CURSOR WITH HOLD FOR {PLAIN}")
        await connection.execute("FETCH 2 IN read")
        assert await switchover.run() == {}
        assert await tags(connection, "FETCH ABSOLUTE 4 IN fresh", "FETCH ABSOLUTE 4 IN read") == [
            ([(4, "4x")], "FETCH 1"),
            "55000",
        ]


VALUES = """
SELECT 'NaN'::float8 AS "same", '-0'::float4 AS "same", '1.10'::numeric(6,2) AS "Odd ""name", 'ab'::char(5),
       E'a\\\\b\\n"{,}'::text AS t, NULL::text AS nothing, 'NULL'::varchar(10) AS v, ''::text AS empty,
       ARRAY[1,NULL,3] AS a, ARRAY['x"y','NULL',NULL] AS b, '[1,5)'::int4range AS r, '\\x00ff'::bytea AS y,
       'infinity'::timestamptz(3) AS z, '0044-03-15 BC'::date AS d, '-1 year 2 mons'::interval AS i,
       '{"a": 1.10}'::jsonb AS j, '$1.50'::money AS m, B'101'::bit(3) AS bits, 'a'::"char" AS c,
       'pg_class'::regclass AS class, w FROM which w
UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       NULL, NULL, NULL, NULL
"""


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("setting", ["SET client_encoding = 'UTF8'", "SET DateStyle = 'German'; SET array_nulls = off",
                                     "SET search_path = pg_temp; SET client_encoding = 'LATIN1'"])  # fmt: skip
async def test_values_and_columns(endpoint: Endpoint, switchover: Switchover, setting: str, binary: bool) -> None:
    async with await connect(endpoint) as connection:
        for name in ("used", "kept"):
            await connection.execute(
                f"DECLARE {name} {'BINARY' if binary else ''} SCROLL CURSOR WITH HOLD FOR {VALUES}"
            )
        await connection.execute(setting)

        def fetched(name: bytes) -> list[object]:
            result = connection.pgconn.exec_(b"FETCH ALL IN " + name)  # a simple query: in the cursor's own format
            columns = [
                (result.fname(n), result.ftype(n), result.fmod(n), result.fformat(n)) for n in range(result.nfields)
            ]
            return [columns, [[result.get_value(n, m) for m in range(result.nfields)] for n in range(result.ntuples)]]

        before = fetched(b"used")
        flags = "SELECT name, is_holdable, is_binary, is_scrollable FROM pg_cursors ORDER BY 1"
        cursor = await connection.execute(flags)
        had = await cursor.fetchall()
        assert await switchover.run() == {}
        assert str(fetched(b"kept")) == str(before)
        assert await (await connection.execute(flags)).fetchall() == had
        assert await one(connection, "SELECT label FROM public.which") == "green"


async def test_large_ones_and_many(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute(
            "DECLARE large NO SCROLL CURSOR WITH HOLD FOR SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n"
        )
        await connection.execute("MOVE 4500 IN large")
        for number in range(20):
            await connection.execute(f'DECLARE "c ""{number}" CURSOR WITH HOLD FOR SELECT {number}')
        assert await switchover.run() == {}
        cursor = await connection.execute("FETCH ALL IN large")
        found = await cursor.fetchall()
        assert [row[0] for row in found] == list(range(4501, 20001))
        for number in range(20):
            assert await tags(connection, f'FETCH ALL IN "c ""{number}"') == [([(number,)], "FETCH 1")]


async def test_an_attempt_leaves_them_where_they_were(
    endpoint: Endpoint, router: RouterClient, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute(f"DECLARE c SCROLL CURSOR WITH HOLD FOR {PLAIN}")
        await connection.execute(f"DECLARE d NO SCROLL CURSOR WITH HOLD FOR {JOINED} ORDER BY 1")
        for name in ("c", "d"):
            await connection.execute(f"FETCH 2 IN {name}")
        parked, pinned = await switchover.ready_and_hand_over()
        assert pinned == {}
        await router.abort(parked.generation)
        assert await tags(connection, "FETCH 1 IN c", "FETCH 1 IN d") == [([(3, "3x")], "FETCH 1")] * 2
        assert await one(connection, "SELECT label FROM which") == "blue"
        await connection.execute("CLOSE c")
        await switchover.ready()
        await connection.execute("DECLARE late CURSOR WITH HOLD FOR SELECT 7")
        assert await switchover.finish() == {}
        assert await tags(connection, "FETCH ALL IN d", "FETCH ALL IN late", "FETCH 1 IN c") == [
            ([(4, "4x"), (5, "5x")], "FETCH 2"),
            ([(7,)], "FETCH 1"),
            "34000",
        ]


async def test_over_temporary_tables(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute("CREATE TEMP TABLE t AS SELECT 1 AS x")
        await connection.execute("DECLARE c CURSOR WITH HOLD FOR SELECT t, x FROM t")
        assert await switchover.run() == {}
        assert await tags(connection, "FETCH ALL IN c") == [([("(1)", 1)], "FETCH 1")]
        assert await one(connection, "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()") == 1


@pytest.mark.parametrize("query", ["SELECT ROW(1, 2)", "SELECT", "SELECT 1 AS a, ARRAY[ROW(1)] AS b"])
async def test_what_cannot_be_declared_is_named_beforehand(
    endpoint: Endpoint, switchover: Switchover, query: str
) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute(f"DECLARE c CURSOR WITH HOLD FOR {query}")
        router, pair = switchover.router, switchover.pair
        report = await router.ready("app", pair.green, pair.verifiers)
        assert report.pinned == {"held-cursors": 1}
        assert await switchover.finish() == {"held-cursors": 1}
        with pytest.raises(psycopg.errors.AdminShutdown, match="held-cursors"):
            await connection.execute("SELECT 1")


async def test_too_much_of_it_ends_the_session(endpoint: Endpoint, switchover: Switchover) -> None:
    """Nobody can tell beforehand how much is in a cursor that does not scroll. The other session is not harmed."""
    async with await connect(endpoint) as connection, await connect(endpoint) as other:
        await connection.execute(
            "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT repeat('x', 20000) FROM generate_series(1, 2000) n"
        )
        parked, pinned = await switchover.ready_and_hand_over()
        assert pinned == {}
        assert await switchover.commit(parked) == {"held-cursors": 1}
        with pytest.raises(psycopg.errors.AdminShutdown, match="held-cursors"):
            await connection.execute("SELECT 1")
        assert await one(other, "SELECT label FROM which") == "green"
