"""Accepting connections on a listening socket that may one day be another process's."""

import asyncio
import errno
import socket
from collections.abc import Callable, Coroutine

import structlog

log = structlog.get_logger()

# How long to leave new clients in the backlog when the system has no descriptors left.
_EXHAUSTED_PAUSE_S = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Taken in one turn of the loop; sessions that flow want theirs too.
_AT_ONCE = 64


class Acceptor:
    """Runs ``serve`` for each connection, from ``start`` to ``stop``.

    It accepts in the very callback that says that there is somebody. ``loop.sock_accept`` would have a moment in which
    a connection has been taken from the kernel and is lost if the waiting task is cancelled; here, who has not been
    accepted when ``stop`` returns is still in the backlog, for whoever accepts next.
    """

    def __init__(
        self, listener: socket.socket, serve: Callable[[socket.socket], Coroutine[None, None, None]], name: str
    ) -> None:
        self.listener = listener
        self.serving: set[asyncio.Task[None]] = set()
        self._serve = serve
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._accepting = False

    def start(self) -> None:
        self._resume = None
        if not self._accepting:
            self._accepting = True
            self._loop.add_reader(self.listener.fileno(), self._accept)

    def stop(self) -> None:
        """Leave newcomers in the backlog; those that have been accepted are served on."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self.listener.fileno())

    def close(self) -> None:
        """Stop, end what is being served, and let go of the socket."""
        self.stop()
        for task in self.serving:
            task.cancel()
        self.listener.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    log.warning("listener.exhausted", endpoint=self._name, error=str(error))
                    self.stop()
                    self._resume = self._loop.call_later(_EXHAUSTED_PAUSE_S, self.start)
                    return
                continue  # that client's fault, and it is gone
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection))
            self.serving.add(task)
            task.add_done_callback(self.serving.discard)
