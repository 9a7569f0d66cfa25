"""Accepts clients on one endpoint's port."""

import asyncio
import contextlib
import errno
import socket
import ssl
from typing import TYPE_CHECKING

import structlog

from verdigris.router.greeting import Greeting, Security, greet
from verdigris.router.ports import bind_listener
from verdigris.router.session import STARTUP_TIMEOUT_S, Session
from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.startup import ALPN

if TYPE_CHECKING:
    from verdigris.router.endpoint import Endpoint

log = structlog.get_logger()

# How long to leave new clients in the backlog when the system has no descriptors left.
_EXHAUSTED_PAUSE_S = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Listens from when it is made, accepts from ``open`` to ``close``."""

    def __init__(self, host: str, port: int) -> None:
        """Raises ``PortInUse``."""
        self._socket = bind_listener(host, port)
        self._accepting: asyncio.Task[None] | None = None
        self._greeting: set[asyncio.Task[None]] = set()

    def open(self, endpoint: "Endpoint", tls: ssl.SSLContext) -> None:
        self._accepting = asyncio.get_running_loop().create_task(self._accept(endpoint, tls))

    def close(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        for task in self._greeting:
            task.cancel()
        self._socket.close()

    async def _accept(self, endpoint: "Endpoint", tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    log.warning("listener.exhausted", endpoint=endpoint.name, error=str(error))
                    await asyncio.sleep(_EXHAUSTED_PAUSE_S)
                continue  # else it was that client's fault, and it is gone
            task = loop.create_task(self._begin(endpoint, tls, connection))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    async def _begin(self, endpoint: "Endpoint", tls: ssl.SSLContext, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            async with asyncio.timeout(STARTUP_TIMEOUT_S):
                await _start(endpoint, tls, connection, await greet(connection))
        except (OSError, RemoteProtocolError) as error:  # ssl.SSLError and TimeoutError are OSErrors
            log.info("client.turned_away", endpoint=endpoint.name, error=repr(error))
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise


async def _start(endpoint: "Endpoint", tls: ssl.SSLContext, connection: socket.socket, greeting: Greeting) -> None:
    """Give the connection its transport; from there on the session runs by itself."""
    encrypted = greeting.security is not Security.PLAIN
    session = Session(endpoint, encrypted=encrypted, first_bytes=greeting.first_bytes)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_accepted_socket(
        lambda: session.client, connection, ssl=tls if encrypted else None
    )
    if greeting.security is Security.DIRECT_TLS:
        handshake = transport.get_extra_info("ssl_object")
        if handshake is None or handshake.selected_alpn_protocol() != ALPN:
            with contextlib.suppress(OSError):
                session.fail("08P01", "direct TLS connection without the ALPN protocol of PostgreSQL")
