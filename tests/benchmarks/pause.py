"""What clients went through while their server was changed, and the tables that say so. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import median

from msgspec import Struct

from tests.benchmarks.event_log import Span
from tests.benchmarks.figures import number, paired_ratio, percentile, table
from tests.benchmarks.turns import Aim
from verdigris.demo.figures import NS_PER_MS
from verdigris.demo.ledger import Outcome
from verdigris.demo.result import WorkloadResult
from verdigris.domain.switchover import Step

# The marks of a workload: it runs undisturbed, the change begins, the change is done.
CALM, BEGUN, COMPLETED = "calm", "begun", "completed"

# The first phase of a switchover in which clients wait, and the last.
PAUSE_BEGINS, PAUSE_ENDS = Step.PARK.value, Step.RELEASE.value
_BEFORE, _BEYOND = "before", "after"

MAX_MEDIAN_MS, MAX_P99_MS = 100.0, 300.0


class Observed(Struct, frozen=True, kw_only=True):
    """One change of servers. Waits last from when a client wanted an answer until it had it, whatever went wrong
    between."""

    longest_ms: float  # of any client's waits that touch the change
    ahead_ms: float  # of those the longest that was over before anybody was held back
    held_back_ms: float  # ... and the longest of the others
    each_client_ms: list[float]  # the longest of each
    silence_ms: float  # no commit of any client was acknowledged
    held_ms: float  # clients were held back, by the clock of whoever did
    calm_ms: float  # the longest wait of any client before the change
    requests_per_s: float  # before the change
    phases: list[Span]
    setbacks: int
    errors: int
    dropped: int
    acknowledged: int
    broken: list[str]  # promises to the clients
    beside_ms: float | None = None  # PgBouncer's longest wait in the same turn


def observe(
    result: WorkloadResult,
    phases: list[Span],
    held_ms: float,
    *,
    held_back_ns: int,
    setbacks: int = 0,
    idle: Mapping[str, int],
    broken: Iterable[str],
) -> Observed:
    """``held_back_ns``: since when clients were held back, by the clock of the ledgers.
    ``idle``: how many idle sessions were found well ("") or otherwise, by what was wrong with them."""
    calm_ns, began_ns, ended_ns = (result.marks[name] for name in (CALM, BEGUN, COMPLETED))
    longest: dict[int, float] = defaultdict(float)
    touching = [pause for pause in result.pauses if pause.ended_ns >= began_ns and pause.began_ns <= ended_ns]
    for pause in touching:
        if pause.client is not None:
            longest[pause.client] = max(longest[pause.client], pause.ms)
    silence = result.longest_silence(since_ns=began_ns, until_ns=ended_ns)
    calm = [p for p in result.pauses if p.began_ns >= calm_ns and p.ended_ns < began_ns]
    unwell = {what: count for what, count in idle.items() if what}
    dropped = sum(count for what, count in unwell.items() if what.startswith("dropped"))
    return Observed(
        longest_ms=max(longest.values()),
        ahead_ms=max((pause.ms for pause in touching if pause.ended_ns < held_back_ns), default=0.0),
        held_back_ms=max((pause.ms for pause in touching if pause.ended_ns >= held_back_ns), default=0.0),
        each_client_ms=list(longest.values()),
        silence_ms=silence.ms if silence else 0.0,
        held_ms=held_ms,
        calm_ms=max((pause.ms for pause in calm), default=0.0),
        requests_per_s=len(calm) / ((began_ns - calm_ns) / NS_PER_MS / 1000),
        phases=phases,
        setbacks=setbacks,
        errors=sum(result.errors.values()) + sum(unwell.values()) - dropped,
        dropped=result.connections_dropped + dropped,
        acknowledged=result.count(Outcome.ACKNOWLEDGED),
        broken=[*broken, *(f"{count} idle sessions: {what}" for what, count in unwell.items())],
    )


def parked_at(phases: list[Span]) -> datetime:
    """When the park of the attempt that succeeded began."""
    return [span.began_at for span in phases if span.name == PAUSE_BEGINS][-1]


def parked_ms(phases: list[Span]) -> float:
    """Of the attempt that succeeded: from when its park began until its release had been answered."""
    released_at = [span.ended_at for span in phases if span.name == PAUSE_ENDS]
    return (released_at[-1] - parked_at(phases)).total_seconds() * 1000


# -- tables


def pause_table(seen: Sequence[Observed], held: str) -> str:
    """Of each change one figure, of each client of each change one in the second row. ``held``: by whose clock."""
    lines: list[tuple[str, list[float]]] = [
        ("longest wait of any client", [one.longest_ms for one in seen]),
        ("longest wait that began or lasted in the pause", [one.held_back_ms for one in seen]),
        ("longest wait in the preparations for it", [one.ahead_ms for one in seen]),
        ("longest wait of each client", [ms for one in seen for ms in one.each_client_ms]),
        ("no commit of any client acknowledged", [one.silence_ms for one in seen]),
        (held, [one.held_ms for one in seen]),
        ("longest wait of any client before it", [one.calm_ms for one in seen]),
    ]
    return _spread_table("ms", lines)


def phase_table(seen: Sequence[Observed]) -> str:
    """Milliseconds of each phase; phases of attempts that were given up are added to the last one's."""
    sums: dict[str, list[float]] = {}
    for one in seen:
        total: dict[str, float] = defaultdict(float)
        for span in one.phases:
            total[span.name] += span.ms
        for name, ms in total.items():
            sums.setdefault(name, []).append(ms)
    places = _places(list(sums))
    return _spread_table("phase, ms", [(f"{name} ({places[name]})", values) for name, values in sums.items()])


def _places(names: list[str]) -> dict[str, str]:
    """Whether clients wait in a phase, by the order in which the planner knows the steps; all others are pauses."""
    order = [step.value for step in Step]
    first, last = order.index(PAUSE_BEGINS), order.index(PAUSE_ENDS)
    place = {name: order.index(name) if name in order else first for name in names}
    return {name: _BEFORE if place[name] < first else _BEYOND if place[name] > last else "pause" for name in names}


def _spread_table(what: str, lines: Sequence[tuple[str, list[float]]]) -> str:
    header = (what, "median", "p99", "lowest", "highest")
    return table(header, [[name, median(v), percentile(v, 99), min(v), max(v)] for name, v in lines])


def counts_table(seen: Sequence[Observed]) -> str:
    rows: list[tuple[str, str]] = [
        ("changes of servers", f"{len(seen)}"),
        ("attempts given up and repeated", f"{sum(one.setbacks for one in seen)}"),
        ("requests a second before it, median", number(median(one.requests_per_s for one in seen))),
        ("commits acknowledged", f"{sum(one.acknowledged for one in seen):,}"),
        ("errors seen by clients", f"{sum(one.errors for one in seen)}"),
        ("connections dropped", f"{sum(one.dropped for one in seen)}"),
        ("changes with a broken promise", f"{sum(bool(one.broken) for one in seen)}"),
    ]
    return table(("", ""), rows)


def aims(what: str, ours: Sequence[Observed], others: Sequence[Observed]) -> list[Aim]:
    """The pause is the longest wait of any client; ``others`` are changes by PgBouncer, if there are any."""
    pauses = [one.longest_ms for one in ours]
    middle, worst = median(pauses), percentile(pauses, 99)
    found = [
        _at_most(f"pause, {what}, median", middle, MAX_MEDIAN_MS),
        _at_most(f"pause, {what}, 99th percentile", worst, MAX_P99_MS),
    ]
    if others:
        theirs = [one.longest_ms for one in others]
        found += [
            _at_most(f"pause, {what}, median beside PgBouncer's", middle, median(theirs)),
            _at_most(f"pause, {what}, 99th percentile beside PgBouncer's", worst, percentile(theirs, 99)),
        ]
        rounds = [(one.longest_ms, one.beside_ms) for one in ours if one.beside_ms is not None]
        ratio = paired_ratio([one for one, _ in rounds], [beside for _, beside in rounds])
        found.append(
            Aim(
                figure=f"pause, {what}, to PgBouncer's of the same turn, median",
                aim="at most 1.00",
                measured=number(ratio),
                kept=ratio <= 1,
            )
        )
    for name, count in (("errors", sum(o.errors for o in ours)), ("connections dropped", sum(o.dropped for o in ours))):
        found.append(Aim(figure=f"{name}, {what}", aim="0", measured=f"{count}", kept=count == 0))
    return found


def _at_most(figure: str, measured_ms: float, limit_ms: float) -> Aim:
    return Aim(figure=figure, aim=f"at most {number(limit_ms)} ms", measured=f"{number(measured_ms)} ms",
               kept=measured_ms <= limit_ms)  # fmt: skip
