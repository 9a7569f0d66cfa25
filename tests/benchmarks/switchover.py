"""The pause of a switchover as clients see it: ``uv run python -m tests.benchmarks.switchover``

Each switchover is a new one from nothing: an instance, its green of the next major version, clients that write and read
through the endpoint, the switchover, a check of every commit that clients were told of, and everything deleted.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from tests.acceptance.installation import Installation, wait_until
from tests.benchmarks import machine
from tests.benchmarks.command import note, run
from tests.benchmarks.event_log import Span, read_events, switchover_phases
from tests.benchmarks.figures import number, percentile, table
from tests.benchmarks.product import (
    BLUE_VERSION,
    GREEN_VERSION,
    INSTANCE_CLASS,
    delete_deployment,
    delete_instance,
    running_verdigris,
)
from verdigris.demo.figures import NS_PER_MS
from verdigris.demo.ledger import Outcome
from verdigris.demo.result import WorkloadResult
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload
from verdigris.domain.switchover import Step

# The first phase in which clients wait, and the last.
PAUSE_BEGINS, PAUSE_ENDS = Step.PARK.value, Step.RELEASE.value
_BEFORE, _BEYOND = "before", "after"


class Options(Struct, frozen=True, kw_only=True):
    """Rates are of all clients together; 0: as many as are answered. ``calm_s`` of work before, and after."""

    switchovers: int = 10
    clients: int = 64
    commits_per_s: float = 300
    reads_per_s: float = 300
    calm_s: float = 3


QUICK = Options(switchovers=1, clients=4, calm_s=0.5)


class Observed(Struct, frozen=True, kw_only=True):
    """One switchover. Waits last from when a client wanted an answer until it had it, whatever went wrong between."""

    longest_ms: float  # of any client's waits that touch the switchover
    each_client_ms: list[float]  # the longest of each
    silence_ms: float  # no commit of any client was acknowledged
    parked_ms: float  # from the park's begin to the release, by the control plane's log
    calm_ms: float  # the longest wait of any client before the switchover
    requests_per_s: float  # before the switchover
    phases: list[Span]
    setbacks: int
    errors: int
    dropped: int
    acknowledged: int
    broken: list[str]  # promises to the clients


# ----------------------------------------------------------------------------------------------------------- measuring


def measure(verdigris: Installation, options: Options, number_: int) -> Observed:
    """One switchover from nothing to nothing."""
    name = f"bench{number_}"
    verdigris.create_instance(name, BLUE_VERSION, DBInstanceClass=INSTANCE_CLASS)
    dsn = verdigris.dsn(name)
    install_schema(dsn)
    deployment, _ = verdigris.build_green(name, TargetEngineVersion=GREEN_VERSION)
    result = _under_load(verdigris, options, dsn, deployment)
    verdict = verify_ledger(dsn, result)
    events = read_events(verdigris.home, deployment)
    broken = [f"{breach.promise}: {breach.examples[0]}" for breach in (*verdict.breaches, *verify_clients(result))]
    old = verdigris.deployment(deployment)["Source"].rpartition(":")[2]
    delete_deployment(verdigris, deployment)
    delete_instance(verdigris, old)
    delete_instance(verdigris, name)
    return observe(result, switchover_phases(events), setbacks=_count(events, "switchover.set_back"), broken=broken)


def _under_load(verdigris: Installation, options: Options, dsn: str, deployment: str) -> WorkloadResult:
    writers = max(1, options.clients // 2)
    workload = Workload(
        dsn,
        writers=writers,
        readers=options.clients - writers,
        commits_per_s=options.commits_per_s or None,
        reads_per_s=options.reads_per_s or None,
        directory=verdigris.home / "ledgers" / deployment,
    )
    with workload:
        workload.start(timeout_s=60)
        _let_run(workload, options.calm_s / 2)  # the first statements of a session are slow ones
        workload.mark("calm")
        _let_run(workload, options.calm_s)
        workload.mark("switchover")
        verdigris.switch_over(deployment)
        workload.mark("completed")
        _let_run(workload, options.calm_s)
        return workload.stop()


def _let_run(workload: Workload, seconds: float) -> None:
    """Until that much time has passed and something has been committed in it."""
    end_ns = workload.mark("waiting") + int(seconds * 1e9)
    so_far = workload.progress().acknowledged
    wait_until(
        lambda: workload.mark("waiting") > end_ns and workload.progress().acknowledged > so_far,
        "clients' commits are answered",
    )


def _count(events: list[dict[str, object]], name: str) -> int:
    return sum(event["event"] == name for event in events)


def observe(result: WorkloadResult, phases: list[Span], *, setbacks: int, broken: list[str]) -> Observed:
    calm_ns, began_ns, ended_ns = (result.marks[name] for name in ("calm", "switchover", "completed"))
    longest: dict[int, float] = defaultdict(float)
    for pause in result.pauses:
        if pause.client is not None and pause.ended_ns >= began_ns and pause.began_ns <= ended_ns:
            longest[pause.client] = max(longest[pause.client], pause.ms)
    silence = result.longest_silence(since_ns=began_ns, until_ns=ended_ns)
    calm = [p for p in result.pauses if p.began_ns >= calm_ns and p.ended_ns < began_ns]
    return Observed(
        longest_ms=max(longest.values()),
        each_client_ms=list(longest.values()),
        silence_ms=silence.ms if silence else 0.0,
        parked_ms=parked_ms(phases),
        calm_ms=max((pause.ms for pause in calm), default=0.0),
        requests_per_s=len(calm) / ((began_ns - calm_ns) / NS_PER_MS / 1000),
        phases=phases,
        setbacks=setbacks,
        errors=sum(result.errors.values()),
        dropped=result.connections_dropped,
        acknowledged=result.count(Outcome.ACKNOWLEDGED),
        broken=broken,
    )


def parked_ms(phases: list[Span]) -> float:
    """Of the attempt that succeeded: from when its park began until its release had been answered."""
    began_at = [span.began_at for span in phases if span.name == PAUSE_BEGINS]
    released_at = [span.ended_at for span in phases if span.name == PAUSE_ENDS]
    return (released_at[-1] - began_at[-1]).total_seconds() * 1000


# ----------------------------------------------------------------------------------------------------------- reporting


def pause_table(seen: Sequence[Observed]) -> str:
    """Of each switchover one figure, of each client of each switchover one in the second row."""
    lines: list[tuple[str, list[float]]] = [
        ("longest wait of any client", [one.longest_ms for one in seen]),
        ("longest wait of each client", [ms for one in seen for ms in one.each_client_ms]),
        ("no commit of any client acknowledged", [one.silence_ms for one in seen]),
        ("park to release, by the control plane", [one.parked_ms for one in seen]),
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
    """Whether clients wait in a phase, by the order in which the planner knows the steps."""
    order = [step.value for step in Step]
    first, last = order.index(PAUSE_BEGINS), order.index(PAUSE_ENDS)
    return {
        name: _BEFORE if order.index(name) < first else _BEYOND if order.index(name) > last else "pause"
        for name in names
    }


def _spread_table(what: str, lines: Sequence[tuple[str, list[float]]]) -> str:
    header = (what, "median", "p99", "lowest", "highest")
    return table(header, [[name, median(v), percentile(v, 99), min(v), max(v)] for name, v in lines])


def counts_table(seen: Sequence[Observed]) -> str:
    rows: list[tuple[str, str]] = [
        ("switchovers", f"{len(seen)}"),
        ("attempts given up and repeated", f"{sum(one.setbacks for one in seen)}"),
        ("requests a second before the switchover, median", number(median(one.requests_per_s for one in seen))),
        ("commits acknowledged", f"{sum(one.acknowledged for one in seen):,}"),
        ("errors seen by clients", f"{sum(one.errors for one in seen)}"),
        ("connections dropped", f"{sum(one.dropped for one in seen)}"),
        ("switchovers with a broken promise", f"{sum(bool(one.broken) for one in seen)}"),
    ]
    return table(("", ""), rows)


def report(options: Options, seen: Sequence[Observed]) -> str:
    rates = ", ".join(
        f"{rate:g} {what}/s asked for" if rate else f"{what} as fast as they are answered"
        for what, rate in (("commits", options.commits_per_s), ("reads", options.reads_per_s))
    )
    parts = [
        f"### {options.clients} clients, {rates}",
        pause_table(seen),
        phase_table(seen),
        "`hand_over` runs beside `fence_source` and `catch_up`: the pause is shorter than the sum.",
        counts_table(seen),
        *(f"BROKEN: {text}" for one in seen for text in one.broken),
    ]
    return "\n\n".join(parts)


# -------------------------------------------------------------------------------------------------------------- command


def benchmark(options: Options) -> None:
    facts = machine.describe(servers=f"PostgreSQL {BLUE_VERSION} to {GREEN_VERSION}, {INSTANCE_CLASS}")
    print(f"## Switchover\n\n{facts}\n")
    seen: list[Observed] = []
    with running_verdigris() as verdigris:
        try:
            for n in range(1, options.switchovers + 1):
                seen.append(measure(verdigris, options, n))
                note(
                    f"switchover {n} of {options.switchovers}: longest wait {seen[-1].longest_ms:.0f} ms,"
                    f" silence {seen[-1].silence_ms:.0f} ms"
                )
        finally:
            if seen:
                print(report(options, seen))
    print(f"\n- load after: {machine.load()}")


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.switchover", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one switchover with few clients: does it work?")
    parser.add_argument("--switchovers", type=int)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--commits-per-s", type=float, help="of all clients together; 0: no limit")
    parser.add_argument("--reads-per-s", type=float, help="of all clients together; 0: no limit")
    given = vars(parser.parse_args(arguments))
    defaults = QUICK if given.pop("quick") else Options()
    changes = {name: value for name, value in given.items() if value is not None}
    return Options(**{name: getattr(defaults, name) for name in Options.__struct_fields__} | changes)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return run(lambda: benchmark(options))


if __name__ == "__main__":
    sys.exit(main())
