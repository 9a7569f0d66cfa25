"""A tracker at a safe point as plain data, for another process to go on with.

At a safe point nothing is owed and nothing under way, so what is left is what was said once and for all. The new
tracker is not set up from the inside: it is shown the end of a login, round trips that parsed what it has to know of
statements, and a message without a Sync if a batch is open, as if it had followed the session from the beginning.
"""

from msgspec import Struct

from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import LocalProtocolError
from verdigris.wire.postgres.login import Method
from verdigris.wire.postgres.messages import BackendKey
from verdigris.wire.postgres.scram import Transcript
from verdigris.wire.postgres.session import MAX_STATEMENT_BYTES, Unnamed
from verdigris.wire.postgres.tracker import SessionTracker

_READY_FOR_QUERY = messages.message(b"Z", b"I")
_PARSE_COMPLETE = messages.message(b"1")
_CLOSE_COMPLETE = messages.message(b"3")
# The body of a Parse that is not kept, in place of the one that was not kept.
_TOO_LONG = bytes(MAX_STATEMENT_BYTES + 1)


class IdleTracker(Struct, frozen=True, kw_only=True):
    """``method`` is the name of a ``Method``; ``transcript`` is no secret without the role's verifier."""

    key: BackendKey | None
    parameters: dict[bytes, bytes]
    method: str
    transcript: Transcript | None
    protocol_minor: int | None
    custom_settings: frozenset[bytes]
    custom_settings_unknown: bool
    bound_names: dict[bytes, tuple[int, ...]] = {}  # ``CustomSettings.bound``
    asks_for_sequence_values: bool = False
    batch_open: bool = False
    unnamed: bytes | None
    unnamed_too_long: bool


def pack_tracker(tracker: SessionTracker) -> IdleTracker:
    """Raises ``LocalProtocolError`` if the session is not at a safe point."""
    if not tracker.safe or tracker.in_doubt:
        raise LocalProtocolError("only a session at a safe point can be packed")
    login, custom = tracker.login, tracker.custom_settings
    return IdleTracker(
        key=tracker.key,
        parameters=dict(tracker.parameters),
        method=login.method.name,
        transcript=login.transcript,
        protocol_minor=login.protocol_minor,
        custom_settings=frozenset(custom.names),
        custom_settings_unknown=custom.unknown,
        bound_names=dict(custom.bound),
        asks_for_sequence_values=tracker.sequence_values.asked,
        batch_open=tracker.batch_open,
        unnamed=tracker.unnamed if isinstance(tracker.unnamed, bytes) else None,
        unnamed_too_long=tracker.unnamed is Unnamed.TOO_LONG,
    )


def unpack_tracker(packed: IdleTracker) -> SessionTracker:
    """Raises ``LookupError`` for a method of another version that is not known here."""
    tracker = SessionTracker()
    tracker.server_data(_READY_FOR_QUERY)
    unnamed = _TOO_LONG if packed.unnamed_too_long else packed.unnamed
    if unnamed is not None:
        tracker.client_data(messages.message(b"P", unnamed) + messages.SYNC)
        tracker.server_data(_PARSE_COMPLETE + _READY_FOR_QUERY)
    for name, numbers in packed.bound_names.items():
        if name:  # the unnamed one has been shown
            statement = b"".join(b"set_config($%d, " % number for number in numbers)
            tracker.client_data(messages.parse(name, statement) + messages.SYNC)
            tracker.server_data(_PARSE_COMPLETE + _READY_FOR_QUERY)
    if packed.batch_open:
        tracker.client_data(messages.close_statement(b""))
        tracker.server_data(_CLOSE_COMPLETE)
    tracker.key = packed.key
    tracker.parameters.update(packed.parameters)
    tracker.login.method = Method[packed.method]
    tracker.login.transcript = packed.transcript
    tracker.login.protocol_minor = packed.protocol_minor
    tracker.custom_settings.names.update(packed.custom_settings)
    tracker.custom_settings.unknown = packed.custom_settings_unknown
    tracker.sequence_values.asked = packed.asks_for_sequence_values
    return tracker
