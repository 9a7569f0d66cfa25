"""How much there may be of what."""

from typing import Any

import pytest

from tests.unit.rds.world import APP_ARN, NEW_INSTANCE, TOPIC, World


def quotas(world: World) -> dict[str, tuple[int, int]]:
    shown = world.call("DescribeAccountAttributes")["AccountQuotas"]
    return {each["AccountQuotaName"]: (each["Used"], each["Max"]) for each in shown}


def test_how_much_there_is_and_may_be(world: World) -> None:
    assert quotas(world) == {
        "AllocatedStorage": (0, 100_000),
        "CustomEndpointsPerDBCluster": (0, 5),
        "DBClusters": (0, 40),
        "DBInstances": (0, 1000),  # there are no more ports
        "DBParameterGroups": (0, 50),
        "DBSubnetGroups": (0, 50),
        "EventSubscriptions": (0, 20),
        "ManualSnapshots": (0, 100),
        "ReadReplicasPerMaster": (0, 15),
        "SubnetsPerDBSubnetGroup": (0, 20),
    }
    world.create_instance(AllocatedStorage=30)
    world.create_instance("other")
    for name, source in (("copy1", "app"), ("copy2", "app"), ("copy3", "other")):
        world.create_replica(name, source=source)
    found = quotas(world)
    assert (found["AllocatedStorage"][0], found["DBInstances"][0], found["ReadReplicasPerMaster"][0]) == (130, 5, 2)


def test_a_green_counts_from_the_call_on(world: World) -> None:
    world.create_instance()
    world.call("CreateBlueGreenDeployment", BlueGreenDeploymentName="up", Source=APP_ARN, TargetAllocatedStorage=50)
    before = quotas(world)
    assert (before["DBInstances"][0], before["AllocatedStorage"][0]) == (2, 70)
    world.finish()
    assert quotas(world)["DBInstances"][0] == 2


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("CreateDBInstance", {**NEW_INSTANCE, "DBInstanceIdentifier": "more"}),
    "replica": (
        "CreateDBInstanceReadReplica",
        {"DBInstanceIdentifier": "more", "SourceDBInstanceIdentifier": "app"},
    ),
    "green": ("CreateBlueGreenDeployment", {"BlueGreenDeploymentName": "up", "Source": APP_ARN}),
    "grow": ("ModifyDBInstance", {"DBInstanceIdentifier": "app", "AllocatedStorage": 40}),
    "group": (
        "CreateDBParameterGroup",
        {"DBParameterGroupName": "more", "DBParameterGroupFamily": "postgres17", "Description": "Ours"},
    ),
    "copy": (
        "CopyDBParameterGroup",
        {
            "SourceDBParameterGroupIdentifier": "mine",
            "TargetDBParameterGroupIdentifier": "more",
            "TargetDBParameterGroupDescription": "Ours",
        },
    ),
    "subnets": (
        "CreateDBSubnetGroup",
        {"DBSubnetGroupName": "more", "DBSubnetGroupDescription": "Ours", "SubnetIds": ["subnet-1", "subnet-2"]},
    ),
    "subscription": ("CreateEventSubscription", {"SubscriptionName": "more", "SnsTopicArn": TOPIC}),
}


@pytest.mark.parametrize(
    ("call", "quota", "most", "code"),
    [
        ("create", "DBInstances", 1, "InstanceQuotaExceeded"),
        ("replica", "DBInstances", 1, "InstanceQuotaExceeded"),
        ("green", "DBInstances", 1, "InstanceQuotaExceeded"),
        ("create", "AllocatedStorage", 39, "StorageQuotaExceeded"),
        ("replica", "AllocatedStorage", 39, "StorageQuotaExceeded"),
        ("green", "AllocatedStorage", 39, "StorageQuotaExceeded"),
        ("grow", "AllocatedStorage", 39, "StorageQuotaExceeded"),
        ("replica", "ReadReplicasPerMaster", 0, "InvalidDBInstanceState"),
        ("group", "DBParameterGroups", 1, "DBParameterGroupQuotaExceeded"),
        ("copy", "DBParameterGroups", 1, "DBParameterGroupQuotaExceeded"),
        ("subnets", "DBSubnetGroups", 1, "DBSubnetGroupQuotaExceeded"),
        ("subnets", "SubnetsPerDBSubnetGroup", 1, "DBSubnetQuotaExceededFault"),
        ("subscription", "EventSubscriptions", 1, "EventSubscriptionQuotaExceeded"),
    ],
)
def test_one_too_many_and_one_that_just_fits(world: World, call: str, quota: str, most: int, code: str) -> None:
    """There is one of each, an instance of 20 GiB among them."""
    world.create_instance()
    world.call(CALLS["group"][0], **{**CALLS["group"][1], "DBParameterGroupName": "mine"})
    world.call(CALLS["subnets"][0], **{**CALLS["subnets"][1], "DBSubnetGroupName": "mine"})
    world.call(CALLS["subscription"][0], **{**CALLS["subscription"][1], "SubscriptionName": "mine"})
    operation, params = CALLS[call]
    world.set_quotas(**{quota: most})
    with world.refused(code, "exceeded" if "Quota" in code else "limit"):
        world.call(operation, **params)
    world.set_quotas(**{quota: most + 1})
    world.call(operation, **params)


def test_what_is_there_stays_when_there_may_be_less(world: World) -> None:
    world.create_instance()
    world.set_quotas(DBInstances=0, AllocatedStorage=0)
    assert quotas(world)["DBInstances"] == (1, 0)
    world.call("ModifyDBInstance", DBInstanceIdentifier="app", DeletionProtection=True)
