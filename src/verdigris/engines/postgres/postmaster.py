"""The running postmaster of a data directory: finding it, starting it, stopping it."""

import asyncio
import os
import signal
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import structlog

from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount
from verdigris.engines.installations import Installation
from verdigris.engines.logfile import LogFile
from verdigris.engines.process import Process

log = structlog.get_logger(__name__)

PORT = 5432
_POLL_S = 0.01
# For an immediate shutdown, and for a kill: after the first comes the second, after the second nothing helps.
FORCE_S = 10.0
# Idle orphans notice their postmaster's death at once.
_ORPHAN_GRACE_S = 2.0


class StopMode(Enum):
    """The manual's shutdown modes. None of them loses a commit; IMMEDIATE makes the next start recover from WAL."""

    SMART = signal.SIGTERM
    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT


class Postmaster:
    """Looks at the data directory each time, so it tells the truth whoever started or stopped the server.

    A postmaster is recognised by ``postmaster.pid`` and by its command line, which names the data directory: that
    survives the death of the control plane at any moment, needs no record of our own that could be out of date, and
    no backend (their titles are rewritten) and no later process of the same number can be taken for it.
    """

    def __init__(self, *, data_dir: Path, socket_dir: Path, log_path: Path, account: EngineAccount) -> None:
        self.data_dir = data_dir
        self.socket_dir = socket_dir
        self.log = LogFile(log_path)
        self._account = account

    def find(self) -> Process | None:
        """The running postmaster, by its lock file. The caller closes what it gets."""
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():  # a single-user server writes a negative number
            return None
        return Process.open(int(lines[0]), self._is_postmaster)

    def _find_anywhere(self) -> Process | None:
        """As ``find``; also one so young that it has no lock file yet (its starter was cancelled or died)."""
        return self.find() or next((p for pid in _pids() if (p := Process.open(pid, self._is_postmaster))), None)

    def is_ready(self, process: Process) -> bool:
        """Whether it accepts connections. Same source as pg_ctl: line 8 of postmaster.pid (pidfile.h)."""
        return self._status(process) == "ready"

    async def start(self, installation: Installation, options: Sequence[str] = ()) -> Process:
        """Run it and return when it accepts connections; adopts one that runs already.

        Recovery may take long, so the limit is the caller's. Raises ``EngineError`` with the end of the log when the
        server gives up. Cancelled, it leaves the server starting: a later call finds it, ``stop`` ends it.
        """
        process = self._find_anywhere()
        if process is not None and self._status(process) == "stopping":
            await process.wait()
            process.close()
            process = None
        log_start = 0
        if process is None:
            await self._clear_remains()
            self.log.rotate_if_large()
            log_start = self.log.size()
            process = Process.spawn(
                self._command(installation, options),
                account=self._account,
                env=self._account.environment(installation.environment()),
                log=self.log.path,
            )
            log.info("server.started", data_dir=str(self.data_dir), pid=process.pid, version=installation.version)
        try:
            await self._until_ready(process, log_start)
        except BaseException:
            process.close()
            raise
        return process

    async def stop(self, mode: StopMode = StopMode.FAST, *, timeout_s: float = 60) -> None:
        """End it. Past the limit it is ended by force, frozen or not: WAL makes up for that at the next start."""
        process = self._find_anywhere()
        if process is None:
            return
        try:
            process.signal(mode.value)
            if await process.ended_within(timeout_s):
                return
            log.warning("server.stop_forced", data_dir=str(self.data_dir), pid=process.pid, waited_s=timeout_s)
            process.signal(StopMode.IMMEDIATE.value)
            if await process.ended_within(FORCE_S):
                return
        finally:
            process.close()
        # Frozen ones among its children would not notice its death.
        await self._end([p for pid in _pids() if (p := Process.open(pid, self._serves_us))], grace_s=0)

    def signal(self, number: signal.Signals) -> bool:
        """False if there is no postmaster."""
        process = self.find()
        if process is None:
            return False
        try:
            return process.signal(number)
        finally:
            process.close()

    async def _clear_remains(self) -> None:
        """After a postmaster's violent death: end its orphans, and remove lock files that PostgreSQL would not.

        PostgreSQL itself clears a lock file whose process is gone, but takes one whose number now belongs to another
        process of the same account (usual after a restart of the machine) for a living postmaster. An orphaned
        backend holds the shared memory, and with a long query may do so for hours; nobody can use what it does.
        Every server process stays in the data directory it serves, which is how they are found.
        """
        locks = [self.data_dir / "postmaster.pid", *self.socket_dir.glob(".s.PGSQL.*")]
        if not any(path.exists() for path in locks):
            return
        await self._end([p for pid in _pids() if (p := Process.open(pid, self._serves_us))], grace_s=_ORPHAN_GRACE_S)
        for path in locks:
            path.unlink(missing_ok=True)

    async def _end(self, processes: list[Process], *, grace_s: float) -> None:
        try:
            for process in processes:
                if grace_s <= 0 or not await process.ended_within(grace_s):
                    process.signal(signal.SIGKILL)
                    grace_s = 0
            for process in processes:
                if not await process.ended_within(FORCE_S):
                    raise EngineError(f"process {process.pid} of {self.data_dir} does not end, not even by SIGKILL")
        finally:
            for process in processes:
                process.close()

    async def _until_ready(self, process: Process, log_start: int) -> None:
        while not self.is_ready(process):
            if not process.is_alive():
                raise EngineError(f"the server did not start: {self.log.causes(log_start)}")
            await asyncio.sleep(_POLL_S)

    def _command(self, installation: Installation, options: Sequence[str]) -> list[str]:
        # Given here, not in a file: a file travels with a physical copy, and ALTER SYSTEM could override it.
        return [
            installation.program("postgres"),
            "-D", str(self.data_dir),
            "-k", str(self.socket_dir),
            "-p", str(PORT),
            "-c", "listen_addresses=",
            "-c", "unix_socket_permissions=0700",
            *options,
        ]  # fmt: skip

    def _pid_file(self) -> list[str]:
        try:
            return (self.data_dir / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _status(self, process: Process) -> str | None:
        lines = self._pid_file()
        return lines[7].strip() if len(lines) >= 8 and lines[0] == str(process.pid) else None

    def _is_postmaster(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        # pg_ctl, which pg_upgrade uses, starts it with the same first arguments.
        return arguments[0].endswith(b"/postgres") and arguments[1:3] == [b"-D", os.fsencode(self.data_dir)]

    def _serves_us(self, pid: int) -> bool:
        """Postmaster or backend of this data directory."""
        try:
            return (
                Path(f"/proc/{pid}").stat().st_uid == self._account.uid
                and Path(f"/proc/{pid}/cwd").readlink() == self.data_dir
                and Path(f"/proc/{pid}/exe").readlink().name.startswith("postgres")
            )
        except OSError:
            return False


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
