"""The listener of the API: uvicorn, with TLS where it is asked for, and bounds on what a stranger may take of it."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from verdigris.config import ConfigurationError, TlsFiles

# A signed request has some 1 KiB of headers; proxies add theirs.
HEAD_MAX_BYTES = 32 * 1024
# From the connection, or a request's first byte, to the end of its headers.
HEAD_WITHIN_S = 20.0
# Connections at a time, idle ones too. Each may hold a body of 1 MiB before its signature can be checked.
CONNECTIONS_MAX = 128
# At a shutdown requests that are being answered get this long.
GRACE_S = 5
BACKLOG = 512


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises ``ConfigurationError`` naming the file that is wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if files.key.stat().st_mode & 0o007:
            raise ConfigurationError(f"VERDIGRIS_TLS_KEY={files.key} can be read by every user of this machine")
        # A passphrase would be asked for on the terminal, where nobody sits.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"VERDIGRIS_TLS_CERTIFICATE={files.certificate} and VERDIGRIS_TLS_KEY={files.key} cannot be used:"
            f" {error.strerror or error}"
        ) from None
    return context


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which knows no bound for the head of a request, neither in bytes nor in time."""

    _between_requests = False
    _head_bytes = 0
    _head_due: asyncio.TimerHandle | None = None  # while a head is awaited

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._between_requests:
            self._await_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_due is not None and self._head_bytes > HEAD_MAX_BYTES:
            self._refuse("431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        self._head_is_there()
        if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > HEAD_MAX_BYTES:
            raise ValueError("the head of the request is too large")  # answered with 400
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._between_requests = True
        super().on_message_complete()

    def _await_head(self) -> None:
        self._between_requests = False
        self._head_bytes = 0
        self._head_is_there()
        self._head_due = self.loop.call_later(HEAD_WITHIN_S, self._refuse, "408 Request Timeout")

    def _head_is_there(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _refuse(self, status: str) -> None:
        self._head_is_there()
        if not self.transport.is_closing():
            self.transport.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
            self.transport.close()


class ApiServer(uvicorn.Server):
    """uvicorn without signal handlers of its own: it would raise the signals again after its shutdown."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True


def api_server(app: Starlette, tls: ssl.SSLContext | None) -> ApiServer:
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=GRACE_S,
    )
    config.load()
    config.ssl = tls  # its own would take ciphers of TLS 1.0
    return ApiServer(config)
