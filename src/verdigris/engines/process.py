"""Processes that outlive the control plane, and programs that do not.

A process is held by a pidfd. Once that is open and the process behind it has been recognised, signals and waits go
through it and can never hit a later process of the same number; pid and start time (``/proc/PID/stat``, field 22) are
for recognising it, for logs and for people.

``asyncio``'s own subprocess support is not used: its children belong to a loop (a server outlives it), and uvloop's
variant cannot change the user.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from msgspec import Struct

from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount


class ProcessIdentity(Struct, frozen=True):
    """``started_ticks`` counts clock ticks from the machine's start to the process's."""

    pid: int
    started_ticks: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """None when there is no such process, or only its unreaped remains."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The second field, the program's name in parentheses, may itself hold spaces and parentheses.
        fields = stat[stat.rindex(")") + 2 :].split()
        return None if fields[0] in ("Z", "X") else cls(pid, int(fields[19]))


# Children by pid, so that one that is looked at again as a stranger is still reaped. Children belong to the whole
# process by nature, hence a global.
_children: "dict[int, subprocess.Popen[bytes]]" = {}


def _reap_children() -> None:
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


class Process:
    """A running process, ours by birth or adopted. Close it when it is of no more interest; that does not end it."""

    def __init__(self, identity: ProcessIdentity, pidfd: int, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.identity = identity
        self._pidfd = pidfd
        self._child = child

    def __repr__(self) -> str:
        return f"<Process {self.pid} {'child' if self._child else 'adopted'}>"

    @property
    def pid(self) -> int:
        return self.identity.pid

    @classmethod
    def open(cls, pid: int, recognise: Callable[[int], bool]) -> "Process | None":
        """Adopt ``pid`` if it lives and ``recognise(pid)``, asked after the pidfd was opened, says it is the one."""
        try:
            pidfd = os.pidfd_open(pid)
        except (ProcessLookupError, OverflowError, ValueError):
            return None
        try:
            identity = ProcessIdentity.of(pid)
            if identity is not None and recognise(pid):
                process = cls(identity, pidfd, _children.get(pid))
                # It may have ended, and its number been taken, before recognise() looked: then the pidfd knows.
                if process.is_alive():
                    return process
        except BaseException:
            os.close(pidfd)
            raise
        os.close(pidfd)
        return None

    @classmethod
    def spawn(cls, command: Sequence[str], *, account: EngineAccount, env: Mapping[str, str], log: Path) -> "Process":
        """Start detached: own session, output appended to ``log``, nothing of ours inherited."""
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            return cls._start(command, account=account, env=env, cwd="/", stdout=output, stderr=output)
        finally:
            os.close(output)

    @classmethod
    def _start(
        cls,
        command: Sequence[str],
        *,
        account: EngineAccount,
        env: Mapping[str, str],
        cwd: str,
        stdout: int,
        stderr: int,
        stdin: int = subprocess.DEVNULL,
    ) -> "Process":
        try:
            child = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                **account.process_options(),
            )
        except OSError as error:
            raise EngineError(f"cannot run {command[0]} as {account.name}: {error.strerror}") from error
        _reap_children()
        _children[child.pid] = child
        # Until it is reaped the child keeps its number, so neither call can meet another process.
        pidfd = os.pidfd_open(child.pid)
        return cls(ProcessIdentity.of(child.pid) or ProcessIdentity(child.pid, 0), pidfd, child)

    @property
    def exit_status(self) -> int | None:
        """Of a child that has ended: its code, or minus the signal that killed it. None for an adopted process."""
        return self._child.poll() if self._child else None

    def is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except ProcessLookupError:
            return False
        # The remains of somebody else's child can still be signalled.
        return ProcessIdentity.of(self.pid) == self.identity

    def signal(self, number: signal.Signals) -> bool:
        """False if the process has ended."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    async def wait(self) -> None:
        """Return when the process has ended. Several tasks may wait."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        # A loop knows one reader for each descriptor, so every waiter brings its own.
        descriptor = os.dup(self._pidfd)
        try:
            loop.add_reader(descriptor, _settle, ended)
            await ended
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        _reap_children()

    async def ended_within(self, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait()
        except TimeoutError:
            return False
        return True

    def kill_session(self) -> None:
        """SIGKILL for a child that leads its own session and for what it started there."""
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def gentle_prefix() -> list[str]:
    """For the front of a command: last in line for processors, and for disks where the scheduler of the disk minds it
    (ionice(1)). Empty where neither program is there."""
    nice, ionice = shutil.which("nice"), shutil.which("ionice")
    return [*([nice, "-n", "10"] if nice else []), *([ionice, "-c", "2", "-n", "7"] if ionice else [])]


class Completed(Struct, frozen=True):
    """What a program that ran to its end said."""

    exit_status: int
    stdout: str
    stderr: str


async def run_program(
    command: Sequence[str],
    *,
    account: EngineAccount,
    env: Mapping[str, str],
    cwd: Path | None = None,
    timeout_s: float | None = None,
    check: bool = True,
    stdin_text: str = "",
    gently: bool = False,
) -> Completed:
    """Run ``command`` as the account and return what it said. It reads ``stdin_text``. ``gently``: it, and what it
    starts, comes after everybody else for processors and disks.

    Raises ``EngineError`` with the end of its error output if it fails (unless ``check`` is false), or if
    ``timeout_s`` pass; then, and when the caller is cancelled, the program and its children are killed and reaped.
    """
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(stdin_text.encode())
        stdin.seek(0)
        process = Process._start(
            [*(gentle_prefix() if gently else ()), *command],
            account=account,
            env=env,
            cwd=str(cwd or "/"),
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
        )
        try:
            async with asyncio.timeout(timeout_s):
                await process.wait()
        except TimeoutError:
            raise EngineError(f"{Path(command[0]).name} did not finish within {timeout_s:g} s") from None
        finally:
            status = await _reap(process)
        stdout.seek(0)
        stderr.seek(0)
        completed = Completed(status, stdout.read().decode(errors="replace"), stderr.read().decode(errors="replace"))
    if check and status != 0:
        raise EngineError(f"{Path(command[0]).name} failed ({_describe(status)}): {tail(completed)}")
    return completed


async def _reap(process: Process) -> int:
    if process.is_alive():
        process.kill_session()
        # A killed process ends at once, unless it hangs in the kernel: not worth making a cancelled caller wait.
        await asyncio.shield(process.ended_within(5))
    status = process.exit_status
    process.close()
    return -signal.SIGKILL if status is None else status


def _describe(exit_status: int) -> str:
    if exit_status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-exit_status).name
    return f"exit status {exit_status}"


def tail(completed: Completed, limit: int = 2000) -> str:
    """The end of the error output, or of the output where programs (pg_upgrade, initdb) put their complaint there."""
    return (completed.stderr.strip() or completed.stdout.strip())[-limit:] or "it said nothing"
