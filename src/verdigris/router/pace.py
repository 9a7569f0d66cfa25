"""Work for every session that takes processors from clients who know nothing of it yet.

To make a session ready a server process is started on the target that has everything to learn, and SCRAM takes its
processor. Many at a time are not done sooner, where processors are few, and whoever shares these has to wait behind
them: with sixteen at a time on two processors a transaction of clients took 130 ms instead of 2.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from math import ceil
from typing import Final, TypeVar

from verdigris.router.processors import COUNT

T = TypeVar("T")

# Half of the processors are left to whoever else is there.
AT_ONCE: Final = max(1, COUNT // 2)
# With so many sessions, or on a machine so busy, that it would take longer than this, there are more at a time.
LIMIT_S: Final = 60.0
MOST_AT_ONCE: Final = 16


async def without_hurry(items: Sequence[T], work: Callable[[T], Awaitable[None]], limit_s: float = LIMIT_S) -> None:
    """``work`` for each of ``items``, as few at a time as have it done within ``limit_s``. An error ends it all."""
    loop = asyncio.get_running_loop()
    left = iter(items)
    workers = done = 0
    spent_s = 0.0

    async def worker() -> None:
        nonlocal done, spent_s
        for item in left:
            began_at = loop.time()
            await work(item)
            spent_s += loop.time() - began_at
            done += 1
            needed = ceil((len(items) - done) * spent_s / done / limit_s)
            employ(min(needed, MOST_AT_ONCE))

    def employ(wanted: int) -> None:
        nonlocal workers
        for _ in range(wanted - workers):
            workers += 1
            group.create_task(worker())

    async with asyncio.TaskGroup() as group:
        employ(AT_ONCE)
