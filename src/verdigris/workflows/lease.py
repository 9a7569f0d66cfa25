"""The leases of parks, renewed for as long as the switchover wants it held."""

import asyncio

from verdigris.domain.ports import Router

# For what is done at the deadline to be done before clients go on by themselves.
_BEYOND_S = 0.5


class Lease:
    """``deadline``: of the switchover, in event loop time."""

    def __init__(self, router: Router, length_s: float, deadline: float) -> None:
        self._router = router
        self._length_s = length_s
        self._deadline = deadline
        self._generations: list[int] = []
        self.renewing: asyncio.Task[None] | None = None  # ends by failing, when the router does not renew it

    def length_s(self, *, granted_within_s: float = 0.0) -> float:
        """Of one that begins at most so much later. It never outlives the deadline by more than half a second, whatever
        becomes of us meanwhile: 0 from then on."""
        left_s = self._deadline - asyncio.get_running_loop().time() - granted_within_s
        return min(self._length_s, max(left_s + _BEYOND_S, 0.0))

    def keep(self, generation: int) -> None:
        """This one too."""
        self._generations.append(generation)
        if self.renewing is None:
            self.renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._length_s / 4)
            for generation in self._generations:
                if length_s := self.length_s():
                    await self._router.renew(generation, lease_s=length_s)

    async def let_go(self) -> None:
        """Renew them no more."""
        self._generations = []
        if self.renewing is not None:
            self.renewing.cancel()
            await asyncio.gather(self.renewing, return_exceptions=True)
            self.renewing = None
