"""Automated backups: when the next one is due, what it is called, and which are not kept any longer.

Windows: ``hh24:mi-hh24:mi``, every day, in UTC.
"""

from collections.abc import Container, Iterable, Sequence
from datetime import datetime, timedelta

from verdigris.domain.model import DBInstance, DBSnapshot
from verdigris.domain.statuses import SnapshotStatus

# Of instances for which nothing was said: the API's.
DEFAULT_RETENTION_DAYS = 1
# RDS draws one by lot out of eight hours of the night.
DEFAULT_WINDOW = "03:00-03:30"
# RDS's least (API reference, CreateDBInstance).
SHORTEST_MIN = 30

# What had no turn in its window has it this long after it; then it is the users' day, and waits for the next night.
_LATE = timedelta(hours=3)
# After one that failed: room may have been made, or a server be back.
_TRIED_AGAIN = timedelta(hours=1)
_DAY_MIN = 24 * 60


def retention_days(of: DBInstance | DBSnapshot) -> int:
    """0: there are no automated backups."""
    return int(of.settings.get("BackupRetentionPeriod", DEFAULT_RETENTION_DAYS))


def window_of(instance: DBInstance) -> str:
    return str(instance.settings.get("PreferredBackupWindow", DEFAULT_WINDOW))


def length_min(window: str) -> int:
    """From its beginning to its end, which may be after midnight."""
    begins, ends = _bounds(window)
    return (ends - begins) % _DAY_MIN


def opened_at(window: str, now: datetime) -> datetime:
    """When it was opened last."""
    begins, _ = _bounds(window)
    minutes_ago = (now.hour * 60 + now.minute - begins) % _DAY_MIN
    return now.replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)


def is_due(window: str, attempts: Iterable[DBSnapshot], *, since: datetime, now: datetime) -> bool:
    """``attempts``: automated snapshots of an instance that there is ``since`` then, whatever has become of them."""
    opened = opened_at(window, now)
    if now >= opened + timedelta(minutes=length_min(window)) + _LATE or since > opened:
        return False
    # What was begun later than now says that the clock was wrong then, and is no reason to wait until it is right.
    tonight = [each for each in attempts if opened <= begun_at(each) <= now]
    if any(each.status is not SnapshotStatus.FAILED for each in tonight):
        return False
    return all(now - begun_at(each) >= _TRIED_AGAIN for each in tonight)


def outdated(attempts: Sequence[DBSnapshot], days: int, now: datetime, *, is_gone: bool) -> list[DBSnapshot]:
    """Those, of one instance's automated snapshots, that are not kept. While there is the instance the newest stays
    however old it is: if none can be taken any more, an old one is what there is. ``is_gone``: the instance."""
    kept = [each for each in attempts if each.status is SnapshotStatus.AVAILABLE]
    newest = None if is_gone else max(kept, key=begun_at, default=None)
    last = max(map(begun_at, attempts), default=now)
    return [
        each
        for each in attempts
        if (each in kept and _is_over(each, days, now) and (days == 0 or each is not newest))
        # What failed is shown until it has been tried again.
        or (each.status is SnapshotStatus.FAILED and (is_gone or days == 0 or begun_at(each) < last))
    ]


def _is_over(snapshot: DBSnapshot, days: int, now: datetime) -> bool:
    return (snapshot.taken_at or now) + timedelta(days=days) <= now


def snapshot_name(instance: str, now: datetime, taken: Container[str]) -> str:
    """``rds:app-2026-01-05-03-00``, as on RDS; of a minute that has one already, the next minute's."""
    while (name := f"rds:{instance}-{now:%Y-%m-%d-%H-%M}") in taken:
        now += timedelta(minutes=1)
    return name


def begun_at(snapshot: DBSnapshot) -> datetime:
    """Every automated one has it."""
    return snapshot.begun_at or snapshot.instance_created_at


def _bounds(window: str) -> tuple[int, int]:
    begins, _, ends = window.partition("-")
    return _minute(begins), _minute(ends)


def _minute(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)
