"""asyncpg: statements of its own cache, pools, transactions, cursors, COPY."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg

from tests.matrix.case import case
from tests.matrix.stage import GREEN, Stage

DRIVER = "asyncpg"


@case("prepared statements", DRIVER)
async def prepared(stage: Stage) -> AsyncIterator[None]:
    """One that the program keeps, and those that the driver has cached by their text."""
    connection = await asyncpg.connect(**stage.asyncpg())
    try:
        kept = await connection.prepare("SELECT $1::int + 1, $2::mood, $3::text[]")
        assert tuple(await kept.fetchrow(1, "ok", ["a"])) == (2, "ok", ["a"])
        assert await connection.fetchval("SELECT note FROM work WHERE id = $1", 998) == "row 998"
        yield
        assert tuple(await kept.fetchrow(41, "happy", ["a", None])) == (42, "happy", ["a", None])
        assert await connection.fetchval("SELECT note FROM work WHERE id = $1", 999) == "row 999"
        assert await connection.fetchval("SHOW server_version") == GREEN
        with_new_type = "SELECT ROW(1, 'x')::record, '{[1,2]}'::int4multirange IS NULL WHERE $1"
        assert await connection.fetch("SELECT $1::int[]", [1, 2]) == [([1, 2],)]
        assert await connection.fetch(with_new_type, False) == []
    finally:
        await connection.close()


@case("prepared and not run yet", DRIVER)
async def not_run_yet(stage: Stage) -> AsyncIterator[None]:
    """The driver prepares without a Sync."""
    connection = await asyncpg.connect(**stage.asyncpg())
    try:
        kept = await connection.prepare("SELECT $1::int + 1, current_setting('server_version')")
        yield
        assert tuple(await kept.fetchrow(41)) == (42, GREEN)
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 2
    finally:
        await connection.close()


@case("idle pool", DRIVER)
async def pool(stage: Stage) -> AsyncIterator[None]:
    async with asyncpg.create_pool(**stage.asyncpg(), min_size=5, max_size=5) as made:
        query = "SELECT count(*) FROM work WHERE id > $1 AND pg_sleep(0.02) IS NOT NULL AND id < $1 + 2"
        await asyncio.gather(*(made.fetchval(query, n) for n in range(20)))
        yield
        assert await asyncio.gather(*(made.fetchval(query, n) for n in range(20))) == [1] * 20
        versions = await asyncio.gather(*(made.fetchval("SELECT current_setting('server_version')") for _ in range(5)))
        assert versions == [GREEN] * 5


@case("busy pool", DRIVER)
async def busy(stage: Stage) -> AsyncIterator[None]:
    """Connections are taken and given back all the time; the driver resets each one with several statements."""
    async with asyncpg.create_pool(**stage.asyncpg(), min_size=2, max_size=4) as made:

        async def work(worker: int) -> int:
            await stage.wait_async(stage.begun)
            n = 0
            while not stage.over.is_set():
                async with made.acquire() as connection, connection.transaction():
                    await connection.execute("SET LOCAL work_mem = '5MB'")
                    await connection.execute("INSERT INTO written VALUES ($1, $2)", f"asyncpg {worker}", n)
                n += 1
            return n

        working = asyncio.gather(*(work(worker) for worker in range(4)))
        yield
        done = await working
        for worker, count in enumerate(done):
            found = await made.fetchrow("SELECT count(*), max(n) + 1 FROM written WHERE by = $1", f"asyncpg {worker}")
            assert tuple(found) == (count, count)
        assert await made.fetchval("SHOW server_version") == GREEN


@case("transaction and cursor", DRIVER, straggles=True)
async def transaction(stage: Stage) -> AsyncIterator[None]:
    connection = await asyncpg.connect(**stage.asyncpg())
    try:
        opened = connection.transaction(isolation="repeatable_read")
        await opened.start()
        cursor = await connection.cursor("SELECT generate_series(1, 100)")
        assert len(await cursor.fetch(10)) == 10

        async def end() -> list[int]:
            await stage.wait_async(stage.attempted)
            rest = [row[0] for row in await cursor.fetch(100)]
            await opened.commit()
            return rest

        ending = asyncio.ensure_future(end())
        yield
        assert await ending == list(range(11, 101))
        async with connection.transaction():
            assert [row[0] async for row in connection.cursor("SELECT generate_series(1, 3)")] == [1, 2, 3]
        assert await connection.fetchval("SHOW server_version") == GREEN
    finally:
        await connection.close()


@case("COPY", DRIVER, straggles=True)
async def copy(stage: Stage) -> AsyncIterator[None]:
    connection = await asyncpg.connect(**stage.asyncpg())
    try:
        begun = asyncio.Event()

        async def records() -> AsyncIterator[tuple[str, int]]:
            for n in range(2000):
                if n == 1000:
                    begun.set()
                    await stage.wait_async(stage.attempted)
                yield "asyncpg copy", n

        copying = asyncio.ensure_future(connection.copy_records_to_table("written", records=records()))
        await begun.wait()
        yield
        assert await copying == "COPY 2000"
        assert await connection.fetchval("SELECT count(*) FROM written WHERE by = 'asyncpg copy'") == 2000
        assert await connection.fetchval("SHOW server_version") == GREEN
    finally:
        await connection.close()


@case("cancel", DRIVER)
async def cancel(stage: Stage) -> AsyncIterator[None]:
    """Its timeouts send one."""
    connection = await asyncpg.connect(**stage.asyncpg())

    async def time_out() -> None:
        try:
            await connection.execute("SELECT pg_sleep(600)", timeout=0.2)
        except TimeoutError:
            return
        raise AssertionError("it has not timed out")

    try:
        await time_out()
        yield
        await time_out()
        assert await connection.fetchval("SHOW server_version") == GREEN
    finally:
        await connection.close()
