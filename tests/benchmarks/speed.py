"""How fast a relay is: transactions, their latency, COPY and large results, new connections."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct

from tests.benchmarks.command import note
from tests.benchmarks.figures import number, table
from tests.benchmarks.peers import DIRECT_TCP, HAPROXY, PGBOUNCER, VERDIGRIS, Peer
from tests.benchmarks.pgbench import Programs, Throughput
from tests.benchmarks.turns import Aim, Turns, better_proxy, difference, median_cpu, ratio, ratio_text, take_turns

PROTOCOLS = ("simple", "extended", "prepared")
# Nothing is stored, so that what is measured is the way there and not the disk.
COPY_SINK = "CREATE UNLOGGED TABLE sink (line text)"
_RESULT_ROW_BYTES, _RESULT_ROWS = 1000, 10_000
LARGE_RESULT = f"SELECT repeat('x', {_RESULT_ROW_BYTES}) FROM generate_series(1, {_RESULT_ROWS});\n"

# What the project has set itself. Level is what two digits cannot tell from one.
LEVEL = 0.995
MAX_ADDED_US = 100.0
MIN_OF_DIRECT = 0.95


class Plan(Struct, frozen=True, kw_only=True):
    """``seconds`` of each pgbench run, ``rounds`` of everything; ``row_bytes`` are the lengths of COPY's rows."""

    rounds: int
    seconds: int
    clients: tuple[int, ...]
    protocols: tuple[str, ...]
    copy_mb: int
    row_bytes: tuple[int, ...]
    connect_clients: int


def _tps(result: Throughput) -> float:
    return result.tps


def _median_us(result: Throughput) -> float:
    return result.median_ms * 1000


# -- pgbench


async def measure_pgbench(plan: Plan, programs: Programs, peers: Sequence[Peer]) -> list[Aim]:
    aims = []
    for protocol in plan.protocols:
        for clients in plan.clients:
            note(f"pgbench -S, {protocol} protocol, {clients} clients")

            async def turn(peer: Peer, protocol: str = protocol, clients: int = clients) -> Throughput:
                return await programs.pgbench(peer.conninfo(), clients=clients, seconds=plan.seconds, protocol=protocol)

            turns = await take_turns(peers, plan.rounds, turn)
            case = f"pgbench -S, {protocol} protocol, {clients} {'client' if clients == 1 else 'clients'}"
            print(f"\n### {case}\n")
            print(throughput_table(turns))
            aims.append(_level(case, turns, better_proxy(turns, _tps)))
    return aims


def _level(case: str, turns: Turns[Throughput], base: str) -> Aim:
    reached = ratio(turns, VERDIGRIS, base, _tps)
    return Aim(figure=case, aim=f"level with {base}", measured=ratio_text(reached, base), kept=reached >= LEVEL)


def throughput_table(turns: Turns[Throughput]) -> str:
    base = better_proxy(turns, _tps)
    header = ("", "transactions/s", "lowest", "highest", f"ratio to {base}", "average ms", "median ms", "p99 ms",
              "its CPU µs/transaction")  # fmt: skip
    return table(header, [_throughput_row(name, turns, base) for name in turns])


def _throughput_row(name: str, turns: Turns[Throughput], base: str) -> list[str | float]:
    results = [result for result, _ in turns[name]]
    rates = [result.tps for result in results]
    return [
        name,
        median(rates),
        min(rates),
        max(rates),
        ratio(turns, name, base, _tps),
        median(result.average_ms for result in results),
        median(result.median_ms for result in results),
        median(result.p99_ms for result in results),
        median_cpu(turns, name, lambda result, cpu_s: 1e6 * cpu_s / result.transactions),
    ]


# -- latency of one client


async def measure_latency(plan: Plan, programs: Programs, peers: Sequence[Peer]) -> list[Aim]:
    note("latency at one client")

    async def turn(peer: Peer) -> Throughput:
        return await programs.pgbench(peer.conninfo(), clients=1, seconds=plan.seconds, protocol="simple", sample=1)

    turns = await take_turns(peers, plan.rounds, turn)
    added_us = {name: difference(turns, name, DIRECT_TCP, _median_us) for name in turns}
    rows: list[list[str | float]] = [
        [
            name,
            median(_median_us(result) for result, _ in turns[name]),
            added_us[name],
            median(result.p99_ms * 1000 for result, _ in turns[name]),
        ]
        for name in turns
    ]
    print("\n### Latency at one client, pgbench -S, simple protocol\n")
    print(table(("", "median µs", f"added to {DIRECT_TCP}, µs", "p99 µs"), rows))
    limit_us = min(MAX_ADDED_US, added_us.get(HAPROXY, MAX_ADDED_US))
    what = "added latency at one client, median"
    aim = f"at most {MAX_ADDED_US:.0f} µs, and no more than {HAPROXY}'s {number(added_us.get(HAPROXY, float('nan')))}"
    ours = added_us[VERDIGRIS]
    return [Aim(figure=what, aim=aim, measured=f"{number(ours)} µs", kept=ours <= limit_us)]


# -- COPY and large results


async def measure_copy(plan: Plan, programs: Programs, peers: Sequence[Peer]) -> list[Aim]:
    await programs.copy(peers[0].conninfo(), COPY_SINK)
    aims = []
    for row_bytes in plan.row_bytes:
        rows = plan.copy_mb * 1_000_000 // row_bytes
        # Not in FROM: there a function's rows would be stored first, on disk.
        query = f"SELECT repeat('x', {row_bytes - 1}) FROM (SELECT generate_series(1, {rows}) OFFSET 0) AS row"
        what = f"COPY out, rows of {row_bytes} bytes"
        aims.append(await _copy_case(what, f"\\copy ({query}) TO '/dev/null'", plan, programs, peers))
    source = programs.directory / "rows"
    try:
        _write_rows(source, plan.copy_mb, plan.row_bytes[0])
        statement = f"\\copy sink FROM '{source}' WHERE false"
        what = f"COPY in, rows of {plan.row_bytes[0]} bytes"
        aims.append(await _copy_case(what, statement, plan, programs, peers))
    finally:
        source.unlink(missing_ok=True)
    aims.append(await _large_results(plan, programs, peers))
    print(f"\nRatios are of MB/s to those of {DIRECT_TCP}. What COPY brings in is parsed by the server and dropped.")
    return aims


async def _copy_case(what: str, statement: str, plan: Plan, programs: Programs, peers: Sequence[Peer]) -> Aim:
    async def turn(peer: Peer) -> float:
        """MB/s."""
        return plan.copy_mb / await programs.copy(peer.conninfo(), statement)

    return await _rate_case(f"{what}, {plan.copy_mb} MB", turn, plan, peers)


async def _large_results(plan: Plan, programs: Programs, peers: Sequence[Peer]) -> Aim:
    script = programs.directory / "large.sql"
    script.write_text(LARGE_RESULT)
    megabytes = _RESULT_ROW_BYTES * _RESULT_ROWS / 1e6

    async def turn(peer: Peer) -> float:
        """MB/s."""
        result = await programs.pgbench(peer.conninfo(), clients=1, seconds=plan.seconds, script=script)
        return result.tps * megabytes

    return await _rate_case(f"results of {megabytes:.0f} MB, rows of {_RESULT_ROW_BYTES} bytes", turn, plan, peers)


async def _rate_case(what: str, turn: Callable[[Peer], Awaitable[float]], plan: Plan, peers: Sequence[Peer]) -> Aim:
    note(what)
    turns = await take_turns(peers, plan.rounds, turn)
    rows: list[list[str | float]] = []
    for name, results in turns.items():
        rates = [rate for rate, _ in results]
        rows.append([name, median(rates), min(rates), max(rates), ratio(turns, name, DIRECT_TCP, float)])
    print(f"\n### {what}\n")
    print(table(("", "MB/s", "lowest", "highest", f"ratio to {DIRECT_TCP}"), rows))
    reached = ratio(turns, VERDIGRIS, DIRECT_TCP, float)
    return Aim(figure=what, aim=f"{MIN_OF_DIRECT:.0%} of direct", measured=f"{reached:.0%}",
               kept=reached >= MIN_OF_DIRECT)  # fmt: skip


def _write_rows(path: Path, megabytes: int, row_bytes: int) -> None:
    block = (b"x" * (row_bytes - 1) + b"\n") * (1_000_000 // row_bytes)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
    path.chmod(0o644)


# -- connections


async def measure_connections(plan: Plan, programs: Programs, peers: Sequence[Peer]) -> list[Aim]:
    aims = []
    for tls in (False, True):
        able = [peer for peer in peers if not tls or peer.tls_port is not None]
        case = f"a new connection for each transaction, SCRAM, {'with' if tls else 'without'} TLS"
        note(case)

        async def turn(peer: Peer, tls: bool = tls) -> Throughput:
            return await programs.pgbench(
                peer.conninfo(tls=tls), clients=plan.connect_clients, seconds=plan.seconds, reconnect=True
            )

        turns = await take_turns(able, plan.rounds, turn)
        base = HAPROXY if HAPROXY in turns else DIRECT_TCP
        print(f"\n### {case}, {plan.connect_clients} clients\n")
        print(connection_table(turns, base))
        aims.append(_level(case, turns, base))
    print(f"\n{HAPROXY} passes TLS through to the server; the others end it themselves. {PGBOUNCER} keeps its server")
    print("connections when a client leaves, so that it starts no server process for each of them.")
    return aims


def connection_table(turns: Turns[Throughput], base: str) -> str:
    rows: list[list[str | float]] = [
        [
            name,
            median(result.tps for result, _ in results),
            ratio(turns, name, base, _tps),
            median(result.average_ms for result, _ in results),
            median_cpu(turns, name, lambda result, cpu_s: 1e3 * cpu_s / result.transactions),
        ]
        for name, results in turns.items()
    ]
    return table(("", "connections/s", f"ratio to {base}", "average ms", "its CPU ms/connection"), rows)
