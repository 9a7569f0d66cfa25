"""The runs of one process, one after the other on servers that they share as long as nothing is wrong with them."""

import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tests.faults.schedule import Run
from tests.faults.stage import Stage, stage
from tests.faults.trial import Result, Stuck, Trial


def work(job: int, runs: Sequence[Run], seed: int, results: Path) -> None:
    """One job. Servers that a violation has been seen on are kept in words (logs) and not used again."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))
    commit = _commit()
    left = list(runs)
    while left:
        with ExitStack() as stack:
            here = stack.enter_context(stage(job))
            while left:
                run = left.pop(0)
                if not _one(here, run, seed, results, commit):
                    break
            else:
                here.clear()


def _one(here: Stage, run: Run, seed: int, results: Path, commit: str) -> bool:
    """Whether its servers can be used for another one."""
    began_at = time.monotonic()
    print(f"{run} ...", flush=True)
    trial = Trial(here, run)
    try:
        trial.conduct()
    except Stuck:
        pass
    except Exception as error:
        # The driver's own, or servers that an earlier run has left unwell: to be looked at.
        traceback.print_exc()
        trial.counts = f"broke off: {type(error).__name__}: {str(error)[:1500]}"
    result = trial.result(seed, took_s=time.monotonic() - began_at, commit=commit)
    _append(results, result)
    print(f"{run}: {result.outcome}; settled {result.settled_s} s; {result.counts or 'counts'}", flush=True)
    for violation in result.violations:
        print(f"  VIOLATION {violation}", flush=True)
    unwell = bool(result.violations) or result.counts.startswith("broke off")
    if unwell:
        _keep(here, trial, results.with_suffix("") / f"seed-{seed}-run-{run.number}-{int(time.time())}")
    shutil.rmtree(trial.ledgers, ignore_errors=True)
    return not unwell


def _append(results: Path, result: Result) -> None:
    with results.open("ab") as file:
        file.write(msgspec.json.encode(result) + b"\n")


def _keep(here: Stage, trial: Trial, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for path in [*(here.home / "log").glob("*.log"), here.home / "serve.out", here.home / "router" / "routes.json"]:
        shutil.copy(path, directory)
    for path in (here.home / "instances").glob("*/log/*.log"):
        shutil.copy(path, directory / f"{path.parents[1].name}.log")
    for path in trial.ledgers.glob("*.ledger"):
        shutil.copy(path, directory)


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - whichever git there is
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip()
