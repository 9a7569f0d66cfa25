"""Rows that travel are counted for as long as somebody has them."""

import asyncio

import pytest

from verdigris.router.state.baggage import Baggage


async def test_bytes_come_back_with_the_ticket() -> None:
    baggage = Baggage(100)
    first = await baggage.room(60)
    second = await baggage.room(40)
    assert baggage.taken == 100
    waiting = asyncio.create_task(baggage.room(50, patience_s=10))
    await asyncio.sleep(0)
    del second
    await asyncio.sleep(0)
    assert not waiting.done()
    del first
    third = await waiting
    assert baggage.taken == 50
    with pytest.raises(TimeoutError):
        await baggage.room(51, patience_s=0)
    del third, waiting
    assert baggage.taken == 0


async def test_what_is_larger_than_all_goes_alone() -> None:
    baggage = Baggage(100)
    ticket = await baggage.room(1000)
    with pytest.raises(TimeoutError):
        await baggage.room(1, patience_s=0)
    del ticket
    assert await baggage.room(1, patience_s=0)
