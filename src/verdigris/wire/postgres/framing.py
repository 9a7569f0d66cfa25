"""Where one message ends and the next begins, in either direction, at the least possible cost.

The relay passes bytes on as they come and only has to *notice* a few kinds of messages. So this reads headers (one byte
of type, four of length) and jumps over bodies; only the messages of a table are looked into. A row may contain bytes
that look like a ``ReadyForQuery``, a header may be cut anywhere and one read may hold many messages: none of that
matters here, because lengths alone lead from message to message.
"""

from collections.abc import Callable, Generator
from struct import Struct

from verdigris.wire.postgres.errors import RemoteProtocolError

_HEADER = Struct("!BI")
HEADER_BYTES = 5
# PQ_LARGE_MESSAGE_LIMIT of the server: no honest message is longer than palloc's one gigabyte.
MAX_MESSAGE_BYTES = 0x3FFFFFFF

# Called when a message is complete, with its body (cut at the action's limit) and the body's full size.
# True means: this message ends a request, and a caller that asked to stop there shall stop.
Handler = Callable[[bytes, int], bool]
# What to do for one type of message: whom to call, and how many bytes of the body it wants to see.
Action = tuple[Handler, int]
# Indexed by type byte; None: of no interest.
Actions = list[Action | None]


def actions(table: dict[bytes, Action]) -> Actions:
    """The table in the form that :class:`Skimmer` reads fastest."""
    found: Actions = [None] * 256
    for code, action in table.items():
        found[code[0]] = action
    return found


class Skimmer:
    """Follows one direction of a connection. Holds at most one header and the wanted part of one body."""

    __slots__ = ("_action", "_actions", "_header", "_inside", "_kept", "_remaining", "_size")

    def __init__(self, table: Actions) -> None:
        self._actions = table
        self._header = b""  # of a message whose header is not complete
        self._inside = False  # header seen, body not complete
        self._action: Action | None = None
        self._remaining = 0
        self._size = 0
        self._kept = bytearray()

    @property
    def at_boundary(self) -> bool:
        """No message is under way."""
        return not self._inside and not self._header

    def feed(self, data: bytes, stop: bool = False) -> int:
        """Walk over ``data`` and call the handlers of the messages that end in it; returns how much was consumed.

        That is all of it, unless ``stop`` is set and a handler said that a request ended: then everything up to and
        including that message. Raises ``RemoteProtocolError`` for a length that cannot be.
        """
        pos = 0
        end = len(data)
        if self._inside or self._header:
            pos, ended = self._resume(data)
            if (ended and stop) or self._inside or self._header:
                return pos
        table = self._actions
        unpack = _HEADER.unpack_from
        while end - pos >= HEADER_BYTES:
            code, length = unpack(data, pos)
            if not 4 <= length <= MAX_MESSAGE_BYTES:
                raise impossible(code, length)
            after: int = pos + 1 + length
            action = table[code]
            if after > end:
                self._begin(action, length - 4)
                self._take(data, pos + HEADER_BYTES)
                return end
            if action is not None:
                handler, limit = action
                body = pos + HEADER_BYTES
                if handler(data[body : min(after, body + limit)], length - 4) and stop:
                    return after
            pos = after
        if pos < end:
            self._header = data[pos:]
        return end

    def _begin(self, action: Action | None, size: int) -> None:
        self._inside = True
        self._action = action
        self._size = self._remaining = size

    def _take(self, data: bytes, pos: int) -> int:
        """Consume what ``data`` has of the current body, keeping what its handler wants."""
        step = min(self._remaining, len(data) - pos)
        if self._action is not None:
            want = self._action[1] - len(self._kept)
            if want > 0:
                self._kept += data[pos : pos + min(step, want)]
        self._remaining -= step
        return pos + step

    def _resume(self, data: bytes) -> tuple[int, bool]:
        """Go on with a message that an earlier ``feed`` left incomplete."""
        pos = 0
        if not self._inside:
            pos = HEADER_BYTES - len(self._header)
            header = self._header + data[:pos]
            if len(header) < HEADER_BYTES:
                self._header = header
                return len(data), False
            code, length = _HEADER.unpack(header)
            if not 4 <= length <= MAX_MESSAGE_BYTES:
                raise impossible(code, length)
            self._header = b""
            self._begin(self._actions[code], length - 4)
        pos = self._take(data, pos)
        if self._remaining:
            return pos, False
        self._inside = False
        body = bytes(self._kept)
        self._kept.clear()
        return pos, self._action is not None and self._action[0](body, self._size)


class FrameReader:
    """Whole messages out of a stream that is ours alone: a login, or the answers to questions the router asked."""

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    def keep(self, data: bytes) -> None:
        """Put back what another reader has read of a message."""
        self._buffer += data

    def rest(self) -> bytes:
        """What is there of a message that is not complete."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> Generator[tuple[int, bytes], None, None]:
        """The messages that ``data`` completes, as type and body. Read to the end, or close, before feeding again.

        Raises ``RemoteProtocolError`` for a message longer than the limit given: nothing is buffered for it.
        """
        buffer = self._buffer
        buffer += data
        pos = 0
        try:
            while len(buffer) - pos >= HEADER_BYTES:
                code, length = _HEADER.unpack_from(buffer, pos)
                if not 4 <= length <= self._max_bytes:
                    raise impossible(code, length)
                after = pos + 1 + length
                if after > len(buffer):
                    break
                body = bytes(buffer[pos + HEADER_BYTES : after])
                pos = after
                yield code, body
        finally:
            del buffer[:pos]


def impossible(code: int, length: int) -> RemoteProtocolError:
    """The error for a length that no message can have."""
    return RemoteProtocolError(f"message of type 0x{code:02x} with impossible length {length}")
