"""What the benchmarks share as commands: exit codes, interruption, a directory of their own, notes on progress."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

EXIT_INTERRUPTED = 130


def run(benchmark: Callable[[], None]) -> int:
    """The exit code: 0 however slow it was, 130 when interrupted. An error is raised, which Python exits with 1 for.

    SIGTERM does what Ctrl-C does, so that either way everything that was started is stopped. Both are heard even where
    a shell that put us into the background has SIGINT ignored.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, _as_interrupt),
    }
    try:
        benchmark()
    except KeyboardInterrupt:
        note("interrupted; everything that was started has been stopped")
        return EXIT_INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


@contextmanager
def undisturbed() -> Iterator[None]:
    """For cleaning up: an impatient second Ctrl-C must not leave servers behind."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def state_directory() -> Iterator[Path]:
    """An empty one, with a path short enough for unix sockets, through which engine accounts can pass."""
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="vgb-")))
    home.chmod(0o711)
    try:
        yield home
    finally:
        with undisturbed():
            shutil.rmtree(home, ignore_errors=True)


def note(text: str) -> None:
    """Progress goes to standard error: standard output holds the report alone."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
