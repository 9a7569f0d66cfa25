"""psycopg 3 with asyncio, and its way of binding parameters with no statement at all."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg

from tests.matrix.case import case
from tests.matrix.stage import GREEN, Stage, assert_on_green

ASYNC = "psycopg async"


async def _version(connection: psycopg.AsyncConnection[tuple[str]]) -> str:
    cursor = await connection.execute("SHOW server_version")
    (version,) = await cursor.fetchone() or ("",)
    return version


@case("prepared statements", ASYNC)
async def prepared(stage: Stage) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(stage.dsn(), autocommit=True) as connection:
        query = "SELECT note, %s::int FROM work WHERE id = %s"
        for number in range(7):
            await connection.execute(query, (number, 990 + number))
        yield
        cursor = await connection.execute(query, (1, 999))
        assert await cursor.fetchall() == [("row 999", 1)]
        assert await _version(connection) == GREEN


@case("pipeline mode", ASYNC)
async def pipeline(stage: Stage) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(stage.dsn(), autocommit=True) as connection:

        async def go() -> int:
            await stage.wait_async(stage.begun)
            n = 0
            while not stage.over.is_set():
                async with connection.pipeline():
                    cursors = [await connection.execute("SELECT %s::int", (n + i,)) for i in range(10)]
                    await connection.execute("INSERT INTO written VALUES ('psycopg pipeline', %s)", (n,))
                assert [await cursor.fetchone() for cursor in cursors] == [(n + i,) for i in range(10)]
                n += 1
            return n

        going = asyncio.ensure_future(go())
        yield
        n = await going
        cursor = await connection.execute("SELECT count(*), max(n) FROM written WHERE by = 'psycopg pipeline'")
        assert await cursor.fetchone() == (n, n - 1)
        assert await _version(connection) == GREEN


@case("transaction and server-side cursor", ASYNC, straggles=True)
async def transaction(stage: Stage) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(stage.dsn()) as connection:
        cursor = connection.cursor("portal")
        await cursor.execute("SELECT generate_series(1, 100)")
        assert len(await cursor.fetchmany(10)) == 10

        async def end() -> list[tuple[int]]:
            await stage.wait_async(stage.attempted)
            rest: list[tuple[int]] = await cursor.fetchall()
            await cursor.close()
            await connection.commit()
            return rest

        ending = asyncio.ensure_future(end())
        yield
        assert await ending == [(n,) for n in range(11, 101)]
        async with connection.transaction():
            await connection.execute("INSERT INTO written VALUES ('psycopg async', 1)")
        assert await _version(connection) == GREEN


@case("COPY", ASYNC, straggles=True)
async def copy(stage: Stage) -> AsyncIterator[None]:
    async with (
        await psycopg.AsyncConnection.connect(stage.dsn(), autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        begun = asyncio.Event()

        async def go() -> None:
            async with cursor.copy("COPY written FROM STDIN (FORMAT binary)") as copying:
                copying.set_types(["text", "int8"])
                for n in range(1000):
                    await copying.write_row(("psycopg copy", n))
                begun.set()
                await stage.wait_async(stage.attempted)
                await copying.write_row(("psycopg copy", 1000))

        going = asyncio.ensure_future(go())
        await begun.wait()
        yield
        await going
        await cursor.execute("SELECT count(*) FROM written WHERE by = 'psycopg copy'")
        assert await cursor.fetchone() == (1001,)
        assert await _version(connection) == GREEN


@case("client-side parameters", "psycopg")
def client_side(stage: Stage) -> Iterator[None]:
    """By the simple protocol, as psycopg 2 did."""
    connection = psycopg.connect(stage.dsn(), autocommit=True, cursor_factory=psycopg.ClientCursor)
    with connection:
        connection.execute("SET app.tenant = %s", ("o'reilly",))
        yield
        cursor = connection.execute("SELECT current_setting('app.tenant'), %s", ("x",))
        assert cursor.fetchall() == [("o'reilly", "x")]
        assert_on_green(connection)
