"""The main job as a user of boto3 sees it, twice in a row, under one load whose clients never lose a connection."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.inspection import Inspector
from tests.acceptance.installation import Installation, wait_until
from verdigris.demo.compare import compare_databases
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload

TASKS = ["CREATING_READ_REPLICA_OF_SOURCE", "DB_ENGINE_VERSION_UPGRADE", "CONFIGURE_BACKUPS"]
ARN = "arn:aws:rds:us-east-1:000000000000:db:"
BLUE_TAGS = [{"Key": "env", "Value": "production"}, {"Key": "team", "Value": "shop"}]
WRITERS, READERS = 4, 4


class Watcher(threading.Thread):
    """Every different answer that DescribeBlueGreenDeployments gives, in order."""

    def __init__(self, verdigris: Installation, identifier: str) -> None:
        super().__init__(name="watcher", daemon=True)
        self.seen: list[dict[str, Any]] = []
        self._verdigris = verdigris
        self._identifier = identifier
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.02):
            deployment = self._verdigris.deployment(self._identifier)
            if deployment not in self.seen[-1:]:
                self.seen.append(deployment)

    def finish(self) -> list[dict[str, Any]]:
        self._stop_asked.set()
        self.join(30)
        return self.seen


@pytest.fixture
def load(verdigris: Installation, tmp_path: Path) -> Iterator[Workload]:
    """Clients at work on instance ``app``, of version 17.10."""
    verdigris.create_instance("app", "17.10", Tags=BLUE_TAGS)
    install_schema(verdigris.dsn("app"))
    with Workload(
        verdigris.dsn("app"),
        writers=WRITERS,
        readers=READERS,
        commits_per_s=100,
        reads_per_s=100,
        directory=tmp_path / "ledgers",
    ) as workload:
        workload.start()
        yield workload


def test_two_upgrades_under_load(verdigris: Installation, load: Workload) -> None:
    blue = verdigris.instance("app")
    first = _create(verdigris, "first", "18.3")
    green = _assert_available(verdigris, first, blue)
    _assert_green_is_for_reading(verdigris, green["DBInstanceIdentifier"])
    verdigris.rds.add_tags_to_resource(
        ResourceName=green["DBInstanceArn"], Tags=[{"Key": "env", "Value": "staging"}, {"Key": "own", "Value": ""}]
    )

    _switch_over(verdigris, first)
    _assert_swapped(verdigris, first, blue, green, old="app-old1")
    _assert_old_is_for_reading(verdigris, "app-old1")
    _assert_events(verdigris, first, green["DBInstanceIdentifier"], old="app-old1", logical=True)
    _forget(verdigris, first, keeping={"app", "app-old1"})
    _await_commits(load)

    # The new production is as good a blue as the old one was; this time green is a standby.
    blue = verdigris.instance("app")
    second = _create(verdigris, "first", "18.6")
    green = _assert_available(verdigris, second, blue)
    _assert_green_is_for_reading(verdigris, green["DBInstanceIdentifier"])
    _switch_over(verdigris, second)
    _assert_swapped(verdigris, second, blue, green, old="app-old2")
    _assert_old_is_for_reading(verdigris, "app-old2")
    _assert_events(verdigris, second, green["DBInstanceIdentifier"], old="app-old2", logical=False)
    _await_commits(load)

    _assert_clients_saw_nothing(verdigris, load)
    traces = {
        name: Inspector(verdigris.home, verdigris.instance(name)["DbiResourceId"]).traces()
        for name in ("app", "app-old1", "app-old2")
    }
    assert traces == {"app": [], "app-old1": [], "app-old2": []}


@pytest.mark.long
def test_the_number_of_an_old_production_is_the_first_free_one(verdigris: Installation) -> None:
    verdigris.create_instance("app", "18.6", BackupRetentionPeriod=0)
    verdigris.create_instance("app-old1", "18.6")
    deployment, _ = verdigris.build_green("app")
    assert verdigris.switch_over(deployment)["Source"] == f"{ARN}app-old2"


# -- the moments of a life cycle


def _create(verdigris: Installation, name: str, version: str) -> str:
    """Returns the identifier when it is AVAILABLE, having seen every answer on the way."""
    answer = verdigris.rds.create_blue_green_deployment(
        BlueGreenDeploymentName=name,
        Source=f"{ARN}app",
        TargetEngineVersion=version,
        Tags=[{"Key": "why", "Value": version}],
    )["BlueGreenDeployment"]
    identifier = str(answer["BlueGreenDeploymentIdentifier"])
    watcher = Watcher(verdigris, identifier)
    watcher.start()
    assert re.fullmatch(r"bgd-[a-z0-9]{16}", identifier)
    assert (answer["BlueGreenDeploymentName"], answer["Status"]) == (name, "PROVISIONING")
    assert answer["Source"] == f"{ARN}app"
    assert "Target" not in answer
    assert "DeleteTime" not in answer
    assert [detail["SourceMember"] for detail in answer["SwitchoverDetails"]] == [f"{ARN}app"]
    assert all("TargetMember" not in detail for detail in answer["SwitchoverDetails"])
    assert answer["Tasks"] == [{"Name": task, "Status": "PENDING"} for task in TASKS]
    assert answer["TagList"] == [{"Key": "why", "Value": version}]
    verdigris.await_deployment(identifier, "AVAILABLE")
    wait_until(lambda: watcher.seen[-1]["Status"] == "AVAILABLE", "the watcher sees it too")
    _assert_building(watcher.finish())
    return identifier


def _assert_building(seen: list[dict[str, Any]]) -> None:
    """Tasks go one after the other and never back; green has its name as soon as it is there."""
    order = ["PENDING", "IN_PROGRESS", "COMPLETED"]
    progress = [[order.index(task["Status"]) for task in answer["Tasks"]] for answer in seen]
    assert progress == sorted(progress)
    assert all(states == sorted(states, reverse=True) for states in progress)
    assert {answer["Status"] for answer in seen} == {"PROVISIONING", "AVAILABLE"}
    building = [answer for answer in seen if "Target" in answer and answer["Status"] == "PROVISIONING"]
    assert building
    for answer in building:
        (detail,) = answer["SwitchoverDetails"]
        assert detail == {"SourceMember": f"{ARN}app", "TargetMember": answer["Target"], "Status": "PROVISIONING"}
        assert "IN_PROGRESS" in {task["Status"] for task in answer["Tasks"]}


def _assert_available(verdigris: Installation, identifier: str, blue: dict[str, Any]) -> dict[str, Any]:
    deployment = verdigris.deployment(identifier)
    assert re.fullmatch(re.escape(ARN) + r"app-green-[0-9a-z]{6}", deployment["Target"])
    assert deployment["SwitchoverDetails"] == [
        {"SourceMember": f"{ARN}app", "TargetMember": deployment["Target"], "Status": "AVAILABLE"}
    ]
    assert {task["Status"] for task in deployment["Tasks"]} == {"COMPLETED"}
    assert "StatusDetails" not in deployment
    green = verdigris.instance(deployment["Target"].rpartition(":")[2])
    assert green["DBInstanceStatus"] == "available"
    assert green["DbiResourceId"] != blue["DbiResourceId"]
    assert green["Endpoint"]["Port"] != blue["Endpoint"]["Port"]
    assert green["ReadReplicaSourceDBInstanceIdentifier"] == "app"
    for member in ("DBInstanceClass", "AllocatedStorage", "MasterUsername", "DBName", "BackupRetentionPeriod"):
        assert green[member] == blue[member]
    return green


def _assert_green_is_for_reading(verdigris: Installation, green: str) -> None:
    with verdigris.connect(green) as connection:
        assert connection.execute("SELECT sum(balance) FROM ledger.accounts").fetchone() == (1_000_000,)
        for statement in (
            "INSERT INTO ledger.receipts VALUES (0)",
            "CREATE TABLE of_mine ()",
            "DROP SCHEMA ledger CASCADE",
        ):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute(statement.encode())


def _switch_over(verdigris: Installation, identifier: str) -> None:
    before = verdigris.deployment(identifier)
    watcher = Watcher(verdigris, identifier)
    watcher.start()
    answer = verdigris.rds.switchover_blue_green_deployment(
        BlueGreenDeploymentIdentifier=identifier.upper(), SwitchoverTimeout=60
    )["BlueGreenDeployment"]
    assert answer == {**before, "Status": "SWITCHOVER_IN_PROGRESS"}
    verdigris.await_deployment(identifier, "SWITCHOVER_COMPLETED")
    wait_until(lambda: watcher.seen[-1]["Status"] == "SWITCHOVER_COMPLETED", "the watcher sees it too")
    statuses = [(answer["Status"], answer["SwitchoverDetails"][0]["Status"]) for answer in watcher.finish()]
    assert set(statuses) <= {
        ("AVAILABLE", "AVAILABLE"),
        ("SWITCHOVER_IN_PROGRESS", "AVAILABLE"),
        ("SWITCHOVER_IN_PROGRESS", "SWITCHOVER_IN_PROGRESS"),
        ("SWITCHOVER_COMPLETED", "SWITCHOVER_COMPLETED"),
    }
    assert statuses[-1] == ("SWITCHOVER_COMPLETED", "SWITCHOVER_COMPLETED")


def _assert_swapped(
    verdigris: Installation, identifier: str, blue: dict[str, Any], green: dict[str, Any], *, old: str
) -> None:
    """Names, endpoint and tags have gone over to green; the resource ids have stayed with the servers."""
    deployment = verdigris.deployment(identifier)
    assert (deployment["Source"], deployment["Target"]) == (f"{ARN}{old}", f"{ARN}app")
    assert deployment["SwitchoverDetails"] == [
        {"SourceMember": f"{ARN}{old}", "TargetMember": f"{ARN}app", "Status": "SWITCHOVER_COMPLETED"}
    ]
    assert {task["Status"] for task in deployment["Tasks"]} == {"COMPLETED"}
    now, retired = verdigris.instance("app"), verdigris.instance(old)
    assert now["Endpoint"] == blue["Endpoint"]
    assert retired["Endpoint"]["Port"] not in (blue["Endpoint"]["Port"], green["Endpoint"]["Port"])
    assert (now["DbiResourceId"], retired["DbiResourceId"]) == (green["DbiResourceId"], blue["DbiResourceId"])
    assert (now["EngineVersion"], retired["EngineVersion"]) == (green["EngineVersion"], blue["EngineVersion"])
    assert (now["DBInstanceStatus"], retired["DBInstanceStatus"]) == ("available", "available")
    assert now["DBInstanceArn"] == blue["DBInstanceArn"]
    assert "ReadReplicaSourceDBInstanceIdentifier" not in now
    assert retired["ReadReplicaDBInstanceIdentifiers"] == []
    for resource in (now, retired):
        tags = verdigris.rds.list_tags_for_resource(ResourceName=resource["DBInstanceArn"])["TagList"]
        assert sorted(tags, key=lambda tag: str(tag["Key"])) == BLUE_TAGS
    with pytest.raises(verdigris.rds.exceptions.DBInstanceNotFoundFault):
        verdigris.instance(green["DBInstanceIdentifier"])
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(verdigris.dsn("app", port=green["Endpoint"]["Port"]), connect_timeout=5)


def _assert_old_is_for_reading(verdigris: Installation, old: str) -> None:
    """Also after a reboot, and also for sessions that come first thing afterwards."""
    for reboot in (False, True):
        if reboot:
            verdigris.rds.reboot_db_instance(DBInstanceIdentifier=old)
            wait_until(lambda: verdigris.instance(old)["DBInstanceStatus"] == "available", f"{old} is back")
        with verdigris.connect(old) as connection:
            assert connection.execute("SELECT sum(balance) FROM ledger.accounts").fetchone() == (1_000_000,)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused:
                connection.execute("INSERT INTO ledger.receipts VALUES (0)")
            assert refused.value.sqlstate == "25006"


def _assert_events(verdigris: Installation, identifier: str, green: str, *, old: str, logical: bool) -> None:
    events = verdigris.rds.describe_events(
        SourceType="blue-green-deployment", SourceIdentifier=identifier, Duration=60
    )["Events"]
    sequences = "Synchronization of sequences to app"
    completed = (
        "Blue/green deployment tasks completed. You can make more modifications to the green environment databases or"
        " switch over the deployment."
    )
    renamed = f"Renamed app to {old} and {green} to app."
    expected = [
        ("creation", completed),
        ("notification", f"Switchover from app to {green} started."),
        ("notification", f"Switchover from primary app to {green} started."),
        *([("notification", f"{sequences} initiated."), ("notification", f"{sequences} completed.")] * logical),
        ("notification", f"Switchover from primary app to {green} completed. {renamed}"),
        ("notification", "Switchover completed on blue/green deployment."),
    ]
    assert [(event["EventCategories"], event["Message"]) for event in events] == [([c], m) for c, m in expected]
    assert {event["SourceType"] for event in events} == {"blue-green-deployment"}


def _forget(verdigris: Installation, identifier: str, *, keeping: set[str]) -> None:
    """After a switchover only the record goes."""
    with pytest.raises(verdigris.rds.exceptions.InvalidBlueGreenDeploymentStateFault):
        verdigris.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier, DeleteTarget=True)
    answer = verdigris.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier)["BlueGreenDeployment"]
    assert answer["Status"] == "DELETING"
    assert "DeleteTime" in answer
    assert answer["SwitchoverDetails"][0]["Status"] == "SWITCHOVER_COMPLETED"
    wait_until(lambda: not _exists(verdigris, identifier), "the deployment's record goes")
    instances = verdigris.rds.describe_db_instances()["DBInstances"]
    assert {instance["DBInstanceIdentifier"] for instance in instances} == keeping


def _exists(verdigris: Installation, identifier: str) -> bool:
    try:
        verdigris.deployment(identifier)
    except verdigris.rds.exceptions.BlueGreenDeploymentNotFoundFault:
        return False
    return True


# -- the clients


def _await_commits(load: Workload, count: int = 100) -> None:
    enough = load.progress().acknowledged + count
    wait_until(lambda: load.progress().acknowledged >= enough, f"{count} more commits")


def _assert_clients_saw_nothing(verdigris: Installation, load: Workload) -> None:
    result = load.stop()
    verdict = verify_ledger(verdigris.dsn("app"), result)
    assert verdict.breaches == ()
    assert verdict.found == verdict.acknowledged > 500
    assert verify_clients(result) == []
    assert result.connections_dropped == 0
    versions = result.kept_connections
    assert len(versions) == WRITERS + READERS
    assert {tuple(seen) for seen in versions.values()} == {("17.10", "18.3", "18.6")}
    compared = compare_databases(verdigris.dsn("app-old2"), verdigris.dsn("app"))
    assert compared.breaches == ()
    assert compared.rows_compared > 500
