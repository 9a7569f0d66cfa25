"""The control plane's log as a clock: wait for an event, and be there at once."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

Event = dict[str, Any]


class ServeLog:
    """Reads from where it was made, or from where the last wait ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._unread: deque[Event] = deque()

    def wait_for(self, event: str, *, limit_s: float = 60.0, **fields: Any) -> Event:
        """The next event with these fields. Looks every millisecond: whoever waits wants to strike right then."""
        return self.wait_until(
            lambda found: found.get("event") == event and fields.items() <= found.items(),
            f"{event} {fields}",
            limit_s=limit_s,
        )

    def wait_until(self, condition: Callable[[Event], bool], what: str, *, limit_s: float = 60.0) -> Event:
        """The next event of which ``condition`` is true; what follows it stays unread."""
        until = time.monotonic() + limit_s
        while True:
            while self._unread:
                event = self._unread.popleft()
                if condition(event):
                    return event
            if time.monotonic() > until:
                raise AssertionError(f"not within {limit_s:g} s: {what}")
            self._read()
            if not self._unread:
                time.sleep(0.001)

    def new_events(self) -> list[Event]:
        """All that has been written since the last look."""
        self._read()
        events = list(self._unread)
        self._unread.clear()
        return events

    def _read(self) -> None:
        """Whole lines only."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                with suppress(msgspec.DecodeError):  # a full disk had no room for all of it
                    self._unread.append(msgspec.json.decode(line, type=dict[str, Any]))
