"""The router's own questions to a session's backend, between two of its client's requests."""

import asyncio
from typing import TYPE_CHECKING

from verdigris.router.exchange import Exchange, Frame, frame
from verdigris.router.lending import offer, take_back

if TYPE_CHECKING:
    from verdigris.router.session import Session


class Asking:
    """One session's. It is asked one thing at a time."""

    __slots__ = ("_exchange", "_session")

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._exchange: Exchange | None = None

    @property
    def under_way(self) -> bool:
        return self._exchange is not None

    @property
    def possible(self) -> bool:
        """The session is at a safe point, and nothing is under way."""
        session, server = self._session, self._session.server
        return (
            server is not None
            and not server.ended
            and not server.transport.is_closing()
            and session.open
            and self._exchange is None
            and session.tracker.safe
        )

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]:
        """Put a batch that begins with a Parse to the session's own backend; the session must be at a safe point.

        It need not be stopped: what its client sends meanwhile queues up behind the batch, as do the answers to it.
        What is not an answer to the batch goes on to the client. Raises ``ConnectionError`` if the session is busy, or
        ends meanwhile.
        """
        return await self._begin(batch, syncs).answers()

    async def begin_when_safe(
        self, batch: bytes, syncs: int, *, timeout_s: float, within_batch: bool
    ) -> tuple[Exchange, int]:
        """As ``ask`` at the next safe point, which may last for microseconds: the batch leaves in the very moment the
        server's last answer has come. Returns what was begun, and ``passed_on`` as it was then.

        Unless ``within_batch``, a batch that the client has not ended is left alone: the question would end it, and
        with it an implicit transaction with its locks. Raises ``TimeoutError`` if there is no such point, or if a park
        comes first.
        """
        session = self._session
        begun: asyncio.Future[tuple[Exchange, int]] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            if not begun.done() and self.possible and (within_batch or not session.tracker.batch_open):
                begun.set_result((self._begin(batch, syncs), session.passed_on))

        take_back(session)
        begin()
        server = session.server
        if not begun.done() and server is not None and session.flowing and server.after is None:
            server.after = begin
        try:
            async with asyncio.timeout(timeout_s):
                return await begun
        finally:
            if server is not None and server.after is begin:
                server.after = None
            offer(session)

    def _begin(self, batch: bytes, syncs: int) -> Exchange:
        session = self._session
        take_back(session)
        server = session.server
        if server is None or not self.possible:
            offer(session)
            raise ConnectionError("the session is not at a safe point")
        exchange = self._exchange = Exchange(syncs, self._foreign)
        session.tracker.batch_ended()
        server.write = None
        server.transport.resume_reading()  # even if the client is slow: this is for us
        server.transport.write(batch)
        return exchange

    def _foreign(self, code: int, body: bytes) -> None:
        data = frame(code, body)
        self._session.tracker.server_data(data)
        self._session.client.transport.write(data)

    def read(self, data: bytes) -> bytes | None:
        """Bytes from the server. None: more are to come; else what is the client's again from here on.

        Raises ``ProtocolError``.
        """
        exchange = self._exchange
        if exchange is None:
            return None
        exchange.feed(data)
        if not exchange.complete:
            return None
        self._exchange = None
        return exchange.rest()

    def end(self) -> None:
        """The session ends: there will be no answers."""
        if self._exchange is not None:
            self._exchange.fail(ConnectionError("the session has ended"))
