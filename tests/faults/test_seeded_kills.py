"""Kill anything at any moment of a switchover: it happens completely or not at all, and no commit is lost or doubled.

A seed that failed is tried again with ``VERDIGRIS_FAULT_SEEDS=17``; a campaign is ``VERDIGRIS_FAULT_SEEDS=1000-1999``
with ``-m long``.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.installation import Installation, installation, wait_until
from tests.acceptance.inventory import server_inventory
from tests.acceptance.serve_log import ServeLog
from tests.faults.schedule import Blow, Schedule, Victim, draw
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload
from verdigris.router.process import RouterProcess

IN_EVERY_RUN = (3, 11)
SETTLES_WITHIN_S = 30.0
ATTEMPTS = 4


def _seeds() -> list[int]:
    first, _, last = os.environ.get("VERDIGRIS_FAULT_SEEDS", "100-111").partition("-")
    return list(range(int(first), int(last or first) + 1))


@pytest.fixture
def verdigris(verdigris_home: Path) -> Iterator[Installation]:
    with installation(home=verdigris_home) as verdigris:
        yield verdigris


@pytest.mark.parametrize("seed", IN_EVERY_RUN)
def test_a_switchover_under_fire(verdigris: Installation, seed: int) -> None:
    Trial(verdigris, draw(seed)).run()


@pytest.mark.long
@pytest.mark.parametrize("seed", _seeds())
def test_a_campaign(verdigris: Installation, seed: int) -> None:
    Trial(verdigris, draw(seed)).run()


class Trial:
    """One pair of servers, clients on it, and the blows of a schedule."""

    def __init__(self, verdigris: Installation, schedule: Schedule) -> None:
        print(schedule)
        self.verdigris = verdigris
        self.schedule = schedule
        self.old, self.new = ("17.10", "18.6") if schedule.logical else ("17.9", "17.10")

    def run(self) -> None:
        verdigris = self.verdigris
        verdigris.create_instance("app", self.old)
        install_schema(verdigris.dsn("app"), accounts=50)
        self.deployment, green = verdigris.build_green("app", TargetEngineVersion=self.new)
        self.source_id, self.target_id = verdigris.resource_id("app"), verdigris.resource_id(green)
        with Workload(verdigris.dsn("app"), writers=3, readers=1, commits_per_s=60, reads_per_s=20) as workload:
            workload.start(60)
            for blow in self.schedule.blows:
                if self._attempt(blow) == "SWITCHOVER_COMPLETED":
                    break
                self._is_all_on_source()
            self._complete()
            result = workload.stop()
        dsn = verdigris.dsn("app")
        assert verify_ledger(dsn, result).breaches == ()
        if self.schedule.spares_clients:
            assert verify_clients(result) == []

    def _attempt(self, blow: Blow) -> str:
        log = ServeLog(self.verdigris.log_path)
        self._call()
        log.wait_for("switchover.phase", phase=blow.phase)
        time.sleep(blow.after_s)
        self._strike(blow.victim)
        return str(self.verdigris.await_settled(self.deployment, limit_s=SETTLES_WITHIN_S)["Status"])

    def _strike(self, victim: Victim) -> None:
        match victim:
            case Victim.CONTROL_PLANE:
                self.verdigris.kill()
                self.verdigris.start()
            case Victim.ROUTER:
                pid = RouterProcess(self.verdigris.home).pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            case Victim.SOURCE | Victim.TARGET:
                rid = self.source_id if victim is Victim.SOURCE else self.target_id
                pidfile = self.verdigris.home / "instances" / rid / "data" / "postmaster.pid"
                os.kill(int(pidfile.read_text().split()[0]), signal.SIGKILL)

    def _call(self) -> None:
        self.verdigris.rds.switchover_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self.deployment, SwitchoverTimeout=60
        )

    def _is_all_on_source(self) -> None:
        """Not at all: clients are on blue, which takes connections and writes, and green takes none of the latter."""
        assert self.verdigris.await_connection("app") == self.old
        with self.verdigris.connect("app") as connection:
            connection.execute("UPDATE ledger.accounts SET balance = balance WHERE id = 1")
        self._refuses_writes(self.target_id)

    def _complete(self) -> None:
        """In peace it succeeds: green may need a moment to follow again after what it went through."""
        for _ in range(ATTEMPTS):
            if self.verdigris.deployment(self.deployment)["Status"] == "SWITCHOVER_COMPLETED":
                break
            self._call()
            self.verdigris.await_settled(self.deployment, limit_s=90)
        assert self.verdigris.deployment(self.deployment)["Status"] == "SWITCHOVER_COMPLETED"
        assert self.verdigris.await_connection("app") == self.new
        self._refuses_writes(self.source_id)
        wait_until(
            lambda: server_inventory(self.verdigris, self.source_id)["slots"] == [], "no slot is left", limit_s=10
        )

    def _refuses_writes(self, resource_id: str) -> None:
        identifier = next(
            instance["DBInstanceIdentifier"]
            for instance in self.verdigris.rds.describe_db_instances()["DBInstances"]
            if instance["DbiResourceId"] == resource_id
        )
        self.verdigris.await_connection(identifier)
        with self.verdigris.connect(identifier) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("UPDATE ledger.accounts SET balance = 0 WHERE id = 1")
