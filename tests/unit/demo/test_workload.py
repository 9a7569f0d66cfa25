"""The workload on a bare server: that what it counts is so, and that every check fails on a planted fault."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from verdigris.demo.ledger import IncidentKind, Outcome
from verdigris.demo.polling import wait_until
from verdigris.demo.promises import Promise
from verdigris.demo.result import WorkloadResult
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload, WorkloadFailed

if TYPE_CHECKING:
    from tests.unit.demo.conftest import BareServer


def reach(condition: Callable[[], object]) -> None:
    wait_until(condition, 20, what="the test's condition")


def run_workload(dsn: str, directory: Path, *, commits: int = 60, writers: int = 3, readers: int = 2) -> WorkloadResult:
    with Workload(dsn, writers=writers, readers=readers, directory=directory / "ledgers") as workload:
        workload.start()
        reach(lambda: workload.progress().acknowledged >= commits and workload.progress().reads >= 20)
        workload.mark("enough")
        return workload.stop()


def test_an_undisturbed_run_keeps_every_promise(dsn: str, directory: Path) -> None:
    result = run_workload(dsn, directory)
    verdict = verify_ledger(dsn, result)
    assert verdict.breaches == ()
    assert verify_clients(result) == []
    assert verdict.acknowledged >= 60
    assert (verdict.found, verdict.missing, verdict.doubled) == (verdict.acknowledged, 0, 0)
    assert (verdict.unknown, verdict.failed) == (0, 0)
    assert set(result.kept_connections) == {1, 2, 3, 4, 5}
    assert all(len(versions) == 1 for versions in result.kept_connections.values())
    assert result.began_ns < result.marks["enough"] <= result.ended_ns
    assert sum(result.buckets(since_ns=0, until_ns=result.ended_ns, width_ms=10**9)) <= verdict.acknowledged
    pause = result.longest_pause()
    assert pause is not None
    assert pause.ms < 5_000


def test_no_client_asks_for_a_setting_that_is_shown_in_other_words(dsn: str, directory: Path) -> None:
    """Client 120 was given 5120kB, which PostgreSQL calls 5MB: runs 37 and 45 of the faults of seed 2."""
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO ledger.heads VALUES (118, 0, 0, '')")
    result = run_workload(dsn, directory)
    assert min(commit.key >> 32 for commit in result.commits) >= 119
    assert verify_clients(result) == []


def test_a_second_run_on_the_same_tables_is_told_apart(dsn: str, directory: Path) -> None:
    first = run_workload(dsn, directory)
    second = run_workload(dsn, directory)
    assert {c.key for c in first.commits}.isdisjoint(c.key for c in second.commits)
    assert verify_ledger(dsn, second).kept
    assert verify_ledger(dsn, first).kept


FAULTS = [
    ("DELETE FROM ledger.chain WHERE key = %(key)s", {Promise.NOTHING_LOST, Promise.CHAINS_UNBROKEN}),
    ("DELETE FROM ledger.receipts WHERE key = %(key)s", {Promise.NOTHING_LOST}),
    ("DELETE FROM ledger.transfers WHERE key = %(key)s", {Promise.NOTHING_LOST, Promise.MONEY_ADDS_UP}),
    ("INSERT INTO ledger.receipts VALUES (%(key)s)", {Promise.NOTHING_DOUBLED}),
    (
        """
        INSERT INTO ledger.chain (key, writer, seq, payload, prev_hash, hash)
            SELECT key, writer, seq, payload, prev_hash, hash FROM ledger.chain WHERE key = %(key)s
        """,
        {Promise.NOTHING_DOUBLED, Promise.CHAINS_UNBROKEN},
    ),
    ("UPDATE ledger.chain SET payload = 'forged' WHERE key = %(key)s", {Promise.CHAINS_UNBROKEN}),
    ("UPDATE ledger.heads SET seq = seq - 1 WHERE writer = %(writer)s", {Promise.CHAINS_UNBROKEN}),
    ("UPDATE ledger.accounts SET balance = balance + 1 WHERE id = 7", {Promise.MONEY_ADDS_UP}),
    # Two balances wrong and the sum still right.
    (
        "UPDATE ledger.accounts SET balance = balance + CASE id WHEN 7 THEN 1 ELSE -1 END WHERE id IN (7, 8)",
        {Promise.MONEY_ADDS_UP},
    ),
    ("UPDATE ledger.lists SET keys = array_remove(keys, %(key)s)", {Promise.NOTHING_LOST}),
    (
        "UPDATE ledger.lists SET keys = %(key)s || keys WHERE %(key)s = ANY(keys)",
        {Promise.NOTHING_DOUBLED, Promise.LISTS_IN_ORDER},
    ),
    (
        "UPDATE ledger.lists SET keys = keys[2:] || keys[1:1] WHERE %(key)s = ANY(keys)",
        {Promise.LISTS_IN_ORDER},
    ),
    ("INSERT INTO ledger.receipts VALUES ((%(writer)s::bigint << 32) | 999999)", {Promise.NOTHING_INVENTED}),
]


@pytest.mark.parametrize(("statement", "broken"), FAULTS, ids=[" ".join(sql.split()[:4]) for sql, _ in FAULTS])
def test_a_planted_fault_is_found(dsn: str, directory: Path, statement: str, broken: set[Promise]) -> None:
    result = run_workload(dsn, directory, commits=20, writers=2, readers=1)
    acknowledged = [c for c in result.commits if c.outcome is Outcome.ACKNOWLEDGED]
    victim = sorted(acknowledged, key=lambda c: c.key)[2]
    with psycopg.connect(dsn) as connection:
        # As a string of the test's own: psycopg wants a literal, and the faults come from a table.
        connection.execute(statement.encode(), {"key": victim.key, "writer": victim.client})
    verdict = verify_ledger(dsn, result)
    assert {breach.promise for breach in verdict.breaches} == broken
    assert verdict.missing == (1 if Promise.NOTHING_LOST in broken else 0)
    assert verdict.doubled == (1 if Promise.NOTHING_DOUBLED in broken else 0)
    assert verdict.found + verdict.missing == verdict.acknowledged


def test_ids_given_out_twice_are_errors(dsn: str, directory: Path) -> None:
    with Workload(dsn, writers=1, readers=0, directory=directory / "ledgers") as workload:
        workload.start()
        reach(lambda: workload.progress().acknowledged >= 20)
        with psycopg.connect(dsn) as connection:
            connection.execute("ALTER SEQUENCE ledger.chain_id_seq RESTART WITH 1")
        reach(lambda: workload.progress().failed >= 1)
        result = workload.stop()
    assert result.errors.keys() == {"23505"}
    assert verify_ledger(dsn, result).kept
    assert {breach.promise for breach in verify_clients(result)} == {Promise.NO_CLIENT_ERROR}


def test_a_sequence_that_goes_backwards_is_found(dsn: str, directory: Path) -> None:
    with Workload(dsn, writers=1, readers=0, directory=directory / "ledgers") as workload:
        workload.start()
        reach(lambda: workload.progress().acknowledged >= 20)
        with psycopg.connect(dsn) as connection:
            # Out of the way with the old ids, so that giving them out again meets no constraint.
            connection.execute("LOCK TABLE ledger.chain")
            connection.execute("UPDATE ledger.chain SET id = -id")
            connection.execute("ALTER SEQUENCE ledger.chain_id_seq RESTART WITH 1")
        result = _stop_after(workload, 20)
    assert result.errors == {}
    assert {breach.promise for breach in verify_ledger(dsn, result).breaches} == {Promise.SEQUENCES_GO_FORWARD}


def test_terminated_connections_are_counted_and_replaced(dsn: str, directory: Path) -> None:
    with Workload(dsn, writers=3, readers=2, directory=directory / "ledgers") as workload:
        workload.start()
        reach(lambda: workload.progress().acknowledged >= 20)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = 'app' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        reach(lambda: workload.progress().dropped >= 5)
        so_far = workload.progress().acknowledged
        reach(lambda: workload.progress().acknowledged >= so_far + 20)
        result = workload.stop()
    assert result.connections_dropped == 5
    assert result.kept_connections == {}
    assert verify_ledger(dsn, result).kept
    broken = {breach.promise for breach in verify_clients(result)}
    assert Promise.NO_CONNECTION_DROPPED in broken


def test_a_lost_setting_a_lost_statement_and_a_stale_read_are_found(dsn: str, directory: Path) -> None:
    """The faults are planted in the database, so that the clients themselves need no seam for the test."""
    with Workload(dsn, writers=1, readers=1, directory=directory / "ledgers") as workload:
        workload.start()
        reach(lambda: workload.progress().acknowledged >= 10)
        with psycopg.connect(dsn) as connection:
            # A trigger runs inside the writer's own session.
            connection.execute(
                """
                CREATE FUNCTION ledger.sabotage() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    SET work_mem = '4MB';
                    RETURN NEW;
                END $$;
                CREATE TRIGGER sabotage BEFORE INSERT ON ledger.receipts
                    FOR EACH ROW EXECUTE FUNCTION ledger.sabotage();
                """
            )
        reach(lambda: workload.progress().incidents >= 1)
        # One after the other: the writer has locked its head when it comes to the receipts.
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DROP TRIGGER sabotage ON ledger.receipts")
            connection.execute("UPDATE ledger.heads SET seq = seq - 5")
        result = _stop_after(workload, 40)
    kinds = {incident.kind for incident in result.incidents}
    assert {IncidentKind.SETTING_LOST, IncidentKind.TIME_WENT_BACK} <= kinds
    broken = {breach.promise for breach in verify_clients(result)}
    assert {Promise.SESSIONS_WHOLE, Promise.READS_NEVER_GO_BACK} <= broken


def _stop_after(workload: Workload, more: int) -> WorkloadResult:
    so_far = workload.progress().acknowledged
    reach(lambda: workload.progress().acknowledged >= so_far + more)
    return workload.stop()


def test_a_wrong_sum_is_seen_by_readers(dsn: str, directory: Path) -> None:
    with Workload(dsn, writers=0, readers=1, directory=directory / "ledgers") as workload:
        workload.start()
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE ledger.accounts SET balance = balance - 1 WHERE id = 1")
        reach(lambda: workload.progress().incidents >= 1)
        result = workload.stop()
    assert result.incidents_of(IncidentKind.SUM_WRONG)


def test_a_crash_in_the_middle_loses_nothing_and_is_not_hidden(
    server_of_its_own: "BareServer", directory: Path
) -> None:
    server = server_of_its_own
    install_schema(server.dsn, accounts=50)
    with Workload(server.dsn, writers=4, readers=2, directory=directory / "ledgers") as workload:
        workload.start()
        reach(lambda: workload.progress().acknowledged >= 50)
        server.crash()
        reach(lambda: workload.progress().dropped >= 6)
        server.start()
        so_far = workload.progress().acknowledged
        reach(lambda: workload.progress().acknowledged >= so_far + 50)
        result = workload.stop()
    verdict = verify_ledger(server.dsn, result)
    assert verdict.breaches == ()
    assert verdict.unknown + verdict.failed >= 4
    assert result.connections_dropped == 6
    assert result.incidents_of(IncidentKind.CONNECT_FAILED)
    pause, silence = result.longest_pause(), result.longest_silence()
    assert pause is not None
    assert silence is not None
    assert pause.ms >= silence.ms * 0.5
    assert {breach.promise for breach in verify_clients(result)} == {
        Promise.NO_CONNECTION_DROPPED,
        Promise.NO_CLIENT_ERROR,
    }


def test_a_client_that_is_never_answered_is_stuck(dsn: str, directory: Path) -> None:
    with Workload(dsn, writers=1, readers=0, directory=directory / "ledgers", stop_timeout_s=0.5) as workload:
        workload.start()
        reach(lambda: workload.progress().acknowledged >= 5)
        with psycopg.connect(dsn) as connection:
            connection.execute("LOCK TABLE ledger.heads")
            reach(lambda: _waits_for_lock(connection))
            result = workload.stop()
    assert result.incidents_of(IncidentKind.STUCK)
    assert result.count(Outcome.UNKNOWN) == 1
    assert Promise.NOBODY_STUCK in {breach.promise for breach in verify_clients(result)}


def _waits_for_lock(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    connection.execute("SELECT pg_stat_clear_snapshot()")
    query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return connection.execute(query).fetchone() is not None


def test_a_server_that_is_not_there_is_the_workloads_failure(dsn: str, directory: Path) -> None:
    workload = Workload(dsn + " options='-c role=nobody'", writers=1, readers=0, directory=directory / "ledgers")
    with pytest.raises((WorkloadFailed, psycopg.OperationalError)):
        workload.start(timeout_s=1)
