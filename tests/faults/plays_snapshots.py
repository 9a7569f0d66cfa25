"""What goes on while a fault strikes: snapshots that are taken, copied, deleted and restored, and a final one.

Whatever becomes of it, a snapshot that is available can be restored, and has what was acknowledged before it was asked
for; of one that is not there is nothing left.
"""

import time
from functools import partial

from tests.acceptance.installation import wait_until
from tests.acceptance.serve_log import ServeLog
from tests.faults import probes
from tests.faults.plays_life import OTHER, RENAMED, InstancePlay
from tests.faults.stage import gone

KEPT, COPIED = "kept", "copied"


class SnapshotPlay(InstancePlay):
    """Of the other instance."""

    snapshot_before = False

    def prepare(self) -> None:
        super().prepare()
        if self.snapshot_before:
            self._take()
            wait_until(lambda: self._status(KEPT) == "available", "it is available", limit_s=60)

    def begin(self, log: ServeLog) -> None:
        self._asked_ns = time.monotonic_ns()
        self.ask()

    def ask(self) -> None:
        raise NotImplementedError

    def _is_settled(self) -> bool:
        shown = self.verdigris.rds.describe_db_snapshots()["DBSnapshots"]
        return all(each["Status"] in ("available", "failed") for each in shown) and super()._is_settled()

    def look(self) -> str:
        outcome = self.look_at_snapshots()
        for shown in self.verdigris.rds.describe_db_snapshots()["DBSnapshots"]:
            self.hold("it can be deleted", partial(self._delete, shown["DBSnapshotIdentifier"]))
        left = sorted(path.name for path in (self.stage.home / "snapshots").iterdir())
        if left:
            self.violations.append(f"snapshot directories are left: {left}")
        return outcome

    def look_at_snapshots(self) -> str:
        """The outcome."""
        raise NotImplementedError

    # -- for those below

    def _take(self) -> None:
        self.verdigris.rds.create_db_snapshot(DBInstanceIdentifier=OTHER, DBSnapshotIdentifier=KEPT)

    def _status(self, name: str) -> str:
        found = self.verdigris.rds.describe_db_snapshots(Filters=[{"Name": "db-snapshot-id", "Values": [name]}])[
            "DBSnapshots"
        ]
        return str(found[0]["Status"]) if found else "gone"

    def _delete(self, name: str) -> None:
        self.verdigris.rds.delete_db_snapshot(DBSnapshotIdentifier=name)
        wait_until(lambda: self._status(name) == "gone", "it is gone", limit_s=30)

    def _restore(self, name: str) -> None:
        self.verdigris.rds.restore_db_instance_from_db_snapshot(DBSnapshotIdentifier=name, DBInstanceIdentifier=RENAMED)

    def _holds_what_was_acknowledged(self, name: str) -> None:
        """Before it was asked for."""
        self._restore(name)
        self.verdigris.await_instance(RENAMED)
        with self.verdigris.connect(RENAMED) as connection:
            writes = [write for side in self.sides for write in side.writes if write.ended_ns < self._asked_ns]
            self.violations += probes.missing(connection, writes)

    def _is_whole(self, name: str) -> bool:
        """It is available and can be restored; one that failed has left nothing but its record."""
        status = self._status(name)
        if status == "available":
            self.hold("it can be restored", lambda: self._holds_what_was_acknowledged(name))
        elif status != "failed":
            self.violations.append(f"the snapshot {name} is {status}")
        return status == "available"


class CreateSnapshotPlay(SnapshotPlay):
    def ask(self) -> None:
        self._take()

    def look_at_snapshots(self) -> str:
        if (status := self.verdigris.instance(OTHER)["DBInstanceStatus"]) != "available":
            self.violations.append(f"its instance is {status}")
        self._holds_writes(OTHER)
        return "taken" if self._is_whole(KEPT) else "failed"


class DeleteWithSnapshotPlay(SnapshotPlay):
    def ask(self) -> None:
        self.verdigris.rds.delete_db_instance(DBInstanceIdentifier=OTHER, FinalDBSnapshotIdentifier=KEPT)

    def look_at_snapshots(self) -> str:
        if gone(self.verdigris.rds.describe_db_instances, DBInstanceIdentifier=OTHER):
            if not self._is_whole(KEPT):
                self.violations.append("it was deleted without its final snapshot")
            return "deleted"
        if not self._is_whole(KEPT):
            self._holds_writes(OTHER)
            return "as before"
        return "not deleted, with a snapshot"


class RestoreInstancePlay(SnapshotPlay):
    snapshot_before = True

    def ask(self) -> None:
        self._restore(KEPT)

    def look_at_snapshots(self) -> str:
        if self._status(KEPT) != "available":
            self.violations.append(f"the snapshot is {self._status(KEPT)}")
        if self.verdigris.instance(RENAMED)["DBInstanceStatus"] != "available":
            return "failed"
        self.hold("it is up", lambda: self.verdigris.await_connection(RENAMED))
        return "restored"


class CopySnapshotPlay(SnapshotPlay):
    snapshot_before = True

    def ask(self) -> None:
        self.verdigris.rds.copy_db_snapshot(SourceDBSnapshotIdentifier=KEPT, TargetDBSnapshotIdentifier=COPIED)

    def look_at_snapshots(self) -> str:
        status = self._status(COPIED)
        self.hold("the first one can be deleted", lambda: self._delete(KEPT))
        if status != "available":
            return "failed"
        self.hold("the copy can be restored", self._restore_copy)
        return "copied"

    def _restore_copy(self) -> None:
        self._restore(COPIED)
        self.verdigris.await_instance(RENAMED)
        self.verdigris.await_connection(RENAMED)


class DeleteSnapshotPlay(SnapshotPlay):
    snapshot_before = True

    def ask(self) -> None:
        self.verdigris.rds.delete_db_snapshot(DBSnapshotIdentifier=KEPT)

    def look_at_snapshots(self) -> str:
        return "deleted" if self._status(KEPT) == "gone" else "failed"
