"""The workflows of snapshots as scenarios."""

from collections.abc import Callable
from typing import Any

import msgspec

from tests.simulation.records import (
    APP,
    BLUE,
    BLUE_PORT,
    CLASS,
    instance,
    plant_blue,
    routes,
    workflow,
    write,
)
from tests.simulation.scenario import After, Scenario, requirer
from tests.simulation.snapshots import Snapshot
from tests.simulation.world import BEGINNING, World
from verdigris.domain.model import DBSnapshot
from verdigris.domain.statuses import InstanceStatus, SnapshotStatus, SnapshotType, WorkflowKind
from verdigris.workflows import arguments

SNAP, SNAP_COPY, OTHER, OTHER_PORT, VERSION = "snap-1", "snap-2", "db-OTHER", 15403, "17.9"
ROWS = [1, 2, 3]


# ----------------------------------------------------------------------------------------------------------- beginnings


def record(snapshot_id: str, status: SnapshotStatus, **changes: Any) -> DBSnapshot:
    made = DBSnapshot(
        snapshot_id=snapshot_id,
        identifier=f"name-of-{snapshot_id}",
        status=status,
        resource_id=BLUE,
        instance_identifier=APP,
        instance_created_at=BEGINNING,
        engine="postgres",
        engine_version=VERSION,
        instance_class=CLASS,
        master_username="master",
        port=BLUE_PORT,
        allocated_storage_gib=20,
        taken_at=None if status is SnapshotStatus.CREATING else BEGINNING,
    )
    return msgspec.structs.replace(made, **changes)


def begin_on_blue(
    kind: WorkflowKind, status: InstanceStatus, told: msgspec.Struct, *, running: bool = True
) -> Callable[[World], None]:
    """A snapshot is to be taken, and then perhaps something else done."""

    def begin(world: World) -> None:
        blue = plant_blue(world, VERSION, status=status)
        if not running:
            world.servers[BLUE].wanted = False
            world.servers[BLUE].stop()
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_snapshot(record(SNAP, SnapshotStatus.CREATING))
            tx.put_workflow(workflow(kind, BLUE, told))

    return begin


def plant_snapshot(world: World) -> None:
    world.snapshots[SNAP] = Snapshot(VERSION, "SCRAM OF THEN", ROWS.copy(), sequence=len(ROWS), complete=True)


def begin_copy(world: World) -> None:
    plant_snapshot(world)
    with write(world) as tx:
        tx.put_snapshot(record(SNAP, SnapshotStatus.AVAILABLE))
        tx.put_snapshot(record(SNAP_COPY, SnapshotStatus.CREATING, copy_of=SNAP))
        told = arguments.CopySnapshot(source_id=SNAP, region="us-east-1")
        tx.put_workflow(workflow(WorkflowKind.COPY_SNAPSHOT, SNAP_COPY, told))


def begin_deletion(world: World) -> None:
    plant_snapshot(world)
    with write(world) as tx:
        tx.put_snapshot(record(SNAP, SnapshotStatus.DELETING))
        tx.put_workflow(workflow(WorkflowKind.DELETE_SNAPSHOT, SNAP))


def begin_restoration(world: World) -> None:
    plant_snapshot(world)
    with write(world) as tx:
        tx.put_snapshot(record(SNAP, SnapshotStatus.AVAILABLE))
        tx.put_instance(instance(OTHER, "other", VERSION, OTHER_PORT, status=InstanceStatus.CREATING))
        told = arguments.RestoreInstance(snapshot_id=SNAP)
        tx.put_workflow(workflow(WorkflowKind.RESTORE_INSTANCE, OTHER, told))


def begin_instance_with_backups(world: World) -> None:
    new = instance(BLUE, APP, VERSION, BLUE_PORT, status=InstanceStatus.CREATING, settings=WITH_BACKUPS)
    with write(world) as tx:
        tx.put_instance(new)
        told = arguments.CreateInstance(master_password_verifier="SCRAM")
        tx.put_workflow(workflow(WorkflowKind.CREATE_INSTANCE, BLUE, told))


def begin_deletion_with_backups(world: World) -> None:
    """Of two, one is a manual one."""
    blue = plant_blue(world, VERSION, status=InstanceStatus.DELETING, settings=WITH_BACKUPS)
    plant_snapshot(world)
    world.snapshots[SNAP_COPY] = Snapshot(VERSION, "SCRAM OF THEN", ROWS.copy(), sequence=len(ROWS), complete=True)
    with write(world) as tx:
        tx.put_instance(blue)
        tx.put_snapshot(record(SNAP, SnapshotStatus.AVAILABLE, type=SnapshotType.AUTOMATED, begun_at=BEGINNING))
        tx.put_snapshot(record(SNAP_COPY, SnapshotStatus.AVAILABLE))
        tx.put_workflow(workflow(DELETE, BLUE, arguments.DeleteInstance()))


# ----------------------------------------------------------------------------------------------------------------- ends


def taken(world: World, after: After) -> bool:
    """Whether there is one; it is whole, or nothing of it is left."""
    require, found, snapshot = requirer(world), after.snapshots[SNAP], world.snapshots.get(SNAP)
    if found.status is SnapshotStatus.AVAILABLE:
        if snapshot is None or not snapshot.complete:
            world.violate("at the end: it is available, and not there")
            return True
        require(snapshot.rows == list(range(1, len(snapshot.rows) + 1)), "it is not of one moment")
        require(found.size_bytes == len(snapshot.rows) and found.taken_at is not None, f"its record is {found}")
        require(after.events.count("RDS-EVENT-0042") == 1, f"events: {after.events}")
    else:
        require(found.status is SnapshotStatus.FAILED, f"its status is {found.status}")
        require(snapshot is None, "something of it is left")
        require(after.events.count("RDS-EVENT-0044") >= 1, f"events: {after.events}")
    source = world.servers.get(BLUE)
    if source is not None:
        require(not source.slots and not source.wal_limits, "something of it is left on its server")
    return found.status is SnapshotStatus.AVAILABLE


def unharmed(world: World, after: After, status: InstanceStatus = InstanceStatus.AVAILABLE) -> None:
    require = requirer(world)
    require(after.instances[BLUE].status is status, f"the instance is {after.instances[BLUE].status}")
    require(routes(world) == {APP: (BLUE, BLUE_PORT)}, f"routes: {routes(world)}")
    running = world.servers[BLUE].running
    require(running is (status is not InstanceStatus.STOPPED), f"running: {running}")


def ended_taking(world: World, after: After) -> None:
    is_taken = taken(world, after)
    requirer(world)(is_taken or not after.completed, "it was completed without a snapshot")
    unharmed(world, after)


def ended_stop(world: World, after: After) -> None:
    is_taken = taken(world, after)
    requirer(world)(is_taken or not after.completed, "it was stopped without a snapshot")
    unharmed(world, after, InstanceStatus.STOPPED if after.completed else InstanceStatus.AVAILABLE)


def ended_instance_deletion(before: InstanceStatus) -> Callable[[World, After], None]:
    def ended(world: World, after: After) -> None:
        require, is_taken = requirer(world), taken(world, after)
        if not is_taken:
            require(not after.completed, "it was deleted without a snapshot")
            unharmed(world, after, before)
            return
        require(world.snapshots[SNAP].taken_at >= world.served_at, "clients were told of commits that are not in it")
        if after.completed:
            require(BLUE not in world.servers and BLUE not in after.instances, "something of the instance is left")
            require(not routes(world), f"routes: {routes(world)}")
        else:  # it can be asked for again, perhaps after its server has come up by itself
            require(after.instances[BLUE].status is not InstanceStatus.DELETING, "it is neither deleted nor failed")

    return ended


def ended_copy(world: World, after: After) -> None:
    require, copy = requirer(world), world.snapshots.get(SNAP_COPY)
    require(world.snapshots[SNAP].complete and world.snapshots[SNAP].rows == ROWS, "the first one is another")
    status = SnapshotStatus.AVAILABLE if after.completed else SnapshotStatus.FAILED
    require(after.snapshots[SNAP_COPY].status is status, f"its status is {after.snapshots[SNAP_COPY].status}")
    told = "RDS-EVENT-0197" if after.completed else "RDS-EVENT-0190"
    require(after.events == [told], f"events: {after.events}")
    if after.completed:
        require(copy is not None and copy.complete and copy.rows == ROWS, "it is not complete")
    else:
        require(copy is None, "something of it is left")


def ended_deletion(world: World, after: After) -> None:
    require = requirer(world)
    if after.completed:
        require(not world.snapshots and not after.snapshots, "something of it is left")
        require(after.events == ["RDS-EVENT-0041"], f"events: {after.events}")
    else:
        require(after.snapshots[SNAP].status is SnapshotStatus.FAILED, "it cannot be deleted again")


def ended_restoration(world: World, after: After) -> None:
    require, found, server = requirer(world), after.instances[OTHER], world.servers.get(OTHER)
    require(world.snapshots[SNAP].complete and world.snapshots[SNAP].rows == ROWS, "the snapshot is another")
    if not after.completed:
        require(found.status is InstanceStatus.FAILED and bool(found.status_reason), f"the status is {found.status}")
        require(server is None and not routes(world), "something of it is left")
        return
    require(found.status is InstanceStatus.AVAILABLE, f"the status is {found.status}")
    require(routes(world) == {"other": (OTHER, OTHER_PORT)}, f"routes: {routes(world)}")
    require(after.events.count("RDS-EVENT-0043") == 1, f"events: {after.events}")
    if server is None:
        world.violate("at the end: there is no server")
        return
    require(server.running and server.rows[: len(ROWS)] == ROWS, f"it has {server.rows}")
    require(server.password == "SCRAM OF THEN", "it has another password than then")


def ended_with_first_backup(world: World, after: After) -> None:
    """An instance that was told to have backups is never shown available without somebody having begun with one."""
    require, found = requirer(world), list(after.snapshots.values())
    if not after.completed:
        require(after.instances[BLUE].status is InstanceStatus.FAILED, "its creation has not failed")
        require(not found and not world.snapshots, "something of a backup is left")
        return
    unharmed(world, after)
    if len(found) != 1 or found[0].type is not SnapshotType.AUTOMATED:
        world.violate(f"at the end: its backups are {found}")
        return
    data = world.snapshots.get(found[0].snapshot_id)
    if found[0].status is SnapshotStatus.AVAILABLE:
        require(data is not None and data.complete, "its backup is available, and not there")
        require(after.events.count("RDS-EVENT-0091") == 1, f"events: {after.events}")
    else:
        require(found[0].status is SnapshotStatus.FAILED and data is None, f"its backup is {found[0].status}")
    require(not world.servers[BLUE].slots and not world.servers[BLUE].wal_limits, "something of it is left")


def ended_deletion_with_backups(world: World, after: After) -> None:
    require, left = requirer(world), after.snapshots.get(SNAP)
    require(world.snapshots[SNAP_COPY].complete, "the manual one is not whole")
    require(after.snapshots[SNAP_COPY].status is SnapshotStatus.AVAILABLE, "the manual one is not available")
    if after.completed:
        require(BLUE not in after.instances and BLUE not in world.servers, "something of the instance is left")
        if left is None:
            require(SNAP not in world.snapshots, "its files are left")
        else:  # it is tried again
            require(left.status is SnapshotStatus.FAILED, f"its backup is {left.status}")
    else:
        require(left is not None and left.status is SnapshotStatus.AVAILABLE, "its backup has gone before it")
        require(world.snapshots[SNAP].complete, "its backup is not whole any more")


WITH_BACKUPS = {"BackupRetentionPeriod": 1}
FINAL = arguments.DeleteInstance(final_snapshot=SNAP)
FINAL_OF_STOPPED = arguments.DeleteInstance(final_snapshot=SNAP, was_stopped=True)
DELETE, DELETING = WorkflowKind.DELETE_INSTANCE, InstanceStatus.DELETING

SNAPSHOT_SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="snapshot taken",
        kind=WorkflowKind.CREATE_SNAPSHOT,
        begin=begin_on_blue(
            WorkflowKind.CREATE_SNAPSHOT, InstanceStatus.BACKING_UP, arguments.CreateSnapshot(snapshot_id=SNAP)
        ),
        ended=ended_taking,
    ),
    Scenario(
        name="instance stopped after a snapshot",
        kind=WorkflowKind.STOP_INSTANCE,
        begin=begin_on_blue(
            WorkflowKind.STOP_INSTANCE, InstanceStatus.STOPPING, arguments.StopInstance(snapshot_id=SNAP)
        ),
        ended=ended_stop,
    ),
    Scenario(
        name="instance deleted with a final snapshot",
        kind=DELETE,
        begin=begin_on_blue(DELETE, DELETING, FINAL),
        ended=ended_instance_deletion(InstanceStatus.AVAILABLE),
    ),
    Scenario(
        name="stopped instance deleted with a final snapshot",
        kind=DELETE,
        begin=begin_on_blue(DELETE, DELETING, FINAL_OF_STOPPED, running=False),
        ended=ended_instance_deletion(InstanceStatus.STOPPED),
    ),
    Scenario(
        name="instance created with its first backup",
        kind=WorkflowKind.CREATE_INSTANCE,
        begin=begin_instance_with_backups,
        ended=ended_with_first_backup,
    ),
    Scenario(
        name="instance deleted with its backups",
        kind=DELETE,
        begin=begin_deletion_with_backups,
        ended=ended_deletion_with_backups,
    ),
    Scenario(
        name="snapshot copied",
        kind=WorkflowKind.COPY_SNAPSHOT,
        begin=begin_copy,
        ended=ended_copy,
    ),
    Scenario(
        name="snapshot deleted",
        kind=WorkflowKind.DELETE_SNAPSHOT,
        begin=begin_deletion,
        ended=ended_deletion,
    ),
    Scenario(
        name="instance restored",
        kind=WorkflowKind.RESTORE_INSTANCE,
        begin=begin_restoration,
        ended=ended_restoration,
    ),
)
