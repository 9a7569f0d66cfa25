"""Replicas in the records: what is shown of them, what is done for them, and what a deleted source does to them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from tests.unit.stores import new_store
from tests.unit.workflows.world import SOURCE, TARGET, FixedClock, World, plant_records, services
from verdigris.domain.errors import ControllerSuperseded, EngineError
from verdigris.domain.model import DBInstance, Workflow
from verdigris.domain.ports import Replica, ReplicaState
from verdigris.domain.statuses import InstanceStatus, WorkflowKind, WorkflowStatus
from verdigris.store.sql_store import SqlStore
from verdigris.workflows import replica_keeper
from verdigris.workflows.protection import SourceProtection
from verdigris.workflows.replica_keeper import ReplicaKeeper
from verdigris.workflows.replication import record_freedom, release_replicas, set_replicas_free
from verdigris.workflows.services import Services

COPIES = ("db-COPY1", "db-COPY2")


class FakeReplicas:
    """``domain.ports.Replicas``, as far as it is used here: notes what is asked of it."""

    def __init__(self) -> None:
        self.state = ReplicaState(lag_bytes=0)
        self.calls: list[tuple[str, str]] = []
        self.errors: dict[tuple[str, str], Exception] = {}

    def _note(self, call: str, replica: Replica) -> None:
        assert replica.source_resource_id == SOURCE
        self.calls.append((call, replica.resource_id))
        error = self.errors.get((call, replica.resource_id))
        if error is not None:
            raise error

    async def look(self, replica: Replica) -> ReplicaState:
        self._note("look", replica)
        return self.state

    async def make_room(self, replica: Replica) -> bool:
        self._note("make_room", replica)
        return True

    async def protect_source(self, replica: Replica) -> None:
        self._note("protect_source", replica)

    async def catch_up(self, replica: Replica) -> None:
        self._note("catch_up", replica)

    async def promote(self, replica: Replica) -> None:
        self._note("promote", replica)

    async def set_free(self, replica: Replica) -> None:
        self._note("set_free", replica)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """Two replicas beside a source that is not a member of a deployment any more."""
    store = new_store(tmp_path / "state.db")
    workflow = plant_records(store)
    with store.transaction() as tx:
        tx.put_workflow(structs.replace(workflow, status=WorkflowStatus.COMPLETED))
        for deployment in tx.deployments():
            tx.delete_deployment(deployment.identifier)
        tx.delete_instance(TARGET)
        source = tx.instance(SOURCE)
        assert source is not None
        for number, resource_id in enumerate(COPIES):
            tx.put_instance(
                structs.replace(
                    source,
                    resource_id=resource_id,
                    identifier=resource_id.lower(),
                    port=15410 + number,
                    replica_of=SOURCE,
                    read_only=True,
                )
            )
    yield store
    store.close()


@pytest.fixture
def replicas() -> FakeReplicas:
    return FakeReplicas()


@pytest.fixture
def world(store: SqlStore, replicas: FakeReplicas) -> Services:
    return dataclasses.replace(services(World(), store), replicas=replicas)  # type: ignore[arg-type]  # all but create


def record(store: SqlStore, resource_id: str = COPIES[0]) -> DBInstance:
    with store.transaction() as tx:
        instance = tx.instance(resource_id)
    assert instance is not None
    return instance


def change(store: SqlStore, resource_id: str, status: InstanceStatus) -> None:
    changed = structs.replace(record(store, resource_id), status=status)
    with store.transaction() as tx:
        tx.put_instance(changed)


def told(store: SqlStore, resource_id: str = COPIES[0]) -> list[str]:
    now = FixedClock().now()
    with store.transaction() as tx:
        events = tx.events(since=now.replace(year=2000), until=now.replace(year=2100))
    return [event.event_id.removeprefix("RDS-EVENT-") for event in events if event.source_resource_id == resource_id]


class TestKeeper:
    async def test_trouble_is_shown_once_it_lasts(
        self, world: Services, store: SqlStore, replicas: FakeReplicas, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keeper = ReplicaKeeper(world)
        replicas.state = ReplicaState(trouble="it does not run")
        await keeper.look()
        assert record(store).replication_error == ""
        monkeypatch.setattr(replica_keeper, "GRACE_S", 0.0)
        for _ in range(2):
            await keeper.look()
            assert record(store).replication_error == "it does not run"
            assert told(store) == ["0045"]
        replicas.errors["look", COPIES[0]] = EngineError("it refuses")
        await keeper.look()
        assert record(store).replication_error == "it refuses"
        assert told(store) == ["0045"]
        replicas.errors.clear()
        replicas.state = ReplicaState(lag_bytes=0)
        await keeper.look()
        assert [record(store, copy).replication_error for copy in COPIES] == ["", ""]
        assert told(store) == ["0045", "0046"]

    async def test_one_without_room_is_given_it(self, world: Services, store: SqlStore, replicas: FakeReplicas) -> None:
        replicas.state = ReplicaState(lag_bytes=0, cramped=True)
        await ReplicaKeeper(world).look()
        assert ("make_room", COPIES[0]) in replicas.calls
        assert told(store) == ["0006"]

    async def test_those_in_a_workflows_hands_are_left_to_it(
        self, world: Services, store: SqlStore, replicas: FakeReplicas
    ) -> None:
        change(store, COPIES[0], InstanceStatus.MODIFYING)
        with store.transaction() as tx:
            tx.put_workflow(
                Workflow(
                    workflow_id="wf-2",
                    kind=WorkflowKind.PROMOTE_READ_REPLICA,
                    subject=COPIES[1],
                    started_at=FixedClock().now(),
                )
            )
        await ReplicaKeeper(world).look()
        assert replicas.calls == []


async def test_the_source_of_each_is_protected(world: Services, store: SqlStore, replicas: FakeReplicas) -> None:
    change(store, COPIES[0], InstanceStatus.CREATING)
    replicas.errors["protect_source", COPIES[0]] = EngineError("no answer")
    await SourceProtection(world).look()
    assert sorted(replicas.calls) == [("protect_source", copy) for copy in COPIES]


class TestADeletedSource:
    async def test_they_are_promoted_with_all_that_it_has(
        self, world: Services, store: SqlStore, replicas: FakeReplicas
    ) -> None:
        for copy in COPIES:
            change(store, copy, InstanceStatus.MODIFYING)
        await set_replicas_free(world, SOURCE)
        for copy in COPIES:
            assert [call for call, of in replicas.calls if of == copy] == ["catch_up", "promote"]
        with store.transaction() as tx:
            record_freedom(tx, world, SOURCE)
        for copy in COPIES:
            instance = record(store, copy)
            assert (instance.replica_of, instance.read_only, instance.status) == (None, False, "available")
            assert told(store, copy) == ["0044"]

    async def test_one_that_cannot_be_promoted_keeps_nobody_up(self, world: Services, replicas: FakeReplicas) -> None:
        for call in ("catch_up", "promote"):
            replicas.errors[call, COPIES[0]] = EngineError("it does not run")
        await set_replicas_free(world, SOURCE)
        assert [call for call, of in replicas.calls if of == COPIES[0]] == ["catch_up", "promote", "set_free"]
        assert ("promote", COPIES[1]) in replicas.calls

    @pytest.mark.parametrize("call", ["catch_up", "promote"])
    async def test_of_a_control_plane_that_is_over_they_are_left_alone(
        self, world: Services, replicas: FakeReplicas, call: str
    ) -> None:
        replicas.errors[call, COPIES[0]] = ControllerSuperseded("another one works")
        with pytest.raises(ControllerSuperseded):
            await set_replicas_free(world, SOURCE)
        assert ("set_free", COPIES[0]) not in replicas.calls

    async def test_of_a_failed_deletion_they_are_replicas_still(self, store: SqlStore) -> None:
        change(store, COPIES[0], InstanceStatus.MODIFYING)
        change(store, COPIES[1], InstanceStatus.FAILED)
        with store.transaction() as tx:
            release_replicas(tx, SOURCE)
        assert [(record(store, copy).status, record(store, copy).replica_of) for copy in COPIES] == [
            ("available", SOURCE),
            ("failed", SOURCE),
        ]
