"""What goes on while a fault strikes, and what must have come of it: switchovers, forward and back.

A play is prepared, begun (the call to the API), struck, waited for and concluded. ``conclude`` names the outcome and
lets nothing pass that is not as promised.
"""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from tests.acceptance.installation import wait_until
from tests.acceptance.inventory import Inventory, admin, await_same, server_inventory
from tests.acceptance.serve_log import ServeLog
from tests.faults import probes
from tests.faults.points import AFTER_RESTART, AFTER_STRAGGLER, LAST_ATTEMPT, Moment, goes_on
from tests.faults.probes import Side
from tests.faults.schedule import Run
from tests.faults.stage import NAME, VERSIONS, Stage, takes_writes
from verdigris.domain.switchover import Step

TIMEOUT_S = 30
# Lost with a lease of two seconds that nobody renews.
_LEASE_LOST_S = 2.5
_PASSING = ("PROVISIONING", "SWITCHOVER_IN_PROGRESS", "DELETING")
_READ_ONLY = "default_transaction_read_only"


class Play:
    """The base of all: what every scene has in common."""

    def __init__(self, stage: Stage, run: Run) -> None:
        self.stage = stage
        self.run = run
        self.verdigris = stage.verdigris
        self.violations: list[str] = []
        self.sides: list[Side] = []

    def prepare(self) -> None:
        raise NotImplementedError

    def note_before(self) -> None:
        """What has to be the same afterwards. Called once the blow is prepared as well."""

    def begin(self, log: ServeLog) -> None:
        raise NotImplementedError

    def is_settled(self) -> bool:
        """Nothing is under way any more, no instance is on its way, and production takes writes."""
        try:
            return self._is_settled()
        except (ClientError, BotoCoreError):
            return False

    def _is_settled(self) -> bool:
        instances = self.verdigris.rds.describe_db_instances()["DBInstances"]
        deployments = self.verdigris.rds.describe_blue_green_deployments()["BlueGreenDeployments"]
        return (
            all(deployment["Status"] not in _PASSING for deployment in deployments)
            and all(instance["DBInstanceStatus"] in ("available", "stopped", "failed") for instance in instances)
            and takes_writes(self.verdigris, NAME)
        )

    def conclude(self) -> str:
        raise NotImplementedError

    def clean_up(self) -> None:
        """Of what ``prepare`` and ``begin`` have put into place."""

    # -- for those below

    def hold(self, what: str, check: Callable[[], Any]) -> Any:
        """A promise: what keeps it from holding becomes a violation, and the rest is looked at all the same."""
        try:
            return check()
        except (AssertionError, psycopg.Error, ClientError, BotoCoreError, OSError) as error:
            self.violations.append(f"{what}: {type(error).__name__}: {str(error)[:1500]}")
            return None

    def unchanged(self, what: str, before: Inventory, look: Callable[[], Inventory]) -> None:
        self.hold(what, lambda: await_same(lambda: before, look))

    def watch(self, *resource_ids: str) -> None:
        self.sides = [Side(self.stage.home, resource_id) for resource_id in resource_ids]


class SwitchoverPlay(Play):
    def prepare(self) -> None:
        self.stage.ensure_green(self.run.mode)
        self.old, self.new = VERSIONS[self.run.mode]
        self.blue, self.green = self.stage.blue, self.stage.green

    def note_before(self) -> None:
        wait_until(self._follows, "green follows", limit_s=30)
        self._blue_before = await_same(self.stage.inventory_of_blue, self.stage.inventory_of_blue)
        self._green_before = await_same(self.stage.inventory_of_green, self.stage.inventory_of_green)
        self.watch(self.blue, self.green)

    def begin(self, log: ServeLog) -> None:
        self.call()

    def call(self) -> None:
        self.verdigris.rds.switchover_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self.stage.deployment, SwitchoverTimeout=TIMEOUT_S
        )

    def _follows(self) -> bool:
        return bool(follows(self.stage, self.blue, self.green))

    def conclude(self) -> str:
        shown = self.verdigris.deployment(self.stage.deployment or "")
        status, reason = shown["Status"], shown.get("StatusDetails")
        if status == "SWITCHOVER_COMPLETED":
            self._completed()
            return "completed"
        if status != "SWITCHOVER_FAILED" or not reason:
            self.violations.append(f"the deployment is {status}: {reason}")
        if self._must_complete():
            self.violations.append(f"struck beyond the point of no return, and yet {status}: {reason}")
        self._as_before()
        return f"as before ({reason})"

    def _must_complete(self) -> bool:
        step = Step(self.run.point.step)
        struck_later = step is Step.COMMIT_ROUTE and self.run.point.moment is Moment.AFTER
        return struck_later or goes_on(self.run.mode, step)

    def _completed(self) -> None:
        version = self.hold("production is up", lambda: self.verdigris.await_connection(NAME))
        if version != self.new:
            self.violations.append(f"completed, and production is {version}")
        names = {i["DbiResourceId"]: i["DBInstanceIdentifier"] for i in self._instances()}
        if names != {self.green: NAME, self.blue: f"{NAME}-old1"}:
            self.violations.append(f"completed, and the names are {names}")
        self.hold("the old blue takes no writes", lambda: refuses_writes(self.stage, self.blue))
        with self.verdigris.connect(NAME) as connection:
            for side in self.sides:
                self.violations += probes.missing(connection, side.writes)

    def finish(self) -> None:
        """After a completed one: delete the record, then both instances. Nothing of it is left on either."""
        self.hold("the deployment is deleted", lambda: self.verdigris.delete_deployment(self.stage.deployment or ""))
        self.unchanged(
            "nothing is left on the old blue", _but_read_only(self.stage.pristine), lambda: self._inventory(self.blue)
        )
        self.hold("nothing of ours on production", lambda: await_no_traces(self.stage, self.green))

    def _inventory(self, resource_id: str) -> Inventory:
        return _but_read_only(server_inventory(self.verdigris, resource_id))

    def _as_before(self) -> None:
        version = self.hold("production is up", lambda: self.verdigris.await_connection(NAME))
        if version != self.old:
            self.violations.append(f"not completed, and production is {version}")
        self.hold("green takes no writes", lambda: refuses_writes(self.stage, self.green))
        self.unchanged("blue is as before", self._blue_before, self.stage.inventory_of_blue)
        self.unchanged("green is as before", self._green_before, self.stage.inventory_of_green)
        with self.verdigris.connect(NAME) as connection:
            self.violations += probes.missing(connection, self.sides[0].writes)

    def _instances(self) -> list[dict[str, Any]]:
        instances: list[dict[str, Any]] = self.verdigris.rds.describe_db_instances()["DBInstances"]
        return instances


class WayBackPlay(SwitchoverPlay):
    """A switchover that is made to turn round: its control plane dies in the pause, or is stopped for longer than the
    lease, or a transaction does not end."""

    _straggler: "psycopg.Connection[Any] | None" = None

    def prepare(self) -> None:
        super().prepare()
        self.step = Step(self.run.point.step)
        if self.step in LAST_ATTEMPT:
            self.verdigris.restart(VERDIGRIS_STRAGGLERS="close")

    def begin(self, log: ServeLog) -> None:
        if self.step in (*AFTER_STRAGGLER, *LAST_ATTEMPT):
            self._straggler = self.verdigris.connect(NAME)
            self._straggler.execute("BEGIN; SELECT count(*) FROM ledger.accounts")
        self.call()
        if self.step in (Step.UNREADY_SESSIONS, Step.FAIL):
            log.wait_for("switchover.phase", phase=Step.FENCE_SOURCE.value)
            self.verdigris.kill()
            self.verdigris.process = self.verdigris.launch()
        elif self.step in AFTER_RESTART:
            log.wait_for("switchover.phase", phase=Step.PARK.value)
            self._hold_up()
        elif self.step in LAST_ATTEMPT and self.run.point.moment is Moment.DURING:
            # The last attempt is the one whose end would be the deadline.
            time.sleep(TIMEOUT_S - 10)
            log.new_events()

    def _hold_up(self) -> None:
        process = self.verdigris.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        time.sleep(_LEASE_LOST_S)
        process.send_signal(signal.SIGCONT)

    def _must_complete(self) -> bool:
        return False

    def clean_up(self) -> None:
        if self._straggler is not None:
            self._straggler.close()
        if self.step in LAST_ATTEMPT:
            self.verdigris.restart(VERDIGRIS_STRAGGLERS="fail")


# ------------------------------------------------------------------------------------------------------------- checks


def follows(stage: Stage, blue: str, green: str) -> bool:
    """What is written on blue now arrives on green."""
    key = time.time_ns()
    with suppress(psycopg.Error), admin(stage.verdigris, blue, "app") as source:
        source.execute("INSERT INTO public.probes VALUES (%s)", [key])
        with admin(stage.verdigris, green, "app") as target:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                if target.execute("SELECT 1 FROM public.probes WHERE key = %s", [key]).fetchone():
                    return True
                time.sleep(0.05)
    return False


def refuses_writes(stage: Stage, resource_id: str) -> None:
    """Through its endpoint, as its owner."""
    instances = stage.verdigris.rds.describe_db_instances()["DBInstances"]
    name = next(i["DBInstanceIdentifier"] for i in instances if i["DbiResourceId"] == resource_id)
    stage.verdigris.await_connection(name)
    with stage.verdigris.connect(name) as connection:
        try:
            connection.execute("UPDATE ledger.accounts SET balance = balance WHERE id = 1")
        except psycopg.errors.ReadOnlySqlTransaction:
            return
    raise AssertionError(f"{name} took a write")


def await_no_traces(stage: Stage, resource_id: str) -> None:
    def traces() -> Inventory:
        found = server_inventory(stage.verdigris, resource_id)
        left = [
            f"{kind}: {thing}"
            for kind, things in found.items()
            for thing in things
            if kind in ("slots", "replication origins", "our sessions") or "verdigris_" in thing or "bgd_" in thing
        ]
        return {"traces": left} if left else {}

    await_same(dict, traces)


def _but_read_only(found: Inventory) -> Inventory:
    return {kind: [thing for thing in things if _READ_ONLY not in thing] for kind, things in found.items()}
