"""Many runs: every single fault, every pair of faults, and faults drawn from seeds."""

import gc
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from tests.simulation.control_plane import observed_plans
from tests.simulation.faults import OF_STORE, OF_THE_CALL, Fault, Kind, Plan, draw
from tests.simulation.router import fake_sessions
from tests.simulation.run import Result, simulate
from tests.simulation.scenario import Scenario
from tests.simulation.scenarios import SCENARIOS

# A run makes some thousand objects that go by themselves: Python's collector need not look at them after each few.
_COLLECT_EVERY = 1000
# Of seeds. Switchovers are what it is about.
_WEIGHTS = [3 if scenario.timeout_s is not None else 1 for scenario in SCENARIOS]
# Runs are longer than those without a fault, by what has to be undone and resumed.
_REACH = 1.4

_SWITCHOVERS = frozenset(scenario.name for scenario in SCENARIOS if scenario.timeout_s is not None)
_ALL_BUT_CANCEL = tuple(kind for kind in Kind if kind is not Kind.CANCEL)

Job = tuple[Scenario, Plan, int]


@dataclass
class Summary:
    runs: int = 0
    faults: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0  # to settle
    outcomes: Counter[str] = field(default_factory=Counter)
    violations: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.runs += 1
        self.faults += result.struck
        self.outcomes[f"{result.scenario}: {result.outcome}"] += 1
        self.longest_s = max(self.longest_s, result.settled_s)
        if result.violation is not None:
            self.violations.append(result)


@contextmanager
def quiet() -> Iterator[None]:
    """Around many runs: the product's logs go nowhere."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        with fake_sessions(), observed_plans():
            yield
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
        structlog.configure(**before)


def campaign(jobs: Iterable[Job], *, stop_after: int = 5) -> Summary:
    summary, began_at = Summary(), time.process_time()
    with quiet():
        for scenario, plan, seed in jobs:
            summary.add(simulate(scenario, plan, seed))
            if summary.runs % _COLLECT_EVERY == 0:
                gc.collect()
            if len(summary.violations) >= stop_after:
                break
    summary.seconds = time.process_time() - began_at
    return summary


def kinds_at(point: str, scenario: str) -> Iterable[Kind]:
    if point == "commit":
        return OF_STORE
    return Kind if scenario in _SWITCHOVERS else _ALL_BUT_CANCEL


def faults_of(result: Result) -> Iterator[Fault]:
    """Every fault before and after every point that a run came by."""
    for point, name in enumerate(result.points):
        for kind in kinds_at(name, result.scenario):
            yield Fault(point, kind, after=False)
            yield Fault(point, kind, after=True)


def distinct_faults_of(result: Result, *, beyond: int = -1) -> Iterator[Fault]:
    """Those that can make a difference: what befalls others after a point befalls them before the next one."""
    for fault in faults_of(result):
        if fault.point > beyond and (fault.after or fault.kind in OF_THE_CALL or fault.point == 0):
            yield fault


def singles(scenarios: Iterable[Scenario] = SCENARIOS) -> Iterator[Job]:
    """Inside ``quiet``, like the others here."""
    for scenario in scenarios:
        for fault in faults_of(simulate(scenario)):
            yield scenario, (fault,), 0


def doubles(
    scenarios: Iterable[Scenario] = SCENARIOS, *, first: slice = slice(None), second: slice = slice(None)
) -> Iterator[Job]:
    """Each pair: the second at the points that the run with the first one alone comes by after it, which depend on it.
    The slices are for samples, and for sharing the work."""
    for scenario in scenarios:
        for one in list(distinct_faults_of(simulate(scenario)))[first]:
            alone = simulate(scenario, (one,))
            for other in list(distinct_faults_of(alone, beyond=one.point))[second]:
                yield scenario, (one, other), 0


_lengths: dict[str, int] = {}


def job_of(seed: int) -> Job:
    """What a seed stands for. Inside ``quiet``."""
    rng = random.Random(seed)
    scenario = rng.choices(SCENARIOS, _WEIGHTS)[0]
    if scenario.name not in _lengths:
        _lengths[scenario.name] = int(len(simulate(scenario).points) * _REACH)
    return scenario, draw(rng, _lengths[scenario.name]), seed


def seeds(first: int, count: int) -> Iterator[Job]:
    for seed in range(first, first + count):
        yield job_of(seed)
