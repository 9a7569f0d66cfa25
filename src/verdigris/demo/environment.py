"""A Verdigris of its own: a throw-away state directory, its control plane as a child, and the way out again."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import msgspec

from verdigris.demo.polling import NotInTime, wait_until
from verdigris.workflows.timeline import TimelineRecord

REGION = "us-east-1"
START_TIMEOUT_S = 60
DOWN_TIMEOUT_S = 120
LEFTOVERS_TIMEOUT_S = 10


class DemoFailed(Exception):
    """A step did not come about. Its text is fit for the user."""


class Environment:
    """``start`` … ``stop`` and ``remove``. As root the directory lets the engines' own account pass through."""

    def __init__(self) -> None:
        # Short: unix sockets lie deep inside.
        self.home = Path(tempfile.mkdtemp(prefix="vg-"))
        self.home.chmod(0o711)
        self.access_key_id = "VDKADEMO" + secrets.token_hex(6).upper()
        self.secret_access_key = secrets.token_urlsafe(30)
        self.endpoint_url = ""
        self._serve: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.home / "log" / "serve.log"

    @property
    def output_path(self) -> Path:
        """What the control plane wrote to its terminal."""
        return self.home / "serve.out"

    @property
    def ledgers(self) -> Path:
        return self.home / "ledgers"

    def start(self) -> None:
        """Run ``verdigris serve`` until it is ready. Raises ``DemoFailed`` with its last words if it is not."""
        port = _free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        with self.output_path.open("wb") as output:
            # In a session of its own: a Ctrl-C at the terminal must not stop it before the demo has cleaned up.
            self._serve = subprocess.Popen(
                [sys.executable, "-m", "verdigris", "serve", "--port", str(port)],
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until(self._is_ready, START_TIMEOUT_S, what="the control plane is ready", interval_s=0.05)
        except NotInTime as error:
            raise DemoFailed(f"{error}\n{self._last_words()}") from None

    def stop(self, *, leftovers_timeout_s: float = LEFTOVERS_TIMEOUT_S) -> list[str]:
        """``verdigris down``; returns the command lines of processes that still run after it, having ended them."""
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-m", "verdigris", "down"],
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=DOWN_TIMEOUT_S,
                check=False,  # what it left behind is looked for below, whatever it says
            )
        self._stop_control_plane()
        with suppress(NotInTime):
            wait_until(lambda: not self._processes(), leftovers_timeout_s, what="everything has ended")
        leftovers = self._processes()
        for pid in leftovers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [f"{pid}: {command}" for pid, command in leftovers.items()]

    def remove(self) -> None:
        shutil.rmtree(self.home)

    # -- pieces

    def _variables(self) -> dict[str, str]:
        # Not the caller's VERDIGRIS_ variables: the demo must not touch an installation that is in use.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VERDIGRIS_")}
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            **inherited,
            **kept,
            "VERDIGRIS_HOME": str(self.home),
            "VERDIGRIS_ACCESS_KEY_ID": self.access_key_id,
            "VERDIGRIS_SECRET_ACCESS_KEY": self.secret_access_key,
            "VERDIGRIS_REGION": REGION,
        }

    def _is_ready(self) -> bool:
        if self._serve is None or self._serve.poll() is not None:
            raise DemoFailed(f"the control plane ended at once\n{self._last_words()}")
        try:
            with urllib.request.urlopen(f"{self.endpoint_url}/healthz", timeout=5) as answer:  # noqa: S310 - our own URL
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _stop_control_plane(self) -> None:
        if self._serve is None:
            return
        if self._serve.poll() is None:
            self._serve.terminate()
        try:
            self._serve.wait(20)
        except subprocess.TimeoutExpired:
            self._serve.kill()
            self._serve.wait()

    def _last_words(self) -> str:
        return self.output_path.read_text(errors="replace")[-2_000:].strip()

    def _processes(self) -> dict[int, str]:
        """Pid and command line of whatever works in, or was started for, the state directory."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                working_directory = str((entry / "cwd").readlink())
                if str(self.home) in command or working_directory.startswith(str(self.home)):
                    found[int(entry.name)] = command
        return found


# Where the engines come from is the machine's business, not an installation's.
_PASSED_ON = ("VERDIGRIS_ENGINE_ACCOUNT", "VERDIGRIS_ENGINE_CACHE", "VERDIGRIS_ENGINE_DIRECTORY")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def switchover_timeline(log_path: Path) -> TimelineRecord | None:
    """Of the last switchover that was completed, from the control plane's log; None where it says nothing."""
    found = None
    with suppress(FileNotFoundError), log_path.open("rb") as log:
        for line in log:
            with suppress(msgspec.DecodeError):  # of which ``ValidationError`` is one
                event = msgspec.json.decode(line, type=dict)
                if event.get("event") == "switchover.completed":
                    found = msgspec.convert(event.get("timeline"), TimelineRecord)
    return found
