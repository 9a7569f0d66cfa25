"""Giving one session's state to a connection that was dialled for it, in one round trip.

A target that is still a standby takes only what needs no writing. The rest is *owed*: it is given after the promotion,
before any session runs.
"""

from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from verdigris.router.exchange import Frame, first_error
from verdigris.router.pins import PinReason
from verdigris.router.state import channels, cursors, prepared, settings, temporary
from verdigris.router.state.pieces import Piece, run
from verdigris.router.state.private import RUN
from verdigris.router.state.survey import SURVEY_SYNCS, Asker, SessionState, read_survey, survey_batch
from verdigris.wire.postgres import messages

if TYPE_CHECKING:
    from verdigris.router.dial import Dialled
    from verdigris.router.state.examine import Portable

log = structlog.get_logger()


class Batch(Struct, frozen=True):
    """Pieces, the question whether they took effect, and pieces that would disturb the question."""

    before: list[Piece]
    after: list[Piece]
    wanted: SessionState | None  # None: nothing is asked, because more is to follow

    @property
    def messages(self) -> bytes:
        asked = b"" if self.wanted is None else survey_batch(self.wanted.login, self.wanted.custom)
        return b"".join((*(p.messages for p in self.before), asked, *(p.messages for p in self.after)))

    @property
    def syncs(self) -> int:
        return len(self.before) + (0 if self.wanted is None else SURVEY_SYNCS) + len(self.after)

    def difference(self, segments: list[list[Frame]]) -> PinReason | None:
        """None: it has had the effect that was wanted. Raises ``StateUnreadable``."""
        first, last = len(self.before), len(segments) - len(self.after)
        for piece, answer in zip([*self.before, *self.after], segments[:first] + segments[last:], strict=True):
            if not piece.succeeded(answer):
                refusal = first_error(answer)
                error = "another answer" if refusal is None else refusal.discreet
                log.info("target.refused", reason=piece.reason, error=error)
                return piece.reason
        if self.wanted is None:
            return None
        return _difference(self.wanted, read_survey(self.wanted.login, segments[first:last]))


async def apply(asker: Asker, batch: Batch) -> PinReason | None:
    """Raises ``StateUnreadable``, ``ProtocolError`` or ``ConnectionError``."""
    return batch.difference(await asker.ask(batch.messages, batch.syncs))


async def replay(dialled: "Dialled", wanted: "Portable") -> PinReason | None:
    """None: the dialled connection now has the state, as it says itself, but for what it owes. What it has been given
    before counts. Advisory locks are not among it: see ``locks``.

    Raises ``StateUnreadable``, ``ProtocolError`` or ``ConnectionError`` when the target stops answering.
    """
    given, dialled.given = dialled.given, None
    if given is None or not _alike(given, wanted) or not await _bring_unnamed(dialled, given, wanted):
        now, later = _batches(dialled, wanted)
        dialled.replays += 1
        dialled.remembers = None
        reason = await apply(dialled, now)
        if reason is not None:
            return reason
        dialled.owed = later
        # A new connection, or one that has discarded all. The positions of temporary sequences are set.
        dialled.remembers = () if wanted.temporary is None else None
    dialled.given = wanted.without_rows()
    return None


def _alike(one: "Portable", other: "Portable") -> bool:
    """But for the unnamed statement and the advisory locks, which have their own ways."""
    return _compared(one) == _compared(other)


def _compared(portable: "Portable") -> tuple[object, ...]:
    state, rest = portable.state, portable.without_rows()
    return (
        state.settings,
        state.custom,
        state.authorization,
        state.role,
        state.prepared,
        state.channels,
        rest.temporary,
        rest.cursors,
    )


async def _bring_unnamed(dialled: "Dialled", given: "Portable", wanted: "Portable") -> bool:
    """The unnamed statement changes with nearly every request of some drivers; all else stays."""
    if given.unnamed == wanted.unnamed:
        return True
    if dialled.owed is not None:
        return False
    if wanted.unnamed is not None:
        batch = messages.message(b"P", wanted.unnamed) + messages.SYNC
    else:
        no_statement = messages.parse(RUN, b"") + messages.close_statement(RUN)
        batch = no_statement + messages.close_statement(b"") + messages.SYNC
    [answer] = await dialled.ask(batch, 1)
    return first_error(answer) is None


def _batches(dialled: "Dialled", wanted: "Portable") -> tuple[Batch, Batch | None]:
    """What is given now, and what is owed."""
    state = wanted.state
    before = [
        *_clearing(dialled),
        *settings.pieces(state.settings, state.custom, state.authorization, state.role),
        # After the role, which may not be that of their owner; before the statements, which may use them.
        *temporary.pieces(wanted.temporary),
        *cursors.pieces(wanted.cursors),
        # After the role: statements are looked up with the role's rights, as when the session last used them.
        *prepared.pieces(state.prepared),
        *channels.pieces(state.channels),
    ]
    after = [*prepared.unnamed_pieces(wanted.unnamed), *settings.last_pieces(state.settings)]
    if dialled.in_recovery:
        possible = next((n for n, piece in enumerate(before) if piece.writes), None)
        if possible is not None:
            return Batch(before[:possible], [], None), Batch(before[possible:], after, state)
    return Batch(before, after, state), None


def _clearing(dialled: "Dialled") -> list[Piece]:
    """As after the login again; the timeout first, which may be a millisecond."""
    if dialled.replays == 0:
        return []
    return [run(PinReason.SETTINGS, b"SET statement_timeout TO '0'"), run(PinReason.SETTINGS, b"DISCARD ALL")]


def _difference(wanted: SessionState, found: SessionState) -> PinReason | None:
    for name, value in wanted.settings.items():
        if name not in settings.HARMLESS and found.settings.get(name) != value:
            return PinReason.SETTINGS
    checks = (
        (wanted.custom == found.custom, PinReason.CUSTOM_SETTINGS),
        (wanted.authorization == found.authorization, PinReason.SESSION_AUTHORIZATION),
        (wanted.role == found.role, PinReason.ROLE),
        (wanted.prepared == found.prepared, PinReason.PREPARED_STATEMENTS),
        (wanted.channels == found.channels, PinReason.LISTEN),
    )
    return next((reason for equal, reason in checks if not equal), None)
