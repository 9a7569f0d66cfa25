"""Every kind of workflow as a scenario: how the world is before it, and what has to be true when it has ended."""

from collections.abc import Callable

from msgspec import structs

from tests.simulation.cluster_deployment_scenarios import CLUSTER_DEPLOYMENT_SCENARIOS
from tests.simulation.cluster_scenarios import CLUSTER_SCENARIOS
from tests.simulation.faults import Kind
from tests.simulation.records import (
    APP,
    APP_OLD,
    BLUE,
    BLUE_PORT,
    DEPLOYMENT,
    GREEN,
    VERSIONS,
    deployment,
    instance,
    plant_blue,
    plant_green,
    routes,
    workflow,
    write,
)
from tests.simulation.replica_scenarios import REPLICA_SCENARIOS
from tests.simulation.scenario import After, Scenario, requirer
from tests.simulation.snapshot_scenarios import SNAPSHOT_SCENARIOS
from tests.simulation.topology_scenarios import TOPOLOGY_SCENARIOS
from tests.simulation.world import World
from verdigris.domain.model import Member
from verdigris.domain.policy import PinnedSessions, Stragglers, SwitchoverPolicy
from verdigris.domain.ports import Finding
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
LOGICAL, PHYSICAL = ReplicationMode.LOGICAL, ReplicationMode.PHYSICAL


# ---------------------------------------------------------------------------------------------------------- switchover


def begin_switchover(mode: ReplicationMode) -> Callable[[World], None]:
    def begin(world: World) -> None:
        blue = plant_blue(world, VERSIONS[mode][0])
        green, member = plant_green(world, mode)
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_instance(green)
            tx.put_deployment(deployment(mode, DeploymentStatus.SWITCHOVER_IN_PROGRESS, member, TaskStatus.COMPLETED))
            told = arguments.SwitchOver(timeout_s=TIMEOUT_S, accepted=world.since_boot())
            tx.put_workflow(workflow(WorkflowKind.SWITCH_OVER, DEPLOYMENT, told, timeout_s=TIMEOUT_S))

    return begin


def ended_switchover(world: World, after: After) -> None:
    require, found = requirer(world), after.deployment
    if found is None:
        world.violate("the deployment is gone")
        return
    source, target = world.servers[BLUE], world.servers[GREEN]
    blue, green = after.instances[BLUE], after.instances[GREEN]
    endpoint = world.router.endpoint(APP)
    require(endpoint is not None and endpoint.park is None, "a park is left")
    require(endpoint is None or (endpoint.admits and endpoint.target is None), "the endpoint still waits for something")
    require(not source.fenced and not source.fenced_on_disk and not source.fence_seen, "the fence is left")
    starts = after.events.count("RDS-EVENT-0247")
    if world.crossed:
        require(found.status is DeploymentStatus.SWITCHOVER_COMPLETED, f"the status is {found.status}")
        require(found.primary.status is MemberStatus.SWITCHOVER_COMPLETED, "the member's status is another")
        require(after.completed, "the workflow is not completed")
        require(
            (blue.identifier, green.identifier, green.port) == (APP_OLD, APP, BLUE_PORT), "names were not exchanged"
        )
        require(blue.read_only and not green.read_only, "the records say another side is read-only")
        require(routes(world) == {APP: (GREEN, BLUE_PORT), APP_OLD: (BLUE, blue.port)}, f"routes: {routes(world)}")
        require(source.read_only and source.read_only_on_disk, "old blue can be written")
        require(not target.read_only and not target.standby and not target.read_only_on_disk, "green is read-only")
        left = source.slots | source.publications | source.wal_limits | target.publications
        require(not left and target.subscription is None, "something of the deployment is left")
        require((starts, after.events.count("RDS-EVENT-0248")) == (1, 1), f"events: {after.events}")
    else:
        expected = (DeploymentStatus.SWITCHOVER_FAILED, DeploymentStatus.INVALID_CONFIGURATION)
        require(found.status in expected, f"the status is {found.status}")
        require(bool(found.status_details), "there is no reason")
        require(found.primary.status is MemberStatus.SWITCHOVER_FAILED, "the member's status is another")
        require(not after.completed, "the workflow is completed")
        _as_before(world, after)
        require(target.following and not target.lost_stream, "green does not follow any more")
        require(starts <= 1 and after.events.count("RDS-EVENT-0249") == 1, f"events: {after.events}")
    world.check_ledger("at the end")


def _as_before(world: World, after: After) -> None:
    require = requirer(world)
    require(routes(world) == after.before.routes, f"routes: {routes(world)}")
    for resource_id, configuration in after.before.configurations.items():
        server = world.servers.get(resource_id)
        if server is None:
            world.violate(f"{resource_id} is gone")
            continue
        now = server.configuration()
        changed = {name: (configuration[name], now[name]) for name in now if now[name] != configuration[name]}
        require(not changed, f"{resource_id} is not as before: {changed}")
    require(after.instances == after.before.instances, "the records of instances are not as before")


def stragglers(world: World, *, until_s: float | None) -> None:
    """The clients are in transactions, for good or for a while."""
    world.stragglers = True
    if until_s is not None:
        world.in_world(until_s, world.end_transactions)


def with_stragglers(mode: ReplicationMode, until_s: float | None) -> Callable[[World], None]:
    def begin(world: World) -> None:
        begin_switchover(mode)(world)
        stragglers(world, until_s=until_s)

    return begin


def with_pins(*, until_s: float | None, hidden: bool) -> Callable[[World], None]:
    """One client's session cannot be carried, for good or for a while; if it is ``hidden``, the handover finds it."""

    def begin(world: World) -> None:
        begin_switchover(LOGICAL)(world)
        world.pinned, world.pins_hide = True, hidden
        if until_s is not None:
            world.in_world(until_s, world.end_pins)

    return begin


def begin_stalled(world: World) -> None:
    """Green stops following in the pause, for longer than the switchover may take."""
    begin_switchover(LOGICAL)(world)
    world.in_world(0.03, lambda: world.stall(60.0))


def begin_refused(world: World) -> None:
    begin_switchover(LOGICAL)(world)
    world.findings.append(Finding(guardrail="Replication lag", check="lag", message="12 GB behind."))


# ------------------------------------------------------------------------------------------------------------ creation


def begin_creation(mode: ReplicationMode) -> Callable[[World], None]:
    def begin(world: World) -> None:
        blue = plant_blue(world, VERSIONS[mode][0])
        member = Member(source_resource_id=BLUE, source_identifier=APP)
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_deployment(deployment(mode, DeploymentStatus.PROVISIONING, member, TaskStatus.PENDING))
            tx.put_workflow(workflow(WorkflowKind.CREATE_DEPLOYMENT, DEPLOYMENT))

    return begin


def ended_creation(world: World, after: After) -> None:
    require, found = requirer(world), after.deployment
    if found is None:
        world.violate("the deployment is gone")
        return
    if all(fault.kind is Kind.CRASH for fault, _, _ in world.struck):
        require(after.completed, "the death of a control plane made it fail")
    target_id = found.primary.target_resource_id
    if after.completed:
        require(found.status is DeploymentStatus.AVAILABLE, f"the status is {found.status}")
        target, record = world.servers.get(target_id or ""), after.instances.get(target_id or "")
        if target is None or record is None:
            world.violate("there is no green")
            return
        require(record.status is InstanceStatus.AVAILABLE and record.read_only, "green's record says otherwise")
        require(routes(world).get(record.identifier) == (target_id, record.port), "green has no endpoint")
        require(target.version == found.target.engine_version, "green has another version")
        require(target.running and target.following and not target.lost_stream, "green does not follow")
        require(target.read_only or target.standby, "green can be written")
        require(not target.strays and not target.publications, "something is left on green")
        target.receive(world.loop.time() + 1)
        require(target.rows == world.servers[BLUE].rows, "green has other rows than blue")
    else:
        require(found.status is DeploymentStatus.INVALID_CONFIGURATION, f"the status is {found.status}")
        require(bool(found.status_details), "there is no reason")
        require(target_id is None and set(world.servers) == {BLUE}, "a green is left")
        _as_before(world, after)
    created = after.events.count("RDS-EVENT-0244")
    failed = after.events.count("RDS-EVENT-0245")
    require((created, failed) == ((1, 0) if after.completed else (0, 1)), f"events: {after.events}")


# ------------------------------------------------------------------------------------------------------------ deletion


def begin_deletion(mode: ReplicationMode, *, delete_target: bool) -> Callable[[World], None]:
    def begin(world: World) -> None:
        blue = plant_blue(world, VERSIONS[mode][0])
        green, member = plant_green(world, mode)
        if delete_target:
            green = structs.replace(green, status=InstanceStatus.DELETING)
        else:
            world.pair = None  # green is set free: both may be written then
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_instance(green)
            tx.put_deployment(deployment(mode, DeploymentStatus.DELETING, member, TaskStatus.COMPLETED))
            told = arguments.DeleteDeployment(delete_target=delete_target)
            tx.put_workflow(workflow(WorkflowKind.DELETE_DEPLOYMENT, DEPLOYMENT, told))

    return begin


def delete_meanwhile(world: World) -> None:
    """The deployment is deleted while it is still being made."""
    with write(world) as tx:
        found = tx.deployment(DEPLOYMENT)
        if found is None:
            return
        tx.put_deployment(structs.replace(found, status=DeploymentStatus.DELETING, deleted_at=world.now()))
        told = arguments.DeleteDeployment(delete_target=False)
        tx.put_workflow(workflow(WorkflowKind.DELETE_DEPLOYMENT, DEPLOYMENT, told, workflow_id="wf-2"))
    if world.controller is not None:
        world.controller.wake()


def ended_deletion(*, set_free: bool) -> Callable[[World, After], None]:
    def ended(world: World, after: After) -> None:
        require = requirer(world)
        if after.deployment is not None:
            # It failed, says why, and can be asked for again. Nothing was undone, so there is nothing to compare.
            require(after.deployment.status is DeploymentStatus.INVALID_CONFIGURATION, "neither deleted nor failed")
            require(bool(after.deployment.status_details), "there is no reason")
            return
        source = world.servers[BLUE]
        left = source.slots | source.publications | source.wal_limits
        require(not left, f"left on blue: {left}")
        require(not source.fenced_on_disk and not source.read_only, "blue cannot be written")
        require(after.events.count("RDS-EVENT-0246") == 1, f"events: {after.events}")
        if set_free and GREEN in world.servers:
            target = world.servers[GREEN]
            require(not target.standby and not target.read_only and target.subscription is None, "green is not free")
            require(not after.instances[GREEN].read_only, "green's record says that it is read-only")
        if not set_free:
            require(set(world.servers) == {BLUE} and set(after.instances) == {BLUE}, "green is left")
            require(set(routes(world)) == {APP}, f"routes: {routes(world)}")

    return ended


# ----------------------------------------------------------------------------------------------------------- instances


def begin_instance(
    kind: WorkflowKind, status: InstanceStatus, told: arguments.ModifyInstance | None = None, *, running: bool = True
) -> Callable[[World], None]:
    def begin(world: World) -> None:
        blue = plant_blue(world, "17.9", status=status)
        if not running:
            world.servers[BLUE].wanted = False
            world.servers[BLUE].stop()
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_workflow(workflow(kind, BLUE, told))

    return begin


def begin_instance_creation(world: World) -> None:
    with write(world) as tx:
        tx.put_instance(instance(BLUE, APP, "17.9", BLUE_PORT, status=InstanceStatus.CREATING))
        told = arguments.CreateInstance(master_password_verifier="SCRAM")
        tx.put_workflow(workflow(WorkflowKind.CREATE_INSTANCE, BLUE, told))


def begin_member_deletion(world: World) -> None:
    """Green is deleted on its own, and its deployment then misses it."""
    blue = plant_blue(world, VERSIONS[LOGICAL][0])
    green, member = plant_green(world, LOGICAL)
    with write(world) as tx:
        tx.put_instance(blue)
        tx.put_instance(structs.replace(green, status=InstanceStatus.DELETING))
        tx.put_deployment(deployment(LOGICAL, DeploymentStatus.AVAILABLE, member, TaskStatus.COMPLETED))
        tx.put_workflow(workflow(WorkflowKind.DELETE_INSTANCE, GREEN))


def ended_member_deletion(world: World, after: After) -> None:
    require, found = requirer(world), after.deployment
    source = world.servers[BLUE]
    given_up = GREEN in after.instances and after.instances[GREEN].status is InstanceStatus.FAILED
    well = given_up or (GREEN in world.servers and world.servers[GREEN].following and DEPLOYMENT in source.slots)
    require(
        well or (found is not None and found.status is DeploymentStatus.INVALID_CONFIGURATION),
        "the deployment looks well, and is not",
    )
    if after.completed:
        require(GREEN not in world.servers and GREEN not in after.instances, "green is left")
        require(not (source.slots | source.publications | source.wal_limits), "something is left on blue")
        require(found is not None and found.primary.status is MemberStatus.MISSING_TARGET, "the member is not missed")


def ended_instance(world: World, after: After) -> None:
    """Record, server and endpoint agree, whichever way it ended."""
    require, record = requirer(world), after.instances.get(BLUE)
    kind, server = after.workflow.kind, world.servers.get(BLUE)
    if kind is WorkflowKind.DELETE_INSTANCE and after.completed:
        require(record is None and server is None and not routes(world), "something of the instance is left")
        return
    if record is None:
        world.violate("the record is gone")
        return
    stopped = kind is WorkflowKind.STOP_INSTANCE and after.completed
    if after.completed:
        status = InstanceStatus.STOPPED if stopped else InstanceStatus.AVAILABLE
        require(record.status is status, f"the status is {record.status}")
    elif kind is WorkflowKind.CREATE_INSTANCE:
        require(record.status is InstanceStatus.FAILED and bool(record.status_reason), f"the status is {record.status}")
        require(server is None and not routes(world), "something of a failed creation is left")
        return
    else:
        # A server that could not be started and came up later takes the reason back; the event stays.
        require(bool(record.status_reason) or "RDS-EVENT-0031" in after.events, "there is no reason")
        if kind is WorkflowKind.DELETE_INSTANCE or record.status is InstanceStatus.FAILED:
            return  # what is gone is gone, and it can be asked for again
    if server is None:
        world.violate("the server is gone")
        return
    require(routes(world) == {record.identifier: (BLUE, record.port)}, f"routes: {routes(world)}")
    if kind is WorkflowKind.MODIFY_INSTANCE and after.completed:
        require(record.port == MOVED_PORT, f"its port is {record.port}")
    require(server.version == record.engine_version, f"its version is {server.version}")
    require(server.running != stopped, f"it {'runs' if stopped else 'does not run'}")
    require(server.class_in_use == record.instance_class, f"its class is {server.class_in_use}")


MOVED_PORT = 25001
MODIFICATION = arguments.ModifyInstance(
    new_identifier="app2",
    master_password_verifier="SCRAM2",
    engine_version="17.10",
    instance_class="db.t3.large",
    port=MOVED_PORT,
)

CLOSE_STRAGGLERS = SwitchoverPolicy(stragglers=Stragglers.CLOSE)
REFUSE_PINS = SwitchoverPolicy(pinned_sessions=PinnedSessions.REFUSE)
WAIT_FOR_PINS = SwitchoverPolicy(pinned_sessions=PinnedSessions.WAIT)


def _switchover(name: str, begin: Callable[[World], None], policy: SwitchoverPolicy | None = None) -> Scenario:
    return Scenario(
        name=name,
        kind=WorkflowKind.SWITCH_OVER,
        begin=begin,
        ended=ended_switchover,
        policy=policy or SwitchoverPolicy(),
        timeout_s=TIMEOUT_S,
    )


SCENARIOS: tuple[Scenario, ...] = (
    _switchover("switchover, logical", begin_switchover(LOGICAL)),
    _switchover("switchover, physical", begin_switchover(PHYSICAL)),
    _switchover("switchover, set back by stragglers", with_stragglers(LOGICAL, 3.0)),
    _switchover("switchover, stragglers to the end", with_stragglers(PHYSICAL, None)),
    _switchover("switchover, stragglers closed", with_stragglers(LOGICAL, None), CLOSE_STRAGGLERS),
    _switchover("switchover, replication stalled", begin_stalled),
    _switchover("switchover, refused by a guardrail", begin_refused, REFUSE_PINS),
    _switchover("switchover, pinned session closed", with_pins(until_s=None, hidden=False)),
    _switchover("switchover, pinned session waited for", with_pins(until_s=3.0, hidden=True), WAIT_FOR_PINS),
    _switchover("switchover, refused for a pinned session", with_pins(until_s=None, hidden=True), REFUSE_PINS),
    *(
        Scenario(
            name=f"creation, {mode}",
            kind=WorkflowKind.CREATE_DEPLOYMENT,
            begin=begin_creation(mode),
            ended=ended_creation,
        )
        for mode in ReplicationMode
    ),
    *(
        Scenario(
            name=f"deletion, {mode}, {'with' if delete_target else 'without'} green",
            kind=WorkflowKind.DELETE_DEPLOYMENT,
            begin=begin_deletion(mode, delete_target=delete_target),
            ended=ended_deletion(set_free=not delete_target),
        )
        for mode in ReplicationMode
        for delete_target in (True, False)
    ),
    *(
        Scenario(
            name=f"deletion during creation, {at_s} s",
            kind=WorkflowKind.DELETE_DEPLOYMENT,
            begin=begin_creation(LOGICAL),
            ended=ended_deletion(set_free=False),
            later=(at_s, delete_meanwhile),
        )
        for at_s in (0.05, 0.2, 0.35)
    ),
    Scenario(
        name="instance created",
        kind=WorkflowKind.CREATE_INSTANCE,
        begin=begin_instance_creation,
        ended=ended_instance,
    ),
    Scenario(
        name="instance modified",
        kind=WorkflowKind.MODIFY_INSTANCE,
        begin=begin_instance(WorkflowKind.MODIFY_INSTANCE, InstanceStatus.UPGRADING, MODIFICATION),
        ended=ended_instance,
    ),
    Scenario(
        name="instance rebooted",
        kind=WorkflowKind.REBOOT_INSTANCE,
        begin=begin_instance(WorkflowKind.REBOOT_INSTANCE, InstanceStatus.REBOOTING),
        ended=ended_instance,
    ),
    Scenario(
        name="instance stopped",
        kind=WorkflowKind.STOP_INSTANCE,
        begin=begin_instance(WorkflowKind.STOP_INSTANCE, InstanceStatus.STOPPING),
        ended=ended_instance,
    ),
    Scenario(
        name="instance started",
        kind=WorkflowKind.START_INSTANCE,
        begin=begin_instance(WorkflowKind.START_INSTANCE, InstanceStatus.STARTING, running=False),
        ended=ended_instance,
    ),
    Scenario(
        name="instance deleted",
        kind=WorkflowKind.DELETE_INSTANCE,
        begin=begin_instance(WorkflowKind.DELETE_INSTANCE, InstanceStatus.DELETING),
        ended=ended_instance,
    ),
    Scenario(
        name="green deleted on its own",
        kind=WorkflowKind.DELETE_INSTANCE,
        begin=begin_member_deletion,
        ended=ended_member_deletion,
    ),
    *REPLICA_SCENARIOS,
    *TOPOLOGY_SCENARIOS,
    *CLUSTER_SCENARIOS,
    *CLUSTER_DEPLOYMENT_SCENARIOS,
    *SNAPSHOT_SCENARIOS,
)
