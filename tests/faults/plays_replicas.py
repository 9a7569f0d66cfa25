"""What goes on while a fault strikes: read replicas that are made, promoted and deleted, and one whose source goes.

Production is the source, but where the source itself is deleted: then it is another instance.
"""

import time

from tests.acceptance.installation import wait_until
from tests.acceptance.inventory import Inventory, await_same
from tests.acceptance.serve_log import ServeLog
from tests.faults import probes
from tests.faults.plays import Play, follows, refuses_writes
from tests.faults.plays_life import OTHER, InstancePlay
from tests.faults.schedule import Fault
from tests.faults.stage import NAME, Stage, gone, takes_writes
from verdigris.demo.schema import SUM_OF_BALANCES

COPY = "copy"
# What a replica has not received from a source that dies is gone with it.
_OF_SOURCE = frozenset({Fault.BLUE_KILLED, Fault.BLUE_STOPPED})


class PlayOfReplica(Play):
    """With one, for a while; production is watched."""

    def note_before(self) -> None:
        self.watch(self.stage.blue)

    def only_blue_is_left(self, before: Inventory) -> None:
        """As it was ``before``, with all that its watcher has written."""
        self.unchanged("nothing is left on blue", before, self.stage.inventory_of_blue)
        left = sorted(path.name for path in (self.stage.home / "instances").iterdir())
        if left != [self.stage.blue]:
            self.violations.append(f"server directories are left: {left}")
        with self.verdigris.connect(NAME) as connection:
            self.violations += probes.missing(connection, self.sides[0].writes)

    def clean_up(self) -> None:
        self.stage.replica = ""


class ReplicaPlay(PlayOfReplica):
    """Of production. Whatever becomes of it, it can be deleted, and then nothing is left on its source."""

    replica_before = True

    def prepare(self) -> None:
        self.stage.ensure_no_green(self.run.mode)
        self._blue_before = await_same(self.stage.inventory_of_blue, self.stage.inventory_of_blue)
        if self.replica_before:
            begin_replica(self.stage, NAME)
            await_replica(self.stage, self.stage.blue)

    def conclude(self) -> str:
        outcome = self.look()
        if not gone(self.verdigris.rds.describe_db_instances, DBInstanceIdentifier=COPY):
            self.hold("it can be deleted", lambda: self.verdigris.delete_instance(COPY))
        self.only_blue_is_left(self._blue_before)
        return outcome

    def look(self) -> str:
        """The outcome."""
        raise NotImplementedError

    # -- for those below

    def _is_replica(self) -> bool:
        return "ReadReplicaSourceDBInstanceIdentifier" in self.verdigris.instance(COPY)

    def _follows(self) -> None:
        blue, copy = self.stage.blue, self.stage.replica
        self.hold("it follows", lambda: wait_until(lambda: follows(self.stage, blue, copy), "it follows", limit_s=20))
        self.hold("it takes no writes", lambda: refuses_writes(self.stage, copy))


class CreateReplicaPlay(ReplicaPlay):
    replica_before = False

    def begin(self, log: ServeLog) -> None:
        begin_replica(self.stage, NAME)

    def look(self) -> str:
        shown = self.verdigris.instance(COPY)
        if shown["DBInstanceStatus"] == "available":
            self._follows()
            return "made"
        if self._is_replica() or self.verdigris.instance(NAME)["ReadReplicaDBInstanceIdentifiers"]:
            self.violations.append("a replica that could not be made is tied to its source")
        # Before it is deleted: its record alone keeps nothing.
        self.unchanged("nothing of it is left on its source", self._blue_before, self.stage.inventory_of_blue)
        return "undone"


class PromoteReplicaPlay(ReplicaPlay):
    """It has what it had received by then, perhaps less than its source, but of each transaction all or nothing."""

    def begin(self, log: ServeLog) -> None:
        self.verdigris.rds.promote_read_replica(DBInstanceIdentifier=COPY)

    def look(self) -> str:
        if (status := self.verdigris.instance(COPY)["DBInstanceStatus"]) != "available":
            self.violations.append(f"it is {status}")
        if self._is_replica():
            self._follows()
            return "as before"
        self.hold("it is free", lambda: await_writes(self.stage))
        self.unchanged("its source keeps nothing for it", self._blue_before, self.stage.inventory_of_blue)
        with self.verdigris.connect(COPY) as copy, self.verdigris.connect(NAME) as source:
            has, had = (side.execute(SUM_OF_BALANCES).fetchall() for side in (copy, source))
        if has != had:
            self.violations.append(f"its money does not add up: {has} instead of {had}")
        return "promoted"


class DeleteReplicaPlay(ReplicaPlay):
    def begin(self, log: ServeLog) -> None:
        self.verdigris.rds.delete_db_instance(DBInstanceIdentifier=COPY, SkipFinalSnapshot=True)

    def look(self) -> str:
        if gone(self.verdigris.rds.describe_db_instances, DBInstanceIdentifier=COPY):
            return "deleted"
        return "as before"


class DeleteSourcePlay(InstancePlay):
    """A replica is promoted then, with everything that its source had acknowledged when it was asked to go."""

    def prepare(self) -> None:
        super().prepare()
        begin_replica(self.stage, OTHER)
        await_replica(self.stage, self.stage.subject)

    def begin(self, log: ServeLog) -> None:
        self._asked_ns = time.monotonic_ns()
        self.verdigris.rds.delete_db_instance(DBInstanceIdentifier=OTHER, SkipFinalSnapshot=True)

    def look(self) -> str:
        outcome = self._look()
        self.hold("the replica can be deleted", lambda: self.verdigris.delete_instance(COPY))
        return outcome

    def _look(self) -> str:
        shown = self.verdigris.instance(COPY)
        if shown["DBInstanceStatus"] != "available":
            self.violations.append(f"the replica is {shown['DBInstanceStatus']}")
        if not gone(self.verdigris.rds.describe_db_instances, DBInstanceIdentifier=OTHER):
            return "as before"
        if "ReadReplicaSourceDBInstanceIdentifier" in shown:
            self.violations.append("it is the replica of nobody")
        self.hold("it is free", lambda: await_writes(self.stage))
        if self.run.fault not in _OF_SOURCE:
            self.violations += self.hold("it can be read", self._missing) or []
        return "deleted"

    def _missing(self) -> list[str]:
        acknowledged = [write for write in self.sides[0].writes if write.ended_ns < self._asked_ns]
        assert acknowledged, "nobody has written to its source"
        with self.verdigris.connect(COPY) as connection:
            return probes.missing(connection, acknowledged)

    def clean_up(self) -> None:
        self.stage.replica = ""


def await_writes(stage: Stage) -> None:
    wait_until(lambda: takes_writes(stage.verdigris, COPY), "it takes writes", limit_s=10)


def begin_replica(stage: Stage, source: str) -> None:
    answer = stage.verdigris.rds.create_db_instance_read_replica(
        DBInstanceIdentifier=COPY, SourceDBInstanceIdentifier=source
    )
    stage.replica = answer["DBInstance"]["DbiResourceId"]


def await_replica(stage: Stage, source_id: str) -> None:
    stage.verdigris.await_instance(COPY)
    wait_until(lambda: follows(stage, source_id, stage.replica), "it follows", limit_s=30)
