"""What was left for the maintenance window."""

import pytest

from tests.unit.rds.world import World
from verdigris.domain.model import PendingChange
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.rds.maintenance import Maintenance

WINDOW = "Mon:13:00-Mon:14:00"  # the world's clock begins on a Monday at noon


@pytest.fixture
def maintenance(world: World) -> Maintenance:
    """Of ``app``, which is to get another class."""
    world.create_instance(PreferredMaintenanceWindow=WINDOW)
    world.call("ModifyDBInstance", DBInstanceIdentifier="app", DBInstanceClass="db.t3.large")
    assert world.workflows() == []
    return Maintenance(world.context)


def test_it_is_done_in_the_window_and_once(world: World, maintenance: Maintenance) -> None:
    maintenance.look()
    assert world.workflows() == []
    world.clock.advance(hours=1)
    wakes = world.wakes
    maintenance.look()
    assert world.wakes == wakes + 1
    assert (world.workflow().kind, world.instance().status) == (WorkflowKind.REBOOT_INSTANCE, InstanceStatus.REBOOTING)
    maintenance.look()
    world.finish()
    assert world.instance().instance_class == "db.t3.large"
    maintenance.look()
    assert world.workflows() == []


def test_the_default_window(world: World) -> None:
    world.create_instance()
    world.call("ModifyDBInstance", DBInstanceIdentifier="app", DBInstanceClass="db.t3.large")
    world.clock.advance(days=5, hours=16, minutes=29)
    Maintenance(world.context).look()
    assert world.workflow().kind is WorkflowKind.REBOOT_INSTANCE


def test_what_is_busy_is_left_alone(world: World, maintenance: Maintenance) -> None:
    world.clock.advance(hours=1)
    world.change("app", status=InstanceStatus.STOPPED)
    maintenance.look()
    assert world.workflows() == []
    world.change("app", status=InstanceStatus.AVAILABLE)
    maintenance.look()
    assert world.workflow().kind is WorkflowKind.REBOOT_INSTANCE


def test_what_is_in_the_way_keeps_nothing_else(world: World, maintenance: Maintenance) -> None:
    """A source's new version waits for those of its replicas, and another instance for neither."""
    world.create_replica()
    world.call("ModifyDBInstance", DBInstanceIdentifier="copy", PreferredMaintenanceWindow=WINDOW)
    later = PendingChange(engine_version="17.10")
    for identifier in ("app", "copy"):
        world.change(identifier, engine_version="17.9", pending=later)
    source, copy = world.instance(), world.instance("copy")
    world.create_instance("other", PreferredMaintenanceWindow=WINDOW)
    world.call("ModifyDBInstance", DBInstanceIdentifier="other", DBInstanceClass="db.t3.large")
    world.clock.advance(hours=1)
    maintenance.look()
    assert {workflow.subject for workflow in world.workflows()} == {
        copy.resource_id,
        world.instance("other").resource_id,
    }
    world.finish()
    maintenance.look()
    assert world.workflow().subject == source.resource_id
    world.finish()
    assert world.instance().engine_version == "17.10"


def test_too_short_a_window(world: World) -> None:
    with world.refused("InvalidParameterValue", "30 minutes"):
        world.create_instance(PreferredMaintenanceWindow="Mon:05:00-Mon:05:29")
    world.create_instance(PreferredMaintenanceWindow="Mon:05:00-Mon:05:30")
