"""StopDBInstance and StartDBInstance on a real server, by boto3."""

import psycopg
import pytest

from tests.acceptance.installation import Installation


def runs(verdigris: Installation, resource_id: str) -> bool:
    data = verdigris.home / "instances" / resource_id / "data"
    assert (data / "PG_VERSION").exists()
    return (data / "postmaster.pid").exists()


def test_a_stopped_instance_stays_stopped_until_it_is_started(verdigris: Installation) -> None:
    """With its port, data, settings and events; over a restart of the control plane and after a deletion's refusal."""
    rds = verdigris.rds
    verdigris.create_instance("app", "17.10")
    before, resource_id = verdigris.instance("app"), verdigris.resource_id("app")
    with verdigris.connect("app") as held:
        held.execute("CREATE TABLE t AS SELECT 1 AS id")
        held.commit()
        assert runs(verdigris, resource_id)
        assert rds.stop_db_instance(DBInstanceIdentifier="app")["DBInstance"]["DBInstanceStatus"] == "stopping"
        verdigris.await_instance("app", "stopped")
        with pytest.raises(psycopg.errors.AdminShutdown):
            held.execute("SELECT 1")
    assert not runs(verdigris, resource_id)

    verdigris.restart()
    assert verdigris.instance("app")["DBInstanceStatus"] == "stopped"
    assert not runs(verdigris, resource_id)
    with pytest.raises(psycopg.OperationalError, match="not accepting connections"):
        verdigris.connect("app")

    rds.create_db_parameter_group(DBParameterGroupName="mine", DBParameterGroupFamily="postgres17", Description="x")
    values = [
        {"ParameterName": "work_mem", "ParameterValue": "8192", "ApplyMethod": "immediate"},
        {"ParameterName": "max_connections", "ParameterValue": "60", "ApplyMethod": "pending-reboot"},
    ]
    rds.modify_db_parameter_group(DBParameterGroupName="mine", Parameters=values)
    rds.modify_db_instance(DBInstanceIdentifier="app", DBParameterGroupName="mine", ApplyImmediately=True)
    assert not runs(verdigris, resource_id)

    assert rds.start_db_instance(DBInstanceIdentifier="app")["DBInstance"]["DBInstanceStatus"] == "starting"
    rds.get_waiter("db_instance_available").wait(
        DBInstanceIdentifier="app", WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    after = verdigris.instance("app")
    assert (after["Endpoint"], after["DbiResourceId"]) == (before["Endpoint"], before["DbiResourceId"])
    with verdigris.connect("app") as connection:
        assert connection.execute(
            "SELECT id, current_setting('work_mem'), current_setting('max_connections') FROM t"
        ).fetchall() == [(1, "8MB", "60")]
    messages = [
        event["Message"] for event in rds.describe_events(SourceIdentifier="app", SourceType="db-instance")["Events"]
    ]
    assert messages[-2:] == ["DB instance stopped", "DB instance started"]


def test_a_stopped_instance_can_be_deleted(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    verdigris.rds.stop_db_instance(DBInstanceIdentifier="app")
    verdigris.await_instance("app", "stopped")
    verdigris.delete_instance("app")
    for directory in ("instances", "run"):
        assert list((verdigris.home / directory).iterdir()) == []
