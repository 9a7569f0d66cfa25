"""The pieces that a replay is made of."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from verdigris.router.exchange import Frame, first_error
from verdigris.router.pins import PinReason
from verdigris.router.state.private import RUN
from verdigris.wire.postgres import messages

# What a survey found: kind -> name, value and extra of each row.
Rows = Mapping[bytes, list[tuple[bytes, bytes | None, bytes | None]]]


class Piece(Struct, frozen=True):
    """Messages up to and including one Sync, and why the session is pinned if they are refused: so a refusal says which
    piece it was and does not take others with it."""

    reason: PinReason
    messages: bytes
    # Cannot be done on a standby. It and all that follows wait until the target has been promoted.
    writes: bool = False
    # Whether the answer, which is no refusal, is the one that was wanted.
    accepts: Callable[[list[Frame]], bool] | None = None

    def succeeded(self, answer: list[Frame]) -> bool:
        return first_error(answer) is None and (self.accepts is None or self.accepts(answer))


def run(reason: PinReason, statement: bytes, *, writes: bool = False) -> Piece:
    """One statement, by the extended protocol: the client's unnamed statement and portal stay as they are."""
    return Piece(reason, statement_batch(statement) + messages.SYNC, writes)


def statement_batch(statement: bytes) -> bytes:
    """Without a Sync."""
    return b"".join(
        (messages.parse(RUN, statement), messages.bind(RUN), messages.EXECUTE, messages.close_statement(RUN))
    )


def quoted_identifier(name: bytes) -> bytes:
    return b'"' + name.replace(b'"', b'""') + b'"'
