"""What each step of a switchover does; which one comes next, :mod:`verdigris.domain.switchover` says."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from msgspec import structs

from verdigris.domain import status_details
from verdigris.domain.errors import ParkBroken, VerdigrisError
from verdigris.domain.policy import PinnedSessions, Stragglers
from verdigris.domain.ports import Parked, ParkRefused, Route
from verdigris.domain.statuses import ReplicationMode
from verdigris.domain.switchover import Park, Side, Step
from verdigris.domain.undoing import to_its_end
from verdigris.workflows import cluster_switchover, retrying
from verdigris.workflows.instances import routes_after_switchover
from verdigris.workflows.pins import look_for_pins
from verdigris.workflows.retrying import Distance
from verdigris.workflows.services import Services
from verdigris.workflows.switchover_known import Known
from verdigris.workflows.switchover_readers import Pins, together

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A pause that lasts longer than the budget for stragglers plus this is given up and tried again later: fence, marker
# and handover together take tens of milliseconds on a healthy pair.
PAUSE_WORK_LIMIT_S = 5.0
# How long sessions are looked at for pins before anything is done, where pins refuse the switchover.
_LOOK_S = 2.0
# The way back and the way forward beyond the point of no return are repeated until they work.
_RETRIES = Distance(0.05, 2.0)


async def until_it_works(what: str, act: Callable[[], Awaitable[T]]) -> T:
    def retried(error: Exception, delay_s: float) -> None:
        log.warning("switchover.retried", what=what, reason=str(error), delay_s=delay_s)

    return await retrying.until_it_works(act, _RETRIES, retried)


class SwitchoverSteps:
    def __init__(self, services: Services, known: Known) -> None:
        self._services = services
        self._known = known
        self._late_pins: Counter[str] = Counter()
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

    async def do(self, step: Step) -> None:
        await self._steps[step]()

    # -- before the pause

    async def _check_guardrails(self) -> None:
        left_s = max(self._known.deadline - asyncio.get_running_loop().time(), 0.0)
        findings = await self._services.switchover.guardrails(self._known.pair, timeout_s=left_s)
        if findings:
            self._known.learn(failure=" ".join(map(str, findings)))
        elif self._services.policy.pinned_sessions is PinnedSessions.REFUSE:
            services = self._services
            report = await look_for_pins(
                services.router, services.servers, self._known.name, self._known.source.resource_id, budget_s=_LOOK_S
            )
            of_readers = await self._known.readers.look_for_pins(budget_s=_LOOK_S)
            self._know_pins({self._known.name: report.pinned, **of_readers})
        self._known.learn(checked=True)

    def _know_pins(self, pinned: Pins) -> None:
        self._known.timeline.pinned = dict(sum((Counter(each) for each in pinned.values()), Counter[str]()))
        self._known.learn(pinned=status_details.pinned_in_all(pinned))

    async def _prepare(self) -> None:
        await self._services.switchover.prepare(self._known.pair)
        self._known.learn(prepared=True)

    async def _ready_sessions(self) -> None:
        """Repeated before every attempt: clients have come since the last one."""
        self._known.learn(dialled=True)
        sessions = await self._services.router.sessions(self._known.name)
        verifiers = await self._services.switchover.login_verifiers(self._known.pair, sessions.usernames)
        helpers = await self._services.switchover.helpers(self._known.pair)
        report = await self._services.router.ready(
            self._known.name, self._services.servers.address(self._known.target.resource_id), verifiers, helpers
        )
        log.info("switchover.readied", sessions=report.sessions, dialled=report.dialled, pinned=report.pinned)
        self._know_pins({self._known.name: report.pinned, **await self._known.readers.ready()})
        self._known.learn(readied=True, ends_stragglers=self._ends_stragglers())

    def _ends_stragglers(self) -> bool:
        """Whether the policy is to end them, and there is no time for another attempt after this one."""
        policy = self._services.policy
        next_begins_at = asyncio.get_running_loop().time() + policy.pause_budget_s
        return policy.stragglers is Stragglers.CLOSE and next_begins_at > self._last_beginning()

    def _last_beginning(self) -> float:
        """When an attempt has to begin to be over by the deadline."""
        pause_s = self._services.policy.pause_budget_s + PAUSE_WORK_LIMIT_S
        return self._known.deadline - pause_s - self._known.timeline.longest_s(Step.READY_SESSIONS.value)

    # -- the pause

    async def _park(self, *, leave_stragglers: bool) -> None:
        policy = self._services.policy
        now = asyncio.get_running_loop().time()
        budget_s = min(policy.pause_budget_s, max(self._known.deadline - now, 0.0))
        self._known.pause_ends_at = now + policy.pause_budget_s + PAUSE_WORK_LIMIT_S
        self._known.timeline.begin_pause()

        async def park(name: str) -> Parked | ParkRefused:
            answer = await self._services.router.park(
                name,
                budget_s=budget_s,
                lease_s=self._known.lease.length_s(granted_within_s=budget_s),
                leave_stragglers=leave_stragglers,
            )
            if isinstance(answer, Parked):
                self._known.lease.keep(answer.generation)
            return answer

        readers = self._known.readers
        try:
            answers = await together([park(self._known.name), *map(park, readers.names)])
        except BaseException:
            # A park may have been granted without our hearing of it; clients shall not wait for its lease to end.
            await to_its_end(self._end_unheard_parks())
            raise
        if any(isinstance(answer, ParkRefused) for answer in answers):
            if readers.each:
                await to_its_end(self._end_unheard_parks())
            self._known.timeline.end_pause()
            await self._set_back_by_stragglers(answers)
            return
        parked, *others = [answer for answer in answers if isinstance(answer, Parked)]
        readers.hold(others)
        self._known.parked = parked
        self._known.timeline.stragglers = sum(answer.stragglers for answer in answers)
        self._known.learn(park=Park.HELD)

    async def _set_back_by_stragglers(self, answers: Sequence[Parked | ParkRefused]) -> None:
        count, busy_with = 0, []
        for (source, _), answer in zip(self._known.moving, answers, strict=True):
            if isinstance(answer, ParkRefused):
                count += answer.stragglers
                busy_with += await self._describe(source.resource_id, answer)
        budget_s = self._services.policy.pause_budget_s
        self._known.learn(setback=status_details.stragglers(count, budget_s, busy_with))

    async def _describe(self, resource_id: str, refused: ParkRefused) -> list[str]:
        """Everybody goes on already; who they are is worth a moment, and no failure."""
        pair = structs.replace(self._known.pair, source_resource_id=resource_id)
        try:
            async with asyncio.timeout(_LOOK_S):
                described = await self._services.switchover.describe_sessions(pair, refused.server_pids)
        except (VerdigrisError, TimeoutError) as error:
            log.warning("switchover.stragglers_not_described", reason=str(error))
            return []
        log.info("switchover.stragglers", sessions=described)
        return described

    async def _end_unheard_parks(self) -> None:
        await self._known.lease.let_go()
        await self._known.readers.abort_unheard()
        try:
            sessions = await self._services.router.sessions(self._known.name)
            if sessions.generation is not None:
                await self._services.router.abort(sessions.generation, admit=False)
        except VerdigrisError as error:
            log.warning("switchover.park_left_to_its_lease", reason=str(error))

    async def _close_source(self) -> None:
        # Known before it is true: what was half done has to be undone as well.
        self._known.learn(fenced=True)
        await self._services.router.hold(self._known.name)
        await self._services.switchover.close(self._known.pair)
        self._known.learn(closed=True)

    async def _fence_source(self) -> None:
        # Known before it is true: a fence that was half built has to be taken down as well.
        self._known.learn(fenced=True)
        await self._services.switchover.fence(self._known.pair, self._known.require_park().server_pids)
        self._known.learn(fence_complete=True)

    async def _catch_up(self) -> None:
        await self._services.switchover.catch_up(self._known.pair)
        self._known.learn(caught_up=True)

    async def _hand_over(self) -> None:
        readers, router = self._known.readers, self._services.router
        generations = (self._known.require_park().generation, *readers.require_parks())
        reports = await together(router.hand_over(generation) for generation in generations)
        carried = sum(report.carried for report in reports)
        names = (self._known.name, *readers.names)
        pinned = {name: report.pinned for name, report in zip(names, reports, strict=True)}
        log.info("switchover.handed_over", carried=carried, pinned=pinned)
        self._known.timeline.carried = carried
        self._know_pins(pinned)
        self._known.learn(handed_over=True)

    async def _commit_route(self) -> None:
        """The point of no return."""
        async with self._known.deciding, self._cluster_routing():
            if self._known.facts.failure is None:  # or it was cancelled a moment ago
                await self._commit()

    def _cluster_routing(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Nobody else leads a cluster's endpoints meanwhile."""
        is_of_cluster = self._known.deployment.cluster is not None
        return self._services.cluster_routing if is_of_cluster else contextlib.nullcontext()

    def _routes_after(self) -> list[Route]:
        services = self._services
        routes = routes_after_switchover(services, self._known.moving)
        with services.store.transaction() as tx:
            return routes + cluster_switchover.routes_after(tx, services.ports, self._known.deployment)

    async def _commit(self) -> None:
        """The router decides; whatever we do not hear from it, we ask for."""
        generation = self._known.require_park().generation
        try:
            await self._services.router.commit(
                generation,
                self._routes_after(),
                hold=self._known.pair.mode is ReplicationMode.PHYSICAL,
                leave_nobody=self._services.policy.pinned_sessions is not PinnedSessions.CLOSE,
                along=self._known.readers.require_parks(),
            )
        except ParkBroken:
            raise
        except BaseException:
            # It may have been committed all the same. ``abort`` settles it: the router refuses it after a commit, and
            # refuses a commit after it.
            await self._settled()
            if self._known.facts.route is Side.SOURCE:
                raise
        else:
            self._known.learn(route=Side.TARGET)

    async def _settled(self) -> None:
        """Whatever ends the attempt meanwhile, a deadline or a lease, must not leave the question open: the way back
        from a committed route would open blue to writes. The end of the control plane may, for the next one asks."""
        settling = asyncio.ensure_future(until_it_works("settle the commit", self._settle_commit))
        while not settling.done():
            try:
                await asyncio.shield(settling)
            except asyncio.CancelledError:
                if self._known.is_left:
                    raise

    async def _settle_commit(self) -> None:
        with contextlib.suppress(ParkBroken):  # committed, or already ended: the route tells which
            await self._services.router.abort(self._known.require_park().generation, admit=False)
        route = await self._known.observed_route()
        if route is Side.SOURCE:
            await self._known.readers.abort()
        self._known.learn(route=route, park=Park.NONE)

    # -- beyond the point of no return

    async def _open_target(self) -> None:
        if self._known.facts.released:
            with contextlib.suppress(VerdigrisError):  # a courtesy
                await self._services.router.answered(self._known.name)
        # A promotion is nothing that readers have to wait for.
        readers = [] if self._known.facts.released or not self._known.readers.each else [self._known.readers.release()]
        await together([self._services.switchover.open_target(self._known.pair), *readers])
        if self._known.facts.released:
            await self._services.router.admit(self._known.name)
        self._known.learn(target_open=True)

    async def _release(self) -> None:
        await self._known.lease.let_go()
        readers = self._known.readers
        await together([self._release_production(), *([readers.release()] if readers.each else [])])
        self._known.timeline.pin_late(self._late_pins + readers.late_pins)
        self._known.timeline.end_pause()
        self._known.learn(released=True)

    async def _release_production(self) -> None:
        if self._known.parked is None:
            return
        try:
            late_pins = await self._services.router.release(
                self._known.parked.generation, admit=self._known.facts.target_open
            )
            self._late_pins.update(late_pins)
        except ParkBroken:
            log.info("switchover.released_already", generation=self._known.parked.generation)

    async def _rename(self) -> None:
        """Names, ARNs and ports in the records become what the router has been doing since the commit."""
        sources = {source.resource_id for source, _ in self._known.moving}
        olds = [route for route in await self._services.router.routes() if route.backend.resource_id in sources]
        async with self._cluster_routing():
            await cluster_switchover.close_green(self._services, self._known.deployment)
            for _, target in self._known.moving:
                await self._services.router.remove_route(target.identifier)  # green's name of before
            self._known.records.rename(olds)
        self._known.learn(renamed=True)

    async def _retire_source(self) -> None:
        await cluster_switchover.open_both(self._services, self._known.deployment.identifier)
        await self._services.switchover.retire_source(self._known.pair)
        self._known.learn(source_retired=True)

    async def _complete(self) -> None:
        self._known.records.complete(self._known.timeline.record())
        self._known.ended = True

    # -- the way back

    async def _unfence_source(self) -> None:
        await self._services.switchover.unfence(self._known.pair)
        await self._services.router.admit(self._known.name)
        self._known.learn(fenced=False, closed=False, fence_complete=False, caught_up=False)

    async def _abort_park(self) -> None:
        await self._known.lease.let_go()
        await self._known.readers.abort()
        if self._known.parked is not None:
            try:
                await self._services.router.abort(self._known.parked.generation)
            except ParkBroken:
                log.info("switchover.park_ended_already", generation=self._known.parked.generation)
        self._known.parked = None
        self._known.timeline.end_pause()
        self._known.timeline.nobody_moved()
        self._known.learn(park=Park.NONE)

    async def _unready_sessions(self) -> None:
        await self._services.router.unready(self._known.name)
        await self._known.readers.unready()
        self._known.learn(dialled=False)

    async def _wait(self) -> None:
        """Between attempts, growing distance; what the last attempt had built is void."""
        await self._known.lease.let_go()
        reason = self._known.facts.setback or self._known.facts.pinned or "the router let the sessions go"
        pause_s = self._known.retry_s
        if self._services.policy.stragglers is Stragglers.CLOSE:
            # In time for a last attempt, which ends them.
            left_s = self._last_beginning() - asyncio.get_running_loop().time()
            pause_s = min(pause_s, left_s) if left_s > 0 else pause_s
        self._known.last_setback = reason
        self._known.timeline.set_back(reason)
        log.info("switchover.set_back", reason=reason, retry_s=pause_s)
        self._known.records.note_setback(reason)
        await asyncio.sleep(pause_s)
        self._known.retry_s = min(self._known.retry_s * 2, self._services.policy.retry_max_s)
        self._known.parked = None
        self._known.timeline.begin_attempt()
        self._known.learn(
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
        self._known.records.fail(
            self._known.facts.failure or self._known.facts.pinned or "", self._known.timeline.record()
        )
        self._known.ended = True
