"""A switchover in the small world: undisturbed, refused, set back, and with every single fault at every call."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workflows.world import (
    DEPLOYMENT,
    SOURCE,
    TARGET,
    ControlPlaneDied,
    Fault,
    Kind,
    World,
    plant_records,
    services,
)
from verdigris.domain.model import BlueGreenDeployment, DBInstance
from verdigris.domain.ports import Finding
from verdigris.domain.statuses import DeploymentStatus, MemberStatus, WorkflowStatus
from verdigris.store.sql_store import SqlStore, open_store
from verdigris.workflows.switch_over import SwitchOver

MAX_RESTARTS = 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = open_store(f"sqlite:///{tmp_path / 'state.db'}")
    yield store
    store.close()


async def switch_over(world: World, store: SqlStore, *, timeout_s: float = 300.0) -> None:
    """Run to the end; a control plane that dies is started again, as often as it takes."""
    plant_records(store, timeout_s=timeout_s)
    for _ in range(MAX_RESTARTS):
        with store.transaction() as tx:
            workflow = tx.workflow("wf-1")
        assert workflow is not None
        if workflow.status is not WorkflowStatus.RUNNING:
            return
        try:
            await SwitchOver(services(world, store), workflow).run()
        except ControlPlaneDied:
            continue
    raise AssertionError("the workflow did not end")


def records(store: SqlStore) -> tuple[BlueGreenDeployment, DBInstance, DBInstance]:
    with store.transaction() as tx:
        deployment, source, target = tx.deployment(DEPLOYMENT), tx.instance(SOURCE), tx.instance(TARGET)
    assert deployment is not None
    assert source is not None
    assert target is not None
    return deployment, source, target


def assert_completed(world: World, store: SqlStore) -> None:
    deployment, source, target = records(store)
    assert deployment.status is DeploymentStatus.SWITCHOVER_COMPLETED
    assert deployment.primary.status is MemberStatus.SWITCHOVER_COMPLETED
    assert (source.identifier, source.read_only) == ("app-old1", True)
    assert (target.identifier, target.port, target.read_only) == ("app", 15400, False)
    assert set(world.route_table) == {"app", "app-old1"}
    assert world.route_table["app"].backend.resource_id == TARGET
    assert world.route_table["app-old1"].port == source.port
    assert world.target_open
    assert world.source_retired
    assert world.generation is None


def assert_as_before(world: World, store: SqlStore) -> None:
    deployment, source, target = records(store)
    assert deployment.status is DeploymentStatus.SWITCHOVER_FAILED
    assert deployment.status_details
    assert (source.identifier, source.port, source.read_only) == ("app", 15400, False)
    assert (target.identifier, target.port, target.read_only) == ("app-green-x1y2z3", 15401, True)
    assert world.route_table["app"].backend.resource_id == SOURCE
    assert set(world.route_table) == {"app", "app-green-x1y2z3"}
    assert not world.fenced
    assert not world.dialled
    assert not world.target_open
    assert world.generation is None


async def test_undisturbed(store: SqlStore) -> None:
    world = World()
    await switch_over(world, store)
    assert_completed(world, store)


async def test_a_failed_guardrail_changes_nothing_and_is_named(store: SqlStore) -> None:
    world = World(findings=[Finding(guardrail="Replication lag", message="12 GB behind.")])
    await switch_over(world, store)
    assert_as_before(world, store)
    assert "Replication lag: 12 GB behind." in (records(store)[0].status_details or "")
    assert "park" not in world.calls


async def test_stragglers_set_an_attempt_back_and_it_is_repeated(store: SqlStore) -> None:
    world = World(stragglers=3)
    await switch_over(world, store)
    assert_completed(world, store)
    assert world.calls.count("park") == 4


async def test_stragglers_until_the_deadline_lead_back_and_are_named(store: SqlStore) -> None:
    world = World(stragglers=10**9)
    await switch_over(world, store, timeout_s=0.2)
    assert_as_before(world, store)
    assert "1 session did not end a transaction" in (records(store)[0].status_details or "")


async def test_a_deadline_that_has_passed_changes_nothing(store: SqlStore) -> None:
    world = World()
    await switch_over(world, store, timeout_s=0.0)
    assert_as_before(world, store)


async def test_every_single_fault_at_every_call(tmp_path: Path) -> None:
    """All or nothing, whatever goes wrong wherever; the world checks after each effect that only one side can write."""
    call, ends = 1, set()
    while True:
        reached = False
        for kind in Kind:
            for after in (False, True):
                store = open_store(f"sqlite:///{tmp_path / f'{call}-{kind.name}-{after}.db'}")
                world = World(Fault(call=call, kind=kind, after=after))
                await switch_over(world, store)
                if records(store)[0].status is DeploymentStatus.SWITCHOVER_COMPLETED:
                    assert_completed(world, store)
                    ends.add("completed")
                else:
                    assert_as_before(world, store)
                    ends.add("as before")
                reached = reached or len(world.calls) >= call
                store.close()
        if not reached:
            break
        call += 1
    assert call > 15
    assert ends == {"completed", "as before"}
