"""The workflows of clusters as scenarios: their endpoints above all. Members are instances and replicas."""

from collections.abc import Callable

from msgspec import Struct, structs

from tests.simulation.records import APP, BLUE, plant_blue, routes, workflow, write
from tests.simulation.scenario import After, Scenario, requirer
from tests.simulation.world import BEGINNING, World
from verdigris.domain.identifiers import cluster_endpoint_names, custom_endpoint_name
from verdigris.domain.model import DBCluster, DBClusterEndpoint
from verdigris.domain.ports import NOWHERE, Branches, Route
from verdigris.domain.statuses import ClusterEndpointStatus, ClusterStatus, CustomEndpointType, WorkflowKind
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


ENDPOINT, CUSTOM = "cluster-endpoint-FAR", custom_endpoint_name("far")


def begin_endpoint(kind: WorkflowKind, status: ClusterEndpointStatus) -> Callable[[World], None]:
    """Of a cluster whose only member is its writer, which the endpoint has begun or ceases to lead to."""

    def begin(world: World) -> None:
        endpoint = DBClusterEndpoint(
            resource_id=ENDPOINT,
            identifier="far",
            cluster=CLUSTER,
            type=CustomEndpointType.ANY,
            status=status,
            host="127.0.0.3",
            excluded_members=(BLUE,) if kind is WorkflowKind.MODIFY_CLUSTER_ENDPOINT else (),
        )
        blue = structs.replace(plant_blue(world, VERSION), cluster=CLUSTER)
        _add_endpoints(world, (APP,))
        if kind is not WorkflowKind.CREATE_CLUSTER_ENDPOINT:
            world.router.disk.table = world.router.disk.table.with_routes(_custom_route(APP))
        with write(world) as tx:
            tx.put_instance(blue)
            tx.put_cluster(structs.replace(_record(ClusterStatus.AVAILABLE), writer=BLUE))
            tx.put_cluster_endpoint(endpoint)
            tx.put_workflow(workflow(kind, ENDPOINT))

    return begin


def _custom_route(*members: str) -> Route:
    return Route(name=CUSTOM, host="127.0.0.3", port=PORT, backend=NOWHERE, branches=Branches(members=members))


def ended_endpoint(world: World, after: After) -> None:
    """It leads where its record says, as soon as the keeper has looked if not before."""
    require, route = requirer(world), world.router.disk.table.named(CUSTOM)
    with write(world) as tx:
        endpoint = tx.cluster_endpoint(ENDPOINT)
    if after.completed and after.workflow.kind is WorkflowKind.DELETE_CLUSTER_ENDPOINT:
        require(endpoint is None, f"its record is left: {endpoint}")
        require(route is None, f"it is left: {route}")
    elif after.completed:
        members = () if after.workflow.kind is WorkflowKind.MODIFY_CLUSTER_ENDPOINT else (APP,)
        require(endpoint is not None and endpoint.status is ClusterEndpointStatus.AVAILABLE, f"its record: {endpoint}")
        require(route == _custom_route(*members), f"it leads to {route}")
    else:
        settled = (ClusterEndpointStatus.AVAILABLE, ClusterEndpointStatus.INACTIVE)
        require(endpoint is not None and endpoint.status in settled, f"its record is {endpoint}")


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
    Scenario(
        name="custom endpoint created",
        kind=WorkflowKind.CREATE_CLUSTER_ENDPOINT,
        begin=begin_endpoint(WorkflowKind.CREATE_CLUSTER_ENDPOINT, ClusterEndpointStatus.CREATING),
        ended=ended_endpoint,
    ),
    Scenario(
        name="custom endpoint modified",
        kind=WorkflowKind.MODIFY_CLUSTER_ENDPOINT,
        begin=begin_endpoint(WorkflowKind.MODIFY_CLUSTER_ENDPOINT, ClusterEndpointStatus.MODIFYING),
        ended=ended_endpoint,
    ),
    Scenario(
        name="custom endpoint deleted",
        kind=WorkflowKind.DELETE_CLUSTER_ENDPOINT,
        begin=begin_endpoint(WorkflowKind.DELETE_CLUSTER_ENDPOINT, ClusterEndpointStatus.DELETING),
        ended=ended_endpoint,
    ),
)
