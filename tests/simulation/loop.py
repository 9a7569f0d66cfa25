"""An event loop whose time is virtual: it jumps to the next timer instead of waiting, so that a run of minutes takes
milliseconds and the same seed always takes the same course.

Every task belongs to a *process* of the simulated world, known by a context variable. A process can be stopped as by
SIGSTOP (none of its callbacks runs until it goes on) and killed as by SIGKILL (none of them ever runs again).
"""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any


class Process:
    """What can be stopped and killed as one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.held_up: list[asyncio.Handle] = []  # what would have run while it was stopped
        self.tasks: list[asyncio.Task[Any]] = []
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)

    def __repr__(self) -> str:
        return self.name


PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class Deadlock(Exception):
    """Nothing can run any more, ever; or something runs all the time and waits for nothing."""


# Turns of the loop in one instant. A run that needs as many is busy waiting for something.
_TURNS_MAX = 2000


class SimulatedLoop(asyncio.BaseEventLoop):
    """Single use. ``run_in_executor`` runs at once and answers a little later, in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._queue: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_count = 0
        self._turns = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.set_exception_handler(lambda _loop, _context: None)  # what tasks die of is the world's business

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]  # typeshed's is generic in the arguments, as are those below
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._queue.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def create_task(self, coro: Any, *, name: object = None, context: contextvars.Context | None = None) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # killed processes leave some
        process = PROCESS.get(None) if context is None else context.get(PROCESS)
        (self.tasks if process is None else process.tasks).append(task)
        return task

    def run_in_executor(self, _executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        async def run() -> Any:
            await asyncio.sleep(0.0002)
            return func(*args)

        return self.create_task(run())

    def resume(self, process: Process) -> None:
        process.paused = False
        self._queue.extend(process.held_up)
        process.held_up.clear()

    def drain(self) -> None:
        """Run what is ready until nothing is, without letting time pass: cancelled tasks come to their ends."""
        self._timers.clear()
        while self._queue:
            self._run_once_in_loop()

    def _run_once_in_loop(self) -> None:
        asyncio._set_running_loop(self)
        try:
            self._run_once()
        finally:
            asyncio._set_running_loop(None)

    def _run_once(self) -> None:
        queue, timers = self._queue, self._timers
        self._turns += 1
        if self._turns > _TURNS_MAX:
            raise Deadlock
        if not queue:
            self._turns = 0
            while timers and timers[0][2].cancelled():
                heapq.heappop(timers)
            if not timers:
                raise Deadlock
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            timer = heapq.heappop(timers)[2]
            if not timer.cancelled():
                queue.append(timer)
        for _ in range(len(queue)):
            handle = queue.popleft()
            if handle.cancelled():
                continue
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]  # whose it is
            if process is not None:
                if not process.alive:
                    continue
                if process.paused:
                    process.held_up.append(handle)
                    continue
            handle._run()
