"""A workload's child processes, seen from the parent."""

import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from verdigris.demo.client_process import ProcessPlan, Progress


class WorkloadFailed(Exception):
    """The workload itself could not run: nothing follows about the database."""


class ClientProcess:
    """One child, its last progress, and its standard error for when it fails."""

    def __init__(self, plan: ProcessPlan) -> None:
        self.ledger_path = Path(plan.ledger_path)
        self.progress = Progress()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - read long after this block; closed with the object
        # In a session of its own: a Ctrl-C at the terminal is for the parent, which then closes stdin.
        self._child = subprocess.Popen(
            [sys.executable, "-m", "verdigris.demo.client_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._tell(msgspec.json.encode(plan))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def go(self) -> None:
        self._tell(b"")

    def _tell(self, line: bytes) -> None:
        with suppress(BrokenPipeError):  # it has ended already, which ``is_running`` will say
            self._stdin().write(line + b"\n")
            self._stdin().flush()

    def _stdin(self) -> IO[bytes]:
        if self._child.stdin is None:
            raise WorkloadFailed("no pipe to the client process")
        return self._child.stdin

    def _listen(self) -> None:
        for line in self._child.stdout or ():
            self.progress = msgspec.json.decode(line, type=Progress)

    def is_running(self) -> bool:
        return self._child.poll() is None

    def close_stdin(self) -> None:
        with suppress(BrokenPipeError):  # it has ended already, which ``wait`` will see
            self._stdin().close()

    def wait(self, timeout_s: float) -> None:
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._listener.join()

    def kill(self) -> None:
        self._child.kill()
        self.wait(10)
        self.close_stdin()

    def stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-2_000:]
