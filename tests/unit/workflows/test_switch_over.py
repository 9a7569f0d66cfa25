"""A switchover in the small world: undisturbed, refused, set back. Faults are the business of ``tests/simulation``."""

import asyncio
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec import structs, to_builtins

from tests.conftest import until
from tests.simulation.loop import SimulatedLoop
from tests.unit.stores import new_store
from tests.unit.workflows.world import (
    DEPLOYMENT,
    SOURCE,
    TARGET,
    ControlPlaneDied,
    Fault,
    FixedClock,
    Kind,
    World,
    plant_records,
    services,
)
from verdigris.domain.model import BlueGreenDeployment, DBInstance
from verdigris.domain.policy import PinnedSessions, Stragglers, SwitchoverPolicy
from verdigris.domain.ports import Finding, SinceBoot
from verdigris.domain.status_details import BY_OPERATOR
from verdigris.domain.statuses import DeploymentStatus, MemberStatus, WorkflowStatus
from verdigris.domain.switchover import Facts, Step, plan
from verdigris.store.sql_store import SqlStore
from verdigris.workflows import arguments
from verdigris.workflows.cancellation import CannotCancel, cancel_switchover
from verdigris.workflows.runner import WorkflowRunner
from verdigris.workflows.switch_over import SwitchOver
from verdigris.workflows.switchover_known import Known
from verdigris.workflows.switchover_records import SwitchoverRecords
from verdigris.workflows.timeline import TimelineRecord

MAX_RESTARTS = 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    store = new_store(tmp_path / "state.db")
    yield store
    store.close()


async def switch_over(world: World, store: SqlStore, *, timeout_s: float = 300.0) -> None:
    """Run to the end; a control plane that dies is started again, as often as it takes."""
    plant_records(store, timeout_s=timeout_s)
    await resume(world, store)


def switch_over_in_virtual_time(world: World, store: SqlStore, *, timeout_s: float) -> None:
    """For what depends on the deadline: a busy machine takes nothing from it."""
    loop = SimulatedLoop()
    try:
        loop.run_until_complete(switch_over(world, store, timeout_s=timeout_s))
    finally:
        loop.close()


async def resume(world: World, store: SqlStore) -> None:
    for _ in range(MAX_RESTARTS):
        with store.transaction() as tx:
            workflow = tx.workflow("wf-1")
        assert workflow is not None
        if workflow.status is not WorkflowStatus.RUNNING:
            return
        over = SwitchOver(services(world, store), workflow)
        world.cancel = over.cancel
        try:
            await over.run()
        except ControlPlaneDied:
            continue
    raise AssertionError("the workflow did not end")


def records(store: SqlStore) -> tuple[BlueGreenDeployment, DBInstance, DBInstance]:
    with store.transaction() as tx:
        deployment, source, target = tx.deployment(DEPLOYMENT), tx.instance(SOURCE), tx.instance(TARGET)
    assert deployment is not None
    assert source is not None
    assert target is not None
    return deployment, source, target


def timeline_of(store: SqlStore) -> TimelineRecord:
    with store.transaction() as tx:
        (entry,) = [entry for entry in tx.journal("wf-1") if entry.step == "timeline"]
    return TimelineRecord.from_json(entry.detail)


def assert_completed(world: World, store: SqlStore) -> None:
    deployment, source, target = records(store)
    assert deployment.status is DeploymentStatus.SWITCHOVER_COMPLETED
    assert deployment.primary.status is MemberStatus.SWITCHOVER_COMPLETED
    assert (source.identifier, source.read_only) == ("app-old1", True)
    assert (target.identifier, target.port, target.read_only) == ("app", 15400, False)
    assert set(world.route_table) == {"app", "app-old1"}
    assert world.route_table["app"].backend.resource_id == TARGET
    assert world.route_table["app-old1"].port == source.port
    assert world.target_open
    assert world.source_retired
    assert not world.holding
    assert world.generation is None


def assert_as_before(world: World, store: SqlStore) -> None:
    deployment, source, target = records(store)
    assert deployment.status is DeploymentStatus.SWITCHOVER_FAILED
    assert deployment.status_details
    assert (source.identifier, source.port, source.read_only) == ("app", 15400, False)
    assert (target.identifier, target.port, target.read_only) == ("app-green-x1y2z3", 15401, True)
    assert world.route_table["app"].backend.resource_id == SOURCE
    assert set(world.route_table) == {"app", "app-green-x1y2z3"}
    assert not world.fenced
    assert not world.holding
    assert not world.dialled
    assert not world.target_open
    assert world.generation is None


async def test_undisturbed(store: SqlStore) -> None:
    world = World()
    await switch_over(world, store)
    assert_completed(world, store)


async def test_a_failed_guardrail_changes_nothing_and_is_named(store: SqlStore) -> None:
    world = World(findings=[Finding(guardrail="Replication lag", check="lag", message="12 GB behind.")])
    await switch_over(world, store)
    assert_as_before(world, store)
    assert "Replication lag (lag): 12 GB behind." in (records(store)[0].status_details or "")
    assert "park" not in world.calls


async def test_stragglers_set_an_attempt_back_and_it_is_repeated(store: SqlStore) -> None:
    world = World(stragglers=3)
    await switch_over(world, store)
    assert_completed(world, store)
    assert world.calls.count("park") == 4


def test_stragglers_until_the_deadline_lead_back_and_are_named(store: SqlStore) -> None:
    world = World(stragglers=10**9, retry_s=1.0)
    switch_over_in_virtual_time(world, store, timeout_s=5.0)
    assert_as_before(world, store)
    told = records(store)[0].status_details or ""
    assert "1 session did not end a transaction or request within 1 s: process 4711 (app@app) idle in" in told


async def test_what_is_defined_just_before_the_fence_is_carried_for_the_next_attempt(store: SqlStore) -> None:
    world = World(late_definitions=2)
    await switch_over(world, store)
    assert_completed(world, store)
    assert (world.calls.count("guardrails"), world.calls.count("prepare"), world.calls.count("fence")) == (1, 3, 3)


async def test_a_deadline_that_has_passed_changes_nothing(store: SqlStore) -> None:
    world = World()
    await switch_over(world, store, timeout_s=0.0)
    assert_as_before(world, store)


async def test_a_deadline_is_kept_by_whoever_comes_after_a_dead_control_plane(store: SqlStore) -> None:
    """It was asked for long ago, and the one that was asked died before it could begin."""
    world = World()
    plant_records(store, timeout_s=300.0)
    with store.transaction() as tx:
        workflow = tx.workflow("wf-1")
        assert workflow is not None
        assert workflow.deadline_at is not None
        tx.put_workflow(structs.replace(workflow, deadline_at=workflow.deadline_at - timedelta(seconds=301)))
    await resume(world, store)
    assert_as_before(world, store)
    assert "did not finish before its timeout" in (records(store)[0].status_details or "")


async def test_what_was_done_is_told(store: SqlStore) -> None:
    world = World(stragglers=2, pins=["listen"])
    await switch_over(world, store)
    told = records(store)[0].status_details or ""
    assert re.fullmatch(r"Switchover completed in 3 attempts; pause 0\.\d{3} s; 1 session carried, 1 closed", told)
    timeline = timeline_of(store)
    assert [attempt.setback is None for attempt in timeline.attempts] == [False, False, True]
    assert [attempt.pause_ms is None for attempt in timeline.attempts] == [False, False, False]
    assert {phase.attempt for phase in timeline.phases if phase.name == "park"} == {1, 2, 3}
    assert (timeline.carried, timeline.pinned, timeline.closed, timeline.resumed) == (1, {"listen": 1}, 1, False)


async def test_a_switchover_that_was_taken_over_does_not_make_up_a_pause(store: SqlStore) -> None:
    """The control plane dies between the commit and the release."""
    world = World(Fault(call="open_target", kind=Kind.CRASH, after=True))
    await switch_over(world, store)
    assert_completed(world, store)
    assert "its pause is not known" in (records(store)[0].status_details or "")
    assert timeline_of(store).resumed


# -- sessions that cannot be carried


async def test_pinned_sessions_are_closed_by_default(store: SqlStore) -> None:
    world = World(pins=["listen"])
    await switch_over(world, store)
    assert_completed(world, store)
    assert world.closed == ["listen"]


async def test_sessions_that_green_refuses_late_are_told(store: SqlStore) -> None:
    """Whatever the policy: there is no way back any more."""
    world = World(policy=SwitchoverPolicy(pinned_sessions=PinnedSessions.REFUSE), refused_late=["temporary-objects"])
    await switch_over(world, store)
    assert_completed(world, store)
    timeline = timeline_of(store)
    assert timeline.late_pins == timeline.pinned == {"temporary-objects": 1}
    assert (timeline.carried, timeline.closed) == (1, 1)
    assert "beyond the point of no return: temporary-objects (1)" in (records(store)[0].status_details or "")


@pytest.mark.parametrize("where", ["pins", "hidden_pins"])
def test_pinned_sessions_are_waited_for_until_the_deadline(store: SqlStore, where: str) -> None:
    world = World(policy=SwitchoverPolicy(pinned_sessions=PinnedSessions.WAIT), retry_s=0.5, **{where: ["listen"]})  # type: ignore[arg-type]  # a name of two
    switch_over_in_virtual_time(world, store, timeout_s=2.0)
    assert_as_before(world, store)
    assert records(store)[0].status_details == (
        "Switchover was canceled due to the switchover did not finish before its timeout: "
        "1 session of app cannot be carried by a switchover: listen (1)"
    )
    assert world.closed == []
    assert world.calls.count("ready") > 1
    assert ("park" in world.calls) == (where == "hidden_pins")


@pytest.mark.parametrize("policy", [PinnedSessions.WAIT, PinnedSessions.REFUSE])
async def test_nobody_is_closed_who_could_be_carried_a_moment_ago(store: SqlStore, policy: PinnedSessions) -> None:
    """A connection to target is lost after the handover: the router refuses the commit, and the next attempt works."""
    world = World(policy=SwitchoverPolicy(pinned_sessions=policy), late_pins=["target-refused"])
    await switch_over(world, store)
    assert_completed(world, store)
    assert world.closed == []
    assert world.calls.count("commit") == 2


async def test_the_switchover_goes_on_once_the_pinned_sessions_are_gone(store: SqlStore) -> None:
    world = World(policy=SwitchoverPolicy(pinned_sessions=PinnedSessions.WAIT), hidden_pins=["listen"])
    plant_records(store)
    running = asyncio.create_task(resume(world, store))
    await until(lambda: world.calls.count("ready") >= 3)
    world.hidden_pins.clear()
    await running
    assert_completed(world, store)
    assert world.closed == []


async def test_pinned_sessions_refuse_a_switchover_before_anything_is_done(store: SqlStore) -> None:
    world = World(
        policy=SwitchoverPolicy(pinned_sessions=PinnedSessions.REFUSE), pins=["listen", "authentication", "listen"]
    )
    await switch_over(world, store)
    assert_as_before(world, store)
    assert records(store)[0].status_details == (
        "Switchover was canceled due to "
        "3 sessions of app cannot be carried by a switchover: listen (2), authentication (1)"
    )
    assert not {"prepare", "ready", "park", "fence"}.intersection(world.calls)


async def test_pinned_sessions_that_only_the_handover_finds_refuse_it_too(store: SqlStore) -> None:
    world = World(policy=SwitchoverPolicy(pinned_sessions=PinnedSessions.REFUSE), hidden_pins=["listen"])
    await switch_over(world, store)
    assert_as_before(world, store)
    assert "listen (1)" in (records(store)[0].status_details or "")
    assert world.closed == []
    assert world.calls.count("park") == 1


# -- stragglers, in the end

CLOSE_STRAGGLERS = SwitchoverPolicy(stragglers=Stragglers.CLOSE)


async def test_stragglers_are_closed_only_when_no_other_attempt_would_fit(store: SqlStore) -> None:
    world = World(policy=CLOSE_STRAGGLERS, stragglers=2)
    await switch_over(world, store)
    assert_completed(world, store)
    assert world.closed == []
    assert world.calls.count("park") == 3


def test_stragglers_are_closed_in_the_last_attempt(store: SqlStore) -> None:
    world = World(policy=CLOSE_STRAGGLERS, stragglers=10**9, retry_s=1.0)
    switch_over_in_virtual_time(world, store, timeout_s=5.0)  # less than two attempts may take
    assert_completed(world, store)
    assert world.closed == ["straggler"]
    assert "2 sessions carried, 1 closed" in (records(store)[0].status_details or "")


def test_stragglers_are_not_closed_for_a_switchover_that_pinned_sessions_refuse(store: SqlStore) -> None:
    policy = structs.replace(CLOSE_STRAGGLERS, pinned_sessions=PinnedSessions.REFUSE)
    world = World(policy=policy, stragglers=10**9, hidden_pins=["listen"], retry_s=1.0)
    switch_over_in_virtual_time(world, store, timeout_s=5.0)
    assert_as_before(world, store)
    assert world.closed == []


# -- cancelled by the operator


@pytest.mark.parametrize("dies", [False, True])
async def test_cancelled_at_every_call_it_becomes_what_the_operator_was_told(tmp_path: Path, dies: bool) -> None:
    """Also by a control plane that dies as soon as it has said so."""
    call, told = 1, []
    while True:
        reached = False
        for after in (False, True):
            store = new_store(tmp_path / f"{call}-{after}-{dies}.db")
            world = World(Fault(call=call, kind=Kind.CANCELLED, after=after), dies_when_cancelled=dies)
            await switch_over(world, store)
            reached = reached or len(world.calls) >= call
            if world.asked is not None:
                granted = await world.asked
                told.append(granted)
                if granted:
                    assert_as_before(world, store)
                    assert records(store)[0].status_details == "Switchover was canceled due to " + BY_OPERATOR
                else:
                    assert_completed(world, store)
            store.close()
        if not reached:
            break
        call += 1
    assert call > 15
    # Granted up to the point of no return, and from there on never.
    assert told == sorted(told, reverse=True)
    assert set(told) == {True, False}


@pytest.mark.parametrize(
    ("boot", "ago_s", "left_by_wall_s", "in_time"),
    [
        ("this one", 301.0, 300.0, False),
        ("this one", 1.0, -3600.0, True),
        ("another one", 301.0, 300.0, True),
        ("another one", 1.0, -3600.0, False),
    ],
)
async def test_the_deadline_outlives_a_clock_that_is_set(
    store: SqlStore, boot: str, ago_s: float, left_by_wall_s: float, in_time: bool
) -> None:
    """As long as the machine has not been booted meanwhile."""
    world, clock = World(), FixedClock()
    accepted = SinceBoot(boot=boot, seconds=clock.since_boot().seconds - ago_s)
    workflow = structs.replace(
        plant_records(store),
        arguments=to_builtins(arguments.SwitchOver(timeout_s=300, accepted=accepted)),
        deadline_at=clock.now() + timedelta(seconds=left_by_wall_s),
    )
    await SwitchOver(services(world, store), workflow).run()
    (assert_completed if in_time else assert_as_before)(world, store)


async def test_a_clock_that_was_set_back_gives_no_more_time_after_a_boot_either(store: SqlStore) -> None:
    accepted = SinceBoot(boot="another one", seconds=0.0)
    workflow = structs.replace(
        plant_records(store),
        arguments=to_builtins(arguments.SwitchOver(timeout_s=300, accepted=accepted)),
        deadline_at=FixedClock().now() + timedelta(hours=1),
    )
    known = Known(services(World(), store), workflow)
    known.read_records()
    left_s = known.deadline - asyncio.get_running_loop().time()
    assert 0 < left_s <= 300


async def test_a_cancellation_ends_the_wait_between_attempts_at_once(store: SqlStore) -> None:
    world = World(stragglers=10**9)
    world.policy = structs.replace(world.policy, retry_first_s=600.0, retry_max_s=600.0)
    workflow = plant_records(store)
    over = SwitchOver(services(world, store), workflow)
    running = asyncio.create_task(over.run())
    await until(lambda: (records(store)[0].status_details or "").startswith("Attempt set back"))
    assert await over.cancel()
    await asyncio.wait_for(running, 30)
    assert_as_before(world, store)
    assert BY_OPERATOR in (records(store)[0].status_details or "")
    with store.transaction() as tx:
        told = [event.message for event in tx.events(since=FixedClock().now(), until=FixedClock().now())]
    assert f"Switchover from primary app to app-green-x1y2z3 was canceled due to {BY_OPERATOR}." in told


@pytest.mark.parametrize("committed", [False, True])
async def test_the_answer_waits_for_what_comes_of_a_commit_that_is_under_way(store: SqlStore, committed: bool) -> None:
    """The control plane does not hear of it: whether there is a way back is what the router says afterwards."""
    world = World(Fault(call="commit", kind=Kind.ERROR, after=committed))
    over = SwitchOver(services(world, store), plant_records(store))
    running = asyncio.create_task(over.run())
    await until(lambda: "commit" in world.calls)
    asked = asyncio.create_task(over.cancel())
    await asyncio.gather(running, asked)
    assert asked.result() is not committed
    (assert_completed if committed else assert_as_before)(world, store)


async def test_what_is_granted_between_the_decision_to_commit_and_the_commit_holds(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    over = SwitchOver(services(world, store), plant_records(store))

    def planned(facts: Facts) -> tuple[Step, ...]:
        steps = plan(facts)
        if steps == (Step.COMMIT_ROUTE,):
            world.asked = asyncio.create_task(over.cancel())  # runs before the task that commits
        return steps

    monkeypatch.setattr("verdigris.workflows.switch_over.plan", planned)
    await over.run()
    assert world.asked is not None
    assert await world.asked
    assert_as_before(world, store)


async def test_one_that_has_not_begun_yet_is_cancelled_as_it_begins(store: SqlStore) -> None:
    world = World()
    plant_records(store)
    runner = WorkflowRunner(store, {})
    await cancel_switchover(services(world, store), runner, DEPLOYMENT)
    await resume(world, store)
    assert_as_before(world, store)
    assert BY_OPERATOR in (records(store)[0].status_details or "")
    assert "ready" not in world.calls
    with pytest.raises(CannotCancel, match="its status is SWITCHOVER_FAILED"):
        await cancel_switchover(services(world, store), runner, DEPLOYMENT)
    with pytest.raises(CannotCancel, match="there is no blue/green deployment bgd-nobody"):
        await cancel_switchover(services(world, store), runner, "bgd-nobody")


async def test_a_cancellation_that_comes_as_it_begins_is_granted(store: SqlStore) -> None:
    """Nobody knows yet which side production is on: that it is too late would be a guess."""
    world = World()
    over = SwitchOver(services(world, store), plant_records(store))
    asked, running = asyncio.create_task(over.cancel()), asyncio.create_task(over.run())
    await asyncio.gather(running, asked)
    assert asked.result()
    assert_as_before(world, store)


async def test_nobody_is_told_of_a_cancellation_that_may_be_forgotten(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has not begun yet knows of it only by what is written down."""
    world = World()
    plant_records(store)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(SwitchoverRecords, "_journal", full)
        with pytest.raises(OSError, match="No space"):
            await cancel_switchover(services(world, store), WorkflowRunner(store, {}), DEPLOYMENT)
    await resume(world, store)
    assert_completed(world, store)


async def test_one_that_runs_is_cancelled_also_when_that_cannot_be_written_down(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(stragglers=10**9)
    world.policy = structs.replace(world.policy, retry_first_s=600.0, retry_max_s=600.0)
    over = SwitchOver(services(world, store), plant_records(store))
    running = asyncio.create_task(over.run())
    await until(lambda: (records(store)[0].status_details or "").startswith("Attempt set back"))

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(SwitchoverRecords, "note_cancellation", full)
        assert await over.cancel()
    await asyncio.wait_for(running, 30)
    assert_as_before(world, store)
