"""The control plane's log as a clock: wait for an event, and be there at once."""

import time
from pathlib import Path
from typing import Any

import msgspec


class ServeLog:
    """Reads from where it was made, or from where the last wait ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def wait_for(self, event: str, *, limit_s: float = 60.0, **fields: Any) -> dict[str, Any]:
        """The next event with these fields. Looks every millisecond: whoever waits wants to strike right then."""
        until = time.monotonic() + limit_s
        while True:
            for record in self._new_records():
                if record.get("event") == event and fields.items() <= record.items():
                    return record
            if time.monotonic() > until:
                raise AssertionError(f"not within {limit_s:g} s: {event} {fields}")
            time.sleep(0.001)

    def _new_records(self) -> list[dict[str, Any]]:
        """Whole lines only; what follows the event that is waited for stays unread."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            records = []
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                records.append(msgspec.json.decode(line, type=dict[str, Any]))
            return records
