"""Implements ``domain.ports.Ports``: which TCP ports endpoints may have."""

import errno
import socket
from collections.abc import Container, Sequence

from verdigris.domain.errors import PortInUse

# Outside 32768 to 60999, where the system puts the client ends of its own connections and a bind may fail at any time.
DEFAULT_RANGE = range(15400, 16400)
_BACKLOG = 1024


class HostPorts:
    """Ports of addresses of this machine, found free by binding them."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        allowed: range = DEFAULT_RANGE,
        *,
        reader_host: str | None = None,
        custom_hosts: Sequence[str] = (),
    ) -> None:
        self.host = host
        self.reader_host = reader_host
        self.custom_hosts = custom_hosts
        self.count = len(allowed)
        self._allowed = allowed

    def is_free(self, port: int, *, on_both: bool = False) -> bool:
        try:
            bind_listener(self.host, port).close()
            if on_both and self.reader_host is not None:
                bind_listener(self.reader_host, port).close()
        except PortInUse:
            return False
        return True

    def allocate(self, taken: Container[int], *, on_both: bool = False) -> int:
        for port in self._allowed:
            if port not in taken and self.is_free(port, on_both=on_both):
                return port
        raise PortInUse(f"no free port between {self._allowed.start} and {self._allowed.stop - 1} on {self.host}")


def bind_listener(host: str, port: int) -> socket.socket:
    """A listening, non-blocking socket. Raises ``PortInUse`` whatever the reason is.

    It listens at once although nobody accepts yet: with SO_REUSEADDR two sockets can be bound to one port as long as
    neither listens, and the failure would come when the route is already in the table.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortInUse(f"{host} is not an address of this machine: {error}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Lets a restarted router take over a port whose old connections linger in TIME_WAIT; it does not allow two
        # listeners.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = "in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise PortInUse(f"port {port} on {host} cannot be bound: {reason}") from error
    return listener
