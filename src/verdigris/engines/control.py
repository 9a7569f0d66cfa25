"""Which control plane the servers obey: the epoch, checked at each effect on them.

The router and the store are asked by somebody and can look at who asks. Files, signals and SQL ask nobody, so whoever
is about to make one looks first, at a small file that a takeover changes. The look and a change of files are one: both
happen under a shared lock on that file, and a takeover waits for the lock. See
``docs/decisions/0021-servers-check-the-epoch.md``.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verdigris.domain.errors import ControllerSuperseded, EngineError

# Changes of files take milliseconds. Whoever holds the lock for longer stands still, in the middle of one.
_TAKEOVER_LIMIT_S = 5.0
_POLL_S = 0.01


class Control:
    """``epoch`` is whose who uses it. Without one nothing is checked: tests and read-only commands."""

    def __init__(self, home: Path, epoch: int | None) -> None:
        self._path = home / "servers.epoch"
        self._epoch = epoch

    def take_over(self) -> None:
        """From now on servers obey this epoch and later ones. Raises ``ControllerSuperseded`` if there is a later one,
        and ``EngineError`` if a predecessor stands still in the middle of a change."""
        if self._epoch is None:
            return
        descriptor = self._open()
        try:
            self._lock_alone(descriptor)
            self._check(descriptor)
            os.pwrite(descriptor, f"{self._epoch:020}\n".encode(), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def require(self) -> None:
        """Before an effect that takes its time (SQL, a program): raises ``ControllerSuperseded``."""
        with self.effect():
            pass

    @contextmanager
    def effect(self) -> Iterator[None]:
        """Around a change of files, or a signal: nobody takes over in the middle of it. Not to be held over an
        ``await``. Raises ``ControllerSuperseded``."""
        if self._epoch is None:
            yield
            return
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            self._check(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _lock_alone(self, descriptor: int) -> None:
        deadline = time.monotonic() + _TAKEOVER_LIMIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EngineError(
                        "another control plane stands still in the middle of changing a server's files: end its process"
                    ) from None
                time.sleep(_POLL_S)
            else:
                return

    def _check(self, descriptor: int) -> None:
        written = os.pread(descriptor, 32, 0).strip()
        if self._epoch is not None and written and int(written) > self._epoch:
            raise ControllerSuperseded(f"epoch {self._epoch} is over: servers obey epoch {int(written)}")
