"""Where the files of a server lie under the state directory."""

import os
from pathlib import Path

from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount

# sizeof(sockaddr_un.sun_path) on Linux, less the terminating zero.
SOCKET_PATH_MAX_BYTES = 107
# With the name of its lock file it is the longest path that PostgreSQL makes there.
SOCKET_NAME = ".s.PGSQL.5432"


class Layout:
    """Paths below ``home``, which is resolved, because servers are recognised by the path of their data directory."""

    def __init__(self, home: Path) -> None:
        self.home = Path(os.path.realpath(home))
        self.instances = self.home / "instances"
        self.snapshots = self.home / "snapshots"
        self.run = self.home / "run"

    def directory(self, resource_id: str) -> Path:
        return self.instances / resource_id

    def snapshot(self, snapshot_id: str) -> Path:
        return self.snapshots / snapshot_id

    def socket_dir(self, resource_id: str) -> Path:
        return self.run / resource_id.lower()

    def check(self, resource_id: str) -> None:
        """Raises ``EngineError`` when a socket's path would be too long for the operating system."""
        length = len(os.fsencode(self.socket_dir(resource_id) / SOCKET_NAME))
        if length > SOCKET_PATH_MAX_BYTES:
            raise EngineError(
                f"the state directory's path is too long for unix sockets: {self.home} is"
                f" {length - SOCKET_PATH_MAX_BYTES} bytes over; choose a shorter VERDIGRIS_HOME"
            )

    def prepare(self, account: EngineAccount) -> None:
        """Make the common directories: passable for the engine account, listable for nobody else."""
        self.home.mkdir(parents=True, exist_ok=True)
        mode = 0o711 if account.drops_privileges else 0o700
        for path in (self.instances, self.snapshots, self.run):
            path.mkdir(mode=mode, exist_ok=True)
            path.chmod(mode)
        if not account.can_enter(self.instances):
            raise EngineError(
                f"the account {account.name!r}, which runs the servers, cannot enter {self.instances}:"
                " make every directory above it passable (chmod o+x), or choose another VERDIGRIS_HOME"
            )

    def resource_ids(self) -> list[str]:
        if not self.instances.is_dir():
            return []
        return sorted(path.name for path in self.instances.iterdir() if path.is_dir() and path.name.startswith("db-"))
