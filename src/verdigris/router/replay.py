"""Giving one session's state to a connection that was dialled for it, in one round trip.

Each piece ends with a Sync of its own, so that a refusal says which piece it was and does not take others with it.
"""

from typing import Final

from msgspec import Struct

from verdigris.router.dial import Dialled
from verdigris.router.examine import Portable
from verdigris.router.exchange import first_error
from verdigris.router.pins import PinReason
from verdigris.router.probe import PRIVATE_PREFIX
from verdigris.router.survey import SURVEY_SYNCS, SessionState, read_survey, survey_batch
from verdigris.wire.postgres import messages

_TEXT_OID = 25
_SET_NAME = PRIVATE_PREFIX + b"set"
_RUN_NAME = PRIVATE_PREFIX + b"run"

# Settings that the replay itself could trip over. They are given a harmless value first and their own at the very end:
# a timeout of a millisecond, or serializable transactions on a target that is still a standby, where nothing that takes
# a snapshot can run. SET takes none, which is why these are not replayed by set_config().
_HARMLESS: Final = {
    b"statement_timeout": b"'0'",
    b"lock_timeout": b"'0'",
    b"default_transaction_isolation": b"'read committed'",
}
_ENCODING = b"client_encoding"


class Piece(Struct, frozen=True):
    """Messages up to and including one Sync, and why the session is pinned if they are refused."""

    reason: PinReason
    messages: bytes


def _run(reason: PinReason, statement: bytes) -> Piece:
    return Piece(
        reason,
        b"".join(
            (
                messages.parse(_RUN_NAME, statement),
                messages.bind(_RUN_NAME),
                messages.EXECUTE,
                messages.close_statement(_RUN_NAME),
                messages.SYNC,
            )
        ),
    )


def _set(reason: PinReason, name: bytes, value: bytes) -> Piece:
    return Piece(reason, messages.bind(_SET_NAME, [name, value]) + messages.EXECUTE + messages.SYNC)


def pieces_before(state: SessionState) -> list[Piece]:
    """Everything that the target can be asked about afterwards."""
    pieces = [_run(PinReason.SETTINGS, b"SET " + name + b" TO " + value) for name, value in _HARMLESS.items()]
    set_statement = messages.parse(_SET_NAME, b"SELECT pg_catalog.set_config($1, $2, false)", [_TEXT_OID, _TEXT_OID])
    pieces.append(Piece(PinReason.SETTINGS, set_statement + messages.SYNC))
    # The encoding first: every name and value after it is written in it.
    names = sorted(state.settings.keys() - _HARMLESS.keys(), key=lambda name: (name != _ENCODING, name))
    pieces.extend(_set(PinReason.SETTINGS, name, state.settings[name]) for name in names)
    pieces.extend(_set(PinReason.CUSTOM_SETTINGS, name, value) for name, value in state.custom.items())
    if state.role != b"none":
        # Last of the settings, which the user may be allowed to make and the role not; before the statements, which
        # are looked up with the role's rights as they were when the session last used them.
        pieces.append(_set(PinReason.ROLE, b"role", state.role))
    for name, prepared in state.prepared.items():
        if prepared.from_sql:
            pieces.append(_run(PinReason.PREPARED_STATEMENTS, prepared.statement))
        else:
            parse = messages.parse(name, prepared.statement, prepared.parameter_types)
            pieces.append(Piece(PinReason.PREPARED_STATEMENTS, parse + messages.SYNC))
    pieces.append(Piece(PinReason.SETTINGS, messages.close_statement(_SET_NAME) + messages.SYNC))
    return pieces


def pieces_after(state: SessionState, unnamed: bytes | None) -> list[Piece]:
    pieces = []
    if unnamed is not None:
        pieces.append(Piece(PinReason.UNNAMED_STATEMENT, messages.message(b"P", unnamed) + messages.SYNC))
    for name in _HARMLESS:
        value = state.settings.get(name)
        statement = b"RESET " + name if value is None else b"SET " + name + b" TO '" + value + b"'"
        pieces.append(_run(PinReason.SETTINGS, statement))
    return pieces


async def replay(dialled: Dialled, wanted: Portable) -> PinReason | None:
    """None: the dialled connection now has the state, as it says itself. What it has been given before counts.

    Raises ``ProtocolError`` or ``ConnectionError`` when the target stops answering.
    """
    given, dialled.given = dialled.given, None
    if given is None or not _alike(given.state, wanted.state) or not await _bring_unnamed(dialled, given, wanted):
        reason = await _replay_all(dialled, wanted.state, wanted.unnamed)
        if reason is not None:
            return reason
    dialled.given = wanted
    return None


def _alike(one: SessionState, other: SessionState) -> bool:
    """But for the unnamed statement, which has its own way."""
    return (one.settings, one.custom, one.role, one.prepared) == (
        other.settings,
        other.custom,
        other.role,
        other.prepared,
    )


async def _bring_unnamed(dialled: Dialled, given: Portable, wanted: Portable) -> bool:
    """The unnamed statement changes with nearly every request of some drivers; all else stays."""
    if given.unnamed == wanted.unnamed:
        return True
    if wanted.unnamed is not None:
        batch = messages.message(b"P", wanted.unnamed) + messages.SYNC
    else:
        no_statement = messages.parse(_RUN_NAME, b"") + messages.close_statement(_RUN_NAME)
        batch = no_statement + messages.close_statement(b"") + messages.SYNC
    [answer] = await dialled.ask(batch, 1)
    return first_error(answer) is None


def _clearing(dialled: Dialled) -> list[Piece]:
    """As after the login again; the timeout first, which may be a millisecond."""
    if dialled.replays == 0:
        return []
    return [_run(PinReason.SETTINGS, b"SET statement_timeout TO '0'"), _run(PinReason.SETTINGS, b"DISCARD ALL")]


async def _replay_all(dialled: Dialled, state: SessionState, unnamed: bytes | None) -> PinReason | None:
    before, after = _clearing(dialled) + pieces_before(state), pieces_after(state, unnamed)
    batch = b"".join(
        (
            *(piece.messages for piece in before),
            survey_batch(state.custom),
            *(piece.messages for piece in after),
        )
    )
    dialled.replays += 1
    segments = await dialled.ask(batch, len(before) + SURVEY_SYNCS + len(after))
    answers = segments[: len(before)] + segments[len(before) + SURVEY_SYNCS :]
    for piece, answer in zip([*before, *after], answers, strict=True):
        if first_error(answer) is not None:
            return piece.reason
    return _difference(state, read_survey(segments[len(before) : len(before) + SURVEY_SYNCS]))


def _difference(wanted: SessionState, found: SessionState) -> PinReason | None:
    for name, value in wanted.settings.items():
        if name not in _HARMLESS and found.settings.get(name) != value:
            return PinReason.SETTINGS
    if wanted.custom != found.custom:
        return PinReason.CUSTOM_SETTINGS
    if wanted.role != found.role:
        return PinReason.ROLE
    return None if wanted.prepared == found.prepared else PinReason.PREPARED_STATEMENTS
