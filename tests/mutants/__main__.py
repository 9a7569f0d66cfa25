"""``uv run python -m tests.mutants``: plants every mutant and fails if one survives.

First the tests have to pass on the product as it is: else their failures would prove nothing."""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.catalogue import MUTANTS, Mutant
from tests.mutants.plant import NotFound, Verdict, mutated, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="only mutants whose names contain one of these")
    parser.add_argument("--fast", action="store_true", help="without those that need real servers")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not (options.fast and mutant.slow)
        and (not options.names or any(name in mutant.name for name in options.names))
    ]
    try:
        for mutant in MUTANTS:
            mutated(mutant)
    except NotFound as error:
        print(error)
        return 2
    suites = sorted({suite for mutant in chosen for suite in mutant.suites})
    unmutated = run("the product as it is", suites, None)
    if unmutated.caught:
        print(f"the tests fail without any mutant:\n{unmutated.said}")
        return 2
    print(f"{len(suites)} suites pass on the product as it is ({unmutated.seconds:.0f} s)", flush=True)
    return _report(_plant(chosen, options.jobs))


def _plant(mutants: Sequence[Mutant], jobs: int) -> list[Verdict]:
    verdicts = []
    with ThreadPoolExecutor(jobs) as pool:
        for verdict in pool.map(lambda mutant: run(mutant.name, mutant.suites, mutant), mutants):
            print(
                f"{'caught  ' if verdict.caught else 'SURVIVED'}  {verdict.seconds:6.1f} s  {verdict.name}", flush=True
            )
            verdicts.append(verdict)
    return verdicts


def _report(verdicts: Sequence[Verdict]) -> int:
    survivors = [verdict for verdict in verdicts if not verdict.caught]
    print(f"{len(verdicts)} mutants, {len(verdicts) - len(survivors)} caught, {len(survivors)} survived")
    for verdict in survivors:
        print(f"{verdict.name}: passed {', '.join(verdict.suites)}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
