"""Taking turns: within a round everybody is measured once, so that what the machine does to one it does to all."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from statistics import median
from typing import TypeVar

from msgspec import Struct

from tests.benchmarks import machine
from tests.benchmarks.figures import number, paired_ratio, table
from tests.benchmarks.peers import DIRECT_TCP, HAPROXY, PGBOUNCER, Peer

T = TypeVar("T")

# Results and processor seconds of each round, by the peer's name.
Turns = dict[str, list[tuple[T, float | None]]]


class Aim(Struct, frozen=True, kw_only=True):
    """One line of what was to be reached, and whether it was."""

    figure: str
    aim: str
    measured: str
    kept: bool


async def take_turns(peers: Sequence[Peer], rounds: int, turn: Callable[[Peer], Awaitable[T]]) -> Turns[T]:
    """Each round every peer once, each round beginning with another one."""
    turns: Turns[T] = {peer.name: [] for peer in peers}
    for n in range(rounds):
        for peer in [*peers[n % len(peers) :], *peers[: n % len(peers)]]:
            before_s = machine.cpu_s(peer.pid) if peer.pid else None
            result = await turn(peer)
            cpu_s = machine.cpu_s(peer.pid) - before_s if peer.pid and before_s is not None else None
            turns[peer.name].append((result, cpu_s))
    return turns


def series(turns: Turns[T], name: str, value: Callable[[T], float]) -> list[float]:
    return [value(result) for result, _ in turns[name]]


def median_cpu(turns: Turns[T], name: str, value: Callable[[T, float], float]) -> float:
    """The median of what each round's result and processor seconds make; NaN for a peer without a process."""
    values = [value(result, cpu_s) for result, cpu_s in turns[name] if cpu_s is not None]
    return median(values) if values else float("nan")


def better_proxy(turns: Turns[T], value: Callable[[T], float]) -> str:
    """HAProxy or PgBouncer, whichever has the higher median; a direct connection where neither is installed."""
    present = [name for name in (HAPROXY, PGBOUNCER) if name in turns]
    return max(present, key=lambda name: median(series(turns, name, value)), default=DIRECT_TCP)


def ratio(turns: Turns[T], name: str, base: str, value: Callable[[T], float]) -> float:
    return paired_ratio(series(turns, name, value), series(turns, base, value))


def difference(turns: Turns[T], name: str, base: str, value: Callable[[T], float]) -> float:
    """The median of the differences of each round."""
    pairs = zip(series(turns, name, value), series(turns, base, value), strict=True)
    return median(one - other for one, other in pairs)


def ratio_text(value: float, base: str) -> str:
    return f"{number(value)} of {base}"


def aims_table(aims: Iterable[Aim]) -> str:
    rows = [[one.figure, one.aim, one.measured, "yes" if one.kept else "no"] for one in aims]
    return table(("figure", "aim", "measured", "kept"), rows)
