"""``verdigris serve`` with a wall clock that a test can set: ``python -m tests.faults.serve serve --port 0``.

The offset, in seconds, is in the file ``clock-offset`` of the state directory. It is the product that runs, whole, but
for the one method that asks what time it is.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from verdigris.cli import main
from verdigris.clock import SystemClock

OFFSET_FILE = "clock-offset"


def _now(_: SystemClock) -> datetime:
    try:
        seconds = float((Path(os.environ["VERDIGRIS_HOME"]) / OFFSET_FILE).read_text())
    except (FileNotFoundError, ValueError):
        seconds = 0.0
    return datetime.now(UTC) + timedelta(seconds=seconds)


if __name__ == "__main__":
    SystemClock.now = _now  # type: ignore[method-assign, assignment]  # what this program is for
    main()
