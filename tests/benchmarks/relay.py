"""The router's relay against a direct connection, HAProxy and PgBouncer: ``uv run python -m tests.benchmarks.relay``

One server stands behind all of them. Within a round every peer has its turn, and rounds are repeated, so that what the
machine does to one it does to all; tables show medians of the rounds, ratios are formed within a round. Three parts:
``pgbench -S`` in the three protocols, COPY in both directions, and connections a second with SCRAM.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from msgspec import Struct

from tests.benchmarks import machine
from tests.benchmarks.backend import Backend, running_backend
from tests.benchmarks.command import note, run, state_directory
from tests.benchmarks.figures import paired_ratio, table
from tests.benchmarks.peers import DIRECT_TCP, HAPROXY, Peer, PortPool, quiet, running_peers, versions
from tests.benchmarks.pgbench import Programs, Throughput

T = TypeVar("T")

PROTOCOLS = ("simple", "extended", "prepared")
PARTS = ("pgbench", "copy", "connect")
# Nothing is stored, so that what is measured is the way there and not the disk.
COPY_SINK = "CREATE UNLOGGED TABLE sink (line text)"


class Options(Struct, frozen=True, kw_only=True):
    """``seconds`` of each pgbench run, ``rounds`` of everything; ``row_bytes`` are the lengths of COPY's rows."""

    parts: tuple[str, ...] = PARTS
    version: str = "17.10"  # a build that can speak TLS, which the embedded 18.6 cannot
    rounds: int = 5
    seconds: int = 3
    clients: tuple[int, ...] = (1, 16, 64)
    protocols: tuple[str, ...] = PROTOCOLS
    scale: int = 10
    copy_mb: int = 1000
    row_bytes: tuple[int, ...] = (100, 1000)
    connect_clients: int = 8


QUICK = Options(rounds=1, seconds=1, clients=(2,), protocols=("prepared",), scale=1, copy_mb=2, connect_clients=2)


Turns = dict[str, list[tuple[T, float | None]]]


async def take_turns(peers: Sequence[Peer], rounds: int, turn: Callable[[Peer], Awaitable[T]]) -> Turns[T]:
    """Each round every peer once, each round beginning with another one: results and processor seconds, by name."""
    turns: Turns[T] = {peer.name: [] for peer in peers}
    for n in range(rounds):
        for peer in [*peers[n % len(peers) :], *peers[: n % len(peers)]]:
            before_s = machine.cpu_s(peer.pid) if peer.pid else None
            result = await turn(peer)
            cpu_s = machine.cpu_s(peer.pid) - before_s if peer.pid and before_s is not None else None
            turns[peer.name].append((result, cpu_s))
    return turns


def yardstick(peers: Sequence[Peer]) -> str:
    """Whom ratios are against: HAProxy, which does as much as the relay does, or a direct connection without it."""
    names = [peer.name for peer in peers]
    return HAPROXY if HAPROXY in names else DIRECT_TCP


# ------------------------------------------------------------------------------------------------------------- pgbench


async def measure_pgbench(options: Options, programs: Programs, peers: Sequence[Peer]) -> None:
    base = yardstick(peers)
    for protocol in options.protocols:
        for clients in options.clients:
            note(f"pgbench -S, {protocol} protocol, {clients} clients")

            async def turn(peer: Peer, protocol: str = protocol, clients: int = clients) -> Throughput:
                return await programs.pgbench(
                    peer.conninfo(), clients=clients, seconds=options.seconds, protocol=protocol
                )

            turns = await take_turns(peers, options.rounds, turn)
            print(f"\n### pgbench -S, {protocol} protocol, {clients} {'client' if clients == 1 else 'clients'}\n")
            print(throughput_table(turns, base))


def throughput_table(turns: Turns[Throughput], base: str) -> str:
    header = ("", "transactions/s", "lowest", "highest", f"ratio to {base}", "average ms", "median ms", "p99 ms",
              "its CPU µs/transaction")  # fmt: skip
    return table(header, [_throughput_row(name, turns, base) for name in turns])


def _throughput_row(name: str, turns: Turns[Throughput], base: str) -> list[str | float]:
    results = [result for result, _ in turns[name]]
    rates = [result.tps for result in results]
    cpu_us = [1e6 * cpu_s / result.transactions for result, cpu_s in turns[name] if cpu_s is not None]
    return [
        name,
        median(rates),
        min(rates),
        max(rates),
        paired_ratio(rates, [result.tps for result, _ in turns[base]]),
        median(result.average_ms for result in results),
        median(result.median_ms for result in results),
        median(result.p99_ms for result in results),
        median(cpu_us) if cpu_us else float("nan"),
    ]


# ---------------------------------------------------------------------------------------------------------------- COPY


async def measure_copy(options: Options, programs: Programs, peers: Sequence[Peer]) -> None:
    base = yardstick(peers)
    await programs.copy(peers[0].conninfo(), COPY_SINK)
    for row_bytes in options.row_bytes:
        rows = options.copy_mb * 1_000_000 // row_bytes
        # Not in FROM: there a function's rows would be stored first, on disk.
        query = f"SELECT repeat('x', {row_bytes - 1}) FROM (SELECT generate_series(1, {rows}) OFFSET 0) AS row"
        await _copy_case(
            f"out, rows of {row_bytes} bytes", f"\\copy ({query}) TO '/dev/null'", options, programs, peers
        )
    source = programs.directory / "rows"
    try:
        _write_rows(source, options.copy_mb, options.row_bytes[0])
        statement = f"\\copy sink FROM '{source}' WHERE false"
        await _copy_case(f"in, rows of {options.row_bytes[0]} bytes", statement, options, programs, peers)
    finally:
        source.unlink(missing_ok=True)
    print(f"\nRatios are of MB/s to {base}'s. What comes in is read and parsed by the server and then dropped.")


async def _copy_case(what: str, statement: str, options: Options, programs: Programs, peers: Sequence[Peer]) -> None:
    note(f"COPY {what}")
    turns = await take_turns(peers, options.rounds, lambda peer: programs.copy(peer.conninfo(), statement))
    base = yardstick(peers)
    rates = {name: [options.copy_mb / elapsed_s for elapsed_s, _ in turns[name]] for name in turns}
    rows: list[list[str | float]] = []
    for name, results in turns.items():
        cpu_s = [used_s for _, used_s in results if used_s is not None]
        elapsed_s = median(elapsed_s for elapsed_s, _ in results)
        used_s = median(cpu_s) if cpu_s else float("nan")
        rows.append([name, elapsed_s, median(rates[name]), paired_ratio(rates[name], rates[base]), used_s])
    print(f"\n### COPY {what}, {options.copy_mb} MB\n")
    print(table(("", "seconds", "MB/s", f"ratio to {base}", "its CPU seconds"), rows))


def _write_rows(path: Path, megabytes: int, row_bytes: int) -> None:
    block = (b"x" * (row_bytes - 1) + b"\n") * (1_000_000 // row_bytes)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
    path.chmod(0o644)


# --------------------------------------------------------------------------------------------------------- connections


async def measure_connections(options: Options, programs: Programs, peers: Sequence[Peer]) -> None:
    for tls in (False, True):
        able = [peer for peer in peers if not tls or peer.tls_port is not None]
        base = yardstick(able)
        what = f"a connection for each transaction, SCRAM, {'with' if tls else 'without'} TLS"
        note(what)

        async def turn(peer: Peer, tls: bool = tls) -> Throughput:
            return await programs.pgbench(
                peer.conninfo(tls=tls), clients=options.connect_clients, seconds=options.seconds, reconnect=True
            )

        turns = await take_turns(able, options.rounds, turn)
        print(f"\n### {what}, {options.connect_clients} clients\n")
        print(connection_table(turns, base))
    print(f"\n{HAPROXY} passes TLS through to the server; the others end it themselves. PgBouncer keeps its server")
    print("connections when a client leaves, so that it starts no server process for each of them.")


def connection_table(turns: Turns[Throughput], base: str) -> str:
    rows: list[list[str | float]] = []
    for name, results in turns.items():
        rates = [result.tps for result, _ in results]
        cpu_ms = [1e3 * cpu_s / result.transactions for result, cpu_s in results if cpu_s is not None]
        rows.append(
            [
                name,
                median(rates),
                paired_ratio(rates, [result.tps for result, _ in turns[base]]),
                median(result.average_ms for result, _ in results),
                median(cpu_ms) if cpu_ms else float("nan"),
            ]
        )
    header = ("", "connections/s", f"ratio to {base}", "average ms", "its CPU ms/connection")
    return table(header, rows)


# -------------------------------------------------------------------------------------------------------------- command


async def benchmark(options: Options, home: Path) -> None:
    ports = PortPool()
    async with running_backend(home, options.version, ports.take()) as backend:
        programs = Programs(backend, home)
        note(f"filling pgbench's tables, scale {options.scale}")
        await programs.initialise(options.scale)
        async with running_peers(home, backend, ports) as peers:
            print(_heading(options, backend))
            parts = {"pgbench": measure_pgbench, "copy": measure_copy, "connect": measure_connections}
            for part in options.parts:
                await parts[part](options, programs, peers)
        print(f"\n- load after: {machine.load()}")


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
    parser.add_argument("--protocols", choices=PROTOCOLS, nargs="+")
    parser.add_argument("--copy-mb", type=int, help="size of each COPY in MB")
    parser.add_argument("--row-bytes", type=int, nargs="+", help="lengths of COPY's rows")
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
