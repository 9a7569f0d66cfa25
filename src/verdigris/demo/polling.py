"""Waiting for a condition, with a limit."""

import threading
from collections.abc import Callable
from time import monotonic


class NotInTime(Exception):
    """A condition did not come true within its limit."""


def wait_until(condition: Callable[[], object], timeout_s: float, *, what: str, interval_s: float = 0.02) -> None:
    """Ask until the answer is true. Raises ``NotInTime`` with ``what`` in its text."""
    end = monotonic() + timeout_s
    pause = threading.Event()  # its wait() ends at a signal's exception, where a handler raises one
    while not condition():
        if monotonic() > end:
            raise NotInTime(f"not within {timeout_s:g} s: {what}")
        pause.wait(interval_s)
