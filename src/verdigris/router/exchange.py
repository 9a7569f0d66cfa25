"""Asking a backend something in the middle of a session, in one round trip, between two of the client's requests."""

import asyncio
from collections.abc import Callable

from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.framing import FrameReader

# One row of a session's state; the questions are put so that none comes near it.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# All of it. A session with more is not carried: it would be memory for each of thousands at once.
MAX_ANSWER_BYTES = 32 * 1024 * 1024

_READY = ord("Z")
_PARSE_COMPLETE = ord("1")
_ERROR = ord("E")
_DATA_ROW = ord("D")
# Sent by a server whenever it likes: NoticeResponse, NotificationResponse, ParameterStatus.
_UNASKED = frozenset(b"NAS")

Frame = tuple[int, bytes]


class Exchange:
    """Collects the answers to a batch of messages that begins with a Parse and holds ``syncs`` Syncs.

    Whatever comes before the first answer, and what a server sends unasked, is not ours: it goes to ``foreign``; what
    comes after the last one is left as it is (``rest``). An answer that grows too large is followed to its end and then
    given up.
    """

    def __init__(self, syncs: int, foreign: Callable[[int, bytes], None]) -> None:
        self.complete = False
        self._segments: list[list[Frame]] = [[]]  # the answers up to each Sync
        self._syncs = syncs
        self._foreign = foreign
        self._reader = FrameReader(MAX_MESSAGE_BYTES)
        self._begun = False
        self._size = 0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def feed(self, data: bytes) -> None:
        """Raises ``RemoteProtocolError`` if the stream makes no sense any more."""
        frames = self._reader.feed(data)
        for code, body in frames:
            self._take(code, body)
            if self.complete:
                # What follows is not ours: it may be as large as it likes, and is not to be cut into messages here.
                frames.close()
                return

    def _take(self, code: int, body: bytes) -> None:
        if code in (_PARSE_COMPLETE, _ERROR):
            self._begun = True
        if not self._begun or code in _UNASKED:
            self._foreign(code, body)
            return
        if code != _READY:
            self._size += len(body)
            if self._size <= MAX_ANSWER_BYTES:
                self._segments[-1].append((code, body))
            return
        if len(self._segments) < self._syncs:
            self._segments.append([])
            return
        self.complete = True
        if self._size > MAX_ANSWER_BYTES:
            self.fail(RemoteProtocolError(f"an answer of {self._size} bytes is more than is read"))
        elif not self._done.done():
            self._done.set_result(None)

    def rest(self) -> bytes:
        """What has been read beyond the last answer: it belongs to whoever reads next."""
        return self._reader.rest()

    def fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # retrieved: whoever asked may be gone

    async def answers(self) -> list[list[Frame]]:
        """Raises ``RemoteProtocolError`` or ``ConnectionError`` when there will be none. Cancelling this does not end
        the exchange: its answers are still read, so that the client never sees them."""
        await self._done
        return self._segments


def first_error(segment: list[Frame]) -> messages.ServerError | None:
    return next((messages.read_error(body) for code, body in segment if code == _ERROR), None)


def rows(segment: list[Frame]) -> list[list[bytes | None]]:
    return [messages.read_data_row(body) for code, body in segment if code == _DATA_ROW]


def frame(code: int, body: bytes) -> bytes:
    """The message again as it was on the wire."""
    return messages.message(bytes([code]), body)
