"""The four operations of blue/green deployments, moment by moment as in RDS."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace

from tests.unit.rds.world import APP_ARN, World
from verdigris.domain.model import Task
from verdigris.domain.statuses import (
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    TaskStatus,
    WorkflowKind,
    WorkflowStatus,
)


def create(world: World, **params: Any) -> dict[str, Any]:
    params = {"BlueGreenDeploymentName": "up", "Source": APP_ARN, "TargetEngineVersion": "18.6", **params}
    view: dict[str, Any] = world.call("CreateBlueGreenDeployment", **params)["BlueGreenDeployment"]
    return view


def describe(world: World, **params: Any) -> list[dict[str, Any]]:
    views: list[dict[str, Any]] = world.call("DescribeBlueGreenDeployments", **params)["BlueGreenDeployments"]
    return views


def switch_over(world: World, **params: Any) -> dict[str, Any]:
    named = {"BlueGreenDeploymentIdentifier": world.deployment().identifier, **params}
    view: dict[str, Any] = world.call("SwitchoverBlueGreenDeployment", **named)["BlueGreenDeployment"]
    return view


def delete(world: World, **params: Any) -> dict[str, Any]:
    named = {"BlueGreenDeploymentIdentifier": world.deployment().identifier, **params}
    view: dict[str, Any] = world.call("DeleteBlueGreenDeployment", **named)["BlueGreenDeployment"]
    return view


class TestCreate:
    def test_the_answer_has_no_target_yet(self, world: World) -> None:
        world.create_instance()
        view = create(world, Tags=[{"Key": "a", "Value": "b"}])
        identifier = view.pop("BlueGreenDeploymentIdentifier")
        assert identifier.startswith("bgd-")
        assert len(identifier) == 20
        assert view.pop("CreateTime") == world.clock.now()
        assert view == {
            "BlueGreenDeploymentName": "up",
            "Source": APP_ARN,
            "SwitchoverDetails": [{"SourceMember": APP_ARN}],
            "Tasks": [
                {"Name": name, "Status": "PENDING"}
                for name in ("CREATING_READ_REPLICA_OF_SOURCE", "DB_ENGINE_VERSION_UPGRADE", "CONFIGURE_BACKUPS")
            ],
            "Status": "PROVISIONING",
            "TagList": [{"Key": "a", "Value": "b"}],
        }
        workflow = world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_DEPLOYMENT, identifier)
        assert world.wakes == 2

    @pytest.mark.parametrize(
        ("version", "resolved", "mode", "tasks"),
        [
            ("18.6", "18.6", ReplicationMode.LOGICAL, 3),
            ("18", "18.6", ReplicationMode.LOGICAL, 3),
            ("17.10", "17.10", ReplicationMode.PHYSICAL, 3),
            ("17.9", "17.9", ReplicationMode.PHYSICAL, 2),
            (None, "17.9", ReplicationMode.PHYSICAL, 2),
        ],
    )
    def test_mode_and_tasks_follow_from_the_versions(
        self, world: World, version: str | None, resolved: str, mode: ReplicationMode, tasks: int
    ) -> None:
        world.create_instance(EngineVersion="17.9")
        params = {"BlueGreenDeploymentName": "up", "Source": APP_ARN}
        world.call("CreateBlueGreenDeployment", **params, **({"TargetEngineVersion": version} if version else {}))
        deployment = world.deployment()
        assert (deployment.target.engine_version, deployment.mode) == (resolved, mode)
        assert len(deployment.tasks) == tasks

    def test_what_green_shall_be(self, world: World) -> None:
        world.create_instance(StorageType="gp2")
        create(
            world,
            TargetDBInstanceClass="db.m5.large",
            TargetAllocatedStorage=40,
            TargetStorageType="gp3",
            TargetIops=3000,
            TargetDBParameterGroupName="default.postgres18",
            UpgradeTargetStorageConfig=True,
        )
        target = world.deployment().target
        assert (target.instance_class, target.allocated_storage_gib) == ("db.m5.large", 40)
        assert target.parameter_group == "default.postgres18"
        assert target.settings == {"StorageType": "gp3", "Iops": 3000}

    @pytest.mark.parametrize(
        ("params", "code", "parts"),
        [
            ({"Source": "notarn"}, "ValidationError", ["source"]),
            ({"Source": "arn:aws:s3:::bucket"}, "InvalidParameterValue", ["arn:aws:s3:::bucket"]),
            ({"Source": APP_ARN.replace("us-east-1", "eu-west-1")}, "InvalidParameterValue", ["us-east-1"]),
            ({"Source": APP_ARN.replace("1234", "9999")}, "InvalidParameterValue", ["123456789012"]),
            ({"Source": APP_ARN.replace(":db:", ":cluster:")}, "DBClusterNotFoundFault", ["app"]),
            ({"Source": APP_ARN.replace(":db:", ":snapshot:")}, "InvalidParameterValue", ["snapshot"]),
            ({"Source": APP_ARN + "2"}, "DBInstanceNotFound", ["app2"]),
            ({"BlueGreenDeploymentName": "1up"}, "ValidationError", ["blueGreenDeploymentName"]),
            ({"BlueGreenDeploymentName": "u" * 61}, "ValidationError", ["60"]),
            ({"TargetEngineVersion": "16.14"}, "InvalidParameterCombination", ["17.10", "16.14"]),
            ({"TargetEngineVersion": "99.1"}, "InvalidParameterCombination", ["99.1"]),
            ({"TargetEngineVersion": "mysql-8"}, "InvalidParameterCombination", ["mysql-8"]),
            ({"TargetDBInstanceClass": "db.no.nonsense"}, "InvalidParameterValue", ["db.no.nonsense"]),
            ({"TargetAllocatedStorage": 5}, "InvalidParameterValue", ["TargetAllocatedStorage"]),
            ({"TargetStorageType": "tape"}, "InvalidParameterValue", ["TargetStorageType"]),
            ({"TargetDBParameterGroupName": "mine"}, "DBParameterGroupNotFound", ["mine"]),
            ({"TargetDBParameterGroupName": "default.postgres17"}, "InvalidParameterCombination", ["postgres18"]),
            ({"TargetDBClusterParameterGroupName": "x1"}, "InvalidParameterCombination", ["Cluster"]),
            ({"Tags": [{"Key": "", "Value": ""}]}, "InvalidParameterValue", ["tag"]),
        ],
        ids=lambda value: repr(value)[:60] if isinstance(value, dict) else "",
    )
    def test_refused(self, world: World, params: dict[str, Any], code: str, parts: list[str]) -> None:
        world.create_instance()
        with world.refused(code, *parts):
            create(world, **params)

    def test_no_way_up(self, world: World) -> None:
        world.servers.catalogue = [replace(info, upgrade_targets=()) for info in world.servers.catalogue]
        world.create_instance()
        with world.refused("InvalidParameterCombination", "upgrade path", "17.10", "18.6"):
            create(world)

    @pytest.mark.parametrize("status", [InstanceStatus.CREATING, InstanceStatus.REBOOTING, InstanceStatus.FAILED])
    def test_the_source_has_to_be_available(self, world: World, status: InstanceStatus) -> None:
        world.create_instance()
        world.change("app", status=status)
        with world.refused("InvalidDBInstanceState", "DB instance app is not in available state"):
            create(world)

    def test_the_source_has_to_be_writable(self, world: World) -> None:
        world.create_instance()
        world.change("app", read_only=True)
        with world.refused("SourceDatabaseNotSupportedFault", "read-only"):
            create(world)

    def test_a_name_that_is_taken(self, world: World) -> None:
        world.create_deployment()
        world.create_instance("second")
        with world.refused("BlueGreenDeploymentAlreadyExistsFault", "'up'"):
            create(world, Source=APP_ARN.replace("app", "second"))
        delete(world)
        with world.refused("BlueGreenDeploymentAlreadyExistsFault", "'up'"):
            create(world, Source=APP_ARN.replace("app", "second"))
        world.finish()
        assert create(world, Source=APP_ARN.replace("app", "second"))["Status"] == "PROVISIONING"

    def test_a_member_of_one_cannot_be_the_source_of_another(self, world: World) -> None:
        deployment = world.create_deployment()
        for name in ("app", deployment.primary.target_identifier or ""):
            with world.refused("InvalidDBInstanceState", name, deployment.identifier):
                create(world, BlueGreenDeploymentName="two", Source=APP_ARN.replace("app", name))


class TestDescribe:
    def test_while_green_is_made(self, world: World) -> None:
        world.create_instance()
        create(world)
        deployment = world.deployment()
        first, *rest = deployment.tasks
        with world.store.transaction() as tx:
            world.add_green(tx, deployment, InstanceStatus.CREATING)
        world.change_deployment(tasks=(Task(first.name, TaskStatus.IN_PROGRESS), *rest))
        (view,) = describe(world)
        target = APP_ARN.replace("app", world.deployment().primary.target_identifier or "")
        assert (view["Status"], view["Target"]) == ("PROVISIONING", target)
        assert view["SwitchoverDetails"] == [
            {"SourceMember": APP_ARN, "TargetMember": target, "Status": "PROVISIONING"}
        ]
        assert [task["Status"] for task in view["Tasks"]] == ["IN_PROGRESS", "PENDING", "PENDING"]

    def test_members_follow_their_instances_names(self, world: World) -> None:
        world.create_deployment()
        world.call(
            "ModifyDBInstance", DBInstanceIdentifier="app", NewDBInstanceIdentifier="next", ApplyImmediately=True
        )
        world.finish()
        (view,) = describe(world)
        assert view["Source"] == APP_ARN.replace("app", "next")

    def test_a_member_that_is_gone_keeps_its_name(self, world: World) -> None:
        green = world.create_deployment().primary
        with world.store.transaction() as tx:
            tx.delete_instance(green.target_resource_id or "")
        world.change_deployment(
            members=(replace(green, status=MemberStatus.MISSING_TARGET),),
            status=DeploymentStatus.INVALID_CONFIGURATION,
            status_details="gone",
        )
        (view,) = describe(world)
        assert view["Target"] == APP_ARN.replace("app", green.target_identifier or "")
        assert view["SwitchoverDetails"][0]["Status"] == "MISSING_TARGET"
        assert (view["Status"], view["StatusDetails"]) == ("INVALID_CONFIGURATION", "gone")

    def test_by_identifier_in_any_case_or_arn(self, world: World) -> None:
        identifier = world.create_deployment().identifier
        arn = f"arn:aws:rds:us-east-1:123456789012:deployment:{identifier}"
        for named in (identifier, identifier.upper(), arn):
            assert len(describe(world, BlueGreenDeploymentIdentifier=named)) == 1
        with world.refused("BlueGreenDeploymentNotFoundFault", "bgd-none"):
            describe(world, BlueGreenDeploymentIdentifier="bgd-none")
        with world.refused("InvalidParameterValue"):
            describe(world, BlueGreenDeploymentIdentifier=APP_ARN)

    @pytest.mark.parametrize(
        ("name", "value", "found"),
        [
            ("blue-green-deployment-name", "up", 1),
            ("blue-green-deployment-name", "down", 0),
            ("source", APP_ARN, 1),
            ("source", "app", 1),
            ("source", "GREEN", 0),
            ("target", "GREEN", 1),
            ("target", APP_ARN, 0),
            ("blue-green-deployment-identifier", "ID", 1),
            ("blue-green-deployment-identifier", "bgd-other", 0),
        ],
    )
    def test_filters(self, world: World, name: str, value: str, found: int) -> None:
        deployment = world.create_deployment()
        given = {"GREEN": deployment.primary.target_identifier or "", "ID": deployment.identifier}.get(value, value)
        assert len(describe(world, Filters=[{"Name": name, "Values": [given]}])) == found

    def test_filter_names_are_case_sensitive(self, world: World) -> None:
        with world.refused("InvalidParameterValue", "Source"):
            describe(world, Filters=[{"Name": "Source", "Values": [APP_ARN]}])

    @pytest.mark.parametrize("size", [19, 101])
    def test_page_sizes(self, world: World, size: int) -> None:
        with world.refused("ValidationError", str(size)):
            describe(world, MaxRecords=size)


class TestSwitchover:
    def test_the_members_follow_later(self, world: World) -> None:
        world.create_deployment()
        before = describe(world)[0]
        view = switch_over(world, SwitchoverTimeout=600)
        assert view["Status"] == "SWITCHOVER_IN_PROGRESS"
        assert view["SwitchoverDetails"] == before["SwitchoverDetails"]
        assert view["Target"] == before["Target"]
        workflow = world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.SWITCH_OVER, world.deployment().identifier)
        accepted = structs.asdict(world.clock.since_boot())
        assert workflow.arguments == {"timeout_s": 600, "accepted": accepted}
        assert workflow.deadline_at == world.clock.now() + timedelta(seconds=600)

    def test_afterwards_the_names_have_been_swapped(self, world: World) -> None:
        world.create_deployment()
        switch_over(world)
        world.finish()
        (view,) = describe(world)
        assert (view["Source"], view["Target"]) == (APP_ARN + "-old1", APP_ARN)
        assert (view["Status"], view["SwitchoverDetails"][0]["Status"]) == ("SWITCHOVER_COMPLETED",) * 2

    def test_five_minutes_by_default(self, world: World) -> None:
        world.create_deployment()
        switch_over(world)
        assert world.workflow().arguments["timeout_s"] == 300

    @pytest.mark.parametrize(
        ("timeout_s", "code"), [(29, "ValidationError"), (3601, "InvalidParameterValue"), (-1, "ValidationError")]
    )
    def test_timeouts(self, world: World, timeout_s: int, code: str) -> None:
        world.create_deployment()
        with world.refused(code, str(timeout_s)):
            switch_over(world, SwitchoverTimeout=timeout_s)

    @pytest.mark.parametrize(
        "status", sorted(set(DeploymentStatus) - {DeploymentStatus.AVAILABLE, DeploymentStatus.SWITCHOVER_FAILED})
    )
    def test_only_from_available_or_failed(self, world: World, status: DeploymentStatus) -> None:
        world.create_deployment()
        world.change_deployment(status=status, status_details="Why.", deleted_at=world.clock.now())
        with world.refused("InvalidBlueGreenDeploymentStateFault", status, "Why."):
            switch_over(world)

    def test_again_after_a_failure(self, world: World) -> None:
        world.create_deployment()
        world.change_deployment(status=DeploymentStatus.SWITCHOVER_FAILED, status_details="lag")
        view = switch_over(world)
        assert view["Status"] == "SWITCHOVER_IN_PROGRESS"
        assert "StatusDetails" not in view

    @pytest.mark.parametrize("which", ["source", "target"])
    def test_members_have_to_be_available(self, world: World, which: str) -> None:
        member = world.create_deployment().primary
        name = "app" if which == "source" else member.target_identifier or ""
        world.change(name, status=InstanceStatus.REBOOTING)
        with world.refused("InvalidBlueGreenDeploymentStateFault", f"DB instance {name} is not in available state"):
            switch_over(world)

    def test_members_have_to_be_there(self, world: World) -> None:
        member = world.create_deployment().primary
        with world.store.transaction() as tx:
            tx.delete_instance(member.target_resource_id or "")
        with world.refused("InvalidBlueGreenDeploymentStateFault", member.target_identifier or ""):
            switch_over(world)

    def test_one_that_is_not_there(self, world: World) -> None:
        with world.refused("BlueGreenDeploymentNotFoundFault"):
            world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier="bgd-none")


class TestDelete:
    @pytest.mark.parametrize("delete_target", [True, False])
    def test_before_the_switchover(self, world: World, delete_target: bool) -> None:
        green = world.create_deployment().primary.target_identifier or ""
        view = delete(world, DeleteTarget=delete_target)
        assert (view["Status"], view["DeleteTime"]) == ("DELETING", world.clock.now())
        assert view["SwitchoverDetails"][0]["Status"] == "AVAILABLE"
        assert world.workflow().arguments == {"delete_target": delete_target}
        assert world.instance(green).status == ("deleting" if delete_target else "available")
        with world.refused("InvalidBlueGreenDeploymentStateFault", "DELETING"):
            delete(world)
        world.finish()
        with world.refused("BlueGreenDeploymentNotFoundFault"):
            describe(world, BlueGreenDeploymentIdentifier=view["BlueGreenDeploymentIdentifier"])

    def test_while_green_is_being_made(self, world: World) -> None:
        """The runner cancels the making: for a moment there are two workflows of one subject."""
        world.create_instance()
        create(world)
        with world.store.transaction() as tx:
            world.add_green(tx, tx.deployments()[0], InstanceStatus.CREATING)
        assert delete(world, DeleteTarget=True)["Status"] == "DELETING"
        assert [w.kind for w in world.workflows()] == [WorkflowKind.CREATE_DEPLOYMENT, WorkflowKind.DELETE_DEPLOYMENT]
        assert world.instance(world.deployment().primary.target_identifier or "").status is InstanceStatus.CREATING

    def test_not_during_a_switchover(self, world: World) -> None:
        world.create_deployment()
        switch_over(world)
        with world.refused("InvalidBlueGreenDeploymentStateFault", "SWITCHOVER_IN_PROGRESS"):
            delete(world)

    def test_after_a_switchover_the_target_is_production(self, world: World) -> None:
        world.create_deployment()
        switch_over(world)
        world.finish()
        with world.refused(
            "InvalidBlueGreenDeploymentStateFault",
            "Deleting target is not allowed while blue green deployment lifecycle is SWITCHOVER_COMPLETED.",
        ):
            delete(world, DeleteTarget=True)
        # The same when an attempt to delete has failed and the status tells nothing any more.
        world.change_deployment(status=DeploymentStatus.INVALID_CONFIGURATION)
        with world.refused("InvalidBlueGreenDeploymentStateFault", "SWITCHOVER_COMPLETED"):
            delete(world, DeleteTarget=True)
        assert delete(world)["Status"] == "DELETING"

    def test_a_protected_green(self, world: World) -> None:
        world.create_instance(DeletionProtection=True)
        green = world.create_deployment().primary.target_identifier or ""
        with world.refused("InvalidBlueGreenDeploymentStateFault", "protected", green):
            delete(world, DeleteTarget=True)
        world.call("ModifyDBInstance", DBInstanceIdentifier=green, DeletionProtection=False)
        assert delete(world, DeleteTarget=True)["Status"] == "DELETING"

    def test_a_green_that_something_else_is_done_to(self, world: World) -> None:
        green = world.create_deployment().primary.target_identifier or ""
        world.call("RebootDBInstance", DBInstanceIdentifier=green)
        with world.refused("InvalidBlueGreenDeploymentStateFault", green):
            delete(world, DeleteTarget=True)

    def test_again_after_a_deletion_that_failed(self, world: World) -> None:
        world.create_deployment()
        delete(world, DeleteTarget=True)
        world.change_deployment(status=DeploymentStatus.INVALID_CONFIGURATION, deleted_at=None)
        with world.refused("InvalidBlueGreenDeploymentStateFault", "cleaned up"):
            delete(world, DeleteTarget=True)
        workflow = world.workflow()
        with world.store.transaction() as tx:
            tx.put_workflow(replace(workflow, status=WorkflowStatus.FAILED))
        assert delete(world, DeleteTarget=True)["Status"] == "DELETING"
