"""Deployments of a primary with a read replica as scenarios."""

from collections.abc import Callable

from msgspec import structs

from tests.simulation.faults import Kind
from tests.simulation.records import (
    APP,
    APP_OLD,
    BLUE,
    BLUE_PORT,
    CLASS,
    DEPLOYMENT,
    GREEN,
    VERSIONS,
    deployment,
    plant_blue,
    plant_copy,
    plant_green,
    routes,
    server_routes,
    workflow,
    write,
)
from tests.simulation.scenario import After, Scenario, requirer
from tests.simulation.world import World
from verdigris.domain.model import BlueGreenDeployment, DBInstance, Member, ReplicaSpec
from verdigris.domain.statuses import (
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    TaskStatus,
    WorkflowKind,
)
from verdigris.workflows import arguments

TIMEOUT_S = 12
READER, COPY, GREEN_COPY = "reader", "db-COPY", "db-GREENCOPY"
READER_PORT, GREEN_COPY_PORT = 15410, 15411
READER_GREEN = "reader-green-x1y2z3"


def topology_deployment(
    mode: ReplicationMode, status: DeploymentStatus, members: tuple[Member, Member], done: TaskStatus
) -> BlueGreenDeployment:
    record = deployment(mode, status, members[0], done)
    spec = ReplicaSpec(instance_class=CLASS, parameter_group=record.target.parameter_group)
    return structs.replace(record, members=members, target=structs.replace(record.target, replicas={COPY: spec}))


# ------------------------------------------------------------------------------------------------------------ creation


def begin_creation(mode: ReplicationMode) -> Callable[[World], None]:
    def begin(world: World) -> None:
        version = VERSIONS[mode][0]
        blue = plant_blue(world, version)
        copy = plant_copy(world, COPY, BLUE, READER, READER_PORT, version)
        members = (
            Member(source_resource_id=BLUE, source_identifier=APP),
            Member(source_resource_id=COPY, source_identifier=READER),
        )
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_instance(copy)
            tx.put_deployment(topology_deployment(mode, DeploymentStatus.PROVISIONING, members, TaskStatus.PENDING))
            tx.put_workflow(workflow(WorkflowKind.CREATE_DEPLOYMENT, DEPLOYMENT))

    return begin


def ended_creation(world: World, after: After) -> None:
    require, found = requirer(world), after.deployment
    if found is None:
        world.violate("the deployment is gone")
        return
    if all(fault.kind is Kind.CRASH for fault, _, _ in world.struck):
        require(after.completed, "the death of a control plane made it fail")
    if not after.completed:
        require(found.status is DeploymentStatus.INVALID_CONFIGURATION, f"the status is {found.status}")
        require(all(each.target_resource_id is None for each in found.members), "a member has a green")
        require(set(world.servers) == {BLUE, COPY} == set(after.instances), "a green is left")
        require(set(server_routes(world)) == {APP, READER}, f"routes: {routes(world)}")
        require(world.servers[BLUE].slots == {COPY} == world.servers[BLUE].wal_limits, "something is left on blue")
        return
    require(found.status is DeploymentStatus.AVAILABLE, f"the status is {found.status}")
    require({each.status for each in found.members} == {MemberStatus.AVAILABLE}, "a member is not available")
    green, copy = (each.target_resource_id or "" for each in found.members)
    record, server = after.instances[copy], world.servers[copy]
    require(record.replica_of == green and record.status is InstanceStatus.AVAILABLE, f"the record is {record}")
    require(routes(world).get(record.identifier) == (copy, record.port), "it has no endpoint")
    require(server.standby and server.following and server.version == found.target.engine_version, "it does not follow")
    require(world.servers[green].slots == {copy}, "green keeps something else back")
    for each in (world.servers[green], server):
        each.receive(world.loop.time() + 1)
    require(server.rows == world.servers[green].rows, "it has other rows than green")


# ------------------------------------------------------------------------------------------------------------ deletion


def plant_topology(world: World, mode: ReplicationMode) -> tuple[list[DBInstance], tuple[Member, Member]]:
    """As ``create_deployment`` leaves it."""
    before, version = VERSIONS[mode]
    blue = plant_blue(world, before)
    copy = plant_copy(world, COPY, BLUE, READER, READER_PORT, before)
    green, primary = plant_green(world, mode)
    green_copy = plant_copy(world, GREEN_COPY, GREEN, READER_GREEN, GREEN_COPY_PORT, version)
    replica = Member(
        source_resource_id=COPY,
        source_identifier=READER,
        target_resource_id=GREEN_COPY,
        target_identifier=READER_GREEN,
        status=MemberStatus.AVAILABLE,
    )
    return [blue, copy, green, green_copy], (primary, replica)


def begin_deletion(mode: ReplicationMode, *, delete_target: bool) -> Callable[[World], None]:
    def begin(world: World) -> None:
        instances, members = plant_topology(world, mode)
        if not delete_target:
            world.pair = None  # green is set free: both may be written then
        with write(world) as tx:
            for each in instances:
                goes = delete_target and each.resource_id in (GREEN, GREEN_COPY)
                tx.put_instance(structs.replace(each, status=InstanceStatus.DELETING) if goes else each)
            tx.put_deployment(topology_deployment(mode, DeploymentStatus.DELETING, members, TaskStatus.COMPLETED))
            told = arguments.DeleteDeployment(delete_target=delete_target)
            tx.put_workflow(workflow(WorkflowKind.DELETE_DEPLOYMENT, DEPLOYMENT, told))

    return begin


def ended_deletion(*, set_free: bool) -> Callable[[World, After], None]:
    def ended(world: World, after: After) -> None:
        require = requirer(world)
        if after.deployment is not None:
            require(after.deployment.status is DeploymentStatus.INVALID_CONFIGURATION, "neither deleted nor failed")
            return
        require(world.servers[BLUE].slots == {COPY} == world.servers[BLUE].wal_limits, "something is left on blue")
        if not set_free:
            require(set(world.servers) == {BLUE, COPY} == set(after.instances), "a green is left")
            expected = {APP: (BLUE, BLUE_PORT), READER: (COPY, READER_PORT)}
            require(server_routes(world) == expected, f"routes: {routes(world)}")
        elif GREEN in world.servers:
            copy = world.servers[GREEN_COPY]
            require(not world.servers[GREEN].standby, "green is not free")
            require(copy.standby and copy.following and world.servers[GREEN].slots == {GREEN_COPY}, "nobody follows it")
            require(after.instances[GREEN_COPY].replica_of == GREEN, "its record says otherwise")

    return ended


# ---------------------------------------------------------------------------------------------------------- switchover


def begin_switchover(mode: ReplicationMode) -> Callable[[World], None]:
    def begin(world: World) -> None:
        instances, members = plant_topology(world, mode)
        with write(world) as tx:
            for each in instances:
                tx.put_instance(each)
            tx.put_deployment(
                topology_deployment(mode, DeploymentStatus.SWITCHOVER_IN_PROGRESS, members, TaskStatus.COMPLETED)
            )
            told = arguments.SwitchOver(timeout_s=TIMEOUT_S, accepted=world.since_boot())
            tx.put_workflow(workflow(WorkflowKind.SWITCH_OVER, DEPLOYMENT, told, timeout_s=TIMEOUT_S))

    return begin


def begin_late(world: World) -> None:
    """The last one of all lags behind green."""
    begin_switchover(ReplicationMode.LOGICAL)(world)

    def stall() -> None:
        world.servers[GREEN_COPY].stalled_until = world.loop.time() + 1.0

    world.in_world(0.03, stall)


def ended_switchover(world: World, after: After) -> None:
    require, found = requirer(world), after.deployment
    if found is None:
        world.violate("the deployment is gone")
        return
    for name in (APP, READER):
        endpoint = world.router.endpoint(name)
        require(endpoint is not None and endpoint.park is None, f"a park of {name} is left")
        waits = endpoint is not None and not (endpoint.admits and endpoint.target is None)
        require(not waits, f"{name} still waits for something")
    statuses = {each.status for each in found.members}
    if world.crossed:
        require(statuses == {MemberStatus.SWITCHOVER_COMPLETED}, f"the members are {statuses}")
        names = {resource_id: record.identifier for resource_id, record in after.instances.items()}
        expected = {BLUE: APP_OLD, GREEN: APP, COPY: f"{READER}-old1", GREEN_COPY: READER}
        require(names == expected, f"names: {names}")
        ports = {resource_id: after.instances[resource_id].port for resource_id in names}
        require((ports[GREEN], ports[GREEN_COPY]) == (BLUE_PORT, READER_PORT), f"ports: {ports}")
        endpoints = {names[resource_id]: (resource_id, ports[resource_id]) for resource_id in names}
        require(server_routes(world) == endpoints, f"routes: {routes(world)}")
        followed = {resource_id: after.instances[resource_id].replica_of for resource_id in (COPY, GREEN_COPY)}
        require(followed == {COPY: BLUE, GREEN_COPY: GREEN}, f"they follow {followed}")
        require(after.instances[GREEN_COPY].read_only, "a replica's record says that it can be written")
        require(world.servers[BLUE].slots == {COPY} == world.servers[BLUE].wal_limits, "blue keeps something else back")
        require(world.servers[GREEN].slots == {GREEN_COPY}, "green keeps something else back")
    else:
        require(statuses == {MemberStatus.SWITCHOVER_FAILED}, f"the members are {statuses}")
        require(routes(world) == after.before.routes, f"routes: {routes(world)}")
        require(after.instances == after.before.instances, "the records of instances are not as before")
    for copy in (world.servers[COPY], world.servers[GREEN_COPY]):
        require(copy.standby and copy.following and not copy.lost_stream, f"{copy.resource_id} does not follow")
    world.check_ledger("at the end")


TOPOLOGY_SCENARIOS: tuple[Scenario, ...] = (
    *(
        Scenario(
            name=f"switchover with a replica, {mode}",
            kind=WorkflowKind.SWITCH_OVER,
            begin=begin_switchover(mode),
            ended=ended_switchover,
            timeout_s=TIMEOUT_S,
        )
        for mode in ReplicationMode
    ),
    Scenario(
        name="switchover with a replica that is late",
        kind=WorkflowKind.SWITCH_OVER,
        begin=begin_late,
        ended=ended_switchover,
        timeout_s=TIMEOUT_S,
    ),
    *(
        Scenario(
            name=f"creation with a replica, {mode}",
            kind=WorkflowKind.CREATE_DEPLOYMENT,
            begin=begin_creation(mode),
            ended=ended_creation,
        )
        for mode in ReplicationMode
    ),
    *(
        Scenario(
            name=f"deletion, with a replica, {'with' if delete_target else 'without'} green",
            kind=WorkflowKind.DELETE_DEPLOYMENT,
            begin=begin_deletion(ReplicationMode.PHYSICAL, delete_target=delete_target),
            ended=ended_deletion(set_free=not delete_target),
        )
        for delete_target in (True, False)
    ),
)
