"""What is killed when, drawn from a seed: the same seed always makes the same plan."""

import random
from enum import StrEnum

from msgspec import Struct


class Victim(StrEnum):
    CONTROL_PLANE = "control plane"
    ROUTER = "router"
    SOURCE = "blue's server"
    TARGET = "green's server"


class Blow(Struct, frozen=True):
    """``after_s`` counts from the moment at which the log shows ``phase``."""

    victim: Victim
    phase: str
    after_s: float


class Schedule(Struct, frozen=True):
    seed: int
    logical: bool
    blows: tuple[Blow, ...]  # one for each attempt at the switchover; what comes after the last one is left in peace

    @property
    def spares_clients(self) -> bool:
        """Whoever loses the process at the other end of a connection loses the connection; nobody else may."""
        return all(blow.victim is Victim.CONTROL_PLANE for blow in self.blows)


# In the order in which they go by. Those after the pause began are the interesting ones, so they are drawn more often.
_PHASES = ("check_guardrails", "prepare", "ready_sessions", "park", "park", "fence_source", "hand_over")
# A pause takes some tens of milliseconds: long enough to reach beyond it, short enough to hit within it.
_LATEST_S = 0.12


def draw(seed: int) -> Schedule:
    rng = random.Random(seed)
    logical = rng.random() < 0.5
    blows = []
    for _ in range(rng.choice((1, 1, 2))):
        victim = rng.choices(list(Victim), weights=(5, 1, 1, 2))[0]
        blows.append(Blow(victim, rng.choice(_PHASES), rng.uniform(0, _LATEST_S)))
    return Schedule(seed, logical, tuple(blows))
