"""Carries out what :mod:`verdigris.domain.switchover` plans: observe, plan, do, observe again."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import structlog
from msgspec import structs

from verdigris.domain import status_details
from verdigris.domain.errors import ControllerSuperseded, ParkBroken, SetBack, VerdigrisError
from verdigris.domain.model import BlueGreenDeployment, DBInstance, Workflow
from verdigris.domain.policy import PinnedSessions, Stragglers
from verdigris.domain.ports import Pair, Parked, ParkRefused
from verdigris.domain.statuses import ReplicationMode
from verdigris.domain.switchover import Facts, Park, Side, Step, plan
from verdigris.workflows import arguments
from verdigris.workflows.instances import routes_after_switchover
from verdigris.workflows.joint import Joint
from verdigris.workflows.lease import Lease
from verdigris.workflows.pins import look_for_pins
from verdigris.workflows.services import Services, require_deployment, require_instance
from verdigris.workflows.switchover_records import SwitchoverRecords
from verdigris.workflows.timeline import Timeline

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A pause that lasts longer than the budget for stragglers plus this is given up and tried again later: fence, marker
# and handover together take tens of milliseconds on a healthy pair.
PAUSE_WORK_LIMIT_S = 5.0
# How long sessions are looked at for pins before anything is done, where pins refuse the switchover.
_LOOK_S = 2.0
# The way back and the way forward beyond the point of no return are repeated until they work.
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0

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
        self._workflow = workflow
        self._told = msgspec.convert(workflow.arguments, arguments.SwitchOver)
        self._records = SwitchoverRecords(services, workflow)
        self._timeline = Timeline()
        self._parked: Parked | None = None
        self._pause_ends_at = 0.0  # event loop time
        self._retry_s = services.policy.retry_first_s
        self._last_setback: str | None = None
        self._ended = False
        # Held while it is being decided which side production is on: what comes of it is not to be guessed at.
        self._deciding = asyncio.Lock()
        self._facts = Facts(route=Side.TARGET)  # until they are observed nothing can be taken back
        self._limit: asyncio.Timeout | None = None  # of the steps that are going on
        self._steps: dict[Step, Callable[[], Awaitable[None]]] = {
            Step.CHECK_GUARDRAILS: self._check_guardrails,
            Step.PREPARE: self._prepare,
            Step.READY_SESSIONS: self._ready_sessions,
            Step.PARK: lambda: self._park(leave_stragglers=False),
            Step.PARK_WITHOUT_STRAGGLERS: lambda: self._park(leave_stragglers=True),
            Step.CLOSE_SOURCE: self._close_source,
            Step.FENCE_SOURCE: self._fence_source,
            Step.CATCH_UP: self._catch_up,
            Step.HAND_OVER: self._hand_over,
            Step.COMMIT_ROUTE: self._commit_route,
            Step.OPEN_TARGET: self._open_target,
            Step.RELEASE: self._release,
            Step.RENAME: self._rename,
            Step.RETIRE_SOURCE: self._retire_source,
            Step.COMPLETE: self._complete,
            Step.UNFENCE_SOURCE: self._unfence_source,
            Step.ABORT_PARK: self._abort_park,
            Step.UNREADY_SESSIONS: self._unready_sessions,
            Step.WAIT: self._wait,
            Step.FAIL: self._fail,
        }

    async def run(self) -> None:
        self._read_records()
        try:
            async with self._deciding:
                self._facts = await self._until_it_works("observe", self._observe)
            while not self._ended:
                await self._do(plan(self._facts))
        finally:
            await self._lease.let_go()
            with contextlib.suppress(VerdigrisError):
                await self._services.switchover.stand_down(self._pair)

    async def cancel(self) -> bool:
        """The operator's wish: the way back, as if the deadline had come. Whether it is granted; it is not at and after
        the point of no return. While the route is being committed the answer waits for what comes of that."""
        async with self._deciding:
            if self._facts.route is Side.TARGET or self._ended:
                return self._facts.route is Side.SOURCE
            self._give_up(status_details.BY_OPERATOR)
            self._deadline = asyncio.get_running_loop().time()
            with contextlib.suppress(RuntimeError):  # nothing is going on that could be cut short
                if self._limit is not None:
                    self._limit.reschedule(self._deadline)
            self._records.note_cancellation()
            return True

    def _read_records(self) -> None:
        with self._services.store.transaction() as tx:
            self._deployment: BlueGreenDeployment = require_deployment(tx, self._workflow.subject)
            self._source: DBInstance = require_instance(tx, self._deployment.primary.source_resource_id)
            self._target: DBInstance = require_instance(tx, self._deployment.primary.target_resource_id or "")
        self._pair: Pair = self._services.pair(self._deployment)
        # The name that production uses: blue's until RENAME, green's afterwards.
        self._name = self._target.identifier if self._records.is_renamed() else self._source.identifier
        remaining_s = 0.0
        if self._workflow.deadline_at is not None:
            remaining_s = (self._workflow.deadline_at - self._services.clock.now()).total_seconds()
            # A clock that was set back meanwhile gives nobody more time than was asked for.
            remaining_s = min(remaining_s, self._told.timeout_s)
        self._deadline = asyncio.get_running_loop().time() + max(remaining_s, 0.0)
        self._lease = Lease(self._services.router, self._services.policy.lease_s, self._deadline)

    # -- observing and driving

    async def _observe(self) -> Facts:
        """Facts at the start. If this workflow ran before, the control plane died during it: what is still in place
        is found by asking, and before the point of no return the attempt is given up."""
        interrupted = self._records.begin()
        route = await self._observed_route()
        on_pinned = self._services.policy.pinned_sessions
        released_first = self._pair.mode is ReplicationMode.LOGICAL
        if not interrupted:
            return Facts(route=route, on_pinned=on_pinned, released_first=released_first)
        self._timeline.resumed = True
        sessions = await self._services.router.sessions(self._name)
        if sessions.generation is not None:
            self._parked = Parked(
                generation=sessions.generation, sessions=sessions.sessions, server_pids=(), waiting_clients=0
            )
        return Facts(
            route=route,
            on_pinned=on_pinned,
            released_first=released_first,
            fenced=route is Side.SOURCE and await self._services.switchover.is_fenced(self._pair),
            renamed=self._records.is_renamed(),
            park=Park.HELD if self._parked is not None else Park.NONE,
            dialled=True,
            failure=(
                status_details.BY_OPERATOR
                if self._records.is_cancelled()
                else "the control plane was restarted while it was in progress"
            ),
        )

    async def _observed_route(self) -> Side:
        for route in await self._services.router.routes():
            if route.name == self._name and route.backend.resource_id == self._target.resource_id:
                return Side.TARGET
        return Side.SOURCE

    async def _do(self, steps: tuple[Step, ...]) -> None:
        """Do steps that may run together, in the pause also those that come due meanwhile. What goes wrong becomes a
        fact; the planner decides what follows from it."""
        if steps[0] in _MUST_SUCCEED:
            await self._until_it_works(steps[0].value, lambda: self._timed(steps[0]))
            return
        in_pause = bool(_PAUSED.intersection(steps))
        limit = min(self._deadline, self._pause_ends_at) if in_pause else self._deadline
        joint = Joint(
            self._timed,
            due=lambda: _PAUSED.intersection(plan(self._facts)) if in_pause else (),
            lease=self._lease.renewing if self._facts.park is Park.HELD else None,
        )
        try:
            async with asyncio.timeout_at(limit) as self._limit:
                await joint.run(steps)
        except TimeoutError:
            self._on_timeout(joint.unfinished or steps)
        except ParkBroken as error:
            self._know(park=Park.BROKEN, setback=str(error))
        except SetBack as error:
            self._know(setback=str(error))
        except VerdigrisError as error:
            self._give_up(str(error))
        except Exception as error:
            log.exception("switchover.step_crashed", deployment=self._deployment.identifier, steps=[*steps])
            self._give_up(f"internal error: {error!r}")

    def _on_timeout(self, unfinished: Sequence[Step]) -> None:
        if asyncio.get_running_loop().time() < self._deadline:
            what = " and ".join(step.value for step in unfinished)
            self._know(setback=f"the pause was given up because {what} took longer than {PAUSE_WORK_LIMIT_S:g} s")
            return
        why = f": {self._last_setback}" if self._last_setback else f" during {unfinished[0].value}"
        self._give_up(f"the switchover did not finish before its timeout{why}")

    async def _timed(self, step: Step) -> None:
        with self._timeline.phase(step.value) as phase:
            await self._steps[step]()
        log.info(
            "switchover.phase",
            deployment=self._deployment.identifier,
            phase=step.value,
            duration_ms=round(phase.duration_s * 1000, 3),
        )

    async def _until_it_works(self, what: str, act: Callable[[], Awaitable[T]]) -> T:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                return await act()
            except ControllerSuperseded:
                raise
            except Exception as error:
                log.warning("switchover.retried", what=what, reason=str(error), delay_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)

    def _know(self, **facts: object) -> None:
        self._facts = structs.replace(self._facts, **facts)

    def _give_up(self, reason: str) -> None:
        """The first reason is the one to tell; what goes wrong later may only follow from it."""
        self._know(failure=self._facts.failure or reason)

    # -- before the pause

    async def _check_guardrails(self) -> None:
        left_s = max(self._deadline - asyncio.get_running_loop().time(), 0.0)
        findings = await self._services.switchover.guardrails(self._pair, timeout_s=left_s)
        if findings:
            self._know(failure=" ".join(map(str, findings)))
        elif self._services.policy.pinned_sessions is PinnedSessions.REFUSE:
            services = self._services
            report = await look_for_pins(
                services.router, services.servers, self._name, self._source.resource_id, budget_s=_LOOK_S
            )
            self._know_pins(report.pinned)
        self._know(checked=True)

    def _know_pins(self, by_reason: Mapping[str, int]) -> None:
        self._timeline.pinned = dict(by_reason)
        self._know(pinned=status_details.pinned(self._name, by_reason))

    async def _prepare(self) -> None:
        await self._services.switchover.prepare(self._pair)
        self._know(prepared=True)

    async def _ready_sessions(self) -> None:
        """Repeated before every attempt: clients have come since the last one."""
        self._know(dialled=True)
        sessions = await self._services.router.sessions(self._name)
        verifiers = await self._services.switchover.login_verifiers(self._pair, sessions.usernames)
        helpers = await self._services.switchover.helpers(self._pair)
        report = await self._services.router.ready(
            self._name, self._services.servers.address(self._target.resource_id), verifiers, helpers
        )
        log.info("switchover.readied", sessions=report.sessions, dialled=report.dialled, pinned=report.pinned)
        self._know_pins(report.pinned)
        self._know(readied=True, ends_stragglers=self._ends_stragglers())

    def _ends_stragglers(self) -> bool:
        """Whether the policy is to end them, and there is no time for another attempt after this one."""
        policy = self._services.policy
        next_begins_at = asyncio.get_running_loop().time() + policy.pause_budget_s
        return policy.stragglers is Stragglers.CLOSE and next_begins_at > self._last_beginning()

    def _last_beginning(self) -> float:
        """When an attempt has to begin to be over by the deadline."""
        pause_s = self._services.policy.pause_budget_s + PAUSE_WORK_LIMIT_S
        return self._deadline - pause_s - self._timeline.longest_s(Step.READY_SESSIONS.value)

    # -- the pause

    async def _park(self, *, leave_stragglers: bool) -> None:
        policy = self._services.policy
        now = asyncio.get_running_loop().time()
        self._pause_ends_at = now + policy.pause_budget_s + PAUSE_WORK_LIMIT_S
        self._timeline.begin_pause()
        try:
            answer = await self._services.router.park(
                self._name,
                budget_s=min(policy.pause_budget_s, max(self._deadline - now, 0.0)),
                lease_s=self._lease.length_s,
                leave_stragglers=leave_stragglers,
            )
        except BaseException:
            # The park may have been granted without our hearing of it; clients shall not wait for its lease to end.
            await asyncio.shield(asyncio.ensure_future(self._end_unheard_park()))
            raise
        if isinstance(answer, ParkRefused):
            self._timeline.end_pause()
            busy_with = await self._describe(answer)
            self._know(setback=status_details.stragglers(answer.stragglers, policy.pause_budget_s, busy_with))
            return
        self._parked = answer
        self._timeline.stragglers = answer.stragglers
        self._lease.keep(answer.generation)
        self._know(park=Park.HELD)

    async def _describe(self, refused: ParkRefused) -> list[str]:
        """Everybody goes on already; who they are is worth a moment, and no failure."""
        try:
            async with asyncio.timeout(_LOOK_S):
                described = await self._services.switchover.describe_sessions(self._pair, refused.server_pids)
        except (VerdigrisError, TimeoutError) as error:
            log.warning("switchover.stragglers_not_described", reason=str(error))
            return []
        log.info("switchover.stragglers", sessions=described)
        return described

    async def _end_unheard_park(self) -> None:
        try:
            sessions = await self._services.router.sessions(self._name)
            if sessions.generation is not None:
                await self._services.router.abort(sessions.generation, admit=False)
        except VerdigrisError as error:
            log.warning("switchover.park_left_to_its_lease", reason=str(error))

    async def _close_source(self) -> None:
        # Known before it is true: what was half done has to be undone as well.
        self._know(fenced=True)
        await self._services.router.hold(self._name)
        await self._services.switchover.close(self._pair)
        self._know(closed=True)

    async def _fence_source(self) -> None:
        # Known before it is true: a fence that was half built has to be taken down as well.
        self._know(fenced=True)
        await self._services.switchover.fence(self._pair, self._require_park().server_pids)
        self._know(fence_complete=True)

    async def _catch_up(self) -> None:
        await self._services.switchover.catch_up(self._pair)
        self._know(caught_up=True)

    async def _hand_over(self) -> None:
        report = await self._services.router.hand_over(self._require_park().generation)
        log.info("switchover.handed_over", carried=report.carried, pinned=report.pinned)
        self._timeline.carried = report.carried
        self._know_pins(report.pinned)
        self._know(handed_over=True)

    async def _commit_route(self) -> None:
        """The point of no return."""
        async with self._deciding:
            if self._facts.failure is None:  # or it was cancelled a moment ago
                await self._commit()

    async def _commit(self) -> None:
        """The router decides; whatever we do not hear from it, we ask for."""
        generation = self._require_park().generation
        try:
            await self._services.router.commit(
                generation,
                routes_after_switchover(self._services, self._source, self._target),
                hold=self._pair.mode is ReplicationMode.PHYSICAL,
                leave_nobody=self._services.policy.pinned_sessions is not PinnedSessions.CLOSE,
            )
        except ParkBroken:
            raise
        except BaseException:
            # It may have been committed all the same. ``abort`` settles it: the router refuses it after a commit, and
            # refuses a commit after it. Shielded, because a deadline must not leave the question open.
            await asyncio.shield(asyncio.ensure_future(self._until_it_works("settle the commit", self._settle_commit)))
            if self._facts.route is Side.SOURCE:
                raise
        else:
            self._know(route=Side.TARGET)

    async def _settle_commit(self) -> None:
        with contextlib.suppress(ParkBroken):  # committed, or already ended: the route tells which
            await self._services.router.abort(self._require_park().generation, admit=False)
        self._know(route=await self._observed_route(), park=Park.NONE)

    def _require_park(self) -> Parked:
        if self._parked is None:
            raise ParkBroken("no sessions are parked")
        return self._parked

    # -- beyond the point of no return

    async def _open_target(self) -> None:
        if self._facts.released:
            with contextlib.suppress(VerdigrisError):  # a courtesy
                await self._services.router.answered(self._name)
        await self._services.switchover.open_target(self._pair)
        if self._facts.released:
            await self._services.router.admit(self._name)
        self._know(target_open=True)

    async def _release(self) -> None:
        await self._lease.let_go()
        if self._parked is not None:
            try:
                late_pins = await self._services.router.release(self._parked.generation, admit=self._facts.target_open)
                self._timeline.pin_late(late_pins)
            except ParkBroken:
                log.info("switchover.released_already", generation=self._parked.generation)
        self._timeline.end_pause()
        self._know(released=True)

    async def _rename(self) -> None:
        """Names, ARNs and ports in the records become what the router has been doing since the commit."""
        old = next(
            route
            for route in await self._services.router.routes()
            if route.backend.resource_id == self._source.resource_id
        )
        await self._services.router.remove_route(self._target.identifier)  # green's name of before
        self._records.rename(old)
        self._know(renamed=True)

    async def _retire_source(self) -> None:
        await self._services.switchover.retire_source(self._pair)
        self._know(source_retired=True)

    async def _complete(self) -> None:
        self._records.complete(self._timeline.record())
        self._ended = True

    # -- the way back

    async def _unfence_source(self) -> None:
        await self._services.switchover.unfence(self._pair)
        await self._services.router.admit(self._name)
        self._know(fenced=False, closed=False, fence_complete=False, caught_up=False)

    async def _abort_park(self) -> None:
        await self._lease.let_go()
        try:
            await self._services.router.abort(self._require_park().generation)
        except ParkBroken:
            log.info("switchover.park_ended_already", generation=self._require_park().generation)
        self._parked = None
        self._timeline.end_pause()
        self._timeline.nobody_moved()
        self._know(park=Park.NONE)

    async def _unready_sessions(self) -> None:
        await self._services.router.unready(self._name)
        self._know(dialled=False)

    async def _wait(self) -> None:
        """Between attempts, growing distance; what the last attempt had built is void."""
        await self._lease.let_go()
        reason = self._facts.setback or self._facts.pinned or "the router let the sessions go"
        pause_s = self._retry_s
        if self._services.policy.stragglers is Stragglers.CLOSE:
            # In time for a last attempt, which ends them.
            left_s = self._last_beginning() - asyncio.get_running_loop().time()
            pause_s = min(pause_s, left_s) if left_s > 0 else pause_s
        self._last_setback = reason
        self._timeline.set_back(reason)
        log.info("switchover.set_back", reason=reason, retry_s=pause_s)
        self._records.note_setback(reason)
        await asyncio.sleep(pause_s)
        self._retry_s = min(self._retry_s * 2, self._services.policy.retry_max_s)
        self._parked = None
        self._timeline.begin_attempt()
        self._know(
            setback=None,
            pinned=None,
            prepared=False,
            park=Park.NONE,
            readied=False,
            closed=False,
            fence_complete=False,
            caught_up=False,
            handed_over=False,
        )

    async def _fail(self) -> None:
        self._records.fail(self._facts.failure or self._facts.pinned or "", self._timeline.record())
        self._ended = True
