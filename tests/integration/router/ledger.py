"""Clients at work on real rows, who know what has been acknowledged to them."""

import asyncio
from contextlib import AsyncExitStack

import psycopg

from tests.integration.router.clients import Connection, Endpoint, connect


class Worker:
    """Adds one to its row again and again; ``acknowledged`` is how often it was told that it is done."""

    def __init__(self, connection: Connection, row: int) -> None:
        self.connection, self.row = connection, row
        self.acknowledged = 0
        self.error: psycopg.Error | None = None

    async def work(self) -> None:
        try:
            while True:
                async with self.connection.transaction():
                    cursor = await self.connection.execute(
                        "UPDATE work SET n = n + 1 WHERE id = %s RETURNING n", [self.row]
                    )
                    row = await cursor.fetchone()
                self.acknowledged += 1
                assert row == (self.acknowledged,)
        except psycopg.OperationalError as error:
            self.error = error

    async def check(self, admin: Connection) -> None:
        """Every acknowledged commit is there once; at most the one under way when the connection was lost besides."""
        row = await (await admin.execute("SELECT n FROM work WHERE id = %s", [self.row])).fetchone()
        assert row is not None
        allowed = {self.acknowledged} if self.error is None else {self.acknowledged, self.acknowledged + 1}
        assert row[0] in allowed, (row, self.acknowledged, self.error)


class Crew:
    """``async with Crew(endpoint, number) as crew``: they work until its end, and their books are right."""

    def __init__(self, endpoint: Endpoint, number: int, admin: str, **parameters: str) -> None:
        self._endpoint, self._number, self._admin, self._parameters = endpoint, number, admin, parameters
        self.workers: list[Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Crew":
        admin = await psycopg.AsyncConnection.connect(self._admin, autocommit=True)
        self._admin_connection = await self._stack.enter_async_context(admin)
        await self._admin_connection.execute("UPDATE work SET n = 0")
        for row in range(1, self._number + 1):
            connection = await connect(self._endpoint, **self._parameters)
            self._stack.push_async_callback(connection.close)
            self.workers.append(Worker(connection, row))
        self._tasks = [asyncio.create_task(worker.work()) for worker in self.workers]
        return self

    async def progress(self, times: int = 3) -> None:
        """Wait until everybody who has not been cut off has been acknowledged something more."""
        aims = [worker.acknowledged + times for worker in self.workers]
        async with asyncio.timeout(30):
            while any(w.error is None and w.acknowledged < aim for w, aim in zip(self.workers, aims, strict=True)):
                await asyncio.sleep(0.01)
                for task in self._tasks:
                    if task.done():
                        task.result()

    @property
    def cut_off(self) -> int:
        return sum(worker.error is not None for worker in self.workers)

    async def __aexit__(self, *_: object) -> None:
        try:
            for task in self._tasks:
                task.cancel()
            results = await asyncio.gather(*self._tasks, return_exceptions=True)
            broken = [result for result in results if isinstance(result, Exception)]
            assert not broken, broken
            for worker in self.workers:
                # Cancelled in the middle of one: it may have been done.
                worker.error = worker.error or psycopg.OperationalError("stopped by the test")
                await worker.check(self._admin_connection)
        finally:
            await self._stack.aclose()
