"""Faults at every step of every workflow, on real servers under load.

    uv run python -m tests.faults --seed 1 --runs 300 --jobs 2
    uv run python -m tests.faults --seed 1 --runs 300 --only 17        the same run once more, on servers of its own
    uv run python -m tests.faults --report

Every run adds a line of JSON to the results; a campaign that was interrupted goes on where it was. Ends with 1 if a
promise was broken. Filling disks wants the right to mount (root); without it those runs are left out.
"""

import argparse
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.acceptance.disks import can_mount
from tests.faults.job import work
from tests.faults.points import Scene
from tests.faults.report import read_results, report, what, what_of
from tests.faults.schedule import NEED_MOUNTS, Fault, campaign, describe, in_order


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.report:
        print(report(read_results(options.results)))
        return 0
    faults = [fault for fault in options.fault or Fault if can_mount() or fault not in NEED_MOUNTS]
    runs = campaign(
        options.seed, options.runs, faults=faults, steps=options.step or (), scenes=options.scene or tuple(Scene)
    )
    if options.only is not None:
        runs = [run for run in runs if run.number in options.only]
    else:
        # By what was struck: the numbers are those of a version, whose workflows have the steps that they have.
        done = {what(r) for r in read_results(options.results) if r.seed == options.seed and not r.counts}
        runs = [run for run in runs if what_of(run) not in done]
    if options.list:
        print(describe(runs))
        return 0
    shares = in_order(runs, options.jobs)
    jobs = [
        multiprocessing.get_context("spawn").Process(target=work, args=(n, share, options.seed, options.results))
        for n, share in enumerate(shares)
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))
    for job in jobs:
        job.start()
    try:
        for job in jobs:
            job.join()
    finally:
        for job in jobs:
            job.terminate()  # which ends its servers as well
            job.join()
    asked = {what_of(run) for run in runs}
    mine = [r for r in read_results(options.results) if r.seed == options.seed and what(r) in asked]
    print(f"{len(mine)} runs, {sum(not r.counts for r in mine)} of them count")
    return 1 if any(r.violations for r in mine) or any(job.exitcode for job in jobs) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="of the campaign: which fault strikes where")
    parser.add_argument("--runs", type=int, default=300, help="length of the campaign")
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these runs of the campaign, done or not")
    parser.add_argument("--fault", type=Fault, nargs="+", metavar="FAULT", help="; ".join(Fault))
    parser.add_argument("--step", nargs="+", metavar="STEP", help="names of steps, as --list shows them")
    parser.add_argument("--scene", type=Scene, nargs="+", metavar="SCENE", help="; ".join(Scene))
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, each on servers of its own")
    parser.add_argument("--results", type=Path, default=Path("fault-results.jsonl"), metavar="FILE")
    parser.add_argument("--list", action="store_true", help="what would be run")
    parser.add_argument("--report", action="store_true", help="print the tables of docs/reliability.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
