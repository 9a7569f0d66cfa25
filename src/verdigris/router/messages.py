"""What passes over the control socket: a length (4 bytes, big-endian) and a message in MessagePack.

One connection carries one command: the client says ``Hello`` and the command, the router answers once. Closing the
connection before the answer cancels a command that may wait, which makes every call safe to cancel.
"""

import asyncio
from struct import Struct as Packing
from typing import Self

import msgspec
from msgspec import Struct

from verdigris.domain.ports import BackendAddress, Helpers, Parked, ParkRefused, Route, TokenKeys

_LENGTH = Packing("!I")
# Verifiers of some ten thousand roles, or as many process ids.
MAX_BYTES = 8 * 1024 * 1024


class Hello(Struct, frozen=True, tag=True):
    epoch: int


class ListRoutes(Struct, frozen=True, tag=True):
    pass


class PutRoute(Struct, frozen=True, tag=True):
    route: Route


class SetTokenKeys(Struct, frozen=True, tag=True):
    """A router that verifies no tokens does not know it: where it was taken, they are verified."""

    keys: TokenKeys


class RemoveRoute(Struct, frozen=True, tag=True):
    name: str


class RenameRoute(Struct, frozen=True, tag=True):
    name: str
    new_name: str


class Disconnect(Struct, frozen=True, tag=True):
    name: str


class GetSessions(Struct, frozen=True, tag=True):
    name: str


class GetPins(Struct, frozen=True, tag=True):
    name: str
    verifiers: dict[str, str]
    budget_s: float


class Ready(Struct, frozen=True, tag=True):
    name: str
    target: BackendAddress
    verifiers: dict[str, str]
    helpers: Helpers | None = None


class Park(Struct, frozen=True, tag=True):
    """``asked_at_s``: when ``lease_s`` was measured, by the event loop's clock, which is the machine's monotonic one on
    both sides. Whoever asks may have stood still since then."""

    name: str
    budget_s: float
    lease_s: float
    leave_stragglers: bool = False
    asked_at_s: float | None = None


class Hold(Struct, frozen=True, tag=True):
    name: str


class Admit(Struct, frozen=True, tag=True):
    name: str


class Answered(Struct, frozen=True, tag=True):
    name: str


class Renew(Struct, frozen=True, tag=True):
    """``asked_at_s``: as for ``Park``."""

    generation: int
    lease_s: float
    asked_at_s: float | None = None


class HandOver(Struct, frozen=True, tag=True):
    generation: int


class Commit(Struct, frozen=True, tag=True):
    generation: int
    routes: tuple[Route, ...]
    hold: bool
    leave_nobody: bool = False
    along: tuple[int, ...] = ()


class Release(Struct, frozen=True, tag=True):
    generation: int
    admit: bool = True


class Abort(Struct, frozen=True, tag=True):
    generation: int
    admit: bool = True


class Unready(Struct, frozen=True, tag=True):
    name: str


class GetStatistics(Struct, frozen=True, tag=True):
    pass


Command = (
    Hello
    | ListRoutes
    | PutRoute
    | SetTokenKeys
    | RemoveRoute
    | RenameRoute
    | Disconnect
    | GetSessions
    | GetPins
    | Ready
    | Park
    | Hold
    | Admit
    | Answered
    | Renew
    | HandOver
    | Commit
    | Release
    | Abort
    | Unready
    | GetStatistics
)


class ParkOutcome(Struct, frozen=True, kw_only=True):
    """Exactly one of the two."""

    parked: Parked | None = None
    refused: ParkRefused | None = None

    @classmethod
    def of(cls, outcome: Parked | ParkRefused) -> Self:
        return cls(parked=outcome) if isinstance(outcome, Parked) else cls(refused=outcome)


class EndpointStatistics(Struct, frozen=True, kw_only=True):
    """Counters (``_total``, ``longest_park_s``) run on through restarts in which nobody is cut off.

    ``pinned_last``: reason -> sessions that the latest handover could not carry. ``turned_away_total``: newcomers
    beyond ``Limits.max_connections``; ``waited_too_long_total``: clients beyond ``Limits.max_wait_s``.
    ``with_predecessor``: clients that a replaced router still has; they are counted nowhere else. ``lent``: sessions
    that threads carry at this moment.
    """

    name: str
    sessions: int
    parked: int
    waiting: int
    connections_total: int
    client_bytes_total: int
    server_bytes_total: int
    handed_over_total: int
    longest_park_s: float
    pinned_last: dict[str, int] = {}
    sequences_forgotten_total: int = 0
    turned_away_total: int = 0
    waited_too_long_total: int = 0
    with_predecessor: int = 0
    lent: int = 0


class Statistics(Struct, frozen=True, kw_only=True):
    """A snapshot, taken in one go. ``version`` is that of the code that the router runs."""

    pid: int
    version: str = ""
    uptime_s: float
    endpoints: tuple[EndpointStatistics, ...]


class Answer(Struct, frozen=True, tag=True):
    """``value`` is of the type that the command promises."""

    value: msgspec.Raw


class Failed(Struct, frozen=True, tag=True):
    """``error`` is the name of one of the errors that ``client.ERRORS`` lists."""

    error: str
    text: str


Reply = Answer | Failed

COMMANDS: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(value: Struct) -> bytes:
    body = msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> bytes:
    """One message's bytes. Raises ``asyncio.IncompleteReadError`` at the end, ``ValueError`` for one too long."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_BYTES:
        raise ValueError(f"control message of {length} bytes")
    return await reader.readexactly(length)
