"""What a request takes of the key that has signed it."""

from typing import Any

import pytest

from tests.unit.rds.world import APP_ARN, SHOP_ARN, SNAPSHOT_ARN, World
from verdigris.aws.errors import Fault
from verdigris.domain.access import AccessKey, Rule
from verdigris.rds.access import authorize, needed
from verdigris.rds.operations import HANDLERS

ALL = "arn:aws:rds:us-east-1:123456789012:{}:*".format
PG = "arn:aws:rds:us-east-1:123456789012:pg:{}".format


def key(*rules: Rule) -> AccessKey:
    return AccessKey(access_key_id="VDKA", secret_access_key="hidden", user="ann", rules=rules)


class TestRules:
    @pytest.mark.parametrize(
        ("action", "resource", "allowed"),
        [
            ("rds:DescribeDBInstances", APP_ARN, True),
            ("RDS:describedbinstances", APP_ARN, True),
            ("rds:DescribeEvents", APP_ARN, False),
            ("rds:DescribeDBInstances", APP_ARN + "x", False),
            ("rds:DescribeDBInstances", APP_ARN.replace("app", "dev-1"), True),
            ("rds:DescribeDBInstances", APP_ARN.replace("app", "dev-12"), False),
            ("rds:DescribeDBInstances", APP_ARN.replace("app", "dev+1"), False),
        ],
    )
    def test_wildcards(self, action: str, resource: str, allowed: bool) -> None:
        rule = Rule(actions=("rds:DescribeDB*",), resources=("arn:*:app", "*:dev-?"))
        assert key(rule).allows(action, resource) is allowed

    def test_several_rules_do_not_mix(self) -> None:
        two = key(Rule(actions=("a",), resources=("x",)), Rule(actions=("b",), resources=("y",)))
        assert (two.allows("a", "x"), two.allows("b", "y"), two.allows("a", "y")) == (True, True, False)
        assert not key().allows("a", "x")

    def test_its_secret_does_not_show(self) -> None:
        assert "hidden" not in repr(key())


class TestNeeds:
    @pytest.mark.parametrize(
        ("operation", "params", "wanted"),
        [
            ("DescribeDBInstances", {}, [("DescribeDBInstances", ALL("db"))]),
            ("DescribeDBInstances", {"DBInstanceIdentifier": "App"}, [("DescribeDBInstances", APP_ARN)]),
            ("DescribeDBInstances", {"DBInstanceIdentifier": APP_ARN}, [("DescribeDBInstances", APP_ARN)]),
            ("DescribeEvents", {"SourceIdentifier": "app"}, [("DescribeEvents", "*")]),
            (
                "CreateDBInstance",
                {"DBInstanceIdentifier": "app", "DBParameterGroupName": "Mine", "Tags": [{"Key": "k"}]},
                [
                    ("CreateDBInstance", APP_ARN),
                    ("CreateDBInstance", PG("mine")),
                    ("AddTagsToResource", APP_ARN),
                    ("AddTagsToResource", PG("mine")),
                ],
            ),
            ("DescribeDBClusters", {}, [("DescribeDBClusters", ALL("cluster"))]),
            ("DescribeDBClusterEndpoints", {}, [("DescribeDBClusterEndpoints", ALL("cluster-endpoint"))]),
            (
                "CreateDBClusterEndpoint",
                {"DBClusterIdentifier": "Shop", "DBClusterEndpointIdentifier": "Far"},
                [
                    ("CreateDBClusterEndpoint", SHOP_ARN.replace(":cluster:shop", ":cluster-endpoint:far")),
                    ("CreateDBClusterEndpoint", SHOP_ARN),
                ],
            ),
            ("DeleteDBCluster", {"DBClusterIdentifier": "Shop"}, [("DeleteDBCluster", SHOP_ARN)]),
            (
                "CreateDBInstance",
                {"DBInstanceIdentifier": "app", "DBClusterIdentifier": SHOP_ARN},
                [("CreateDBInstance", SHOP_ARN), ("CreateDBInstance", APP_ARN)],
            ),
            ("DescribeDBSnapshots", {}, [("DescribeDBSnapshots", ALL("snapshot"))]),
            (
                "CopyDBSnapshot",
                {"SourceDBSnapshotIdentifier": "Monday", "TargetDBSnapshotIdentifier": SNAPSHOT_ARN},
                [("CopyDBSnapshot", SNAPSHOT_ARN), ("CopyDBSnapshot", SNAPSHOT_ARN)],
            ),
            (
                "RestoreDBInstanceFromDBSnapshot",
                {"DBInstanceIdentifier": "app", "DBSnapshotIdentifier": "monday"},
                [("RestoreDBInstanceFromDBSnapshot", APP_ARN), ("RestoreDBInstanceFromDBSnapshot", SNAPSHOT_ARN)],
            ),
            (
                "DeleteDBInstance",
                {"DBInstanceIdentifier": "app", "FinalDBSnapshotIdentifier": "monday"},
                [("DeleteDBInstance", APP_ARN)],
            ),
            (
                "StopDBInstance",
                {"DBInstanceIdentifier": "app", "DBSnapshotIdentifier": "monday"},
                [("StopDBInstance", APP_ARN)],
            ),
            (
                "CreateBlueGreenDeployment",
                {"BlueGreenDeploymentName": "up", "Source": APP_ARN.replace(":app", ":APP")},
                [("CreateBlueGreenDeployment", APP_ARN), ("CreateDBInstanceReadReplica", APP_ARN)],
            ),
            (
                "AddTagsToResource",
                {"ResourceName": PG("Mine"), "Tags": [{"Key": "k"}]},
                [("AddTagsToResource", PG("mine"))],
            ),
            (
                "SwitchoverBlueGreenDeployment",
                {"BlueGreenDeploymentIdentifier": "bgd-none"},
                [("SwitchoverBlueGreenDeployment", "arn:aws:rds:us-east-1:123456789012:deployment:bgd-none")],
            ),
        ],
    )
    def test_which(self, world: World, operation: str, params: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
        found = list(needed(world.context, operation, params))
        assert found == [(f"rds:{action}", resource) for action, resource in wanted]

    def test_a_switchover_changes_both_sides_and_deleting_a_target_deletes_it(self, world: World) -> None:
        identifier = world.create_deployment().identifier
        (green,) = (name for name in (i.identifier for i in world.instances()) if name != "app")
        green_arn = APP_ARN.replace("app", green)

        def instances(operation: str, **params: Any) -> set[tuple[str, str]]:
            params = {"BlueGreenDeploymentIdentifier": identifier, **params}
            return {(a, r) for a, r in needed(world.context, operation, params) if ":db:" in r}

        assert instances("SwitchoverBlueGreenDeployment") == {
            (f"rds:{action}", arn)
            for action in ("ModifyDBInstance", "PromoteReadReplica")
            for arn in (APP_ARN, green_arn)
        }
        assert instances("DeleteBlueGreenDeployment") == set()
        assert instances("DeleteBlueGreenDeployment", DeleteTarget=True) == {("rds:DeleteDBInstance", green_arn)}
        without = key(Rule(actions=("rds:*BlueGreenDeployment",)))
        with pytest.raises(Fault, match="rds:ModifyDBInstance on resource"):
            authorize(
                world.context, without, "SwitchoverBlueGreenDeployment", {"BlueGreenDeploymentIdentifier": identifier}
            )

    @pytest.mark.parametrize("operation", sorted(HANDLERS))
    def test_a_key_without_rules_may_nothing(self, world: World, operation: str) -> None:
        params = {"Source": APP_ARN, "BlueGreenDeploymentIdentifier": "bgd-1"}
        with pytest.raises(Fault, match=f"rds:{operation}"):
            authorize(world.context, key(), operation, params)
