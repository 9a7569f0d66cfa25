"""ModifyDBInstance, RebootDBInstance, DeleteDBInstance."""

from typing import Any

import pytest

from tests.unit.rds.world import World
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, WorkflowKind


def modify(world: World, identifier: str = "app", **params: Any) -> dict[str, Any]:
    view: dict[str, Any] = world.call("ModifyDBInstance", DBInstanceIdentifier=identifier, **params)["DBInstance"]
    return view


class TestModify:
    @pytest.mark.parametrize(
        ("params", "status", "told", "pending"),
        [
            (
                {"MasterUserPassword": "another-one-9"},
                "resetting-master-credentials",
                {"master_password_verifier": "FAKE"},
                {"MasterUserPassword": "****"},
            ),
            ({"EngineVersion": "17.10"}, "upgrading", {"engine_version": "17.10"}, {"EngineVersion": "17.10"}),
            ({"EngineVersion": "17"}, "upgrading", {"engine_version": "17.10"}, {"EngineVersion": "17.10"}),
            (
                {"DBInstanceClass": "db.m5.large"},
                "modifying",
                {"instance_class": "db.m5.large"},
                {"DBInstanceClass": "db.m5.large"},
            ),
            ({"DBPortNumber": 1234}, "modifying", {"port": 1234}, {"Port": 1234}),
            (
                {"EnableIAMDatabaseAuthentication": True},
                "modifying",
                {"token_logins": True},
                {"IAMDatabaseAuthenticationEnabled": True},
            ),
            (
                {"NewDBInstanceIdentifier": "Other"},
                "renaming",
                {"new_identifier": "other"},
                {"DBInstanceIdentifier": "other"},
            ),
        ],
        ids=["password", "version", "major version's newest", "class", "port", "tokens", "name"],
    )
    def test_what_the_server_has_to_follow(
        self, world: World, params: dict[str, Any], status: str, told: dict[str, object], pending: dict[str, object]
    ) -> None:
        world.create_instance(EngineVersion="17.9")
        view = modify(world, **params, ApplyImmediately=True)
        assert (view["DBInstanceStatus"], view["PendingModifiedValues"]) == (status, pending)
        workflow = world.workflow()
        assert workflow.kind is WorkflowKind.MODIFY_INSTANCE
        given = {name: value for name, value in workflow.arguments.items() if value is not None}
        assert given.keys() == told.keys()
        assert all(str(given[name]).startswith(str(value)) for name, value in told.items())
        (described,) = world.call("DescribeDBInstances")["DBInstances"]
        assert described["PendingModifiedValues"] == pending
        world.finish()
        (described,) = world.call("DescribeDBInstances")["DBInstances"]
        assert (described["DBInstanceStatus"], described["PendingModifiedValues"]) == ("available", {})

    def test_what_is_a_record_alone_is_changed_at_once(self, world: World) -> None:
        world.create_instance()
        view = modify(world, DeletionProtection=True, BackupRetentionPeriod=9, AllocatedStorage=30)
        assert view["DBInstanceStatus"] == "available"
        assert (view["DeletionProtection"], view["BackupRetentionPeriod"], view["AllocatedStorage"]) == (True, 9, 30)
        assert world.workflows() == []
        events = world.call("DescribeEvents")["Events"]
        assert events[-1]["Message"] == "Finished applying modification to allocated storage"

    def test_what_is_so_already_is_no_work(self, world: World) -> None:
        world.create_instance(EngineVersion="17.10")
        view = modify(
            world,
            EngineVersion="17.10",
            DBInstanceClass="db.t3.medium",
            NewDBInstanceIdentifier="APP",
            Engine="postgres",
        )
        assert view["DBInstanceStatus"] == "available"
        assert world.workflows() == []

    @pytest.mark.parametrize(
        ("params", "code", "parts"),
        [
            ({"EngineVersion": "18.6"}, "InvalidParameterCombination", ["AllowMajorVersionUpgrade"]),
            (
                {"EngineVersion": "18.6", "AllowMajorVersionUpgrade": True},
                "InvalidParameterCombination",
                ["CreateBlueGreenDeployment", "TargetEngineVersion=18.6"],
            ),
            ({"EngineVersion": "16.14"}, "InvalidParameterCombination", ["17.9", "16.14"]),
            ({"EngineVersion": "17.77"}, "InvalidParameterCombination", ["17.77"]),
            ({"NewDBInstanceIdentifier": "a--b"}, "InvalidParameterValue", ["NewDBInstanceIdentifier"]),
            ({"NewDBInstanceIdentifier": "taken"}, "DBInstanceAlreadyExists", ["taken"]),
            ({"AllocatedStorage": 20}, "InvalidParameterCombination", ["storage"]),
            ({"DBPortNumber": 1149}, "InvalidParameterValue", ["1149", "between"]),
            ({"DBInstanceClass": "db.huge"}, "InvalidParameterValue", ["db.huge"]),
            ({"DBParameterGroupName": "mine"}, "DBParameterGroupNotFound", ["mine"]),
            ({"Engine": "mysql"}, "InvalidParameterCombination", ["engine"]),
            ({"MasterUserPassword": "no"}, "InvalidParameterValue", ["MasterUserPassword"]),
            ({"MultiAZ": True}, "InvalidParameterCombination", ["MultiAZ"]),
            ({"RotateMasterUserPassword": True}, "InvalidParameterCombination", ["RotateMasterUserPassword"]),
        ],
        ids=lambda value: repr(value)[:60] if isinstance(value, dict) else "",
    )
    def test_refused(self, world: World, params: dict[str, Any], code: str, parts: list[str]) -> None:
        world.create_instance("taken")
        world.create_instance(EngineVersion="17.9", AllocatedStorage=30)
        with world.refused(code, *parts):
            modify(world, **params)

    def test_a_port_is_given_to_one(self, world: World) -> None:
        """Nor to a second one while the first is being moved to it."""
        other = world.create_instance("other")
        world.create_instance()
        world.ports.used_by_others.add(20500)
        for port, part in ((other.port, "other"), (20500, "another program")):
            with world.refused("InvalidParameterValue", str(port), part):
                modify(world, DBPortNumber=port)
        modify(world, DBPortNumber=20002)
        with world.refused("InvalidParameterValue", "20002", "being moved"):
            modify(world, "other", DBPortNumber=20002)
        assert world.create_instance("third").port == 20003

    def test_not_while_something_else_is_done(self, world: World) -> None:
        world.create_instance()
        world.call("RebootDBInstance", DBInstanceIdentifier="app")
        for params in ({"DBInstanceClass": "db.m5.large"}, {"DeletionProtection": True}):
            with world.refused("InvalidDBInstanceState", "app", "rebooting"):
                modify(world, **params)

    def test_an_instance_that_is_not_there(self, world: World) -> None:
        with world.refused("DBInstanceNotFound", "nobody"):
            modify(world, "nobody", DeletionProtection=True)

    @pytest.mark.parametrize(
        "status",
        [DeploymentStatus.PROVISIONING, DeploymentStatus.SWITCHOVER_IN_PROGRESS, DeploymentStatus.DELETING],
    )
    def test_not_while_a_deployment_has_its_members_in_hand(self, world: World, status: DeploymentStatus) -> None:
        deployment = world.create_deployment()
        world.change_deployment(status=status, deleted_at=world.clock.now())
        for member in ("app", deployment.primary.target_identifier or ""):
            with world.refused("InvalidDBInstanceState", member, status):
                modify(world, member, DBInstanceClass="db.m5.large")
            with world.refused("InvalidDBInstanceState", member, status):
                world.call("RebootDBInstance", DBInstanceIdentifier=member)
            with world.refused("InvalidDBInstanceState", member, status):
                world.call("DeleteDBInstance", DBInstanceIdentifier=member, SkipFinalSnapshot=True)
        assert modify(world, DeletionProtection=True)["DeletionProtection"] is True

    def test_green_may_be_changed_while_it_waits(self, world: World) -> None:
        green = world.create_deployment().primary.target_identifier or ""
        assert (
            modify(world, green, DBInstanceClass="db.m5.large", ApplyImmediately=True)["DBInstanceStatus"]
            == "modifying"
        )

    def test_a_physical_replica_takes_its_passwords_from_blue(self, world: World) -> None:
        green = world.create_deployment(TargetEngineVersion="17.10").primary.target_identifier or ""
        with world.refused("InvalidParameterCombination", green, "app"):
            modify(world, green, MasterUserPassword="another-one-9")
        assert modify(world, MasterUserPassword="another-one-9")["DBInstanceStatus"].startswith("resetting")


def pending(world: World, identifier: str = "app") -> dict[str, Any]:
    (view,) = world.call("DescribeDBInstances", DBInstanceIdentifier=identifier)["DBInstances"]
    return dict(view["PendingModifiedValues"])


ALL = {"EngineVersion": "17.10", "DBInstanceClass": "db.m5.large", "NewDBInstanceIdentifier": "Other"}
ALL_PENDING = {"EngineVersion": "17.10", "DBInstanceClass": "db.m5.large", "DBInstanceIdentifier": "other"}


class TestPending:
    @pytest.fixture(autouse=True)
    def _instance(self, world: World) -> None:
        world.create_instance(EngineVersion="17.9")

    def test_what_interrupts_clients_waits_for_the_reboot(self, world: World) -> None:
        view = modify(world, **ALL)
        assert (view["DBInstanceStatus"], view["PendingModifiedValues"]) == ("available", ALL_PENDING)
        assert (view["EngineVersion"], view["DBInstanceClass"]) == ("17.9", "db.t3.medium")
        assert world.workflows() == []
        world.call("RebootDBInstance", DBInstanceIdentifier="app")
        assert world.workflow().kind is WorkflowKind.REBOOT_INSTANCE
        assert pending(world) == ALL_PENDING
        world.finish()
        assert pending(world, "other") == {}
        now = world.instance("other")
        assert (now.engine_version, now.instance_class) == ("17.10", "db.m5.large")

    def test_what_does_not_is_done_at_once(self, world: World) -> None:
        view = modify(world, DBInstanceClass="db.m5.large", DBPortNumber=1234, MasterUserPassword="another-one-9")
        assert view["PendingModifiedValues"] == {
            "DBInstanceClass": "db.m5.large",
            "Port": 1234,
            "MasterUserPassword": "****",
        }
        world.finish()
        assert pending(world) == {"DBInstanceClass": "db.m5.large"}
        assert world.instance().port == 1234

    def test_it_is_taken_back_by_asking_for_what_is(self, world: World) -> None:
        modify(world, **ALL)
        modify(world, DeletionProtection=True)
        assert pending(world) == ALL_PENDING
        modify(world, DBInstanceClass="db.r5.large", NewDBInstanceIdentifier="app")
        assert pending(world) == {"EngineVersion": "17.10", "DBInstanceClass": "db.r5.large"}
        modify(world, EngineVersion="17.9", DBInstanceClass="db.t3.medium")
        assert pending(world) == {}
        assert world.workflows() == []

    def test_who_wants_something_now_gets_what_waits_too(self, world: World) -> None:
        modify(world, **ALL)
        modify(world, DBInstanceClass="db.r5.large", ApplyImmediately=True)
        assert pending(world) == {**ALL_PENDING, "DBInstanceClass": "db.r5.large"}
        world.finish()
        assert world.instance("other").engine_version == "17.10"
        assert pending(world, "other") == {}

    def test_a_name_that_waits_is_taken(self, world: World) -> None:
        world.create_instance("second")
        modify(world, NewDBInstanceIdentifier="next")
        modify(world, NewDBInstanceIdentifier="next")
        with world.refused("DBInstanceAlreadyExists", "next"):
            world.create_instance("next")
        with world.refused("DBInstanceAlreadyExists", "next"):
            modify(world, "second", NewDBInstanceIdentifier="next")

    def test_copies_inherit_nothing_of_it(self, world: World) -> None:
        modify(world, **ALL)
        world.create_replica()
        assert pending(world, "copy") == {}

    def test_replicas_come_first_at_the_reboot_too(self, world: World) -> None:
        modify(world, EngineVersion="17.10")
        world.create_replica()
        with world.refused("DBUpgradeDependencyFailure", "copy"):
            world.call("RebootDBInstance", DBInstanceIdentifier="app")
        world.call("RebootDBInstance", DBInstanceIdentifier="copy")

    def test_refused_as_if_it_were_done_at_once(self, world: World) -> None:
        world.change("app", status=InstanceStatus.STOPPED)
        with world.refused("InvalidDBInstanceState", "stopped"):
            modify(world, DBInstanceClass="db.m5.large")


class TestReboot:
    def test_it_reboots(self, world: World) -> None:
        instance = world.create_instance()
        view = world.call("RebootDBInstance", DBInstanceIdentifier="APP")["DBInstance"]
        assert view["DBInstanceStatus"] == "rebooting"
        assert (world.workflow().kind, world.workflow().subject) == (WorkflowKind.REBOOT_INSTANCE, instance.resource_id)

    def test_refused(self, world: World) -> None:
        world.create_instance()
        with world.refused("InvalidParameterCombination", "ForceFailover"):
            world.call("RebootDBInstance", DBInstanceIdentifier="app", ForceFailover=True)
        world.change("app", status=InstanceStatus.FAILED)
        with world.refused("InvalidDBInstanceState", "failed"):
            world.call("RebootDBInstance", DBInstanceIdentifier="app")


def delete(world: World, identifier: str = "app", **params: Any) -> dict[str, Any]:
    params = {"SkipFinalSnapshot": True, **params}
    view: dict[str, Any] = world.call("DeleteDBInstance", DBInstanceIdentifier=identifier, **params)["DBInstance"]
    return view


class TestDelete:
    def test_it_goes(self, world: World) -> None:
        instance = world.create_instance()
        assert delete(world)["DBInstanceStatus"] == "deleting"
        assert (world.workflow().kind, world.workflow().subject) == (WorkflowKind.DELETE_INSTANCE, instance.resource_id)
        with world.refused("InvalidDBInstanceState", "already being deleted"):
            delete(world)
        world.finish()
        assert world.call("DescribeDBInstances")["DBInstances"] == []

    @pytest.mark.parametrize(
        ("params", "part"),
        [
            ({"SkipFinalSnapshot": False}, "FinalDBSnapshotIdentifier is required"),
            ({"FinalDBSnapshotIdentifier": "last"}, "cannot be specified"),
        ],
    )
    def test_never_without_a_word_about_the_snapshot(self, world: World, params: dict[str, Any], part: str) -> None:
        world.create_instance()
        with world.refused("InvalidParameterCombination", part):
            delete(world, **params)

    def test_protected(self, world: World) -> None:
        world.create_instance(DeletionProtection=True)
        with world.refused("InvalidParameterCombination", "protected"):
            delete(world)
        modify(world, DeletionProtection=False)
        delete(world)

    @pytest.mark.parametrize("status", [InstanceStatus.CREATING, InstanceStatus.MODIFYING, InstanceStatus.REBOOTING])
    def test_not_while_something_is_done_to_it(self, world: World, status: InstanceStatus) -> None:
        world.create_instance()
        world.change("app", status=status)
        with world.refused("InvalidDBInstanceState", status):
            delete(world)

    def test_a_failed_one_once_it_has_been_cleaned_up(self, world: World) -> None:
        world.create_instance()
        world.call("RebootDBInstance", DBInstanceIdentifier="app")
        world.change("app", status=InstanceStatus.FAILED)
        with world.refused("InvalidDBInstanceState", "cleaned up"):
            delete(world)
        world.finish()
        world.change("app", status=InstanceStatus.FAILED)
        assert delete(world)["DBInstanceStatus"] == "deleting"

    def test_a_green_that_waits(self, world: World) -> None:
        green = world.create_deployment().primary.target_identifier or ""
        assert delete(world, green)["DBInstanceStatus"] == "deleting"
