"""Maintenance windows: ``ddd:hh24:mi-ddd:hh24:mi``, every week, in UTC."""

from datetime import datetime

# Of instances and clusters that were given none. RDS draws one by lot.
DEFAULT_WINDOW = "sun:04:00-sun:04:30"
# RDS's least (API reference, CreateDBInstance).
SHORTEST_MIN = 30

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MIN = 24 * 60
_WEEK_MIN = 7 * _DAY_MIN


def length_min(window: str) -> int:
    """From its beginning to its end, which may be in the next week. Less than a week."""
    begins, ends = _bounds(window)
    return (ends - begins) % _WEEK_MIN


def is_open(window: str, now: datetime) -> bool:
    begins, _ = _bounds(window)
    minute = now.weekday() * _DAY_MIN + now.hour * 60 + now.minute
    return (minute - begins) % _WEEK_MIN < length_min(window)


def _bounds(window: str) -> tuple[int, int]:
    begins, _, ends = window.lower().partition("-")
    return _minute_of_week(begins), _minute_of_week(ends)


def _minute_of_week(text: str) -> int:
    day, hour, minute = text.split(":")
    return _DAYS.index(day) * _DAY_MIN + int(hour) * 60 + int(minute)
