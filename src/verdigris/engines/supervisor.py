"""Keep a server running: one that ends without having been told to is started again, for as long as it takes."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum

import structlog
from msgspec import Struct

from verdigris.domain.errors import ControllerSuperseded, EngineError
from verdigris.engines.process import Process

log = structlog.get_logger(__name__)


class ServerCondition(StrEnum):
    """RUNNING -> DIED -> RUNNING | CRASH_LOOPING; CRASH_LOOPING -> RUNNING once what kept it down is gone."""

    RUNNING = "running"
    DIED = "died"
    CRASH_LOOPING = "crash-looping"


ConditionCallback = Callable[[str, ServerCondition, str], None]


HOUSEKEEPING_S = 60.0
# A condition that could not be recorded (the store's disk is full) is told again after so long.
TOLD_AGAIN_S = 1.0


class RestartPolicy(Struct, frozen=True, kw_only=True):
    """The first restart is immediate; later ones within the window wait twice as long each time, up to the longest."""

    first_delay_s: float = 0.5
    longest_delay_s: float = 30.0
    # More deaths than this within the window are told, and it is only tried now and then: nobody need be awake when a
    # full disk has room again.
    deaths: int = 6
    window_s: float = 300.0

    def delay_s(self, recent_deaths: int) -> float:
        if recent_deaths <= 1:
            return 0.0
        if recent_deaths > self.deaths:
            return self.longest_delay_s
        return float(min(self.first_delay_s * 2 ** (recent_deaths - 2), self.longest_delay_s))


class Supervision:
    """Watches one server. ``restart`` starts it again and returns its new process; ``housekeep`` is called in a thread
    now and then while it runs."""

    def __init__(
        self,
        resource_id: str,
        restart: Callable[[], Awaitable[Process]],
        *,
        housekeep: Callable[[], object],
        policy: RestartPolicy,
        report: ConditionCallback,
    ) -> None:
        self._resource_id = resource_id
        self._restart = restart
        self._housekeep = housekeep
        self._policy = policy
        self._report = report
        self._deaths: deque[float] = deque()
        self._is_down = False
        self._task: asyncio.Task[None] | None = None

    def watch(self, process: Process) -> None:
        """From now on. An explicit start of one that was down forgets earlier deaths."""
        if self._task is not None and not self._task.done() and not self._is_down:
            process.close()
        else:
            if self._task is not None:
                self._task.cancel()
            self._deaths.clear()
            self._is_down = False
            self._task = asyncio.create_task(self._run(process), name=f"supervise {self._resource_id}")

    def try_again(self) -> None:
        """Of a server that could not be started: as if it had just died."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(None), name=f"supervise {self._resource_id}")

    async def end(self) -> None:
        """Let the server be, whatever happens to it."""
        task, self._task = self._task, None
        if task is None or task is asyncio.current_task():
            return
        task.cancel()
        await asyncio.wait([task])

    async def _run(self, process: Process | None) -> None:
        while True:
            if process is not None:
                await self._until_it_dies(process)
            process = await self._restarted()
            if process is None:
                return

    async def _until_it_dies(self, process: Process) -> None:
        told = self._tell(ServerCondition.RUNNING)
        try:
            while not await process.ended_within(HOUSEKEEPING_S if told else TOLD_AGAIN_S):
                if told:
                    await self._keep_house()
                told = told or self._tell(ServerCondition.RUNNING)
        finally:
            process.close()
        log.warning("server.died", resource_id=self._resource_id, pid=process.pid, status=process.exit_status)
        self._tell(ServerCondition.DIED, f"process {process.pid} ended")

    def _tell(self, condition: ServerCondition, detail: str = "") -> bool:
        """Whether it was heard. Who cannot write it down is no reason to leave a server alone."""
        try:
            self._report(self._resource_id, condition, detail)
        except Exception as error:
            log.warning(
                "server.condition_not_recorded",
                resource_id=self._resource_id,
                condition=condition.value,
                reason=repr(error),
            )
            return False
        return True

    async def _keep_house(self) -> None:
        try:
            await asyncio.to_thread(self._housekeep)
        except Exception as error:
            log.warning("server.housekeeping_failed", resource_id=self._resource_id, reason=repr(error))

    async def _restarted(self) -> Process | None:
        """None: it is another control plane's to start."""
        told = False
        while True:
            self._is_down = True
            recent = self._count_death()
            if recent > self._policy.deaths and not told:
                detail = f"{recent} deaths within {self._policy.window_s:g} s"
                log.error("server.crash_looping", resource_id=self._resource_id, deaths=recent)
                told = self._tell(ServerCondition.CRASH_LOOPING, detail)
            await asyncio.sleep(self._policy.delay_s(recent))
            self._is_down = False
            try:
                return await self._restart()
            except ControllerSuperseded:
                log.warning("server.left_to_successor", resource_id=self._resource_id)
                return None
            except Exception as error:
                expected = isinstance(error, EngineError)
                log.warning(
                    "server.restart_failed", resource_id=self._resource_id, error=str(error), exc_info=not expected
                )

    def _count_death(self) -> int:
        now = asyncio.get_running_loop().time()
        self._deaths.append(now)
        while self._deaths[0] < now - self._policy.window_s:
            self._deaths.popleft()
        return len(self._deaths)
