"""Asking a backend something in the middle of a session, in one round trip, between two of the client's requests."""

import asyncio
from collections.abc import Callable

from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import RemoteProtocolError
from verdigris.wire.postgres.framing import FrameReader

# The state of one session: its prepared statements are what makes it big.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024

_READY = ord("Z")
_PARSE_COMPLETE = ord("1")
# Sent by a server whenever it likes: NoticeResponse, NotificationResponse, ParameterStatus.
_UNASKED = frozenset(b"NAS")

Frame = tuple[int, bytes]


class Exchange:
    """Collects the answers to a batch of messages that begins with a Parse and holds ``syncs`` Syncs.

    Whatever comes before its first ``ParseComplete``, and what a server sends unasked, is not ours: it goes to
    ``foreign``. ``statuses`` are those of our ``ReadyForQuery`` messages.
    """

    def __init__(self, syncs: int, foreign: Callable[[int, bytes], None]) -> None:
        self.segments: list[list[Frame]] = []  # the answers up to each Sync
        self.status = 0
        self._syncs = syncs
        self._foreign = foreign
        self._reader = FrameReader(MAX_MESSAGE_BYTES)
        self._begun = False
        self._size = 0
        self._segment: list[Frame] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        try:
            if self._size > MAX_ANSWER_BYTES:
                raise RemoteProtocolError(f"more than {MAX_ANSWER_BYTES} bytes of session state")
            for code, body in self._reader.feed(data):
                self._take(code, body)
        except RemoteProtocolError as error:
            self.fail(error)

    def _take(self, code: int, body: bytes) -> None:
        if code == _PARSE_COMPLETE or code == ord("E"):
            self._begun = True
        if code in _UNASKED or not self._begun or self.complete:
            self._foreign(code, body)
            return
        if code != _READY:
            self._segment.append((code, body))
            return
        self.status = body[0] if body else 0
        self.segments.append(self._segment)
        self._segment = []
        if self.complete and not self._done.done():
            self._done.set_result(None)

    @property
    def complete(self) -> bool:
        return len(self.segments) == self._syncs

    def rest(self) -> bytes:
        """What has been read of a message that is not complete: it belongs to whoever reads next."""
        return self._reader.rest()

    def fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # retrieved: it need not be awaited if its asker is gone

    async def answers(self) -> list[list[Frame]]:
        """Raises ``RemoteProtocolError`` or ``ConnectionError`` when there will be no more."""
        await self._done
        return self.segments


def first_error(segment: list[Frame]) -> messages.ServerError | None:
    return next((messages.read_error(body) for code, body in segment if code == ord("E")), None)


def rows(segment: list[Frame]) -> list[list[bytes | None]]:
    return [messages.read_data_row(body) for code, body in segment if code == ord("D")]


def frame(code: int, body: bytes) -> bytes:
    """The message again as it was on the wire."""
    return messages.message(bytes([code]), body)
