"""Deployments of a primary with read replicas, through the API, on real servers."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.acceptance.clients import Client, read, write
from tests.acceptance.installation import Installation, installation, wait_until
from tests.acceptance.inventory import Unchanged, admin
from tests.acceptance.serve_log import ServeLog

ARN = "arn:aws:rds:us-east-1:000000000000:db:"
READERS = ("reader-a", "reader-b")


@pytest.fixture(scope="module")
def verdigris() -> Iterator[Installation]:
    with installation() as verdigris:
        yield verdigris


@pytest.fixture
def source(verdigris: Installation) -> Iterator[str]:
    """``app`` with two replicas and a table. Whatever is there at the end is deleted one by one, as a user would."""
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    for reader in READERS:
        verdigris.rds.create_db_instance_read_replica(
            DBInstanceIdentifier=reader, SourceDBInstanceIdentifier="app", DBInstanceClass="db.t3.small"
        )
    for reader in READERS:
        verdigris.await_instance(reader)
    yield "app"
    for instance in verdigris.rds.describe_db_instances()["DBInstances"]:
        verdigris.delete_instance(instance["DBInstanceIdentifier"])
    for directory in ("instances", "run"):
        assert list((verdigris.home / directory).iterdir()) == []


def members(verdigris: Installation, deployment: str) -> list[tuple[str, str]]:
    """Names of source and target, the primary first."""
    details = verdigris.deployment(deployment)["SwitchoverDetails"]
    return [(name(detail["SourceMember"]), name(detail["TargetMember"])) for detail in details]


def name(arn: str) -> str:
    return arn.removeprefix(ARN)


def rows(verdigris: Installation, identifier: str) -> list[int]:
    with verdigris.connect(identifier) as connection:
        return [number for (number,) in connection.execute("SELECT id FROM t ORDER BY id")]


def await_rows(verdigris: Installation, identifier: str, numbers: list[int]) -> None:
    wait_until(lambda: rows(verdigris, identifier) == numbers, f"{identifier} has {numbers}")


def slots(verdigris: Installation, identifier: str) -> int:
    with admin(verdigris, verdigris.resource_id(identifier)) as connection:
        [(count,)] = connection.execute("SELECT count(*) FROM pg_replication_slots").fetchall()
        return int(count)


def test_green_gets_as_many_replicas(verdigris: Installation, source: str) -> None:
    version = "18.6"
    with Unchanged(verdigris, source):
        deployment, green = verdigris.build_green(source, TargetEngineVersion=version)
        shown = verdigris.deployment(deployment)
        assert [task["Name"] for task in shown["Tasks"]][-1] == "CREATING_TOPOLOGY_OF_SOURCE"
        assert {task["Status"] for task in shown["Tasks"]} == {"COMPLETED"}
        assert {detail["Status"] for detail in shown["SwitchoverDetails"]} == {"AVAILABLE"}
        pairs = members(verdigris, deployment)
        assert [blue for blue, _ in pairs] == [source, *READERS]
        assert all(re.fullmatch(rf"{blue}-green-[0-9a-z]{{6}}", copy) for blue, copy in pairs)
        copies = [copy for _, copy in pairs[1:]]
        assert verdigris.instance(green)["ReadReplicaDBInstanceIdentifiers"] == copies
        for copy in copies:
            assert verdigris.instance(copy)["ReadReplicaSourceDBInstanceIdentifier"] == green
            assert verdigris.instance(copy)["EngineVersion"] == version
            assert verdigris.instance(copy)["DBInstanceClass"] == "db.t3.small"
        with verdigris.connect(source) as connection:
            connection.execute("INSERT INTO t VALUES (1)")
        for copy in copies:
            await_rows(verdigris, copy, [1])
            with verdigris.connect(copy) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("INSERT INTO t VALUES (2)")
        verdigris.delete_deployment(deployment, DeleteTarget=True)
        left = [each["DBInstanceIdentifier"] for each in verdigris.rds.describe_db_instances()["DBInstances"]]
        assert left == [source, *READERS]
        with verdigris.connect(source) as connection:
            connection.execute("DELETE FROM t")


def test_green_set_free_keeps_its_replicas(verdigris: Installation, source: str) -> None:
    deployment, green = verdigris.build_green(source)
    copies = [copy for _, copy in members(verdigris, deployment)[1:]]
    verdigris.delete_deployment(deployment)
    with verdigris.connect(green) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    for copy in copies:
        await_rows(verdigris, copy, [1])
    assert slots(verdigris, source) == slots(verdigris, green) == len(READERS)


@pytest.mark.parametrize("version", ["17.10", "18.6"])
def test_readers_go_along(verdigris: Installation, source: str, version: str) -> None:
    """The control plane is killed in the pause, and production goes on; and again right after the commit."""
    log = ServeLog(verdigris.log_path)
    deployment, _ = verdigris.build_green(source, TargetEngineVersion=version)
    pairs = members(verdigris, deployment)
    before = {identifier: verdigris.instance(identifier) for pair in pairs for identifier in pair}
    clients = [Client(verdigris.dsn(source), write), *(Client(verdigris.dsn(reader), read) for reader in READERS)]
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
            assert members(verdigris, deployment) == pairs
    assert status == "SWITCHOVER_COMPLETED"
    for client in clients:
        client.goes_on()
    written = clients[0].end()
    for client in clients[1:]:
        client.reaches(written)
        client.end()

    assert members(verdigris, deployment) == [(f"{name}-old1", name) for name, _ in pairs]
    for name, copy in pairs:
        now = verdigris.instance(name)
        assert now["DbiResourceId"] == before[copy]["DbiResourceId"]
        assert (now["Endpoint"], now["EngineVersion"]) == (before[name]["Endpoint"], version)
        assert verdigris.instance(f"{name}-old1")["DbiResourceId"] == before[name]["DbiResourceId"]
    assert verdigris.instance(source)["ReadReplicaDBInstanceIdentifiers"] == [*READERS]
    assert verdigris.instance("app-old1")["ReadReplicaDBInstanceIdentifiers"] == [f"{name}-old1" for name in READERS]
    with verdigris.connect(source) as connection:
        connection.execute("INSERT INTO t VALUES (0)")
    everything = list(range(written + 1))
    for reader in READERS:
        await_rows(verdigris, reader, everything)
        await_rows(verdigris, f"{reader}-old1", rows(verdigris, "app-old1"))
    verdigris.delete_deployment(deployment)
    assert slots(verdigris, source) == slots(verdigris, "app-old1") == len(READERS)


def test_who_has_lost_a_side_stays_behind(verdigris: Installation, source: str) -> None:
    """And who was added to green stays with it."""
    deployment, green = verdigris.build_green(source)
    _, (_, copy_a), (_, copy_b) = members(verdigris, deployment)
    verdigris.rds.create_db_instance_read_replica(DBInstanceIdentifier="more", SourceDBInstanceIdentifier=green)
    verdigris.await_instance("more")
    for gone in ("reader-a", copy_b):
        verdigris.delete_instance(gone)
    shown = verdigris.deployment(deployment)
    assert shown["Status"] == "AVAILABLE"
    assert [detail["Status"] for detail in shown["SwitchoverDetails"]] == [
        "AVAILABLE",
        "MISSING_SOURCE",
        "MISSING_TARGET",
    ]
    shown = verdigris.switch_over(deployment)
    assert [detail["Status"] for detail in shown["SwitchoverDetails"]] == [
        "SWITCHOVER_COMPLETED",
        "MISSING_SOURCE",
        "MISSING_TARGET",
    ]
    assert verdigris.instance(source)["ReadReplicaDBInstanceIdentifiers"] == sorted(["more", copy_a])
    assert verdigris.instance("app-old1")["ReadReplicaDBInstanceIdentifiers"] == ["reader-b"]
    with verdigris.connect(source) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    for identifier in ("more", copy_a):
        await_rows(verdigris, identifier, [1])
    assert rows(verdigris, "reader-b") == []
    verdigris.delete_deployment(deployment)
