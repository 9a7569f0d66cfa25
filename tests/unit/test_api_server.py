"""The API's listener: TLS, and what a stranger may take of it before anybody knows who it is."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from verdigris import api_server
from verdigris.api_server import HEAD_MAX_BYTES, tls_context
from verdigris.app import _require_protection
from verdigris.config import ConfigurationError, Settings, TlsFiles, load_settings

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = api_server.api_server(Starlette(routes=[Route("/", _echo, methods=["POST"])]), tls)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.stop()
        thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    with serving() as port:
        yield port


def received(connection: socket.socket) -> bytes:
    """All of it, until the other side closes."""
    connection.settimeout(10)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            data += chunk
    return data


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def test_ordinary_requests_one_after_the_other(port: int) -> None:
    with connect(port) as connection:
        for _ in range(3):
            connection.sendall(REQUEST[:20])
            connection.sendall(REQUEST[20:])
            answer = connection.recv(65536)
            while not answer.endswith(b"ok"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_body_is_not_taken_for_a_head(port: int) -> None:
    body = b"x" * (HEAD_MAX_BYTES * 20)
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        assert received(connection).endswith(body)


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * HEAD_MAX_BYTES + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"X-A: b\r\n" * 5_000 + b"\r\n",
        b"POST /" + b"a" * HEAD_MAX_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["a long header", "many headers", "a long path"],
)
def test_a_head_that_is_too_large_is_refused(port: int, head: bytes) -> None:
    with connect(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        assert received(connection)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")


def test_a_header_without_end_is_cut_off(port: int) -> None:
    with connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nX-Long: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 * HEAD_MAX_BYTES:
                sent += connection.send(b"a" * 1024)
        assert sent < 100 * HEAD_MAX_BYTES


@pytest.mark.parametrize("sent", [b"", b"POST / HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(api_server, "HEAD_WITHIN_S", 0.2)
    with serving() as port, connect(port) as connection:
        connection.sendall(sent)
        assert received(connection).startswith(b"HTTP/1.1 408 ")


def test_the_next_head_is_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "HEAD_WITHIN_S", 0.2)
    with serving() as port, connect(port) as connection:
        connection.sendall(REQUEST)
        connection.recv(65536)
        connection.sendall(b"POST / HT")
        assert b"408" in received(connection)


def test_connections_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "CONNECTIONS_MAX", 3)
    with serving() as port, contextlib.ExitStack() as idle:
        for _ in range(3):
            idle.enter_context(connect(port))
        until = time.monotonic() + 10
        while True:  # the server has seen them when it refuses
            with connect(port) as connection:
                connection.sendall(REQUEST)
                if connection.recv(12) == b"HTTP/1.1 503":
                    return
            assert time.monotonic() < until


# ---------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> TlsFiles:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    files = TlsFiles(certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem")
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files.key.touch(mode=0o600)
    files.key.write_bytes(issued.private_key_pem.bytes())
    return files


def test_tls(files: TlsFiles, authority: trustme.CA) -> None:
    client = ssl.create_default_context()
    authority.configure_trust(client)
    with serving(tls_context(files)) as port:
        with client.wrap_socket(connect(port), server_hostname="127.0.0.1") as connection:
            connection.sendall(REQUEST)
            assert connection.recv(12) == b"HTTP/1.1 200"
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
        with connect(port) as plain:
            plain.sendall(REQUEST)
            assert b"HTTP" not in received(plain)
        stranger = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.wrap_socket(connect(port), server_hostname="127.0.0.1")


def test_files_that_cannot_be_used_are_named(files: TlsFiles, tmp_path: Path) -> None:
    files.key.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"key.pem can be read by every user"):
        tls_context(files)
    files.key.chmod(0o600)
    tls_context(files)
    other = trustme.CA().issue_cert("x").private_key_pem.bytes()
    files.key.write_bytes(other)
    with pytest.raises(ConfigurationError, match=r"certificate.pem and VERDIGRIS_TLS_KEY=.*key.pem cannot be used"):
        tls_context(files)
    files.key.unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        tls_context(files)


def test_both_files_or_neither() -> None:
    for name in ("VERDIGRIS_TLS_CERTIFICATE", "VERDIGRIS_TLS_KEY"):
        with pytest.raises(ConfigurationError, match="set both"):
            load_settings({name: "/x"})
    assert load_settings({}).tls is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "db.example.net", "127.0.0.1.example.net", ""])  # noqa: S104
def test_no_plain_http_beyond_this_machine(host: str, files: TlsFiles) -> None:
    plain = Settings(home=Path("/x"))
    with pytest.raises(ConfigurationError, match=r"VERDIGRIS_TLS_CERTIFICATE and VERDIGRIS_TLS_KEY.*--insecure-listen"):
        _require_protection(plain, host, insecure_listen=False)
    _require_protection(plain, host, insecure_listen=True)
    _require_protection(Settings(home=Path("/x"), tls=files), host, insecure_listen=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_plain_http_within_this_machine(host: str) -> None:
    _require_protection(Settings(home=Path("/x")), host, insecure_listen=False)
