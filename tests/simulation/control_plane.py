"""The control plane of the simulated world: what ``app.ControlPlane`` puts together, over the world's ports."""

import asyncio
import contextlib
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager

from tests.simulation.engines import WorldGreen, WorldServers, WorldSwitchover
from tests.simulation.loop import PROCESS
from tests.simulation.records import DEPLOYMENT
from tests.simulation.replicas import WorldReplicas
from tests.simulation.router import WorldRouterClient
from tests.simulation.snapshots import WorldSnapshots
from tests.simulation.world import Controller, World
from verdigris.domain import switchover as planner
from verdigris.domain.errors import EngineError, PortInUse
from verdigris.domain.ports import Store
from verdigris.domain.switchover import Facts, Step
from verdigris.testing.fakes import FakeRandomText
from verdigris.workflows import switch_over
from verdigris.workflows.attendance import Attendance
from verdigris.workflows.cancellation import cancel_switchover
from verdigris.workflows.cluster_routes import ClusterKeeper
from verdigris.workflows.factories import factories
from verdigris.workflows.monitor import DeploymentMonitor
from verdigris.workflows.parameters import ParameterKeeper
from verdigris.workflows.runner import WorkflowRunner
from verdigris.workflows.services import Services

FIRST_PORT = 20000
TRIED_AGAIN_S = 0.5


@contextmanager
def observed_plans() -> Iterator[None]:
    """In here the world knows which steps of a switchover have been planned."""
    plan = planner.plan

    def observed(facts: Facts) -> tuple[Step, ...]:
        steps, process = plan(facts), PROCESS.get(None)
        if isinstance(process, Controller):
            process.world.step = " ".join(step.value for step in steps)
        return steps

    switch_over.plan = observed  # type: ignore[attr-defined]  # imported there by name
    try:
        yield
    finally:
        switch_over.plan = plan  # type: ignore[attr-defined]


class WorldClock:
    def __init__(self, world: World) -> None:
        self.now = world.now
        self.since_boot = world.since_boot


class WorldPorts:
    host = "127.0.0.1"
    reader_host: str | None = "127.0.0.2"
    custom_hosts: Sequence[str] = ("127.0.0.3", "127.0.0.4")
    count = 100

    def is_free(self, port: int, *, on_both: bool = False) -> bool:
        return True

    def allocate(self, taken: Container[int], *, on_both: bool = False) -> int:
        for port in range(FIRST_PORT, FIRST_PORT + self.count):
            if port not in taken:
                return port
        raise PortInUse("no port is free")


def services_of(world: World, controller: Controller, store: Store) -> Services:
    return Services(
        store=store,
        clock=WorldClock(world),
        servers=WorldServers(world, controller),
        ports=WorldPorts(),
        router=WorldRouterClient(world, controller),
        green=WorldGreen(world, controller),
        replicas=WorldReplicas(world, controller),
        snapshots=WorldSnapshots(world, controller),
        switchover=WorldSwitchover(world, controller),
        random_text=FakeRandomText(controller.epoch),
        policy=world.policy,
    )


async def serve(world: World, controller: Controller) -> None:
    """As ``app.serve_until_stopped``: take over, bring up, work."""
    store = world.store_of(controller)
    controller.epoch = store.raise_epoch()
    world.engine_epoch = max(world.engine_epoch, controller.epoch)
    if not world.router.up:
        world.router.start()
    services = services_of(world, controller, store)
    attendance = Attendance(services)
    await attendance.bring_up()
    runner = WorkflowRunner(services.store, factories(services))
    controller.wake = runner.wake
    controller.cancel = lambda: cancel_switchover(services, runner, DEPLOYMENT)
    await asyncio.gather(
        runner.run(),
        DeploymentMonitor(services).run(),
        ParameterKeeper(services).run(),
        ClusterKeeper(services).run(),
        supervise(controller, services, attendance),
    )


async def supervise(controller: Controller, services: Services, attendance: Attendance) -> None:
    """As ``engines.supervisor`` does: what could not be started is tried again, and told when it runs."""
    while True:
        await asyncio.sleep(TRIED_AGAIN_S)
        for resource_id in list(controller.down):
            with contextlib.suppress(EngineError):
                await services.servers.start(resource_id)
        for resource_id in list(controller.untold):
            with contextlib.suppress(OSError, EngineError):
                attendance.came_up(resource_id)
                controller.untold.remove(resource_id)
