"""CreateDBInstance and DescribeDBInstances."""

from typing import Any

import pytest

from tests.unit.rds.world import APP_ARN, NEW_INSTANCE, PASSWORD, World
from verdigris.aws.errors import Fault
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, WorkflowKind, WorkflowStatus


class TestCreate:
    def test_the_record_the_workflow_and_the_answer(self, world: World) -> None:
        view = world.call(
            "CreateDBInstance",
            **{**NEW_INSTANCE, "DBInstanceIdentifier": "App"},
            DBName="appdb",
            AllocatedStorage=50,
            DeletionProtection=True,
            BackupRetentionPeriod=7,
            Tags=[{"Key": "stage", "Value": "prod"}],
        )["DBInstance"]
        instance, workflow = world.instance("app"), world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_INSTANCE, instance.resource_id)
        assert workflow.arguments == {
            "master_password_verifier": world.servers.conceal_password(PASSWORD),
            "port_requested": False,
        }
        assert world.wakes == 1
        assert PASSWORD not in repr(world.snapshot())
        expected = {
            "DBInstanceIdentifier": "app",
            "DBInstanceArn": APP_ARN,
            "DbiResourceId": instance.resource_id,
            "DBInstanceStatus": "creating",
            "EngineVersion": "17.10",
            "DBName": "appdb",
            "AllocatedStorage": 50,
            "DeletionProtection": True,
            "BackupRetentionPeriod": 7,
            "TagList": [{"Key": "stage", "Value": "prod"}],
            "DBParameterGroups": [{"DBParameterGroupName": "default.postgres17", "ParameterApplyStatus": "in-sync"}],
        }
        assert {name: view[name] for name in expected} == expected
        assert "Endpoint" not in view

    def test_the_endpoint_is_shown_when_the_server_exists(self, world: World) -> None:
        port = world.create_instance().port
        (view,) = world.call("DescribeDBInstances")["DBInstances"]
        assert view["Endpoint"] == {"Address": "db.example.net", "Port": port}

    @pytest.mark.parametrize(("asked", "given"), [({}, "18.6"), ({"EngineVersion": "17"}, "17.10")])
    def test_versions_by_default_and_by_major(self, world: World, asked: dict[str, str], given: str) -> None:
        params = {name: value for name, value in NEW_INSTANCE.items() if name != "EngineVersion"}
        assert world.call("CreateDBInstance", **params, **asked)["DBInstance"]["EngineVersion"] == given

    def test_ports_given_and_allocated_never_collide(self, world: World) -> None:
        assert world.create_instance("one", Port=20001).port == 20001
        assert [world.create_instance(name).port for name in ("two", "three")] == [20000, 20002]
        with world.refused("InvalidParameterValue", "20001", "one"):
            world.create_instance("four", Port=20001)
        world.ports.used_by_others.add(30000)
        with world.refused("InvalidParameterValue", "30000"):
            world.create_instance("four", Port=30000)

    def test_no_port_left(self, world: World) -> None:
        world.ports.range = range(20000, 20001)
        world.create_instance("one")
        with world.refused("InsufficientDBInstanceCapacity", "20000"):
            world.create_instance("two")

    @pytest.mark.parametrize(
        ("changes", "code", "part"),
        [
            ({"Engine": "mysql"}, "InvalidParameterValue", "mysql"),
            ({"EngineVersion": "17.99"}, "InvalidParameterCombination", "17.99"),
            ({"EngineVersion": "9"}, "InvalidParameterCombination", "9"),
            ({"EngineVersion": "x" * 1000}, "InvalidParameterCombination", ""),
            ({"DBInstanceIdentifier": "a--b"}, "InvalidParameterValue", "DBInstanceIdentifier"),
            ({"DBInstanceIdentifier": "1a"}, "InvalidParameterValue", "DBInstanceIdentifier"),
            ({"DBInstanceIdentifier": "a" * 64}, "InvalidParameterValue", "63"),
            ({"DBInstanceClass": "t3.medium"}, "InvalidParameterValue", "t3.medium"),
            ({"DBInstanceClass": "db.m5.micro"}, "InvalidParameterValue", "db.m5.micro"),
            ({"DBInstanceClass": "db.q9.large"}, "InvalidParameterValue", "db.q9.large"),
            ({"MasterUsername": "rdsadmin"}, "InvalidParameterValue", "reserved"),
            ({"MasterUsername": "admin"}, "InvalidParameterValue", "reserved"),
            ({"MasterUsername": "PG_boss"}, "InvalidParameterValue", "reserved"),
            ({"MasterUsername": "user"}, "InvalidParameterValue", "reserved"),
            ({"MasterUsername": "a-b"}, "InvalidParameterValue", "MasterUsername"),
            ({"MasterUsername": "bäss"}, "InvalidParameterValue", "MasterUsername"),
            ({"MasterUsername": ""}, "MissingParameter", "MasterUsername"),
            ({"MasterUserPassword": ""}, "MissingParameter", "MasterUserPassword"),
            ({"MasterUserPassword": "short"}, "InvalidParameterValue", "8 to 128"),
            ({"MasterUserPassword": "x" * 129}, "InvalidParameterValue", "8 to 128"),
            ({"MasterUserPassword": "with/slash"}, "InvalidParameterValue", "printable"),
            ({"MasterUserPassword": "with space"}, "InvalidParameterValue", "printable"),
            ({"MasterUserPassword": "trailing-nl\n"}, "InvalidParameterValue", "printable"),
            ({"DBName": "template1"}, "InvalidParameterValue", "reserved"),
            ({"DBName": "1db"}, "InvalidParameterValue", "DBName"),
            ({"Port": 1149}, "InvalidParameterValue", "1150"),
            ({"Port": 65536}, "InvalidParameterValue", "65535"),
            ({"AllocatedStorage": 19}, "InvalidParameterValue", "19"),
            ({"AllocatedStorage": 65537}, "InvalidParameterValue", "65537"),
            ({"DBParameterGroupName": "mine"}, "DBParameterGroupNotFound", "mine"),
            ({"DBParameterGroupName": "default.postgres18"}, "InvalidParameterCombination", "postgres17"),
            ({"MultiAZ": True}, "InvalidParameterCombination", "MultiAZ"),
            ({"StorageEncrypted": True}, "InvalidParameterCombination", "StorageEncrypted"),
            ({"ManageMasterUserPassword": True}, "InvalidParameterCombination", "ManageMasterUserPassword"),
            ({"DBClusterIdentifier": "c"}, "InvalidParameterCombination", "master user name"),
            ({"TdeCredentialPassword": "hidden"}, "InvalidParameterCombination", "TdeCredentialPassword"),
            ({"BackupRetentionPeriod": 36}, "InvalidParameterValue", "BackupRetentionPeriod"),
            ({"PreferredBackupWindow": "late"}, "InvalidParameterValue", "PreferredBackupWindow"),
            ({"PreferredMaintenanceWindow": "Sun:25:00-Sun:26:00"}, "InvalidParameterValue", "Maintenance"),
            ({"StorageType": "tape"}, "InvalidParameterValue", "tape"),
            ({"OptionGroupName": "mine"}, "OptionGroupNotFoundFault", "mine"),
            ({"Tags": [{"Key": "aws:x", "Value": ""}]}, "InvalidParameterValue", "aws:"),
        ],
        ids=lambda value: repr(value)[:60] if isinstance(value, dict) else "",
    )
    def test_refused(self, world: World, changes: dict[str, Any], code: str, part: str) -> None:
        with world.refused(code, part):
            world.call("CreateDBInstance", **{**NEW_INSTANCE, **changes})
        assert world.wakes == 0

    def test_a_refusal_does_not_repeat_a_secret(self, world: World) -> None:
        with pytest.raises(Fault) as caught:
            world.call("CreateDBInstance", **{**NEW_INSTANCE, "MasterUserPassword": "hunter 2"})
        assert "hunter" not in str(caught.value)

    def test_a_name_that_is_taken_or_will_be(self, world: World) -> None:
        world.create_instance()
        with world.refused("DBInstanceAlreadyExists", "app"):
            world.create_instance("APP")
        world.call(
            "ModifyDBInstance", DBInstanceIdentifier="app", NewDBInstanceIdentifier="Next", ApplyImmediately=True
        )
        with world.refused("DBInstanceAlreadyExists", "next"):
            world.call("CreateDBInstance", **{**NEW_INSTANCE, "DBInstanceIdentifier": "next"})

    def test_the_name_that_blue_is_about_to_get(self, world: World) -> None:
        world.create_deployment()
        world.change_deployment(status=DeploymentStatus.SWITCHOVER_IN_PROGRESS)
        with world.refused("InvalidParameterCombination", "app-old1", "switchover"):
            world.create_instance("app-old1")
        assert world.create_instance("other-old1").identifier == "other-old1"

    def test_settings_without_effect_are_kept_and_shown(self, world: World) -> None:
        kept: dict[str, Any] = {
            "PreferredBackupWindow": "01:00-02:00",
            "PreferredMaintenanceWindow": "Mon:01:00-Mon:02:00",
            "CopyTagsToSnapshot": True,
            "AutoMinorVersionUpgrade": False,
            "StorageType": "gp3",
            "Iops": 3000,
            "AvailabilityZone": "us-east-1c",
            "PubliclyAccessible": True,
            "MaxAllocatedStorage": 100,
        }
        world.create_instance(**kept, VpcSecurityGroupIds=["sg-1"], MultiAZ=False)
        (view,) = world.call("DescribeDBInstances")["DBInstances"]
        assert {name: view[name] for name in kept} == kept
        assert view["VpcSecurityGroups"] == [{"VpcSecurityGroupId": "sg-1", "Status": "active"}]
        assert view["MultiAZ"] is False


class TestDescribe:
    @pytest.mark.parametrize("named", ["app", "APP", APP_ARN])
    def test_by_identifier_or_arn(self, world: World, named: str) -> None:
        world.create_instance("other")
        world.create_instance()
        (view,) = world.call("DescribeDBInstances", DBInstanceIdentifier=named)["DBInstances"]
        assert view["DBInstanceIdentifier"] == "app"

    @pytest.mark.parametrize(
        ("named", "code"),
        [
            ("nobody", "DBInstanceNotFound"),
            ("no_body", "InvalidParameterValue"),
            (APP_ARN + "x", "DBInstanceNotFound"),
            (APP_ARN.replace("us-east-1", "eu-west-1"), "InvalidParameterValue"),
            (APP_ARN.replace("123456789012", "210987654321"), "InvalidParameterValue"),
            (APP_ARN.replace(":db:", ":cluster:"), "InvalidParameterValue"),
            ("arn:aws:rds", "InvalidParameterValue"),
        ],
    )
    def test_one_that_is_not_there(self, world: World, named: str, code: str) -> None:
        world.create_instance()
        with world.refused(code):
            world.call("DescribeDBInstances", DBInstanceIdentifier=named)

    @pytest.mark.parametrize(
        ("name", "values", "found"),
        [
            ("db-instance-id", ["one", "THREE"], ["one", "three"]),
            ("db-instance-id", [APP_ARN.replace("app", "two")], ["two"]),
            ("db-instance-id", ["none"], []),
            ("engine", ["postgres"], ["one", "three", "two"]),
            ("engine", ["mysql"], []),
            ("db-cluster-id", ["c"], []),
        ],
    )
    def test_filters(self, world: World, name: str, values: list[str], found: list[str]) -> None:
        for identifier in ("one", "two", "three"):
            world.create_instance(identifier)
        views = world.call("DescribeDBInstances", Filters=[{"Name": name, "Values": values}])["DBInstances"]
        assert [view["DBInstanceIdentifier"] for view in views] == found

    def test_by_resource_id_and_all_filters_together(self, world: World) -> None:
        one = world.create_instance("one")
        world.create_instance("two")
        by_id = {"Name": "dbi-resource-id", "Values": [one.resource_id]}
        for other, count in (("one", 1), ("two", 0)):
            filters = [by_id, {"Name": "db-instance-id", "Values": [other]}]
            assert len(world.call("DescribeDBInstances", Filters=filters)["DBInstances"]) == count

    @pytest.mark.parametrize("bad", [{"Name": "colour", "Values": ["blue"]}, {"Name": "engine", "Values": []}])
    def test_filters_that_make_no_sense(self, world: World, bad: dict[str, Any]) -> None:
        with world.refused("InvalidParameterValue", bad["Name"]):
            world.call("DescribeDBInstances", Filters=[bad])

    def test_replication_is_shown_while_it_runs(self, world: World) -> None:
        deployment = world.create_deployment()
        green = deployment.primary.target_identifier or ""

        def views() -> dict[str, Any]:
            return {view["DBInstanceIdentifier"]: view for view in world.call("DescribeDBInstances")["DBInstances"]}

        assert views()["app"]["ReadReplicaDBInstanceIdentifiers"] == [green]
        assert views()[green]["ReadReplicaSourceDBInstanceIdentifier"] == "app"
        world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier)
        world.finish()
        assert views().keys() == {"app", "app-old1"}
        assert all(view["ReadReplicaDBInstanceIdentifiers"] == [] for view in views().values())
        assert not any("ReadReplicaSourceDBInstanceIdentifier" in view for view in views().values())

    def test_a_failed_creation_says_so(self, world: World) -> None:
        world.call("CreateDBInstance", **NEW_INSTANCE)
        world.change("app", status=InstanceStatus.FAILED)
        (view,) = world.call("DescribeDBInstances")["DBInstances"]
        assert view["DBInstanceStatus"] == "failed"
        assert world.workflow().status is WorkflowStatus.RUNNING
