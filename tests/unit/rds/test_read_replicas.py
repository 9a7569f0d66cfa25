"""Read replicas at the API: creating, promoting, and what they mean for the other operations."""

from typing import Any

import pytest

from tests.unit.rds.world import APP_ARN, World
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, WorkflowKind

REPLICA = {"DBInstanceIdentifier": "copy", "SourceDBInstanceIdentifier": "app"}
INVALID_STATE = "InvalidDBInstanceState"


def view(world: World, identifier: str) -> dict[str, Any]:
    found: dict[str, Any] = world.call("DescribeDBInstances", DBInstanceIdentifier=identifier)["DBInstances"][0]
    return found


class TestCreate:
    def test_the_record_the_workflow_and_the_answer(self, world: World) -> None:
        app = world.create_instance(
            AllocatedStorage=50, DeletionProtection=True, StorageType="io1", Tags=[{"Key": "stage", "Value": "prod"}]
        )
        answer = world.call(
            "CreateDBInstanceReadReplica",
            DBInstanceIdentifier="Copy",
            SourceDBInstanceIdentifier=APP_ARN,
            Tags=[{"Key": "of", "Value": "app"}],
        )["DBInstance"]
        copy, workflow = world.instance("copy"), world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_READ_REPLICA, copy.resource_id)
        assert workflow.arguments == {"port_requested": False}
        assert copy.replica_of == app.resource_id != copy.resource_id
        assert copy.port != app.port
        expected = {
            "DBInstanceIdentifier": "copy",
            "DBInstanceStatus": "creating",
            "ReadReplicaSourceDBInstanceIdentifier": "app",
            "DBInstanceClass": app.instance_class,
            "EngineVersion": "17.10",
            "MasterUsername": "boss",
            "AllocatedStorage": 50,
            "StorageType": "io1",
            "DeletionProtection": False,
            "BackupRetentionPeriod": 0,
            "TagList": [{"Key": "of", "Value": "app"}],
        }
        assert {name: answer[name] for name in expected} == expected
        world.finish()
        assert view(world, "app")["ReadReplicaDBInstanceIdentifiers"] == ["copy"]

    def test_tokens_are_inherited_unless_it_is_said(self, world: World) -> None:
        world.create_instance(EnableIAMDatabaseAuthentication=True)
        world.create_replica("plain", EnableIAMDatabaseAuthentication=False)
        world.create_replica()
        shown = {name: view(world, name)["IAMDatabaseAuthenticationEnabled"] for name in ("app", "plain", "copy")}
        assert shown == {"app": True, "plain": False, "copy": True}

    def test_what_is_its_own(self, world: World) -> None:
        world.call(
            "CreateDBParameterGroup", DBParameterGroupName="mine", DBParameterGroupFamily="postgres17", Description="d"
        )
        world.create_instance(DBParameterGroupName="mine")
        assert world.create_replica("plain").parameter_group == "mine"
        copy = world.create_replica(
            DBInstanceClass="db.t3.micro",
            DBParameterGroupName="default.postgres17",
            Port=20777,
            AllocatedStorage=70,
            DeletionProtection=True,
            StorageType="gp3",
            UpgradeStorageConfig=True,
        )
        shown = view(world, "copy")
        assert copy.instance_class == "db.t3.micro"
        assert shown["Endpoint"]["Port"] == 20777
        assert shown["DBParameterGroups"][0]["DBParameterGroupName"] == "default.postgres17"
        assert (shown["AllocatedStorage"], shown["StorageType"], shown["DeletionProtection"]) == (70, "gp3", True)

    @pytest.mark.parametrize(
        ("changes", "code", "part"),
        [
            ({"DBInstanceIdentifier": "app"}, "DBInstanceAlreadyExists", "app"),
            ({"DBInstanceIdentifier": "a--b"}, "InvalidParameterValue", "DBInstanceIdentifier"),
            ({"SourceDBInstanceIdentifier": "nobody"}, "DBInstanceNotFound", "nobody"),
            ({"SourceDBInstanceIdentifier": "arn:aws:rds:eu-west-1:123456789012:db:app"}, "InvalidParameterValue", ""),
            ({"SourceDBInstanceIdentifier": ""}, "MissingParameter", "SourceDBInstanceIdentifier"),
            ({"SourceDBClusterIdentifier": "c"}, "DBClusterNotFoundFault", "c"),
            ({"DBInstanceClass": "db.m5.micro"}, "InvalidParameterValue", "db.m5.micro"),
            ({"AllocatedStorage": 20}, "InvalidParameterCombination", "50"),
            ({"AllocatedStorage": 19}, "InvalidParameterValue", "19"),
            ({"Port": 80}, "InvalidParameterValue", "1150"),
            ({"DBParameterGroupName": "nothing"}, "DBParameterGroupNotFound", "nothing"),
            ({"DBParameterGroupName": "default.postgres18"}, "InvalidParameterCombination", "postgres17"),
            ({"MultiAZ": True}, "InvalidParameterCombination", "MultiAZ"),
            ({"ReplicaMode": "mounted"}, "InvalidParameterCombination", "ReplicaMode"),
            ({"KmsKeyId": "k"}, "InvalidParameterCombination", "KmsKeyId"),
            ({"PreSignedUrl": "https://hidden"}, "InvalidParameterCombination", "PreSignedUrl"),
            ({"Tags": [{"Key": "aws:x", "Value": ""}]}, "InvalidParameterValue", "aws:"),
        ],
        ids=lambda value: repr(value)[:60] if isinstance(value, dict) else "",
    )
    def test_refused(self, world: World, changes: dict[str, Any], code: str, part: str) -> None:
        world.create_instance(AllocatedStorage=50)
        with world.refused(code, part):
            world.call("CreateDBInstanceReadReplica", **{**REPLICA, **changes})

    @pytest.mark.parametrize("status", [s for s in InstanceStatus if s is not InstanceStatus.AVAILABLE])
    def test_of_a_source_that_is_not_available(self, world: World, status: InstanceStatus) -> None:
        world.create_instance()
        world.change("app", status=status)
        with world.refused(INVALID_STATE, "app", status):
            world.call("CreateDBInstanceReadReplica", **REPLICA)

    def test_of_a_source_without_backups(self, world: World) -> None:
        world.create_instance(BackupRetentionPeriod=0)
        with world.refused(INVALID_STATE, "Automated backups"):
            world.call("CreateDBInstanceReadReplica", **REPLICA)

    def test_of_a_replica(self, world: World) -> None:
        world.create_instance()
        world.create_replica()
        with world.refused(INVALID_STATE, "read replica itself"):
            world.call(
                "CreateDBInstanceReadReplica",
                **REPLICA | {"DBInstanceIdentifier": "next", "SourceDBInstanceIdentifier": "copy"},
            )

    def test_of_members_of_a_deployment(self, world: World) -> None:
        """Of green at any time when nobody works on it; of blue never."""
        deployment = world.create_deployment()
        green = deployment.primary.target_identifier or ""
        with world.refused(INVALID_STATE, deployment.identifier):
            world.call("CreateDBInstanceReadReplica", **REPLICA)
        assert world.create_replica("more", source=green).replica_of == world.instance(green).resource_id
        world.change_deployment(status=DeploymentStatus.SWITCHOVER_IN_PROGRESS)
        with world.refused(INVALID_STATE, deployment.identifier):
            world.create_replica("next", source=green)
        world.change_deployment(status=DeploymentStatus.AVAILABLE)
        world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier)
        world.finish()
        with world.refused(INVALID_STATE, "read-only"):
            world.call("CreateDBInstanceReadReplica", **REPLICA | {"SourceDBInstanceIdentifier": "app-old1"})
        assert world.create_replica().engine_version == "18.6"

    def test_two_at_the_same_time(self, world: World) -> None:
        world.create_instance()
        for identifier in ("copy", "other"):
            world.call("CreateDBInstanceReadReplica", **REPLICA | {"DBInstanceIdentifier": identifier})
        assert len({workflow.subject for workflow in world.workflows()}) == 2

    def test_not_more_than_fifteen(self, world: World) -> None:
        world.create_instance()
        for number in range(15):
            world.create_replica(f"copy{number}")
        with world.refused(INVALID_STATE, "15"):
            world.create_replica("copy15")


class TestPromote:
    def test_it_stands_alone(self, world: World) -> None:
        world.create_instance()
        copy = world.create_replica()
        answer = world.call("PromoteReadReplica", DBInstanceIdentifier="copy", PreferredBackupWindow="01:00-02:00")
        assert answer["DBInstance"]["DBInstanceStatus"] == "modifying"
        assert answer["DBInstance"]["ReadReplicaSourceDBInstanceIdentifier"] == "app"
        assert (world.workflow().kind, world.workflow().subject) == (
            WorkflowKind.PROMOTE_READ_REPLICA,
            copy.resource_id,
        )
        world.finish()
        shown = view(world, "copy")
        assert shown["DBInstanceStatus"] == "available"
        assert (shown["BackupRetentionPeriod"], shown["PreferredBackupWindow"]) == (1, "01:00-02:00")
        assert "ReadReplicaSourceDBInstanceIdentifier" not in shown
        assert "StatusInfos" not in shown
        assert view(world, "app")["ReadReplicaDBInstanceIdentifiers"] == []

    def test_refused(self, world: World) -> None:
        world.create_instance()
        world.create_replica()
        for identifier, code in (("nobody", "DBInstanceNotFound"), ("app", INVALID_STATE)):
            with world.refused(code, identifier):
                world.call("PromoteReadReplica", DBInstanceIdentifier=identifier)
        with world.refused("InvalidParameterValue", "BackupRetentionPeriod"):
            world.call("PromoteReadReplica", DBInstanceIdentifier="copy", BackupRetentionPeriod=36)
        world.call("RebootDBInstance", DBInstanceIdentifier="copy")
        with world.refused(INVALID_STATE, "rebooting"):
            world.call("PromoteReadReplica", DBInstanceIdentifier="copy")


class TestDescribe:
    def test_how_it_follows(self, world: World) -> None:
        world.create_instance()
        world.create_replica()
        assert view(world, "copy")["StatusInfos"] == [
            {"StatusType": "read replication", "Normal": True, "Status": "replicating"}
        ]
        world.change("copy", replication_error="its source does not run")
        assert view(world, "copy")["StatusInfos"] == [
            {
                "StatusType": "read replication",
                "Normal": False,
                "Status": "error",
                "Message": "its source does not run",
            }
        ]

    def test_names_follow_renames(self, world: World) -> None:
        world.create_instance()
        world.create_replica()
        for identifier in ("app", "copy"):
            world.call(
                "ModifyDBInstance",
                DBInstanceIdentifier=identifier,
                NewDBInstanceIdentifier=f"{identifier}2",
                ApplyImmediately=True,
            )
            world.finish()
        assert view(world, "app2")["ReadReplicaDBInstanceIdentifiers"] == ["copy2"]
        assert view(world, "copy2")["ReadReplicaSourceDBInstanceIdentifier"] == "app2"


class TestAround:
    """What exists stays right for sources and replicas."""

    @pytest.fixture(autouse=True)
    def _replicated(self, world: World) -> None:
        world.create_instance()
        world.create_replica()

    def test_no_deployment_of_a_replica(self, world: World) -> None:
        with world.refused("SourceDatabaseNotSupportedFault", "is a read replica"):
            world.call(
                "CreateBlueGreenDeployment",
                BlueGreenDeploymentName="up",
                Source=APP_ARN.replace("app", "copy"),
                TargetEngineVersion="18.6",
            )
        world.call("PromoteReadReplica", DBInstanceIdentifier="copy")
        world.finish()
        world.create_deployment()

    def test_replicas_are_upgraded_first(self, world: World) -> None:
        for identifier in ("app", "copy"):
            world.change(identifier, engine_version="17.9")
        with world.refused("DBUpgradeDependencyFailure", "copy"):
            world.call("ModifyDBInstance", DBInstanceIdentifier="app", EngineVersion="17.10")
        for identifier in ("copy", "app"):
            world.call(
                "ModifyDBInstance", DBInstanceIdentifier=identifier, EngineVersion="17.10", ApplyImmediately=True
            )
            world.finish()
            assert world.instance(identifier).engine_version == "17.10"

    def test_the_password_is_the_sources(self, world: World) -> None:
        with world.refused("InvalidParameterCombination", "app"):
            world.call("ModifyDBInstance", DBInstanceIdentifier="copy", MasterUserPassword="correct-horse-8")

    def test_backups_stay_on(self, world: World) -> None:
        with world.refused("InvalidParameterCombination", "BackupRetentionPeriod"):
            world.call("ModifyDBInstance", DBInstanceIdentifier="app", BackupRetentionPeriod=0)

    def test_nobody_is_stopped(self, world: World) -> None:
        for identifier in ("app", "copy"):
            with world.refused(INVALID_STATE, "read replica"):
                world.call("StopDBInstance", DBInstanceIdentifier=identifier)

    def test_a_source_is_left_alone_while_it_is_copied(self, world: World) -> None:
        world.call("CreateDBInstanceReadReplica", **REPLICA | {"DBInstanceIdentifier": "next"})
        for operation in ("RebootDBInstance", "DeleteDBInstance"):
            params = {"SkipFinalSnapshot": True} if operation == "DeleteDBInstance" else {}
            with world.refused(INVALID_STATE, "next"):
                world.call(operation, DBInstanceIdentifier="app", **params)

    def test_a_deleted_source_holds_its_replicas(self, world: World) -> None:
        world.call("RebootDBInstance", DBInstanceIdentifier="copy")
        with world.refused(INVALID_STATE, "copy", "rebooting"):
            world.call("DeleteDBInstance", DBInstanceIdentifier="app", SkipFinalSnapshot=True)
        world.finish()
        world.call("DeleteDBInstance", DBInstanceIdentifier="app", SkipFinalSnapshot=True)
        assert world.instance("copy").status is InstanceStatus.MODIFYING

    def test_a_replica_is_deleted(self, world: World) -> None:
        world.call("DeleteDBInstance", DBInstanceIdentifier="copy", SkipFinalSnapshot=True)
        world.finish()
        assert view(world, "app")["ReadReplicaDBInstanceIdentifiers"] == []
