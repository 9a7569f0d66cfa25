"""Parameter groups from boto3 to the server: what an instance has and its green, before and after a switchover."""

from typing import Any

import psycopg
import pytest

from tests.acceptance.installation import Installation, wait_until


def test_an_instance_and_its_green_have_the_values_of_their_groups(verdigris: Installation) -> None:
    rds = verdigris.rds
    for name, family in (("blues", "postgres17"), ("greens", "postgres18")):
        rds.create_db_parameter_group(DBParameterGroupName=name, DBParameterGroupFamily=family, Description="Ours")
    change(rds, "blues", ("work_mem", "8192", "immediate"), ("max_connections", "60", "pending-reboot"))
    change(rds, "greens", ("work_mem", "16384", "immediate"), ("io_combine_limit", "32", "immediate"))
    verdigris.create_instance("app", "17.10", DBParameterGroupName="blues")
    assert settings(verdigris, "app", "work_mem", "max_connections") == ["8MB", "60"]

    change(rds, "blues", ("work_mem", "32768", "immediate"), ("shared_buffers", "4096", "pending-reboot"))
    wait_until(lambda: status(rds, "app") == "pending-reboot", "a restart is asked for")
    assert settings(verdigris, "app", "work_mem") == ["32MB"]
    assert settings(verdigris, "app", "shared_buffers") != ["32MB"]
    rds.reboot_db_instance(DBInstanceIdentifier="app")
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier="app", WaiterConfig={"Delay": 1})
    wait_until(lambda: status(rds, "app") == "in-sync", "everything is as the group says")
    assert settings(verdigris, "app", "shared_buffers") == ["32MB"]

    deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6", TargetDBParameterGroupName="greens")
    assert group(rds, green) == {"DBParameterGroupName": "greens", "ParameterApplyStatus": "in-sync"}
    assert settings(verdigris, green, "work_mem", "io_combine_limit") == ["16MB", "256kB"]
    assert settings(verdigris, green, "shared_buffers") != ["32MB"], "blue's own value is not green's"
    with pytest.raises(rds.exceptions.InvalidDBParameterGroupStateFault):
        rds.delete_db_parameter_group(DBParameterGroupName="greens")

    change(rds, "greens", ("rds.force_ssl", "1", "immediate"))
    wait_until(lambda: not takes_plain(verdigris, green), "green wants TLS")
    rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
    assert verdigris.await_settled(deployment)["Status"] == "SWITCHOVER_COMPLETED"
    assert not takes_plain(verdigris, "app")
    assert takes_plain(verdigris, "app-old1")
    with verdigris.connect("app", sslmode="require") as connection:
        assert connection.execute("SHOW work_mem").fetchall() == [("16MB",)]


def change(rds: Any, name: str, *changes: tuple[str, str, str]) -> None:
    members = ("ParameterName", "ParameterValue", "ApplyMethod")
    rds.modify_db_parameter_group(
        DBParameterGroupName=name, Parameters=[dict(zip(members, each, strict=True)) for each in changes]
    )


def settings(verdigris: Installation, identifier: str, *names: str) -> list[str]:
    with verdigris.connect(identifier) as connection:
        return [connection.execute(f"SHOW {name}".encode()).fetchall()[0][0] for name in names]


def group(rds: Any, identifier: str) -> dict[str, str]:
    (shown,) = rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
    (group,) = shown["DBParameterGroups"]
    return dict(group)


def status(rds: Any, identifier: str) -> str:
    return group(rds, identifier)["ParameterApplyStatus"]


def takes_plain(verdigris: Installation, identifier: str) -> bool:
    try:
        with verdigris.connect(identifier, sslmode="disable"):
            return True
    except psycopg.OperationalError as error:
        assert "no encryption" in str(error)  # noqa: PT017 (any other refusal is a fault)
        return False
