"""``uv run python -m tests.simulation --seeds 1000000``, ``--singles``, ``--doubles``; ``--seed 17`` replays one.

Every run is printed whose promises broke, with what repeats it; the command then fails.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.campaign import Summary, campaign, doubles, job_of, quiet, seeds, singles
from tests.simulation.faults import Fault
from tests.simulation.run import Result, simulate
from tests.simulation.scenarios import SCENARIOS

_CHUNK = 2500
_SHARES = 16


def main() -> int:
    options = _options()
    if options.seed is not None:
        with quiet():
            scenario, plan, seed = job_of(options.seed)
            return _show(simulate(scenario, plan, seed, traced=True))
    if options.plan is not None:
        scenario = next(found for found in SCENARIOS if found.name == options.scenario)
        with quiet():
            return _show(simulate(scenario, tuple(map(Fault.parse, options.plan)), traced=True))
    total = Summary()
    for part in _parts(options):
        total = _sum(total, part)
        print(f"{total.runs:>9} runs, {total.faults} faults, {len(total.violations)} violations", flush=True)
    print(f"settled within {total.longest_s:.1f} s of the last fault (virtual); {total.seconds:.0f} s of work")
    for outcome, count in sorted(total.outcomes.items()):
        print(f"{count:>9}  {outcome}")
    for result in total.violations:
        print(f"{result.scenario}, {_again(result)}: {result.violation}")
    return 1 if total.violations else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, help="run so many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one and print what happened")
    parser.add_argument("--singles", action="store_true", help="every single fault at every point")
    parser.add_argument("--doubles", action="store_true", help="every pair of faults (of --scenario)")
    parser.add_argument("--every", type=int, default=1, help="of the first faults of pairs, only one of so many")
    parser.add_argument("--scenario", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--plan", nargs="*", help="faults such as crash:12 or lease_lost:7:after, in --scenario")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def _again(result: Result) -> str:
    if result.seed:
        return f"--seed {result.seed}"
    plan = " ".join(fault.told() for fault in result.plan)
    return f"--scenario '{result.scenario}' --plan {plan}"


def _parts(options: argparse.Namespace) -> Iterator[Summary]:
    with ProcessPoolExecutor(options.jobs) as pool:
        if options.seeds is not None:
            starts = range(options.first, options.first + options.seeds, _CHUNK)
            ends = options.first + options.seeds
            yield from pool.map(_seeds, starts, [min(_CHUNK, ends - start) for start in starts])
        names = [found.name for found in SCENARIOS if options.scenario in (None, found.name)]
        if options.singles:
            yield from pool.map(_singles, names)
        if options.doubles:
            shares = [(name, options.every * _SHARES, n * options.every) for name in names for n in range(_SHARES)]
            yield from pool.map(_doubles, *zip(*shares, strict=True))


def _seeds(first: int, count: int) -> Summary:
    return campaign(seeds(first, count))


def _singles(name: str) -> Summary:
    return campaign(singles([found for found in SCENARIOS if found.name == name]))


def _doubles(name: str, every: int, offset: int) -> Summary:
    found = [found for found in SCENARIOS if found.name == name]
    return campaign(doubles(found, first=slice(offset, None, every)))


def _sum(total: Summary, part: Summary) -> Summary:
    return Summary(
        runs=total.runs + part.runs,
        faults=total.faults + part.faults,
        seconds=total.seconds + part.seconds,
        longest_s=max(total.longest_s, part.longest_s),
        outcomes=total.outcomes + part.outcomes,
        violations=total.violations + part.violations,
    )


def _show(result: Result) -> int:
    print("\n".join(result.trace or ()))
    print(f"{result.scenario}: {result.outcome}; {result.violation or 'every promise was kept'}")
    return 1 if result.violation else 0


if __name__ == "__main__":
    sys.exit(main())
