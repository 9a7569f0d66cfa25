"""Clients that work all the time while something is done to their servers, each on one connection."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from tests.acceptance.installation import wait_until


class Client(threading.Thread):
    """One connection that works without a pause until it is told to end. ``count`` tells how far it is."""

    def __init__(self, dsn: str, work: Callable[[psycopg.Connection[Any], int], int]) -> None:
        super().__init__()
        self._dsn, self._work = dsn, work
        self._ending = threading.Event()
        self.count = 0
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._ending.is_set():
                    self.count = self._work(connection, self.count)
        except Exception as error:
            self.failure = error

    def goes_on(self) -> None:
        """It is answered still, or again."""
        before = self.count
        wait_until(lambda: self.count > before or self.failure is not None, "the client gets on")
        assert self.failure is None

    def reaches(self, count: int) -> None:
        wait_until(lambda: self.count == count or self.failure is not None, f"the client is at {count}")

    def end(self) -> int:
        self._ending.set()
        self.join()
        assert self.failure is None
        return self.count


def write(connection: psycopg.Connection[Any], count: int) -> int:
    connection.execute("INSERT INTO t VALUES (%s)", [count + 1])
    return count + 1


def read(connection: psycopg.Connection[Any], count: int) -> int:
    """What has been read once is there the next time, too, and all before it."""
    [(rows, last)] = connection.execute("SELECT count(*), coalesce(max(id), 0) FROM t").fetchall()
    assert rows == last >= count, f"{rows} rows to {last} after {count}"
    return int(last)
