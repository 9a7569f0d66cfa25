"""The workflows of clusters as scenarios: their endpoints above all. Members are instances and replicas."""

from collections.abc import Callable

from msgspec import Struct, structs

from tests.simulation.records import APP, BLUE, plant_blue, routes, workflow, write
from tests.simulation.scenario import After, Scenario, requirer
from tests.simulation.world import BEGINNING, World
from verdigris.domain.identifiers import cluster_endpoint_names
from verdigris.domain.model import DBCluster
from verdigris.domain.ports import NOWHERE, Branches, Route
from verdigris.domain.statuses import ClusterStatus, WorkflowKind
from verdigris.workflows import arguments

CLUSTER, HOUSE, PORT, NEW_PORT, VERSION = "cluster-HOUSE", "house", 15500, 15501, "17.9"
WRITERS, READERS = cluster_endpoint_names(HOUSE)


def _record(status: ClusterStatus) -> DBCluster:
    return DBCluster(
        resource_id=CLUSTER,
        identifier=HOUSE,
        engine="aurora-postgresql",
        engine_version=VERSION,
        status=status,
        master_username="master",
        master_password_verifier="SCRAM",
        port=PORT,
        created_at=BEGINNING,
    )


def begin(kind: WorkflowKind, status: ClusterStatus, told: Struct | None = None) -> Callable[[World], None]:
    """With its writer and both endpoints, unless it is being created; without any member, if it is being deleted."""

    def begin(world: World) -> None:
        cluster, blue = _record(status), plant_blue(world, VERSION)
        if kind is not WorkflowKind.CREATE_CLUSTER:
            members = () if kind is WorkflowKind.DELETE_CLUSTER else (APP,)
            _add_endpoints(world, members)
        if kind is WorkflowKind.MODIFY_CLUSTER:
            blue, cluster = structs.replace(blue, cluster=CLUSTER), structs.replace(cluster, writer=BLUE)
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_cluster(cluster)
            tx.put_workflow(workflow(kind, CLUSTER, told))

    return begin


def _add_endpoints(world: World, members: tuple[str, ...]) -> None:
    route = Route(name=WRITERS, host="127.0.0.1", port=PORT, backend=NOWHERE, branches=Branches(members=members))
    table = world.router.disk.table
    world.router.disk.table = table.with_routes(route, structs.replace(route, name=READERS, host="127.0.0.2"))


def _found(world: World) -> DBCluster | None:
    with write(world) as tx:
        return tx.cluster(CLUSTER)


def _ports(world: World) -> dict[str, int]:
    return {name: port for name, (_, port) in routes(world).items() if name != APP}


def ended_creation(world: World, after: After) -> None:
    require, cluster, ports = requirer(world), _found(world), _ports(world)
    if not after.completed:
        require(cluster is not None and cluster.status is ClusterStatus.FAILED, f"its record is {cluster}")
        require(not ports, f"endpoints are left: {ports}")
        return
    require(cluster is not None and cluster.status is ClusterStatus.AVAILABLE, f"its record is {cluster}")
    require(cluster is not None and ports == {WRITERS: cluster.port, READERS: cluster.port}, f"endpoints: {ports}")
    require(after.events.count("RDS-EVENT-0170") == 1, f"events: {after.events}")


def ended_modification(world: World, after: After) -> None:
    """One that failed may have been recorded before: its endpoints are where its record says in any case."""
    require, cluster, ports = requirer(world), _found(world), _ports(world)
    require(cluster is not None and cluster.status is ClusterStatus.AVAILABLE, f"its record is {cluster}")
    require(cluster is not None and ports == {WRITERS: cluster.port, READERS: cluster.port}, f"endpoints: {ports}")
    if after.completed:
        require(cluster is not None and cluster.port == NEW_PORT, f"its record is {cluster}")
        require(world.servers[BLUE].password == "NEW", "the writer has the old password")
        require(after.events.count("RDS-EVENT-0016") == 1, f"events: {after.events}")


def ended_deletion(world: World, after: After) -> None:
    require, ports = requirer(world), _ports(world)
    if after.completed:
        require(_found(world) is None, "its record is left")
        require(not ports, f"endpoints are left: {ports}")
        require(after.events.count("RDS-EVENT-0171") == 1, f"events: {after.events}")


CLUSTER_SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="cluster created",
        kind=WorkflowKind.CREATE_CLUSTER,
        begin=begin(WorkflowKind.CREATE_CLUSTER, ClusterStatus.CREATING, arguments.CreateCluster()),
        ended=ended_creation,
    ),
    Scenario(
        name="cluster modified",
        kind=WorkflowKind.MODIFY_CLUSTER,
        begin=begin(
            WorkflowKind.MODIFY_CLUSTER,
            ClusterStatus.MODIFYING,
            arguments.ModifyCluster(master_password_verifier="NEW", port=NEW_PORT),
        ),
        ended=ended_modification,
    ),
    Scenario(
        name="cluster deleted",
        kind=WorkflowKind.DELETE_CLUSTER,
        begin=begin(WorkflowKind.DELETE_CLUSTER, ClusterStatus.DELETING),
        ended=ended_deletion,
    ),
)
