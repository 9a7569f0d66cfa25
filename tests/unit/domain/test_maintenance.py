from datetime import UTC, datetime

import pytest

from verdigris.domain.maintenance import is_open, length_min

MONDAY = 5  # of January 2026


def at(day: int, hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2026, 1, day, hour, minute, second, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "minutes"),
    [
        ("mon:05:00-mon:06:00", 60),
        ("Mon:23:45-Tue:00:15", 30),
        ("sun:23:30-mon:00:30", 60),
        ("mon:06:00-mon:05:00", 7 * 24 * 60 - 60),
        ("mon:05:00-mon:05:00", 0),
    ],
)
def test_length(window: str, minutes: int) -> None:
    assert length_min(window) == minutes


@pytest.mark.parametrize(
    ("window", "now", "expected"),
    [
        ("mon:05:00-mon:06:00", at(MONDAY, 4, 59, 59), False),
        ("mon:05:00-mon:06:00", at(MONDAY, 5, 0), True),
        ("MON:05:00-mon:06:00", at(MONDAY, 5, 59, 59), True),
        ("mon:05:00-mon:06:00", at(MONDAY, 6, 0), False),
        ("mon:05:00-mon:06:00", at(MONDAY + 1, 5, 30), False),
        ("sun:23:30-mon:00:30", at(MONDAY, 0, 29), True),
        ("sun:23:30-mon:00:30", at(MONDAY, 0, 30), False),
        ("sun:23:30-mon:00:30", at(MONDAY - 1, 23, 30), True),
        ("sun:23:30-mon:00:30", at(MONDAY - 1, 23, 29), False),
        ("mon:05:00-mon:05:00", at(MONDAY, 5, 0), False),
    ],
)
def test_is_open(window: str, now: datetime, expected: bool) -> None:
    assert is_open(window, now) is expected
