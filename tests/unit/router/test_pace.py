"""Few at a time, and more only where it would take too long."""

import asyncio

import pytest

from verdigris.router.pace import AT_ONCE, MOST_AT_ONCE, without_hurry


async def most_at_once(items: int, *, limit_s: float) -> int:
    """Of so many that take some milliseconds each."""
    at_work, most, done = 0, 0, []

    async def work(item: int) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.005)
        at_work -= 1
        done.append(item)

    await without_hurry(range(items), work, limit_s)
    assert sorted(done) == list(range(items))
    return most


@pytest.mark.parametrize("items", [0, 1, 10])
async def test_few_at_a_time(items: int) -> None:
    assert await most_at_once(items, limit_s=60) == min(items, AT_ONCE)


async def test_more_where_it_would_take_too_long() -> None:
    assert await most_at_once(100, limit_s=0.001) == MOST_AT_ONCE


async def test_an_error_ends_it() -> None:
    done = []

    async def work(item: int) -> None:
        done.append(item)
        raise ValueError(item)

    with pytest.raises(ExceptionGroup):
        await without_hurry(range(10 * AT_ONCE), work)
    assert len(done) < 10 * AT_ONCE
