"""What a deployment of a cluster does to its records and its endpoints; its members are those of any deployment."""

import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import structs

from tests.unit.stores import new_store
from tests.unit.workflows.world import World, services
from verdigris.domain.errors import PortInUse
from verdigris.domain.identifiers import cluster_endpoint_names, custom_endpoint_name
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    Member,
    Tag,
    TargetSpec,
    Workflow,
)
from verdigris.domain.ports import BackendAddress, Branches, Route
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    CustomEndpointType,
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    WorkflowKind,
)
from verdigris.store.sql_store import SqlStore
from verdigris.testing.fakes import FakePorts, FakeRandomText
from verdigris.workflows import cluster_switchover, green_cluster
from verdigris.workflows.cluster_routes import ClusterKeeper
from verdigris.workflows.services import Services
from verdigris.workflows.switchover_records import SwitchoverRecords
from verdigris.workflows.timeline import TimelineRecord

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
BGD = "bgd-0123456789abcdef"
NAMES = ("one", "two", "three")
BLUE_PORT, GREEN_PORT = 15450, 15460
WRITERS, READERS = cluster_endpoint_names("shop")
FAR = custom_endpoint_name("far")


def _instance(name: str, number: int, *, green: bool) -> DBInstance:
    side = "GREEN" if green else "BLUE"
    return DBInstance(
        resource_id=f"db-{side}-{name}",
        identifier=f"{name}-green" if green else name,
        engine="aurora-postgresql",
        engine_version="18.6" if green else "17.10",
        instance_class="db.t3.medium",
        status=InstanceStatus.AVAILABLE,
        master_username="boss",
        port=(15500 if green else 15400) + number,
        created_at=NOON,
        allocated_storage_gib=20,
        parameter_group="default.postgres17",
        replica_of=f"db-{side}-one" if number else None,
        cluster=f"cluster-{side}",
    )


def _cluster(name: str, side: str, port: int) -> DBCluster:
    return DBCluster(
        resource_id=f"cluster-{side}",
        identifier=name,
        engine="aurora-postgresql",
        engine_version="17.10",
        status=ClusterStatus.AVAILABLE,
        writer=f"db-{side}-one",
        master_username="boss",
        master_password_verifier=f"of {side}",
        port=port,
        created_at=NOON,
        tags=(Tag("side", side),),
    )


def _endpoint(name: str, side: str) -> DBClusterEndpoint:
    return DBClusterEndpoint(
        resource_id=f"cluster-endpoint-{side}",
        identifier=name,
        cluster=f"cluster-{side}",
        type=CustomEndpointType.READER,
        status=ClusterEndpointStatus.AVAILABLE,
        host="127.0.0.3",
        static_members=(f"db-{side}-two",),
        tags=(Tag("side", side),),
    )


def _member(kind: str, name: str, *, ended: str = "") -> Member:
    return Member(
        source_resource_id=f"{kind}-BLUE{ended}",
        source_identifier=name,
        target_resource_id=f"{kind}-GREEN{ended}",
        target_identifier=f"{name}-green",
        status=MemberStatus.SWITCHOVER_IN_PROGRESS,
    )


DEPLOYMENT = BlueGreenDeployment(
    identifier=BGD,
    name="up",
    mode=ReplicationMode.LOGICAL,
    target=TargetSpec(
        engine_version="18.6",
        instance_class="db.t3.medium",
        parameter_group="default.postgres18",
        allocated_storage_gib=20,
    ),
    status=DeploymentStatus.SWITCHOVER_IN_PROGRESS,
    members=tuple(_member("db", name, ended=f"-{name}") for name in NAMES),
    cluster=_member("cluster", "shop"),
    endpoints=(_member("cluster-endpoint", "far"),),
    tasks=(),
    created_at=NOON,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = new_store(tmp_path / "state.db")
    with store.transaction() as tx:
        for number, name in enumerate(NAMES):
            for green in (False, True):
                tx.put_instance(_instance(name, number, green=green))
        for name, side, port in (("shop", "BLUE", BLUE_PORT), ("shop-green", "GREEN", GREEN_PORT)):
            tx.put_cluster(_cluster(name, side, port))
        for name, side in (("far", "BLUE"), ("far-green", "GREEN")):
            tx.put_cluster_endpoint(_endpoint(name, side))
        tx.put_deployment(DEPLOYMENT)
    yield store
    store.close()


@pytest.fixture
def ports() -> FakePorts:
    return FakePorts()


@pytest.fixture
def world(store: SqlStore, ports: FakePorts) -> Services:
    return dataclasses.replace(services(World(), store), ports=ports, random_text=FakeRandomText(1))


def put(store: SqlStore, **changes: object) -> None:
    with store.transaction() as tx:
        tx.put_deployment(structs.replace(DEPLOYMENT, **changes))


def deployment(store: SqlStore) -> BlueGreenDeployment:
    with store.transaction() as tx:
        found = tx.deployment(BGD)
    assert found is not None
    return found


def cluster(store: SqlStore, resource_id: str) -> DBCluster:
    with store.transaction() as tx:
        found = tx.cluster(resource_id)
    assert found is not None
    return found


def endpoint(store: SqlStore, resource_id: str) -> DBClusterEndpoint:
    with store.transaction() as tx:
        found = tx.cluster_endpoint(resource_id)
    assert found is not None
    return found


class TestRoutesAtTheCommit:
    def after(self, world: Services, store: SqlStore) -> dict[str, tuple[str, int, Branches | None]]:
        found = deployment(store)
        with store.transaction() as tx:
            routes = cluster_switchover.routes_after(tx, world.ports, found)
        return {route.name: (route.host, route.port, route.branches) for route in routes}

    def test_green_s_under_blue_s_names(self, world: Services, store: SqlStore) -> None:
        assert self.after(world, store) == {
            WRITERS: ("127.0.0.1", BLUE_PORT, Branches(members=("one",))),
            READERS: ("127.0.0.2", BLUE_PORT, Branches(members=("three", "two"), otherwise=("one",))),
            FAR: ("127.0.0.3", BLUE_PORT, Branches(members=("two",))),
        }

    def test_who_stays_with_blue_is_no_branch(self, world: Services, store: SqlStore) -> None:
        one, two, three = DEPLOYMENT.members
        put(store, members=(one, structs.replace(two, status=MemberStatus.MISSING_TARGET), three))
        with store.transaction() as tx:
            tx.delete_instance("db-GREEN-two")
        routes = self.after(world, store)
        assert routes[READERS][2] == Branches(members=("three",), otherwise=("one",))
        assert routes[FAR][2] == Branches(members=())

    def test_who_was_added_to_green_is_one(self, world: Services, store: SqlStore) -> None:
        with store.transaction() as tx:
            more = structs.replace(_instance("more", 7, green=True), identifier="more")
            tx.put_instance(more)
        assert self.after(world, store)[READERS][2] == Branches(members=("more", "three", "two"), otherwise=("one",))

    def test_endpoints_that_do_not_move(self, world: Services, store: SqlStore) -> None:
        [far] = DEPLOYMENT.endpoints
        put(store, endpoints=(structs.replace(far, status=MemberStatus.MISSING_SOURCE),))
        assert list(self.after(world, store)) == [WRITERS, READERS]

    def test_one_that_could_not_be_opened_keeps_nobody_from_moving(self, world: Services, store: SqlStore) -> None:
        with store.transaction() as tx:
            closed = structs.replace(_endpoint("far", "BLUE"), status=ClusterEndpointStatus.INACTIVE)
            tx.put_cluster_endpoint(closed)
        assert list(self.after(world, store)) == [WRITERS, READERS]

    def test_of_an_instance_there_are_none(self, world: Services, store: SqlStore) -> None:
        put(store, cluster=None, endpoints=())
        assert self.after(world, store) == {}


def swap(world: Services, store: SqlStore) -> BlueGreenDeployment:
    found = deployment(store)
    with store.transaction() as tx:
        return cluster_switchover.swap(world, tx, found)


class TestSwap:
    def test_names_ports_tags_and_what_new_members_log_in_with(self, world: Services, store: SqlStore) -> None:
        swapped = swap(world, store)
        blue, green = cluster(store, "cluster-BLUE"), cluster(store, "cluster-GREEN")
        assert (blue.identifier, green.identifier) == ("shop-old1", "shop")
        assert green.port == BLUE_PORT
        assert blue.port not in (BLUE_PORT, GREEN_PORT)
        assert green.tags == (Tag("side", "BLUE"),)
        assert green.master_password_verifier == "of BLUE"
        far, far_green = endpoint(store, "cluster-endpoint-BLUE"), endpoint(store, "cluster-endpoint-GREEN")
        assert (far.identifier, far_green.identifier) == ("far-old1", "far")
        assert far.host == far_green.host
        assert far_green.tags == (Tag("side", "BLUE"),)
        assert swapped.cluster is not None
        ends = [(each.source_identifier, each.target_identifier) for each in (swapped.cluster, *swapped.endpoints)]
        assert ends == [("shop-old1", "shop"), ("far-old1", "far")]

    def test_for_the_second_time(self, world: Services, store: SqlStore) -> None:
        with store.transaction() as tx:
            tx.put_cluster(structs.replace(_cluster("shop-old1", "OLD", 15470)))
            old = structs.replace(_endpoint("far-old1", "OLD"), cluster="cluster-OLD")
            tx.put_cluster_endpoint(old)
        swap(world, store)
        assert cluster(store, "cluster-BLUE").identifier == "shop-old2"
        assert endpoint(store, "cluster-endpoint-BLUE").identifier == "far-old2"

    def test_an_endpoint_that_does_not_move_keeps_its_name(self, world: Services, store: SqlStore) -> None:
        [far] = DEPLOYMENT.endpoints
        put(store, endpoints=(structs.replace(far, status=MemberStatus.MISSING_TARGET),))
        swap(world, store)
        assert endpoint(store, "cluster-endpoint-BLUE").identifier == "far"

    def test_what_could_not_be_opened_goes_with_the_port(self, world: Services, store: SqlStore) -> None:
        with store.transaction() as tx:
            closed = structs.replace(_endpoint("far", "BLUE"), status=ClusterEndpointStatus.INACTIVE)
            tx.put_cluster_endpoint(closed)
        swap(world, store)
        assert endpoint(store, "cluster-endpoint-GREEN").status is ClusterEndpointStatus.INACTIVE
        assert endpoint(store, "cluster-endpoint-BLUE").status is ClusterEndpointStatus.AVAILABLE

    def test_beyond_the_point_of_no_return_a_lack_of_ports_stops_nobody(
        self, world: Services, store: SqlStore, ports: FakePorts
    ) -> None:
        ports.used_by_others = set(ports.range)
        swap(world, store)
        assert cluster(store, "cluster-BLUE").port == GREEN_PORT
        assert cluster(store, "cluster-GREEN").port == BLUE_PORT

    def test_blue_without_an_endpoint_is_left_to_the_keeper(
        self, world: Services, store: SqlStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        swap(world, store)

        async def taken(_route: Route) -> None:
            raise PortInUse("port 1 is in use")

        ports = FakePorts(first=1, last=0)
        monkeypatch.setattr(world.router, "put_route", taken)
        asyncio.run(cluster_switchover.open_both(dataclasses.replace(world, ports=ports), BGD))


def _route(name: str, resource_id: str, port: int) -> Route:
    return Route(name=name, host="127.0.0.1", port=port, backend=BackendAddress(resource_id, "/run"))


TIMELINE = TimelineRecord(phases=(), pause_ms=None, carried=0, pinned={})
MOVED = "Switchover from DB cluster shop to shop-green completed. Renamed shop to shop-old1 and shop-green to shop."
SYNCED = "Sequence sync for switchover of DB cluster shop to shop-green has"


class TestWhatIsTold:
    def records(self, world: Services, store: SqlStore) -> SwitchoverRecords:
        """Of one that has begun."""
        workflow = Workflow(workflow_id="wf-1", kind=WorkflowKind.SWITCH_OVER, subject=BGD, started_at=NOON)
        with store.transaction() as tx:
            tx.put_workflow(workflow)
        records = SwitchoverRecords(world, workflow)
        assert not records.begin()
        return records

    def told(self, store: SqlStore) -> list[str]:
        with store.transaction() as tx:
            return [each.message for each in tx.events(since=NOON.replace(year=2025), until=NOON.replace(year=2027))]

    def test_a_switchover_that_is_recorded_twice(self, world: Services, store: SqlStore) -> None:
        """What green was called is known although the control plane died after the swap."""
        records = self.records(world, store)
        olds = [_route(f"{name}-old1", f"db-BLUE-{name}", 15600 + n) for n, name in enumerate(NAMES)]
        for _ in range(2):
            records.rename(olds)
            records.complete(TIMELINE)
        assert self.told(store) == [
            "Switchover from shop to shop-green started.",
            "Switchover from DB cluster shop to shop-green started.",
            f"{SYNCED} initiated.",
            f"{SYNCED} completed.",
            MOVED,
            "Switchover completed on blue/green deployment.",
        ]
        found = deployment(store)
        assert found.cluster is not None
        everybody = (found.cluster, *found.members, *found.endpoints)
        assert {each.status for each in everybody} == {MemberStatus.SWITCHOVER_COMPLETED}
        assert [each.source_identifier for each in everybody] == [f"{n}-old1" for n in ("shop", *NAMES, "far")]

    def test_one_that_is_canceled(self, world: Services, store: SqlStore) -> None:
        [far] = DEPLOYMENT.endpoints
        put(store, endpoints=(structs.replace(far, status=MemberStatus.MISSING_TARGET),))
        self.records(world, store).fail("replication lag", TIMELINE)
        assert self.told(store)[2:] == [
            "Switchover from DB cluster shop to shop-green was canceled due to replication lag.",
            "Switchover canceled on blue/green deployment.",
        ]
        found = deployment(store)
        assert found.cluster is not None
        assert found.cluster.status is MemberStatus.SWITCHOVER_FAILED
        assert found.endpoints[0].status is MemberStatus.MISSING_TARGET


class TestKeeper:
    def look(self, world: Services, *, leads_to: str) -> set[str]:
        """The endpoints of clusters that there are after a look, if production's writer is that one."""
        asyncio.run(world.router.put_route(_route("one", leads_to, 15400)))
        asyncio.run(ClusterKeeper(world).look())
        return {route.name for route in asyncio.run(world.router.routes()) if route.branches is not None}

    def test_leads_both_until_the_commit(self, world: Services) -> None:
        greens = {*cluster_endpoint_names("shop-green"), custom_endpoint_name("far-green")}
        assert self.look(world, leads_to="db-BLUE-one") == {WRITERS, READERS, FAR, *greens}

    def test_leads_neither_until_the_names_are_swapped(self, world: Services) -> None:
        assert self.look(world, leads_to="db-GREEN-one") == set()

    def test_leads_both_afterwards(self, world: Services, store: SqlStore) -> None:
        swapped = swap(world, store)
        with store.transaction() as tx:
            for name in NAMES:
                blue, green = tx.instance(f"db-BLUE-{name}"), tx.instance(f"db-GREEN-{name}")
                assert blue is not None
                assert green is not None
                tx.put_instance(structs.replace(blue, identifier=f"{name}-old1", port=green.port))
                tx.put_instance(structs.replace(green, identifier=name, port=blue.port))
            members = tuple(
                structs.replace(
                    each, source_identifier=f"{each.source_identifier}-old1", target_identifier=each.source_identifier
                )
                for each in swapped.members
            )
            tx.put_deployment(structs.replace(swapped, members=members))
        olds = {*cluster_endpoint_names("shop-old1"), custom_endpoint_name("far-old1")}
        assert self.look(world, leads_to="db-GREEN-one") == {WRITERS, READERS, FAR, *olds}

    def test_goes_on_where_nothing_is_switched_over(self, world: Services, store: SqlStore) -> None:
        put(store, status=DeploymentStatus.SWITCHOVER_COMPLETED)
        assert WRITERS in self.look(world, leads_to="db-GREEN-one")


def _without_green(store: SqlStore) -> None:
    """As when the creation begins."""

    def blue_alone(member: Member) -> Member:
        return structs.replace(member, target_resource_id=None, target_identifier=None)

    with store.transaction() as tx:
        tx.delete_cluster("cluster-GREEN")
        tx.delete_cluster_endpoint("cluster-endpoint-GREEN")
    put(
        store,
        status=DeploymentStatus.PROVISIONING,
        cluster=blue_alone(_member("cluster", "shop")),
        endpoints=tuple(map(blue_alone, DEPLOYMENT.endpoints)),
    )


class TestGreen:
    def test_registered_once(self, world: Services, store: SqlStore) -> None:
        _without_green(store)
        for _ in range(2):  # the control plane died before the step was noted
            asyncio.run(green_cluster.register(world, BGD))
            asyncio.run(green_cluster.register_endpoints(world, BGD))
        with store.transaction() as tx:
            assert len(tx.clusters()) == 2
            assert len(tx.cluster_endpoints([each.resource_id for each in tx.clusters()])) == 2
        found = deployment(store)
        assert found.cluster is not None
        green = cluster(store, found.cluster.target_resource_id or "")
        assert green.identifier.startswith("shop-green-")
        assert (green.status, green.writer, green.engine_version) == (ClusterStatus.CREATING, None, "18.6")
        far = endpoint(store, found.endpoints[0].target_resource_id or "")
        assert (far.host, far.cluster, far.status) == ("127.0.0.3", green.resource_id, ClusterEndpointStatus.CREATING)
        assert far.static_members == ("db-GREEN-two",)

    def test_a_server_that_is_gone_stays_in_a_list(self, world: Services, store: SqlStore) -> None:
        """An empty list would lead to everybody."""
        _without_green(store)
        with store.transaction() as tx:
            tx.put_cluster_endpoint(structs.replace(_endpoint("far", "BLUE"), static_members=("db-GONE",)))
        asyncio.run(green_cluster.register(world, BGD))
        asyncio.run(green_cluster.register_endpoints(world, BGD))
        far = endpoint(store, deployment(store).endpoints[0].target_resource_id or "")
        assert far.static_members == ("db-GONE",)

    def test_unregistered_once(self, world: Services, store: SqlStore) -> None:
        for _ in range(2):
            asyncio.run(green_cluster.unregister_endpoints(world, BGD))
            asyncio.run(green_cluster.unregister(world, BGD))
        with store.transaction() as tx:
            assert [each.resource_id for each in tx.clusters()] == ["cluster-BLUE"]
            assert tx.cluster_endpoints(["cluster-GREEN"]) == []
        found = deployment(store)
        assert found.cluster is not None
        assert {found.cluster.status, found.endpoints[0].status} == {MemberStatus.MISSING_TARGET}

    def test_forgotten_with_what_was_added_to_it(self, store: SqlStore) -> None:
        with store.transaction() as tx:
            more = structs.replace(_endpoint("more", "GREEN"), resource_id="cluster-endpoint-MORE", host="127.0.0.4")
            tx.put_cluster_endpoint(more)
        for expected in (1, 0):  # deleted by itself since
            with store.transaction() as tx:
                assert len(green_cluster.forget(tx, DEPLOYMENT)) == expected
                assert tx.cluster_endpoints(["cluster-GREEN"]) == []
        assert cluster(store, "cluster-BLUE").identifier == "shop"

    def test_closed_although_it_is_gone(self, world: Services, store: SqlStore) -> None:
        with store.transaction() as tx:
            tx.delete_cluster("cluster-GREEN")
        asyncio.run(green_cluster.close_endpoints(world, BGD))
