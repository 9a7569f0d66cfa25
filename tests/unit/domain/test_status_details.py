"""The sentences of StatusDetails."""

import pytest

from verdigris.domain import status_details


def test_pinned_sessions_are_told_by_reason_the_most_frequent_first() -> None:
    assert status_details.pinned("app", {}) is None
    assert status_details.pinned("app", {"listen": 1}) == (
        "1 session of app cannot be carried by a switchover: listen (1)"
    )
    assert status_details.pinned("app", {"role": 1, "authentication": 2, "listen": 1}) == (
        "4 sessions of app cannot be carried by a switchover: authentication (2), listen (1), role (1)"
    )


@pytest.mark.parametrize(
    ("attempts", "pause_s", "carried", "closed", "told"),
    [
        (1, 0.1821, 64, 0, "Switchover completed in 1 attempt; pause 0.182 s; 64 sessions carried, 0 closed"),
        (3, 1.0, 1, 2, "Switchover completed in 3 attempts; pause 1.000 s; 1 session carried, 2 closed"),
    ],
)
def test_a_switchover_is_summed_up(attempts: int, pause_s: float, carried: int, closed: int, told: str) -> None:
    assert status_details.completed(attempts=attempts, pause_s=pause_s, carried=carried, closed=closed) == told


def test_whom_green_refused_late_is_told() -> None:
    late_pins = {"listen": 1, "temporary-objects": 2}
    told = status_details.completed(attempts=1, pause_s=0.1, carried=5, closed=4, late_pins=late_pins)
    assert told == (
        "Switchover completed in 1 attempt; pause 0.100 s; 5 sessions carried, 4 closed; "
        "refused by green beyond the point of no return: temporary-objects (2), listen (1)"
    )


def test_a_pause_that_nobody_measured_is_not_made_up() -> None:
    told = status_details.completed(attempts=1, pause_s=None, carried=0, closed=0)
    assert "not known" in told
    assert "0 " not in told
