"""The pause of a switchover as clients see it: ``uv run python -m tests.benchmarks.switchover``

Each switchover is a new one from nothing: an instance, its green of the next major version, clients that write and read
through the endpoint, idle sessions if so wanted, the switchover, a check of every commit that clients were told of and
of every idle session, and everything deleted. Beside it stands the same change by hand with PgBouncer, under the same
load, on a pair of servers that Verdigris made (see ``recipe.py``).
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import psycopg
from msgspec import Struct, structs

from tests.acceptance.installation import Installation, wait_until
from tests.benchmarks import machine
from tests.benchmarks.bare import source_server
from tests.benchmarks.command import note, run
from tests.benchmarks.event_log import Span, read_events, switchover_phases
from tests.benchmarks.idle import IdleSessions
from tests.benchmarks.pause import (
    BEGUN,
    CALM,
    COMPLETED,
    Observed,
    aims,
    counts_table,
    observe,
    parked_at,
    parked_ms,
    pause_table,
    phase_table,
)
from tests.benchmarks.peers import PGBOUNCER, PortPool, find_or_say, quiet, versions
from tests.benchmarks.product import (
    BLUE_VERSION,
    GREEN_VERSION,
    INSTANCE_CLASS,
    delete_deployment,
    delete_instance,
    running_verdigris,
)
from tests.benchmarks.recipe import Recipe, ServerPair, running_pair, running_pgbouncer
from tests.benchmarks.turns import Aim, aims_table
from verdigris.demo.result import WorkloadResult
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload

# Beside those of clients and idle sessions.
_OTHER_CONNECTIONS = 60


class Options(Struct, frozen=True, kw_only=True):
    """``switchovers`` and ``recipes`` for each number of ``idle`` sessions. Rates are of all clients together; 0: as
    many as are answered. ``calm_s`` of work before, and after."""

    switchovers: int = 20
    recipes: int = 10
    clients: int = 64
    idle: tuple[int, ...] = (0, 1000)
    commits_per_s: float = 300
    reads_per_s: float = 300
    calm_s: float = 2


QUICK = Options(switchovers=1, recipes=1, clients=4, idle=(4,), calm_s=0.5)


# -- one switchover, one recipe


def switch_over(verdigris: Installation, options: Options, idle: int, n: int) -> Observed:
    """From nothing to nothing."""
    name = f"bench-{idle}-{n}"
    verdigris.create_instance(name, BLUE_VERSION, DBInstanceClass=INSTANCE_CLASS)
    if idle:
        _make_room(verdigris, name, options.clients + idle + _OTHER_CONNECTIONS)
    dsn = verdigris.dsn(name)
    install_schema(dsn)
    deployment, _ = verdigris.build_green(name, TargetEngineVersion=GREEN_VERSION)
    with IdleSessions(dsn, idle, state=True) as sleepers:
        directory = verdigris.home / "ledgers" / deployment
        result = _under_load(dsn, options, directory, lambda: verdigris.switch_over(deployment), session_state=True)
        found = sleepers.check()
    broken = _broken(dsn, result)
    events = read_events(verdigris.home, deployment)
    old = verdigris.deployment(deployment)["Source"].rpartition(":")[2]
    delete_deployment(verdigris, deployment)
    delete_instance(verdigris, old)
    delete_instance(verdigris, name)
    phases = switchover_phases(events)
    setbacks = sum(event["event"] == "switchover.set_back" for event in events)
    return observe(
        result,
        phases,
        parked_ms(phases),
        held_back_ns=_ledger_ns(parked_at(phases)),
        setbacks=setbacks,
        idle=found,
        broken=broken,
    )


def _ledger_ns(at: datetime) -> int:
    """A moment by the clock of logs as one by that of ledgers, close enough."""
    return int(at.timestamp() * 1e9) - (time.time_ns() - time.monotonic_ns())


def _make_room(verdigris: Installation, name: str, connections: int) -> None:
    """The instance's class would not allow that many. Green is made after it and gets the same."""
    server = source_server(verdigris.home, verdigris.resource_id(name))
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET max_connections = {connections:d}")
    verdigris.rds.reboot_db_instance(DBInstanceIdentifier=name)
    verdigris.await_instance(name)
    verdigris.await_connection(name)


def follow_recipe(pair: ServerPair, program: str, options: Options, idle: int, n: int) -> Observed:
    """One change by hand, on the pair as it was saved. PgBouncer has a server connection for every active client."""
    phases: list[Span] = []
    with pair.running(), running_pgbouncer(program, pair, PortPool(), options.clients) as bouncer, ExitStack() as stack:
        recipe = Recipe(pair, bouncer, stack)
        with IdleSessions(bouncer.dsn, idle) as sleepers:
            directory = pair.home / f"ledgers-{idle}-{n}"
            result = _under_load(
                bouncer.dsn, options, directory, lambda: phases.extend(recipe.follow()), session_state=False
            )
            found = sleepers.check()
        broken = _broken(bouncer.dsn, result)
    held_ms = (phases[-1].ended_at - phases[0].began_at).total_seconds() * 1000
    return observe(result, phases, held_ms, held_back_ns=_ledger_ns(phases[0].began_at), idle=found, broken=broken)


def _under_load(
    dsn: str, options: Options, directory: Path, change: Callable[[], object], *, session_state: bool
) -> WorkloadResult:
    writers = max(1, options.clients // 2)
    workload = Workload(
        dsn,
        writers=writers,
        readers=options.clients - writers,
        commits_per_s=options.commits_per_s or None,
        reads_per_s=options.reads_per_s or None,
        session_state=session_state,
        directory=directory,
    )
    with workload:
        workload.start(timeout_s=60)
        _let_run(workload, options.calm_s / 2)  # the first statements of a session are slow ones
        workload.mark(CALM)
        _let_run(workload, options.calm_s)
        workload.mark(BEGUN)
        change()
        workload.mark(COMPLETED)
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


def _broken(dsn: str, result: WorkloadResult) -> list[str]:
    breaches = (*verify_ledger(dsn, result).breaches, *verify_clients(result))
    return [f"{breach.promise}: {breach.examples[0]}" for breach in breaches]


# -- reporting


def report(title: str, held: str, seen: Sequence[Observed], *remarks: str) -> str:
    parts = [f"#### {title}", pause_table(seen, held), phase_table(seen), *remarks, counts_table(seen)]
    return "\n\n".join([*parts, *(f"BROKEN: {text}" for one in seen for text in one.broken)])


def load_text(options: Options, idle: int) -> str:
    rates = ", ".join(
        f"{rate:g} {what}/s asked for" if rate else f"{what} as fast as they are answered"
        for what, rate in (("commits", options.commits_per_s), ("reads", options.reads_per_s))
    )
    return f"{options.clients} clients, {rates}" + (f"; {idle:,} idle sessions on top" if idle else "")


def _short(options: Options, idle: int) -> str:
    return f"{options.clients} clients" + (f" and {idle:,} idle ones" if idle else "")


# -- command


class Benchmark:
    """Everything that has been seen so far is reported, also when it is interrupted."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._ours: dict[int, list[Observed]] = {idle: [] for idle in options.idle}
        self._theirs: dict[int, list[Observed]] = {idle: [] for idle in options.idle}

    def run(self) -> None:
        began_s = time.monotonic()
        facts = machine.describe(
            servers=f"PostgreSQL {BLUE_VERSION} to {GREEN_VERSION}, {INSTANCE_CLASS}",
            PgBouncer=versions()[PGBOUNCER],
        )
        print(f"## Switchover\n\n{facts}\n")
        try:
            self._take_turns()
        finally:
            self._report()
        print(f"\n- load after: {machine.load()}")
        print(f"- it took {(time.monotonic() - began_s) / 60:.1f} minutes")

    def _take_turns(self) -> None:
        """A switchover, and by turns PgBouncer's recipe: what the machine does to one it does to both."""
        options = self._options
        program = find_or_say(PGBOUNCER) if options.recipes else None
        with running_verdigris() as verdigris, ExitStack() as stack:
            pair = None
            if program is not None:
                note("making a pair of servers for PgBouncer")
                pair = stack.enter_context(running_pair())
            for idle in options.idle:
                for n in range(1, options.switchovers + 1):
                    ours = switch_over(verdigris, options, idle, n)
                    _note(f"switchover {n} of {options.switchovers}", idle, ours)
                    if pair is not None and program is not None and _is_due(n, options):
                        theirs = follow_recipe(pair, program, options, idle, n)
                        _note("PgBouncer beside it", idle, theirs)
                        self._theirs[idle].append(theirs)
                        ours = structs.replace(ours, beside_ms=theirs.longest_ms)
                    self._ours[idle].append(ours)

    def _report(self) -> None:
        reached: list[Aim] = []
        for idle, ours in self._ours.items():
            theirs = self._theirs[idle]
            print(f"\n### {load_text(self._options, idle)}\n")
            if ours:
                remark = "`hand_over` runs beside `fence_source` and `catch_up`: the pause is shorter than the sum."
                print(report("Verdigris", "park to release, by the control plane", ours, remark))
                reached += aims(_short(self._options, idle), ours, theirs)
            if theirs:
                remark = "Its clients have no prepared statements and no settings: it could not keep them."
                print("\n" + report("PgBouncer, transaction pooling", "PAUSE to RESUME", theirs, remark))
        print(f"\n### What was to be reached\n\n{aims_table(reached)}")


def _is_due(n: int, options: Options) -> bool:
    """Recipes are spread evenly over the switchovers, one beside each at most."""
    return n * options.recipes // options.switchovers > (n - 1) * options.recipes // options.switchovers


def _note(what: str, idle: int, seen: Observed) -> None:
    note(
        f"{what}, {idle} idle: longest wait {seen.longest_ms:.0f} ms, silence {seen.silence_ms:.0f} ms,"
        f" held {seen.held_ms:.0f} ms"
    )


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.switchover", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one of each with few clients: does it work?")
    parser.add_argument("--switchovers", type=int, help="for each number of idle sessions")
    parser.add_argument("--recipes", type=int, help="of PgBouncer's, beside as many of these; 0: none")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--idle", type=int, nargs="+", help="sessions that do nothing, on top of the clients")
    parser.add_argument("--commits-per-s", type=float, help="of all clients together; 0: no limit")
    parser.add_argument("--reads-per-s", type=float, help="of all clients together; 0: no limit")
    given = vars(parser.parse_args(arguments))
    defaults = QUICK if given.pop("quick") else Options()
    changes = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    return Options(**{name: getattr(defaults, name) for name in Options.__struct_fields__} | changes)


def main(arguments: Sequence[str] | None = None) -> int:
    benchmark = Benchmark(parse(arguments))
    quiet()
    return run(benchmark.run)


if __name__ == "__main__":
    sys.exit(main())
