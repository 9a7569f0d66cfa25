"""Independent writers on both sides, all the time, past the router: who could write when is seen, not inferred.

Each side has one that keeps its session for as long as it can and one that opens a new one each time. They log in as
the master user through the server's own socket, which the product lets nobody but itself reach: here they stand for
everybody that a fence has to keep out.
"""

import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.conninfo import make_conninfo

from tests.acceptance.installation import MASTER, PASSWORD

TABLE = "CREATE TABLE IF NOT EXISTS public.probes (key bigint PRIMARY KEY)"
_WRITE = "INSERT INTO public.probes VALUES (%s)"
# Between two writes of a session that is kept; between two sessions, which cost the machine much more; after a refusal.
_INTERVAL_S, _NEW_SESSION_S, _REST_S = 0.03, 0.25, 0.1

# Unique on both sides and over all runs on one pair.
_keys = itertools.count(time.time_ns())


class Write(Struct, frozen=True):
    """An acknowledged one. Times are ``time.monotonic_ns()``."""

    key: int
    began_ns: int
    ended_ns: int


class Probe(threading.Thread):
    def __init__(self, home: Path, resource_id: str, *, keeps_session: bool) -> None:
        super().__init__(name=f"probe of {resource_id}", daemon=True)
        self.writes: list[Write] = []
        self.attempts = 0
        self._conninfo = make_conninfo(
            host=str(home / "run" / resource_id.lower()),
            user=MASTER,
            password=PASSWORD,
            dbname="app",
            connect_timeout=5,
        )
        self._keeps_session = keeps_session
        self._interval_s = _INTERVAL_S if keeps_session else _NEW_SESSION_S
        self._connection: psycopg.Connection[Any] | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self._ended.wait(self._interval_s if self._attempt() else _REST_S)
        self._close()

    def stop(self) -> None:
        self._ended.set()

    def _attempt(self) -> bool:
        key, began_ns = next(_keys), time.monotonic_ns()
        self.attempts += 1
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._conninfo, autocommit=True)
            self._connection.execute(_WRITE, [key])
        except psycopg.Error:
            if self._connection is not None and self._connection.closed:
                self._connection = None
            return False
        else:
            self.writes.append(Write(key, began_ns, time.monotonic_ns()))
            return True
        finally:
            if not self._keeps_session:
                self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Side:
    """The probes of one server."""

    def __init__(self, home: Path, resource_id: str) -> None:
        self.resource_id = resource_id
        self._probes = [Probe(home, resource_id, keeps_session=keeps) for keeps in (True, False)]

    def __enter__(self) -> "Side":
        for probe in self._probes:
            probe.start()
        return self

    def __exit__(self, *_: object) -> None:
        for probe in self._probes:
            probe.stop()
        for probe in self._probes:
            probe.join(30)

    @property
    def writes(self) -> list[Write]:
        return sorted((write for probe in self._probes for write in probe.writes), key=lambda write: write.ended_ns)

    @property
    def attempts(self) -> int:
        return sum(probe.attempts for probe in self._probes)


def both_writable(source: Sequence[Write], target: Sequence[Write]) -> list[str]:
    """Once target has taken a write, source takes none that begins later. In words, if it does."""
    if not source or not target:
        return []
    first = min(target, key=lambda write: write.ended_ns)
    later = [write for write in source if write.began_ns > first.ended_ns]
    if not later:
        return []
    last = max(later, key=lambda write: write.began_ns)
    distance_ms = (last.began_ns - first.ended_ns) / 1e6
    return [f"two writable sides: {len(later)} writes on blue, the last {distance_ms:.0f} ms after the first on green"]


def missing(connection: psycopg.Connection[Any], writes: Sequence[Write]) -> list[str]:
    """Acknowledged writes of the probes that the server does not hold."""
    keys = [write.key for write in writes]
    rows = connection.execute("SELECT key FROM public.probes WHERE key = ANY(%s)", [keys]).fetchall()
    lost = set(keys) - {key for (key,) in rows}
    return [f"{len(lost)} acknowledged writes of the probes are missing, such as {min(lost)}"] if lost else []
