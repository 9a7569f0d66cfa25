"""Which faults strike where, drawn from a seed: the same seed always makes the same campaign."""

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from tests.faults.points import AFTER_RESTART, Moment, Point, Scene, every_point, goes_on
from verdigris.domain.statuses import ReplicationMode
from verdigris.domain.switchover import Step


class Fault(StrEnum):
    """*Stopped* is SIGSTOP for a while, *killed* is SIGKILL."""

    CONTROL_PLANE_KILLED = "control plane killed"
    CONTROL_PLANE_STOPPED = "control plane stopped"
    TWO_CONTROL_PLANES = "two control planes at once"
    CLOCK_FORWARD = "clock jumps forward"
    CLOCK_BACK = "clock jumps back"
    STATE_FULL = "state directory's disk full"
    STATE_LOCKED = "state database locked"
    LINK_CUT = "router's control socket cut"
    ROUTER_KILLED = "router killed"
    ROUTER_STOPPED = "router stopped"
    BLUE_KILLED = "blue killed"
    BLUE_STOPPED = "blue stopped"
    BLUE_FULL = "blue's WAL disk full"
    GREEN_KILLED = "green killed"
    GREEN_STOPPED = "green stopped"
    GREEN_FULL = "green's WAL disk full"
    BOTH_FULL = "disk of both servers full"
    WORKER_KILLED = "replication worker killed"
    WORKER_STOPPED = "replication worker stopped"


NEED_MOUNTS = frozenset({Fault.STATE_FULL, Fault.BLUE_FULL, Fault.GREEN_FULL, Fault.BOTH_FULL})
_NEED_GREEN = frozenset(
    {Fault.GREEN_KILLED, Fault.GREEN_STOPPED, Fault.GREEN_FULL, Fault.WORKER_KILLED, Fault.WORKER_STOPPED}
)
_OF_CONTROL_PLANE = frozenset(
    {
        Fault.CONTROL_PLANE_KILLED,
        Fault.CONTROL_PLANE_STOPPED,
        Fault.TWO_CONTROL_PLANES,
        Fault.CLOCK_FORWARD,
        Fault.CLOCK_BACK,
        Fault.STATE_FULL,
        Fault.STATE_LOCKED,
        Fault.LINK_CUT,
    }
)
_WITH_GREEN = frozenset({Scene.SWITCHOVER, Scene.WAY_BACK, Scene.DELETE, Scene.RELEASE})
# In these, what is done to green is done to the replica; its WAL is on no disk of its own.
_WITH_REPLICA = frozenset({Scene.PROMOTE_REPLICA, Scene.DELETE_REPLICA, Scene.DELETE_SOURCE})

# A pause and a short step take milliseconds; this is for steps that nobody has measured yet.
_LONGEST_STOP_S, _SHORTEST_STOP_S = 4.0, 0.2


class Run(Struct, frozen=True):
    """``share``: how far into the step the fault strikes, if in its middle. ``length_s``: of a fault that ends by
    itself; longer than the router's lease in about half of the runs."""

    number: int
    fault: Fault
    point: Point
    share: float
    length_s: float

    def __str__(self) -> str:
        return f"run {self.number}: {self.fault}, {self.point}"

    @property
    def mode(self) -> ReplicationMode:
        return self.point.mode or ReplicationMode.PHYSICAL

    @property
    def rolls_back(self) -> bool:
        """Most probably: green is there for another run afterwards."""
        if self.point.scene is Scene.WAY_BACK:
            return self.point.step in {step.value for step in AFTER_RESTART}
        return self.point.scene is Scene.SWITCHOVER and not goes_on(self.mode, Step(self.point.step))


def applies(fault: Fault, point: Point) -> bool:
    """Whether there is anything to strike there."""
    if fault in _NEED_GREEN:
        return point.scene in _WITH_GREEN or (point.scene in _WITH_REPLICA and fault is not Fault.GREEN_FULL)
    if fault is Fault.BOTH_FULL:
        return point.scene in (Scene.SWITCHOVER, Scene.CREATE)
    if fault is Fault.BLUE_FULL:
        return point.scene in (Scene.SWITCHOVER, Scene.CREATE, Scene.DELETE)
    return True


def campaign(
    seed: int,
    runs: int,
    *,
    faults: Collection[Fault] = tuple(Fault),
    steps: Collection[str] = (),
    scenes: Collection[Scene] = tuple(Scene),
) -> list[Run]:
    """The control plane's death at every point comes first, then draws from everything else, switchovers above all."""
    rng = random.Random(seed)
    points = [p for p in every_point() if p.scene in scenes and (not steps or p.step in steps)]
    pairs = [(fault, point) for fault in faults for point in points if applies(fault, point)]
    rng.shuffle(pairs)
    first = [pair for pair in pairs if pair[0] is Fault.CONTROL_PLANE_KILLED]
    chosen = first + [pair for pair in _evenly(rng, pairs) if pair[0] is not Fault.CONTROL_PLANE_KILLED]
    while pairs and len(chosen) < runs:
        chosen += chosen
    return [
        Run(number, fault, point, rng.uniform(0.05, 0.95), rng.uniform(_SHORTEST_STOP_S, _LONGEST_STOP_S))
        for number, (fault, point) in enumerate(chosen[:runs])
    ]


def _evenly(rng: random.Random, pairs: Iterable[tuple[Fault, Point]]) -> list[tuple[Fault, Point]]:
    """Every fault as often as the others, two thirds of the time in a switchover."""
    by_fault: dict[Fault, tuple[list[Point], list[Point]]] = defaultdict(lambda: ([], []))
    for fault, point in pairs:
        by_fault[fault][point.scene is Scene.SWITCHOVER].append(point)
    chosen = []
    while by_fault:
        for fault in list(by_fault):
            others, switchovers = by_fault[fault]
            source = switchovers if switchovers and (not others or rng.random() < 2 / 3) else others
            chosen.append((fault, source.pop()))
            if not others and not switchovers:
                del by_fault[fault]
    return chosen


def in_order(runs: Sequence[Run], jobs: int) -> list[list[Run]]:
    """For each job its runs, so arranged that a green is used for as long as switchovers roll back: that blue and green
    are whole then is what the next run on them shows."""
    shares: list[list[Run]] = [[] for _ in range(jobs)]
    cycles = [cycle for mode in ReplicationMode for cycle in _cycles([r for r in runs if r.mode is mode])]
    for cycle in sorted(cycles, key=lambda cycle: min(run.number for run in cycle)):
        min(shares, key=len).extend(cycle)
    return shares


def _cycles(runs: Sequence[Run]) -> list[list[Run]]:
    """Of one mode: a green is made, used and ended."""
    makes = [run for run in runs if run.point.scene is Scene.CREATE]
    uses = [run for run in runs if run.rolls_back]
    others = [run for run in runs if run not in makes and run not in uses]
    count = max(len(makes), len(others), 1)
    each = -(-len(uses) // count)
    cycles = [makes[n : n + 1] + uses[n * each : (n + 1) * each] + others[n : n + 1] for n in range(count)]
    return [cycle for cycle in cycles if cycle]


def describe(runs: Iterable[Run]) -> str:
    return "\n".join(str(run) for run in runs)


__all__ = ["NEED_MOUNTS", "Fault", "Moment", "Run", "applies", "campaign", "describe", "in_order"]
