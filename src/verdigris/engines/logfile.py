"""A server's log on disk, kept from growing without end while the server holds it open."""

import contextlib
import os
import shutil
from pathlib import Path

# Two of these at most for each server.
ROTATION_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 8192


class LogFile:
    """Written by the server itself (opened for appending); we read its end, and cut it."""

    def __init__(self, path: Path, *, rotation_bytes: int = ROTATION_BYTES) -> None:
        self.path = path
        self._rotation_bytes = rotation_bytes

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def rotate_if_large(self) -> bool:
        """Copy it aside and empty it in place, because the server goes on writing to the open file; lines written
        between the two are lost. Blocks for some milliseconds when there is something to do."""
        if self.size() < self._rotation_bytes:
            return False
        aside = self.path.with_name(self.path.name + ".1")
        aside.unlink(missing_ok=True)
        # Neither end may be a link: the directory is the engine account's, and we may be root.
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_NOFOLLOW), "r+b") as file:
            with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as copy:
                shutil.copyfileobj(file, copy)
            file.truncate(0)
        return True

    def causes(self, start: int) -> str:
        """What a server said from offset ``start`` on about why it gave up: its first fatal words, with the lines that
        led there (a bad setting is only named before them), else its last lines."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(start if start <= self.size() else 0)
            lines = file.read()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
            fatal = next((n for n, line in enumerate(lines) if "FATAL:" in line or "PANIC:" in line), None)
            told = lines[-5:] if fatal is None else lines[max(fatal - 2, 0) : fatal + 3]
            return "\n".join(told) or "it said nothing"
        return "it said nothing"
