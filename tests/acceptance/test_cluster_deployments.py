"""Blue/green deployments of clusters, through the API, on real servers."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.acceptance.clients import Client, read, write
from tests.acceptance.installation import Installation, installation, wait_until
from tests.acceptance.serve_log import ServeLog
from tests.acceptance.shop import Shop, create_shop, kill_server, server_named

ARN = "arn:aws:rds:us-east-1:000000000000:"
CLUSTER_ARN = f"{ARN}cluster:shop"
MEMBERS = ("one", "three", "two")  # the writer, and readers by their names
FAR = "far"  # a custom endpoint, for one reader alone
BLUE = {"shop": "cluster", **dict.fromkeys(MEMBERS, "db"), FAR: "cluster-endpoint"}
ENDPOINTS = ("Endpoint", "ReaderEndpoint", FAR)


@pytest.fixture(scope="module")
def verdigris() -> Iterator[Installation]:
    with installation() as verdigris:
        yield verdigris


@pytest.fixture
def shop(verdigris: Installation) -> Iterator[Shop]:
    """A cluster of three with a custom endpoint and a table. Whatever is there at the end is deleted one by one."""
    shop = create_shop(verdigris, "17.10", *MEMBERS)
    far = verdigris.rds.create_db_cluster_endpoint(
        DBClusterIdentifier="shop", DBClusterEndpointIdentifier=FAR, EndpointType="READER", StaticMembers=["three"]
    )
    shop.hosts[FAR] = far["Endpoint"]
    wait_until(lambda: endpoint_statuses(verdigris) == {FAR: "available"}, "the custom endpoint is open")
    with shop.connect("Endpoint") as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    yield shop
    delete_everything(verdigris)


def endpoint_statuses(verdigris: Installation) -> dict[str, str]:
    found = verdigris.rds.describe_db_cluster_endpoints()["DBClusterEndpoints"]
    return {each["DBClusterEndpointIdentifier"]: each["Status"] for each in found if each["EndpointType"] == "CUSTOM"}


def clusters(verdigris: Installation) -> dict[str, dict[str, Any]]:
    return {each["DBClusterIdentifier"]: each for each in verdigris.rds.describe_db_clusters()["DBClusters"]}


def roles(cluster: dict[str, Any]) -> dict[str, bool]:
    return {each["DBInstanceIdentifier"]: each["IsClusterWriter"] for each in cluster["DBClusterMembers"]}


def delete_everything(verdigris: Installation) -> None:
    for each in verdigris.rds.describe_blue_green_deployments()["BlueGreenDeployments"]:
        verdigris.delete_deployment(each["BlueGreenDeploymentIdentifier"])
    for cluster in clusters(verdigris).values():
        for identifier, writes in sorted(roles(cluster).items(), key=lambda role: role[1]):
            verdigris.rds.delete_db_instance(
                DBInstanceIdentifier=identifier, **({"SkipFinalSnapshot": True} if writes else {})
            )
        verdigris.rds.delete_db_cluster(DBClusterIdentifier=cluster["DBClusterIdentifier"], SkipFinalSnapshot=True)
    wait_until(lambda: clusters(verdigris) == {}, "the clusters are gone")
    assert verdigris.rds.describe_db_instances()["DBInstances"] == []
    for directory in ("instances", "run"):
        assert list((verdigris.home / directory).iterdir()) == []


def build_green(verdigris: Installation, **members: Any) -> str:
    deployment: str = verdigris.rds.create_blue_green_deployment(
        BlueGreenDeploymentName="up", Source=CLUSTER_ARN, **members
    )["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"]
    verdigris.await_deployment(deployment, "AVAILABLE")
    return deployment


def details(verdigris: Installation, deployment: str) -> list[tuple[str, str]]:
    """ARNs of source and target, without what all have in common."""
    found = verdigris.deployment(deployment)["SwitchoverDetails"]
    return [(each["SourceMember"].removeprefix(ARN), each["TargetMember"].removeprefix(ARN)) for each in found]


def test_green_is_a_cluster_like_blue(verdigris: Installation, shop: Shop) -> None:
    """And goes without a trace; a control plane that dies while it is being made changes nothing."""
    log = ServeLog(verdigris.log_path)
    deployment: str = verdigris.rds.create_blue_green_deployment(
        BlueGreenDeploymentName="up", Source=CLUSTER_ARN, TargetEngineVersion="18.6"
    )["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"]
    for step in ("register-cluster", "cluster-endpoints"):
        log.wait_for("workflow.step_started", kind="create_deployment", step=step)
        verdigris.kill()
        verdigris.start()
    shown = verdigris.await_deployment(deployment, "AVAILABLE")
    assert [task["Name"] for task in shown["Tasks"]] == [
        "CREATING_READ_REPLICA_OF_SOURCE",
        "DB_ENGINE_VERSION_UPGRADE",
        "CREATE_DB_INSTANCES_FOR_CLUSTER",
        "CREATE_CUSTOM_ENDPOINTS",
    ]
    assert {task["Status"] for task in shown["Tasks"]} == {"COMPLETED"}
    pairs = details(verdigris, deployment)
    assert [source for source, _ in pairs] == [f"{kind}:{name}" for name, kind in BLUE.items()]
    assert all(re.fullmatch(rf"{source}-green-[0-9a-z]{{6}}", target) for source, target in pairs)
    assert (shown["Source"], shown["Target"]) == (f"{ARN}{pairs[0][0]}", f"{ARN}{pairs[0][1]}")

    greens = {source.split(":")[1]: target.split(":")[1] for source, target in pairs}
    green = clusters(verdigris)[greens["shop"]]
    assert (green["Status"], green["EngineVersion"]) == ("available", "18.6")
    assert roles(green) == {greens["one"]: True, greens["two"]: False, greens["three"]: False}
    tests = Shop(verdigris)
    tests.port = green["Port"]
    tests.hosts[FAR] = shop.hosts[FAR]
    one, two, three = (server_named(verdigris, greens[name]) for name in ("one", "two", "three"))
    assert tests.reached("Endpoint") == {one: 4}
    wait_until(lambda: tests.reached("ReaderEndpoint") == {two: 2, three: 2}, "green's readers are read from")
    assert tests.reached(FAR) == {three: 4}
    with tests.connect("Endpoint") as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO t VALUES (1)")

    verdigris.delete_deployment(deployment, DeleteTarget=True)
    assert list(clusters(verdigris)) == ["shop"]
    assert roles(clusters(verdigris)["shop"]) == {"one": True, "two": False, "three": False}
    assert endpoint_statuses(verdigris) == {FAR: "available"}
    with pytest.raises(psycopg.OperationalError, match="refused"):
        tests.connect("Endpoint")


@pytest.mark.parametrize("version", ["17.10", "18.6"])
def test_clients_of_every_endpoint_go_along(verdigris: Installation, shop: Shop, version: str) -> None:
    """The control plane is killed in the pause, and again right after the commit."""
    log = ServeLog(verdigris.log_path)
    deployment = build_green(verdigris, TargetEngineVersion=version)
    pairs = details(verdigris, deployment)
    greens = {source.split(":")[1]: target.split(":")[1] for source, target in pairs}
    servers = {name: server_named(verdigris, green) for name, green in greens.items() if name in MEMBERS}
    before = clusters(verdigris)
    clients = [Client(shop.dsn("Endpoint"), write), *(Client(shop.dsn(name), read) for name in ENDPOINTS[1:])]
    status = ""
    for phase in ("park", "commit_route"):
        if status == "SWITCHOVER_COMPLETED":
            break  # the first blow came too late to keep it from happening
        for client in clients:
            client.goes_on()
        verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
        log.wait_for("switchover.phase", phase=phase)
        verdigris.kill()
        verdigris.start()
        shown = verdigris.await_settled(deployment)
        status = shown["Status"]
        assert {detail["Status"] for detail in shown["SwitchoverDetails"]} == {status}
        if status == "SWITCHOVER_FAILED":
            assert details(verdigris, deployment) == pairs
    assert status == "SWITCHOVER_COMPLETED"
    for client in clients:
        client.goes_on()
    written = clients[0].end()
    for client in clients[1:]:
        client.reaches(written)
        client.end()

    assert details(verdigris, deployment) == [(f"{source}-old1", source) for source, _ in pairs]
    now = clusters(verdigris)
    assert sorted(now) == ["shop", "shop-old1"]
    assert now["shop"]["DbClusterResourceId"] == before[greens["shop"]]["DbClusterResourceId"]
    assert (now["shop"]["Port"], now["shop"]["EngineVersion"]) == (shop.port, version)
    assert roles(now["shop"]) == {"one": True, "two": False, "three": False}
    assert roles(now["shop-old1"]) == {"one-old1": True, "two-old1": False, "three-old1": False}
    assert endpoint_statuses(verdigris) == {FAR: "available", f"{FAR}-old1": "available"}

    assert shop.reached("Endpoint") == {servers["one"]: 4}
    assert shop.reached("ReaderEndpoint") == {servers["two"]: 2, servers["three"]: 2}
    assert shop.reached(FAR) == {servers["three"]: 4}
    with shop.connect("Endpoint") as connection:
        connection.execute("INSERT INTO t VALUES (0)")
    old = Shop(verdigris)
    old.port = now["shop-old1"]["Port"]
    assert old.port not in (shop.port, before[greens["shop"]]["Port"])
    old.hosts[FAR] = shop.hosts[FAR]
    olds = {name: server_named(verdigris, f"{name}-old1") for name in MEMBERS}
    assert old.reached("Endpoint") == {olds["one"]: 4}
    assert old.reached(FAR) == {olds["three"]: 4}
    with old.connect("Endpoint") as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("INSERT INTO t VALUES (-1)")
    told = verdigris.rds.describe_events(SourceType="blue-green-deployment", Duration=60)["Events"]
    green = greens["shop"]
    moved = f"Switchover from DB cluster shop to {green} completed. Renamed shop to shop-old1 and {green} to shop."
    assert moved in [each["Message"] for each in told]


@pytest.mark.parametrize("side", ["blue", "green"])
def test_a_reader_dies_in_the_middle(verdigris: Installation, shop: Shop, side: str) -> None:
    """Its server is killed while sessions are made ready. The switchover happens or does not; nobody but its own
    clients notices, nothing is lost, and in the end production is on green."""
    log = ServeLog(verdigris.log_path)
    deployment = build_green(verdigris, TargetEngineVersion="18.6")
    greens = {source.split(":")[1]: target.split(":")[1] for source, target in details(verdigris, deployment)}
    victim = verdigris.resource_id("two" if side == "blue" else greens["two"])
    clients = [Client(shop.dsn("Endpoint"), write), Client(shop.dsn(FAR), read)]
    for client in clients:
        client.goes_on()
    verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
    log.wait_for("switchover.phase", phase="prepare")
    kill_server(verdigris, victim)
    status = verdigris.await_settled(deployment)["Status"]
    if status != "SWITCHOVER_COMPLETED":
        assert status == "SWITCHOVER_FAILED"
        assert verdigris.deployment(deployment)["StatusDetails"]
        for client in clients:
            client.goes_on()
        wait_until(lambda: len(shop.reached("ReaderEndpoint")) == 2, "both readers are there again")
        assert verdigris.switch_over(deployment)["Status"] == "SWITCHOVER_COMPLETED"
    for client in clients:
        client.goes_on()
    written = clients[0].end()
    clients[1].reaches(written)
    clients[1].end()
    two = server_named(verdigris, "two")
    wait_until(lambda: two in shop.reached("ReaderEndpoint"), "green's reader is read from")
    with shop.connect("Endpoint") as connection:
        assert connection.execute("SELECT count(*), max(id) FROM t").fetchall() == [(written, written)]


def test_a_reader_that_green_lacks_is_led_to_no_more(verdigris: Installation, shop: Shop) -> None:
    """It stays with blue: nobody comes from the cluster's endpoint to what has been."""
    deployment = build_green(verdigris)
    greens = {source.split(":")[1]: target.split(":")[1] for source, target in details(verdigris, deployment)}
    verdigris.rds.delete_db_instance(DBInstanceIdentifier=greens["two"])
    verdigris.await_no_instance(greens["two"])
    statuses = {
        each["SourceMember"].rpartition(":")[2]: each["Status"]
        for each in verdigris.deployment(deployment)["SwitchoverDetails"]
    }
    assert statuses == {**dict.fromkeys(BLUE, "AVAILABLE"), "two": "MISSING_TARGET"}
    three = server_named(verdigris, greens["three"])
    verdigris.switch_over(deployment)
    assert shop.reached("ReaderEndpoint") == {three: 4}
    now = clusters(verdigris)
    assert roles(now["shop"]) == {"one": True, "three": False}
    assert roles(now["shop-old1"]) == {"one-old1": True, "two": False, "three-old1": False}
