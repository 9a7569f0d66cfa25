"""What a ledger says, as figures. Pure functions over records and nanoseconds of the monotonic clock."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil

from msgspec import Struct

from verdigris.demo.ledger import Commit, Outcome, Read

NS_PER_MS = 1_000_000
_BARS = "▁▂▃▄▅▆▇█"


class Pause(Struct, frozen=True, kw_only=True):
    """An interval without an answer. ``client`` is None where it concerns them all."""

    began_ns: int
    ended_ns: int
    client: int | None = None

    @property
    def ms(self) -> float:
        return (self.ended_ns - self.began_ns) / NS_PER_MS


def _succeeded(record: Commit | Read) -> bool:
    return record.outcome is Outcome.ACKNOWLEDGED if isinstance(record, Commit) else record.sqlstate is None


def client_pauses(records: Iterable[Commit | Read], *, ended_ns: int) -> list[Pause]:
    """Every wait of every client: from when it began to want an answer until it had one.

    A wait includes failed attempts, reconnects and retries; it excludes the time in which the client wanted nothing.
    One that was never answered lasts until ``ended_ns``.
    """
    wanted_since: dict[int, int] = {}
    pauses = []
    for record in sorted(records, key=lambda r: (r.ended_ns, r.began_ns)):
        began_ns = wanted_since.setdefault(record.client, record.began_ns)
        if _succeeded(record):
            pauses.append(Pause(began_ns=began_ns, ended_ns=record.ended_ns, client=record.client))
            del wanted_since[record.client]
    pauses += [Pause(began_ns=ns, ended_ns=ended_ns, client=client) for client, ns in wanted_since.items()]
    return pauses


def longest(pauses: Iterable[Pause], *, since_ns: int = 0, until_ns: int | None = None) -> Pause | None:
    """The longest pause that touches the interval."""
    touching = [p for p in pauses if p.ended_ns >= since_ns and (until_ns is None or p.began_ns <= until_ns)]
    return max(touching, key=lambda p: p.ms, default=None)


def silences(commits: Iterable[Commit], *, began_ns: int, ended_ns: int) -> list[Pause]:
    """The intervals between one acknowledged commit and the next, whoever's: nothing was written in between."""
    acknowledged = (c.ended_ns for c in commits if c.outcome is Outcome.ACKNOWLEDGED)
    edges = [began_ns, *sorted(ns for ns in acknowledged if ns < ended_ns), ended_ns]
    return [Pause(began_ns=a, ended_ns=b) for a, b in pairwise(edges)]


def buckets(commits: Iterable[Commit], *, since_ns: int, until_ns: int, width_ms: int = 100) -> list[int]:
    """Commits acknowledged in each interval of ``width_ms``, the first one beginning at ``since_ns``."""
    width_ns = width_ms * NS_PER_MS
    counts = [0] * max(0, -(-(until_ns - since_ns) // width_ns))
    for commit in commits:
        if commit.outcome is Outcome.ACKNOWLEDGED and since_ns <= commit.ended_ns < until_ns:
            counts[(commit.ended_ns - since_ns) // width_ns] += 1
    return counts


def sparkline(counts: Sequence[int]) -> str:
    """One block a bucket; a bucket without a commit is a space, so that a pause is seen as a gap."""
    top = max(counts, default=0)
    return "".join(_BARS[(n * len(_BARS) - 1) // top] if n else " " for n in counts)


def percentiles_ms(records: Iterable[Commit | Read], wanted: Sequence[float]) -> list[float]:
    """Latencies of the answered requests by nearest rank; ``wanted`` in percent. Zeros where nothing was answered."""
    latencies = sorted((r.ended_ns - r.began_ns) / NS_PER_MS for r in records if _succeeded(r))
    if not latencies:
        return [0.0] * len(wanted)
    return [latencies[max(0, ceil(len(latencies) * percent / 100) - 1)] for percent in wanted]


def errors_by_sqlstate(records: Iterable[Commit | Read]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        if not _succeeded(record):
            counts[record.sqlstate or "unknown"] += 1
    return dict(sorted(counts.items()))
