"""What happens on a fresh connection before there is a transport: is it TLS, does it want to be?

Done on the bare socket, so that each connection gets the right transport once. Nothing beyond the request is read
before TLS starts: bytes that somebody slipped in behind an ``SSLRequest`` become part of a handshake that fails,
instead of being taken for the client's (the fault of CVE-2021-23222).
"""

import asyncio
import socket
from enum import Enum, auto

from msgspec import Struct

from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.startup import PREAMBLE_BYTES, Opening, recognise

# A client may ask for GSS, be refused, ask for TLS, and then start; nobody needs more.
_MAX_REQUESTS = 4


class Security(Enum):
    PLAIN = auto()
    TLS = auto()
    DIRECT_TLS = auto()  # without asking: the protocol then demands ALPN


class Greeting(Struct, frozen=True):
    security: Security
    first_bytes: bytes = b""  # of the start-up packet


async def greet(connection: socket.socket) -> Greeting:
    """Answer the client's questions until it starts. Raises ``RemoteProtocolError`` or ``OSError``."""
    loop = asyncio.get_running_loop()
    if recognise(await _peek(connection)) is Opening.TLS:
        return Greeting(Security.DIRECT_TLS)
    for _ in range(_MAX_REQUESTS):
        preamble = await _read_exactly(connection, PREAMBLE_BYTES)
        match recognise(preamble):
            case Opening.SSL_REQUEST:
                await loop.sock_sendall(connection, b"S")
                return Greeting(Security.TLS)
            case Opening.GSSENC_REQUEST:
                await loop.sock_sendall(connection, b"N")
            case _:
                return Greeting(Security.PLAIN, preamble)
    raise RemoteProtocolError("too many requests before a start-up packet")


async def _peek(connection: socket.socket) -> bytes:
    """The first byte, left where it is."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                first = connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            if not first:
                raise ConnectionResetError("closed before it said anything")
            return first
    finally:
        loop.remove_reader(connection)


async def _read_exactly(connection: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < size:
        data = await loop.sock_recv(connection, size - len(received))
        if not data:
            raise ConnectionResetError("closed in the middle of a start-up packet")
        received += data
    return received
