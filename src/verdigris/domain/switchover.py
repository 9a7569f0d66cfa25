"""The switchover as a pure planner: from what is known to be true, what may be done next.

The executor (``workflows/switch_over.py``) observes facts, asks :func:`plan`, does the steps, and asks again. So there
is no position to lose: any set of facts that a crash can leave has its next steps, and :func:`plan` alone says which.

Before ``COMMIT_ROUTE`` every way out leads back to source; once the router's durable route leads to target the only way
is forward. Which side of that line we are on is never remembered, always observed (``Facts.route``).
"""

from enum import Enum, auto

from msgspec import Struct

from verdigris.domain.policy import PinnedSessions


class Side(Enum):
    SOURCE = auto()
    TARGET = auto()


class Park(Enum):
    NONE = auto()
    HELD = auto()
    # The lease ran out or the router restarted: sessions run on source again, what was built on the park is void.
    BROKEN = auto()


class Step(Enum):
    # Before the pause.
    CHECK_GUARDRAILS = "check_guardrails"
    PREPARE = "prepare"
    READY_SESSIONS = "ready_sessions"
    CLOSE_SOURCE = "close_source"
    # The pause.
    PARK = "park"
    PARK_WITHOUT_STRAGGLERS = "park_without_stragglers"
    FENCE_SOURCE = "fence_source"
    CATCH_UP = "catch_up"
    HAND_OVER = "hand_over"
    COMMIT_ROUTE = "commit_route"
    # Beyond the point of no return.
    OPEN_TARGET = "open_target"
    RELEASE = "release"
    RENAME = "rename"
    RETIRE_SOURCE = "retire_source"
    COMPLETE = "complete"
    # The way back.
    UNFENCE_SOURCE = "unfence_source"
    ABORT_PARK = "abort_park"
    UNREADY_SESSIONS = "unready_sessions"
    WAIT = "wait"
    FAIL = "fail"


class Facts(Struct, frozen=True, kw_only=True):
    """What is known. The first group is observed anew after a crash, the others then start from their defaults."""

    route: Side
    fenced: bool = False  # anything of the fence stands, complete or not
    renamed: bool = False
    # Sessions that were carried can write on target before it is opened for others: not on one that is a standby still.
    released_first: bool = False

    park: Park = Park.NONE
    dialled: bool = False  # connections to target are waiting in the router
    checked: bool = False
    prepared: bool = False
    readied: bool = False
    closed: bool = False  # nobody comes in to source any more; whoever was there still works
    fence_complete: bool = False
    caught_up: bool = False
    handed_over: bool = False
    target_open: bool = False  # takes new connections, and their writes
    released: bool = False
    source_retired: bool = False

    # Sessions that cannot be carried, in words, and what the operator wants to become of them.
    pinned: str | None = None
    on_pinned: PinnedSessions = PinnedSessions.CLOSE
    # The operator wants stragglers closed rather than the switchover to fail, and no further attempt would fit.
    ends_stragglers: bool = False

    # Why this attempt is given up, to be repeated after a while: stragglers, a broken lease, a pause that got too long.
    setback: str | None = None
    # Why the switchover is given up: deadline, failed guardrail, error. Outranks a setback.
    failure: str | None = None


def plan(facts: Facts) -> tuple[Step, ...]:
    """The steps that may be done now; those returned together do not depend on each other."""
    if facts.route is Side.TARGET:
        return (_forward_only(facts),)
    given_up = facts.failure is not None or facts.setback is not None or facts.park is Park.BROKEN
    if given_up or _pins_forbid(facts):
        return (_way_back(facts),)
    return _towards_commit(facts)


def _pins_forbid(facts: Facts) -> bool:
    return facts.pinned is not None and facts.on_pinned is not PinnedSessions.CLOSE


def _towards_commit(facts: Facts) -> tuple[Step, ...]:
    if not facts.checked:
        return (Step.CHECK_GUARDRAILS,)
    if not facts.prepared:
        return (Step.PREPARE,)
    if not facts.readied:
        return (Step.READY_SESSIONS,)
    if facts.park is not Park.HELD and not facts.closed:
        # The longer half of the fence, and nobody who is at work waits for it.
        return (Step.CLOSE_SOURCE,)
    if facts.park is not Park.HELD:
        return (Step.PARK_WITHOUT_STRAGGLERS if facts.ends_stragglers else Step.PARK,)
    steps = []
    if not facts.handed_over:
        if facts.ends_stragglers:
            # The fence will end them: not for an attempt that is given up because of what the handover finds.
            return (Step.HAND_OVER,)
        # Reads the session's own server process and writes its own new one: neither the fence nor the marker matters.
        steps.append(Step.HAND_OVER)
    if not facts.fence_complete:
        steps.append(Step.FENCE_SOURCE)
    elif not facts.caught_up:
        # Only after the fence: a marker written earlier would prove nothing about what was written after it.
        steps.append(Step.CATCH_UP)
    return tuple(steps) or (Step.COMMIT_ROUTE,)


def _forward_only(facts: Facts) -> Step:
    if not facts.target_open and (facts.released or not facts.released_first):
        return Step.OPEN_TARGET
    if not facts.released:
        return Step.RELEASE
    if not facts.renamed:
        return Step.RENAME
    if not facts.source_retired:
        return Step.RETIRE_SOURCE
    return Step.COMPLETE


def _way_back(facts: Facts) -> Step:
    # Unfence before the park ends: a session released into a fenced source could not open its next connection.
    if facts.fenced:
        return Step.UNFENCE_SOURCE
    if facts.park is not Park.NONE:
        # Also of a park that has broken: clients that came since are kept waiting until source is known to be whole.
        return Step.ABORT_PARK
    refused = facts.pinned is not None and facts.on_pinned is PinnedSessions.REFUSE
    if facts.failure is None and not refused:
        return Step.WAIT  # what was dialled stays: the next attempt needs it
    if facts.dialled:
        return Step.UNREADY_SESSIONS
    return Step.FAIL
