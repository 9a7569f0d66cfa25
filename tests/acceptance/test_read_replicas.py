"""Read replicas through the API, on real servers: their life, whoever dies in it, and what stays behind."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.installation import Installation, installation, wait_until
from tests.acceptance.inventory import Unchanged, admin
from tests.acceptance.serve_log import ServeLog

VERSION = "17.10"


@pytest.fixture(scope="module")
def verdigris() -> Iterator[Installation]:
    with installation() as verdigris:
        yield verdigris


@pytest.fixture
def source(verdigris: Installation) -> Iterator[str]:
    """With a table. Whatever is there at the end is deleted one by one, as a user would, and leaves nothing."""
    verdigris.create_instance("app", VERSION)
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    yield "app"
    for instance in verdigris.rds.describe_db_instances()["DBInstances"]:
        verdigris.delete_instance(instance["DBInstanceIdentifier"])
    for directory in ("instances", "run"):
        assert list((verdigris.home / directory).iterdir()) == []


def begin_replica(verdigris: Installation, identifier: str, source: str = "app", **members: Any) -> dict[str, Any]:
    answer: dict[str, Any] = verdigris.rds.create_db_instance_read_replica(
        DBInstanceIdentifier=identifier, SourceDBInstanceIdentifier=source, **members
    )["DBInstance"]
    return answer


def create_replica(verdigris: Installation, identifier: str, source: str = "app", **members: Any) -> None:
    begin_replica(verdigris, identifier, source, **members)
    verdigris.await_instance(identifier)


def insert(verdigris: Installation, identifier: str, number: int) -> None:
    with verdigris.connect(identifier) as connection:
        connection.execute("INSERT INTO t VALUES (%s)", [number])


def rows(verdigris: Installation, identifier: str) -> list[int]:
    with verdigris.connect(identifier) as connection:
        return [number for (number,) in connection.execute("SELECT id FROM t ORDER BY id")]


def await_rows(verdigris: Installation, identifier: str, numbers: list[int]) -> None:
    def has_them() -> bool:
        try:
            return rows(verdigris, identifier) == numbers
        except psycopg.OperationalError:
            return False  # one that comes back from a crash

    wait_until(has_them, f"{identifier} has {numbers}", limit_s=30)


def slots(verdigris: Installation, identifier: str) -> list[str]:
    with admin(verdigris, verdigris.resource_id(identifier)) as connection:
        return [name for (name,) in connection.execute("SELECT slot_name FROM pg_replication_slots")]


def replication(verdigris: Installation, identifier: str) -> str:
    [info] = verdigris.instance(identifier)["StatusInfos"]
    return str(info["Status"])


def messages(verdigris: Installation, identifier: str) -> list[str]:
    events = verdigris.rds.describe_events(SourceIdentifier=identifier, SourceType="db-instance", Duration=60)
    return [event["Message"] for event in events["Events"]]


def postmaster(verdigris: Installation, identifier: str) -> int:
    pidfile = verdigris.home / "instances" / verdigris.resource_id(identifier) / "data" / "postmaster.pid"
    return int(pidfile.read_text().split()[0])


def test_a_life(verdigris: Installation, source: str) -> None:
    insert(verdigris, source, 1)
    with Unchanged(verdigris, source, host=False):
        assert (
            begin_replica(verdigris, "copy", verdigris.instance(source)["DBInstanceArn"])["DBInstanceStatus"]
            == "creating"
        )
        verdigris.rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier="copy", WaiterConfig={"Delay": 1})
        shown = verdigris.instance("copy")
        assert shown["ReadReplicaSourceDBInstanceIdentifier"] == source
        assert shown["Endpoint"]["Port"] != verdigris.instance(source)["Endpoint"]["Port"]
        assert verdigris.instance(source)["ReadReplicaDBInstanceIdentifiers"] == ["copy"]
        assert replication(verdigris, "copy") == "replicating"
        assert "Replication for the Read Replica resumed." in messages(verdigris, "copy")
        insert(verdigris, source, 2)
        await_rows(verdigris, "copy", [1, 2])
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            insert(verdigris, "copy", 3)

        for old, new in (("app", "app2"), ("copy", "copy2")):
            verdigris.rds.modify_db_instance(
                DBInstanceIdentifier=old, NewDBInstanceIdentifier=new, ApplyImmediately=True
            )
            verdigris.await_instance(new)
        for identifier in ("app2", "copy2"):
            verdigris.rds.reboot_db_instance(DBInstanceIdentifier=identifier)
            verdigris.await_instance(identifier)
        insert(verdigris, "app2", 3)
        await_rows(verdigris, "copy2", [1, 2, 3])
        status = verdigris.command("status").stdout
        assert "copy2" in status
        assert "replicating" in status

        verdigris.rds.promote_read_replica(DBInstanceIdentifier="copy2")
        assert verdigris.instance("copy2")["DBInstanceStatus"] in ("modifying", "available")
        verdigris.await_instance("copy2")
        assert "ReadReplicaSourceDBInstanceIdentifier" not in verdigris.instance("copy2")
        insert(verdigris, "copy2", 4)
        verdigris.rds.modify_db_instance(
            DBInstanceIdentifier="app2", NewDBInstanceIdentifier="app", ApplyImmediately=True
        )
        verdigris.await_instance("app")
    assert rows(verdigris, "app") == [1, 2, 3]
    verdigris.rds.reboot_db_instance(DBInstanceIdentifier="copy2")
    verdigris.await_instance("copy2")
    assert rows(verdigris, "copy2") == [1, 2, 3, 4]


def test_a_deleted_replica_leaves_nothing_on_its_source(verdigris: Installation, source: str) -> None:
    with Unchanged(verdigris, source):
        create_replica(verdigris, "copy")
        create_replica(verdigris, "other")
        verdigris.delete_instance("copy")
        insert(verdigris, source, 1)
        await_rows(verdigris, "other", [1])
        assert len(slots(verdigris, source)) == 1
        verdigris.delete_instance("other")


def test_a_deleted_source_leaves_servers_of_their_own(verdigris: Installation, source: str) -> None:
    """With everything that it has acknowledged."""
    for identifier in ("copy", "other"):
        create_replica(verdigris, identifier)
    with verdigris.connect(source) as connection:
        connection.execute("INSERT INTO t SELECT g FROM generate_series(1, 20000) g")
    verdigris.delete_instance(source)
    for identifier in ("copy", "other"):
        verdigris.await_instance(identifier)
        assert "ReadReplicaSourceDBInstanceIdentifier" not in verdigris.instance(identifier)
        insert(verdigris, identifier, 0)
        assert rows(verdigris, identifier) == [*range(20001)]


@pytest.mark.parametrize("victim", ["app", "copy"])
def test_it_follows_again_when_either_has_died(verdigris: Installation, source: str, victim: str) -> None:
    create_replica(verdigris, "copy")
    insert(verdigris, source, 1)
    pid = postmaster(verdigris, victim)
    os.kill(pid, signal.SIGKILL)
    verdigris.await_connection(victim)
    insert(verdigris, source, 2)
    await_rows(verdigris, "copy", [1, 2])
    assert postmaster(verdigris, victim) != pid
    wait_until(lambda: replication(verdigris, "copy") == "replicating", "it replicates")


def test_trouble_is_shown_for_as_long_as_it_lasts(verdigris: Installation, source: str) -> None:
    create_replica(verdigris, "watched")
    pid = postmaster(verdigris, source)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: replication(verdigris, "watched") == "error", "trouble is shown", limit_s=90)
        assert verdigris.instance("watched")["StatusInfos"][0]["Normal"] is False
        assert verdigris.instance("watched")["StatusInfos"][0]["Message"]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: replication(verdigris, "watched") == "replicating", "it replicates again")
    told = [message for message in messages(verdigris, "watched") if message.startswith("Replication")]
    assert [message.split(".")[0] for message in told] == [
        "Replication for the Read Replica resumed",
        "Replication has stopped",
        "Replication for the Read Replica resumed",
    ]


def test_it_outlives_the_control_plane(verdigris: Installation, source: str) -> None:
    """Killed at every step of every kind of work; replication goes on without one."""
    log = ServeLog(verdigris.log_path)

    def survive(kind: str, *steps: str) -> None:
        for step in steps:
            log.wait_for("workflow.step_started", kind=kind, step=step)
            verdigris.kill()
            verdigris.start()

    with Unchanged(verdigris, source, host=False):
        for identifier in ("copy", "other"):
            begin_replica(verdigris, identifier)
            survive("create_read_replica", "copy", "endpoint")
            verdigris.await_instance(identifier)
        source_dsn, copy_dsn = verdigris.dsn(source), verdigris.dsn("copy")
        verdigris.kill()
        with psycopg.connect(source_dsn, autocommit=True) as connection:
            connection.execute("INSERT INTO t VALUES (1)")

        def arrived() -> bool:
            with psycopg.connect(copy_dsn) as connection:
                return connection.execute("SELECT id FROM t").fetchall() == [(1,)]

        wait_until(arrived, "the row arrives without a control plane")
        verdigris.start()
        verdigris.rds.promote_read_replica(DBInstanceIdentifier="copy")
        survive("promote_read_replica", "promote")
        verdigris.await_instance("copy")
        insert(verdigris, "copy", 2)
        verdigris.rds.delete_db_instance(DBInstanceIdentifier="other", SkipFinalSnapshot=True)
        survive("delete_instance", "endpoint", "server", "source")
        verdigris.await_no_instance("other")
    create_replica(verdigris, "third")
    verdigris.rds.delete_db_instance(DBInstanceIdentifier=source, SkipFinalSnapshot=True)
    survive("delete_instance", "replicas", "server")
    verdigris.await_no_instance(source)
    verdigris.await_instance("third")
    insert(verdigris, "third", 2)


def test_down_and_up(verdigris: Installation, source: str) -> None:
    create_replica(verdigris, "copy")
    insert(verdigris, source, 1)
    assert verdigris.command("down").returncode == 0
    verdigris.kill()
    verdigris.start()
    insert(verdigris, source, 2)
    await_rows(verdigris, "copy", [1, 2])


def test_a_failed_creation_leaves_its_record_alone(verdigris: Installation, source: str) -> None:
    log = ServeLog(verdigris.log_path)
    with Unchanged(verdigris, source):
        begin_replica(verdigris, "unlucky")
        log.wait_for("workflow.step_started", kind="create_read_replica", step="copy")
        wait_until(lambda: bool(_copying(verdigris.home)), "the copy is being taken")
        for pid in _copying(verdigris.home):
            os.kill(pid, signal.SIGKILL)
        verdigris.await_instance("unlucky", "failed")
        log.wait_for("workflow.ended", kind="create_read_replica")
        assert verdigris.instance(source)["ReadReplicaDBInstanceIdentifiers"] == []
        assert slots(verdigris, source) == []
        told = [
            message for message in messages(verdigris, "unlucky") if message.startswith("Read replica creation failed")
        ]
        assert len(told) == 1
        verdigris.delete_instance("unlucky")


def _copying(home: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"pg_basebackup" in command and str(home).encode() in command:
                found.append(int(entry.name))
    return found


def test_a_source_that_grows_takes_its_replica_along(verdigris: Installation, source: str) -> None:
    """With fewer connections than its primary a standby stops replaying, and does not start again."""
    for name in ("more", "fewer"):
        verdigris.rds.create_db_parameter_group(
            DBParameterGroupName=name, DBParameterGroupFamily="postgres17", Description=name
        )
    try:
        set_connections(verdigris, "fewer", 51)
        create_replica(verdigris, "copy", DBParameterGroupName="fewer", DBInstanceClass="db.t3.micro")
        with verdigris.connect("copy") as connection:
            [(before,)] = connection.execute("SELECT current_setting('max_connections')::int").fetchall()
        assert before > 51
        set_connections(verdigris, "more", before + 33)
        verdigris.rds.modify_db_instance(DBInstanceIdentifier=source, DBParameterGroupName="more")
        wait_until(lambda: parameter_status(verdigris, source) == "pending-reboot", "the group waits for a reboot")
        verdigris.rds.reboot_db_instance(DBInstanceIdentifier=source)
        verdigris.await_instance(source)
        insert(verdigris, source, 1)
        await_rows(verdigris, "copy", [1])

        def has_grown() -> bool:
            try:
                with verdigris.connect("copy") as connection:
                    shown = connection.execute("SELECT current_setting('max_connections')::int").fetchall()
            except psycopg.OperationalError:
                return False
            return bool(shown == [(before + 33,)])

        wait_until(has_grown, "the replica has as many")
        verdigris.rds.promote_read_replica(DBInstanceIdentifier="copy")
        verdigris.await_instance("copy")
        insert(verdigris, "copy", 2)
    finally:
        for identifier in (source, "copy"):
            verdigris.delete_instance(identifier)
        for name in ("more", "fewer"):
            verdigris.rds.delete_db_parameter_group(DBParameterGroupName=name)


def set_connections(verdigris: Installation, group: str, number: int) -> None:
    verdigris.rds.modify_db_parameter_group(
        DBParameterGroupName=group,
        Parameters=[
            {"ParameterName": "max_connections", "ParameterValue": str(number), "ApplyMethod": "pending-reboot"}
        ],
    )


def parameter_status(verdigris: Installation, identifier: str) -> str:
    return str(verdigris.instance(identifier)["DBParameterGroups"][0]["ParameterApplyStatus"])
