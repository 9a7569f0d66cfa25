"""The sentences of ``StatusDetails``: what a deployment, and a switchover, have to say in one line.

RDS documents the member and none of its texts.
"""

from collections.abc import Mapping, Sequence
from typing import Final

# Why a switchover was given up, where the operator has asked for that (``canceled``).
BY_OPERATOR: Final = "cancellation by the operator"

# Enough to find whose they are; the rest is in the log.
_MAX_NAMED: Final = 5


def pinned(endpoint: str, by_reason: Mapping[str, int]) -> str | None:
    """Sessions that a switchover would not carry, the most frequent reason first; None where there are none."""
    if not by_reason:
        return None
    return f"{_sessions(sum(by_reason.values()))} of {endpoint} cannot be carried by a switchover: {counts(by_reason)}"


def pinned_in_all(by_endpoint: Mapping[str, Mapping[str, int]]) -> str | None:
    told = [pinned(endpoint, by_reason) for endpoint, by_reason in by_endpoint.items()]
    return "; ".join(each for each in told if each is not None) or None


def waiting(pinned: str | None, untended: str | None) -> str | None:
    """What there is to say about a green that waits for its switchover."""
    return " ".join(part for part in (untended, pinned) if part) or None


def counts(by_reason: Mapping[str, int]) -> str:
    ordered = sorted(by_reason.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} ({count})" for reason, count in ordered)


def stragglers(count: int, budget_s: float, busy_with: Sequence[str] = ()) -> str:
    """``busy_with``: what some of them do, one phrase each; the first few are named."""
    told = f"{_sessions(count)} did not end a transaction or request within {budget_s:g} s"
    if not busy_with:
        return told
    more = ", ..." if count > _MAX_NAMED else ""
    return f"{told}: {', '.join(busy_with[:_MAX_NAMED])}{more}"


def set_back(reason: str) -> str:
    return f"Attempt set back: {reason}. Trying again."


def canceled(reason: str) -> str:
    return f"Switchover was canceled due to {reason}"


def completed(
    *, attempts: int, pause_s: float | None, carried: int, closed: int, late_pins: Mapping[str, int] | None = None
) -> str:
    """``pause_s`` is None if another control plane began the pause and did not live to see its end. ``late_pins``: of
    those that were closed, whom green has refused beyond the point of no return."""
    if pause_s is None:
        return "Switchover completed; the control plane was restarted during it, so its pause is not known"
    tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    told = f"Switchover completed in {tries}; pause {pause_s:.3f} s; {_sessions(carried)} carried, {closed} closed"
    if not late_pins:
        return told
    return f"{told}; refused by green beyond the point of no return: {counts(late_pins)}"


def _sessions(count: int) -> str:
    return "1 session" if count == 1 else f"{count} sessions"
