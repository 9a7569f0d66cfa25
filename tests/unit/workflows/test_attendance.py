"""Records and servers brought into line at a start, and a server that is given up."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.unit.stores import new_store
from tests.unit.workflows.world import SOURCE, TARGET, World, WorldServers, plant_records, services
from verdigris.domain.errors import EngineError
from verdigris.domain.statuses import InstanceStatus, WorkflowStatus
from verdigris.store.sql_store import SqlStore
from verdigris.workflows.attendance import Attendance
from verdigris.workflows.services import Services


class StartableServers(WorldServers):
    def __init__(self) -> None:
        self.started: list[str] = []
        self.broken: set[str] = set()
        self.directories = [SOURCE, TARGET]

    def known(self) -> list[str]:
        return self.directories

    async def start(self, resource_id: str) -> None:
        if resource_id in self.broken:
            raise EngineError("its disk is gone")
        self.started.append(resource_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = new_store(tmp_path / "state.db")
    yield store
    store.close()


def with_servers(world: World, store: SqlStore, servers: StartableServers) -> Services:
    return dataclasses.replace(services(world, store), servers=servers)  # type: ignore[arg-type]  # start, known, address


def status_of(store: SqlStore, resource_id: str) -> tuple[InstanceStatus, str]:
    with store.transaction() as tx:
        instance = tx.instance(resource_id)
    assert instance is not None
    return instance.status, instance.status_reason


def end_workflow(store: SqlStore) -> None:
    with store.transaction() as tx:
        workflow = tx.workflow("wf-1")
        assert workflow is not None
        tx.put_workflow(structs.replace(workflow, status=WorkflowStatus.COMPLETED))


async def test_servers_are_started_and_lost_endpoints_opened(store: SqlStore) -> None:
    plant_records(store)
    end_workflow(store)
    world, servers = World(), StartableServers()
    del world.route_table["app-green-x1y2z3"]
    await Attendance(with_servers(world, store, servers)).bring_up()
    assert servers.started == [SOURCE, TARGET]
    assert set(world.route_table) == {"app", "app-green-x1y2z3"}


async def test_routes_of_a_running_switchover_are_left_to_it(store: SqlStore) -> None:
    plant_records(store)
    world, servers = World(), StartableServers()
    del world.route_table["app-green-x1y2z3"]
    await Attendance(with_servers(world, store, servers)).bring_up()
    assert servers.started == [SOURCE, TARGET]
    assert set(world.route_table) == {"app"}


async def test_an_instance_whose_creation_failed_is_left_alone(store: SqlStore) -> None:
    plant_records(store)
    end_workflow(store)
    servers = StartableServers()
    servers.directories = [SOURCE]
    await Attendance(with_servers(World(), store, servers)).bring_up()
    assert servers.started == [SOURCE]


@pytest.mark.parametrize("status", [InstanceStatus.STOPPING, InstanceStatus.STOPPED, InstanceStatus.STARTING])
async def test_a_stopped_one_stays_down_and_keeps_its_endpoint(store: SqlStore, status: InstanceStatus) -> None:
    plant_records(store)
    end_workflow(store)
    with store.transaction() as tx:
        instance = tx.instance(TARGET)
        assert instance is not None
        tx.put_instance(structs.replace(instance, status=status))
    world, servers = World(), StartableServers()
    del world.route_table["app-green-x1y2z3"]
    await Attendance(with_servers(world, store, servers)).bring_up()
    assert servers.started == [SOURCE]
    assert set(world.route_table) == {"app", "app-green-x1y2z3"}


async def test_one_server_that_does_not_come_up_keeps_no_other_down_and_is_shown(store: SqlStore) -> None:
    plant_records(store)
    end_workflow(store)
    servers = StartableServers()
    servers.broken = {SOURCE}
    attendance = Attendance(with_servers(World(), store, servers))
    await attendance.bring_up()
    assert servers.started == [TARGET]
    assert status_of(store, SOURCE) == (InstanceStatus.FAILED, "its disk is gone")
    attendance.came_up(SOURCE)
    assert status_of(store, SOURCE) == (InstanceStatus.AVAILABLE, "")


async def test_what_a_workflow_has_in_hand_is_not_overruled(store: SqlStore) -> None:
    plant_records(store)
    with store.transaction() as tx:
        instance = tx.instance(SOURCE)
        assert instance is not None
        tx.put_instance(structs.replace(instance, status=InstanceStatus.MODIFYING))
    Attendance(with_servers(World(), store, StartableServers())).gave_up(SOURCE, "too many deaths")
    assert status_of(store, SOURCE)[0] is InstanceStatus.MODIFYING


async def test_a_server_whose_creation_is_undone_stays_failed(store: SqlStore) -> None:
    """The undo is about to take it away, whoever finds it running."""
    plant_records(store)
    with store.transaction() as tx:
        instance, workflow = tx.instance(SOURCE), tx.workflow("wf-1")
        assert instance is not None
        assert workflow is not None
        tx.put_instance(structs.replace(instance, status=InstanceStatus.FAILED, status_reason="no endpoint"))
        tx.put_workflow(structs.replace(workflow, subject=SOURCE, status=WorkflowStatus.UNDOING))
    servers = StartableServers()
    attendance = Attendance(with_servers(World(), store, servers))
    await attendance.bring_up()
    attendance.came_up(SOURCE)
    assert servers.started == [TARGET]
    assert status_of(store, SOURCE) == (InstanceStatus.FAILED, "no endpoint")
