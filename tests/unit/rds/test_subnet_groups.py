"""DB subnet groups: nothing acts on them, and scripts that make them work."""

from typing import Any

import pytest

from tests.unit.rds.world import World

ARN = "arn:aws:rds:us-east-1:123456789012:subgrp:mine"
SUBNETS = ["subnet-1a", "subnet-2b", "subnet-3c", "subnet-4d"]


def create(world: World, name: str = "Mine", **params: Any) -> dict[str, Any]:
    given = {"DBSubnetGroupName": name, "DBSubnetGroupDescription": "Ours", "SubnetIds": SUBNETS[:2], **params}
    return dict(world.call("CreateDBSubnetGroup", **given)["DBSubnetGroup"])


def names(world: World, **params: Any) -> list[str]:
    shown = world.call("DescribeDBSubnetGroups", **params)["DBSubnetGroups"]
    return [group["DBSubnetGroupName"] for group in shown]


def test_a_new_one_as_rds_shows_it(world: World) -> None:
    shown = create(world, SubnetIds=SUBNETS, Tags=[{"Key": "k", "Value": "v"}])
    assert {name: value for name, value in shown.items() if name != "Subnets"} == {
        "DBSubnetGroupName": "mine",
        "DBSubnetGroupDescription": "Ours",
        "VpcId": "vpc-00000000000000000",
        "SubnetGroupStatus": "Complete",
        "DBSubnetGroupArn": ARN,
        "SupportedNetworkTypes": ["IPV4"],
    }
    assert shown["Subnets"][3] == {
        "SubnetIdentifier": "subnet-4d",
        "SubnetAvailabilityZone": {"Name": "us-east-1a"},
        "SubnetOutpost": {},
        "SubnetStatus": "Active",
    }
    assert world.call("DescribeDBSubnetGroups", DBSubnetGroupName="MINE")["DBSubnetGroups"] == [shown]
    world.call("AddTagsToResource", ResourceName=ARN, Tags=[{"Key": "own"}])
    tags = world.call("ListTagsForResource", ResourceName=ARN)["TagList"]
    assert tags == [{"Key": "k", "Value": "v"}, {"Key": "own", "Value": ""}]


def test_changed_and_deleted(world: World) -> None:
    create(world)
    create(world, "other one")
    changed = world.call("ModifyDBSubnetGroup", DBSubnetGroupName="Mine", SubnetIds=SUBNETS[1:])["DBSubnetGroup"]
    assert [subnet["SubnetIdentifier"] for subnet in changed["Subnets"]] == SUBNETS[1:]
    assert changed["DBSubnetGroupDescription"] == "Ours"
    params = {"DBSubnetGroupName": "mine", "DBSubnetGroupDescription": "Theirs", "SubnetIds": SUBNETS}
    assert world.call("ModifyDBSubnetGroup", **params)["DBSubnetGroup"]["DBSubnetGroupDescription"] == "Theirs"
    world.call("DeleteDBSubnetGroup", DBSubnetGroupName="Mine")
    assert names(world) == ["other one"]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"DBSubnetGroupName": "default"}, "InvalidParameterValue"),
        ({"DBSubnetGroupName": "1st"}, "InvalidParameterValue"),
        ({"DBSubnetGroupName": "a/b"}, "InvalidParameterValue"),
        ({"DBSubnetGroupName": "a" * 256}, "InvalidParameterValue"),
        ({"DBSubnetGroupName": "TAKEN"}, "DBSubnetGroupAlreadyExists"),
        ({"SubnetIds": ["subnet-1a", "elsewhere"]}, "InvalidSubnet"),
        ({"SubnetIds": ["subnet-1a", "subnet-1a"]}, "DBSubnetGroupDoesNotCoverEnoughAZs"),
        ({"SubnetIds": []}, "DBSubnetGroupDoesNotCoverEnoughAZs"),
        ({"SubnetIds": [f"subnet-{n}" for n in range(21)]}, "DBSubnetQuotaExceededFault"),
        ({"Tags": [{"Key": "aws:k"}]}, "InvalidParameterValue"),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, dict) else "",
)
def test_refused(world: World, params: dict[str, Any], code: str) -> None:
    create(world, "taken")
    with world.refused(code):
        create(world, **params)
    if "SubnetIds" in params:
        with world.refused(code):
            world.call("ModifyDBSubnetGroup", DBSubnetGroupName="taken", **params)


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("DescribeDBSubnetGroups", {}),
        ("ModifyDBSubnetGroup", {"SubnetIds": SUBNETS}),
        ("DeleteDBSubnetGroup", {}),
    ],
)
def test_one_that_is_not_there(world: World, operation: str, params: dict[str, Any]) -> None:
    with world.refused("DBSubnetGroupNotFoundFault", "nobody"):
        world.call(operation, DBSubnetGroupName="Nobody", **params)


class TestInstances:
    def test_one_shows_the_group_that_it_was_made_in(self, world: World) -> None:
        shown = create(world)
        world.create_instance(DBSubnetGroupName="MINE")
        world.create_instance("other", DBSubnetGroupName="default")
        other, app = reversed(world.call("DescribeDBInstances")["DBInstances"])
        assert app["DBSubnetGroup"] == shown
        assert "DBSubnetGroup" not in other
        with world.refused("InvalidDBSubnetGroupStateFault", "app is still using it"):
            world.call("DeleteDBSubnetGroup", DBSubnetGroupName="mine")
        copy = world.call("CreateDBInstanceReadReplica", DBInstanceIdentifier="copy", SourceDBInstanceIdentifier="app")[
            "DBInstance"
        ]
        assert copy["DBSubnetGroup"] == shown

    def test_it_moves_to_another(self, world: World) -> None:
        create(world)
        create(world, "other")
        world.create_instance(DBSubnetGroupName="mine")
        moved = world.call("ModifyDBInstance", DBInstanceIdentifier="app", DBSubnetGroupName="other")["DBInstance"]
        assert moved["DBSubnetGroup"]["DBSubnetGroupName"] == "other"
        world.call("DeleteDBSubnetGroup", DBSubnetGroupName="mine")

    def test_into_one_that_is_not_there(self, world: World) -> None:
        world.create_instance()
        with world.refused("DBSubnetGroupNotFoundFault"):
            world.create_instance("more", DBSubnetGroupName="nobody")
        with world.refused("DBSubnetGroupNotFoundFault"):
            world.create_replica(DBSubnetGroupName="nobody")
        with world.refused("DBSubnetGroupNotFoundFault"):
            world.call("ModifyDBInstance", DBInstanceIdentifier="app", DBSubnetGroupName="nobody")
