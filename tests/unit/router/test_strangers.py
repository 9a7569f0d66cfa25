"""Who connects to an endpoint and does not log in: not waited for, and not believed about how much it will say."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator

import pytest

from tests.ports import host_ports
from verdigris.domain.ports import BackendAddress, Route
from verdigris.router import listener as listening
from verdigris.router import session
from verdigris.router.endpoint import Endpoint
from verdigris.router.limits import Limits
from verdigris.router.listener import Listener
from verdigris.router.tokens import Verifier

TIMEOUT_S = 0.2
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    for module in (listening, session):
        monkeypatch.setattr(module, "STARTUP_TIMEOUT_S", TIMEOUT_S)
    port = host_ports().allocate(())
    route = Route(name="app", host="127.0.0.1", port=port, backend=BackendAddress("db-X", "/nowhere/.s.PGSQL.5432"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listener = Listener.bind("127.0.0.1", port)
    Endpoint(route, listener, tls, Limits(), None, Verifier())
    yield port
    listener.close()


async def answer_to(port: int, *said: bytes, limit_s: float = 10.0) -> bytes:
    """All that is answered until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for data in said:
            writer.write(data)
            await writer.drain()
        async with asyncio.timeout(limit_s):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "said",
    [
        (),
        (b"\0",),
        (struct.pack("!i", 100),),
        (struct.pack("!ii", 100, 196608), b"user\0alice\0"),
        (SSL_REQUEST,),
        (SSL_REQUEST, b"\x16\x03\x01"),
    ],
    ids=["nothing", "a byte", "a length", "half a packet", "a wish for TLS", "half a handshake"],
)
async def test_who_does_not_go_on_is_not_waited_for(port: int, said: tuple[bytes, ...]) -> None:
    began_at = asyncio.get_running_loop().time()
    assert await answer_to(port, *said) in (b"", b"S")
    assert asyncio.get_running_loop().time() - began_at >= TIMEOUT_S * 0.9


@pytest.mark.parametrize("length", [10_001, 2**31 - 1, 7, 0, -1])
async def test_a_length_that_cannot_be_is_refused_at_once(port: int, length: int) -> None:
    answer = await answer_to(port, struct.pack("!ii", length, 196608))
    assert not answer or b"08P01" in answer


async def test_the_internal_superuser_is_refused(port: int) -> None:
    body = b"user\0rdsadmin\0database\0postgres\0\0"
    answer = await answer_to(port, struct.pack("!ii", len(body) + 8, 196608) + body)
    assert b"28000" in answer
