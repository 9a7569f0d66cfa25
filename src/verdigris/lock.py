"""One control plane a state directory: an advisory lock that dies with its process, and a note of where it listens."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from verdigris.domain.errors import VerdigrisError


class AlreadyRunning(VerdigrisError):
    """Another control plane holds the state directory."""


class Presence(Struct, frozen=True, kw_only=True):
    """``certificate``: the file that it shows to its clients, where the API speaks TLS."""

    host: str
    port: int
    pid: int = 0
    certificate: str | None = None

    @property
    def endpoint_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{self.port}"


class StateLock:
    """``with StateLock(home)``. The kernel lets go of the lock however the process ends, so none is ever stale."""

    def __init__(self, home: Path) -> None:
        self._path = home / "serve.lock"
        self._descriptor = -1

    def __enter__(self) -> "StateLock":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise AlreadyRunning(f"another control plane is running on {self._path.parent}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def publish(self, presence: Presence) -> None:
        """Note where this control plane listens, for the other commands."""
        note = msgspec.json.encode(msgspec.structs.replace(presence, pid=os.getpid()))
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, note, 0)


def find_presence(home: Path) -> Presence | None:
    """The control plane that holds the lock now, once it listens; None if there is none."""
    path = home / "serve.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _decode(path.read_bytes())
        return None
    finally:
        os.close(descriptor)


def _decode(note: bytes) -> Presence | None:
    try:
        return msgspec.json.decode(note, type=Presence)
    except msgspec.DecodeError:
        return None  # it holds the lock and does not listen yet
