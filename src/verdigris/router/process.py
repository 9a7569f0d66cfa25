"""The router's process from the outside: attach to it, start it, stop it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import structlog

from verdigris.domain.errors import VerdigrisError
from verdigris.router.client import RouterClient
from verdigris.router.errors import RouterUnavailable
from verdigris.router.limits import Limits
from verdigris.router.paths import RouterPaths
from verdigris.router.record import ProcessRecord, started_ticks
from verdigris.router.run import Loop

log = structlog.get_logger()

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02
_SECRETS = frozenset(
    {
        "VERDIGRIS_SECRET_ACCESS_KEY",
        "VERDIGRIS_TOPICS",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "PGPASSWORD",
    }
)


class RouterProcess:
    """The router of one state directory. It runs in a session of its own and survives whoever started it."""

    def __init__(self, home: Path, loop: Loop = Loop.AUTO, limits: Limits | None = None) -> None:
        self.home = home.absolute()
        self.loop = loop
        self._limits = limits or Limits()
        self._paths = RouterPaths(self.home)
        self._child: subprocess.Popen[bytes] | None = None
        self._former: list[subprocess.Popen[bytes]] = []  # replaced, with clients yet, or waiting to be reaped

    @property
    def pid(self) -> int | None:
        """Of the router that runs now."""
        record = self._record()
        return record.pid if record is not None else None

    def _record(self) -> ProcessRecord | None:
        for child in (self._child, *self._former):
            if child is not None:
                child.poll()  # or a child that has died stays a zombie
        try:
            record = msgspec.json.decode(self._paths.record.read_bytes(), type=ProcessRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return record if started_ticks(record.pid) == record.started_ticks else None

    async def ensure_running(self, *, timeout_s: float = START_TIMEOUT_S) -> int:
        """Attach to the router if it is alive, else start it; its pid. Raises ``VerdigrisError`` with the end of its
        log if it does not come up."""
        self._paths.check()
        pid = self.pid
        started = self._start() if pid is None else None
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._answers():
                    if self._child is not None and self._child.poll() is not None and self.pid is None:
                        raise VerdigrisError(f"the router did not start: {self._last_words()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise VerdigrisError(f"the router does not answer after {timeout_s} s: {self._last_words()}") from None
        running = self.pid
        if running is None:
            raise VerdigrisError(f"the router ended as it started: {self._last_words()}")
        if started is not None and started.pid != running:
            started.kill()  # another one has the seat, and this one must not find it free later
            started.wait()
        log.info("router.attached" if pid == running else "router.launched", pid=running)
        return running

    async def restart(self, *, timeout_s: float = START_TIMEOUT_S) -> int:
        """Have the router replaced by a new process of this program, without its clients noticing; the new pid.

        The router is started if it does not run. Raises ``VerdigrisError`` if the router does not hand over now (a
        switchover is under way) or the new process does not come up: the old one then goes on as before. If it comes up
        and dies when the old one has already left, clients are cut off; another one has been started when this raises.
        """
        self._paths.check()
        before = self._record()
        if before is None:
            return await self.ensure_running(timeout_s=timeout_s)
        said_before = self._log_size()
        successor = self._start(succeed=True)
        trouble = ""
        try:
            async with asyncio.timeout(timeout_s):
                while self.pid != successor.pid and successor.poll() is None:  # noqa: ASYNC110  no event comes from there
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            successor.kill()
            successor.wait()
            trouble = f"the new router did not take over within {timeout_s} s"
        if successor.poll() is None:
            log.info("router.replaced", pid=successor.pid)
            return successor.pid
        ended = f"the new router ended with status {successor.returncode}"
        if await self._is_taken_back(before, timeout_s=timeout_s):
            raise VerdigrisError(trouble or self._last_words(said_before) or ended)
        pid = await self.ensure_running(timeout_s=timeout_s)
        raise VerdigrisError(
            f"{ended} when the old one had left it everything: its clients are cut off."
            f" Another one serves now (pid {pid})"
        )

    async def _is_taken_back(self, before: ProcessRecord, *, timeout_s: float) -> bool:
        """Its successor has died: the old router says on record that it goes on, or ends because it had left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while started_ticks(before.pid) == before.started_ticks:
                    if self.pid is not None:
                        return True
                    await asyncio.sleep(_POLL_S)
        return self.pid is not None

    @staticmethod
    def command(
        home: Path, loop: Loop = Loop.AUTO, limits: Limits | None = None, *, succeed: bool = False
    ) -> list[str]:
        limits = limits or Limits()
        command = [sys.executable, "-m", "verdigris.router", "--home", os.fspath(home), "--loop", loop]
        command += ["--max-connections", str(limits.max_connections), "--max-wait", str(limits.max_wait_s)]
        command += ["--drain", str(limits.drain_s), "--keepalive", str(limits.keepalive_s)]
        return [*command, "--succeed"] if succeed else command

    def _start(self, *, succeed: bool = False) -> "subprocess.Popen[bytes]":
        self._paths.log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as output:
            child = subprocess.Popen(
                self.command(self.home, self.loop, self._limits, succeed=succeed),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        if self._child is not None:
            self._former = [former for former in (*self._former, self._child) if former.poll() is None]
        self._child = child
        return child

    async def _answers(self) -> bool:
        try:
            # Epoch 0 commands nothing once a controller has been there, but a refusal is an answer too.
            await RouterClient(self.home, epoch=0).statistics()
        except RouterUnavailable:
            return False
        except VerdigrisError:
            return True
        return True

    def _log_size(self) -> int:
        try:
            return self._paths.log.stat().st_size
        except FileNotFoundError:
            return 0

    def _last_words(self, since: int = 0) -> str:
        """What the router has said by itself at the end of its log, else the end of its log."""
        try:
            said = self._paths.log.read_bytes()[since:].decode(errors="replace").strip()
        except FileNotFoundError:
            return "it has written no log"
        last = said.rpartition("\n")[2]
        return said[-500:] if last.startswith("{") or not last else last

    async def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it politely, then not. Nothing happens if it does not run."""
        # The last one for a router that has been replaced and comes back when its successor is killed.
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
            pid = self.pid
            if pid is None:
                return
            os.kill(pid, number)
            try:
                async with asyncio.timeout(timeout_s):
                    while self.pid is not None:  # noqa: ASYNC110  nobody tells us of the end of a process that is not ours
                        await asyncio.sleep(_POLL_S)
            except TimeoutError:
                log.warning("router.does_not_stop", pid=pid, signal=number.name)
        raise VerdigrisError("the router's process cannot be ended")


def _environment() -> dict[str, str]:
    """Without the API's key, which is none of the router's business; it lives longer than most."""
    return {name: value for name, value in os.environ.items() if name not in _SECRETS}
