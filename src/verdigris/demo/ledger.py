"""What each client of a workload was told, and when: the record that a database is judged by.

Every client appends to a file of its process, one JSON array a line. Times are ``time.monotonic_ns()``, which on Linux
is one clock for every process of the machine, so that the records of several processes can be put on one axis.
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from threading import Lock

import msgspec
from msgspec import Struct

# The SQLSTATE written where none came because the connection broke (PostgreSQL, appendix A: connection_failure).
CONNECTION_FAILURE = "08006"


class Outcome(StrEnum):
    """What a client knows about its commit.

    ACKNOWLEDGED: the server said COMMIT. FAILED: the server refused, or COMMIT was never sent. UNKNOWN: the connection
    broke after COMMIT was sent and before an answer came, so the database may hold it or not, but never twice.
    """

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Commit(Struct, frozen=True, kw_only=True, array_like=True, tag="commit"):
    """One attempt at a transaction, ``began_ns`` with BEGIN, ``ended_ns`` when its outcome was known.

    ``key`` is used for this attempt alone, whatever becomes of it. ``row_id`` is the sequence value that the database
    gave, if it came to that. ``connection`` counts the client's connections from 1.
    """

    client: int
    connection: int
    key: int
    outcome: Outcome
    began_ns: int
    ended_ns: int
    row_id: int | None = None
    sqlstate: str | None = None


class Read(Struct, frozen=True, kw_only=True, array_like=True, tag="read"):
    """One query of a reader; ``sqlstate`` is None when it was answered."""

    client: int
    connection: int
    began_ns: int
    ended_ns: int
    sqlstate: str | None = None


class IncidentKind(StrEnum):
    """What no application should see happen to it."""

    CONNECTION_DROPPED = "connection-dropped"
    CONNECT_FAILED = "connect-failed"
    SETTING_LOST = "setting-lost"
    STATEMENT_LOST = "statement-lost"
    TIME_WENT_BACK = "time-went-back"  # a client read a state older than one it had seen
    SUM_WRONG = "sum-wrong"
    STUCK = "stuck"  # still waiting for an answer when the workload was stopped
    CLIENT_CRASHED = "client-crashed"  # a fault of the workload itself: its figures cannot be trusted


class Incident(Struct, frozen=True, kw_only=True, array_like=True, tag="incident"):
    client: int
    connection: int
    kind: IncidentKind
    at_ns: int
    sqlstate: str | None = None
    detail: str = ""


class Sighting(Struct, frozen=True, kw_only=True, array_like=True, tag="sighting"):
    """The server version that a connection saw: written when it is first seen, when it changes, and at the end."""

    client: int
    connection: int
    at_ns: int
    server_version: str


Record = Commit | Read | Incident | Sighting

_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class Ledger:
    """Appends records to one file; shared by the threads of a process.

    Records reach the file when ``flush`` is called, several times a second. What a killed process had not flushed is
    an acknowledgement that nobody can hold the database to, so nothing false follows from its loss.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._encoder = msgspec.json.Encoder()
        self._lock = Lock()

    def append(self, record: Record) -> None:
        line = self._encoder.encode(record) + b"\n"
        with self._lock:
            self._file.write(line)

    def flush(self) -> None:
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._file.close()


def read_ledger(path: Path) -> Iterator[Record]:
    """Every record of a file. A last line that was cut off by a kill is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _decoder.decode(line)
