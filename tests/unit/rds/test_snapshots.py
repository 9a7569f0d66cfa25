"""DB snapshots as the API has them: what is shown of them, what is made of them, and when they cannot be touched."""

from typing import Any

import pytest
from msgspec import to_builtins

from tests.unit.rds.world import APP_ARN, SNAPSHOT_ARN, World
from verdigris.domain.events import ARN_KINDS
from verdigris.domain.model import Tag
from verdigris.domain.statuses import InstanceStatus, SnapshotStatus, SourceType, WorkflowKind
from verdigris.workflows import arguments

COMBINATION, VALUE = "InvalidParameterCombination", "InvalidParameterValue"
STATE, SNAPSHOT_STATE = "InvalidDBInstanceState", "InvalidDBSnapshotState"


@pytest.fixture
def kept(world: World) -> World:
    """With one snapshot."""
    world.create_instance(StorageType="gp3", Tags=[{"Key": "stage", "Value": "prod"}], Port=25000)
    world.create_snapshot()
    return world


def create(world: World, identifier: str = "monday", **params: Any) -> dict[str, Any]:
    named = {"DBSnapshotIdentifier": identifier, "DBInstanceIdentifier": "app"}
    view: dict[str, Any] = world.call("CreateDBSnapshot", **{**named, **params})["DBSnapshot"]
    return view


def copy(world: World, **params: Any) -> dict[str, Any]:
    named = {"SourceDBSnapshotIdentifier": "monday", "TargetDBSnapshotIdentifier": "tuesday"}
    view: dict[str, Any] = world.call("CopyDBSnapshot", **{**named, **params})["DBSnapshot"]
    return view


def restore(world: World, **params: Any) -> dict[str, Any]:
    named = {"DBSnapshotIdentifier": "monday", "DBInstanceIdentifier": "other"}
    view: dict[str, Any] = world.call("RestoreDBInstanceFromDBSnapshot", **{**named, **params})["DBInstance"]
    return view


def delete(world: World, identifier: str = "monday") -> dict[str, Any]:
    view: dict[str, Any] = world.call("DeleteDBSnapshot", DBSnapshotIdentifier=identifier)["DBSnapshot"]
    return view


def shown(world: World, **params: Any) -> list[str]:
    return [each["DBSnapshotIdentifier"] for each in world.call("DescribeDBSnapshots", **params)["DBSnapshots"]]


def told(world: World, source_type: SourceType) -> list[str]:
    events = world.call("DescribeEvents", SourceType=source_type)["Events"]
    return [event["Message"] for event in events]


class TestCreate:
    def test_its_life(self, world: World) -> None:
        instance = world.create_instance(Port=25000, AllocatedStorage=30)
        view = create(world, "Monday", Tags=[{"Key": "why", "Value": "upgrade"}])
        assert (view["DBSnapshotIdentifier"], view["Status"], view["PercentProgress"]) == ("monday", "creating", 0)
        assert "SnapshotCreateTime" not in view
        assert world.instance().status is InstanceStatus.BACKING_UP
        workflow = world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_SNAPSHOT, instance.resource_id)
        assert workflow.arguments == {"snapshot_id": world.snapshot_of().snapshot_id}
        world.finish()
        view = world.call("DescribeDBSnapshots", DBSnapshotIdentifier="MONDAY")["DBSnapshots"][0]
        known = {
            "DBSnapshotArn": SNAPSHOT_ARN,
            "DBInstanceIdentifier": "app",
            "DbiResourceId": instance.resource_id,
            "Status": "available",
            "PercentProgress": 100,
            "SnapshotType": "manual",
            "Engine": "postgres",
            "EngineVersion": "17.10",
            "MasterUsername": "boss",
            "Port": 25000,
            "AllocatedStorage": 30,
            "FullSnapshotSizeInBytes": 1 << 20,
            "StorageType": "gp2",
            "Encrypted": False,
            "TagList": [{"Key": "why", "Value": "upgrade"}],
        }
        assert {name: view[name] for name in known} == known
        assert view["SnapshotCreateTime"] == view["OriginalSnapshotCreateTime"] == world.clock.now()
        assert world.instance().status is InstanceStatus.AVAILABLE

    def test_it_is_told(self, world: World) -> None:
        world.create_instance()
        create(world)
        assert told(world, SourceType.DB_SNAPSHOT) == ["Creating manual snapshot"]
        assert told(world, SourceType.DB_INSTANCE)[-1] == "Backing up DB instance"
        assert ARN_KINDS[SourceType.DB_SNAPSHOT] in SNAPSHOT_ARN

    @pytest.mark.parametrize("copies", [True, False])
    def test_the_instance_s_tags(self, world: World, copies: bool) -> None:
        world.create_instance(CopyTagsToSnapshot=copies, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "1"}])
        view = create(world, Tags=[{"Key": "b", "Value": "2"}])
        assert view["TagList"] == [*([{"Key": "a", "Value": "1"}] if copies else []), {"Key": "b", "Value": "2"}]

    @pytest.mark.parametrize("name", ["", "1st", "a--b", "a-", "a_b", "rds:app-2026", "a" * 256])
    def test_names(self, world: World, name: str) -> None:
        world.create_instance()
        with world.refused(VALUE, "DBSnapshotIdentifier"):
            create(world, name)

    @pytest.mark.parametrize("status", [each for each in InstanceStatus if each is not InstanceStatus.AVAILABLE])
    def test_only_of_an_available_one(self, world: World, status: InstanceStatus) -> None:
        world.create_instance()
        world.change("app", status=status)
        with world.refused(STATE, status):
            create(world)

    def test_nothing_else_is_done_meanwhile(self, world: World) -> None:
        """Above all no switchover, of which it may be either side."""
        deployment = world.create_deployment()
        green = deployment.primary.target_identifier
        for member in ("app", green):
            create(world, f"of-{member}", DBInstanceIdentifier=member)
            with world.refused("InvalidBlueGreenDeploymentStateFault", "is not in available state"):
                world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier)
            for operation in ("RebootDBInstance", "StopDBInstance", "DeleteDBInstance"):
                extra = {"SkipFinalSnapshot": True} if operation == "DeleteDBInstance" else {}
                with world.refused(STATE):
                    world.call(operation, DBInstanceIdentifier=member, **extra)
            world.finish()
        world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier)
        with world.refused(STATE, "SWITCHOVER_IN_PROGRESS"):
            create(world)

    def test_not_of_a_cluster_s_member(self, world: World) -> None:
        world.create_cluster()
        world.create_member("one")
        with world.refused(STATE, "member of a DB cluster"):
            create(world, DBInstanceIdentifier="one")


class TestDescribe:
    @pytest.mark.parametrize(
        ("params", "found"),
        [
            ({}, ["monday", "other", "sunday"]),
            ({"DBSnapshotIdentifier": "monday"}, ["monday"]),
            ({"DBSnapshotIdentifier": SNAPSHOT_ARN}, ["monday"]),
            ({"DBInstanceIdentifier": "APP"}, ["monday", "sunday"]),
            ({"DBInstanceIdentifier": APP_ARN}, ["monday", "sunday"]),
            ({"DBInstanceIdentifier": "gone"}, []),
            ({"DbiResourceId": "db-NONE"}, []),
            ({"SnapshotType": "manual"}, ["monday", "other", "sunday"]),
            ({"SnapshotType": "automated"}, []),
            ({"SnapshotType": "shared", "IncludeShared": True, "IncludePublic": True}, []),
            ({"Filters": [{"Name": "db-instance-id", "Values": [APP_ARN]}]}, ["monday", "sunday"]),
            ({"Filters": [{"Name": "db-snapshot-id", "Values": ["other", "sunday"]}]}, ["other", "sunday"]),
            ({"Filters": [{"Name": "snapshot-type", "Values": ["automated"]}]}, []),
            ({"Filters": [{"Name": "engine", "Values": ["postgres"]}]}, ["monday", "other", "sunday"]),
            ({"Filters": [{"Name": "dbi-resource-id", "Values": ["db-none"]}]}, []),
        ],
        ids=str,
    )
    def test_which(self, kept: World, params: dict[str, Any], found: list[str]) -> None:
        kept.create_instance("second")
        kept.create_snapshot("other", instance="second")
        kept.create_snapshot("sunday")
        assert shown(kept, **params) == found

    def test_it_is_of_the_instance_that_there_was(self, kept: World) -> None:
        renamed = {"NewDBInstanceIdentifier": "renamed", "ApplyImmediately": True}
        kept.call("ModifyDBInstance", DBInstanceIdentifier="app", **renamed)
        kept.finish()
        assert shown(kept, DBInstanceIdentifier="app") == ["monday"]
        assert shown(kept, DBInstanceIdentifier="renamed") == []
        assert shown(kept, DbiResourceId=kept.instance("renamed").resource_id) == ["monday"]

    def test_pages(self, world: World) -> None:
        world.create_instance()
        for number in range(21):
            world.create_snapshot(f"s{number:02}")
        page = world.call("DescribeDBSnapshots", MaxRecords=20)
        assert len(page["DBSnapshots"]) == 20
        assert shown(world, Marker=page["Marker"]) == ["s20"]

    @pytest.mark.parametrize(
        ("params", "part"),
        [
            ({"SnapshotType": "final"}, "SnapshotType"),
            ({"Filters": [{"Name": "status", "Values": ["available"]}]}, "status"),
            ({"DBSnapshotIdentifier": APP_ARN}, "DB snapshot"),
        ],
    )
    def test_refused(self, kept: World, params: dict[str, Any], part: str) -> None:
        with kept.refused(VALUE, part):
            shown(kept, **params)


class TestTags:
    def test_added_listed_removed(self, kept: World) -> None:
        kept.call("AddTagsToResource", ResourceName=SNAPSHOT_ARN, Tags=[{"Key": "a"}, {"Key": "b"}])
        kept.call("RemoveTagsFromResource", ResourceName=SNAPSHOT_ARN, TagKeys=["a"])
        assert kept.call("ListTagsForResource", ResourceName=SNAPSHOT_ARN)["TagList"] == [{"Key": "b", "Value": ""}]


class TestCopy:
    def test_its_life(self, kept: World) -> None:
        kept.call("AddTagsToResource", ResourceName=SNAPSHOT_ARN, Tags=[{"Key": "a"}])
        before = kept.snapshot_of()
        kept.clock.advance(minutes=5)
        view = copy(kept, CopyTags=True, Tags=[{"Key": "b"}])
        assert (view["Status"], [tag["Key"] for tag in view["TagList"]]) == ("creating", ["a", "b"])
        workflow = kept.workflow()
        assert (workflow.kind, workflow.subject) == (
            WorkflowKind.COPY_SNAPSHOT,
            kept.snapshot_of("tuesday").snapshot_id,
        )
        with kept.refused(SNAPSHOT_STATE, "in use"):
            delete(kept)
        kept.finish()
        made = kept.snapshot_of("tuesday")
        assert (made.data_of, made.resource_id, made.port) == (before.data_of, before.resource_id, before.port)
        assert made.taken_at != before.taken_at
        assert told(kept, SourceType.DB_SNAPSHOT)[-1] == "Started copy of snapshot monday in region us-east-1"
        delete(kept)
        kept.finish()
        assert shown(kept) == ["tuesday"]

    def test_by_arn_and_without_tags(self, kept: World) -> None:
        kept.call("AddTagsToResource", ResourceName=SNAPSHOT_ARN, Tags=[{"Key": "a"}])
        assert copy(kept, SourceDBSnapshotIdentifier=SNAPSHOT_ARN, SourceRegion="us-east-1")["TagList"] == []

    @pytest.mark.parametrize(
        ("params", "code", "part"),
        [
            ({"TargetDBSnapshotIdentifier": "a--b"}, VALUE, "TargetDBSnapshotIdentifier"),
            ({"SourceRegion": "us-east-2"}, VALUE, "SourceRegion"),
            ({"SnapshotTarget": "local"}, VALUE, "SnapshotTarget"),
            ({"KmsKeyId": "key"}, COMBINATION, "KmsKeyId"),
            ({"OptionGroupName": "mine"}, "OptionGroupNotFoundFault", "mine"),
        ],
    )
    def test_refused(self, kept: World, params: dict[str, Any], code: str, part: str) -> None:
        with kept.refused(code, part):
            copy(kept, **params)


class TestModify:
    def test_another_minor_version(self, kept: World) -> None:
        kept.change_snapshot(engine_version="17.9")
        view = kept.call("ModifyDBSnapshot", DBSnapshotIdentifier="monday", EngineVersion="17.10")["DBSnapshot"]
        assert view["EngineVersion"] == "17.10"
        assert restore(kept)["EngineVersion"] == "17.10"
        with kept.refused(SNAPSHOT_STATE, "in use"):
            kept.call("ModifyDBSnapshot", DBSnapshotIdentifier="monday", OptionGroupName="default:postgres-17")

    @pytest.mark.parametrize(("version", "part"), [("18.6", "CreateBlueGreenDeployment"), ("17.9", "lower")])
    def test_refused(self, kept: World, version: str, part: str) -> None:
        with kept.refused(COMBINATION, part):
            kept.call("ModifyDBSnapshot", DBSnapshotIdentifier="monday", EngineVersion=version)


class TestDelete:
    def test_its_life(self, kept: World) -> None:
        snapshot = kept.snapshot_of()
        assert delete(kept)["Status"] == "deleting"
        assert (kept.workflow().kind, kept.workflow().subject) == (WorkflowKind.DELETE_SNAPSHOT, snapshot.snapshot_id)
        with kept.refused(SNAPSHOT_STATE, "deleting"):
            delete(kept)
        with kept.refused("DBSnapshotAlreadyExists", "monday"):
            create(kept)
        kept.finish()
        assert shown(kept) == []
        create(kept)

    def test_one_that_failed(self, kept: World) -> None:
        kept.change_snapshot(status=SnapshotStatus.FAILED)
        with kept.refused(SNAPSHOT_STATE, "failed"):
            restore(kept)
        delete(kept)

    def test_not_while_it_is_taken(self, world: World) -> None:
        world.create_instance()
        create(world)
        with world.refused(SNAPSHOT_STATE, "creating"):
            delete(world)
        world.change_snapshot(status=SnapshotStatus.FAILED)  # and is still being taken away
        with world.refused(SNAPSHOT_STATE, "in use"):
            delete(world)

    def test_not_while_an_instance_is_made_of_it(self, kept: World) -> None:
        restore(kept)
        with kept.refused(SNAPSHOT_STATE, "in use"):
            delete(kept)
        kept.finish()
        delete(kept)


class TestRestore:
    def test_what_it_has_of_the_snapshot(self, kept: World) -> None:
        kept.change("app", instance_class="db.m5.large", tags=(Tag("later"),))
        view = restore(kept)
        assert view["DBInstanceStatus"] == "creating"
        instance = kept.instance("other")
        assert instance.resource_id != kept.instance().resource_id
        assert (instance.engine_version, instance.instance_class) == ("17.10", "db.t3.medium")
        assert (instance.master_username, instance.parameter_group) == ("boss", "default.postgres17")
        assert instance.settings["StorageType"] == "gp3"
        assert instance.tags == (Tag("stage", "prod"),)
        assert instance.port not in (25000, kept.instance().port)
        workflow = kept.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.RESTORE_INSTANCE, instance.resource_id)
        assert workflow.arguments == to_builtins(arguments.RestoreInstance(snapshot_id=kept.snapshot_of().snapshot_id))

    def test_what_is_asked_for(self, kept: World) -> None:
        group = {"DBParameterGroupFamily": "postgres17", "Description": "Ours"}
        kept.call("CreateDBParameterGroup", DBParameterGroupName="mine", **group)
        restore(
            kept,
            DBSnapshotIdentifier=SNAPSHOT_ARN,
            DBInstanceClass="db.t3.small",
            Port=25001,
            DBParameterGroupName="mine",
            DeletionProtection=True,
            AllocatedStorage=40,
            StorageType="gp2",
            Tags=[{"Key": "stage", "Value": "test"}],
        )
        instance = kept.instance("other")
        assert (instance.instance_class, instance.port, instance.parameter_group) == ("db.t3.small", 25001, "mine")
        assert (instance.deletion_protection, instance.allocated_storage_gib) == (True, 40)
        assert (instance.settings["StorageType"], instance.tags) == ("gp2", (Tag("stage", "test"),))
        assert kept.workflow().arguments["port_requested"] is True

    def test_the_port_of_an_instance_that_is_gone(self, kept: World) -> None:
        kept.call("DeleteDBInstance", DBInstanceIdentifier="app", SkipFinalSnapshot=True)
        kept.finish()
        restore(kept, DBInstanceIdentifier="app")
        assert kept.instance().port == 25000
        assert kept.workflow().arguments["port_requested"] is False

    def test_no_subnet_group_comes_along(self, world: World) -> None:
        subnets = {"DBSubnetGroupDescription": "Ours", "SubnetIds": ["subnet-1", "subnet-2"]}
        world.call("CreateDBSubnetGroup", DBSubnetGroupName="mine", **subnets)
        world.create_instance(DBSubnetGroupName="mine")
        world.create_snapshot()
        assert "DBSubnetGroup" not in restore(world)

    @pytest.mark.parametrize(
        ("params", "code", "part"),
        [
            ({"DBInstanceIdentifier": "a--b"}, VALUE, "DBInstanceIdentifier"),
            ({"DBSnapshotIdentifier": ""}, "MissingParameter", "DBSnapshotIdentifier"),
            ({"Engine": "mysql"}, COMBINATION, "engine"),
            ({"DBName": "app"}, COMBINATION, "DBName"),
            ({"DBInstanceClass": "db.none.large"}, VALUE, "db.none.large"),
            ({"AllocatedStorage": 19}, VALUE, "AllocatedStorage"),
            ({"Port": 1000}, VALUE, "1000"),
            ({"Port": 25000}, VALUE, "belongs to the DB instance app"),
            ({"MultiAZ": True}, COMBINATION, "MultiAZ"),
            ({"DBParameterGroupName": "default.postgres18"}, COMBINATION, "postgres17"),
        ],
    )
    def test_refused(self, kept: World, params: dict[str, Any], code: str, part: str) -> None:
        with kept.refused(code, part):
            restore(kept, **params)

    def test_not_on_less_storage(self, world: World) -> None:
        world.create_instance(AllocatedStorage=50)
        world.create_snapshot()
        with world.refused(COMBINATION, "50"):
            restore(world, AllocatedStorage=49)

    def test_of_a_version_that_is_gone(self, kept: World) -> None:
        kept.change_snapshot(engine_version="17.1")
        with kept.refused(COMBINATION, "17.1"):
            restore(kept)


class TestFinal:
    def test_it_is_taken_first(self, kept: World) -> None:
        resource_id = kept.instance().resource_id
        kept.call("DeleteDBInstance", DBInstanceIdentifier="app", FinalDBSnapshotIdentifier="Last")
        final = kept.snapshot_of("last")
        assert (final.status, final.resource_id) == (SnapshotStatus.CREATING, resource_id)
        told = arguments.DeleteInstance(final_snapshot=final.snapshot_id)
        assert kept.workflow().arguments == to_builtins(told)
        kept.finish()
        assert kept.instances() == []
        assert kept.snapshot_of("last").status is SnapshotStatus.AVAILABLE

    def test_of_a_stopped_one(self, kept: World) -> None:
        kept.change("app", status=InstanceStatus.STOPPED)
        kept.call("DeleteDBInstance", DBInstanceIdentifier="app", FinalDBSnapshotIdentifier="last")
        assert kept.workflow().arguments["was_stopped"] is True

    @pytest.mark.parametrize("skips", [{}, {"SkipFinalSnapshot": False}])
    def test_not_of_what_cannot_have_one(self, kept: World, skips: dict[str, bool]) -> None:
        kept.create_replica()
        kept.create_cluster()
        kept.create_member("one")
        final = {"FinalDBSnapshotIdentifier": "last", **skips}
        for name, part in (("copy", "read replica"), ("one", "member of a DB cluster")):
            with kept.refused(COMBINATION, part):
                kept.call("DeleteDBInstance", DBInstanceIdentifier=name, **final)
        kept.change("app", status=InstanceStatus.FAILED)
        with kept.refused(STATE, "SkipFinalSnapshot=true"):
            kept.call("DeleteDBInstance", DBInstanceIdentifier="app", **final)

    def test_before_a_stop(self, kept: World) -> None:
        kept.call("StopDBInstance", DBInstanceIdentifier="app", DBSnapshotIdentifier="before")
        assert kept.workflow().arguments == {"snapshot_id": kept.snapshot_of("before").snapshot_id}
        kept.finish()
        assert kept.instance().status is InstanceStatus.STOPPED
        assert kept.snapshot_of("before").status is SnapshotStatus.AVAILABLE
