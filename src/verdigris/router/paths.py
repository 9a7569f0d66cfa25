"""Where the router keeps its files, under the state directory that it shares with the control plane."""

from pathlib import Path

from msgspec import Struct

from verdigris.domain.errors import VerdigrisError

# sun_path of Linux has 108 bytes, the last one zero.
MAX_SOCKET_PATH_BYTES = 107


class RouterPaths(Struct, frozen=True):
    home: Path

    @property
    def directory(self) -> Path:
        return self.home / "router"

    @property
    def control_socket(self) -> Path:
        return self.directory / "router.sock"

    @property
    def succession_socket(self) -> Path:
        """Where a router that shall take over finds the one that runs."""
        return self.directory / "succession.sock"

    @property
    def routes(self) -> Path:
        return self.directory / "routes.json"

    @property
    def tls(self) -> Path:
        return self.directory / "tls"

    @property
    def record(self) -> Path:
        return self.directory / "router.json"

    @property
    def lock(self) -> Path:
        return self.directory / "router.lock"

    @property
    def log(self) -> Path:
        return self.home / "log" / "router.log"

    def check(self) -> None:
        """Raises ``VerdigrisError`` if a socket's path is longer than the system allows."""
        size = max(len(bytes(path)) for path in (self.control_socket, self.succession_socket))
        if size > MAX_SOCKET_PATH_BYTES:
            raise VerdigrisError(
                f"the path of the router's longest socket has {size} bytes, the system allows {MAX_SOCKET_PATH_BYTES}: "
                f"choose a shorter state directory than {self.home}"
            )
