from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from verdigris.domain.backups import is_due, length_min, opened_at, outdated, retention_days, snapshot_name, window_of
from verdigris.domain.model import DBSnapshot
from verdigris.domain.statuses import SnapshotStatus, SnapshotType

WINDOW = "03:00-03:30"
NIGHT = datetime(2026, 1, 5, 3, 0, tzinfo=UTC)
LONG_AGO = NIGHT - timedelta(days=100)


def at(hour: int, minute: int = 0, day: int = 5) -> datetime:
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def attempt(begun_at: datetime, status: SnapshotStatus = SnapshotStatus.AVAILABLE, **changes: Any) -> DBSnapshot:
    is_taken = status in (SnapshotStatus.AVAILABLE, SnapshotStatus.DELETING)
    made = DBSnapshot(
        snapshot_id=f"snap-{begun_at:%d%H%M}",
        identifier=f"rds:app-{begun_at:%Y-%m-%d-%H-%M}",
        type=SnapshotType.AUTOMATED,
        status=status,
        resource_id="db-ONE",
        instance_identifier="app",
        instance_created_at=LONG_AGO,
        engine="postgres",
        engine_version="17.10",
        instance_class="db.t3.medium",
        master_username="boss",
        port=15400,
        allocated_storage_gib=20,
        begun_at=begun_at,
        taken_at=begun_at + timedelta(minutes=5) if is_taken else None,
    )
    return structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("window", "minutes"), [("03:00-03:30", 30), ("23:45-00:15", 30), ("01:00-00:59", 24 * 60 - 1), ("03:00-03:00", 0)]
)
def test_length(window: str, minutes: int) -> None:
    assert length_min(window) == minutes


@pytest.mark.parametrize(
    ("window", "now", "opened"),
    [
        ("03:00-03:30", at(3), at(3)),
        ("03:00-03:30", at(3, 29).replace(second=59, microsecond=1), at(3)),
        ("03:00-03:30", at(2, 59), at(3, day=4)),
        ("03:00-03:30", at(23, 59), at(3)),
        ("23:45-00:15", at(0, 10), at(23, 45, day=4)),
        ("23:45-00:15", at(23, 45), at(23, 45)),
    ],
)
def test_when_it_was_opened(window: str, now: datetime, opened: datetime) -> None:
    assert opened_at(window, now) == opened


class TestDue:
    @pytest.mark.parametrize(
        ("now", "expected"),
        [
            (at(2, 59), False),
            (at(3), True),
            (at(3, 29), True),
            (at(6, 29), True),  # what had no turn in time
            (at(6, 30), False),
            (at(14), False),
        ],
    )
    def test_from_its_window_on(self, now: datetime, expected: bool) -> None:
        assert is_due(WINDOW, [attempt(at(3, day=4))], since=LONG_AGO, now=now) is expected
        assert is_due(WINDOW, [], since=LONG_AGO, now=now) is expected

    def test_over_midnight(self) -> None:
        for now, expected in ((at(23, 44, day=4), False), (at(23, 45, day=4), True), (at(0, 10), True), (at(4), False)):
            assert is_due("23:45-00:15", [], since=LONG_AGO, now=now) is expected

    def test_not_of_what_has_come_to_be_since(self) -> None:
        assert is_due(WINDOW, [], since=at(3), now=at(3, 1))
        assert not is_due(WINDOW, [], since=at(3, 1), now=at(3, 2))

    @pytest.mark.parametrize("status", [s for s in SnapshotStatus if s is not SnapshotStatus.FAILED])
    def test_once_a_night(self, status: SnapshotStatus) -> None:
        assert not is_due(WINDOW, [attempt(at(3), status)], since=LONG_AGO, now=at(3, 20))
        assert is_due(WINDOW, [attempt(at(3), status)], since=LONG_AGO, now=at(3, day=6))

    def test_a_clock_that_was_ahead_does_not_end_them(self) -> None:
        ahead = attempt(at(3, day=25))
        assert is_due(WINDOW, [ahead], since=LONG_AGO, now=at(3))
        assert not is_due(WINDOW, [ahead, attempt(at(3))], since=LONG_AGO, now=at(3, 1))

    def test_one_that_failed_is_tried_again_after_a_while(self) -> None:
        failed = [attempt(at(3), SnapshotStatus.FAILED)]
        assert not is_due(WINDOW, failed, since=LONG_AGO, now=at(3, 59))
        assert is_due(WINDOW, failed, since=LONG_AGO, now=at(4))
        twice = [*failed, attempt(at(4), SnapshotStatus.FAILED)]
        assert not is_due(WINDOW, twice, since=LONG_AGO, now=at(4, 59))
        assert not is_due(WINDOW, [*failed, attempt(at(4))], since=LONG_AGO, now=at(5, 30))


class TestOutdated:
    def of(
        self, attempts: list[DBSnapshot], days: int, now: datetime, *, is_gone: bool = False
    ) -> list[datetime | None]:
        return [each.begun_at for each in outdated(attempts, days, now, is_gone=is_gone)]

    def test_by_age(self) -> None:
        week = [attempt(at(3, day=day)) for day in range(1, 8)]
        assert self.of(week, 7, at(3, 30, day=7)) == []
        assert self.of(week, 3, at(3, 30, day=7)) == [at(3, day=day) for day in (1, 2, 3, 4)]

    def test_to_the_minute_in_which_it_was_complete(self) -> None:
        both = [attempt(at(3, day=4)), attempt(at(3))]
        assert self.of(both, 1, at(3, 4)) == []
        assert self.of(both, 1, at(3, 5)) == [at(3, day=4)]

    def test_the_newest_stays_while_there_is_its_instance(self) -> None:
        old = [attempt(at(3, day=1)), attempt(at(3, day=2)), attempt(at(3, day=9), SnapshotStatus.FAILED)]
        assert self.of(old, 1, at(12, day=20)) == [at(3, day=1)]
        assert self.of(old[:2], 1, at(12, day=20), is_gone=True) == [at(3, day=1), at(3, day=2)]

    def test_all_of_them_without_backups(self) -> None:
        both = [attempt(at(3, day=4)), attempt(at(3), SnapshotStatus.FAILED)]
        assert self.of(both, 0, at(3, 10)) == [at(3, day=4), at(3)]

    def test_a_failure_is_shown_until_the_next_try(self) -> None:
        failed = attempt(at(3), SnapshotStatus.FAILED)
        assert self.of([failed], 1, at(12, day=20)) == []
        assert self.of([failed, attempt(at(4), SnapshotStatus.CREATING)], 1, at(4)) == [at(3)]
        assert self.of([failed], 1, at(12), is_gone=True) == [at(3)]

    @pytest.mark.parametrize("status", [SnapshotStatus.CREATING, SnapshotStatus.DELETING])
    def test_not_what_is_being_made_or_taken_away(self, status: SnapshotStatus) -> None:
        assert self.of([attempt(at(3, day=1), status), attempt(at(3))], 1, at(4)) == []


def test_names() -> None:
    now = at(3, 7).replace(second=59)
    assert snapshot_name("app", now, ()) == "rds:app-2026-01-05-03-07"
    assert snapshot_name("app", now, {"rds:app-2026-01-05-03-07"}) == "rds:app-2026-01-05-03-08"


def test_what_is_not_said() -> None:
    unsaid = attempt(NIGHT)
    assert (retention_days(unsaid), retention_days(structs.replace(unsaid, settings={"BackupRetentionPeriod": 0}))) == (
        1,
        0,
    )
    assert window_of(structs.replace(unsaid, settings={})) == WINDOW  # type: ignore[arg-type]  # settings are alike
