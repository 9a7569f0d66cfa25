"""Who goes first when a park is released, and at what pace."""

import asyncio
from typing import TYPE_CHECKING, cast

from verdigris.router.letting_go import AT_WORK, SPREAD_S, STRIDE, AtWork, the_others, those_waited_for

if TYPE_CHECKING:
    from verdigris.router.session import Session


class _Session:
    """Parked until it is let go; then at work, if its client has asked for something, until it is ``answered``."""

    def __init__(self, gives_up_at: float | None) -> None:
        self.gives_up_at = gives_up_at if gives_up_at is not None else float("inf")
        self.is_waited_for = gives_up_at is not None
        self.is_at_work = False


class _Endpoint:
    def __init__(self, *, waiting: int = 0, idle: int = 0, answers: bool = True) -> None:
        self.parked = [*(_Session(float(n)) for n in reversed(range(waiting))), *(_Session(None) for _ in range(idle))]
        self.gone: list[_Session] = []
        self.most_at_work = 0
        self._answers = answers

    def sessions(self) -> "list[Session]":
        return [cast("Session", session) for session in self.parked]

    def let_go(self, session: "Session") -> None:
        going = cast("_Session", session)
        self.parked.remove(going)
        self.gone.append(going)
        if going.is_waited_for:
            going.is_at_work = True
            self.most_at_work = max(self.most_at_work, sum(one.is_at_work for one in self.gone))
            if self._answers:
                asyncio.get_running_loop().call_soon(self._answer, going)

    def _answer(self, session: _Session) -> None:
        session.is_at_work = False


async def test_whoever_has_waited_longest_goes_first_and_few_are_at_work_at_a_time() -> None:
    endpoint = _Endpoint(waiting=5 * AT_WORK)
    await those_waited_for(endpoint.sessions, endpoint.let_go, AtWork())
    assert [session.gives_up_at for session in endpoint.gone] == [float(n) for n in range(5 * AT_WORK)]
    assert endpoint.most_at_work == AT_WORK


async def test_nobody_waits_for_long_because_of_others_that_take_long() -> None:
    endpoint = _Endpoint(waiting=10 * AT_WORK, answers=False)
    going = asyncio.create_task(those_waited_for(endpoint.sessions, endpoint.let_go, AtWork()))
    await asyncio.sleep(SPREAD_S / 4)
    assert len(endpoint.gone) >= AT_WORK
    async with asyncio.timeout(10 * SPREAD_S):
        await going
    assert len(endpoint.gone) == 10 * AT_WORK


async def test_idle_sessions_leave_the_processors_to_those_at_work() -> None:
    endpoint, at_work = _Endpoint(waiting=1, idle=3 * STRIDE, answers=False), AtWork()
    await those_waited_for(endpoint.sessions, endpoint.let_go, at_work)
    (busy,) = endpoint.gone
    following = asyncio.create_task(the_others(endpoint.sessions, endpoint.let_go, at_work))
    endpoint.parked[-1].is_waited_for = True
    asks = endpoint.parked[-1]
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert endpoint.gone == [busy, asks]
    busy.is_at_work = asks.is_at_work = False
    await following
    assert endpoint.parked == []
    assert len(endpoint.gone) == 1 + 3 * STRIDE


async def test_idle_sessions_do_not_wait_for_a_long_query() -> None:
    endpoint, at_work = _Endpoint(waiting=1, idle=STRIDE, answers=False), AtWork()
    await those_waited_for(endpoint.sessions, endpoint.let_go, at_work)
    async with asyncio.timeout(30):
        await the_others(endpoint.sessions, endpoint.let_go, at_work)
    assert len(endpoint.gone) == 1 + STRIDE
