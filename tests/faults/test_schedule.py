"""The campaign itself: nothing that has a name is left out, and a seed says everything."""

from tests.faults.blows import BLOWS
from tests.faults.points import (
    AFTER_RESTART,
    AFTER_STRAGGLER,
    LAST_ATTEMPT,
    Moment,
    Scene,
    deletion_steps,
    every_point,
    goes_on,
    switchover_steps,
)
from tests.faults.programme import PLAYS
from tests.faults.schedule import Fault, applies, campaign, in_order
from verdigris.domain.policy import PinnedSessions
from verdigris.domain.statuses import ReplicationMode
from verdigris.domain.switchover import Facts, Park, Side, Step, plan


def test_every_step_of_a_switchover_is_struck() -> None:
    for mode in ReplicationMode:
        struck = {*switchover_steps(mode), *AFTER_RESTART, *AFTER_STRAGGLER, *LAST_ATTEMPT}
        assert struck == set(Step)


def test_steps_come_in_the_planner_s_order() -> None:
    """Where a fault lies beyond the point of no return is known from it."""
    for mode in ReplicationMode:
        assert list(switchover_steps(mode)) == list(_planned(mode))
        assert [step for step in switchover_steps(mode) if goes_on(mode, step)][-1] is Step.COMPLETE
        assert not goes_on(mode, Step.COMMIT_ROUTE)


_DONE: dict[Step, dict[str, object]] = {
    Step.CHECK_GUARDRAILS: {"checked": True},
    Step.PREPARE: {"prepared": True},
    Step.READY_SESSIONS: {"readied": True},
    Step.CLOSE_SOURCE: {"closed": True},
    Step.PARK: {"park": Park.HELD},
    Step.FENCE_SOURCE: {"fence_complete": True},
    Step.CATCH_UP: {"caught_up": True},
    Step.HAND_OVER: {"handed_over": True},
    Step.COMMIT_ROUTE: {"route": Side.TARGET},
    Step.OPEN_TARGET: {"target_open": True},
    Step.RELEASE: {"released": True},
    Step.RENAME: {"renamed": True},
    Step.RETIRE_SOURCE: {"source_retired": True},
}


def _planned(mode: ReplicationMode) -> list[Step]:
    """What the planner says when everything goes well; of two at the same time, those of the database first."""
    known: dict[str, object] = {
        "route": Side.SOURCE,
        "released_first": mode is ReplicationMode.LOGICAL,
        "on_pinned": PinnedSessions.CLOSE,
    }
    steps = []
    while Step.COMPLETE not in steps:
        step = min(plan(Facts(**known)), key=list(Step).index)  # type: ignore[arg-type]  # members by name
        steps.append(step)
        known |= _DONE.get(step, {})
    return steps


def test_every_scene_has_steps_and_a_play_and_every_fault_a_blow() -> None:
    points = every_point()
    assert {point.scene for point in points} == set(Scene) == PLAYS.keys()
    assert set(Fault) == BLOWS.keys()
    assert all(any(applies(fault, point) for point in points) for fault in Fault)
    assert deletion_steps() == (("endpoint", "dismantle", "target"), ("release",))
    assert {point.moment for point in points} == set(Moment)


def test_a_seed_makes_one_campaign() -> None:
    assert campaign(5, 300) == campaign(5, 300)
    assert campaign(5, 300)[:40] != campaign(6, 300)[:40]
    assert campaign(5, 300)[:100] == campaign(5, 100)


def test_the_control_plane_dies_at_every_point_and_everything_else_has_its_turn() -> None:
    runs = campaign(1, 300)
    killed = {run.point for run in runs if run.fault is Fault.CONTROL_PLANE_KILLED}
    assert killed == set(every_point())
    assert {run.fault for run in runs} == set(Fault)


def test_every_run_is_some_job_s() -> None:
    runs = campaign(1, 300)
    shares = in_order(runs, 3)
    assert sorted(run.number for share in shares for run in share) == list(range(300))
    assert max(map(len, shares)) - min(map(len, shares)) < 30
