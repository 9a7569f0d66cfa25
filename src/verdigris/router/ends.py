"""The two ends of a session, as asyncio sees them. This is the hot path where a session is not lent (see ``lending``).

While a session flows, a chunk costs one walk over its message headers and one ``write``. An end whose ``write`` is None
gives what arrives to its owner instead, which holds it or reads it.

``Protocol.data_received`` and not ``BufferedProtocol``: uvloop queues a write until the loop's next turn, so a buffer
that is read into again would have to be copied first, which is what was to be saved.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from verdigris.wire.postgres.errors import ProtocolError

if TYPE_CHECKING:
    from verdigris.router.session import Session

Write = Callable[[bytes], None]


class ClientEnd(asyncio.Protocol):
    """The connection from the client."""

    __slots__ = ("bytes_total", "feed", "first_bytes", "session", "transport", "write")

    transport: asyncio.Transport

    def __init__(self, session: "Session", first_bytes: bytes = b"") -> None:
        self.session = session
        self.first_bytes = first_bytes  # read already, before there was a transport
        self.feed = session.tracker.client_data
        self.write: Write | None = None
        self.bytes_total = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports do everything that asyncio's do but do not inherit from them.
        self.transport = cast("asyncio.Transport", transport)
        self.session.client_connected()
        if self.first_bytes:
            self.data_received(self.first_bytes)
            self.first_bytes = b""

    def data_received(self, data: bytes) -> None:
        self.bytes_total += len(data)
        write = self.write
        if write is None:
            self.session.hold(data)
            return
        try:
            self.feed(data)
        except ProtocolError as error:
            self.session.fail_protocol(error)
        else:
            write(data)

    def eof_received(self) -> bool:
        return self.session.client_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.session.client_lost(exc)

    def pause_writing(self) -> None:
        self.session.client_congested(True)

    def resume_writing(self) -> None:
        self.session.client_congested(False)


class ServerOwner(Protocol):
    """Who answers for a connection to a backend: a session, or one that has been dialled for it."""

    def read(self, data: bytes) -> None: ...
    def fail_protocol(self, error: ProtocolError) -> None: ...
    def server_lost(self, exc: Exception | None) -> None: ...
    def server_congested(self, congested: bool) -> None: ...


class ServerEnd(asyncio.Protocol):
    """The connection to one backend. ``owner`` is None once nobody cares for it any more."""

    __slots__ = ("after", "bytes_total", "ended", "error", "feed", "owner", "transport", "write")

    transport: asyncio.Transport

    def __init__(self, owner: ServerOwner) -> None:
        self.owner: ServerOwner | None = owner
        self.write: Write | None = None
        self.feed: Callable[[bytes], None] = _nobody
        self.after: Callable[[], None] | None = None  # called after each chunk while the session seeks a safe point
        self.bytes_total = 0
        self.ended = False  # the server has been told that nothing more will come
        self.error: Exception | None = None  # why it cannot be written to any more, if that is known already

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.bytes_total += len(data)
        write = self.write
        if write is None:
            if self.owner is not None:
                self.owner.read(data)
            return
        try:
            self.feed(data)
        except ProtocolError as error:
            if self.owner is not None:
                self.owner.fail_protocol(error)
            return
        write(data)
        if self.after is not None:
            self.after()

    def eof_received(self) -> bool:
        return False  # the transport closes itself, connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        if self.owner is not None:
            self.owner.server_lost(exc or self.error)

    def pause_writing(self) -> None:
        if self.owner is not None:
            self.owner.server_congested(True)

    def resume_writing(self) -> None:
        if self.owner is not None:
            self.owner.server_congested(False)

    def end_input(self) -> None:
        if not self.ended and not self.transport.is_closing():
            self.ended = True
            self.transport.write_eof()

    def mute(self) -> None:
        """Nothing of it is heard any more, whatever the server still says."""
        self.owner = None
        self.write = _nobody
        self.feed = _nobody
        self.after = None

    def drop(self, farewell: bytes = b"") -> None:
        """Close the connection after saying ``farewell``."""
        self.mute()
        if not self.transport.is_closing():
            if farewell and not self.ended:
                self.transport.write(farewell)
            self.transport.close()


def _nobody(_data: bytes) -> None:
    """Takes what still arrives on a dropped connection."""
