"""Automated backups of an instance that is written to, by the API: on, off, by the clock, and with their instance."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.installation import Installation, wait_until
from tests.conftest import BLUE_VERSION

QUICK = {"Delay": 1, "MaxAttempts": 180}


def backups(verdigris: Installation, instance: str = "app") -> list[dict[str, Any]]:
    found = verdigris.rds.describe_db_snapshots(DBInstanceIdentifier=instance, SnapshotType="automated")["DBSnapshots"]
    return sorted(found, key=lambda each: each["DBSnapshotIdentifier"])


def directories(verdigris: Installation) -> int:
    return len(list((verdigris.home / "snapshots").iterdir()))


def modify(verdigris: Installation, **changes: Any) -> str:
    changes = {"DBInstanceIdentifier": "app", "ApplyImmediately": True, **changes}
    return str(verdigris.rds.modify_db_instance(**changes)["DBInstance"]["DBInstanceStatus"])


def next_minute() -> str:
    """A window that is opened then."""
    opens = datetime.now(UTC) + timedelta(minutes=1)
    return f"{opens:%H:%M}-{opens + timedelta(minutes=30):%H:%M}"


def test_their_life(verdigris: Installation) -> None:
    rds = verdigris.rds
    verdigris.create_instance("app", BLUE_VERSION, BackupRetentionPeriod=1)
    (first,) = backups(verdigris)  # it is available with it
    assert (first["Status"], first["SnapshotType"]) == ("available", "automated")
    with pytest.raises(ClientError, match="Only manual snapshots"):
        rds.delete_db_snapshot(DBSnapshotIdentifier=first["DBSnapshotIdentifier"])

    modify(verdigris, BackupRetentionPeriod=0)
    wait_until(lambda: not backups(verdigris), "they are gone", limit_s=60)
    assert directories(verdigris) == 0

    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE ledger (n bigint PRIMARY KEY)")
        connection.execute("INSERT INTO ledger SELECT generate_series(1, 1000)")
    assert modify(verdigris, BackupRetentionPeriod=2) == "backing-up"
    verdigris.kill()  # whoever comes next takes it anew
    verdigris.start()
    verdigris.await_instance("app")
    (second,) = backups(verdigris)
    with verdigris.connect("app") as connection:
        connection.execute("INSERT INTO ledger VALUES (1001)")
    modify(verdigris, PreferredBackupWindow=next_minute())
    rds.restore_db_instance_from_db_snapshot(
        DBSnapshotIdentifier=second["DBSnapshotIdentifier"], DBInstanceIdentifier="then"
    )
    verdigris.await_instance("then", limit_s=120)
    assert len(backups(verdigris, "then")) == 1
    with verdigris.connect("then") as connection:
        assert connection.execute("SELECT count(*), max(n) FROM ledger").fetchall() == [(1000, 1000)]

    wait_until(lambda: len(backups(verdigris)) == 2, "its window has been opened", limit_s=100)
    verdigris.await_instance("app")
    assert [each["Status"] for each in backups(verdigris)] == ["available", "available"]

    rds.copy_db_snapshot(
        SourceDBSnapshotIdentifier=backups(verdigris)[1]["DBSnapshotIdentifier"], TargetDBSnapshotIdentifier="kept"
    )
    rds.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier="kept", WaiterConfig=QUICK)
    for instance in ("app", "then"):
        rds.delete_db_instance(DBInstanceIdentifier=instance, SkipFinalSnapshot=True)
    wait_until(lambda: directories(verdigris) == 1, "they have gone with their instances", limit_s=60)
    wait_until(lambda: backups(verdigris) == backups(verdigris, "then") == [], "and their records", limit_s=30)
    assert [each["DBSnapshotIdentifier"] for each in rds.describe_db_snapshots()["DBSnapshots"]] == ["kept"]
