"""Sessions that flow are lent to the threads of ``_relay``, which carry them at a fraction of the event loop's cost.

A session belongs to the event loop whenever there is something to decide about it: as it logs in, once it is to stop,
while it is asked something, when either end has closed. Only in between, which is nearly always, it is lent. Its
transports stay what owns the sockets, paused; ``take_back`` comes before anything is done with them.

Where nothing is compiled there is no lender, and every session stays with the event loop. So do those with TLS.
"""

import asyncio
import os
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from verdigris.domain.errors import VerdigrisError
from verdigris.router.processors import COUNT
from verdigris.wire.postgres.errors import ProtocolError
from verdigris.wire.postgres.tracker import COMPILED

if TYPE_CHECKING:
    from verdigris.router._relay import Engine
    from verdigris.router.ends import ServerEnd
    from verdigris.router.session import Session

log = structlog.get_logger()

# What a thread reads at once, and so the most that is kept of a session in either direction.
BUFFER_BYTES: Final = 64 * 1024
# How many threads; 0: none, all is left to the event loop. By default one for each processor.
THREADS_VARIABLE: Final = "VERDIGRIS_ROUTER_THREADS"
MAX_THREADS: Final = 256
# A session that cannot be lent yet still has something to be sent to its client or server.
_RETRY_S: Final = 0.01


class Outcome(IntEnum):
    """Why the threads gave a session back; the names are ``_relay``'s."""

    RECALLED = 0
    ENDED = 1
    VIOLATED = 2
    CLIENT_LOST = 3
    SERVER_LOST = 4
    SERVER_DEAF = 5
    STRANDED = 6


class Lender:
    """Lends the sessions that are offered to it as soon as they can be lent."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._offered: set[Session] = set()
        self._attempt: asyncio.Handle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(engine.fileno(), self._collect)

    def offer(self, session: "Session") -> None:
        self._offered.add(session)
        if self._attempt is None:
            # Soon: what is being written to the session at this moment goes first.
            self._attempt = self._loop.call_soon(self._lend)

    def _lend(self) -> None:
        self._attempt = None
        self._offered = {session for session in self._offered if not lend(session, self._engine)}
        if self._offered:
            self._attempt = self._loop.call_later(_RETRY_S, self._lend)

    def _collect(self) -> None:
        for loan in self._engine.collect():
            take_back(loan.owner)

    def close(self) -> None:
        """Every session has ended."""
        if self._attempt is not None:
            self._attempt.cancel()
        self._loop.remove_reader(self._engine.fileno())
        self._engine.close()


def lender() -> Lender | None:
    """None where sessions stay with the event loop. Raises ``VerdigrisError`` if the setting is wrong."""
    threads = _threads(os.environ.get(THREADS_VARIABLE))
    if not COMPILED or not threads:
        return None
    from verdigris.router._relay import Engine  # exists only where it could be compiled

    return Lender(Engine(threads, BUFFER_BYTES))


def _threads(setting: str | None) -> int:
    if not setting:
        return COUNT
    if not (setting.isascii() and setting.isdigit() and int(setting) <= MAX_THREADS):
        raise VerdigrisError(f"{THREADS_VARIABLE}={setting!r} is not a number from 0 to {MAX_THREADS}")
    return int(setting)


def offer(session: "Session") -> None:
    """Let the threads carry a session that flows, where there are any, once it is logged in."""
    lender, server = session.endpoint.lender, session.server
    if lender is None or server is None or session.encrypted or not session.flowing:
        return
    if session.tracker.logged_in:
        lender.offer(session)
    else:
        server.after = partial(_offer_later, session, server)


def _offer_later(session: "Session", server: "ServerEnd") -> None:
    """After each chunk of the server's."""
    if session.tracker.logged_in:
        server.after = None
        offer(session)


def _lendable(session: "Session", server: "ServerEnd") -> bool:
    """It flows, both ends are there, and nobody waits for a safe point of it."""
    return (
        session.flowing
        and session.loan is None
        and not session.asking.under_way
        and not session.half_closed
        and server.after is None
        and not server.ended
        and not server.transport.is_closing()
        and not session.client.transport.is_closing()
    )


def lend(session: "Session", engine: "Engine") -> bool:
    """False: not yet, something is still to be sent to either end."""
    server = session.server
    if server is None or not _lendable(session, server):
        return True  # it will be offered again when it flows
    ends = (session.client.transport, server.transport)
    if any(transport.get_write_buffer_size() for transport in ends):
        return False
    for transport in ends:
        transport.pause_reading()
    client_fd, server_fd = (transport.get_extra_info("socket").fileno() for transport in ends)
    try:
        session.loan = engine.lend(client_fd, server_fd, session.tracker, session)
    except OSError as error:
        log.warning("session.not_lent", endpoint=session.endpoint.name, error=repr(error))
        for transport in ends:
            transport.resume_reading()
    return True


def take_back(session: "Session") -> None:
    """The session's ends read and write by themselves again, beginning with what the threads have not written yet."""
    loan, server = session.loan, session.server
    if loan is None or server is None:
        return
    session.loan = None
    to_client, to_server = loan.recall()
    if loan.outcome != Outcome.RECALLED:
        # It had been given back already. Soon, for whoever takes the session back is in the middle of something.
        asyncio.get_running_loop().call_soon(_conclude, session, Outcome(loan.outcome), loan.error)
    session.client.bytes_total += loan.client_bytes
    server.bytes_total += loan.server_bytes
    deaf = loan.outcome == Outcome.SERVER_DEAF
    for end in (session.client, server):
        if not (deaf and end is session.client):
            end.transport.resume_reading()
    if to_client:
        session.client.transport.write(to_client)
    if to_server and not deaf:
        server.transport.write(to_server)


def bytes_from_client(session: "Session") -> int:
    """Received so far."""
    return session.client.bytes_total + (session.loan.client_bytes if session.loan is not None else 0)


def bytes_from_server(session: "Session") -> int:
    """Received so far from the server that serves the session now."""
    own = session.server.bytes_total if session.server is not None else 0
    return own + (session.loan.server_bytes if session.loan is not None else 0)


def _conclude(session: "Session", outcome: Outcome, error: Exception | None) -> None:
    """What the event loop will not notice by itself."""
    match outcome:
        case Outcome.VIOLATED if isinstance(error, ProtocolError):
            session.fail_protocol(error)
        case Outcome.VIOLATED | Outcome.CLIENT_LOST:
            session.client_lost(error)
        case Outcome.SERVER_LOST:
            session.server_lost(error)
        case Outcome.SERVER_DEAF if session.server is not None:
            # Its last words are still to be read. It has closed its end, so its transport will come to the end soon.
            session.server.error = error
        case _:
            pass
