"""Several questions to a session that goes on meanwhile have one answer, or none."""

from typing import TYPE_CHECKING, cast

import pytest

from verdigris.router.exchange import Exchange, Frame
from verdigris.router.ready import Patient
from verdigris.router.state.examine import NotAsked
from verdigris.router.states import State

if TYPE_CHECKING:
    from verdigris.router.session import Session


class _Exchange:
    async def answers(self) -> list[list[Frame]]:
        return [[]]


class _Session:
    """One that is at a safe point whenever it is asked; its client has said ``passed_on`` bytes by then."""

    state = State.FLOWING

    def __init__(self, *passed_on: int) -> None:
        self._passed_on = iter(passed_on)
        self.asking = self

    async def begin_when_safe(
        self, _batch: bytes, _syncs: int, *, timeout_s: float, within_batch: bool
    ) -> tuple[Exchange, int]:
        assert timeout_s > 0
        return cast("Exchange", _Exchange()), next(self._passed_on)


async def test_a_silent_client() -> None:
    patient = Patient(cast("Session", _Session(7, 7, 7)))
    for _ in range(3):
        await patient.ask(b"", 1)
    assert patient.asked_at == 7


async def test_a_client_that_says_something_in_between() -> None:
    patient = Patient(cast("Session", _Session(7, 7, 9)))
    await patient.ask(b"", 1)
    await patient.ask(b"", 1)
    with pytest.raises(NotAsked):
        await patient.ask(b"", 1)
    assert patient.asked_at == 7
