"""LISTEN: a session goes on hearing every notification once, in order.

What was sent on the source comes from the source: once nobody can write there any more, each listening session is
asked something, and a server delivers what is pending before it says that it is ready (``PostgresMain`` calls
``ProcessNotifyInterrupt`` before ``ReadyForQuery``; the sender signals its listeners before its own transaction is
answered, see ``AtCommit_Notify``). What the target's connection hears before the session runs on it is dropped:
triggers that fire as changes are applied there may repeat what the source has said.
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import structlog

from verdigris.domain.errors import ParkBroken
from verdigris.router.pins import PinReason
from verdigris.router.state.pieces import Piece, Rows, quoted_identifier, run
from verdigris.router.state.private import RUN
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import ProtocolError

if TYPE_CHECKING:
    from verdigris.router.session import Session

log = structlog.get_logger()

# A healthy server answers within a millisecond.
DELIVERY_TIMEOUT_S = 2.0

QUESTION: Final = b"""
SELECT 'channel', c.name, NULL, NULL FROM pg_catalog.pg_listening_channels() c (name)
"""

_ANYTHING = messages.parse(RUN, b"") + messages.close_statement(RUN) + messages.SYNC


def read(found: Rows) -> frozenset[bytes]:
    return frozenset(name for name, _, _ in found.get(b"channel", []))


def pieces(channels: frozenset[bytes]) -> list[Piece]:
    # Not in the course of recovery, the manual says, because the queue is written to.
    return [run(PinReason.LISTEN, b"LISTEN " + quoted_identifier(name), writes=True) for name in sorted(channels)]


async def deliver_pending(sessions: Iterable["Session"]) -> None:
    """Return when every listening one of ``sessions``, which are parked, has heard all that was sent on its old
    backend, and nothing that was sent on the new one. Raises ``ParkBroken`` when a server does not answer."""
    listening = [
        session
        for session in sessions
        if session.dialled is not None
        and session.dialled.carries
        and session.dialled.given is not None
        and session.dialled.given.state.channels
    ]
    try:
        async with asyncio.timeout(DELIVERY_TIMEOUT_S), asyncio.TaskGroup() as group:
            for session in listening:
                group.create_task(_deliver(session))
    except TimeoutError:
        raise ParkBroken("notifications could not be delivered before the switchover") from None


async def _deliver(session: "Session") -> None:
    try:
        await session.ask(_ANYTHING, 1)
        if session.dialled is not None:
            await session.dialled.ask(_ANYTHING, 1)
    except (ConnectionError, ProtocolError) as error:
        # The session has ended, or its dialled connection has and no longer carries it.
        log.info("session.not_drained", endpoint=session.endpoint.name, error=str(error))
