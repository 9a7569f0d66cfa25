"""The router's relay against a direct connection, HAProxy and PgBouncer: ``uv run python -m tests.benchmarks.relay``

One server stands behind all of them. Within a round every peer has its turn, and rounds are repeated, so that what the
machine does to one it does to all; tables show medians of the rounds, ratios are formed within a round. Five parts:
``pgbench -S``, the latency of one client, COPY and large results, new connections, and memory of idle sessions. At the
end stand the figures that were to be reached.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from tests.benchmarks import machine, memory, speed
from tests.benchmarks.backend import Backend, running_backend
from tests.benchmarks.command import note, run, state_directory
from tests.benchmarks.peers import PortPool, quiet, running_peers, versions
from tests.benchmarks.pgbench import Programs
from tests.benchmarks.turns import Aim, aims_table

SPEED_PARTS = {
    "pgbench": speed.measure_pgbench,
    "latency": speed.measure_latency,
    "copy": speed.measure_copy,
    "connect": speed.measure_connections,
}
MEMORY = "memory"
PARTS = (*SPEED_PARTS, MEMORY)


class Options(Struct, frozen=True, kw_only=True):
    """``more_peers``: also those that explain the others' figures. ``scale`` is pgbench's."""

    parts: tuple[str, ...] = PARTS
    version: str = "17.10"  # a build that can speak TLS, which the embedded 18.6 cannot
    rounds: int = 3
    seconds: int = 2
    clients: tuple[int, ...] = (1, 16, 64, 256)
    protocols: tuple[str, ...] = speed.PROTOCOLS
    scale: int = 10
    copy_mb: int = 500
    row_bytes: tuple[int, ...] = (100, 1000)
    connect_clients: int = 8
    sessions: int = 5000
    tls_sessions: int = 1000
    more_peers: bool = False


QUICK = Options(rounds=1, seconds=1, clients=(2,), protocols=("prepared",), scale=1, copy_mb=2, connect_clients=2,
                sessions=20, tls_sessions=10)  # fmt: skip


async def benchmark(options: Options, home: Path) -> None:
    began_s = time.monotonic()
    ports = PortPool()
    aims: list[Aim] = []
    parts = [part for part in SPEED_PARTS if part in options.parts]
    async with running_backend(home, options.version, ports.take(), _room_for(options)) as backend:
        print(_heading(options, backend))
        if parts:
            aims += await _measure_speed(options, parts, home, backend, ports)
    if MEMORY in options.parts:
        plan = memory.Plan(sessions=options.sessions, tls_sessions=options.tls_sessions)
        aims += await memory.measure_memory(plan, home / MEMORY, options.version, ports)
    print(f"\n### What was to be reached\n\n{aims_table(aims)}")
    print(f"\n- load after: {machine.load()}")
    print(f"- it took {(time.monotonic() - began_s) / 60:.1f} minutes")


async def _measure_speed(
    options: Options, parts: Sequence[str], home: Path, backend: Backend, ports: PortPool
) -> list[Aim]:
    plan = speed.Plan(**{name: getattr(options, name) for name in speed.Plan.__struct_fields__})
    programs = Programs(backend, home)
    note(f"filling pgbench's tables, scale {options.scale}")
    await programs.initialise(options.scale)
    async with running_peers(home, backend, ports, more=options.more_peers) as peers:
        return [aim for part in parts for aim in await SPEED_PARTS[part](plan, programs, peers)]


def _room_for(options: Options) -> dict[str, str]:
    """PgBouncer keeps its server connections when it is another's turn."""
    return {"max_connections": str(2 * max(*options.clients, options.connect_clients) + 50)}


def _heading(options: Options, backend: Backend) -> str:
    facts = machine.describe(
        server=f"PostgreSQL {backend.version} ({backend.installation.source}), pgbench and psql of the same build",
        **versions(),
        runs=f"medians of {options.rounds} rounds; pgbench for {options.seconds} s each, scale {options.scale}",
    )
    return f"## Relay\n\n{facts}"


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.relay", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short run of everything: does it work?")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part (may be given again)")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int, help="of each pgbench run")
    parser.add_argument("--clients", type=int, nargs="+")
    parser.add_argument("--protocols", choices=speed.PROTOCOLS, nargs="+")
    parser.add_argument("--copy-mb", type=int, help="size of each COPY in MB")
    parser.add_argument("--row-bytes", type=int, nargs="+", help="lengths of COPY's rows")
    parser.add_argument("--sessions", type=int, help="idle ones, for their memory")
    parser.add_argument("--tls-sessions", type=int, help="idle ones with TLS, for their memory")
    parser.add_argument("--more-peers", action="store_true", default=None,
                        help="also the unix socket, and HAProxy with one thread")  # fmt: skip
    parser.add_argument("--version", help="PostgreSQL's (default 17.10); its build must speak TLS")
    given = vars(parser.parse_args(arguments))
    defaults = QUICK if given.pop("quick") else Options()
    given["parts"] = given.pop("only")
    changes = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None
    }
    return Options(**{name: getattr(defaults, name) for name in Options.__struct_fields__} | changes)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    quiet()

    def start() -> None:
        with state_directory() as home:
            asyncio.run(benchmark(options, home))

    return run(start)


if __name__ == "__main__":
    sys.exit(main())
