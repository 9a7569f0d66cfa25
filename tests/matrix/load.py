"""Clients that write without end, each on one connection, and count what they were told was committed."""

import threading
from typing import Any, Self

import psycopg

CLIENTS = 4


class Load:
    """Runs from entering to leaving."""

    def __init__(self, dsn: str) -> None:
        self.clients = [_Client(dsn, f"client {number}") for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.stop.set()
        for client in self.clients:
            client.join(30)
            assert not client.is_alive(), f"{client.name} is stuck"

    def acknowledged(self) -> set[tuple[str, int]]:
        return {(client.name, n) for client in self.clients for n in range(1, client.acknowledged + 1)}

    def versions(self) -> list[list[str]]:
        """Of the servers that each client met, in order."""
        return [client.versions for client in self.clients]

    def errors(self) -> list[Exception]:
        return [client.error for client in self.clients if client.error is not None]


class _Client(threading.Thread):
    def __init__(self, dsn: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.stop = threading.Event()
        self.acknowledged = 0
        self.versions: list[str] = []
        self.error: Exception | None = None
        self._dsn = dsn

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True, prepare_threshold=1) as connection:
                while not self.stop.wait(0.01):
                    self._write(connection, self.acknowledged + 1)
        except Exception as error:  # whatever it is, it is the test's to judge
            self.error = error

    def _write(self, connection: psycopg.Connection[Any], n: int) -> None:
        with connection.transaction():
            connection.execute("UPDATE work SET n = n + 1 WHERE id = %s", (n % 900 + 1,))
            row = connection.execute(
                "INSERT INTO written VALUES (%s, %s) RETURNING current_setting('server_version')", (self.name, n)
            ).fetchone()
        self.acknowledged = n
        assert row is not None
        if row[0] not in self.versions[-1:]:
            self.versions.append(row[0])
