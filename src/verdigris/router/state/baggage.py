"""How much of sessions' tables is in the router's memory at the same time."""

import asyncio
import weakref
from typing import Final

# Of all sessions together. In logical mode a session's rows stay for as long as it takes to give them to the target, in
# physical mode until it has been promoted.
MAX_BYTES: Final = 256 * 1024 * 1024
# Inside the pause everybody waits for the one that waits for room.
PATIENCE_S: Final = 1.0


class Baggage:
    """Bytes that are taken for an object and given back when that is no more."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._taken = 0
        self._given_back = asyncio.Event()

    @property
    def taken(self) -> int:
        return self._taken

    async def room(self, size: int, *, patience_s: float = PATIENCE_S) -> "Ticket":
        """Raises ``TimeoutError`` if there is none. Whatever fits by itself does when there is nothing else."""
        async with asyncio.timeout(patience_s):
            while self._taken and self._taken + size > self._max_bytes:
                self._given_back.clear()
                await self._given_back.wait()
        self._taken += size
        ticket = Ticket()
        weakref.finalize(ticket, self._give_back, size)
        return ticket

    def _give_back(self, size: int) -> None:
        self._taken -= size
        self._given_back.set()


class Ticket:
    """Kept by whoever has the bytes, and by nobody else."""
