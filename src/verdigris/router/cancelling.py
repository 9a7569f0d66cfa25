"""Cancel requests on their way to a backend."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from verdigris.domain.ports import BackendAddress
from verdigris.router.lending import bytes_from_server, offer, take_back
from verdigris.router.states import State
from verdigris.wire.postgres.messages import BackendKey
from verdigris.wire.postgres.startup import cancel_request

if TYPE_CHECKING:
    from verdigris.router.ends import ServerEnd
    from verdigris.router.session import Session

log = structlog.get_logger()

TIMEOUT_S: Final = 10.0
# A server ignores the signal if it has not read the request yet. A busy machine may take a while to get there.
TRIES_AFTER_S: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)


async def signal(backend: BackendAddress, key: BackendKey) -> None:
    """Return when the server has sent the signal, which it shows by closing the connection."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(backend.socket_path)
            try:
                writer.write(cancel_request(key))
                await reader.read()
            finally:
                writer.close()
    except OSError as error:
        log.warning("cancel.failed", backend=backend.resource_id, error=repr(error))


async def cancel_what_waited(session: "Session") -> None:
    """Its client gave the request up while the session was parked, and has just been let go with it.

    Tried again until the server says something: what it does then is beyond doubt about this request. What it says is
    not read before the signal has been sent: the client asks for nothing else until then, so that is never hit.
    """
    server, heard = session.server, bytes_from_server(session)
    for after_s in TRIES_AFTER_S:
        await asyncio.sleep(after_s)
        take_back(session)
        key = session.current_key
        if (
            key is None
            or server is None
            or session.server is not server
            or session.state not in (State.FLOWING, State.STOPPING)
            or session.tracker.safe
            or bytes_from_server(session) != heard
            or server.transport.is_closing()
        ):
            offer(session)
            return
        with _unread(session, server):
            await signal(session.backend, key)


@contextmanager
def _unread(session: "Session", server: "ServerEnd") -> Iterator[None]:
    """What the server says stays where it is, with the event loop, which is also to say with nobody's threads."""
    server.transport.pause_reading()
    if server.after is None:
        server.after = _wait
    try:
        yield
    finally:
        if server.after is _wait:
            server.after = None
        if not server.transport.is_closing() and not session.client_is_slow:
            server.transport.resume_reading()
        offer(session)


def _wait() -> None:
    """Whoever waits for a safe point is not lent."""
