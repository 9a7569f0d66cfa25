"""The router's process from the outside: attach to it, start it, stop it."""

import asyncio
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
from verdigris.router.paths import RouterPaths
from verdigris.router.run import Loop, ProcessRecord, started_ticks

log = structlog.get_logger()

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02


class RouterProcess:
    """The router of one state directory. It runs in a session of its own and survives whoever started it."""

    def __init__(self, home: Path, loop: Loop = Loop.AUTO) -> None:
        self._home = home.absolute()
        self._loop = loop
        self._paths = RouterPaths(self._home)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the router that runs now."""
        if self._child is not None:
            self._child.poll()  # or a child that has died stays a zombie
        try:
            record = msgspec.json.decode(self._paths.record.read_bytes(), type=ProcessRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return record.pid if started_ticks(record.pid) == record.started_ticks else None

    async def ensure_running(self, *, timeout_s: float = START_TIMEOUT_S) -> int:
        """Attach to the router if it is alive, else start it; its pid. Raises ``VerdigrisError`` with the end of its
        log if it does not come up."""
        self._paths.check()
        pid = self.pid
        if pid is None:
            self._start()
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
        log.info("router.attached" if pid == running else "router.launched", pid=running)
        return running

    @staticmethod
    def command(home: Path, loop: Loop = Loop.AUTO) -> list[str]:
        return [sys.executable, "-m", "verdigris.router", "--home", os.fspath(home), "--loop", loop]

    def _start(self) -> None:
        self._paths.log.parent.mkdir(parents=True, exist_ok=True)
        with self._paths.log.open("ab") as output:
            self._child = subprocess.Popen(
                self.command(self._home, self._loop),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )

    async def _answers(self) -> bool:
        try:
            # Epoch 0 commands nothing once a controller has been there, but a refusal is an answer too.
            await RouterClient(self._home, epoch=0).statistics()
        except RouterUnavailable:
            return False
        except VerdigrisError:
            return True
        return True

    def _last_words(self) -> str:
        try:
            return self._paths.log.read_text(errors="replace")[-500:].strip()
        except FileNotFoundError:
            return "it has written no log"

    async def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End it politely, then not. Nothing happens if it does not run."""
        for number in (signal.SIGTERM, signal.SIGKILL):
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
