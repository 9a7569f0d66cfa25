"""The clients of a workload: ordinary blocking database code, one connection and one thread each.

A client behaves like an application that trusts its database: it keeps its connection for as long as it lives, uses
named prepared statements of both kinds (the protocol's and ``PREPARE``), relies on a ``SET`` made once, and writes
down every answer. It opens a new connection only when the old one is gone, and counts that. Without ``session_state``
it relies on nothing but its transactions, as behind a pooler that gives it another session for each.
"""

import hashlib
import random
import threading
from time import monotonic_ns
from typing import Any, LiteralString

import psycopg
from msgspec import Struct

from verdigris.demo import schema
from verdigris.demo.ledger import Commit, Incident, IncidentKind, Ledger, Outcome, Read, Sighting
from verdigris.demo.sql import one_row, sqlstate_of

Connection = psycopg.Connection[tuple[Any, ...]]

# Long enough to sit out a parked endpoint, where new connections wait; short enough that a dead one shows.
CONNECT_TIMEOUT_S = 60
RECONNECT_INTERVAL_S = 0.05
SESSION_CHECK_INTERVAL_NS = 250_000_000
ONLY_WHEN_TOLD = 1 << 30  # executions before psycopg prepares a statement by itself; with None it never may
KEY_SHIFT = 32  # a key is the writer's number and its count of attempts: unique without asking anybody

# SQLSTATEs that say in so many words that the outcome is not known (statement_completion_unknown,
# transaction_resolution_unknown).
_UNDECIDED = frozenset({"40003", "08007"})

_WHO: LiteralString = "SELECT current_setting('server_version'), current_setting('work_mem')"
_SESSION_CHECK: LiteralString = f"PREPARE session_check AS {_WHO}"


class ClientPlan(Struct, frozen=True, kw_only=True):
    """``interval_s``: time from the start of one request to the next; 0 for as fast as the database answers.
    ``session_state``: whether the client relies on its session's."""

    dsn: str
    number: int
    first_writer: int
    last_writer: int
    accounts: int
    interval_s: float
    session_state: bool = True


class Signals:
    """What the process tells its clients: ``go`` when all may begin, ``stop`` when each shall end after its request."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.stop = threading.Event()


class Client(threading.Thread):
    """Connects, waits for ``go``, repeats ``request`` at its pace until ``stop``, and survives the loss of its
    connection."""

    def __init__(self, plan: ClientPlan, ledger: Ledger, signals: Signals) -> None:
        super().__init__(name=f"client-{plan.number}", daemon=True)
        self.plan = plan
        self.connected = threading.Event()
        self.requests = 0
        self._ledger = ledger
        self._go = signals.go
        self._stop_asked = signals.stop
        self._connection: Connection | None = None
        self._connection_number = 0
        self._version_seen = ""
        self._checked_ns = 0

    # ------------------------------------------------------------------------------------------------ its life

    def run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # whatever it is: a client that vanishes must show in the result
            self.incident(IncidentKind.CLIENT_CRASHED, detail=f"{type(error).__name__}: {error}")

    def _serve(self) -> None:
        while self._connection is None and not self._stop_asked.is_set():
            self._connect_or_rest()
        self._go.wait()
        interval_ns = int(self.plan.interval_s * 1e9)
        # Not all at the same time, again and again: clients know nothing of each other.
        self._stop_asked.wait(random.Random(self.plan.number).random() * self.plan.interval_s)
        due_ns = monotonic_ns()
        while not self._stop_asked.is_set():
            connection = self._connection or self._connect_or_rest()
            if connection is None:
                continue
            self.request(connection)
            self.requests += 1
            self._look_after(connection)
            # A client that was held up does not make up for it: it goes on at its pace.
            now_ns = monotonic_ns()
            due_ns = max(due_ns + interval_ns, now_ns)
            if due_ns > now_ns:
                self._stop_asked.wait((due_ns - now_ns) / 1e9)
        if self._connection is not None:
            self._check_session(self._connection, final=True)
            self._connection.close()

    def request(self, connection: Connection) -> None:
        raise NotImplementedError

    def abandon(self, at_ns: int) -> None:
        """Called from outside on a client that does not come back: write down that it still waits."""
        self.incident(IncidentKind.STUCK, at_ns=at_ns)

    # ------------------------------------------------------------------------------------------- its connection

    def _connect_or_rest(self) -> Connection | None:
        connection = self._connect()
        if connection is None:
            self._stop_asked.wait(RECONNECT_INTERVAL_S)
        return connection

    def _connect(self) -> Connection | None:
        self._connection_number += 1
        try:
            connection = psycopg.connect(
                self.plan.dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, prepare_threshold=ONLY_WHEN_TOLD
            )
            if self.plan.session_state:
                # A value that nothing else sets, different for each client, so that sessions cannot be mixed up
                # unnoticed.
                connection.execute("SELECT set_config('work_mem', %s, false)", (self._work_mem,))
                connection.execute(_SESSION_CHECK)
        except psycopg.Error as error:
            self.incident(IncidentKind.CONNECT_FAILED, sqlstate=sqlstate_of(error))
            return None
        self._connection = connection
        self._version_seen = ""
        self._check_session(connection)
        self.connected.set()
        return connection

    @property
    def _work_mem(self) -> str:
        """Of this client alone; odd, so that it is shown as it was said, and never as 5MB."""
        return f"{5_001 + 2 * self.plan.number}kB"

    def _look_after(self, connection: Connection) -> None:
        if connection.closed:
            self._drop()
        elif monotonic_ns() - self._checked_ns > SESSION_CHECK_INTERVAL_NS:
            self._check_session(connection)

    def _drop(self, sqlstate: str | None = None) -> None:
        if self._connection is not None:
            self.incident(IncidentKind.CONNECTION_DROPPED, sqlstate=sqlstate)
            self._connection.close()
            self._connection = None

    def _check_session(self, connection: Connection, *, final: bool = False) -> None:
        """Is it still the session that was set up, and which server does it talk to?"""
        if connection.closed:
            return
        try:
            version, work_mem = one_row(connection, "EXECUTE session_check" if self.plan.session_state else _WHO)
        except psycopg.Error as error:
            if connection.closed:
                self._drop(sqlstate_of(error))
            else:
                self.incident(IncidentKind.STATEMENT_LOST, sqlstate=sqlstate_of(error))
            return
        self._checked_ns = monotonic_ns()
        if self.plan.session_state and work_mem != self._work_mem:
            self.incident(IncidentKind.SETTING_LOST, detail=f"work_mem is {work_mem}, not {self._work_mem}")
        if version != self._version_seen or final:
            self._version_seen = version
            self._ledger.append(
                Sighting(
                    client=self.plan.number,
                    connection=self._connection_number,
                    at_ns=self._checked_ns,
                    server_version=version,
                )
            )

    def incident(
        self, kind: IncidentKind, *, sqlstate: str | None = None, detail: str = "", at_ns: int | None = None
    ) -> None:
        self._ledger.append(
            Incident(
                client=self.plan.number,
                connection=self._connection_number,
                kind=kind,
                at_ns=at_ns or monotonic_ns(),
                sqlstate=sqlstate,
                detail=detail,
            )
        )


class _Attempt:
    """What is known so far of a transaction under way."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.began_ns = monotonic_ns()
        self.committing = False
        self.row_id: int | None = None
        self.seq = 0


class Writer(Client):
    """Each request is one transaction: a link for its chain, a transfer, a receipt."""

    def __init__(self, plan: ClientPlan, ledger: Ledger, signals: Signals) -> None:
        super().__init__(plan, ledger, signals)
        self._random = random.Random(plan.number)
        self._attempts = 0
        self._acknowledged_seq = 0
        self._attempt: _Attempt | None = None

    def request(self, connection: Connection) -> None:
        self._attempts += 1
        attempt = self._attempt = _Attempt((self.plan.number << KEY_SHIFT) | self._attempts)
        try:
            self._transact(connection, attempt)
        except psycopg.Error as error:
            self._settle(attempt, _outcome_of(error, connection, attempt), sqlstate_of(error))
            self._clean_up(connection, error)
        else:
            self._acknowledged_seq = attempt.seq
            self._settle(attempt, Outcome.ACKNOWLEDGED)
        self._attempt = None

    def _transact(self, connection: Connection, attempt: _Attempt) -> None:
        number = self.plan.number
        connection.execute("BEGIN")
        seq, prev_hash = connection.execute(
            schema.READ_HEAD, (number,), prepare=self.plan.session_state
        ).fetchone() or (0, "")
        if seq < self._acknowledged_seq:
            self.incident(IncidentKind.TIME_WENT_BACK, detail=f"chain at {seq}, acknowledged {self._acknowledged_seq}")
        attempt.seq = seq + 1
        payload = f"{attempt.key}:{self._random.randbytes(24).hex()}"
        link = {
            "key": attempt.key,
            "writer": number,
            "seq": attempt.seq,
            "payload": payload,
            "prev_hash": prev_hash,
            "hash": link_hash(prev_hash, payload),
        }
        row = connection.execute(schema.ADD_LINK, link, prepare=self.plan.session_state).fetchone()
        attempt.row_id = row[0] if row else None
        payer, payee = self._random.sample(range(1, self.plan.accounts + 1), 2)
        connection.execute(
            schema.TRANSFER, (attempt.key, payer, payee, self._random.randint(1, 9)), prepare=self.plan.session_state
        )
        attempt.committing = True
        cursor = connection.execute("COMMIT")
        if cursor.statusmessage != "COMMIT":
            # The server answers COMMIT of a failed transaction with ROLLBACK and no error.
            raise psycopg.errors.InFailedSqlTransaction("COMMIT was answered with " + str(cursor.statusmessage))

    def _settle(self, attempt: _Attempt, outcome: Outcome, sqlstate: str | None = None) -> None:
        self._ledger.append(
            Commit(
                client=self.plan.number,
                connection=self._connection_number,
                key=attempt.key,
                outcome=outcome,
                began_ns=attempt.began_ns,
                ended_ns=monotonic_ns(),
                row_id=attempt.row_id,
                sqlstate=sqlstate,
            )
        )

    def _clean_up(self, connection: Connection, error: psycopg.Error) -> None:
        if not connection.closed:
            # Not execute("ROLLBACK"): psycopg follows that with DEALLOCATE ALL, and ``session_check`` would be lost to
            # its tidiness. Whatever this ROLLBACK meets, the next statement meets too.
            connection.pgconn.exec_(b"ROLLBACK")
        if connection.closed:
            self._drop(sqlstate_of(error))

    def abandon(self, at_ns: int) -> None:
        super().abandon(at_ns)
        if (attempt := self._attempt) is not None:
            # Even one that had not come to COMMIT: the thread may get there while this is written.
            self._settle(attempt, Outcome.UNKNOWN)


class Reader(Client):
    """Each request is one query: by turns the sum of all money, and how far the chains have come."""

    def __init__(self, plan: ClientPlan, ledger: Ledger, signals: Signals) -> None:
        super().__init__(plan, ledger, signals)
        self._seen: dict[int, int] = {}

    def request(self, connection: Connection) -> None:
        began_ns = monotonic_ns()
        query = self._read_sum if self.requests % 2 else self._read_heads
        sqlstate = None
        try:
            query(connection)
        except psycopg.Error as error:
            sqlstate = sqlstate_of(error)
        self._ledger.append(
            Read(
                client=self.plan.number,
                connection=self._connection_number,
                began_ns=began_ns,
                ended_ns=monotonic_ns(),
                sqlstate=sqlstate,
            )
        )
        if connection.closed:
            self._drop(sqlstate)

    def _read_sum(self, connection: Connection) -> None:
        row = connection.execute(schema.SUM_OF_BALANCES, prepare=self.plan.session_state).fetchone()
        expected = self.plan.accounts * schema.OPENING_BALANCE
        if row is None or row[0] != expected:
            self.incident(IncidentKind.SUM_WRONG, detail=f"{row and row[0]} instead of {expected}")

    def _read_heads(self, connection: Connection) -> None:
        bounds = (self.plan.first_writer, self.plan.last_writer)
        for writer, seq in connection.execute(schema.HEADS_SEEN, bounds, prepare=self.plan.session_state):
            if seq < self._seen.get(writer, 0):
                self.incident(IncidentKind.TIME_WENT_BACK, detail=f"chain {writer}: {seq} after {self._seen[writer]}")
            self._seen[writer] = seq


def link_hash(prev_hash: str, payload: str) -> str:
    return hashlib.sha256((prev_hash + payload).encode()).hexdigest()


def _outcome_of(error: psycopg.Error, connection: Connection, attempt: _Attempt) -> Outcome:
    """What an error means. Only an error after which the session goes on is an answer to COMMIT."""
    if not attempt.committing:
        return Outcome.FAILED
    session_goes_on = error.diag.severity_nonlocalized == "ERROR" and not connection.closed
    if isinstance(error, psycopg.errors.InFailedSqlTransaction) or (
        session_goes_on and error.sqlstate not in _UNDECIDED
    ):
        return Outcome.FAILED
    return Outcome.UNKNOWN
