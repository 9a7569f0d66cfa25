"""The planner, from every state that it can be asked about."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from msgspec import structs

from verdigris.domain.policy import PinnedSessions
from verdigris.domain.switchover import Facts, Park, Side, Step, plan

FLAGS = (
    "fenced",
    "renamed",
    "dialled",
    "checked",
    "prepared",
    "readied",
    "closed",
    "fence_complete",
    "caught_up",
    "handed_over",
    "target_open",
    "released",
    "source_retired",
)
# What the operator wants, and what calls for it.
POLICIES: tuple[dict[str, Any], ...] = (
    {"pinned": "2 sessions", "on_pinned": PinnedSessions.CLOSE},
    {"pinned": "2 sessions", "on_pinned": PinnedSessions.WAIT},
    {"pinned": "2 sessions", "on_pinned": PinnedSessions.REFUSE},
    {"ends_stragglers": True},
    {"ends_stragglers": True, "pinned": "2 sessions", "on_pinned": PinnedSessions.WAIT},
    {"ends_stragglers": True, "pinned": "2 sessions", "on_pinned": PinnedSessions.REFUSE},
)
# Flags that make no difference to what a policy asks for; varied for one policy only, or there were millions of states.
LATER = {"renamed", "target_open", "released", "source_retired"}
ENDS = {Step.COMPLETE, Step.FAIL}
WRITES_TO_TARGET_ALLOWED = {Step.OPEN_TARGET, Step.RELEASE, Step.RENAME, Step.RETIRE_SOURCE, Step.COMPLETE}

EFFECTS: dict[Step, dict[str, object]] = {
    Step.CHECK_GUARDRAILS: {"checked": True},
    Step.PREPARE: {"prepared": True},
    Step.READY_SESSIONS: {"readied": True, "dialled": True},
    Step.CLOSE_SOURCE: {"fenced": True, "closed": True},
    Step.PARK: {"park": Park.HELD},
    Step.PARK_WITHOUT_STRAGGLERS: {"park": Park.HELD},
    Step.FENCE_SOURCE: {"fenced": True, "fence_complete": True},
    Step.CATCH_UP: {"caught_up": True},
    Step.HAND_OVER: {"handed_over": True},
    Step.COMMIT_ROUTE: {"route": Side.TARGET},
    Step.OPEN_TARGET: {"target_open": True},
    Step.RELEASE: {"released": True},
    Step.RENAME: {"renamed": True},
    Step.RETIRE_SOURCE: {"source_retired": True},
    Step.UNFENCE_SOURCE: {"fenced": False, "closed": False, "fence_complete": False, "caught_up": False},
    Step.ABORT_PARK: {"park": Park.NONE},
    Step.UNREADY_SESSIONS: {"dialled": False},
    Step.WAIT: {
        "setback": None,
        "pinned": None,
        "park": Park.NONE,
        "readied": False,
        "closed": False,
        "fence_complete": False,
        "caught_up": False,
        "handed_over": False,
    },
}


def every_state() -> Iterator[Facts]:
    yield from states(FLAGS, {})
    yield from states(FLAGS, {"released_first": True})
    for policy in POLICIES:
        yield from states([flag for flag in FLAGS if flag not in LATER], policy)


def states(flags: Sequence[str], policy: dict[str, Any]) -> Iterator[Facts]:
    for route, park, failure, setback in itertools.product(Side, Park, (None, "reason"), (None, "stragglers")):
        for values in itertools.product((False, True), repeat=len(flags)):
            known: dict[str, Any] = dict(zip(flags, values, strict=True))
            yield Facts(route=route, park=park, failure=failure, setback=setback, **known, **policy)


def after(facts: Facts, steps: tuple[Step, ...]) -> Facts:
    for step in steps:
        facts = structs.replace(facts, **EFFECTS[step])
    return facts


def test_every_state_has_a_next_step_and_reaches_an_end() -> None:
    for start in every_state():
        facts, seen = start, 0
        while not ENDS.intersection(steps := plan(facts)):
            facts = after(facts, steps)
            seen += 1
            assert seen < 25, f"no end from {start}"


def test_nothing_that_lets_target_be_written_comes_before_the_route_is_committed() -> None:
    for facts in every_state():
        if facts.route is Side.SOURCE:
            assert not WRITES_TO_TARGET_ALLOWED.intersection(plan(facts)), facts


def test_no_step_leads_back_once_the_route_is_committed() -> None:
    for facts in every_state():
        if facts.route is Side.TARGET:
            assert set(plan(facts)) <= WRITES_TO_TARGET_ALLOWED, facts


def test_the_route_is_committed_only_with_everyone_parked_fenced_caught_up_and_handed_over() -> None:
    for facts in every_state():
        if Step.COMMIT_ROUTE in plan(facts):
            assert facts.park is Park.HELD
            assert facts.fence_complete
            assert facts.caught_up
            assert facts.handed_over
            assert facts.failure is None
            assert facts.setback is None
            assert facts.pinned is None or facts.on_pinned is PinnedSessions.CLOSE


def test_the_marker_is_written_only_behind_a_complete_fence() -> None:
    for facts in every_state():
        if Step.CATCH_UP in plan(facts):
            assert facts.fence_complete


def test_nobody_is_parked_before_source_is_closed() -> None:
    for facts in every_state():
        if {Step.PARK, Step.PARK_WITHOUT_STRAGGLERS}.intersection(plan(facts)):
            assert facts.closed


def test_a_failed_switchover_ends_with_nothing_of_it_in_place() -> None:
    for facts in every_state():
        if Step.FAIL in plan(facts):
            assert not facts.fenced
            assert not facts.dialled
            assert facts.park is not Park.HELD


def test_an_attempt_is_repeated_only_once_source_serves_again() -> None:
    for facts in every_state():
        if Step.WAIT in plan(facts):
            assert not facts.fenced
            assert facts.park is not Park.HELD
            assert facts.failure is None


def test_pins_that_are_not_to_be_closed_lead_back_before_the_commit_and_to_the_end_that_was_asked_for() -> None:
    ends = {PinnedSessions.WAIT: Step.WAIT, PinnedSessions.REFUSE: Step.FAIL}
    for facts in every_state():
        if facts.route is Side.SOURCE and facts.pinned is not None and facts.on_pinned in ends:
            while (steps := plan(facts))[0] not in ENDS | {Step.WAIT}:
                assert set(steps) <= {Step.UNFENCE_SOURCE, Step.ABORT_PARK, Step.UNREADY_SESSIONS}, facts
                facts = after(facts, steps)
            assert steps == (ends[facts.on_pinned] if facts.failure is None else Step.FAIL,)


def test_pins_that_are_to_be_closed_change_no_step() -> None:
    for facts in every_state():
        if facts.on_pinned is PinnedSessions.CLOSE:
            assert plan(facts) == plan(structs.replace(facts, pinned=None))


def test_stragglers_are_ended_only_when_asked_for_and_not_before_everyone_else_is_handed_over() -> None:
    for facts in every_state():
        steps = plan(facts)
        assert not (Step.PARK in steps and facts.ends_stragglers)
        assert not (Step.PARK_WITHOUT_STRAGGLERS in steps and not facts.ends_stragglers)
        if Step.FENCE_SOURCE in steps and facts.ends_stragglers:
            assert facts.handed_over


def test_target_is_open_before_anything_but_the_release_of_those_that_can_write_there_already() -> None:
    for facts in every_state():
        if facts.route is Side.TARGET and not facts.target_open:
            allowed = {Step.OPEN_TARGET, Step.RELEASE} if facts.released_first else {Step.OPEN_TARGET}
            assert set(plan(facts)) <= allowed, facts


@pytest.mark.parametrize("setback", [None, "stragglers"])
@pytest.mark.parametrize("released_first", [False, True])
def test_the_undisturbed_order(setback: str | None, released_first: bool) -> None:
    facts, order = Facts(route=Side.SOURCE, setback=setback, released_first=released_first), []
    while not ENDS.intersection(steps := plan(facts)):
        order.append(steps)
        facts = after(facts, steps)
    assert order == ([(Step.WAIT,)] if setback else []) + [
        (Step.CHECK_GUARDRAILS,),
        (Step.PREPARE,),
        (Step.READY_SESSIONS,),
        (Step.CLOSE_SOURCE,),
        (Step.PARK,),
        (Step.HAND_OVER, Step.FENCE_SOURCE),
        (Step.CATCH_UP,),
        (Step.COMMIT_ROUTE,),
        *([(Step.RELEASE,), (Step.OPEN_TARGET,)] if released_first else [(Step.OPEN_TARGET,), (Step.RELEASE,)]),
        (Step.RENAME,),
        (Step.RETIRE_SOURCE,),
    ]
    assert plan(facts) == (Step.COMPLETE,)


def test_a_broken_park_leads_back_by_itself() -> None:
    """Whatever was built on it is void, also when nobody has said so in words."""
    facts = Facts(
        route=Side.SOURCE,
        park=Park.BROKEN,
        fenced=True,
        dialled=True,
        checked=True,
        prepared=True,
        readied=True,
        closed=True,
        fence_complete=True,
        caught_up=True,
        handed_over=True,
    )
    assert plan(facts) == (Step.UNFENCE_SOURCE,)
    assert plan(structs.replace(facts, fenced=False)) == (Step.ABORT_PARK,)
