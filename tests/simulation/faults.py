"""What can go wrong, and where. A *point* is one effect on the world: a command of a controller, or a commit of its
store; points are numbered in the order in which a run comes by them. The same plan always makes the same run."""

import random
from enum import StrEnum

from msgspec import Struct


class Kind(StrEnum):
    ERROR = "error"  # the call fails
    CRASH = "crash"  # the control plane is killed, and started again a moment later
    STALE = "stale"  # it stands still, another takes over, and then it goes on
    PAUSE = "pause"  # it stands still for longer than the lease, and goes on; nobody took over
    HANG = "hang"  # the call does not answer for a long time
    LEASE_LOST = "lease lost"  # the router lets everyone go
    ROUTER_CRASH = "router crash"
    SOURCE_CRASH = "blue crash"
    TARGET_CRASH = "green crash"
    STALL = "replication stalls"  # for a few seconds
    DISK_FULL = "disk full"  # nothing can be written for a while: not by servers, the router, the store, or clients
    CLOCK_BACK = "clock set back"  # an hour
    CLOCK_ON = "clock set forward"  # an hour
    CANCEL = (
        "cancellation"  # the operator asks for that of the switchover, which is no fault, but comes at any time, too
    )


# What a commit of the store can meet: it is the controller's own doing.
OF_STORE = (Kind.ERROR, Kind.CRASH, Kind.STALE, Kind.PAUSE, Kind.DISK_FULL)

# What depends on whether the call has had its effect; the others befall somebody else.
OF_THE_CALL = (Kind.ERROR, Kind.CRASH, Kind.HANG)


class Fault(Struct, frozen=True, order=True):
    """``after``: the effect takes place first, and its answer is lost or late."""

    point: int
    kind: Kind
    after: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {'after' if self.after else 'before'} point {self.point}"

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """``crash:12``, ``lease_lost:7:after``."""
        kind, point, *after = text.split(":")
        return cls(int(point), Kind(kind.replace("_", " ")), after == ["after"])

    def told(self) -> str:
        """What ``parse`` reads."""
        return f"{self.kind.replace(' ', '_')}:{self.point}{':after' if self.after else ''}"


Plan = tuple[Fault, ...]

# One fault is what happens; several at once are what one has to survive all the same.
_HOW_MANY = (1, 2, 2, 3, 3, 4, 5, 6)


def draw(rng: random.Random, points: int) -> Plan:
    """Some faults within the first ``points``, which may be more than the run will have."""
    faults = {}
    for _ in range(rng.choice(_HOW_MANY)):
        point = rng.randrange(points)
        faults[point] = Fault(point, rng.choice(_ALL), rng.random() < 0.5)
    return tuple(sorted(faults.values()))


_ALL = tuple(Kind)
