"""A small world for switchovers: both sides, a router with a park, and a place to plant one fault.

Every call of a port passes ``World.act``, which counts the calls and makes the planted fault happen before or after the
call takes effect. After each effect the invariants are checked, so a fault shows where it does harm, not later.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum, auto

from msgspec import Struct, structs

from verdigris.domain.errors import EngineError, ParkBroken, SetBack
from verdigris.domain.model import BlueGreenDeployment, DBInstance, Member, TargetSpec, Task, Workflow
from verdigris.domain.policy import SwitchoverPolicy
from verdigris.domain.ports import (
    BackendAddress,
    Finding,
    HandoverReport,
    Helpers,
    Pair,
    Parked,
    ParkRefused,
    PinReport,
    ReadyReport,
    Route,
    RouterSessions,
    SinceBoot,
    TokenKeys,
)
from verdigris.domain.statuses import (
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    TaskName,
    TaskStatus,
    WorkflowKind,
)
from verdigris.store.sql_store import SqlStore
from verdigris.workflows.services import Services

SOURCE, TARGET, DEPLOYMENT = "db-SOURCE", "db-TARGET", "bgd-0123456789abcdef"


class Kind(Enum):
    ERROR = auto()  # the call fails
    CRASH = auto()  # the control plane dies; the router and the servers live on
    LEASE_LOST = auto()  # the router lets everyone go, then the call goes on
    CANCELLED = auto()  # the operator asks for it


class Fault(Struct, frozen=True):
    call: int | str  # its number, or the first of a name
    kind: Kind
    after: bool  # the call takes effect first


class ControlPlaneDied(BaseException):
    """Not an Exception: nothing in the control plane may catch it and go on."""


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def since_boot(self) -> SinceBoot:
        return SinceBoot(boot="this one", seconds=1000.0)


class World:
    def __init__(
        self,
        fault: Fault | None = None,
        *,
        stragglers: int = 0,
        findings: Sequence[Finding] = (),
        policy: SwitchoverPolicy | None = None,
        pins: Sequence[str] = (),
        hidden_pins: Sequence[str] = (),
        late_pins: Sequence[str] = (),
        refused_late: Sequence[str] = (),
        dies_when_cancelled: bool = False,
        late_definitions: int = 0,
        retry_s: float = 0.0,
    ) -> None:
        self.fault = fault
        # Set by whoever runs the switchover; what the operator was told; and whether that is the control plane's end.
        self.cancel: Callable[[], Coroutine[None, None, bool]] | None = None
        self.asked: asyncio.Task[bool] | None = None
        self.dies_when_cancelled = dies_when_cancelled
        self.policy = structs.replace(policy or SwitchoverPolicy(), retry_first_s=retry_s, retry_max_s=retry_s)
        # Reasons why sessions cannot be carried: those that any look shows, those that only the handover finds, and
        # those that come up between the handover and the commit.
        self.pins = list(pins)
        self.hidden_pins = list(hidden_pins)
        self.late_pins = list(late_pins)
        self.refused_late = list(refused_late)
        self.stragglers_left = 0  # in the park that is granted; the fence ends them
        self.closed: list[str] = []
        self.calls: list[str] = []
        self.late_definitions = late_definitions  # attempts before whose fence something is defined
        self.stragglers = stragglers  # attempts at parking that fail for them
        self.findings = list(findings)
        self.route_table = {
            "app": route("app", 15400, SOURCE),
            "app-green-x1y2z3": route("app-green-x1y2z3", 15401, TARGET),
        }
        self.generation: int | None = None
        self.last_generation = 0
        self.committed = False
        self.dialled = False
        self.holding = False  # newcomers wait in the router
        self.fenced = False
        self.caught_up = False
        self.target_open = False
        self.source_retired = False

    # -- faults and invariants

    async def act(self, name: str) -> "Effect":
        if self.dies_when_cancelled and self.asked is not None and self.asked.done():
            self.dies_when_cancelled = False
            raise ControlPlaneDied
        self.calls.append(name)
        is_it = (len(self.calls), name if self.calls.count(name) == 1 else None)
        fault = self.fault if self.fault is not None and self.fault.call in is_it else None
        if fault is not None and not fault.after:
            self._strike(fault)
        await asyncio.sleep(0)
        return Effect(self, fault)

    def _strike(self, fault: Fault) -> None:
        if fault.kind is Kind.LEASE_LOST:
            if self.generation is not None and not self.committed:
                self.generation = None
            return
        if fault.kind is Kind.CANCELLED:
            assert self.cancel is not None
            self.asked = asyncio.create_task(self.cancel())
            return
        raise ControlPlaneDied if fault.kind is Kind.CRASH else EngineError(f"planted in call {fault.call}")

    def check(self) -> None:
        leads_to = self.route_table["app"].backend.resource_id
        source_writable = leads_to == SOURCE and self.generation is None
        if self.target_open:
            assert leads_to == TARGET, "target was opened while the route leads to source"
            assert not source_writable
        if leads_to == TARGET:
            assert self.caught_up, "the route was committed before target had everything"
            assert self.fenced or self.source_retired, "source can be written beside target"


class Effect:
    """``async with``-less: call it once the state has been changed."""

    def __init__(self, world: World, fault: Fault | None) -> None:
        self._world = world
        self._fault = fault

    def done(self) -> None:
        self._world.check()
        if self._fault is not None and self._fault.after:
            self._world._strike(self._fault)


def route(name: str, port: int, resource_id: str) -> Route:
    return Route(name=name, host="127.0.0.1", port=port, backend=BackendAddress(resource_id, f"/run/{resource_id}"))


class WorldRouter:
    def __init__(self, world: World) -> None:
        self.world = world

    async def routes(self) -> list[Route]:
        (await self.world.act("routes")).done()
        return list(self.world.route_table.values())

    async def put_route(self, route: Route) -> None:
        self.world.route_table[route.name] = route

    async def set_token_keys(self, keys: TokenKeys) -> None:
        raise NotImplementedError

    async def remove_route(self, name: str) -> None:
        effect = await self.world.act("remove_route")
        self.world.route_table.pop(name, None)
        effect.done()

    async def rename_route(self, name: str, new_name: str) -> None:
        raise NotImplementedError

    async def disconnect(self, name: str) -> None:
        raise NotImplementedError

    async def sessions(self, name: str) -> RouterSessions:
        (await self.world.act("sessions")).done()
        return RouterSessions(
            usernames=("master",),
            sessions=2,
            active=1,
            generation=self.world.generation,
            committed=self.world.committed,
        )

    async def pins(self, name: str, verifiers: Mapping[str, str], *, budget_s: float) -> PinReport:
        (await self.world.act("pins")).done()
        return PinReport(sessions=2, pinned=Counter(self.world.pins))

    async def ready(
        self, name: str, target: BackendAddress, verifiers: Mapping[str, str], helpers: Helpers | None = None
    ) -> ReadyReport:
        effect = await self.world.act("ready")
        self.world.dialled = True
        effect.done()
        return ReadyReport(sessions=2, dialled=2, pinned=Counter(self.world.pins))

    async def park(
        self, name: str, *, budget_s: float, lease_s: float, leave_stragglers: bool = False
    ) -> Parked | ParkRefused:
        effect = await self.world.act("park")
        if self.world.stragglers > 0 and not leave_stragglers:
            self.world.stragglers -= 1
            effect.done()
            return ParkRefused(stragglers=1, waited_s=budget_s, server_pids=(4711,))
        assert self.world.generation is None
        self.world.last_generation += 1
        self.world.generation = self.world.last_generation
        self.world.stragglers_left = min(self.world.stragglers, 1)
        effect.done()
        return Parked(
            generation=self.world.last_generation,
            sessions=2,
            server_pids=(1, 2),
            waiting_clients=0,
            stragglers=self.world.stragglers_left,
        )

    def _held(self, generation: int) -> None:
        if self.world.generation != generation:
            raise ParkBroken(f"generation {generation} is over")

    async def renew(self, generation: int, *, lease_s: float) -> None:
        self._held(generation)

    async def hand_over(self, generation: int) -> HandoverReport:
        effect = await self.world.act("hand_over")
        self._held(generation)
        effect.done()
        pinned = Counter([*self.world.pins, *self.world.hidden_pins])
        return HandoverReport(carried=2 - pinned.total(), pinned=pinned)

    async def commit(
        self,
        generation: int,
        routes: Sequence[Route],
        *,
        hold: bool,
        leave_nobody: bool = False,
        along: Sequence[int] = (),
    ) -> None:
        effect = await self.world.act("commit")
        self._held(generation)
        assert not self.world.stragglers_left, "a straggler could still write to source"
        pins = [*self.world.pins, *self.world.hidden_pins, *self.world.late_pins]
        self.world.late_pins.clear()
        if leave_nobody and pins:
            raise ParkBroken("somebody would be left behind")
        self.world.closed += pins
        self.world.route_table.update({route.name: route for route in routes})
        self.world.committed = True
        effect.done()

    async def release(self, generation: int, *, admit: bool = True) -> Mapping[str, int]:
        effect = await self.world.act("release")
        self._held(generation)
        assert admit == self.world.target_open, "newcomers would find target read-only, or wait for nothing"
        self.world.generation = None
        self.world.holding = not admit
        effect.done()
        return Counter(self.world.refused_late)

    async def abort(self, generation: int, *, admit: bool = True) -> None:
        effect = await self.world.act("abort")
        self._held(generation)
        if self.world.committed:
            raise ParkBroken("committed")
        self.world.generation = None
        self.world.dialled = False
        self.world.holding = self.world.holding and not admit
        effect.done()

    async def hold(self, name: str) -> None:
        effect = await self.world.act("hold")
        self.world.holding = True
        effect.done()

    async def admit(self, name: str) -> None:
        effect = await self.world.act("admit")
        if not self.world.committed:
            assert not self.world.fenced, "newcomers would be refused"
        else:
            assert self.world.target_open, "newcomers would find target read-only"
        self.world.holding = False
        effect.done()

    async def answered(self, name: str) -> None:
        (await self.world.act("answered")).done()

    async def unready(self, name: str) -> None:
        effect = await self.world.act("unready")
        self.world.dialled = False
        self.world.holding = False
        effect.done()


class WorldEngine:
    def __init__(self, world: World) -> None:
        self.world = world

    async def guardrails(self, pair: Pair, *, timeout_s: float) -> list[Finding]:
        (await self.world.act("guardrails")).done()
        return self.world.findings

    async def login_verifiers(self, pair: Pair, usernames: Collection[str]) -> Mapping[str, str]:
        (await self.world.act("login_verifiers")).done()
        return {}

    async def helpers(self, pair: Pair) -> Helpers:
        (await self.world.act("helpers")).done()
        return Helpers(schema="ours", databases=("app",))

    async def prepare(self, pair: Pair) -> None:
        (await self.world.act("prepare")).done()

    async def stand_down(self, pair: Pair) -> None:
        pass

    async def describe_sessions(self, pair: Pair, server_pids: Collection[int]) -> list[str]:
        (await self.world.act("describe_sessions")).done()
        return [f"process {pid} (app@app) idle in transaction for 3.0 s" for pid in server_pids]

    async def close(self, pair: Pair) -> None:
        effect = await self.world.act("close")
        assert self.world.holding, "newcomers would be refused"
        self.world.fenced = True
        effect.done()

    async def fence(self, pair: Pair, keep: Collection[int]) -> None:
        effect = await self.world.act("fence")
        assert set(keep) == {1, 2}
        self.world.fenced = True
        self.world.closed += ["straggler"] * self.world.stragglers_left
        self.world.stragglers -= self.world.stragglers_left
        self.world.stragglers_left = 0
        effect.done()

    async def is_fenced(self, pair: Pair) -> bool:
        (await self.world.act("is_fenced")).done()
        return self.world.fenced

    async def unfence(self, pair: Pair) -> None:
        effect = await self.world.act("unfence")
        self.world.fenced = False
        self.world.caught_up = False  # source is written again
        effect.done()

    async def catch_up(self, pair: Pair) -> None:
        effect = await self.world.act("catch_up")
        assert self.world.fenced, "the marker proves nothing before the fence"
        if self.world.late_definitions:
            self.world.late_definitions -= 1
            raise SetBack("table late (created)")
        self.world.caught_up = True
        effect.done()

    async def open_target(self, pair: Pair) -> None:
        effect = await self.world.act("open_target")
        self.world.target_open = True
        effect.done()

    async def retire_source(self, pair: Pair) -> None:
        effect = await self.world.act("retire_source")
        self.world.source_retired = True
        self.world.fenced = False
        effect.done()


class WorldServers:
    """Of the servers a switchover only wants addresses, and passwords to dial with."""

    def address(self, resource_id: str) -> BackendAddress:
        return BackendAddress(resource_id, f"/run/{resource_id}")

    async def login_verifiers(self, resource_id: str, usernames: Collection[str]) -> Mapping[str, str]:
        return {}


class WorldPorts:
    host = "127.0.0.1"
    reader_host: str | None = "127.0.0.2"
    custom_hosts: Sequence[str] = ("127.0.0.3", "127.0.0.4")
    count = 1000

    def is_free(self, port: int, *, on_both: bool = False) -> bool:
        return True

    def allocate(self, taken: Container[int], *, on_both: bool = False) -> int:
        return next(port for port in range(15402, 15500) if port not in taken)


def services(world: World, store: SqlStore) -> Services:
    return Services(
        store=store,
        clock=FixedClock(),
        servers=WorldServers(),  # type: ignore[arg-type]  # no more is used here
        ports=WorldPorts(),
        router=WorldRouter(world),
        green=None,  # type: ignore[arg-type]  # a switchover does not build
        replicas=None,  # type: ignore[arg-type]  # nor has it any
        snapshots=None,  # type: ignore[arg-type]  # likewise
        switchover=WorldEngine(world),
        random_text=lambda alphabet, length: alphabet[0] * length,
        policy=world.policy,
    )


def plant_records(
    store: SqlStore, *, timeout_s: float = 300.0, mode: ReplicationMode = ReplicationMode.LOGICAL
) -> Workflow:
    now = FixedClock().now()
    source = DBInstance(
        resource_id=SOURCE,
        identifier="app",
        engine="postgres",
        engine_version="17.10",
        instance_class="db.t3.medium",
        status=InstanceStatus.AVAILABLE,
        master_username="master",
        port=15400,
        created_at=now,
        allocated_storage_gib=20,
        parameter_group="default.postgres17",
    )
    target = structs.replace(
        source,
        resource_id=TARGET,
        identifier="app-green-x1y2z3",
        engine_version="18.6",
        port=15401,
        parameter_group="default.postgres18",
        read_only=True,
    )
    workflow = Workflow(
        workflow_id="wf-1",
        kind=WorkflowKind.SWITCH_OVER,
        subject=DEPLOYMENT,
        arguments={"timeout_s": math.ceil(timeout_s)},
        started_at=now,
        deadline_at=now + timedelta(seconds=timeout_s),
    )
    with store.transaction() as tx:
        tx.put_instance(source)
        tx.put_instance(target)
        tx.put_deployment(
            BlueGreenDeployment(
                identifier=DEPLOYMENT,
                name="upgrade",
                mode=mode,
                target=TargetSpec(
                    engine_version="18.6",
                    instance_class="db.t3.medium",
                    parameter_group="default.postgres18",
                    allocated_storage_gib=20,
                ),
                status=DeploymentStatus.SWITCHOVER_IN_PROGRESS,
                members=(
                    Member(
                        source_resource_id=SOURCE,
                        source_identifier="app",
                        target_resource_id=TARGET,
                        target_identifier="app-green-x1y2z3",
                        status=MemberStatus.AVAILABLE,
                    ),
                ),
                tasks=(Task(TaskName.CREATING_READ_REPLICA_OF_SOURCE, TaskStatus.COMPLETED),),
                created_at=now,
            )
        )
        tx.put_workflow(workflow)
    return workflow
