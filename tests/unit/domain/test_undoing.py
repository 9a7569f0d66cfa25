import asyncio

import pytest

from verdigris.domain.undoing import to_its_end


async def soon(done: list[str], error: Exception | None = None) -> str:
    for _ in range(10):
        await asyncio.sleep(0)
    done.append("done")
    if error is not None:
        raise error
    return "result"


async def test_undisturbed_it_is_as_if_awaited() -> None:
    done: list[str] = []
    assert await to_its_end(soon(done)) == "result"
    with pytest.raises(ValueError, match="no"):
        await to_its_end(soon(done, ValueError("no")))


@pytest.mark.parametrize("error", [None, ValueError("no")])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_nobody_goes_on_beside_it(times: int, error: Exception | None) -> None:
    done: list[str] = []
    waiting = asyncio.create_task(to_its_end(soon(done, error)))
    for _ in range(times):
        await asyncio.sleep(0)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await waiting
    assert done == ["done"]
    assert raised.value.__cause__ is error


async def test_a_deadline_that_strikes_meanwhile_is_still_one() -> None:
    done: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await to_its_end(soon(done))
    assert done == ["done"]


async def test_work_that_ends_as_cancelled_is_told_as_such() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await to_its_end(cancelled())
