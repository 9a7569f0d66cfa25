"""A session whose bytes the test writes and reads itself."""

import os
import socket
from typing import Self

import psycopg
from msgspec import Struct

from verdigris.wire.postgres import messages

READY = b"Z"
ROW = b"D"
ERROR = b"E"
PARAMETER = b"S"
NOTIFICATION = b"A"
COPY_IN, COPY_OUT, COPY_DATA = b"G", b"H", b"d"
COPY_DONE = messages.message(b"c")
LIMIT_S = 60.0


class Message(Struct, frozen=True):
    code: bytes
    body: bytes


class RawSession:
    """libpq logs in, without TLS; from then on its socket is ours."""

    def __init__(self, dsn: str) -> None:
        # Not by PGconn.connect(), which keeps all other threads waiting with it while the endpoint is parked.
        self._pgconn = psycopg.connect(dsn, sslmode="disable").pgconn
        self._socket = socket.socket(fileno=os.dup(self._pgconn.socket))
        self._socket.settimeout(LIMIT_S)
        self._read = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._pgconn.finish()

    def send(self, *parts: bytes) -> None:
        """In one write, as far as the system takes it."""
        self._socket.sendall(b"".join(parts))

    def read_bytes(self, limit: int) -> int:
        """Take up to so many bytes off the socket without looking at them yet; how many there were."""
        data = self._socket.recv(limit)
        self._read += data
        return len(data)

    def read(self) -> Message:
        """The next message. Raises ``ConnectionError`` where the session ends."""
        size = 5
        while len(self._read) < size or len(self._read) < (size := 1 + int.from_bytes(self._read[1:5])):
            if not self.read_bytes(1 << 16):
                raise ConnectionError("the server closed the connection")
        message = Message(bytes(self._read[:1]), bytes(self._read[5:size]))
        del self._read[:size]
        return message

    def read_until(self, code: bytes) -> list[Message]:
        """Up to and with the next message of this kind."""
        read = [self.read()]
        while read[-1].code != code:
            read.append(self.read())
        return read

    def answer(self) -> list[bytes | None]:
        """The values of all rows up to the next ``ReadyForQuery``, one after the other. An error fails the test."""
        values: list[bytes | None] = []
        for message in self.read_until(READY):
            if message.code == ERROR:
                raise AssertionError(str(messages.read_error(message.body)))
            if message.code == ROW:
                values += messages.read_data_row(message.body)
        return values

    def query(self, statement: str) -> list[bytes | None]:
        """By the simple protocol."""
        self.send(simple(statement))
        return self.answer()


def simple(statement: str) -> bytes:
    return messages.message(b"Q", statement.encode() + b"\0")


def run(statement: bytes, *values: bytes | None) -> bytes:
    """Bind and Execute of a prepared statement, without Sync."""
    return messages.bind(statement, values) + messages.EXECUTE
