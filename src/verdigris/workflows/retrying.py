"""Trying again, each time after twice as long, until it works."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import Struct

from verdigris.domain.errors import ControllerSuperseded

T = TypeVar("T")


class Distance(Struct, frozen=True):
    """Between two tries: the first and the longest."""

    first_s: float
    longest_s: float


async def until_it_works(
    act: Callable[[], Awaitable[T]],
    distance: Distance,
    retried: Callable[[Exception, float], object],
    *,
    patience_s: float = math.inf,
    what_passes: type[Exception] = Exception,
) -> T:
    """``retried`` is told what went wrong, and in how many seconds the next try comes.

    Raises what the last try raised, when the next would come after ``patience_s``; at once whatever is no
    ``what_passes``; and ``ControllerSuperseded``: another does it now."""
    loop = asyncio.get_running_loop()
    ends_at, delay_s = loop.time() + patience_s, distance.first_s
    while True:
        try:
            return await act()
        except ControllerSuperseded:
            raise
        except what_passes as error:
            if loop.time() + delay_s > ends_at:
                raise
            retried(error, delay_s)
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, distance.longest_s)
