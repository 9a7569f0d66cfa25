"""Automated snapshots: when they are taken, what the API makes of them, and when they go."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec import structs

from tests.unit.rds.world import World
from verdigris.domain.model import DBInstance, DBSnapshot, Workflow
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import (
    DeploymentStatus,
    InstanceStatus,
    SnapshotStatus,
    SnapshotType,
    SourceType,
    WorkflowKind,
    WorkflowStatus,
)
from verdigris.workflows import arguments
from verdigris.workflows.backups import AutomatedBackups
from verdigris.workflows.instance_deletion import DeleteInstance
from verdigris.workflows.instances import CreateInstance, InstanceWorkflow, ModifyInstance
from verdigris.workflows.replicas import PromoteReadReplica
from verdigris.workflows.snapshots import DeleteSnapshot, RestoreInstance

STATE, SNAPSHOT_STATE = "InvalidDBInstanceState", "InvalidDBSnapshotState"
WINDOW = "13:00-13:30"  # the world's clock begins at noon
FIRST = "rds:app-2026-05-04-13-00"


def services(world: World) -> Any:
    return SimpleNamespace(store=world.store, clock=world.clock, random_text=world.random_text)


@pytest.fixture
def backups(world: World) -> AutomatedBackups:
    return AutomatedBackups(services(world), world.context.wake)


@pytest.fixture
def night(world: World, backups: AutomatedBackups) -> AutomatedBackups:
    """There is ``app``, and its window has just been opened."""
    world.create_instance(PreferredBackupWindow=WINDOW)
    world.clock.advance(hours=1)
    return backups


def automated(world: World) -> list[DBSnapshot]:
    with world.store.transaction() as tx:
        return [snapshot for snapshot in tx.snapshots() if snapshot.type is SnapshotType.AUTOMATED]


def take(world: World, backups: AutomatedBackups) -> DBSnapshot:
    backups.look()
    world.finish()
    return automated(world)[-1]


def complete(
    world: World, kind: type[InstanceWorkflow], workflow: WorkflowKind, told: Any, instance: DBInstance
) -> None:
    """The end of the real workflow, whose steps are left out."""
    record = Workflow(
        workflow_id="wf-it",
        kind=workflow,
        subject=instance.resource_id,
        arguments=msgspec.to_builtins(told),
        started_at=world.clock.now(),
    )
    with world.store.transaction() as tx:
        kind(services(world), record).completed(tx)
        tx.put_workflow(structs.replace(record, status=WorkflowStatus.COMPLETED))


def told(world: World, source_type: SourceType) -> list[str]:
    return [event["Message"] for event in world.call("DescribeEvents", SourceType=source_type)["Events"]]


class TestTheClock:
    def test_once_a_day_in_the_window(self, world: World, backups: AutomatedBackups) -> None:
        world.create_instance(PreferredBackupWindow=WINDOW)
        world.clock.advance(minutes=59)
        backups.look()
        assert automated(world) == []
        world.clock.advance(minutes=1)
        wakes = world.wakes
        backups.look()
        assert world.wakes == wakes + 1
        (snapshot,) = automated(world)
        assert (snapshot.identifier, snapshot.status) == (FIRST, SnapshotStatus.CREATING)
        assert world.instance().status is InstanceStatus.BACKING_UP
        workflow = world.workflow()
        assert (workflow.kind, workflow.subject) == (WorkflowKind.CREATE_SNAPSHOT, world.instance().resource_id)
        assert workflow.arguments == {"snapshot_id": snapshot.snapshot_id}
        backups.look()
        world.finish()
        for _ in range(3):
            world.clock.advance(minutes=10)
            backups.look()
        assert world.workflows() == []
        world.clock.advance(hours=24)
        backups.look()
        assert len(automated(world)) == 2

    def test_it_is_told(self, world: World, night: AutomatedBackups) -> None:
        night.look()
        assert told(world, SourceType.DB_SNAPSHOT) == ["Creating automated snapshot"]
        assert told(world, SourceType.DB_INSTANCE)[-1] == "Backing up DB instance"

    def test_without_a_window_and_a_word(self, world: World, backups: AutomatedBackups) -> None:
        world.create_instance()
        world.clock.advance(hours=15)
        assert take(world, backups).identifier == "rds:app-2026-05-05-03-00"

    def test_not_without_backups(self, world: World, night: AutomatedBackups) -> None:
        world.change("app", settings={"PreferredBackupWindow": WINDOW, "BackupRetentionPeriod": 0})
        night.look()
        assert automated(world) == []

    @pytest.mark.parametrize("status", [each for each in InstanceStatus if each is not InstanceStatus.AVAILABLE])
    def test_what_is_not_available_has_its_turn_later(
        self, world: World, night: AutomatedBackups, status: InstanceStatus
    ) -> None:
        world.change("app", status=status)
        night.look()
        assert automated(world) == []
        world.change("app", status=InstanceStatus.AVAILABLE)
        world.clock.advance(hours=3)
        night.look()
        assert len(automated(world)) == 1

    def test_not_while_something_is_undone_behind_failed(self, world: World, night: AutomatedBackups) -> None:
        world.call("RebootDBInstance", DBInstanceIdentifier="app")
        world.change("app", status=InstanceStatus.AVAILABLE)
        night.look()
        assert automated(world) == []

    def test_one_at_a_time_and_whoever_has_waited_longest_first(self, world: World, backups: AutomatedBackups) -> None:
        for name in ("a", "b", "c"):
            world.create_instance(name, PreferredBackupWindow=WINDOW)
            world.clock.advance(minutes=1)
        world.clock.advance(hours=1)
        taken = []
        for _ in range(3):
            backups.look()
            backups.look()
            (workflow,) = world.workflows()
            taken.append(workflow.subject)
            world.clock.advance(minutes=1)
            world.finish()
        assert taken == [world.instance(name).resource_id for name in ("a", "b", "c")]
        world.clock.advance(hours=24)
        world.change("a", status=InstanceStatus.STOPPED)
        backups.look()
        assert world.workflow().subject == world.instance("b").resource_id

    def test_a_frozen_one_keeps_the_others_for_an_hour(self, world: World, night: AutomatedBackups) -> None:
        world.create_instance("other", PreferredBackupWindow="13:05-13:35")
        night.look()
        world.clock.advance(minutes=59)
        night.look()
        assert len(world.workflows()) == 1
        world.clock.advance(minutes=1)
        night.look()
        assert len(world.workflows()) == 2

    def test_a_failure_is_tried_again_and_then_forgotten(self, world: World, night: AutomatedBackups) -> None:
        failed = take(world, night)
        world.change_snapshot(failed.identifier, status=SnapshotStatus.FAILED, taken_at=None)
        world.clock.advance(minutes=59)
        night.look()
        assert [each.status for each in automated(world)] == [SnapshotStatus.FAILED]
        world.clock.advance(minutes=1)
        night.look()
        assert {each.status for each in automated(world)} == {SnapshotStatus.DELETING, SnapshotStatus.CREATING}

    def test_not_of_members_of_clusters(self, world: World, backups: AutomatedBackups) -> None:
        world.create_cluster(PreferredBackupWindow=WINDOW)
        world.create_member("one")
        world.clock.advance(hours=1)
        backups.look()
        assert automated(world) == []

    def test_of_replicas_that_were_told_to(self, world: World, night: AutomatedBackups) -> None:
        world.create_replica("without")
        world.create_replica("with")
        world.change("with", settings={"PreferredBackupWindow": WINDOW, "BackupRetentionPeriod": 2})
        world.clock.advance(hours=24)
        names = {take(world, night).instance_identifier for _ in range(2)} | {
            each.instance_identifier for each in automated(world)
        }
        assert names == {"app", "with"}


class TestDeployments:
    def test_blue_is_and_green_is_not_before_it_is_production(self, world: World, backups: AutomatedBackups) -> None:
        world.create_instance(PreferredBackupWindow=WINDOW)
        deployment = world.create_deployment()
        blue, green = deployment.primary.source_resource_id, deployment.primary.target_resource_id
        world.clock.advance(hours=1)
        assert take(world, backups).resource_id == blue
        backups.look()
        assert len(automated(world)) == 1
        world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier)
        world.finish()
        backups.look()
        begun = automated(world)[-1]
        # The minute in which production's last one was begun is not given twice.
        assert (begun.resource_id, begun.identifier) == (green, "rds:app-2026-05-04-13-01")

    @pytest.mark.parametrize("status", list(DeploymentStatus))
    def test_not_while_its_workflow_is_at_work(
        self, world: World, backups: AutomatedBackups, status: DeploymentStatus
    ) -> None:
        world.create_instance(PreferredBackupWindow=WINDOW)
        world.create_deployment()
        deleted_at = world.clock.now() if status is DeploymentStatus.DELETING else None
        world.change_deployment(status=status, deleted_at=deleted_at)
        world.clock.advance(hours=1)
        backups.look()
        at_work = {DeploymentStatus.PROVISIONING, DeploymentStatus.SWITCHOVER_IN_PROGRESS, DeploymentStatus.DELETING}
        assert bool(automated(world)) is (status not in at_work)

    def test_no_switchover_meanwhile(self, world: World, backups: AutomatedBackups) -> None:
        world.create_instance(PreferredBackupWindow=WINDOW)
        deployment = world.create_deployment()
        world.clock.advance(hours=1)
        backups.look()
        with world.refused("InvalidBlueGreenDeploymentStateFault", "is not in available state"):
            world.call("SwitchoverBlueGreenDeployment", BlueGreenDeploymentIdentifier=deployment.identifier)


class TestTheFirst:
    """An instance that was told to have backups is available with its first one, as on RDS."""

    @pytest.mark.parametrize(
        ("settings", "status"),
        [
            ({"BackupRetentionPeriod": 7}, InstanceStatus.BACKING_UP),
            ({"BackupRetentionPeriod": 0}, InstanceStatus.AVAILABLE),
            ({}, InstanceStatus.AVAILABLE),
        ],
        ids=str,
    )
    def test_of_a_new_one(self, world: World, settings: dict[str, Any], status: InstanceStatus) -> None:
        instance = world.create_instance(**settings)
        complete(
            world,
            CreateInstance,
            WorkflowKind.CREATE_INSTANCE,
            arguments.CreateInstance(master_password_verifier=""),
            instance,
        )
        assert world.instance().status is status
        assert [each.instance_identifier for each in automated(world)] == (
            ["app"] if status is InstanceStatus.BACKING_UP else []
        )
        assert len(world.workflows()) == len(automated(world))

    def test_not_of_a_member_of_a_cluster(self, world: World) -> None:
        world.create_cluster(BackupRetentionPeriod=7)
        member = world.create_member("one")
        told = arguments.CreateInstance(master_password_verifier="")
        complete(world, CreateInstance, WorkflowKind.CREATE_INSTANCE, told, member)
        assert automated(world) == []

    def test_of_a_restored_one(self, world: World) -> None:
        world.create_instance(BackupRetentionPeriod=2)
        world.create_snapshot()
        named = {"DBSnapshotIdentifier": "monday", "DBInstanceIdentifier": "other"}
        world.call("RestoreDBInstanceFromDBSnapshot", **named)
        world.finish()
        told = arguments.RestoreInstance(snapshot_id=world.snapshot_of().snapshot_id)
        complete(world, RestoreInstance, WorkflowKind.RESTORE_INSTANCE, told, world.instance("other"))
        assert [each.instance_identifier for each in automated(world)] == ["other"]

    @pytest.mark.parametrize("days", [None, 3])
    def test_of_a_promoted_one(self, world: World, days: int | None) -> None:
        world.create_instance()
        world.create_replica()
        asked = {} if days is None else {"BackupRetentionPeriod": days}
        view = world.call("PromoteReadReplica", DBInstanceIdentifier="copy", **asked)["DBInstance"]
        assert view["BackupRetentionPeriod"] == (days or 1)
        world.finish()
        complete(world, PromoteReadReplica, WorkflowKind.PROMOTE_READ_REPLICA, {}, world.instance("copy"))
        assert len(automated(world)) == (0 if days is None else 1)


class TestSwitchedOnAndOff:
    def modify(self, world: World, days: int, **params: Any) -> dict[str, Any]:
        asked = {"DBInstanceIdentifier": "app", "BackupRetentionPeriod": days, "ApplyImmediately": True, **params}
        view: dict[str, Any] = world.call("ModifyDBInstance", **asked)["DBInstance"]
        return view

    def test_on_takes_one_at_once(self, world: World) -> None:
        world.create_instance(BackupRetentionPeriod=0)
        view = self.modify(world, 3)
        assert (view["DBInstanceStatus"], view["BackupRetentionPeriod"]) == ("backing-up", 3)
        assert world.workflow().kind is WorkflowKind.CREATE_SNAPSHOT
        assert told(world, SourceType.DB_INSTANCE)[-2:] == ["Enabled automated backups", "Backing up DB instance"]
        world.finish()
        self.modify(world, 5)
        assert world.workflows() == []

    def test_on_with_something_else_takes_one_after_it(self, world: World) -> None:
        instance = world.create_instance(BackupRetentionPeriod=0)
        self.modify(world, 3, DBInstanceClass="db.t3.large")
        workflow = world.workflow()
        assert (workflow.kind, automated(world)) == (WorkflowKind.MODIFY_INSTANCE, [])
        change = msgspec.convert(workflow.arguments, arguments.ModifyInstance)
        world.finish()
        complete(world, ModifyInstance, WorkflowKind.MODIFY_INSTANCE, change, instance)
        assert world.instance().status is InstanceStatus.BACKING_UP
        assert len(automated(world)) == 1

    def test_on_where_none_can_be_taken_waits_for_the_window(self, world: World) -> None:
        world.create_instance(BackupRetentionPeriod=0)
        world.change("app", status=InstanceStatus.FAILED)
        self.modify(world, 3)
        assert (world.instance().status, automated(world)) == (InstanceStatus.FAILED, [])

    def test_on_for_a_green_does_not(self, world: World) -> None:
        deployment = world.create_deployment()
        green = deployment.primary.target_identifier or ""
        world.change(green, settings={"BackupRetentionPeriod": 0})
        self.modify(world, 3, DBInstanceIdentifier=green)
        assert automated(world) == []

    def test_off_takes_them_away(self, world: World, night: AutomatedBackups) -> None:
        take(world, night)
        self.modify(world, 0)
        assert told(world, SourceType.DB_INSTANCE)[-1] == "Disabled automated backups"
        night.look()
        assert [each.status for each in automated(world)] == [SnapshotStatus.DELETING]
        assert world.workflow().kind is WorkflowKind.DELETE_SNAPSHOT
        world.finish()
        assert automated(world) == []


class TestTheAPI:
    @pytest.fixture
    def taken(self, world: World, night: AutomatedBackups) -> DBSnapshot:
        world.create_snapshot("monday")
        return take(world, night)

    def shown(self, world: World, **params: Any) -> list[str]:
        return [each["DBSnapshotIdentifier"] for each in world.call("DescribeDBSnapshots", **params)["DBSnapshots"]]

    def test_described(self, world: World, taken: DBSnapshot) -> None:
        (view,) = world.call("DescribeDBSnapshots", DBSnapshotIdentifier=FIRST)["DBSnapshots"]
        assert (view["SnapshotType"], view["Status"]) == ("automated", "available")
        assert self.shown(world) == ["monday", FIRST]
        assert self.shown(world, SnapshotType="automated") == [FIRST]
        assert self.shown(world, SnapshotType="manual") == ["monday"]
        assert self.shown(world, Filters=[{"Name": "snapshot-type", "Values": ["automated"]}]) == [FIRST]
        assert self.shown(world, DBSnapshotIdentifier=view["DBSnapshotArn"]) == [FIRST]

    @pytest.mark.parametrize("status", [SnapshotStatus.AVAILABLE, SnapshotStatus.FAILED])
    def test_nobody_deletes_or_changes_it(self, world: World, taken: DBSnapshot, status: SnapshotStatus) -> None:
        world.change_snapshot(FIRST, status=status)
        with world.refused(SNAPSHOT_STATE, "Only manual snapshots may be deleted"):
            world.call("DeleteDBSnapshot", DBSnapshotIdentifier=FIRST)
        with world.refused(SNAPSHOT_STATE, "Only manual snapshots may be modified"):
            world.call("ModifyDBSnapshot", DBSnapshotIdentifier=FIRST, EngineVersion="17.10")

    def test_its_copy_is_a_manual_one(self, world: World, taken: DBSnapshot) -> None:
        named = {"SourceDBSnapshotIdentifier": FIRST, "TargetDBSnapshotIdentifier": "kept"}
        assert world.call("CopyDBSnapshot", **named)["DBSnapshot"]["SnapshotType"] == "manual"
        world.finish()
        world.call("DeleteDBSnapshot", DBSnapshotIdentifier="kept")

    def test_it_is_restored(self, world: World, taken: DBSnapshot) -> None:
        named = {"DBSnapshotIdentifier": FIRST, "DBInstanceIdentifier": "other"}
        world.call("RestoreDBInstanceFromDBSnapshot", **named)
        assert world.workflow().arguments["snapshot_id"] == taken.snapshot_id

    def test_it_does_not_count(self, world: World, taken: DBSnapshot) -> None:
        quotas = {each["AccountQuotaName"]: each for each in world.call("DescribeAccountAttributes")["AccountQuotas"]}
        assert quotas[Quota.MANUAL_SNAPSHOTS]["Used"] == 1

    def test_too_short_a_window(self, world: World) -> None:
        with world.refused("InvalidParameterValue", "30 minutes"):
            world.create_instance(PreferredBackupWindow="23:45-00:14")
        world.create_instance(PreferredBackupWindow="23:45-00:15")

    def test_its_end_is_no_user_s_event(self, world: World, taken: DBSnapshot) -> None:
        for snapshot, event in ((taken, False), (world.snapshot_of("monday"), True)):
            record = Workflow(
                workflow_id="wf-it",
                kind=WorkflowKind.DELETE_SNAPSHOT,
                subject=snapshot.snapshot_id,
                started_at=world.clock.now(),
            )
            with world.store.transaction() as tx:
                DeleteSnapshot(services(world), record).completed(tx)
            assert ("Deleted user snapshot" in told(world, SourceType.DB_SNAPSHOT)) is event


class TestTheirEnd:
    def test_after_so_many_days(self, world: World, night: AutomatedBackups) -> None:
        world.change("app", settings={"PreferredBackupWindow": WINDOW, "BackupRetentionPeriod": 2})
        for _ in range(2):
            take(world, night)
            world.clock.advance(hours=24)
        night.look()
        assert [(each.identifier, each.status) for each in automated(world)] == [
            (FIRST, SnapshotStatus.DELETING),
            ("rds:app-2026-05-05-13-00", SnapshotStatus.AVAILABLE),
            ("rds:app-2026-05-06-13-00", SnapshotStatus.CREATING),
        ]

    def test_what_somebody_uses_goes_later(self, world: World, night: AutomatedBackups) -> None:
        first = take(world, night)
        world.clock.advance(hours=24)
        named = {"DBSnapshotIdentifier": FIRST, "DBInstanceIdentifier": "other"}
        take(world, night)
        world.change_snapshot(FIRST, status=SnapshotStatus.AVAILABLE)
        world.call("RestoreDBInstanceFromDBSnapshot", **named)
        night.look()
        assert world.snapshot_of(FIRST).status is SnapshotStatus.AVAILABLE
        world.finish()
        night.look()
        assert world.snapshot_of(FIRST).status is SnapshotStatus.DELETING
        assert first.snapshot_id in [workflow.subject for workflow in world.workflows()]

    @pytest.mark.parametrize("keeps", [None, True, False])
    def test_with_their_instance(self, world: World, night: AutomatedBackups, keeps: bool | None) -> None:
        world.create_snapshot("monday")
        taken = take(world, night)
        asked = {} if keeps is None else {"DeleteAutomatedBackups": not keeps}
        instance = world.instance()
        world.call("DeleteDBInstance", DBInstanceIdentifier="app", SkipFinalSnapshot=True, **asked)
        change = msgspec.convert(world.workflow().arguments, arguments.DeleteInstance)
        assert change.keeps_backups is bool(keeps)
        complete(world, DeleteInstance, WorkflowKind.DELETE_INSTANCE, change, instance)
        if keeps:
            assert world.snapshot_of(taken.identifier).status is SnapshotStatus.AVAILABLE
            world.clock.advance(hours=25)
            night.look()
        assert world.snapshot_of(taken.identifier).status is SnapshotStatus.DELETING
        assert world.snapshot_of("monday").status is SnapshotStatus.AVAILABLE
        assert taken.snapshot_id in [workflow.subject for workflow in world.workflows()]

    def test_with_their_instance_but_for_what_somebody_uses(self, world: World, night: AutomatedBackups) -> None:
        taken = take(world, night)
        instance = world.instance()
        world.call("RestoreDBInstanceFromDBSnapshot", DBSnapshotIdentifier=FIRST, DBInstanceIdentifier="other")
        told = arguments.DeleteInstance()
        complete(world, DeleteInstance, WorkflowKind.DELETE_INSTANCE, told, instance)
        assert world.snapshot_of(FIRST).status is SnapshotStatus.AVAILABLE
        world.finish()
        world.clock.advance(hours=25)
        night.look()
        assert (world.snapshot_of(FIRST).status, taken.identifier) == (SnapshotStatus.DELETING, FIRST)
