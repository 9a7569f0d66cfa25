"""What a switchover may ask of clients: the operator's choice, read once at start."""

from enum import StrEnum

from msgspec import Struct


class PinnedSessions(StrEnum):
    """What becomes of a switchover when sessions cannot be carried."""

    WAIT = "wait"  # attempts are given up, and repeated until there are none or the deadline comes
    CLOSE = "close"  # they are closed with 57P01 at a safe point, once the others are on the target
    REFUSE = "refuse"  # the switchover is given up before the pause


class Stragglers(StrEnum):
    """What becomes of sessions that do not come to a safe point within the pause budget, in the last attempt."""

    FAIL = "fail"  # the switchover fails, and everybody goes on on the source
    CLOSE = "close"  # the source ends them with 57P01, and what they have not committed is undone


class SwitchoverPolicy(Struct, frozen=True, kw_only=True):
    """How hard a switchover may lean on clients.

    ``pause_budget_s``: how long one attempt may keep sessions waiting for stragglers before it lets everyone go.
    ``lease_s``: how long the router keeps sessions parked without hearing from the control plane; a control plane that
    dies costs clients at most this long.
    """

    pinned_sessions: PinnedSessions = PinnedSessions.CLOSE
    stragglers: Stragglers = Stragglers.FAIL
    pause_budget_s: float = 1.0
    lease_s: float = 2.0
    retry_first_s: float = 1.0
    retry_max_s: float = 10.0
