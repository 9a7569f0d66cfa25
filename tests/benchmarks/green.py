"""How long green takes, beside the bare commands on the same data: ``uv run python -m tests.benchmarks.green``

Both build from the same running blue, in turn, the one who begins changing each round; both start after a checkpoint.
Logical mode (a major upgrade) is held against ``pg_basebackup``, recovery, ``initdb``, ``pg_upgrade --link`` and the
start of the new server; physical mode against ``pg_basebackup`` and the start of the standby. Then blue is given read
replicas, and green with as many members is held against the one without.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from statistics import median

import psycopg
from msgspec import Struct

from tests.acceptance.installation import Installation
from tests.benchmarks import machine
from tests.benchmarks.bare import BareBuild, Timings, installation_of, source_server, total
from tests.benchmarks.command import note, run
from tests.benchmarks.event_log import Span, build_steps, read_events
from tests.benchmarks.figures import number, paired_ratio, table
from tests.benchmarks.product import (
    BLUE_VERSION,
    GREEN_VERSION,
    INSTANCE_CLASS,
    delete_deployment,
    running_verdigris,
    timed_build,
)
from verdigris.demo.data import load_data
from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.installations import Installation as Binaries
from verdigris.engines.postgres.server import PostgresServer

# Which bare commands do the work of which step. A step that is not here has no counterpart.
COUNTERPARTS: dict[ReplicationMode, dict[str, tuple[str, ...]]] = {
    ReplicationMode.LOGICAL: {
        "copy": ("pg_basebackup",),
        "align": ("recovery",),
        "upgrade": ("initdb", "pg_upgrade", "start"),
    },
    ReplicationMode.PHYSICAL: {"copy": ("pg_basebackup", "start")},
}
_FILLER = """
CREATE TABLE IF NOT EXISTS filler (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number int, body text);
CREATE INDEX IF NOT EXISTS filler_by_number ON filler (number);
"""
_FILLER_ROW_BYTES = 1000


class Options(Struct, frozen=True, kw_only=True):
    """``filler_mb``: one set of builds for each, on the demo's ``rows`` and a table of that size beside them.
    ``members``: of another blue with the demo's rows alone, itself included."""

    rounds: int = 3
    rows: int = 50_000
    filler_mb: tuple[int, ...] = (0, 1000)
    modes: tuple[str, ...] = ("logical", "physical")
    members: tuple[int, ...] = (1, 2, 4)


QUICK = Options(rounds=1, rows=1000, filler_mb=(0,), modes=("logical",), members=(1, 2))


class Round(Struct, frozen=True, kw_only=True):
    """Seconds. ``seen_s``: from the API call until a caller saw AVAILABLE, looked at ten times a second."""

    steps: Timings
    whole_s: float
    seen_s: float
    bare: Timings


class Build(Struct, frozen=True):
    """Of a whole topology; seconds as in ``Round``."""

    spans: list[Span]
    seen_s: float

    @property
    def whole_s(self) -> float:
        return _whole_s(self.spans)


class Subject(Struct, frozen=True, kw_only=True):
    """Blue, and what the benchmark has to know of it."""

    verdigris: Installation
    name: str
    source: PostgresServer
    binaries: Binaries  # of the target version


def prepare(verdigris: Installation, name: str, options: Options) -> Subject:
    instance = verdigris.create_instance(name, BLUE_VERSION, DBInstanceClass=INSTANCE_CLASS)
    note(f"loading {options.rows:,} rows")
    load_data(verdigris.dsn(name), options.rows)
    return Subject(
        verdigris=verdigris,
        name=name,
        source=source_server(verdigris.home, instance["DbiResourceId"]),
        binaries=installation_of(GREEN_VERSION),
    )


def fill(subject: Subject, megabytes: int) -> int:
    """Bring the filler to that size; returns the bytes of the whole database."""
    with subject.verdigris.connect(subject.name) as connection:
        connection.execute(_FILLER)
        rows = megabytes * 1_000_000 // _FILLER_ROW_BYTES
        connection.execute(
            "INSERT INTO filler (number, body) SELECT n, repeat(md5(n::text), 29)"
            " FROM generate_series((SELECT count(*) FROM filler) + 1, %s) n",
            [rows],
        )
        connection.execute("VACUUM ANALYZE filler")
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        return int(row[0]) if row else 0


def measure(subject: Subject, mode: ReplicationMode, number_: int) -> Round:
    """One round: green and the bare commands, each from a blue with nothing left to write."""
    bare: Timings = {}
    built: tuple[list[Span], float] | None = None
    for turn in ("bare", "green") if number_ % 2 else ("green", "bare"):
        _checkpoint(subject)
        if turn == "bare":
            bare = _bare(subject, mode)
        else:
            built = _green(subject, mode)
    if built is None:
        raise AssertionError("green had no turn")
    spans, seen_s = built
    return Round(steps={span.name: span.ms / 1000 for span in spans}, whole_s=_whole_s(spans), seen_s=seen_s, bare=bare)


def _bare(subject: Subject, mode: ReplicationMode) -> Timings:
    build = BareBuild(subject.source, subject.verdigris.home / "bare")
    try:
        return build.logical(subject.binaries) if mode is ReplicationMode.LOGICAL else build.physical()
    finally:
        build.close()


def _green(subject: Subject, mode: ReplicationMode) -> tuple[list[Span], float]:
    members = {"TargetEngineVersion": GREEN_VERSION} if mode is ReplicationMode.LOGICAL else {}
    deployment, seen_s = timed_build(subject.verdigris, subject.name, **members)
    spans = build_steps(read_events(subject.verdigris.home, deployment))
    delete_deployment(subject.verdigris, deployment, DeleteTarget=True)
    return spans, seen_s


def _whole_s(spans: Sequence[Span]) -> float:
    began_at = min(span.began_at for span in spans)
    return (max(span.ended_at for span in spans) - began_at).total_seconds()


def _checkpoint(subject: Subject) -> None:
    with psycopg.connect(subject.source.conninfo(), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def measure_members(subject: Subject, options: Options) -> dict[ReplicationMode, dict[int, list[Build]]]:
    """By number of members, of green as of blue, which is given more and more replicas."""
    built: dict[ReplicationMode, dict[int, list[Build]]] = {ReplicationMode(mode): {} for mode in options.modes}
    for members in sorted(options.members):
        add_replicas(subject, members - 1)
        for mode, of_mode in built.items():
            of_mode[members] = []
            for n in range(options.rounds):
                _checkpoint(subject)
                of_mode[members].append(Build(*_green(subject, mode)))
                note(f"{mode} mode, {members} members: round {n + 1} of {options.rounds}")
    return built


def add_replicas(subject: Subject, number_: int) -> None:
    """Until there are so many."""
    there = subject.verdigris.instance(subject.name).get("ReadReplicaDBInstanceIdentifiers", [])
    for n in range(len(there) + 1, number_ + 1):
        replica = f"{subject.name}-replica-{n}"
        subject.verdigris.rds.create_db_instance_read_replica(
            DBInstanceIdentifier=replica, SourceDBInstanceIdentifier=subject.name
        )
        subject.verdigris.rds.get_waiter("db_instance_available").wait(
            DBInstanceIdentifier=replica, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )


# ----------------------------------------------------------------------------------------------------------- reporting


def round_table(mode: ReplicationMode, rounds: Sequence[Round]) -> str:
    """A line for each step, the commands that do its work beside it; then the whole, and what a caller saw."""
    counterparts = COUNTERPARTS[mode]
    rows: list[list[str | float]] = []
    for step in rounds[0].steps:
        commands = counterparts.get(step, ())
        bare = median(total(one.bare, commands) for one in rounds) if commands else "-"
        rows.append([step, median(one.steps[step] for one in rounds), " + ".join(commands) or "-", bare])
    whole, bare_whole = [one.whole_s for one in rounds], [total(one.bare) for one in rounds]
    rows.append(["first step to last", median(whole), "all commands", median(bare_whole)])
    rows.append(["API call to AVAILABLE", median(one.seen_s for one in rounds), "-", "-"])
    singles = ", ".join(f"{name} {number(median(one.bare[name] for one in rounds))}" for name in rounds[0].bare)
    return "\n\n".join(
        [
            table(("Verdigris's step", "s", "bare commands", "s"), rows),
            f"Bare commands one by one, s: {singles}.",
            f"**Ratio of the wholes: {paired_ratio(whole, bare_whole):.2f}** (rounds: "
            + ", ".join(f"{a / b:.2f}" for a, b in zip(whole, bare_whole, strict=True))
            + ")",
        ]
    )


def members_table(built: Mapping[int, Sequence[Build]]) -> str:
    fewest = median(build.whole_s for build in built[min(built)])
    rows: list[list[str | float]] = []
    for members, builds in built.items():
        whole = median(build.whole_s for build in builds)
        rows.append([str(members), whole, f"{whole / fewest:.2f}", median(build.seen_s for build in builds)])
    return table(("members", "first step to last, s", "ratio", "API call to AVAILABLE, s"), rows)


# -------------------------------------------------------------------------------------------------------------- command


def benchmark(options: Options) -> None:
    facts = machine.describe(
        servers=f"PostgreSQL {BLUE_VERSION} to {GREEN_VERSION} (logical), {BLUE_VERSION} alone (physical)",
        runs=f"medians of rounds, {options.rounds} of them",
    )
    print(f"## Building green\n\n{facts}")
    with running_verdigris() as verdigris:
        subject = prepare(verdigris, "blue", options)
        for megabytes in options.filler_mb:
            note(f"filling up to {megabytes} MB")
            size_mb = fill(subject, megabytes) / 1_000_000
            for mode in map(ReplicationMode, options.modes):
                rounds = []
                for n in range(options.rounds):
                    rounds.append(measure(subject, mode, n))
                    note(f"{mode} mode, {size_mb:,.0f} MB: round {n + 1} of {options.rounds}")
                print(f"\n### {mode} mode, database of {size_mb:,.0f} MB\n\n{round_table(mode, rounds)}")
        if options.members:
            topology = prepare(verdigris, "topology", options)
            size_mb = fill(topology, 0) / 1_000_000
            for mode, built in measure_members(topology, options).items():
                print(f"\n### {mode} mode, by members, database of {size_mb:,.0f} MB\n\n{members_table(built)}")
    print(f"\n- load after: {machine.load()}")


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.green", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round on little data: does it work?")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--rows", type=int, help="of the demo's data")
    parser.add_argument("--filler-mb", type=int, nargs="+", help="sizes of the table beside them, rising")
    parser.add_argument("--members", type=int, nargs="*", help="of a topology, its primary included; rising")
    parser.add_argument("--modes", choices=[mode.value for mode in ReplicationMode], nargs="+")
    given = vars(parser.parse_args(arguments))
    defaults = QUICK if given.pop("quick") else Options()
    changes = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    return Options(**{name: getattr(defaults, name) for name in Options.__struct_fields__} | changes)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return run(lambda: benchmark(options))


if __name__ == "__main__":
    sys.exit(main())
