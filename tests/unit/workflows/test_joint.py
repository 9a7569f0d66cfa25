"""Steps that run together: what comes due begins at once, and one that fails ends the others."""

import asyncio

import pytest

from verdigris.domain.errors import ParkBroken
from verdigris.domain.switchover import Step
from verdigris.workflows.joint import Joint


class _Steps:
    """Each ends when it is told to."""

    def __init__(self) -> None:
        self.begun: list[Step] = []
        self.ended: set[Step] = set()
        self.cancelled: list[Step] = []
        self._may_end = {step: asyncio.Event() for step in Step}

    async def do(self, step: Step) -> None:
        self.begun.append(step)
        try:
            await self._may_end[step].wait()
        except asyncio.CancelledError:
            self.cancelled.append(step)
            raise
        if step in self.ended:
            raise ParkBroken(step.value)
        self.ended.add(step)

    async def end(self, step: Step) -> None:
        self._may_end[step].set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def fail(self, step: Step) -> None:
        self.ended.add(step)
        await self.end(step)

    def due(self) -> list[Step]:
        """Catching up once there is a fence; what runs already is named again."""
        behind_the_fence = [Step.CATCH_UP] if Step.FENCE_SOURCE in self.ended else []
        return [Step.HAND_OVER, *behind_the_fence]


async def begun(steps: _Steps, joint: Joint) -> asyncio.Task[None]:
    running = asyncio.create_task(joint.run((Step.HAND_OVER, Step.FENCE_SOURCE)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert steps.begun == [Step.HAND_OVER, Step.FENCE_SOURCE]
    return running


async def test_a_step_begins_when_it_is_due_and_not_when_all_others_are_done() -> None:
    steps = _Steps()
    joint = Joint(steps.do, steps.due, lease=None)
    running = await begun(steps, joint)
    await steps.end(Step.FENCE_SOURCE)
    assert steps.begun == [Step.HAND_OVER, Step.FENCE_SOURCE, Step.CATCH_UP]
    await steps.end(Step.HAND_OVER)
    assert not running.done()
    assert joint.unfinished == [Step.CATCH_UP]
    await steps.end(Step.CATCH_UP)
    await running
    assert joint.unfinished == []


async def test_a_failure_ends_the_others() -> None:
    steps = _Steps()
    running = await begun(steps, Joint(steps.do, steps.due, lease=None))
    await steps.fail(Step.FENCE_SOURCE)
    with pytest.raises(ParkBroken):
        await running
    assert steps.cancelled == [Step.HAND_OVER]
    assert Step.CATCH_UP not in steps.begun


async def test_a_lease_that_is_lost_ends_them_all() -> None:
    async def lost() -> None:
        raise ParkBroken("the lease ran out")

    steps = _Steps()
    joint = Joint(steps.do, steps.due, lease=asyncio.create_task(lost()))
    with pytest.raises(ParkBroken):
        await joint.run((Step.HAND_OVER, Step.FENCE_SOURCE))
    assert set(steps.cancelled) == {Step.HAND_OVER, Step.FENCE_SOURCE}


async def test_what_took_too_long_is_named() -> None:
    steps = _Steps()
    joint = Joint(steps.do, steps.due, lease=None)
    running = await begun(steps, joint)
    await steps.end(Step.FENCE_SOURCE)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert joint.unfinished == [Step.HAND_OVER, Step.CATCH_UP]
