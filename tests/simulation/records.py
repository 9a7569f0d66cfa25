"""Records as the API's handlers write them, and the beginnings of every kind of workflow."""

from datetime import timedelta
from typing import Any

import msgspec

from tests.simulation.servers import Server
from tests.simulation.world import BEGINNING, World
from verdigris.domain.model import BlueGreenDeployment, DBInstance, Member, TargetSpec, Task, Workflow
from verdigris.domain.ports import NOWHERE, Route, Transaction
from verdigris.domain.statuses import (
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    TaskName,
    TaskStatus,
    WorkflowKind,
)

BLUE, GREEN, DEPLOYMENT, WORKFLOW = "db-BLUE", "db-GREEN", "bgd-0123456789abcdef", "wf-1"
APP, APP_GREEN, APP_OLD = "app", "app-green-x1y2z3", "app-old1"
BLUE_PORT, GREEN_PORT = 15400, 15401
ROWS = 5
VERSIONS = {ReplicationMode.LOGICAL: ("17.10", "18.6"), ReplicationMode.PHYSICAL: ("17.9", "17.10")}
CLASS = "db.t3.medium"


def instance(resource_id: str, identifier: str, version: str, port: int, **changes: Any) -> DBInstance:
    record = DBInstance(
        resource_id=resource_id,
        identifier=identifier,
        engine="postgres",
        engine_version=version,
        instance_class=CLASS,
        status=InstanceStatus.AVAILABLE,
        master_username="master",
        port=port,
        created_at=BEGINNING,
        allocated_storage_gib=20,
        parameter_group="default.postgres17",
    )
    return msgspec.structs.replace(record, **changes)


def deployment(
    mode: ReplicationMode, status: DeploymentStatus, member: Member, done: TaskStatus
) -> BlueGreenDeployment:
    return BlueGreenDeployment(
        identifier=DEPLOYMENT,
        name="upgrade",
        mode=mode,
        target=TargetSpec(
            engine_version=VERSIONS[mode][1],
            instance_class=CLASS,
            parameter_group="default.postgres18",
            allocated_storage_gib=20,
        ),
        status=status,
        members=(member,),
        tasks=tuple(Task(name, done) for name in TaskName),
        created_at=BEGINNING,
        deleted_at=BEGINNING if status is DeploymentStatus.DELETING else None,
    )


def workflow(
    kind: WorkflowKind,
    subject: str,
    arguments: msgspec.Struct | None = None,
    *,
    workflow_id: str = WORKFLOW,
    timeout_s: float | None = None,
) -> Workflow:
    return Workflow(
        workflow_id=workflow_id,
        kind=kind,
        subject=subject,
        arguments={} if arguments is None else msgspec.to_builtins(arguments),
        started_at=BEGINNING,
        deadline_at=None if timeout_s is None else BEGINNING + timedelta(seconds=timeout_s),
    )


def write(world: World) -> "Writing":
    return Writing(world)


class Writing:
    """A transaction of somebody whom no fault concerns."""

    def __init__(self, world: World) -> None:
        self._context = world.open_store(world.database).transaction()

    def __enter__(self) -> Transaction:
        return self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)


def plant_blue(world: World, version: str, **changes: Any) -> DBInstance:
    blue = Server(BLUE, version, CLASS)
    for _ in range(ROWS):
        world.acknowledged[blue.commit(0.0)] = BLUE
    world.servers[BLUE] = blue
    add_route(world, APP, BLUE_PORT, BLUE)
    world.add_clients(APP)
    return instance(BLUE, APP, version, BLUE_PORT, **changes)


def plant_green(world: World, mode: ReplicationMode) -> tuple[DBInstance, Member]:
    """As ``create_deployment`` leaves it."""
    blue, version = world.servers[BLUE], VERSIONS[mode][1]
    green = Server(GREEN, version, CLASS)
    green.rows, green.stamps, green.sequence = blue.rows.copy(), blue.stamps.copy(), blue.sequence
    green.applied = green.durable = len(green.rows)
    green.follows, green.slot = blue, DEPLOYMENT
    if mode is ReplicationMode.LOGICAL:
        green.subscription, green.subscribed = DEPLOYMENT, True
        green.read_only = green.read_only_on_disk = True
    else:
        green.standby = True
    blue.slots.add(DEPLOYMENT)
    blue.publications.add(DEPLOYMENT)
    blue.wal_limits.add(DEPLOYMENT)
    world.servers[GREEN] = green
    add_route(world, APP_GREEN, GREEN_PORT, GREEN)
    world.pair = (BLUE, GREEN)
    member = Member(
        source_resource_id=BLUE,
        source_identifier=APP,
        target_resource_id=GREEN,
        target_identifier=APP_GREEN,
        status=MemberStatus.AVAILABLE,
    )
    return instance(GREEN, APP_GREEN, version, GREEN_PORT, read_only=True), member


def plant_copy(world: World, resource_id: str, of: str, name: str, port: int, version: str) -> DBInstance:
    """A replica that follows."""
    source = world.servers[of]
    copy = Server(resource_id, version, CLASS)
    copy.rows, copy.stamps, copy.sequence = source.rows.copy(), source.stamps.copy(), source.sequence
    copy.applied = copy.durable = len(copy.rows)
    copy.follows, copy.slot, copy.standby = source, resource_id, True
    source.slots.add(resource_id)
    source.wal_limits.add(resource_id)
    world.servers[resource_id] = copy
    add_route(world, name, port, resource_id)
    return instance(resource_id, name, version, port, replica_of=of, read_only=True)


def add_route(world: World, name: str, port: int, resource_id: str) -> None:
    route = Route(name=name, host="127.0.0.1", port=port, backend=world.address(resource_id))
    world.router.disk.table = world.router.disk.table.with_routes(route)


def server_routes(world: World) -> dict[str, tuple[str, int]]:
    """Without those of clusters, which lead to others."""
    return {name: where for name, where in routes(world).items() if where[0] != NOWHERE.resource_id}


def routes(world: World) -> dict[str, tuple[str, int]]:
    return {route.name: (route.backend.resource_id, route.port) for route in world.router.disk.table.routes}
