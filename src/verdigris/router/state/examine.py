"""What would have to be carried of a session, or why it cannot be, whatever the target says."""

from typing import TYPE_CHECKING

import structlog
from msgspec import Struct
from msgspec.structs import replace

from verdigris.router.pins import PinReason
from verdigris.router.state.cursors import HeldCursor, read_cursors
from verdigris.router.state.survey import Asker, SessionState, StateUnreadable, survey
from verdigris.router.state.temporary import TemporaryObjects, read_temporary
from verdigris.wire.postgres.errors import ProtocolError

if TYPE_CHECKING:
    from verdigris.router.session import Session

log = structlog.get_logger()


class Portable(Struct, frozen=True):
    """All that a session needs elsewhere."""

    state: SessionState
    unnamed: bytes | None  # body of the Parse message
    temporary: TemporaryObjects | None = None
    cursors: tuple[HeldCursor, ...] = ()

    def without_rows(self) -> "Portable":
        """To be remembered: what was in temporary tables is known by its digest."""
        return self if self.temporary is None else replace(self, temporary=self.temporary.without_rows())


class NotAsked(Exception):
    """The session did not come to a safe point in time."""


async def examine(session: "Session", asker: Asker | None = None, *, contents: bool = True) -> Portable | PinReason:
    """Ask the session's own backend. The session must be at a safe point, but need not be parked; or ``asker`` finds
    the moment for it and raises ``NotAsked`` if there is none.

    Without ``contents`` what is in temporary tables and sequences is not read: the answer tells of pins, but cannot be
    replayed.
    """
    tracker = session.tracker
    if tracker.custom_settings.unknown:
        return PinReason.CUSTOM_SETTINGS
    try:
        help_ = session.endpoint.sequence_help if contents else None
        of_sequences = help_.question(session, beforehand=asker is not None) if help_ is not None else None
        login = b"" if session.startup is None else session.startup.user
        state = await survey(asker or session, login, tracker.custom_settings.names, of_sequences)
    except (StateUnreadable, ProtocolError, ConnectionError) as error:
        log.warning("session.state_unreadable", endpoint=session.endpoint.name, error=str(error))
        return PinReason.STATE_UNREADABLE
    if not all(prepared.portable for prepared in state.prepared.values()):
        return PinReason.PREPARED_STATEMENTS
    unnamed = None
    if state.has_unnamed:
        if not isinstance(tracker.unnamed, bytes):
            return PinReason.UNNAMED_STATEMENT
        unnamed = tracker.unnamed
    portable = Portable(state, unnamed)
    try:
        if state.has_temporary:
            temporary = await read_temporary(asker or session, contents=contents)
            if isinstance(temporary, PinReason):
                return temporary
            portable = replace(portable, temporary=temporary)
        if state.has_cursors:
            cursors = await read_cursors(asker or session)
            if isinstance(cursors, PinReason):
                return cursors
            portable = replace(portable, cursors=cursors)
    except ConnectionError as error:
        log.warning("session.state_unreadable", endpoint=session.endpoint.name, error=str(error))
        return PinReason.STATE_UNREADABLE
    return portable
