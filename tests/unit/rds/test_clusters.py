"""Clusters at the API: the record, its members, and what being a member means for the other operations."""

from typing import Any

import pytest
from msgspec import to_builtins

from tests.unit.rds.world import NEW_CLUSTER, NEW_INSTANCE, NEW_MEMBER, PASSWORD, SHOP_ARN, World
from verdigris.domain.statuses import ClusterStatus, InstanceStatus, WorkflowKind
from verdigris.workflows import arguments

INVALID_CLUSTER = "InvalidDBClusterStateFault"
COMBINATION = "InvalidParameterCombination"


def shown(world: World, identifier: str = "shop") -> dict[str, Any]:
    found: dict[str, Any] = world.call("DescribeDBClusters", DBClusterIdentifier=identifier)["DBClusters"][0]
    return found


def roles(world: World) -> dict[str, bool]:
    return {each["DBInstanceIdentifier"]: each["IsClusterWriter"] for each in shown(world)["DBClusterMembers"]}


@pytest.fixture
def shop(world: World) -> World:
    """A cluster with a writer and two readers."""
    world.create_cluster()
    for identifier in ("one", "two", "three"):
        world.create_member(identifier)
    return world


class TestCreate:
    def test_the_record_the_workflow_and_the_answer(self, world: World) -> None:
        answer = world.call(
            "CreateDBCluster",
            **{
                **NEW_CLUSTER,
                "DBClusterIdentifier": "Shop",
                "DatabaseName": "orders",
                "BackupRetentionPeriod": 7,
                "VpcSecurityGroupIds": ["sg-1"],
                "Tags": [{"Key": "stage", "Value": "prod"}],
            },
        )["DBCluster"]
        cluster, workflow = world.cluster(), world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_CLUSTER, cluster.resource_id)
        assert workflow.arguments == {"port_requested": False}
        assert PASSWORD not in repr(cluster)
        expected = {
            "DBClusterIdentifier": "shop",
            "DBClusterArn": SHOP_ARN,
            "DbClusterResourceId": cluster.resource_id,
            "Status": "creating",
            "Engine": "aurora-postgresql",
            "EngineVersion": "17.10",
            "Endpoint": "db.example.net",
            "ReaderEndpoint": "127.0.0.2",
            "Port": cluster.port,
            "MasterUsername": "boss",
            "DatabaseName": "orders",
            "DBClusterParameterGroup": "default.aurora-postgresql17",
            "DBClusterMembers": [],
            "BackupRetentionPeriod": 7,
            "VpcSecurityGroups": [{"VpcSecurityGroupId": "sg-1", "Status": "active"}],
            "TagList": [{"Key": "stage", "Value": "prod"}],
        }
        assert {name: answer[name] for name in expected} == expected
        world.finish()
        assert shown(world)["Status"] == "available"

    def test_its_port_is_its_own(self, world: World) -> None:
        cluster = world.create_cluster(Port=20100)
        assert cluster.port == 20100
        with world.refused("InvalidParameterValue", "20100", "shop"):
            world.call("CreateDBInstance", **NEW_INSTANCE, Port=20100)
        assert world.create_instance().port != 20100

    @pytest.mark.parametrize(
        ("params", "code", "part"),
        [
            ({"DBClusterIdentifier": "sh--op"}, "InvalidParameterValue", "DBClusterIdentifier"),
            ({"Engine": "aurora-mysql"}, "InvalidParameterValue", "aurora-mysql"),
            ({"Engine": "postgres", "DBClusterInstanceClass": "db.m5d.large"}, COMBINATION, "DBClusterInstanceClass"),
            ({"EngineVersion": "12.1"}, COMBINATION, "12.1"),
            ({"MasterUsername": "admin"}, "InvalidParameterValue", "admin"),
            ({"MasterUserPassword": "short"}, "InvalidParameterValue", "password"),
            ({"DatabaseName": "template1"}, "InvalidParameterValue", "template1"),
            ({"Port": 80}, "InvalidParameterValue", "80"),
            ({"BackupRetentionPeriod": 0}, "InvalidParameterValue", "BackupRetentionPeriod"),
            ({"EngineMode": "serverless"}, "InvalidParameterValue", "serverless"),
            ({"DBClusterParameterGroupName": "mine"}, "DBClusterParameterGroupNotFound", "mine"),
            ({"DBSubnetGroupName": "nets"}, "DBSubnetGroupNotFoundFault", "nets"),
            ({"StorageEncrypted": True}, COMBINATION, "StorageEncrypted"),
            ({"ReplicationSourceIdentifier": SHOP_ARN}, COMBINATION, "ReplicationSourceIdentifier"),
        ],
    )
    def test_refusals(self, world: World, params: dict[str, Any], code: str, part: str) -> None:
        with world.refused(code, part):
            world.call("CreateDBCluster", **{**NEW_CLUSTER, **params})

    @pytest.mark.parametrize("missing", ["MasterUsername", "MasterUserPassword"])
    def test_what_has_to_be_said(self, world: World, missing: str) -> None:
        with world.refused("MissingParameter", missing):
            world.call("CreateDBCluster", **{name: value for name, value in NEW_CLUSTER.items() if name != missing})

    def test_names_and_their_number(self, world: World) -> None:
        world.create_cluster()
        with world.refused("DBClusterAlreadyExistsFault", "shop"):
            world.call("CreateDBCluster", **{**NEW_CLUSTER, "DBClusterIdentifier": "SHOP"})
        world.set_quotas(DBClusters=1)
        with world.refused("DBClusterQuotaExceededFault"):
            world.call("CreateDBCluster", **{**NEW_CLUSTER, "DBClusterIdentifier": "other"})

    def test_readers_need_an_address_of_their_own(self, world: World) -> None:
        world.ports.reader_host = None
        with world.refused("InvalidVPCNetworkStateFault", "VERDIGRIS_READER_HOST"):
            world.call("CreateDBCluster", **NEW_CLUSTER)

    def test_as_postgres(self, world: World) -> None:
        world.create_cluster(Engine="postgres")
        assert world.create_member("one", Engine="postgres").engine == "postgres"
        assert shown(world)["DBClusterParameterGroup"] == "default.postgres17"


class TestMembers:
    def test_the_first_is_the_writer_and_the_others_follow_it(self, world: World) -> None:
        cluster = world.create_cluster(DatabaseName="orders", BackupRetentionPeriod=7)
        world.call("CreateDBInstance", DBInstanceIdentifier="one", DBClusterIdentifier="Shop", **NEW_MEMBER)
        writer, workflow = world.instance("one"), world.workflow()
        assert workflow.kind is WorkflowKind.CREATE_INSTANCE
        assert workflow.arguments["master_password_verifier"] == cluster.master_password_verifier
        assert (writer.engine, writer.master_username, writer.db_name) == ("aurora-postgresql", "boss", "orders")
        # While the writer is being created: its workflow waits.
        world.call(
            "CreateDBInstance", DBInstanceIdentifier="two", DBClusterIdentifier="shop", PromotionTier=3, **NEW_MEMBER
        )
        reader = world.instance("two")
        assert {w.subject: w.kind for w in world.workflows()}[reader.resource_id] is WorkflowKind.CREATE_READ_REPLICA
        assert (reader.replica_of, reader.read_only) == (writer.resource_id, True)
        world.finish()
        tiers = {m["DBInstanceIdentifier"]: m["PromotionTier"] for m in shown(world)["DBClusterMembers"]}
        assert (roles(world), tiers) == ({"one": True, "two": False}, {"one": 1, "two": 3})
        for view in world.call("DescribeDBInstances")["DBInstances"]:
            assert (view["DBClusterIdentifier"], view["BackupRetentionPeriod"]) == ("shop", 7)
            assert "ReadReplicaSourceDBInstanceIdentifier" not in view
            assert not view["ReadReplicaDBInstanceIdentifiers"]

    @pytest.mark.parametrize(
        ("params", "code", "part"),
        [
            ({"MasterUsername": "boss"}, COMBINATION, "Set master user name for the DB Cluster."),
            ({"MasterUserPassword": PASSWORD}, COMBINATION, "Set master user password for the DB Cluster."),
            ({"Port": 20100}, COMBINATION, "for the DB Cluster."),
            ({"BackupRetentionPeriod": 3}, COMBINATION, "Set backup retention period for the DB Cluster."),
            ({"DeletionProtection": True}, COMBINATION, "Cluster level"),
            ({"EnableIAMDatabaseAuthentication": True}, COMBINATION, "not offered"),
            ({"Engine": "postgres"}, COMBINATION, "incompatible"),
            ({"EngineVersion": "16.14"}, COMBINATION, "16.14"),
            ({"DBInstanceIdentifier": "o--ne"}, "InvalidParameterValue", "DBInstanceIdentifier"),
            ({"DBInstanceClass": "huge"}, "InvalidParameterValue", "huge"),
            ({"AllocatedStorage": 1}, "InvalidParameterValue", "AllocatedStorage"),
            ({"DBParameterGroupName": "mine"}, "DBParameterGroupNotFound", "mine"),
            ({"DBClusterIdentifier": "other"}, "DBClusterNotFoundFault", "other"),
        ],
    )
    def test_refusals(self, world: World, params: dict[str, Any], code: str, part: str) -> None:
        world.create_cluster()
        member = {"DBInstanceIdentifier": "one", "DBClusterIdentifier": "shop", **NEW_MEMBER}
        with world.refused(code, part):
            world.call("CreateDBInstance", **{**member, **params})

    def test_names_are_those_of_all_instances(self, shop: World) -> None:
        with shop.refused("DBInstanceAlreadyExists", "one"):
            shop.call("CreateDBInstance", DBInstanceIdentifier="one", DBClusterIdentifier="shop", **NEW_MEMBER)

    @pytest.mark.parametrize("status", [InstanceStatus.FAILED, InstanceStatus.DELETING])
    def test_of_a_writer_that_does_not_come_back(self, world: World, status: InstanceStatus) -> None:
        world.create_cluster()
        world.create_member("one")
        world.change("one", status=status)
        with world.refused(INVALID_CLUSTER, "one", status):
            world.call("CreateDBInstance", DBInstanceIdentifier="two", DBClusterIdentifier="shop", **NEW_MEMBER)

    def test_not_of_a_cluster_that_goes(self, world: World) -> None:
        world.create_cluster()
        world.change_cluster(status=ClusterStatus.DELETING)
        with world.refused(INVALID_CLUSTER, "deleting"):
            world.call("CreateDBInstance", DBInstanceIdentifier="one", DBClusterIdentifier="shop", **NEW_MEMBER)

    def test_not_more_than_there_may_be(self, shop: World) -> None:
        shop.set_quotas(ReadReplicasPerMaster=2)
        with shop.refused(INVALID_CLUSTER, "limit"):
            shop.call("CreateDBInstance", DBInstanceIdentifier="four", DBClusterIdentifier="shop", **NEW_MEMBER)


class TestDescribe:
    @pytest.mark.parametrize(
        ("name", "value", "found"),
        [
            ("db-cluster-id", "SHOP", ["shop"]),
            ("db-cluster-id", SHOP_ARN, ["shop"]),
            ("engine", "postgres", ["depot"]),
            ("engine", "mysql", []),
            ("domain", "d-1", []),
            ("clone-group-id", "c", []),
        ],
    )
    def test_filters(self, world: World, name: str, value: str, found: list[str]) -> None:
        world.create_cluster()
        world.create_cluster("depot", Engine="postgres")
        answer = world.call("DescribeDBClusters", Filters=[{"Name": name, "Values": [value]}])
        assert [each["DBClusterIdentifier"] for each in answer["DBClusters"]] == found

    def test_by_resource_id(self, world: World) -> None:
        cluster = world.create_cluster()
        filters = [{"Name": "db-cluster-resource-id", "Values": [cluster.resource_id]}]
        assert world.call("DescribeDBClusters", Filters=filters)["DBClusters"] == [shown(world)]

    def test_members_by_cluster(self, shop: World) -> None:
        shop.create_instance()
        filters = [{"Name": "db-cluster-id", "Values": ["shop"]}]
        found = shop.call("DescribeDBInstances", Filters=filters)["DBInstances"]
        assert [each["DBInstanceIdentifier"] for each in found] == ["one", "three", "two"]

    def test_pages(self, world: World) -> None:
        names = [f"c{number:02}" for number in range(25)]
        for name in reversed(names):
            world.create_cluster(name)
        first = world.call("DescribeDBClusters", MaxRecords=20)
        second = world.call("DescribeDBClusters", MaxRecords=20, Marker=first["Marker"])
        assert [c["DBClusterIdentifier"] for c in (*first["DBClusters"], *second["DBClusters"])] == names

    def test_none_of_that_name(self, world: World) -> None:
        with world.refused("DBClusterNotFoundFault", "shop"):
            world.call("DescribeDBClusters", DBClusterIdentifier=SHOP_ARN)


class TestModify:
    def test_what_is_kept_is_its_members_too(self, shop: World) -> None:
        shop.call(
            "ModifyDBCluster",
            DBClusterIdentifier=SHOP_ARN,
            BackupRetentionPeriod=9,
            DeletionProtection=True,
            VpcSecurityGroupIds=["sg-2"],
            EngineVersion="17",
        )
        view = shown(shop)
        assert (view["BackupRetentionPeriod"], view["DeletionProtection"], view["Status"]) == (9, True, "available")
        assert {i.settings["BackupRetentionPeriod"] for i in shop.instances()} == {9}
        assert not shop.workflows()

    def test_the_password_and_the_port_are_work(self, shop: World) -> None:
        answer = shop.call("ModifyDBCluster", DBClusterIdentifier="shop", MasterUserPassword="new-secret-9")
        assert answer["DBCluster"]["Status"] == "resetting-master-credentials"
        workflow = shop.workflow()
        assert workflow.kind is WorkflowKind.MODIFY_CLUSTER
        assert "new-secret-9" not in repr(workflow)
        with shop.refused(INVALID_CLUSTER, "resetting"):
            shop.call("ModifyDBCluster", DBClusterIdentifier="shop", DeletionProtection=True)
        shop.finish()
        shop.call("ModifyDBCluster", DBClusterIdentifier="shop", Port=20200)
        with shop.refused("InvalidParameterValue", "20200"):
            shop.call("CreateDBInstance", **NEW_INSTANCE, Port=20200)
        shop.finish()
        assert shown(shop)["Port"] == 20200

    @pytest.mark.parametrize(
        ("params", "code", "part"),
        [
            ({"DBClusterIdentifier": "other"}, "DBClusterNotFoundFault", "other"),
            ({"NewDBClusterIdentifier": "store"}, COMBINATION, "NewDBClusterIdentifier"),
            ({"EngineVersion": "18.6"}, COMBINATION, "18.6"),
            ({"Port": 1}, "InvalidParameterValue", "1"),
            ({"MasterUserPassword": "short"}, "InvalidParameterValue", "password"),
            ({"DBClusterParameterGroupName": "mine"}, "DBClusterParameterGroupNotFound", "mine"),
        ],
    )
    def test_refusals(self, shop: World, params: dict[str, Any], code: str, part: str) -> None:
        with shop.refused(code, part):
            shop.call("ModifyDBCluster", **{"DBClusterIdentifier": "shop", **params})

    def test_no_password_for_a_writer_that_cannot_be_told(self, shop: World) -> None:
        shop.change("one", status=InstanceStatus.REBOOTING)
        with shop.refused(INVALID_CLUSTER, "one", "rebooting"):
            shop.call("ModifyDBCluster", DBClusterIdentifier="shop", MasterUserPassword="new-secret-9")


class TestDelete:
    def test_members_first_the_writer_last(self, shop: World) -> None:
        with shop.refused(INVALID_CLUSTER, "it still contains DB instances in non-deleting state"):
            shop.call("DeleteDBCluster", DBClusterIdentifier="shop", SkipFinalSnapshot=True)
        with shop.refused("InvalidDBInstanceState", "writer", "two"):
            shop.call("DeleteDBInstance", DBInstanceIdentifier="one", SkipFinalSnapshot=True)
        for reader in ("two", "three"):  # whose data is the writer's
            shop.call("DeleteDBInstance", DBInstanceIdentifier=reader)
        with shop.refused(COMBINATION, "FinalDBSnapshotIdentifier"):
            shop.call("DeleteDBInstance", DBInstanceIdentifier="one")
        # Nobody has to wait for the readers, nor for the writer.
        shop.call("DeleteDBInstance", DBInstanceIdentifier="one", SkipFinalSnapshot=True)
        answer = shop.call("DeleteDBCluster", DBClusterIdentifier="shop", SkipFinalSnapshot=True)
        assert answer["DBCluster"]["Status"] == "deleting"
        with shop.refused(INVALID_CLUSTER, "deleting"):
            shop.call("DeleteDBCluster", DBClusterIdentifier="shop", SkipFinalSnapshot=True)
        told = {workflow.kind: workflow.arguments for workflow in shop.workflows()}
        assert told[WorkflowKind.DELETE_INSTANCE] == to_builtins(arguments.DeleteInstance())
        shop.finish()
        assert shop.instances() == []
        assert shop.call("DescribeDBClusters")["DBClusters"] == []

    def test_a_new_writer_after_the_last_one(self, world: World) -> None:
        world.create_cluster()
        world.create_member("one")
        world.call("DeleteDBInstance", DBInstanceIdentifier="one", SkipFinalSnapshot=True)
        world.finish()
        world.create_member("two")
        assert roles(world) == {"two": True}

    @pytest.mark.parametrize(
        ("params", "part"),
        [
            ({}, "FinalDBSnapshotIdentifier is required"),
            ({"FinalDBSnapshotIdentifier": "last"}, "SkipFinalSnapshot=true"),
            ({"FinalDBSnapshotIdentifier": "last", "SkipFinalSnapshot": True}, "cannot be specified"),
        ],
    )
    def test_snapshots(self, world: World, params: dict[str, Any], part: str) -> None:
        world.create_cluster()
        with world.refused(COMBINATION, part):
            world.call("DeleteDBCluster", DBClusterIdentifier="shop", **params)

    def test_not_a_protected_one(self, world: World) -> None:
        world.create_cluster(DeletionProtection=True)
        with world.refused(COMBINATION, "Cannot delete protected Cluster"):
            world.call("DeleteDBCluster", DBClusterIdentifier="shop", SkipFinalSnapshot=True)

    def test_one_whose_creation_has_failed(self, world: World) -> None:
        world.create_cluster()
        world.change_cluster(status=ClusterStatus.FAILED)
        world.call("DeleteDBCluster", DBClusterIdentifier="shop", SkipFinalSnapshot=True)
        world.finish()
        with world.refused("DBClusterNotFoundFault"):
            world.call("DescribeDBClusters", DBClusterIdentifier="shop")


class TestOtherOperations:
    @pytest.mark.parametrize(
        ("operation", "params", "code"),
        [
            ("PromoteReadReplica", {"DBInstanceIdentifier": "two"}, "InvalidDBInstanceState"),
            ("StopDBInstance", {"DBInstanceIdentifier": "one"}, "InvalidDBInstanceState"),
            (
                "CreateDBInstanceReadReplica",
                {"DBInstanceIdentifier": "copy", "SourceDBInstanceIdentifier": "one"},
                "InvalidDBInstanceState",
            ),
            (
                "CreateDBInstanceReadReplica",
                {"DBInstanceIdentifier": "copy", "SourceDBClusterIdentifier": "shop"},
                COMBINATION,
            ),
            (
                "CreateBlueGreenDeployment",
                {"BlueGreenDeploymentName": "up", "Source": SHOP_ARN.replace("cluster:shop", "db:one")},
                "SourceDatabaseNotSupportedFault",
            ),
            ("ModifyDBInstance", {"DBInstanceIdentifier": "one", "MasterUserPassword": "new-secret-9"}, COMBINATION),
            ("ModifyDBInstance", {"DBInstanceIdentifier": "one", "VpcSecurityGroupIds": ["sg-9"]}, COMBINATION),
            ("ModifyDBInstance", {"DBInstanceIdentifier": "two", "DBPortNumber": 20300}, COMBINATION),
            ("ModifyDBInstance", {"DBInstanceIdentifier": "two", "DeletionProtection": True}, COMBINATION),
        ],
    )
    def test_what_members_do_not_do(self, shop: World, operation: str, params: dict[str, Any], code: str) -> None:
        with shop.refused(code):
            shop.call(operation, **params)

    def test_what_members_do(self, shop: World) -> None:
        shop.call("RebootDBInstance", DBInstanceIdentifier="one")
        shop.call(
            "ModifyDBInstance",
            DBInstanceIdentifier="two",
            NewDBInstanceIdentifier="second",
            DBInstanceClass="db.t3.large",
            PromotionTier=5,
            ApplyImmediately=True,
        )
        shop.finish()
        assert roles(shop) == {"one": True, "second": False, "three": False}

    def test_tags(self, shop: World) -> None:
        shop.call("AddTagsToResource", ResourceName=SHOP_ARN, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}])
        shop.call("RemoveTagsFromResource", ResourceName=SHOP_ARN, TagKeys=["b"])
        tags = shop.call("ListTagsForResource", ResourceName=SHOP_ARN)["TagList"]
        assert tags == [{"Key": "a", "Value": "1"}] == shown(shop)["TagList"]

    def test_a_subnet_group_in_use_stays(self, world: World) -> None:
        world.call(
            "CreateDBSubnetGroup",
            DBSubnetGroupName="nets",
            DBSubnetGroupDescription="d",
            SubnetIds=["subnet-1", "subnet-2"],
        )
        world.create_cluster(DBSubnetGroupName="nets")
        with world.refused("InvalidDBSubnetGroupStateFault", "shop"):
            world.call("DeleteDBSubnetGroup", DBSubnetGroupName="nets")
        assert world.create_member("one").settings["DBSubnetGroupName"] == "nets"

    def test_subscriptions(self, world: World) -> None:
        world.create_cluster()
        subscription = {
            "SubscriptionName": "s",
            "SnsTopicArn": "arn:aws:sns:us-east-1:123456789012:alerts",
            "SourceType": "db-cluster",
        }
        with world.refused("SourceNotFound", "other"):
            world.call("CreateEventSubscription", **subscription, SourceIds=["other"])
        answer = world.call("CreateEventSubscription", **subscription, SourceIds=["shop"])
        assert answer["EventSubscription"]["SourceIdsList"] == ["shop"]
