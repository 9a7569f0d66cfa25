"""How many requests a key may make."""

import time
from collections.abc import Callable

# Waiters of SDKs ask every few seconds, scripts of ours ten times a second. A loop that has gone wild asks a thousand
# times, and would keep the store from those who have work for it.
REQUESTS_PER_S = 100.0
BURST = 500


class Throttle:
    """A token bucket for each key. Only keys whose signature was right are counted, so there are few."""

    def __init__(
        self, *, per_s: float = REQUESTS_PER_S, burst: int = BURST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # key -> requests left, as of when

    def admits(self, key: str) -> bool:
        """Counts the request, if there is room for it."""
        now = self._clock()
        left, since = self._left.get(key, (float(self._burst), now))
        left = min(left + (now - since) * self._per_s, self._burst)
        admitted = left >= 1
        self._left[key] = (left - 1 if admitted else left, now)
        return admitted
