"""A connection dialled for a session is asked one thing at a time, or not at all."""

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from verdigris.domain.ports import BackendAddress
from verdigris.router.dial import Dialled
from verdigris.wire.postgres import messages

if TYPE_CHECKING:
    from verdigris.wire.postgres.login import ClientLogin

QUESTION = messages.parse(b"q", b"") + messages.SYNC
ANSWER = messages.message(b"1") + messages.message(b"Z", b"I")


class _Login:
    def __init__(self) -> None:
        self.parameters: dict[bytes, bytes] = {}


class _Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def _dialled() -> tuple[Dialled, _Transport]:
    dialled = Dialled(BackendAddress("db-X", "/nowhere"), cast("ClientLogin", _Login()))
    dialled.end.transport = transport = _Transport()
    return dialled, transport


async def test_one_question_after_the_other() -> None:
    dialled, transport = _dialled()
    for _ in range(2):
        asked = asyncio.create_task(dialled.ask(QUESTION, 1))
        await asyncio.sleep(0)
        dialled.read(ANSWER)
        assert await asked == [[(ord("1"), b"")]]
    assert not transport.closed


async def test_two_questions_at_a_time_end_it() -> None:
    """Their answers could not be told apart, and what is left of them would be the client's."""
    dialled, transport = _dialled()
    first = asyncio.create_task(dialled.ask(QUESTION, 1))
    await asyncio.sleep(0)
    with pytest.raises(ConnectionError, match="two things"):
        await dialled.ask(QUESTION, 1)
    with pytest.raises(ConnectionError):
        await first
    assert transport.closed
    assert dialled.lost
