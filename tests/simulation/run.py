"""One run of a scenario: until everything has settled, with the promises checked all the way."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from msgspec import Struct

from tests.simulation.control_plane import serve
from tests.simulation.database import AnyStore, Database, MemoryStore
from tests.simulation.faults import Plan
from tests.simulation.loop import Deadlock
from tests.simulation.records import DEPLOYMENT, WORKFLOW, routes, write
from tests.simulation.scenario import After, Before, Scenario
from tests.simulation.world import BEGINNING, TICK_S, World
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.ports import Transaction

# The longest fault, the longest distance between two tries of an undo, and what has to be done then.
SETTLES_WITHIN_S = 200.0
# After its end, for what is on its way.
_AFTERMATH_S = 2.3
# Past the deadline blue has to serve within this.
GRACE_S = 1.0


class Result(Struct, frozen=True, kw_only=True):
    scenario: str
    plan: Plan
    seed: int
    violation: str | None
    outcome: str  # how the workflow ended
    points: list[str]
    steps: list[str]
    struck: int  # faults that took place
    settled_s: float  # after the last fault
    trace: list[str] | None


def simulate(
    scenario: Scenario,
    plan: Plan = (),
    seed: int = 0,
    *,
    traced: bool = False,
    open_store: Callable[[Database], AnyStore] = MemoryStore,
) -> Result:
    world = World(serve=serve, plan=plan, seed=seed, policy=scenario.policy, traced=traced, open_store=open_store)
    asyncio.set_event_loop(world.loop)
    return _Run(world, scenario, plan, seed).result()


class _Run:
    def __init__(self, world: World, scenario: Scenario, plan: Plan, seed: int) -> None:
        self.world = world
        self.scenario = scenario
        self.plan = plan
        self.seed = seed
        self.ends_at: float | None = None
        self.settled_s = 0.0
        self.outcome = "did not end"

    def result(self) -> Result:
        world, loop = self.world, self.world.loop
        asyncio._set_running_loop(None)
        loop.set_exception_handler(self._callback_failed)
        loop.call_soon(self._begin)
        try:
            loop.run_forever()
        except Deadlock:
            world.violate("nothing goes on any more")
        self._tidy()
        return Result(
            scenario=self.scenario.name,
            plan=self.plan,
            seed=self.seed,
            violation=world.violation,
            outcome=self.outcome,
            points=world.points,
            steps=world.steps,
            struck=len(world.struck),
            settled_s=self.settled_s,
            trace=world.trace,
        )

    def _callback_failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What tasks die of is their owners' business; a callback has nobody who would hear of it."""
        if "handle" in context:
            self.world.violate(f"a callback failed: {context.get('exception')!r}")

    def _begin(self) -> None:
        world = self.world
        self.scenario.begin(world)
        with write(world) as tx:
            instances = {found.resource_id: found for found in tx.instances()}
        self.before = Before(
            routes=routes(world),
            configurations={name: server.configuration() for name, server in world.servers.items()},
            instances=instances,
        )
        world.router.start()
        world.start_controller()
        if self.scenario.later is not None:
            at_s, act = self.scenario.later
            world.in_world(at_s, lambda: act(world))
        if self.scenario.timeout_s is not None:
            world.in_world(self.scenario.timeout_s + GRACE_S, self._deadline)
        world.in_world(TICK_S, self._tick)

    def _deadline(self) -> None:
        """Unless it went through: blue serves, as far as it is not the router or blue itself that is in trouble."""
        world, now = self.world, self.world.loop.time()
        if world.crossed:
            return
        world.clients_write()
        if world.served_at == now or world.excused(GRACE_S):
            return
        world.violate(f"{GRACE_S:g} s after the deadline no client can write to blue")

    def _tick(self) -> None:
        world, now = self.world, self.world.loop.time()
        world.clients_write()
        world.check()
        if world.violation is not None:
            world.loop.stop()
        elif self.ends_at is not None and now >= self.ends_at and self._is_settled() and self._is_minded():
            self._end()
        elif self.ends_at is None and self._is_settled():
            self.settled_s = now - world.last_fault_at  # 0 if that is yet to come, from the monitor's looks
            self.ends_at = now + _AFTERMATH_S
            world.in_world(TICK_S, self._tick)
        elif now > SETTLES_WITHIN_S + world.last_fault_at:
            world.violate("it did not settle")
            world.loop.stop()
        else:
            world.in_world(TICK_S, self._tick)

    def _is_settled(self) -> bool:
        world = self.world
        if not world.at_rest or (self.scenario.later is not None and world.loop.time() <= self.scenario.later[0]):
            return False
        with write(world) as tx:
            return not tx.unfinished_workflows()

    def _is_minded(self) -> bool:
        """No server waits to be tried again, or to be found running; but what has lost its data never will be."""
        controller, servers = self.world.controller, self.world.servers
        if controller is None or controller.paused:
            return True
        return not controller.untold and not any(name in servers and servers[name].data for name in controller.down)

    def _end(self) -> None:
        world = self.world
        try:
            with write(world) as tx:
                after = self._after(tx)
            self.outcome = after.workflow.status.value
            self.scenario.ended(world, after)
            if world.too_late and not world.crossed:
                world.violate("the operator was told that the switchover could not be cancelled any more")
            if world.controller in world.kept_sessions:
                world.violate("at the end: sessions are kept for a pause that is over")
        except (KeyError, VerdigrisError) as error:
            world.violate(f"at the end: {error!r}")
        world.loop.stop()

    def _after(self, tx: Transaction) -> After:
        workflow = tx.workflow(WORKFLOW)
        assert workflow is not None
        far = timedelta(days=30)
        return After(
            workflow=workflow,
            instances={found.resource_id: found for found in tx.instances()},
            snapshots={found.snapshot_id: found for found in tx.snapshots()},
            deployment=tx.deployment(DEPLOYMENT),
            events=[event.event_id for event in tx.events(since=BEGINNING - far, until=BEGINNING + far)],
            before=self.before,
        )

    def _tidy(self) -> None:
        """End whatever is left, so that no run leaves anything to the garbage collector of the next."""
        world, loop = self.world, self.world.loop
        world.ended = True
        for controller in world.controllers:
            world.kill(controller)
        world.router.end()
        for task in loop.tasks:
            task.cancel()
        loop.drain()
        loop.close()
