"""Deployments of a cluster as scenarios: a writer and a reader, with their servers as in ``topology_scenarios``; a
custom endpoint leads to the reader."""

from collections.abc import Callable, Iterable

from msgspec import structs

from tests.simulation import topology_scenarios as topology
from tests.simulation.cluster_scenarios import PORT
from tests.simulation.records import (
    APP,
    APP_GREEN,
    BLUE,
    DEPLOYMENT,
    GREEN,
    VERSIONS,
    plant_blue,
    plant_copy,
    workflow,
    write,
)
from tests.simulation.scenario import After, Scenario, requirer
from tests.simulation.topology_scenarios import COPY, GREEN_COPY, READER, READER_GREEN, TIMEOUT_S
from tests.simulation.world import BEGINNING, World
from verdigris.domain.identifiers import cluster_endpoint_names, custom_endpoint_name
from verdigris.domain.model import BlueGreenDeployment, DBCluster, DBClusterEndpoint, DBInstance, Member
from verdigris.domain.ports import NOWHERE, Branches, Route
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    CustomEndpointType,
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    TaskStatus,
    WorkflowKind,
)
from verdigris.workflows import arguments

HOUSE, HOUSE_GREEN = "house", "house-green-x1y2z3"
FAR, FAR_GREEN = "far", "far-green-x1y2z3"
BLUE_CLUSTER, GREEN_CLUSTER = "cluster-BLUE", "cluster-GREEN"
BLUE_FAR, GREEN_FAR = "cluster-endpoint-BLUE", "cluster-endpoint-GREEN"
GREEN_CLUSTER_PORT = 15510
FAR_HOST = "127.0.0.3"


def _clusters(mode: ReplicationMode) -> tuple[DBCluster, DBCluster]:
    before, after = VERSIONS[mode]
    blue = DBCluster(
        resource_id=BLUE_CLUSTER,
        identifier=HOUSE,
        engine="aurora-postgresql",
        engine_version=before,
        status=ClusterStatus.AVAILABLE,
        writer=BLUE,
        master_username="master",
        master_password_verifier="SCRAM",
        port=PORT,
        created_at=BEGINNING,
    )
    green = structs.replace(
        blue,
        resource_id=GREEN_CLUSTER,
        identifier=HOUSE_GREEN,
        engine_version=after,
        writer=GREEN,
        port=GREEN_CLUSTER_PORT,
    )
    return blue, green


def _endpoints() -> tuple[DBClusterEndpoint, DBClusterEndpoint]:
    blue = DBClusterEndpoint(
        resource_id=BLUE_FAR,
        identifier=FAR,
        cluster=BLUE_CLUSTER,
        type=CustomEndpointType.READER,
        status=ClusterEndpointStatus.AVAILABLE,
        host=FAR_HOST,
        static_members=(COPY,),
    )
    green = structs.replace(
        blue, resource_id=GREEN_FAR, identifier=FAR_GREEN, cluster=GREEN_CLUSTER, static_members=(GREEN_COPY,)
    )
    return blue, green


def _add_routes(world: World, cluster: DBCluster, far: str, writer: str, reader: str) -> None:
    writers, readers = cluster_endpoint_names(cluster.identifier)
    led = Route(
        name=writers, host="127.0.0.1", port=cluster.port, backend=NOWHERE, branches=Branches(members=(writer,))
    )
    world.router.disk.table = world.router.disk.table.with_routes(
        led,
        structs.replace(led, name=readers, host="127.0.0.2", branches=Branches(members=(reader,), otherwise=(writer,))),
        structs.replace(led, name=custom_endpoint_name(far), host=FAR_HOST, branches=Branches(members=(reader,))),
    )


def _of_clusters(deployment: BlueGreenDeployment, *, finished: bool) -> BlueGreenDeployment:
    """The same deployment, made for the cluster."""
    cluster = Member(source_resource_id=BLUE_CLUSTER, source_identifier=HOUSE, status=MemberStatus.PROVISIONING)
    far = Member(source_resource_id=BLUE_FAR, source_identifier=FAR, status=MemberStatus.PROVISIONING)
    if finished:
        cluster = structs.replace(
            cluster,
            target_resource_id=GREEN_CLUSTER,
            target_identifier=HOUSE_GREEN,
            status=MemberStatus.AVAILABLE,
        )
        far = structs.replace(
            far, target_resource_id=GREEN_FAR, target_identifier=FAR_GREEN, status=MemberStatus.AVAILABLE
        )
    return structs.replace(deployment, cluster=cluster, endpoints=(far,))


def _clustered(instance: DBInstance) -> DBInstance:
    cluster = GREEN_CLUSTER if instance.resource_id in (GREEN, GREEN_COPY) else BLUE_CLUSTER
    return structs.replace(instance, cluster=cluster)


# ------------------------------------------------------------------------------------------------------------ creation


def begin_creation(mode: ReplicationMode) -> Callable[[World], None]:
    def begin(world: World) -> None:
        version = VERSIONS[mode][0]
        instances = [plant_blue(world, version), plant_copy(world, COPY, BLUE, READER, topology.READER_PORT, version)]
        members = (
            Member(source_resource_id=BLUE, source_identifier=APP),
            Member(source_resource_id=COPY, source_identifier=READER),
        )
        cluster, _ = _clusters(mode)
        _add_routes(world, cluster, FAR, APP, READER)
        made = topology.topology_deployment(mode, DeploymentStatus.PROVISIONING, members, TaskStatus.PENDING)
        with write(world) as tx:
            for each in instances:
                tx.put_instance(_clustered(each))
            tx.put_cluster(cluster)
            tx.put_cluster_endpoint(_endpoints()[0])
            tx.put_deployment(_of_clusters(made, finished=False))
            tx.put_workflow(workflow(WorkflowKind.CREATE_DEPLOYMENT, DEPLOYMENT))

    return begin


def ended_creation(world: World, after: After) -> None:
    topology.ended_creation(world, after)
    require, found = requirer(world), after.deployment
    if found is None or found.cluster is None:
        world.violate("the deployment is gone")
        return
    if not after.completed:
        ends = [found.cluster.target_resource_id, *(each.target_resource_id for each in found.endpoints)]
        require(ends == [None, None], f"a green is left: {ends}")
        _require_clusters(world, [BLUE_CLUSTER])
        return
    _require_clusters(world, [BLUE_CLUSTER, found.cluster.target_resource_id or ""])
    writer, reader = (each.target_identifier or "" for each in found.members)
    far = found.endpoints[0]
    _require_led(world, found.cluster.target_identifier or "", far.target_identifier or "", writer, reader)
    with write(world) as tx:
        endpoint = tx.cluster_endpoint(far.target_resource_id or "")
    require(
        endpoint is not None and endpoint.static_members == (found.members[1].target_resource_id,),
        f"its list is {endpoint}",
    )


def _require_clusters(world: World, resource_ids: Iterable[str]) -> None:
    """These, all at rest, each with one custom endpoint, and endpoints in the router of no others."""
    require = requirer(world)
    with write(world) as tx:
        clusters = tx.clusters()
        endpoints = tx.cluster_endpoints([each.resource_id for each in clusters])
    require({each.resource_id for each in clusters} == set(resource_ids), f"clusters: {clusters}")
    require({each.status for each in clusters} == {ClusterStatus.AVAILABLE}, f"clusters: {clusters}")
    require({each.status for each in endpoints} == {ClusterEndpointStatus.AVAILABLE}, f"endpoints: {endpoints}")
    names = {name for each in clusters for name in cluster_endpoint_names(each.identifier)}
    names |= {custom_endpoint_name(each.identifier) for each in endpoints}
    led = {route.name for route in world.router.disk.table.routes if route.branches is not None}
    require(led == names, f"endpoints of clusters: {led} instead of {names}")


def _require_led(world: World, cluster: str, far: str, writer: str, reader: str) -> None:
    writers, readers = cluster_endpoint_names(cluster)
    expected = {
        writers: Branches(members=(writer,)),
        readers: Branches(members=(reader,), otherwise=(writer,)),
        custom_endpoint_name(far): Branches(members=(reader,)),
    }
    table = world.router.disk.table
    found = {name: route.branches for name in expected if (route := table.named(name)) is not None}
    requirer(world)(found == expected, f"endpoints of {cluster} lead to {found}")
    with write(world) as tx:
        record = tx.cluster_named(cluster)
    ports = {route.port for name in expected if (route := table.named(name)) is not None}
    requirer(world)(record is not None and ports == {record.port}, f"ports of {cluster}: {ports}, recorded {record}")


# ---------------------------------------------------------------------------------------------- deletion and switchover


def _plant(world: World, mode: ReplicationMode, status: DeploymentStatus) -> BlueGreenDeployment:
    """As ``create_deployment`` leaves it."""
    instances, members = topology.plant_topology(world, mode)
    blue, green = _clusters(mode)
    _add_routes(world, blue, FAR, APP, READER)
    _add_routes(world, green, FAR_GREEN, APP_GREEN, READER_GREEN)
    deployment = _of_clusters(topology.topology_deployment(mode, status, members, TaskStatus.COMPLETED), finished=True)
    with write(world) as tx:
        for each in instances:
            tx.put_instance(_clustered(each))
        for cluster in (blue, green):
            tx.put_cluster(cluster)
        for endpoint in _endpoints():
            tx.put_cluster_endpoint(endpoint)
        tx.put_deployment(deployment)
    return deployment


def begin_deletion(*, delete_target: bool) -> Callable[[World], None]:
    def begin(world: World) -> None:
        _plant(world, ReplicationMode.PHYSICAL, DeploymentStatus.DELETING)
        if not delete_target:
            world.pair = None  # green is set free: both may be written then
        with write(world) as tx:
            if delete_target:
                for resource_id in (GREEN, GREEN_COPY):
                    found = tx.instance(resource_id)
                    assert found is not None
                    tx.put_instance(structs.replace(found, status=InstanceStatus.DELETING))
                _, green = _clusters(ReplicationMode.PHYSICAL)
                tx.put_cluster(structs.replace(green, status=ClusterStatus.DELETING))
                tx.put_cluster_endpoint(structs.replace(_endpoints()[1], status=ClusterEndpointStatus.DELETING))
            told = arguments.DeleteDeployment(delete_target=delete_target)
            tx.put_workflow(workflow(WorkflowKind.DELETE_DEPLOYMENT, DEPLOYMENT, told))

    return begin


def ended_deletion(*, set_free: bool) -> Callable[[World, After], None]:
    def ended(world: World, after: After) -> None:
        topology.ended_deletion(set_free=set_free)(world, after)
        if after.deployment is None:
            _require_clusters(world, [BLUE_CLUSTER, GREEN_CLUSTER] if set_free else [BLUE_CLUSTER])
            _require_led(world, HOUSE, FAR, APP, READER)
        if set_free:
            _require_led(world, HOUSE_GREEN, FAR_GREEN, APP_GREEN, READER_GREEN)

    return ended


def begin_switchover(mode: ReplicationMode) -> Callable[[World], None]:
    def begin(world: World) -> None:
        _plant(world, mode, DeploymentStatus.SWITCHOVER_IN_PROGRESS)
        with write(world) as tx:
            told = arguments.SwitchOver(timeout_s=TIMEOUT_S, accepted=world.since_boot())
            tx.put_workflow(workflow(WorkflowKind.SWITCH_OVER, DEPLOYMENT, told, timeout_s=TIMEOUT_S))

    return begin


def ended_switchover(world: World, after: After) -> None:
    topology.ended_switchover(world, after)
    require, found = requirer(world), after.deployment
    if found is None or found.cluster is None:
        world.violate("the deployment is gone")
        return
    statuses = {found.cluster.status, *(each.status for each in found.endpoints)}
    expected = MemberStatus.SWITCHOVER_COMPLETED if world.crossed else MemberStatus.SWITCHOVER_FAILED
    require(statuses == {expected}, f"the cluster is {statuses}")
    _require_clusters(world, [BLUE_CLUSTER, GREEN_CLUSTER])
    _require_led(world, HOUSE, FAR, APP, READER)
    names = _names(world)
    if world.crossed:
        olds = [f"{name}-old1" for name in (HOUSE, FAR)]
        require(names == {BLUE_CLUSTER: olds[0], GREEN_CLUSTER: HOUSE, BLUE_FAR: olds[1], GREEN_FAR: FAR}, f"{names}")
        _require_led(world, olds[0], olds[1], f"{APP}-old1", f"{READER}-old1")
        told = [after.events.count(f"RDS-EVENT-{number}") for number in ("0259", "0260", "0261")]
        require(told == [1, 1, 0], f"events: {after.events}")
        with write(world) as tx:
            cluster = tx.cluster(GREEN_CLUSTER)
        require(cluster is not None and cluster.port == PORT, f"production's cluster is {cluster}")
    else:
        _require_led(world, HOUSE_GREEN, FAR_GREEN, APP_GREEN, READER_GREEN)


def _names(world: World) -> dict[str, str]:
    with write(world) as tx:
        clusters = tx.clusters()
        endpoints = tx.cluster_endpoints([each.resource_id for each in clusters])
    names = {each.resource_id: each.identifier for each in clusters}
    return names | {each.resource_id: each.identifier for each in endpoints}


CLUSTER_DEPLOYMENT_SCENARIOS: tuple[Scenario, ...] = (
    *(
        Scenario(
            name=f"switchover of a cluster, {mode}",
            kind=WorkflowKind.SWITCH_OVER,
            begin=begin_switchover(mode),
            ended=ended_switchover,
            timeout_s=TIMEOUT_S,
        )
        for mode in ReplicationMode
    ),
    Scenario(
        name="creation for a cluster",
        kind=WorkflowKind.CREATE_DEPLOYMENT,
        begin=begin_creation(ReplicationMode.LOGICAL),
        ended=ended_creation,
    ),
    *(
        Scenario(
            name=f"deletion, of a cluster, {'with' if delete_target else 'without'} green",
            kind=WorkflowKind.DELETE_DEPLOYMENT,
            begin=begin_deletion(delete_target=delete_target),
            ended=ended_deletion(set_free=not delete_target),
        )
        for delete_target in (True, False)
    ),
)
