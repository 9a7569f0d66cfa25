"""Work that a cancellation must not leave half done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for ``work`` however often that is cancelled, and raise ``CancelledError`` only then.

    ``asyncio.shield`` keeps the work from being cancelled, but not from being left: cancelled once more, by a deadline
    and by an operator, its caller would go on beside it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    raise cancelled from (None if task.cancelled() else task.exception())
