"""One process of a workload: ``python -m verdigris.demo.client_process``, driven over its standard streams.

stdin: one line of JSON, a ``ProcessPlan``; an empty line once everybody is connected, which means go; its end means
stop. So a parent that dies takes its clients with it. stdout: a ``Progress`` as one line of JSON every tenth of a
second, the last one with ``finished`` set. The password in the plan's dsn is on no command line and in no environment.
"""

import os
import sys
import threading
from pathlib import Path
from time import monotonic, monotonic_ns

import msgspec
from msgspec import Struct

from verdigris.demo.clients import Client, ClientPlan, Reader, Signals, Writer
from verdigris.demo.ledger import Commit, Incident, IncidentKind, Ledger, Outcome, Read, Record, Sighting

PROGRESS_INTERVAL_S = 0.1
JOIN_INTERVAL_S = 0.05


class ProcessPlan(Struct, frozen=True, kw_only=True):
    ledger_path: str
    writers: tuple[ClientPlan, ...] = ()
    readers: tuple[ClientPlan, ...] = ()
    stop_timeout_s: float = 30


class Progress(Struct, kw_only=True):
    """Counts so far. ``versions`` are those that a connection of this process has seen."""

    connected: int = 0
    acknowledged: int = 0
    unknown: int = 0
    failed: int = 0
    reads: int = 0
    reads_failed: int = 0
    dropped: int = 0
    incidents: int = 0
    versions: list[str] = []
    problem: str = ""
    finished: bool = False


class CountingLedger(Ledger):
    """A ledger that keeps the counts for ``Progress`` as it goes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.progress = Progress()
        self._count_lock = threading.Lock()

    def append(self, record: Record) -> None:
        super().append(record)
        with self._count_lock:
            self._count(record)

    def _count(self, record: Record) -> None:
        progress = self.progress
        match record:
            case Commit(outcome=Outcome.ACKNOWLEDGED):
                progress.acknowledged += 1
            case Commit(outcome=Outcome.UNKNOWN):
                progress.unknown += 1
            case Commit():
                progress.failed += 1
            case Read(sqlstate=None):
                progress.reads += 1
            case Read():
                progress.reads_failed += 1
            case Sighting(server_version=version):
                if version not in progress.versions:
                    progress.versions.append(version)
            case Incident(kind=kind, sqlstate=sqlstate, detail=detail):
                progress.incidents += 1
                progress.dropped += kind is IncidentKind.CONNECTION_DROPPED
                progress.problem = " ".join(filter(None, (kind.value, sqlstate, detail)))


def _report_progress(clients: list[Client], ledger: CountingLedger, *, finished: bool = False) -> None:
    ledger.flush()
    progress = msgspec.structs.replace(
        ledger.progress, connected=sum(client.connected.is_set() for client in clients), finished=finished
    )
    sys.stdout.buffer.write(msgspec.json.encode(progress) + b"\n")
    sys.stdout.buffer.flush()


def _follow_stdin(signals: Signals) -> None:
    while sys.stdin.buffer.readline():
        signals.go.set()
    signals.stop.set()
    signals.go.set()  # for those that still wait for it


def _join(clients: list[Client], timeout_s: float) -> list[Client]:
    """Wait for every client to finish what it is at; return those that did not."""
    end = monotonic() + timeout_s
    waiting = list(clients)
    while waiting and monotonic() < end:
        waiting[0].join(JOIN_INTERVAL_S)
        waiting = [client for client in waiting if client.is_alive()]
    return waiting


def run(plan: ProcessPlan) -> int:
    ledger = CountingLedger(Path(plan.ledger_path))
    signals = Signals()
    clients: list[Client] = [Writer(p, ledger, signals) for p in plan.writers]
    clients += [Reader(p, ledger, signals) for p in plan.readers]
    threading.Thread(target=_follow_stdin, args=(signals,), daemon=True).start()
    for client in clients:
        client.start()
    while not signals.stop.wait(PROGRESS_INTERVAL_S):
        _report_progress(clients, ledger)
    stuck = _join(clients, plan.stop_timeout_s)
    for client in stuck:
        client.abandon(monotonic_ns())
    _report_progress(clients, ledger, finished=True)
    if stuck:
        os._exit(1)  # their threads are inside libpq and nothing else ends them
    return 0


if __name__ == "__main__":
    sys.exit(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=ProcessPlan)))
