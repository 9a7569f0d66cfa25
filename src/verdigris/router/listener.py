"""Accepts clients on one endpoint's port."""

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING

import structlog

from verdigris.router.acceptor import Acceptor
from verdigris.router.greeting import Greeting, Security, greet
from verdigris.router.ports import bind_listener
from verdigris.router.session import STARTUP_TIMEOUT_S, Session
from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.startup import ALPN

if TYPE_CHECKING:
    from verdigris.router.endpoint import Endpoint

log = structlog.get_logger()

# Signs of life asked of a client that has been silent: RDS's own intervals. Without an answer to any it is gone.
# There is no TCP_USER_TIMEOUT beside them: Linux ends with it a connection whose client is alive and does not read (a
# pager, a breakpoint), which is no more than a slow one. What is on its way to a client that has vanished is given up
# by the kernel after tcp_retries2, about a quarter of an hour.
_KEEPALIVE_INTERVAL_S = 30
_KEEPALIVE_PROBES = 2


class Listener:
    """Listens from when it is made, accepts from ``open`` to ``close``."""

    def __init__(self, listener: socket.socket) -> None:
        self._socket = listener
        self._acceptor: Acceptor | None = None

    @classmethod
    def bind(cls, host: str, port: int) -> "Listener":
        """Raises ``PortInUse``."""
        return cls(bind_listener(host, port))

    @property
    def greeting(self) -> int:
        """Clients that have been accepted and have not said what they want."""
        return len(self._acceptor.serving) if self._acceptor is not None else 0

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def open(self, endpoint: "Endpoint", tls: ssl.SSLContext) -> None:
        self._acceptor = Acceptor(self._socket, lambda client: _begin(endpoint, tls, client), endpoint.name)
        self._acceptor.start()

    def pause(self) -> None:
        """Leave newcomers to whoever else has the socket."""
        if self._acceptor is not None:
            self._acceptor.stop()

    def resume(self) -> None:
        if self._acceptor is not None and not self.closed:
            self._acceptor.start()

    def close(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
        self._socket.close()


async def _begin(endpoint: "Endpoint", tls: ssl.SSLContext, connection: socket.socket) -> None:
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, endpoint.limits.keepalive_s)
        connection.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, min(_KEEPALIVE_INTERVAL_S, endpoint.limits.keepalive_s)
        )
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
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
