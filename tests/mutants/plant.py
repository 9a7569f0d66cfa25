"""A copy of the product with one mutant planted, and the tests run against it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from tests.mutants.catalogue import Mutant

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "verdigris"
# A mutant may make a test hang. One that does not end does not pass.
LIMIT_S = 600.0


class NotFound(Exception):
    """The text that a mutant replaces is not there exactly once: it has to be written anew."""


class Verdict(Struct, frozen=True, kw_only=True):
    name: str
    caught: bool
    suites: tuple[str, ...]
    seconds: float
    said: str  # pytest's last lines


def mutated(mutant: Mutant) -> str:
    """The file's text with the mutant in it. Raises ``NotFound``, and ``SyntaxError``: a mutant that cannot be imported
    would be noticed by anything."""
    text = (SOURCE / mutant.file).read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise NotFound(f"{mutant.name}: {found} times in {mutant.file}: {mutant.old!r}")
    changed = text.replace(mutant.old, mutant.new)
    compile(changed, mutant.file, "exec")
    return changed


@contextmanager
def copy_of_the_product(mutant: Mutant | None) -> Iterator[Path]:
    """A directory for ``PYTHONPATH``. The compiled parts come along, and Python's caches."""
    # Engines run as another user, who must be able to pass through.
    with tempfile.TemporaryDirectory(prefix="vg-mutant-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        shutil.copytree(SOURCE, directory / "verdigris")
        if mutant is not None:
            (directory / "verdigris" / mutant.file).write_text(mutated(mutant))
        yield directory


def run(name: str, suites: Sequence[str], mutant: Mutant | None) -> Verdict:
    began_at = time.monotonic()
    with copy_of_the_product(mutant) as directory:
        passed, said = _passes(directory, suites)
    return Verdict(name=name, caught=not passed, suites=tuple(suites), seconds=time.monotonic() - began_at, said=said)


def _passes(directory: Path, suites: Sequence[str]) -> tuple[bool, str]:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *suites]
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    # In a session of its own: what it started ends with it.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return False, f"no end within {LIMIT_S:g} s"
    # 0: all passed, 1: some failed. Anything else is no verdict: a node id that is no more, an import that fails.
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(suites)}: pytest ended with {process.returncode}\n{output[-2000:]}")
    return process.returncode == 0, output[-1500:]
