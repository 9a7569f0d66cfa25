"""Carries out what :mod:`verdigris.domain.switchover` plans: observe, plan, do, observe again."""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from verdigris.domain import status_details
from verdigris.domain.errors import ControllerSuperseded, ParkBroken, SetBack, VerdigrisError
from verdigris.domain.model import Workflow
from verdigris.domain.statuses import ReplicationMode
from verdigris.domain.switchover import Facts, Park, Side, Step, plan
from verdigris.workflows.joint import Joint
from verdigris.workflows.services import Services
from verdigris.workflows.switchover_known import Known
from verdigris.workflows.switchover_readers import granted_park
from verdigris.workflows.switchover_steps import PAUSE_WORK_LIMIT_S, SwitchoverSteps, until_it_works

log = structlog.get_logger(__name__)

_PAUSED = frozenset({Step.FENCE_SOURCE, Step.CATCH_UP, Step.HAND_OVER})
_MUST_SUCCEED = frozenset(
    {
        Step.OPEN_TARGET,
        Step.RELEASE,
        Step.RENAME,
        Step.RETIRE_SOURCE,
        Step.COMPLETE,
        Step.UNFENCE_SOURCE,
        Step.ABORT_PARK,
        Step.UNREADY_SESSIONS,
        Step.FAIL,
    }
)


class SwitchOver:
    def __init__(self, services: Services, workflow: Workflow) -> None:
        self._services = services
        self._known = Known(services, workflow)
        self._steps = SwitchoverSteps(services, self._known)

    async def run(self) -> None:
        self._known.task = asyncio.current_task()
        self._known.read_records()
        try:
            async with self._known.deciding:
                self._known.facts = await until_it_works("observe", self._observe)
            self._known.observed.set()
            while not self._known.ended:
                await self._do(plan(self._known.facts))
        finally:
            self._known.observed.set()
            await self._known.lease.let_go()
            with contextlib.suppress(VerdigrisError):
                await self._services.switchover.stand_down(self._known.pair)

    async def cancel(self) -> bool:
        """The operator's wish: the way back, as if the deadline had come. Whether it is granted; it is not at and after
        the point of no return. While the route is being committed the answer waits for what comes of that."""
        await self._known.observed.wait()
        async with self._known.deciding:
            if self._known.facts.route is Side.TARGET or self._known.ended:
                return self._known.facts.route is Side.SOURCE
            self._known.give_up(status_details.BY_OPERATOR)
            self._known.deadline = asyncio.get_running_loop().time()
            with contextlib.suppress(RuntimeError):  # nothing is going on that could be cut short
                if self._known.limit is not None:
                    self._known.limit.reschedule(self._known.deadline)
            try:
                self._known.records.note_cancellation()
            except ControllerSuperseded:
                raise
            except Exception as error:
                # It counts all the same: this run goes back, and so does a control plane that finds it interrupted.
                log.warning(
                    "switchover.cancellation_not_noted", deployment=self._known.deployment.identifier, reason=str(error)
                )
            return True

    # -- observing and driving

    async def _observe(self) -> Facts:
        """Facts at the start. If this workflow ran before, the control plane died during it: what is still in place
        is found by asking, and before the point of no return the attempt is given up."""
        interrupted = self._known.records.begin()
        route = await self._known.observed_route()
        on_pinned = self._services.policy.pinned_sessions
        released_first = self._known.pair.mode is ReplicationMode.LOGICAL
        if not interrupted:
            return Facts(route=route, on_pinned=on_pinned, released_first=released_first)
        self._known.timeline.resumed = True
        self._known.parked = await granted_park(self._services.router, self._known.name)
        await self._known.readers.observe()
        return Facts(
            route=route,
            on_pinned=on_pinned,
            released_first=released_first,
            fenced=route is Side.SOURCE and await self._services.switchover.is_fenced(self._known.pair),
            renamed=self._known.records.is_renamed(),
            park=Park.HELD if self._known.parked is not None or self._known.readers.generations else Park.NONE,
            dialled=True,
            failure=(
                status_details.BY_OPERATOR
                if self._known.records.is_cancelled()
                else "the control plane was restarted while it was in progress"
            ),
        )

    async def _do(self, steps: tuple[Step, ...]) -> None:
        """Do steps that may run together, in the pause also those that come due meanwhile. What goes wrong becomes a
        fact; the planner decides what follows from it."""
        if steps[0] in _MUST_SUCCEED:
            await until_it_works(steps[0].value, lambda: self._timed(steps[0]))
            return
        in_pause = bool(_PAUSED.intersection(steps))
        limit = min(self._known.deadline, self._known.pause_ends_at) if in_pause else self._known.deadline
        joint = Joint(
            self._timed,
            due=lambda: _PAUSED.intersection(plan(self._known.facts)) if in_pause else (),
            lease=self._known.lease.renewing if self._known.facts.park is Park.HELD else None,
        )
        try:
            async with asyncio.timeout_at(limit) as self._known.limit:
                await joint.run(steps)
        except TimeoutError:
            self._on_timeout(joint.unfinished or steps)
        except ParkBroken as error:
            self._known.learn(park=Park.BROKEN, setback=str(error))
        except SetBack as error:
            self._known.learn(setback=str(error))
        except VerdigrisError as error:
            self._known.give_up(str(error))
        except Exception as error:
            log.exception("switchover.step_crashed", deployment=self._known.deployment.identifier, steps=[*steps])
            self._known.give_up(f"internal error: {error!r}")

    def _on_timeout(self, unfinished: Sequence[Step]) -> None:
        if asyncio.get_running_loop().time() < self._known.deadline:
            what = " and ".join(step.value for step in unfinished)
            self._known.learn(
                setback=f"the pause was given up because {what} took longer than {PAUSE_WORK_LIMIT_S:g} s"
            )
            return
        why = f": {self._known.last_setback}" if self._known.last_setback else f" during {unfinished[0].value}"
        self._known.give_up(f"the switchover did not finish before its timeout{why}")

    async def _timed(self, step: Step) -> None:
        with self._known.timeline.phase(step.value) as phase:
            await self._steps.do(step)
        log.info(
            "switchover.phase",
            deployment=self._known.deployment.identifier,
            phase=step.value,
            duration_ms=round(phase.duration_s * 1000, 3),
        )
