"""What makes a process the router of its state directory, and what passes to its successor."""

import fcntl
import os
import socket

import msgspec
from msgspec import Struct

from verdigris.domain.errors import VerdigrisError
from verdigris.router.control import bind_private
from verdigris.router.paths import RouterPaths
from verdigris.router.record import ProcessRecord, started_ticks


class Seat(Struct):
    """``lock``: an open file whose lock, of the kernel's flock kind, belongs to all who have this very file open. It is
    free when the last of them is gone, so a router and its successor hold it together, and nobody else can."""

    paths: RouterPaths
    lock: int
    control: socket.socket
    succession: socket.socket

    @classmethod
    def take(cls, paths: RouterPaths) -> "Seat":
        """Raises ``VerdigrisError`` if another router serves the directory."""
        lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise VerdigrisError(f"another router serves {paths.home}") from None
        return cls(paths, lock, bind_private(paths.control_socket), bind_private(paths.succession_socket))

    def record(self) -> None:
        """Note that this process is the router now."""
        record = ProcessRecord(os.getpid(), started_ticks(os.getpid()) or 0)
        temporary = self.paths.record.with_name(self.paths.record.name + ".new")
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(self.paths.record)

    def leave(self) -> None:
        """The router ends and nobody follows."""
        for path, listener in (
            (self.paths.control_socket, self.control),
            (self.paths.succession_socket, self.succession),
        ):
            path.unlink(missing_ok=True)
            listener.close()
