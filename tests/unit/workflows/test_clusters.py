"""Clusters in the records and in the router: where their endpoints lead, and what their workflows leave."""

import asyncio
import dataclasses
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct, structs

from tests.conftest import until
from tests.unit.stores import new_store
from tests.unit.workflows.world import World, WorldRouter, services
from verdigris.domain.errors import PortInUse, StepFailed
from verdigris.domain.model import DBCluster, DBClusterEndpoint, DBInstance, Workflow
from verdigris.domain.ports import Branches, Route
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    CustomEndpointType,
    InstanceStatus,
    WorkflowKind,
    WorkflowStatus,
)
from verdigris.store.sql_store import SqlStore
from verdigris.workflows import arguments
from verdigris.workflows.cluster_members import others_gone, source_available
from verdigris.workflows.cluster_routes import ClusterKeeper, cluster_routes, lead
from verdigris.workflows.factories import factories
from verdigris.workflows.services import Services

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHOP = "cluster-SHOP"
PORT = 15450


class CrampedRouter(WorldRouter):
    """Some ports are another program's."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.taken: set[tuple[str, int]] = set()

    async def put_route(self, route: Route) -> None:
        if (route.host, route.port) in self.taken:
            raise PortInUse(f"port {route.port} is in use")
        await super().put_route(route)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """A cluster with a writer and two readers."""
    store = new_store(tmp_path / "state.db")
    with store.transaction() as tx:
        tx.put_cluster(
            DBCluster(
                resource_id=SHOP,
                identifier="shop",
                engine="aurora-postgresql",
                engine_version="17.10",
                status=ClusterStatus.AVAILABLE,
                writer="db-ONE",
                master_username="boss",
                master_password_verifier="old",
                port=PORT,
                created_at=NOON,
            )
        )
        for number, name in enumerate(("one", "two", "three")):
            tx.put_instance(
                DBInstance(
                    resource_id=f"db-{name.upper()}",
                    identifier=name,
                    engine="aurora-postgresql",
                    engine_version="17.10",
                    instance_class="db.t3.medium",
                    status=InstanceStatus.AVAILABLE,
                    master_username="boss",
                    port=15401 + number,
                    created_at=NOON,
                    allocated_storage_gib=20,
                    parameter_group="default.postgres17",
                    replica_of="db-ONE" if number else None,
                    cluster=SHOP,
                )
            )
    yield store
    store.close()


@pytest.fixture
def router() -> CrampedRouter:
    return CrampedRouter(World())


@pytest.fixture
def world(store: SqlStore, router: CrampedRouter) -> Services:
    return dataclasses.replace(services(World(), store), router=router)


def change(store: SqlStore, name: str, **changes: object) -> None:
    with store.transaction() as tx:
        instance = tx.instance_named(name)
        assert instance is not None
        tx.put_instance(structs.replace(instance, **changes))


def change_cluster(store: SqlStore, **changes: object) -> None:
    changed = structs.replace(cluster(store), **changes)
    with store.transaction() as tx:
        tx.put_cluster(changed)


def cluster(store: SqlStore) -> DBCluster:
    with store.transaction() as tx:
        found = tx.cluster(SHOP)
    assert found is not None
    return found


def branches(world: Services, store: SqlStore, *, joining: Collection[str] = ()) -> list[Branches | None]:
    with store.transaction() as tx:
        found = tx.cluster(SHOP)
        assert found is not None
        return [route.branches for route in cluster_routes(tx, world.ports, found, joining=joining)]


def routed(router: CrampedRouter) -> dict[str, tuple[int, Branches | None]]:
    table = router.world.route_table
    return {name: (route.port, route.branches) for name, route in table.items() if ".cluster" in name}


ALL = [Branches(members=("one",)), Branches(members=("three", "two"), otherwise=("one",))]


class TestRoutes:
    def test_the_writer_and_the_readers(self, world: Services, store: SqlStore) -> None:
        assert branches(world, store) == ALL
        change(store, "two", status=InstanceStatus.REBOOTING)  # the router sees for itself when it is back
        assert branches(world, store) == ALL

    @pytest.mark.parametrize(
        "changes",
        [
            {"status": InstanceStatus.CREATING},
            {"status": InstanceStatus.DELETING},
            {"replication_error": "it has been left behind"},
        ],
    )
    def test_who_is_no_reader(self, world: Services, store: SqlStore, changes: dict[str, object]) -> None:
        change(store, "two", **changes)
        assert branches(world, store)[1] == Branches(members=("three",), otherwise=("one",))

    def test_one_that_is_as_good_as_created(self, world: Services, store: SqlStore) -> None:
        change(store, "two", status=InstanceStatus.CREATING)
        assert branches(world, store, joining=["db-TWO"]) == ALL

    def test_without_members(self, world: Services, store: SqlStore) -> None:
        for name in ("one", "two", "three"):
            change(store, name, status=InstanceStatus.DELETING)
        assert branches(world, store) == [Branches(members=()), Branches(members=())]


class TestKeeper:
    async def test_what_the_router_has_lost(self, world: Services, store: SqlStore, router: CrampedRouter) -> None:
        keeper = ClusterKeeper(world)
        await keeper.look()
        wanted = {"shop.cluster": (PORT, ALL[0]), "shop.cluster-ro": (PORT, ALL[1])}
        assert routed(router) == wanted
        change(store, "two", status=InstanceStatus.DELETING)
        await keeper.look()
        assert routed(router)["shop.cluster-ro"] == (PORT, Branches(members=("three",), otherwise=("one",)))

    async def test_a_port_that_is_taken_keeps_no_other(
        self, world: Services, store: SqlStore, router: CrampedRouter
    ) -> None:
        router.taken = {("127.0.0.1", PORT)}
        other = structs.replace(cluster(store), resource_id="cluster-Z", identifier="z", port=15460, writer=None)
        with store.transaction() as tx:
            tx.put_cluster(other)
        await ClusterKeeper(world).look()
        assert routed(router).keys() == {"shop.cluster-ro", "z.cluster", "z.cluster-ro"}

    @pytest.mark.parametrize(
        "status", [ClusterStatus.CREATING, ClusterStatus.MODIFYING, ClusterStatus.DELETING, ClusterStatus.FAILED]
    )
    async def test_not_what_a_workflow_has_in_hand(
        self, world: Services, store: SqlStore, router: CrampedRouter, status: ClusterStatus
    ) -> None:
        change_cluster(store, status=status)
        await ClusterKeeper(world).look()
        await lead(world, SHOP)
        assert routed(router) == {}


async def run(world: Services, kind: WorkflowKind, told: Struct | None = None, *, subject: str = SHOP) -> Workflow:
    workflow = Workflow(
        workflow_id=f"wf-{kind}",
        kind=kind,
        subject=subject,
        arguments={} if told is None else msgspec.to_builtins(told),
        started_at=NOON,
    )
    with world.store.transaction() as tx:
        tx.put_workflow(workflow)
    await factories(world)[kind](workflow).run()
    with world.store.transaction() as tx:
        found = tx.workflow(workflow.workflow_id)
    assert found is not None
    return found


class TestWorkflows:
    async def test_another_port_where_nobody_asked_for_this_one(
        self, world: Services, store: SqlStore, router: CrampedRouter
    ) -> None:
        router.taken = {("127.0.0.1", PORT)}
        change_cluster(store, status=ClusterStatus.CREATING)
        done = await run(world, WorkflowKind.CREATE_CLUSTER, arguments.CreateCluster())
        found = cluster(store)
        assert (done.status, found.status) == (WorkflowStatus.COMPLETED, ClusterStatus.AVAILABLE)
        assert {port for port, _ in routed(router).values()} == {found.port} != {PORT}

    async def test_a_port_that_was_asked_for_and_is_taken(
        self, world: Services, store: SqlStore, router: CrampedRouter
    ) -> None:
        router.taken = {("127.0.0.2", PORT), ("127.0.0.1", PORT)}
        change_cluster(store, status=ClusterStatus.CREATING)
        done = await run(world, WorkflowKind.CREATE_CLUSTER, arguments.CreateCluster(port_requested=True))
        assert (done.status, cluster(store).status) == (WorkflowStatus.FAILED, ClusterStatus.FAILED)
        assert routed(router) == {}

    async def test_a_port_that_cannot_be_had_changes_nothing(
        self, world: Services, store: SqlStore, router: CrampedRouter
    ) -> None:
        await ClusterKeeper(world).look()
        before = routed(router)
        router.taken = {("127.0.0.1", 15470)}
        change_cluster(store, status=ClusterStatus.MODIFYING)
        done = await run(world, WorkflowKind.MODIFY_CLUSTER, arguments.ModifyCluster(port=15470))
        assert (done.status, cluster(store).port) == (WorkflowStatus.FAILED, PORT)
        assert cluster(store).status is ClusterStatus.AVAILABLE
        assert routed(router) == before
        router.taken.clear()

    async def test_a_new_port(self, world: Services, store: SqlStore, router: CrampedRouter) -> None:
        await run(world, WorkflowKind.MODIFY_CLUSTER, arguments.ModifyCluster(port=15470))
        assert cluster(store).port == 15470
        assert {port for port, _ in routed(router).values()} == {15470}

    async def test_a_password_for_a_writer_that_is_to_come(self, world: Services, store: SqlStore) -> None:
        change_cluster(store, writer=None)
        told = arguments.ModifyCluster(master_password_verifier="new")
        assert (await run(world, WorkflowKind.MODIFY_CLUSTER, told)).status is WorkflowStatus.COMPLETED
        assert cluster(store).master_password_verifier == "new"

    async def test_deletion_waits_for_the_members(
        self, world: Services, store: SqlStore, router: CrampedRouter
    ) -> None:
        await ClusterKeeper(world).look()
        change_cluster(store, status=ClusterStatus.DELETING)
        for name in ("one", "two", "three"):
            change(store, name, status=InstanceStatus.DELETING)
        deletion = asyncio.create_task(run(world, WorkflowKind.DELETE_CLUSTER))
        await until(lambda: bool(journal(store)))
        assert routed(router)
        with store.transaction() as tx:
            for instance in tx.instances():
                tx.delete_instance(instance.resource_id)
        assert (await deletion).status is WorkflowStatus.COMPLETED
        with store.transaction() as tx:
            assert tx.clusters() == []
        assert routed(router) == {}


def custom(store: SqlStore, **changes: object) -> None:
    endpoint = DBClusterEndpoint(
        resource_id="cluster-endpoint-FAR",
        identifier="far",
        cluster=SHOP,
        type=CustomEndpointType.ANY,
        status=ClusterEndpointStatus.AVAILABLE,
        host="127.0.0.3",
    )
    with store.transaction() as tx:
        tx.put_cluster_endpoint(structs.replace(endpoint, **changes))


def custom_status(store: SqlStore) -> ClusterEndpointStatus | None:
    with store.transaction() as tx:
        found = tx.cluster_endpoint_named("far")
    return None if found is None else found.status


class TestCustomEndpoints:
    @pytest.mark.parametrize(
        ("changes", "members"),
        [
            ({}, ("one", "three", "two")),
            ({"type": CustomEndpointType.READER}, ("three", "two")),
            ({"static_members": ("db-TWO", "db-ONE", "db-GONE")}, ("one", "two")),
            ({"static_members": ("db-ONE",), "type": CustomEndpointType.READER}, ()),
            ({"static_members": ("db-GONE",)}, ()),
            ({"excluded_members": ("db-TWO",)}, ("one", "three")),
        ],
    )
    def test_where_they_lead(
        self, world: Services, store: SqlStore, changes: dict[str, object], members: tuple[str, ...]
    ) -> None:
        custom(store, **changes)
        assert branches(world, store)[2:] == [Branches(members=members)]

    def test_to_nobody_who_is_not_there(self, world: Services, store: SqlStore) -> None:
        custom(store)
        change(store, "two", replication_error="it has been left behind")
        change(store, "three", status=InstanceStatus.DELETING)
        assert branches(world, store)[2:] == [Branches(members=("one",))]

    @pytest.mark.parametrize("status", [ClusterEndpointStatus.CREATING, ClusterEndpointStatus.DELETING])
    async def test_the_keeper_leaves_to_workflows_what_is_theirs(
        self, world: Services, store: SqlStore, router: CrampedRouter, status: ClusterEndpointStatus
    ) -> None:
        custom(store, status=status)
        await ClusterKeeper(world).look()
        assert "far.cluster-custom" not in routed(router)

    async def test_a_life(self, world: Services, store: SqlStore, router: CrampedRouter) -> None:
        subject = "cluster-endpoint-FAR"
        custom(store, status=ClusterEndpointStatus.CREATING)
        await run(world, WorkflowKind.CREATE_CLUSTER_ENDPOINT, subject=subject)
        assert custom_status(store) is ClusterEndpointStatus.AVAILABLE
        assert routed(router) == {"far.cluster-custom": (PORT, Branches(members=("one", "three", "two")))}
        custom(store, status=ClusterEndpointStatus.MODIFYING, static_members=("db-TWO",))
        await run(world, WorkflowKind.MODIFY_CLUSTER_ENDPOINT, subject=subject)
        assert custom_status(store) is ClusterEndpointStatus.AVAILABLE
        assert routed(router) == {"far.cluster-custom": (PORT, Branches(members=("two",)))}
        await run(world, WorkflowKind.DELETE_CLUSTER_ENDPOINT, subject=subject)
        assert (custom_status(store), routed(router)) == (None, {})

    async def test_one_that_cannot_be_opened_is_once_it_can_be(
        self, world: Services, store: SqlStore, router: CrampedRouter
    ) -> None:
        router.taken = {("127.0.0.3", PORT)}
        custom(store, status=ClusterEndpointStatus.CREATING)
        done = await run(world, WorkflowKind.CREATE_CLUSTER_ENDPOINT, subject="cluster-endpoint-FAR")
        assert (done.status, custom_status(store)) == (WorkflowStatus.FAILED, ClusterEndpointStatus.INACTIVE)
        await ClusterKeeper(world).look()
        assert custom_status(store) is ClusterEndpointStatus.INACTIVE
        router.taken.clear()
        await ClusterKeeper(world).look()
        assert custom_status(store) is ClusterEndpointStatus.AVAILABLE
        assert "far.cluster-custom" in routed(router)

    async def test_they_move_and_go_with_their_cluster(
        self, world: Services, store: SqlStore, router: CrampedRouter
    ) -> None:
        custom(store)
        await ClusterKeeper(world).look()
        await run(world, WorkflowKind.MODIFY_CLUSTER, arguments.ModifyCluster(port=15470))
        assert routed(router)["far.cluster-custom"][0] == 15470
        with store.transaction() as tx:
            for instance in tx.instances():
                tx.delete_instance(instance.resource_id)
            tx.put_workflow(endpoint_work(WorkflowStatus.RUNNING))
        change_cluster(store, status=ClusterStatus.DELETING)
        deletion = asyncio.create_task(run(world, WorkflowKind.DELETE_CLUSTER))
        await until(lambda: bool(journal(store)))
        assert routed(router)  # what is being done to an endpoint comes first
        with store.transaction() as tx:
            tx.put_workflow(endpoint_work(WorkflowStatus.COMPLETED))
        await deletion
        assert (custom_status(store), routed(router)) == (None, {})


def endpoint_work(status: WorkflowStatus) -> Workflow:
    kind = WorkflowKind.MODIFY_CLUSTER_ENDPOINT
    return Workflow(workflow_id="wf-2", kind=kind, subject="cluster-endpoint-FAR", status=status, started_at=NOON)


def journal(store: SqlStore) -> list[Any]:
    with store.transaction() as tx:
        return tx.journal(f"wf-{WorkflowKind.DELETE_CLUSTER}")


class TestWaiting:
    async def test_for_a_writer(self, world: Services, store: SqlStore) -> None:
        change(store, "one", status=InstanceStatus.CREATING)
        waiting = asyncio.create_task(source_available(world, "db-TWO"))
        await asyncio.sleep(0)
        assert not waiting.done()
        change(store, "one", status=InstanceStatus.AVAILABLE)
        await waiting
        change(store, "one", status=InstanceStatus.FAILED)
        with pytest.raises(StepFailed, match="not available"):
            await source_available(world, "db-TWO")

    async def test_for_the_others_to_go(self, world: Services, store: SqlStore) -> None:
        change(store, "two", status=InstanceStatus.DELETING)
        with pytest.raises(StepFailed, match="three"):
            await others_gone(world, SHOP, but="db-ONE")
        with store.transaction() as tx:
            for name in ("two", "three"):
                tx.delete_instance(f"db-{name.upper()}")
        await others_gone(world, SHOP, but="db-ONE")
