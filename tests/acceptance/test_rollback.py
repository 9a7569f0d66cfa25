"""A switchover that cannot finish before its timeout leaves no trace: blue serves, and the same call works later.

All that can be in the way is tried at the same time, each on a pair of its own: what takes is the timeout, whose
smallest value is half a minute.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.disks import Disk, can_mount, wal_disk
from tests.acceptance.installation import Installation, installation
from tests.acceptance.inventory import Inventory, admin, at_rest, await_same, server_inventory
from tests.acceptance.serve_log import ServeLog
from verdigris.demo.ledger import Outcome
from verdigris.demo.result import WorkloadResult
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload

TIMEOUT_S = 30
# RDS promises nothing about it; we do: past its deadline a switchover costs clients at most a second. The rest is what
# a busy test machine may add.
WRITES_AGAIN_WITHIN_S = 1.0 + 1.5
# One attempt's budget for stragglers, and the same allowance.
LONGEST_PAUSE_FOR_STRAGGLERS_S = 1.0 + 1.5


class Pair:
    """A blue with clients and its green."""

    def __init__(self, verdigris: Installation, name: str) -> None:
        self.verdigris = verdigris
        self.name = name
        verdigris.create_instance(name, "17.10")
        install_schema(verdigris.dsn(name), accounts=50)
        with verdigris.connect(name) as connection:
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 0), (2, 0)")
        self.deployment, self.green = verdigris.build_green(name, TargetEngineVersion="18.6")
        self.blue_id, self.green_id = verdigris.resource_id(name), verdigris.resource_id(self.green)
        self.workload = Workload(verdigris.dsn(name), writers=2, readers=1, commits_per_s=40, reads_per_s=10)
        self.called_ns = 0
        self.wal_disk: Disk | None = None  # of green, when the test wants to fill it

    def call(self) -> None:
        self.called_ns = time.monotonic_ns()
        self.verdigris.rds.switchover_blue_green_deployment(
            BlueGreenDeploymentIdentifier=self.deployment, SwitchoverTimeout=TIMEOUT_S
        )

    def inventory(self) -> Inventory:
        """Without the clients' own sessions, and without sequences and heads, which the workload moves."""
        return server_inventory(self.verdigris, self.blue_id)

    def server_processes(self) -> list[int]:
        postmaster = int(
            (self.verdigris.home / "instances" / self.green_id / "data/postmaster.pid").read_text().split()[0]
        )
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]


# -- what is in the way: each blocks the switchover from the start, or from the given phase on, until its block ends

Obstacle = Callable[[Pair, ServeLog], Any]


@contextmanager
def a_straggler(pair: Pair, log: ServeLog) -> Iterator[None]:
    """A transaction that has written and does not end. Afterwards it can still be committed, on blue."""
    with pair.verdigris.connect(pair.name) as connection:
        connection.execute("BEGIN")
        connection.execute("UPDATE t SET v = v + 1 WHERE id = 1")
        pair.call()
        yield
        connection.execute("COMMIT")
        assert connection.execute("SELECT v, split_part(version(), ' ', 2) FROM t WHERE id = 1").fetchall() == [
            (1, "17.10")
        ]


@contextmanager
def a_lock_on_green(pair: Pair, log: ServeLog) -> Iterator[None]:
    """What blue's clients write cannot be applied."""
    with admin(pair.verdigris, pair.green_id, "app") as connection:
        pair.call()
        log.wait_for("switchover.phase", deployment=pair.deployment, phase="check_guardrails")
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE ledger.chain IN ACCESS EXCLUSIVE MODE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def a_frozen_green(pair: Pair, log: ServeLog) -> Iterator[None]:
    """From the middle of the pause on, no process of green moves (SIGSTOP)."""
    pair.call()
    log.wait_for("switchover.phase", deployment=pair.deployment, phase="ready_sessions")
    frozen = pair.server_processes()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def a_frozen_apply_worker(pair: Pair, log: ServeLog) -> Iterator[None]:
    """Green answers everything, and nothing comes to it any more (SIGSTOP of the apply workers)."""
    pair.call()
    log.wait_for("switchover.phase", deployment=pair.deployment, phase="prepare")
    frozen = [pid for pid in pair.server_processes() if b"apply worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert frozen
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def a_client_that_waits_for_a_lock(pair: Pair, log: ServeLog) -> Iterator[None]:
    """Of somebody who is past the router, and so would be ended behind the fence; but it never comes to that."""
    with admin(pair.verdigris, pair.blue_id, "app") as holder, pair.verdigris.connect(pair.name) as waiting:
        holder.execute("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        waits = threading.Thread(target=waiting.execute, args=("UPDATE t SET v = v + 1 WHERE id = 2",))
        waits.start()
        try:
            pair.call()
            yield
        finally:
            holder.execute("COMMIT")
            waits.join(10)
        assert waiting.execute("SELECT v, split_part(version(), ' ', 2) FROM t WHERE id = 2").fetchall() == [
            (1, "17.10")
        ]


@contextmanager
def a_full_disk(pair: Pair, log: ServeLog) -> Iterator[None]:
    """Green cannot have another segment of WAL, needs one, and does not come up again for want of it."""
    disk = pair.wal_disk
    assert disk is not None
    pair.call()
    log.wait_for("switchover.phase", deployment=pair.deployment, phase="check_guardrails")
    disk.fill()
    try:
        with suppress(psycopg.Error), admin(pair.verdigris, pair.green_id) as connection:
            for _ in range(100):
                connection.execute("SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
        yield
    finally:
        disk.empty()


@contextmanager
def a_stopped_apply_worker(pair: Pair, log: ServeLog) -> Iterator[None]:
    """Somebody disables green's subscription while the switchover goes on."""
    with admin(pair.verdigris, pair.green_id, "app") as connection:
        (name,) = connection.execute(
            "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = 'app'"
        ).fetchall()[0]
        pair.call()
        log.wait_for("switchover.phase", deployment=pair.deployment, phase="ready_sessions")
        connection.execute(f"ALTER SUBSCRIPTION {name} DISABLE".encode())
        yield
        connection.execute(f"ALTER SUBSCRIPTION {name} ENABLE".encode())


OBSTACLES: dict[str, Obstacle] = {
    "straggler": a_straggler,
    "locked": a_lock_on_green,
    "frozen": a_frozen_green,
    "waiting": a_client_that_waits_for_a_lock,
    "worker": a_frozen_apply_worker,
    "full": a_full_disk,
}
_TIMED_OUT = "did not finish before its timeout"


@pytest.fixture
def disks() -> Iterator[list[Disk]]:
    """Removed after whoever uses them."""
    disks: list[Disk] = []
    yield disks
    for disk in disks:
        disk.remove()


@pytest.fixture
def verdigris(verdigris_home: Path, disks: list[Disk]) -> Iterator[Installation]:
    with installation(home=verdigris_home) as verdigris:
        yield verdigris


@pytest.mark.timeout(900)  # on a busy machine: six servers of each kind are made
@pytest.mark.parametrize(
    "names",
    [("straggler", "locked", "frozen"), pytest.param(("waiting", "worker", "full"), marks=pytest.mark.long)],
    ids=",".join,
)
def test_past_its_timeout_nothing_has_happened(
    verdigris: Installation, disks: list[Disk], names: tuple[str, ...]
) -> None:
    if "full" in names and not can_mount():
        names = tuple(name for name in names if name != "full")
    pairs = {name: Pair(verdigris, name) for name in names}
    if "full" in pairs:
        pairs["full"].wal_disk = wal_disk(verdigris, pairs["full"].green_id)
        disks.append(pairs["full"].wal_disk)
    with ExitStack() as workloads:
        for pair in pairs.values():
            workloads.enter_context(pair.workload)
            pair.workload.start(60)
        before = {name: at_rest(pair.inventory) for name, pair in pairs.items()}
        with ExitStack() as obstacles:
            for name, pair in pairs.items():
                obstacles.enter_context(OBSTACLES[name](pair, ServeLog(verdigris.log_path)))
            details = {
                name: verdigris.await_deployment(pair.deployment, "SWITCHOVER_FAILED", limit_s=TIMEOUT_S + 15)
                for name, pair in pairs.items()
            }
            for name, pair in pairs.items():
                # Not where the obstacle itself is to be seen on blue: a session of ours, a green that cannot connect.
                if name not in ("waiting", "full"):
                    # Green is unwell still, and blue is as before already.
                    await_same(lambda name=name: before[name], pair.inventory)  # type: ignore[misc]  # mypy: default in lambda
        for name, pair in pairs.items():
            # A server that could not start for so long is tried twice a minute.
            await_same(lambda name=name: before[name], pair.inventory, 45)  # type: ignore[misc]  # mypy: default in lambda
        results = {name: pair.workload.stop() for name, pair in pairs.items()}
    for name, pair in pairs.items():
        # Not until its timeout where green goes down: in whatever words it is said, green is named.
        reason = pair.green_id if name == "full" else _TIMED_OUT
        assert reason in details[name]["StatusDetails"], details[name]
        dsn = verdigris.dsn(name)
        assert [*verify_ledger(dsn, results[name]).breaches, *verify_clients(results[name])] == [], name
        assert _writes_again_after_s(pair, results[name]) < WRITES_AGAIN_WITHIN_S, name
    if "straggler" in results:
        longest = results["straggler"].longest_pause()
        assert longest is not None
        assert longest.ms < LONGEST_PAUSE_FOR_STRAGGLERS_S * 1000
    for name, pair in pairs.items():
        pair.call()
        verdigris.await_deployment(pair.deployment, "SWITCHOVER_COMPLETED", limit_s=TIMEOUT_S + 5)
        assert verify_ledger(verdigris.dsn(name), results[name]).breaches == ()
        assert verdigris.await_connection(name) == "18.6"


def _writes_again_after_s(pair: Pair, result: WorkloadResult) -> float:
    """From the deadline to the next acknowledged commit that began after it, or was waiting at it."""
    deadline_ns = pair.called_ns + TIMEOUT_S * 1_000_000_000
    ends = [c.ended_ns for c in result.commits if c.outcome is Outcome.ACKNOWLEDGED and c.ended_ns > deadline_ns]
    assert ends, "nothing was committed after the deadline"
    return (min(ends) - deadline_ns) / 1e9


@pytest.mark.long
def test_an_apply_worker_that_is_stopped_in_the_pause(verdigris: Installation) -> None:
    """Blue serves in any case. Whether green is still good is for the monitor to say."""
    pair = Pair(verdigris, "app")
    with pair.workload:
        pair.workload.start(60)
        before = at_rest(pair.inventory)
        with a_stopped_apply_worker(pair, ServeLog(verdigris.log_path)):
            settled = verdigris.await_settled(pair.deployment, limit_s=TIMEOUT_S + 15)
            assert settled["Status"] in ("SWITCHOVER_FAILED", "INVALID_CONFIGURATION"), settled
        result = pair.workload.stop()
    assert [*verify_ledger(verdigris.dsn("app"), result).breaches, *verify_clients(result)] == []
    assert _writes_again_after_s(pair, result) < WRITES_AGAIN_WITHIN_S
    await_same(lambda: before, pair.inventory)
    assert verdigris.await_connection("app") == "17.10"
