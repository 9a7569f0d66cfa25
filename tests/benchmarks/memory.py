"""What a session that does nothing costs those that stand in its way, in memory."""

import asyncio
from pathlib import Path

from msgspec import Struct

from tests.benchmarks import machine
from tests.benchmarks.backend import Backend, running_backend
from tests.benchmarks.command import note
from tests.benchmarks.figures import table
from tests.benchmarks.idle import IdleSessions
from tests.benchmarks.peers import HAPROXY, VERDIGRIS, Peer, PortPool, running_peers
from tests.benchmarks.pgbench import Programs
from tests.benchmarks.turns import Aim

KIB = 1024
MAX_KIB_A_SESSION = 20.0
# Opened and closed beforehand, so that what a process learns with its first clients is not counted.
_WARM_UP = 50
# A server process that has run one small query takes less than this for itself.
_SERVER_PROCESS_BYTES = 3 * 1024 * 1024
# PgBouncer would keep its server connections for ten minutes, and there is room for one peer's at a time.
_SERVER_IDLE_S = 1
_LEFT_WITHIN_S = 60.0
# Processes of the server's own that come and go: autovacuum workers, launchers.
_COMING_AND_GOING = 4


class Cost(Struct, frozen=True, kw_only=True):
    """Bytes a session: what the peer's processes grew by, by Rss and by Pss; and the server's, by Pss."""

    rss: float
    pss: float
    server_pss: float


class Plan(Struct, frozen=True, kw_only=True):
    sessions: int
    tls_sessions: int


async def measure_memory(plan: Plan, home: Path, version: str, ports: PortPool) -> list[Aim]:
    """On a server of its own, of as many real server processes as there are sessions."""
    home.mkdir()
    home.chmod(0o711)
    settings = {
        "max_connections": str(max(plan.sessions, plan.tls_sessions) + _WARM_UP + 50),
        "shared_buffers": "64MB",
    }
    aims: list[Aim] = []
    async with running_backend(home, version, ports.take(), settings) as backend:
        programs = Programs(backend, home)
        processes = len(machine.family(backend.pid)) + _COMING_AND_GOING
        async with running_peers(home, backend, ports, server_idle_s=_SERVER_IDLE_S) as peers:
            measured = [peer for peer in peers if peer.pid]
            for tls, wanted in ((False, plan.sessions), (True, plan.tls_sessions)):
                sessions = _possible(wanted)
                costs = {}
                for peer in measured:
                    costs[peer.name] = await _cost(peer, backend, programs, sessions, processes=processes, tls=tls)
                    await _all_left(backend, processes)
                what = f"memory of {sessions:,} idle sessions, {'TLS' if tls else 'plain TCP'}"
                print(f"\n### {what}\n\n{cost_table(costs)}")
                aims.append(_aim(what, costs[VERDIGRIS]))
    print(f"\nGrowth of all processes of each, divided by the sessions. {HAPROXY} passes TLS through: it is the server")
    print("that has to keep the state of TLS there. Each session has a server process behind it, which ran one query.")
    return aims


def _possible(sessions: int) -> int:
    """As many as there is memory for server processes; it is said when they are fewer than were asked for."""
    room = machine.available_bytes() * 8 // 10 // _SERVER_PROCESS_BYTES
    if room < sessions:
        note(f"memory for {room} server processes only")
    return min(sessions, room)


async def _cost(peer: Peer, backend: Backend, programs: Programs, sessions: int, *, processes: int, tls: bool) -> Cost:
    note(f"{sessions} idle sessions through {peer.name}{', TLS' if tls else ''}")
    assert peer.pid is not None  # those without a process are not asked
    conninfo = f"{peer.conninfo(tls=tls)} passfile={programs.passfile}"
    with await asyncio.to_thread(IdleSessions, conninfo, _WARM_UP):
        pass
    await _all_left(backend, processes)
    (rss, pss), (_, server_pss) = machine.resident_bytes(peer.pid), machine.resident_bytes(backend.pid)
    with await asyncio.to_thread(IdleSessions, conninfo, sessions):
        rss_after, pss_after = machine.resident_bytes(peer.pid)
        _, server_pss_after = await asyncio.to_thread(machine.resident_bytes, backend.pid)
    return Cost(
        rss=(rss_after - rss) / sessions,
        pss=(pss_after - pss) / sessions,
        server_pss=(server_pss_after - server_pss) / sessions,
    )


async def _all_left(backend: Backend, processes: int) -> None:
    """The server processes of sessions that have left are gone, and PgBouncer's with them."""
    async with asyncio.timeout(_LEFT_WITHIN_S):
        while len(machine.family(backend.pid)) > processes:  # noqa: ASYNC110  another process's children tell nobody
            await asyncio.sleep(0.1)


def cost_table(costs: dict[str, Cost]) -> str:
    header = ("", "Rss, KiB a session", "Pss, KiB a session", "server process, Pss, KiB")
    rows: list[list[str | float]] = [
        [name, cost.rss / KIB, cost.pss / KIB, cost.server_pss / KIB] for name, cost in costs.items()
    ]
    return table(header, rows)


def _aim(what: str, cost: Cost) -> Aim:
    kib = cost.rss / KIB
    aim = f"at most {MAX_KIB_A_SESSION:.0f} KiB a session"
    return Aim(figure=what, aim=aim, measured=f"{kib:.1f} KiB", kept=kib <= MAX_KIB_A_SESSION)
