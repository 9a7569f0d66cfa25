"""Steps that run at the same time, and those that come due while others still run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from verdigris.domain.switchover import Step


class Joint:
    """``due`` is asked at each end of a step; what runs already may be among its answer. ``lease``, if there is one,
    only ever ends by failing."""

    def __init__(
        self,
        do: Callable[[Step], Awaitable[None]],
        due: Callable[[], Iterable[Step]],
        lease: asyncio.Task[None] | None,
    ) -> None:
        self._do = do
        self._due = due
        self._lease = {lease} if lease is not None else set()
        self._tasks: dict[Step, asyncio.Task[None]] = {}

    @property
    def unfinished(self) -> list[Step]:
        return [step for step, task in self._tasks.items() if not task.done() or task.cancelled()]

    async def run(self, steps: Iterable[Step]) -> None:
        """Until all have ended, or to the first error, with the rest cancelled."""
        try:
            self._begin(steps)
            while pending := {task for task in self._tasks.values() if not task.done()}:
                done, _ = await asyncio.wait(pending | self._lease, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await task  # raises what the step, or the renewal of the lease, raised
                self._begin(self._due())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if step not in self._tasks:
                self._tasks[step] = asyncio.create_task(_run(self._do, step))


async def _run(do: Callable[[Step], Awaitable[None]], step: Step) -> None:
    await do(step)
