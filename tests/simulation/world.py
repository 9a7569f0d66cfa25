"""The simulated world: servers, a router and a store that live on, controllers that come and go, and clients that write
all the time. Every effect on it passes ``World.perform``, where faults strike and after which the promises are checked.
"""

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from tests.simulation.database import AnyStore, Database, GuardedStore, MemoryStore
from tests.simulation.faults import OF_STORE, Fault, Kind, Plan
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.router import ROUTER_BACK_AFTER_S, FakeSession, RouterHost
from tests.simulation.servers import Backend, Server
from verdigris.domain.errors import ControllerSuperseded, EngineError, VerdigrisError
from verdigris.domain.policy import SwitchoverPolicy
from verdigris.domain.ports import BackendAddress, Finding, SinceBoot, Transaction
from verdigris.router.endpoint import Endpoint
from verdigris.router.errors import RouterUnavailable
from verdigris.router.routes import Table
from verdigris.router.states import State
from verdigris.workflows.cancellation import TooLate

if TYPE_CHECKING:
    from tests.simulation.snapshots import Snapshot

T = TypeVar("T")

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
CONTROLLER_BACK_AFTER_S = 0.4
SERVER_BACK_AFTER_S = 0.3
PAUSE_S = 6.0  # longer than the lease
HANG_S = 33.0
STALL_S = 9.0
DISK_FULL_S = 3.0
TICK_S = 0.5
PATIENCE_S = 0.8
_SLOWEST_S = 0.003
# What lets clients in again: the router, and the lifting of the fence.
_OPENS = ("router.", "fence.")


class ControlPlaneDied(BaseException):
    """Not an Exception: nothing in the control plane may catch it and go on."""


class Controller(Process):
    """One control plane process, from its start to its death."""

    def __init__(self, world: "World", number: int) -> None:
        super().__init__(f"controller {number}")
        self.world = world
        self.epoch = 0
        self.dead = False
        self.wake: Callable[[], None] = lambda: None
        self.cancel: Callable[[], Awaitable[None]] | None = None  # once it serves
        self.since = 0.0
        self.down: set[str] = set()  # servers that it could not start
        self.untold: set[str] = set()  # servers that it has found running, and told nobody yet


class StoreGuard:
    """Faults around the commits of one controller."""

    def __init__(self, world: "World", controller: Controller) -> None:
        self._world = world
        self._controller = controller
        self._fault: Fault | None = None

    def enter(self) -> None:
        self._world._require_alive(self._controller)

    def step_begins(self, name: str) -> None:
        self._world.step = name

    def before_commit(self) -> None:
        self._fault = self._world._arrive(self._controller, "commit")
        if self._world.disk_full:
            raise OSError("database or disk is full")
        if self._fault is not None and not self._fault.after:
            self._strike(self._fault)

    def after_commit(self, tx: Transaction) -> None:
        self._world.clients_write()
        self._world.check()
        self._world.committed(tx)
        if self._fault is not None and self._fault.after:
            self._strike(self._fault)

    def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.ERROR:
                raise OSError("disk I/O error")
            case Kind.CRASH:
                self._world.kill(self._controller)
                raise ControlPlaneDied
            case Kind.DISK_FULL:
                self._world._befall(fault.kind)
                if not fault.after:
                    raise OSError("database or disk is full")
            case _:
                self._world.stop(self._controller, overtaken=fault.kind is Kind.STALE)


Serve = Callable[["World", Controller], Awaitable[None]]


class World:
    def __init__(
        self,
        *,
        serve: Serve,
        plan: Plan = (),
        seed: int = 0,
        policy: SwitchoverPolicy | None = None,
        traced: bool = False,
        open_store: Callable[[Database], AnyStore] = MemoryStore,
    ) -> None:
        self.loop = SimulatedLoop()
        self.rng = random.Random(seed)
        self.policy = policy or SwitchoverPolicy()
        self.trace: list[str] | None = [] if traced else None
        self.database = Database()
        self.open_store = open_store
        self.servers: dict[str, Server] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.router = RouterHost(self, Table())
        self.controllers: list[Controller] = []
        self.engine_epoch = 0  # that the servers' side has been told
        self.points: list[str] = []
        self.steps: list[str] = []  # what was being done at each point
        self.step = ""
        self.struck: list[tuple[Fault, str, str]] = []
        self.violation: str | None = None
        self.disk_full_until = 0.0
        self.back_at: dict[str, float] = {}  # when servers that had died were started again
        self.jump = timedelta()
        self.kept_sessions: set[Controller] = set()  # who has sessions open for the pause
        self.waits_since = 0.0
        self.hanging = 0  # calls that let clients in again and do not answer
        self.acknowledged: dict[int, str] = {}  # row -> where
        self.clients: list[FakeSession | None] = []
        self.pair: tuple[str, str] | None = None  # of which one may be written at a time
        self.endpoint_name = ""
        self.pinned = False  # one of the clients cannot be carried
        self.pins_hide = False  # until the handover
        self.stragglers = False  # the clients' transactions are long
        self.last_fault_at = 0.0
        self.findings: list[Finding] = []
        self.stale_until = 0.0
        self.crossed = False  # production's route leads to target
        self.cancelled = False  # so the operator was told
        self.too_late = False  # as well
        self.served_at = 0.0  # when a client could last write through the router
        self.ended = False
        self._outside = contextvars.copy_context()
        self._serve = serve
        self._plan = {fault.point: fault for fault in plan}

    # -- looking at it

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.loop.time()) + self.jump

    def since_boot(self) -> SinceBoot:
        return SinceBoot(boot="one", seconds=self.loop.time())

    def note(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.loop.time():9.4f}  {text}")

    def violate(self, text: str) -> None:
        if self.violation is None:
            self.violation = text
            self.note(f"VIOLATION: {text}")

    @property
    def disk_full(self) -> bool:
        return self.loop.time() < self.disk_full_until

    @property
    def controller(self) -> Controller | None:
        """The one that counts."""
        return self.controllers[-1] if self.controllers and not self.controllers[-1].dead else None

    def address(self, resource_id: str) -> BackendAddress:
        return BackendAddress(resource_id, f"/run/{resource_id}")

    @property
    def at_rest(self) -> bool:
        """Nothing that befell anybody still lasts."""
        controller = self.controller
        return (
            controller is not None
            and not any(other.paused for other in self.controllers)
            and self.router.up
            and not self.disk_full
            and all(server.running for server in self.servers.values() if server.wanted and server.data)
        )

    def excused(self, grace_s: float) -> bool:
        """Blue cannot be expected to serve: it, the router or the disk is only just back, or clients have lost their
        sessions and the control plane that has to lift the fence is not there."""
        since = self.loop.time() - grace_s
        controller = self.controller
        if (
            not self.router.up
            or self.router.up_since > since
            or not self.servers[self.pair[0] if self.pair else ""].running
            or self.back_at.get(self.pair[0] if self.pair else "", since) > since
            or self.disk_full_until > since
        ):
            return True
        if any(session is not None and session.open and session.state is State.PARKED for session in self.clients):
            return False  # a lease lets them go, whatever has become of everybody else
        return self.hanging > 0 or controller is None or controller.paused or controller.since > since

    # -- effects

    async def perform(
        self,
        controller: Controller,
        name: str,
        effect: Callable[[], Any],
        *,
        engine: bool = False,
        server: Server | None = None,
        bounded: float | None = None,
    ) -> Any:
        """One effect, with the fault that is planned for it. ``engine``: the servers' side checks the epoch;
        ``server``: it has to run; ``bounded``: how long a hang of it is waited for."""
        self._require_alive(controller)
        fault = self._arrive(controller, name)
        if fault is not None and not fault.after:
            await self._strike(fault, controller, name, bounded)
        await asyncio.sleep(self.rng.random() * _SLOWEST_S)
        self._require_alive(controller)
        if engine:
            if controller.epoch < self.engine_epoch:
                self.note(f"{controller} {name}: refused, epoch {controller.epoch} is past")
                raise ControllerSuperseded(f"epoch {controller.epoch} is over")
            if server is not None and not server.running:
                raise EngineError(f"{server.resource_id} is not running")
            if self.disk_full:
                raise EngineError("No space left on device")
        value = effect()
        if isawaitable(value):
            value = await value
            self._require_alive(controller)
        self.clients_write()
        self.check()
        if self.trace is not None:
            self.note(f"{controller} {name}")
        if fault is not None and fault.after:
            await self._strike(fault, controller, name, bounded)
        return value

    def _arrive(self, controller: Controller, name: str) -> Fault | None:
        point = len(self.points)
        self.points.append(name)
        self.steps.append(self.step)
        fault = self._plan.get(point)
        if fault is None:
            return None
        if name == "commit" and fault.kind not in OF_STORE:
            return None
        self.struck.append((fault, name, self.step))
        self.last_fault_at = self.loop.time()
        self.note(f"*** {fault}: {controller} {name}, in step {self.step or 'none'}")
        return fault

    def _require_alive(self, controller: Controller) -> None:
        if controller.dead:
            raise ControlPlaneDied

    # -- faults

    async def _hang(self, name: str, bounded: float | None) -> None:
        """``bounded``: what waits for this effect does so for a moment only and then goes on."""
        self.hanging += name.startswith(_OPENS)
        try:
            await asyncio.sleep(HANG_S if bounded is None else bounded)
        finally:
            self.hanging -= name.startswith(_OPENS)
        if bounded is None:
            raise self._planted(name)

    async def _strike(self, fault: Fault, controller: Controller, name: str, bounded: float | None = None) -> None:
        match fault.kind:
            case Kind.ERROR:
                raise self._planted(name)
            case Kind.HANG:
                await self._hang(name, bounded)
            case Kind.CRASH:
                self.kill(controller)
                raise ControlPlaneDied
            case Kind.STALE | Kind.PAUSE:
                self.stop(controller, overtaken=fault.kind is Kind.STALE)
                await asyncio.sleep(0)
            case _:
                self._befall(fault.kind)
                if fault.kind is Kind.CANCEL:  # while the call is still under way
                    await asyncio.sleep(self.rng.random() * _SLOWEST_S)

    def _planted(self, name: str) -> VerdigrisError:
        if name.startswith("router."):
            return RouterUnavailable(f"planted in {name}")
        return EngineError(f"planted in {name}")

    def _befall(self, kind: Kind) -> None:
        """What happens to others than the control plane."""
        source, target = (self.servers.get(resource_id) for resource_id in self.pair or ("", ""))
        match kind:
            case Kind.LEASE_LOST:
                self.router.lose_leases()
            case Kind.ROUTER_CRASH:
                self.router.crash()
                self.in_world(ROUTER_BACK_AFTER_S, self._router_back)
            case Kind.SOURCE_CRASH | Kind.TARGET_CRASH:
                server = source if kind is Kind.SOURCE_CRASH else target
                if server is not None:
                    server.crash()
                    self.in_world(SERVER_BACK_AFTER_S, self._mind_servers)
            case Kind.STALL:
                if target is not None:
                    target.stalled_until = self.loop.time() + STALL_S
            case Kind.DISK_FULL:
                self.disk_full_until = self.loop.time() + DISK_FULL_S
            case Kind.CLOCK_BACK:
                self.jump -= timedelta(hours=1)
            case Kind.CLOCK_ON:
                self.jump += timedelta(hours=1)
            case Kind.CANCEL:
                controller = self.controller
                if controller is not None and controller.cancel is not None:
                    self.loop.create_task(self._cancel(controller.cancel), context=controller.context)
            case _:
                raise AssertionError(kind)

    async def _cancel(self, cancel: Callable[[], Awaitable[None]]) -> None:
        try:
            await cancel()
        except TooLate as error:
            self.note(f"the operator is told: {error}")
            self.too_late = True
        except (VerdigrisError, OSError) as error:  # nothing was promised
            self.note(f"the operator is told: {error}")
        else:
            self.note("the operator is told that the switchover does not happen")
            self.cancelled = True
            if self.crossed:
                self.violate("the operator was told that the switchover does not happen, and it had")

    def in_world(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Outside all processes of it."""
        self.loop.call_later(delay_s, callback, context=self._outside)

    def _router_back(self) -> None:
        """Whoever runs as control plane looks after the router."""
        if self.router.up:
            return
        if self.controller is None or self.controller.paused:
            self.in_world(ROUTER_BACK_AFTER_S, self._router_back)
        else:
            self.note("the router is back")
            self.router.start()

    def _mind_servers(self) -> None:
        if self.controller is None or self.controller.paused:
            self.in_world(SERVER_BACK_AFTER_S, self._mind_servers)
            return
        for server in self.servers.values():
            if server.wanted and not server.running and server.data:
                self.note(f"{server.resource_id} is back")
                self.back_at[server.resource_id] = self.loop.time()
                server.start()

    def committed(self, tx: Transaction) -> None:
        """A controller has written its records: they have to make sense at any time."""

    # -- the store

    def store_of(self, controller: Controller) -> GuardedStore:
        return GuardedStore(self.open_store(self.database), StoreGuard(self, controller))

    # -- controllers

    def start_controller(self) -> None:
        controller = Controller(self, len(self.controllers) + 1)
        self.controllers.append(controller)
        controller.since = self.loop.time()
        self.note(f"{controller} starts")
        self.loop.create_task(self._run_controller(controller), context=controller.context)

    async def _run_controller(self, controller: Controller) -> None:
        try:
            await self._serve(self, controller)
        except Exception as error:
            self.note(f"{controller} ends: {error!r}")
        self.kill(controller)

    def kill(self, controller: Controller) -> None:
        """As by SIGKILL: what is left of its tasks runs to its end, to be nobody's, and can do nothing any more."""
        if controller.dead:
            return
        controller.dead = True
        self.note(f"{controller} is dead")
        self.loop.resume(controller)
        for task in controller.tasks:
            task.cancel()
        if controller is self.controllers[-1] and not self.ended:
            self.in_world(CONTROLLER_BACK_AFTER_S, self.start_controller)

    def stop(self, controller: Controller, *, overtaken: bool) -> None:
        """As by SIGSTOP, for a while."""
        controller.paused = True
        self.in_world(PAUSE_S, lambda: self._go_on(controller))
        if overtaken:
            self.in_world(0.05, self.start_controller)

    def _go_on(self, controller: Controller) -> None:
        if not controller.dead:
            self.last_fault_at = self.loop.time()
            self.note(f"{controller} goes on")
            self.loop.resume(controller)

    # -- clients

    def add_clients(self, endpoint_name: str, count: int = 3) -> None:
        self.endpoint_name = endpoint_name
        self.clients = [None] * count

    def stall(self, for_s: float) -> None:
        if self.pair is not None:
            self.servers[self.pair[1]].stalled_until = self.loop.time() + for_s

    def end_transactions(self) -> None:
        self.stragglers = False
        for session in self.clients:
            if session is not None and session.open and session.in_transaction:
                session.end_transaction()

    def end_pins(self) -> None:
        self.pinned = False
        for session in self.clients:
            if session is not None:
                session.cannot_be_carried = False

    def end_backend(self, backend: Backend) -> None:
        backend.alive = False

    def clients_write(self) -> None:
        """Everybody tries, by every way there is."""
        now = self.loop.time()
        for server in self.servers.values():
            if server.follows is not None:
                server.receive(now)
        if self.clients:
            self._write_through_router(now)
        for server in self.servers.values():
            direct = server.direct
            if direct is None or not direct.alive:
                try:
                    direct = server.direct = server.connect()
                except ConnectionError:
                    continue
            if server.takes_writes_of(direct) and not self.disk_full:
                self._commit(server, now)

    def _write_through_router(self, now: float) -> None:
        found = self.router.endpoint(self.endpoint_name)
        if found is None:
            return
        for n, session in enumerate(self.clients):
            if session is not None and session.open and session.server is not None and not session.server.alive:
                session.close()
            if session is None or not session.open:
                session = self.clients[n] = FakeSession(self, found)
                session.in_transaction = self.stragglers and n == 0
                session.cannot_be_carried = self.pinned and n == 0
            if n == len(self.clients) - 1:
                self._require_patience(session, found, now)
            if session.state is not State.FLOWING or session.in_transaction or session.server is None:
                continue
            server = self.servers.get(session.backend.resource_id)
            if server is None or self.disk_full:
                continue
            if server.takes_writes_of(session.server):
                self._commit(server, now)
                self.served_at = now
                if n == len(self.clients) - 1:
                    session.close()  # somebody who comes anew each time
            elif (
                server.running
                and session.server.alive
                and self.pair is not None
                and self.router.crashes == 0
                and not self.doubts_may_end
            ):
                # A router that was killed does not know that green is not open yet; this one was told to wait.
                self.violate(f"a client was let go on {server.resource_id}, which does not take its writes")

    def _require_patience(self, session: FakeSession, endpoint: Endpoint, now: float) -> None:
        """Undisturbed, nobody waits for a blue that is open."""
        if (
            session.state is not State.WAITING
            or self.struck
            or self.crossed
            or self.pair is None
            or self.servers[self.pair[0]].fence_seen
            or endpoint.park is not None
        ):
            self.waits_since = now
        elif now - self.waits_since > PATIENCE_S:
            self.violate("newcomers wait although blue is open")

    @property
    def doubts_may_end(self) -> bool:
        """The router lets newcomers through when it has not heard of the control plane for a minute."""
        return sum(fault.kind is Kind.HANG for fault, _, _ in self.struck) > 1

    def _commit(self, server: Server, now: float) -> None:
        row = server.commit(now)
        if self.pair is None:
            return
        source, target = self.pair
        if server.resource_id == (source if self.crossed else target):
            self.violate(f"{server.resource_id} was written {'after' if self.crossed else 'before'} the commit")
        if row in self.acknowledged:
            self.violate(f"row {row} was given out by {self.acknowledged[row]}, and again by {server.resource_id}")
        self.acknowledged[row] = server.resource_id

    # -- promises

    def check(self) -> None:
        if self.pair is None or self.crossed:
            return
        route = self.router.disk.table.named(self.endpoint_name)
        if route is None or route.backend.resource_id != self.pair[1]:
            return
        self.crossed = True
        self.note("the point of no return is passed")
        if self.cancelled:
            self.violate("the operator was told that the switchover does not happen")
        self.check_ledger("at the point of no return")
        self._check_readers()

    def _check_readers(self) -> None:
        """What could be read before can be read now: of what blue has acknowledged nothing is still on its way."""
        if self.pair is None:
            return
        source, target = self.pair
        seen = {row for row, where in self.acknowledged.items() if where == source}
        for server in self.servers.values():
            if server.follows is self.servers[target] and not seen <= set(server.rows):
                self.violate(f"whoever reads from {server.resource_id} goes back in time")

    def check_ledger(self, when: str) -> None:
        """All that was acknowledged is on the side that production uses, once, and would survive a crash of it."""
        if self.pair is None:
            return
        server = self.servers[self.pair[1 if self.crossed else 0]]
        present = server.rows[: server.durable]
        if len(present) != len(set(present)):
            self.violate(f"{when}: {server.resource_id} has rows twice")
        if missing := self.acknowledged.keys() - set(present):
            self.violate(f"{when}: {server.resource_id} lacks {len(missing)} acknowledged rows, from {min(missing)} on")
