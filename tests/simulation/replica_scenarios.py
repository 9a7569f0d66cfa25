"""The workflows of read replicas as scenarios."""

from collections.abc import Callable

from msgspec import structs

from tests.simulation.records import APP, BLUE, BLUE_PORT, instance, plant_blue, plant_copy, routes, workflow, write
from tests.simulation.scenario import After, Scenario, requirer
from tests.simulation.world import World
from verdigris.domain.model import DBInstance
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.workflows import arguments

COPY, APP_COPY, COPY_PORT, VERSION = "db-COPY", "app-copy", 15402, "17.9"


# ----------------------------------------------------------------------------------------------------------- beginnings


def _copy_record(status: InstanceStatus) -> DBInstance:
    return instance(COPY, APP_COPY, VERSION, COPY_PORT, status=status, replica_of=BLUE, read_only=True)


def begin_creation(world: World) -> None:
    blue = plant_blue(world, VERSION)
    with write(world) as tx:
        tx.put_instance(blue)
        tx.put_instance(_copy_record(InstanceStatus.CREATING))
        tx.put_workflow(workflow(WorkflowKind.CREATE_READ_REPLICA, COPY, arguments.CreateReadReplica()))


def begin(kind: WorkflowKind, subject: str, status: InstanceStatus) -> Callable[[World], None]:
    """With a replica that follows; ``subject`` is in ``status``."""

    def begin(world: World) -> None:
        blue = plant_blue(world, VERSION)
        plant_copy(world, COPY, BLUE, APP_COPY, COPY_PORT, VERSION)
        held = status if subject == COPY else InstanceStatus.MODIFYING
        with write(world) as tx:
            tx.put_instance(structs.replace(blue, status=status) if subject == BLUE else blue)
            tx.put_instance(_copy_record(held))
            told = arguments.DeleteInstance(is_replica=subject == COPY, has_replicas=subject == BLUE)
            tx.put_workflow(workflow(kind, subject, told if kind is WorkflowKind.DELETE_INSTANCE else None))

    return begin


# ----------------------------------------------------------------------------------------------------------------- ends


def ended_creation(world: World, after: After) -> None:
    require, record, server = requirer(world), after.instances[COPY], world.servers.get(COPY)
    source = world.servers[BLUE]
    if not after.completed:
        require(record.status is InstanceStatus.FAILED and record.replica_of is None, f"its record is {record}")
        require(server is None and set(routes(world)) == {APP}, "something of it is left")
        require(not source.slots and not source.wal_limits, "something of it is left on its source")
        require(after.events.count("RDS-EVENT-0202") == 1, f"events: {after.events}")
        return
    require(record.status is InstanceStatus.AVAILABLE, f"the status is {record.status}")
    require(routes(world) == {APP: (BLUE, BLUE_PORT), APP_COPY: (COPY, COPY_PORT)}, f"routes: {routes(world)}")
    require(source.slots == {COPY} and source.wal_limits == {COPY}, "its source keeps something else for it")
    if server is None:
        world.violate("at the end: there is no server")
        return
    require(server.standby and server.following and not server.lost_stream, "it does not follow")
    server.receive(world.loop.time() + 1)
    require(server.rows == source.rows, "it has other rows than its source")


def ended_promotion(world: World, after: After) -> None:
    require, record, source = requirer(world), after.instances[COPY], world.servers[BLUE]
    if not after.completed:
        require(bool(record.status_reason), "there is no reason")
        return
    server = world.servers[COPY]
    require(record.replica_of is None and not record.read_only, f"its record is {record}")
    require(not server.standby and not server.following, "it follows still")
    require(not source.slots and not source.wal_limits, "something of it is left on its source")
    require(set(server.rows) <= set(source.rows), "it has rows that its source never had")


def ended_deletion(world: World, after: After) -> None:
    require = requirer(world)
    if after.completed:
        source = world.servers[BLUE]
        require(COPY not in world.servers and COPY not in after.instances, "something of it is left")
        require(set(routes(world)) == {APP}, f"routes: {routes(world)}")
        require(not source.slots and not source.wal_limits, "something of it is left on its source")


def ended_deletion_of_source(world: World, after: After) -> None:
    require, record = requirer(world), after.instances[COPY]
    require(record.status is not InstanceStatus.MODIFYING, "nobody may do anything with the replica")
    if not after.completed:
        return
    require(BLUE not in world.servers and BLUE not in after.instances, "something of the source is left")
    require(record.replica_of is None and not record.read_only, f"its record is {record}")
    require(not world.servers[COPY].standby, "it follows still")


REPLICA_SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="replica created",
        kind=WorkflowKind.CREATE_READ_REPLICA,
        begin=begin_creation,
        ended=ended_creation,
    ),
    Scenario(
        name="replica promoted",
        kind=WorkflowKind.PROMOTE_READ_REPLICA,
        begin=begin(WorkflowKind.PROMOTE_READ_REPLICA, COPY, InstanceStatus.MODIFYING),
        ended=ended_promotion,
    ),
    Scenario(
        name="replica deleted",
        kind=WorkflowKind.DELETE_INSTANCE,
        begin=begin(WorkflowKind.DELETE_INSTANCE, COPY, InstanceStatus.DELETING),
        ended=ended_deletion,
    ),
    Scenario(
        name="source of a replica deleted",
        kind=WorkflowKind.DELETE_INSTANCE,
        begin=begin(WorkflowKind.DELETE_INSTANCE, BLUE, InstanceStatus.DELETING),
        ended=ended_deletion_of_source,
    ),
)
