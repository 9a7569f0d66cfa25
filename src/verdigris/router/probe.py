"""Removing a doubt about what a server still owes: whatever it owed comes before the answer to a new question."""

from typing import TYPE_CHECKING

from verdigris.router.state.private import PRIVATE_PREFIX
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import ProtocolError

if TYPE_CHECKING:
    from verdigris.router.session import Session

_NAME = PRIVATE_PREFIX + b"probe"
_PROBE = messages.parse(_NAME, b"") + messages.close_statement(_NAME) + messages.SYNC


async def settle(session: "Session") -> None:
    """Make sure that a session at a doubtful safe point is at a real one, and let it stop there."""
    try:
        await session.ask(_PROBE, 1)
    except (ConnectionError, ProtocolError):
        return  # the session has ended, and has said so to its client
    session.settled()
