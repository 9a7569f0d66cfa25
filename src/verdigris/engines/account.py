"""The operating system account that database servers run under.

PostgreSQL refuses to run as root, and a server has no business with the control plane's files: started as root,
Verdigris gives every server, and every program that touches a data directory, an unprivileged account. Started as an
ordinary user it stays that user.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from msgspec import Struct

from verdigris.domain.errors import EngineError

# First those that exist are taken: an operator's own account, then the one that PostgreSQL packages create.
PREFERRED_ACCOUNTS = ("verdigris", "postgres")

# The environment of a server is made, not inherited: PG* variables of the operator's shell would change what servers
# and client programs do, and whatever else is in there may be secret.
_PASSED_ON = ("PATH", "TZ", "TZDIR", "TMPDIR")
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


class EngineAccount(Struct, frozen=True, kw_only=True):
    """Who runs the servers. ``drops_privileges`` is true when that is somebody else than this process."""

    name: str
    uid: int
    gid: int
    drops_privileges: bool

    def process_options(self) -> dict[str, Any]:
        """Keyword arguments for ``subprocess.Popen``: who, and a umask under which files are the account's alone."""
        options: dict[str, Any] = {"umask": 0o077}
        if self.drops_privileges:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A minimal environment: messages in English, no secrets, nothing of libpq's."""
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment.setdefault("PATH", _DEFAULT_PATH)
        environment |= {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        environment |= extra or {}
        return environment

    def can_enter(self, directory: Path) -> bool:
        """Whether the account gets to ``directory``: asked of the kernel, because there are more rules than modes."""
        command = ["test", "-x", str(directory)]
        return subprocess.run(command, check=False, env=self.environment(), **self.process_options()).returncode == 0

    def make_directory(self, path: Path) -> None:
        """A directory, mode 0700, owned by the account; one that exists gets both. Parents must exist."""
        path.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(descriptor, 0o700)
            if self.drops_privileges:
                os.fchown(descriptor, self.uid, self.gid)
        finally:
            os.close(descriptor)

    def write_file(self, path: Path, content: str | bytes) -> None:
        """Replace ``path`` atomically and durably by a file of the account's with mode 0600.

        The directory must be the account's own: started as root we would otherwise follow wherever a taken-over
        account had led it by a link.
        """
        data = content.encode() if isinstance(content, str) else content
        temporary = f".{path.name}.{token_hex(8)}"
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._must_own(directory, path.parent)
            try:
                self._write_new(temporary, data, directory)
                os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=directory)
                raise
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write_new(self, name: str, data: bytes, directory: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
            file.write(data)
            file.flush()
            if self.drops_privileges:
                os.fchown(file.fileno(), self.uid, self.gid)
            os.fsync(file.fileno())

    def read_file(self, path: Path) -> str:
        """The text of a file of the account's; links are not followed. Raises ``FileNotFoundError``."""
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW)) as file:
            self._must_own(file.fileno(), path)
            return file.read()

    def _must_own(self, descriptor: int, path: Path) -> None:
        if os.fstat(descriptor).st_uid != self.uid:
            raise EngineError(f"{path} does not belong to the account {self.name!r}")


def sync_directory(path: Path) -> None:
    """Make names created, renamed or removed in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_name() -> str:
    """Of the account that we run under, and the router with us. Raises ``EngineError``."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise EngineError(f"user id {os.geteuid()} has no entry in the password database") from None


def engine_account(configured: str | None = None) -> EngineAccount:
    """The account to use here. Raises ``EngineError`` when the configured one cannot be used or none can be made."""
    if os.geteuid() != 0:
        return _own_account(configured)
    if configured is not None:
        try:
            entry = pwd.getpwnam(configured)
        except KeyError:
            raise EngineError(f"the account {configured!r} that shall run the servers does not exist") from None
        if entry.pw_uid == 0:
            raise EngineError(f"the account {configured!r} is root's, and PostgreSQL refuses to run as root")
        return _other_account(entry)
    for name in PREFERRED_ACCOUNTS:
        try:
            return _other_account(pwd.getpwnam(name))
        except KeyError:
            continue
    return _create_account(PREFERRED_ACCOUNTS[0])


def _own_account(configured: str | None) -> EngineAccount:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        # Usual in containers. PostgreSQL's client programs ask for the name, so it is said here rather than by initdb.
        raise EngineError(
            f"user id {uid} has no entry in the password database, which PostgreSQL's programs need"
        ) from None
    if configured is not None and configured != name:
        raise EngineError(f"running as {name!r}: only root can run the servers as {configured!r}")
    return EngineAccount(name=name, uid=uid, gid=os.getegid(), drops_privileges=False)


def _other_account(entry: pwd.struct_passwd) -> EngineAccount:
    return EngineAccount(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid, drops_privileges=True)


def _create_account(name: str) -> EngineAccount:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise EngineError(f"running as root without an account for the servers: create a system account {name!r}")
    command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return _other_account(pwd.getpwnam(name))
    except KeyError:
        raise EngineError(f"cannot create the system account {name!r}: {made.stderr.strip()}") from None
