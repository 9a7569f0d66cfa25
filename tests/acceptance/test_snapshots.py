"""Snapshots by the API, of an instance that is written to: what is made of them is what there was at one moment."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.acceptance.installation import Installation, wait_until
from tests.conftest import BLUE_VERSION

QUICK = {"Delay": 1, "MaxAttempts": 180}
DATABASES = ("app", "other")


class Writer:
    """Writes each number to one database, and then to the other."""

    def __init__(self, verdigris: Installation) -> None:
        self._verdigris = verdigris
        self._stopped = threading.Event()
        self.acknowledged = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _run(self) -> None:
        """Until it is told to stop, or its instance goes."""
        first, second = (self._verdigris.connect("app", dbname=name) for name in DATABASES)
        try:
            with first, second:
                while not self._stopped.is_set():
                    for connection in (first, second):
                        connection.execute("INSERT INTO ledger VALUES (%s)", [self.acknowledged + 1])
                    self.acknowledged += 1
        except psycopg.OperationalError:
            return


def rows(verdigris: Installation, instance: str) -> tuple[int, int]:
    """How many there are in both databases, each from the first one on without a gap."""
    counts = []
    for name in DATABASES:
        with verdigris.connect(instance, dbname=name) as connection:
            found = [n for (n,) in connection.execute("SELECT n FROM ledger ORDER BY n").fetchall()]
        assert found == list(range(1, len(found) + 1))
        counts.append(len(found))
    first, second = counts
    assert first - second in (0, 1)
    return first, second


def test_taken_under_load_and_restored(verdigris: Installation) -> None:
    rds = verdigris.rds
    verdigris.create_instance("app", BLUE_VERSION, Tags=[{"Key": "stage", "Value": "prod"}])
    with verdigris.connect("app", dbname="postgres") as connection:
        connection.execute("CREATE DATABASE other")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'secret-of-then'")
    for name in DATABASES:
        with verdigris.connect("app", dbname=name) as connection:
            connection.execute("CREATE TABLE ledger (n bigint PRIMARY KEY)")
            connection.execute("GRANT SELECT ON ledger TO reader")
    writer = Writer(verdigris)
    with writer.running():
        wait_until(lambda: writer.acknowledged > 50, "it writes")
        before = writer.acknowledged
        rds.create_db_snapshot(DBInstanceIdentifier="app", DBSnapshotIdentifier="monday")
        verdigris.kill()  # whoever comes next takes it anew
        verdigris.start()
        rds.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier="monday", WaiterConfig=QUICK)
        after = writer.acknowledged
        wait_until(lambda: writer.acknowledged > after + 50, "it goes on writing")
        rds.delete_db_instance(DBInstanceIdentifier="app", FinalDBSnapshotIdentifier="last")
        rds.get_waiter("db_instance_deleted").wait(DBInstanceIdentifier="app", WaiterConfig=QUICK)
    assert sorted(path.name for path in (verdigris.home / "instances").iterdir()) == []
    assert len(list((verdigris.home / "snapshots").iterdir())) == 2

    for snapshot, instance in (("monday", "then"), ("last", "app")):
        rds.restore_db_instance_from_db_snapshot(DBSnapshotIdentifier=snapshot, DBInstanceIdentifier=instance)
    for instance in ("then", "app"):
        rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=instance, WaiterConfig=QUICK)
    assert before <= rows(verdigris, "then")[1] <= after + 1
    assert rows(verdigris, "app")[1] >= writer.acknowledged  # nothing that clients were told of is missing
    assert verdigris.instance("app")["EngineVersion"] == BLUE_VERSION
    assert verdigris.instance("app")["TagList"] == [{"Key": "stage", "Value": "prod"}]
    with verdigris.connect("then", user="reader", password="secret-of-then", dbname="other") as connection:
        assert connection.execute("SELECT count(*) > 0 FROM ledger").fetchall() == [(True,)]
    with verdigris.connect("then") as connection:
        connection.execute("INSERT INTO ledger VALUES (-1)")

    for snapshot in ("monday", "last"):
        rds.delete_db_snapshot(DBSnapshotIdentifier=snapshot)
        rds.get_waiter("db_snapshot_deleted").wait(DBSnapshotIdentifier=snapshot, WaiterConfig=QUICK)
    assert list((verdigris.home / "snapshots").iterdir()) == []
