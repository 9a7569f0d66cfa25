"""DB parameter groups through the API; servers are fakes."""

from typing import Any

import pytest

from tests.unit.rds.world import APP_ARN, World
from verdigris.domain.parameters import ApplyMethod, ApplyStatus, ParameterValue

PG_ARN = "arn:aws:rds:us-east-1:123456789012:pg:"


def create(world: World, name: str = "mine", family: str = "postgres17", **params: Any) -> dict[str, Any]:
    answer = world.call(
        "CreateDBParameterGroup",
        DBParameterGroupName=name,
        DBParameterGroupFamily=family,
        Description="Ours",
        **params,
    )
    return dict(answer["DBParameterGroup"])


def change(name: str, value: str | None, method: str = "immediate") -> dict[str, str]:
    given = {"ParameterName": name, "ParameterValue": value, "ApplyMethod": method}
    return {member: each for member, each in given.items() if each is not None}


def modify(world: World, *changes: dict[str, str], name: str = "mine") -> None:
    world.call("ModifyDBParameterGroup", DBParameterGroupName=name, Parameters=list(changes))


def parameters(world: World, name: str = "mine", **params: Any) -> dict[str, dict[str, Any]]:
    shown = world.call("DescribeDBParameters", DBParameterGroupName=name, **params)["Parameters"]
    return {view["ParameterName"]: view for view in shown}


def test_a_new_group_is_shown_beside_the_default_ones(world: World) -> None:
    assert create(world, "Mine", Tags=[{"Key": "stage", "Value": "prod"}]) == {
        "DBParameterGroupName": "mine",
        "DBParameterGroupFamily": "postgres17",
        "Description": "Ours",
        "DBParameterGroupArn": PG_ARN + "mine",
    }
    shown = world.call("DescribeDBParameterGroups")["DBParameterGroups"]
    assert [group["DBParameterGroupName"] for group in shown] == [
        "default.postgres16", "default.postgres17", "default.postgres18", "mine",
    ]  # fmt: skip
    assert world.call("DescribeDBParameterGroups", DBParameterGroupName=PG_ARN + "mine")["DBParameterGroups"] == [
        shown[-1]
    ]
    tags = world.call("ListTagsForResource", ResourceName=PG_ARN + "mine")["TagList"]
    assert tags == [{"Key": "stage", "Value": "prod"}]
    world.call("AddTagsToResource", ResourceName=PG_ARN + "mine", Tags=[{"Key": "own", "Value": ""}])
    assert len(world.call("ListTagsForResource", ResourceName=PG_ARN + "mine")["TagList"]) == 2


@pytest.mark.parametrize(
    ("name", "family", "code"),
    [
        ("1st", "postgres17", "InvalidParameterValue"),
        ("two--hyphens", "postgres17", "InvalidParameterValue"),
        ("default.postgres17", "postgres17", "InvalidParameterValue"),
        ("x" * 256, "postgres17", "InvalidParameterValue"),
        ("taken", "postgres17", "DBParameterGroupAlreadyExists"),
        ("mine", "postgres9", "InvalidParameterValue"),
        ("mine", "mysql8.4", "InvalidParameterValue"),
    ],
)
def test_groups_that_cannot_be(world: World, name: str, family: str, code: str) -> None:
    create(world, "taken")
    with world.refused(code):
        create(world, name, family)


def test_a_group_shows_its_own_values_those_of_the_default_group_and_the_engines(world: World) -> None:
    create(world)
    modify(
        world, change("Work_Mem", "8192"), change("shared_buffers", "{DBInstanceClassMemory/16384}", "pending-reboot")
    )
    shown = parameters(world)
    assert shown["work_mem"] == {
        "ParameterName": "work_mem",
        "ParameterValue": "8192",
        "Description": "Sets work_mem.",
        "Source": "user",
        "ApplyType": "dynamic",
        "DataType": "integer",
        "AllowedValues": "64-2147483647",
        "IsModifiable": True,
        "ApplyMethod": "immediate",
    }
    assert shown["shared_buffers"]["ParameterValue"] == "{DBInstanceClassMemory/16384}"
    assert parameters(world, "default.postgres17")["shared_buffers"]["Source"] == "system"
    assert set(parameters(world, Source="user")) == {"work_mem", "shared_buffers"}
    assert "autovacuum" in parameters(world, Source="engine-default")
    assert shown["rds.logical_replication"]["ParameterValue"] == "1"
    defaults = world.call("DescribeEngineDefaultParameters", DBParameterGroupFamily="postgres17")["EngineDefaults"]
    assert {view["ParameterName"] for view in defaults["Parameters"]} == set(shown)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([], "MissingParameter"),
        ([change("no_such_thing", "1")], "InvalidParameterValue"),
        ([change("wal_level", "minimal", "pending-reboot")], "InvalidParameterValue"),
        ([change("work_mem", "1")], "InvalidParameterValue"),
        ([change("work_mem", None)], "MissingParameter"),
        ([change("work_mem", "8192", "sometimes")], "ValidationError"),
        ([change("work_mem", "8192"), change("wal_compression", "zip")], "InvalidParameterValue"),
        ([change("shared_buffers", "128")], "InvalidParameterCombination"),
        ([{"ParameterName": "work_mem", "ParameterValue": "8192"}], "MissingParameter"),
        ([{"ParameterValue": "8192", "ApplyMethod": "immediate"}], "MissingParameter"),
        ([change("work_mem", "8192")] * 21, "InvalidParameterValue"),
    ],
)
def test_changes_that_are_refused_change_nothing(world: World, changes: list[dict[str, str]], code: str) -> None:
    create(world)
    with world.refused(code):
        modify(world, *changes)
    assert parameters(world, Source="user") == {}


def test_default_groups_stay_as_they_are(world: World) -> None:
    with world.refused("InvalidDBParameterGroupState"):
        modify(world, change("work_mem", "8192"), name="default.postgres17")
    with world.refused("InvalidDBParameterGroupState"):
        world.call("ResetDBParameterGroup", DBParameterGroupName="default.postgres17")
    with world.refused("InvalidDBParameterGroupState"):
        world.call("DeleteDBParameterGroup", DBParameterGroupName="default.postgres17")


def test_a_reset_of_some_and_of_all(world: World) -> None:
    create(world)
    modify(world, change("work_mem", "8192"), change("autovacuum", "0"), change("wal_compression", "lz4"))
    world.call(
        "ResetDBParameterGroup",
        DBParameterGroupName="mine",
        Parameters=[{"ParameterName": "autovacuum", "ApplyMethod": "immediate"}],
    )
    assert set(parameters(world, Source="user")) == {"work_mem", "wal_compression"}
    with world.refused("MissingParameter"):
        world.call("ResetDBParameterGroup", DBParameterGroupName="mine", ResetAllParameters=False)
    world.call("ResetDBParameterGroup", DBParameterGroupName="mine")
    assert parameters(world, Source="user") == {}


def test_a_copy_has_the_values_but_not_the_tags(world: World) -> None:
    create(world, Tags=[{"Key": "stage", "Value": "prod"}])
    modify(world, change("work_mem", "8192"))
    world.call(
        "CopyDBParameterGroup",
        SourceDBParameterGroupIdentifier=PG_ARN + "mine",
        TargetDBParameterGroupIdentifier="copy",
        TargetDBParameterGroupDescription="Theirs",
    )
    assert parameters(world, "copy")["work_mem"]["ParameterValue"] == "8192"
    assert world.call("ListTagsForResource", ResourceName=PG_ARN + "copy")["TagList"] == []
    with world.refused("DBParameterGroupAlreadyExists"):
        world.call(
            "CopyDBParameterGroup",
            SourceDBParameterGroupIdentifier="mine",
            TargetDBParameterGroupIdentifier="copy",
            TargetDBParameterGroupDescription="",
        )


def test_an_instance_follows_its_group(world: World) -> None:
    create(world)
    app = world.create_instance(DBParameterGroupName="Mine")
    assert (app.parameter_group, app.parameter_status) == ("mine", ApplyStatus.IN_SYNC)
    modify(world, change("work_mem", "8192"))
    assert world.instance("app").parameter_status is ApplyStatus.APPLYING
    with world.refused("InvalidDBParameterGroupState", "mine"):
        world.call("DeleteDBParameterGroup", DBParameterGroupName="mine")
    world.call("ModifyDBInstance", DBInstanceIdentifier="app", DBParameterGroupName="default.postgres17")
    world.call("DeleteDBParameterGroup", DBParameterGroupName="mine")
    with world.refused("DBParameterGroupNotFound"):
        parameters(world)


def test_a_change_that_changes_nothing_marks_nobody(world: World) -> None:
    create(world)
    modify(world, change("work_mem", "8192"))
    world.create_instance(DBParameterGroupName="mine")
    modify(world, change("work_mem", "8192"))
    assert world.instance("app").parameter_status is ApplyStatus.IN_SYNC


@pytest.mark.parametrize(
    ("group", "code"), [("theirs", "InvalidParameterCombination"), ("nobodys", "DBParameterGroupNotFound")]
)
def test_groups_that_an_instance_cannot_have(world: World, group: str, code: str) -> None:
    create(world, "theirs", "postgres18")
    world.create_instance()
    with world.refused(code, group):
        world.call("ModifyDBInstance", DBInstanceIdentifier="app", DBParameterGroupName=group)


def test_green_gets_the_group_named_for_it_or_blues_or_the_default_one(world: World) -> None:
    create(world)
    create(world, "next", "postgres18")
    world.create_instance(DBParameterGroupName="mine")

    def group_of_green(**params: Any) -> str:
        world.call("CreateBlueGreenDeployment", BlueGreenDeploymentName="up", Source=APP_ARN, **params)
        group = world.deployment().target.parameter_group
        world.finish()
        world.call(
            "DeleteBlueGreenDeployment",
            BlueGreenDeploymentIdentifier=world.deployment().identifier,
            DeleteTarget=True,
        )
        world.finish()
        return group

    assert group_of_green(TargetEngineVersion="18.6", TargetDBParameterGroupName="next") == "next"
    assert group_of_green(TargetEngineVersion="18.6") == "default.postgres18"
    assert group_of_green() == "mine"
    with world.refused("InvalidParameterCombination", "mine"):
        group_of_green(TargetEngineVersion="18.6", TargetDBParameterGroupName="mine")


def test_what_is_stored(world: World) -> None:
    create(world)
    modify(world, change("work_mem", "8192", "pending-reboot"))
    with world.store.transaction() as tx:
        (group,) = tx.parameter_groups()
    assert group.parameters == {"work_mem": ParameterValue("8192", ApplyMethod.PENDING_REBOOT)}


def test_each_change_is_an_event(world: World) -> None:
    create(world)
    modify(world, change("work_mem", "8192"), change("shared_buffers", "1000", "pending-reboot"))
    modify(world, change("work_mem", "8192"), change("autovacuum", "off"))  # the first one is what it was
    world.call("ResetDBParameterGroup", DBParameterGroupName="mine", Parameters=[change("work_mem", None)])
    shown = world.call("DescribeEvents", SourceType="db-parameter-group", SourceIdentifier="mine")["Events"]
    assert [event["Message"] for event in shown] == [
        "Updated parameter shared_buffers to 1000 with apply method pending-reboot.",
        "Updated parameter work_mem to 8192 with apply method immediate.",
        "Updated parameter autovacuum to off with apply method immediate.",
        "Reset parameter work_mem to its default.",
    ]
    assert {event["SourceArn"] for event in shown} == {PG_ARN + "mine"}
    assert all(event["EventCategories"] == ["configuration change"] for event in shown)
