"""Making sure of another process's end: a connection that is lost proves nothing."""

import asyncio
import contextlib
import os
import signal
import socket
from struct import Struct as Packing

_UCRED = Packing("3i")  # pid, uid, gid: SO_PEERCRED of Linux


def peer_pid(connection: socket.socket) -> int:
    """Of the process that connected to a socket of ours."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[0])


class Witness:
    """Holds on to one process, which the pid alone would not: it may be another's by the time it is used."""

    def __init__(self, pid: int) -> None:
        """To be made while the process is known to live. One that has ended meanwhile counts as ended."""
        self.pid = pid
        self._descriptor: int | None = None
        with contextlib.suppress(ProcessLookupError):
            self._descriptor = os.pidfd_open(pid)

    def kill(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    async def dead(self) -> None:
        """Wait for the end of the process: none of its descriptors is open any more."""
        if self._descriptor is None:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
