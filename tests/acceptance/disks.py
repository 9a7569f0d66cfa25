"""Small file systems that can be filled at a stroke and emptied again: a tmpfs changes its size while in use."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tests.acceptance.installation import wait_until

if TYPE_CHECKING:
    from tests.acceptance.installation import Installation

_ATTEMPTS = 50
_ROOMY = 4 << 30  # a limit, not memory: that is taken by what is written


class Disk(Struct, frozen=True):
    path: Path

    def fill(self) -> None:
        """Not a byte more than is there now. Refused if something was written since we looked: then once more."""
        for attempt in range(_ATTEMPTS):
            stat = os.statvfs(self.path)
            used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
            try:
                _run("mount", "-o", f"remount,size={max(used, stat.f_frsize)}", str(self.path))
            except subprocess.CalledProcessError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def empty(self) -> None:
        _run("mount", "-o", f"remount,size={_ROOMY}", str(self.path))

    def remove(self) -> None:
        self.unmount()
        with suppress(OSError):
            self.path.rmdir()

    def unmount(self) -> None:
        _run("umount", "--lazy", str(self.path))


def mounted(path: Path, *, mode: int = 0o711) -> Disk:
    path.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={_ROOMY},mode={mode:o}", "verdigris-faults", str(path))
    return Disk(path)


def can_mount() -> bool:
    directory = Path(tempfile.mkdtemp(prefix="vg-mount-"))
    try:
        mounted(directory).unmount()
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        directory.rmdir()
    return True


def wal_disk(verdigris: "Installation", resource_id: str) -> Disk:
    """A disk of its own for a server's WAL, as operators like it; the server is stopped once for that."""
    data = verdigris.home / "instances" / resource_id / "data"
    verdigris.kill(signal.SIGTERM)
    postmaster = int((data / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGINT)
    wait_until(lambda: not Path(f"/proc/{postmaster}").exists(), "the server stops")
    disk = mounted(Path(tempfile.mkdtemp(prefix="vgw-")))
    _move_onto(disk, data / "pg_wal")
    verdigris.start()
    return disk


def _move_onto(disk: Disk, directory: Path) -> None:
    """What is in ``directory`` goes to the disk, and a link to it takes its place. Nobody may use it meanwhile."""
    owner = directory.stat()
    new = disk.path / directory.name
    shutil.copytree(directory, new, symlinks=True)
    for path in (new, *new.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    shutil.rmtree(directory)
    directory.symlink_to(new)
    os.lchown(directory, owner.st_uid, owner.st_gid)


def _run(program: str, *arguments: str) -> None:
    subprocess.run([program, *arguments], check=True, capture_output=True, timeout=30)
