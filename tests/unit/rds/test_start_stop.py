"""StopDBInstance, StartDBInstance, and what else a stopped instance takes."""

from typing import Any

import pytest
from msgspec import structs

from tests.unit.rds.world import APP_ARN, World
from verdigris.domain.parameters import ApplyStatus
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, MemberStatus, WorkflowKind


def stop(world: World, identifier: str = "app", **params: Any) -> str:
    view = world.call("StopDBInstance", DBInstanceIdentifier=identifier, **params)["DBInstance"]
    return str(view["DBInstanceStatus"])


def start(world: World, identifier: str = "app", **params: Any) -> str:
    view = world.call("StartDBInstance", DBInstanceIdentifier=identifier, **params)["DBInstance"]
    return str(view["DBInstanceStatus"])


@pytest.fixture
def stopped(world: World) -> World:
    world.create_instance()
    world.change("app", status=InstanceStatus.STOPPED)
    return world


def test_it_is_stopped_and_started(world: World) -> None:
    instance = world.create_instance()
    assert stop(world, "APP") == "stopping"
    assert (world.workflow().kind, world.workflow().subject) == (WorkflowKind.STOP_INSTANCE, instance.resource_id)
    world.finish()
    world.change("app", status=InstanceStatus.STOPPED)
    assert start(world) == "starting"
    assert (world.workflow().kind, world.workflow().subject) == (WorkflowKind.START_INSTANCE, instance.resource_id)


@pytest.mark.parametrize(
    "status", [status for status in InstanceStatus if status not in (InstanceStatus.AVAILABLE, InstanceStatus.STOPPED)]
)
def test_not_while_something_else_is_done(world: World, status: InstanceStatus) -> None:
    world.create_instance()
    world.change("app", status=status)
    for operation in (stop, start):
        with world.refused("InvalidDBInstanceState", "app", status):
            operation(world)


def test_not_twice(stopped: World) -> None:
    with stopped.refused("InvalidDBInstanceState", "stopped"):
        stop(stopped)
    stopped.change("app", status=InstanceStatus.AVAILABLE)
    with stopped.refused("InvalidDBInstanceState", "available"):
        start(stopped)


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        (stop, {"DetachFromDBCapacityReservation": True}),
        (start, {"DBCapacityReservationIdentifier": "dbcr-1"}),
    ],
)
def test_what_is_not_offered_is_refused(world: World, operation: Any, params: dict[str, Any]) -> None:
    world.create_instance()
    world.change("app", status=InstanceStatus.AVAILABLE if operation is stop else InstanceStatus.STOPPED)
    with world.refused("InvalidParameterCombination", *params):
        operation(world, **params)


def test_an_instance_that_is_not_there(world: World) -> None:
    for operation in (stop, start):
        with world.refused("DBInstanceNotFound", "nobody"):
            operation(world, "nobody")


@pytest.mark.parametrize("status", [DeploymentStatus.AVAILABLE, DeploymentStatus.INVALID_CONFIGURATION])
def test_neither_side_of_a_deployment_that_waits(world: World, status: DeploymentStatus) -> None:
    deployment = world.create_deployment()
    world.change_deployment(status=status)
    for member in ("app", deployment.primary.target_identifier or ""):
        with world.refused("InvalidDBInstanceState", member, deployment.identifier):
            stop(world, member)


def test_the_old_blue_once_it_has_been_switched_over(world: World) -> None:
    deployment = world.create_deployment()
    primary = structs.replace(deployment.primary, status=MemberStatus.SWITCHOVER_COMPLETED)
    world.change_deployment(status=DeploymentStatus.SWITCHOVER_COMPLETED, members=(primary,))
    assert stop(world) == "stopping"


class TestStopped:
    @pytest.mark.parametrize(
        "params", [{"DeletionProtection": True}, {"AllocatedStorage": 30}, {"BackupRetentionPeriod": 3}]
    )
    def test_it_cannot_be_modified(self, stopped: World, params: dict[str, Any]) -> None:
        with stopped.refused("InvalidDBInstanceState", "Start the DB instance app"):
            stopped.call("ModifyDBInstance", DBInstanceIdentifier="app", **params)

    @pytest.mark.parametrize("params", [{"DBInstanceClass": "db.m5.large"}, {"NewDBInstanceIdentifier": "other"}])
    def test_nor_what_its_server_has_to_follow(self, stopped: World, params: dict[str, Any]) -> None:
        with stopped.refused("InvalidDBInstanceState", "stopped"):
            stopped.call("ModifyDBInstance", DBInstanceIdentifier="app", **params)

    def test_another_parameter_group_waits_for_its_start(self, stopped: World) -> None:
        stopped.call(
            "CreateDBParameterGroup", DBParameterGroupName="mine", DBParameterGroupFamily="postgres17", Description="x"
        )
        view = stopped.call("ModifyDBInstance", DBInstanceIdentifier="app", DBParameterGroupName="mine")["DBInstance"]
        assert view["DBInstanceStatus"] == "stopped"
        assert stopped.instance().parameter_status is ApplyStatus.APPLYING
        with stopped.refused("InvalidDBParameterGroupState", "mine"):
            stopped.call("DeleteDBParameterGroup", DBParameterGroupName="mine")

    def test_no_green_is_made_of_it(self, stopped: World) -> None:
        with stopped.refused("InvalidDBInstanceState", "app"):
            stopped.call("CreateBlueGreenDeployment", BlueGreenDeploymentName="up", Source=APP_ARN)

    def test_it_can_be_deleted(self, stopped: World) -> None:
        view = stopped.call("DeleteDBInstance", DBInstanceIdentifier="app", SkipFinalSnapshot=True)["DBInstance"]
        assert view["DBInstanceStatus"] == "deleting"
