"""A unix stream socket between two routers, for messages and the descriptors that come with them."""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct as Packing
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from verdigris.router.succession import messages
from verdigris.router.succession.messages import Message

log = structlog.get_logger()

T = TypeVar("T")

_LENGTH = Packing("!I")
# A session's statement (256 KiB), what its client has sent ahead, and up to 256 settings of 64 KiB.
_MAX_BYTES = 32 * 1024 * 1024
_READ_BYTES = 256 * 1024
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD of Linux; the kernel never joins those of two messages

_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class ChannelLost(ConnectionError):
    """The other process has gone, or makes no sense."""


class Channel:
    """Calls ``receive`` for each message in order, in the loop's callback, and ``lost`` once at the end of it all.

    ``send`` never waits: both sides bound how much is under way by what they have been answered.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.receive: Callable[[Message, list[int]], None] = _nobody
        self.lost: Callable[[], None] = _nothing
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray()
        self._descriptors: deque[int] = deque()
        self._outgoing: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._open = True

    def start(self) -> None:
        self._loop.add_reader(self._socket.fileno(), self._read)

    # --------------------------------------------------------------------------------------------------------- sending

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """The descriptors stay the caller's, who keeps them open until the message is answered. Nothing happens on a
        channel that is lost: ``lost`` has been called."""
        if not self._open:
            return
        body = msgspec.msgpack.encode(message)
        self._outgoing.append((memoryview(_LENGTH.pack(len(body)) + body), descriptors))
        if len(self._outgoing) == 1:
            self._write()

    def _write(self) -> None:
        try:
            while self._outgoing:
                data, descriptors = self._outgoing[0]
                sent = socket.send_fds(self._socket, [data], list(descriptors)) if descriptors else self._send(data)
                if sent == len(data):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = (data[sent:], ())  # descriptors go with the first byte
        except BlockingIOError:
            self._loop.add_writer(self._socket.fileno(), self._write)
            return
        except OSError:
            self._end()
            return
        self._loop.remove_writer(self._socket.fileno())

    def _send(self, data: memoryview) -> int:
        return self._socket.send(data)

    # ------------------------------------------------------------------------------------------------------- receiving

    def _read(self) -> None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _READ_BYTES, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self._end()
            return
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
                self._descriptors.extend(found)
        if not data or flags & socket.MSG_CTRUNC:
            self._end()  # truncated: no descriptors are left here, and some of those sent are lost
            return
        self._incoming += data
        try:
            self._take()
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("succession.misunderstood", error=repr(error))
            self._end()
        except Exception:
            # A message that has been half obeyed: whoever sees the end of the channel puts things right.
            log.exception("succession.message_failed")
            self._end()

    def _take(self) -> None:
        buffer = self._incoming
        while self._open and len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > _MAX_BYTES:
                raise ValueError(f"message of {length} bytes")
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            message = _DECODER.decode(bytes(buffer[_LENGTH.size : end]))
            del buffer[:end]
            wanted = getattr(message, "descriptors", 0)
            if wanted > len(self._descriptors):
                raise ValueError("a message without its descriptors")
            brought = [self._descriptors.popleft() for _ in range(wanted)]
            if isinstance(message, messages.Answer):
                asked = self._asked.pop(message.number, None)
                if asked is not None and not asked.done():
                    asked.set_result(message.value)
            else:
                self.receive(message, brought)

    # ---------------------------------------------------------------------------------------------------------- asking

    async def ask(self, request: messages.Request, kind: type[T]) -> T:
        """Raises ``ChannelLost`` if there will be no answer."""
        if not self._open:
            raise ChannelLost
        self._numbers += 1
        number = self._numbers
        self._asked[number] = answered = self._loop.create_future()
        self.send(messages.Ask(number, request))
        return msgspec.msgpack.decode(await answered, type=kind)

    def answer(self, number: int, value: "Struct | dict[str, messages.Remaining] | bool | None") -> None:
        self.send(messages.Answer(number, msgspec.Raw(msgspec.msgpack.encode(value))))

    # --------------------------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """Without ``lost`` being called."""
        self.lost = _nothing
        self._end()

    def _end(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._outgoing.clear()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        for answered in self._asked.values():
            if not answered.done():
                answered.set_exception(ChannelLost())
        self._asked.clear()
        self.lost()


def _nobody(_message: Message, descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _nothing() -> None:
    pass
