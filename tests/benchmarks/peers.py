"""The router and those it is measured against, all in front of the same server's unix socket."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
from msgspec import Struct

from tests.benchmarks import pgbouncer
from tests.benchmarks.backend import DATABASE, USER, Backend
from tests.benchmarks.command import note, undisturbed
from tests.benchmarks.machine import program_version
from verdigris.domain.ports import Route
from verdigris.engines.process import Process
from verdigris.router.client import RouterClient
from verdigris.router.paths import RouterPaths
from verdigris.router.ports import HostPorts
from verdigris.router.process import RouterProcess

VERDIGRIS, HAPROXY, PGBOUNCER = "Verdigris", "HAProxy", "PgBouncer"
HAPROXY_SINGLE = "HAProxy, one thread"
DIRECT_TCP, DIRECT_UNIX = "direct, TCP", "direct, unix socket"

_START_LIMIT_S = 20.0


class Peer(Struct, frozen=True, kw_only=True):
    """``tls_port`` is None for one that cannot speak TLS, ``pid`` for one that has no process of its own."""

    name: str
    host: str
    port: int
    tls_port: int | None = None
    pid: int | None = None

    def conninfo(self, *, tls: bool = False) -> str:
        """For libpq, without the password, which comes from a passfile."""
        port, mode = (self.tls_port, "require") if tls else (self.port, "disable")
        return f"host={self.host} port={port} user={USER} dbname={DATABASE} sslmode={mode}"


class PortPool:
    """Free ports of 127.0.0.1, each given out once."""

    def __init__(self) -> None:
        self._host = HostPorts(allowed=range(17400, 18400))
        self._taken: set[int] = set()

    def take(self) -> int:
        port = self._host.allocate(self._taken)
        self._taken.add(port)
        return port


@asynccontextmanager
async def running_peers(
    home: Path, backend: Backend, ports: PortPool, *, more: bool = False, server_idle_s: int = 600
) -> AsyncIterator[list[Peer]]:
    """Verdigris first, then every peer that this machine has; what is missing is said. ``more`` adds those that are
    there to explain the others' figures: the unix socket without anybody between, and HAProxy held to one thread.
    ``server_idle_s``: how long PgBouncer keeps a server connection whose client has left (its default: ten minutes)."""
    async with AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(_verdigris(home, backend, ports)),
            Peer(name=DIRECT_TCP, host="127.0.0.1", port=backend.port, tls_port=backend.port),
        ]
        if more:
            peers.append(Peer(name=DIRECT_UNIX, host=str(backend.socket_dir), port=backend.port))
        if haproxy := find_or_say(HAPROXY):
            peers.append(await stack.enter_async_context(_haproxy(home, backend, ports, haproxy)))
            if more:
                peers.append(await stack.enter_async_context(_haproxy(home, backend, ports, haproxy, single=True)))
        if program := find_or_say(PGBOUNCER):
            peers.append(await stack.enter_async_context(_pgbouncer(home, backend, ports, program, server_idle_s)))
        yield peers


def versions() -> dict[str, str]:
    """What the peers call themselves; those that are missing as well."""
    return {
        name: program_version(program, "-v" if name == HAPROXY else "-V") if program else "not installed"
        for name in (HAPROXY, PGBOUNCER)
        for program in [_find(name.lower())]
    }


def find_or_say(name: str) -> str | None:
    program = _find(name.lower())
    if program is None:
        note(f"{name} is not installed (apt-get install {name.lower()}): measured without it")
    return program


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def _verdigris(home: Path, backend: Backend, ports: PortPool) -> AsyncIterator[Peer]:
    process = RouterProcess(home)
    try:
        pid = await process.ensure_running()
        port = ports.take()
        route = Route(name="benchmark", host="127.0.0.1", port=port, backend=backend.address)
        await RouterClient(home, epoch=1).put_route(route)
        yield Peer(name=VERDIGRIS, host="127.0.0.1", port=port, tls_port=port, pid=pid)
    finally:
        with undisturbed():
            await asyncio.shield(process.stop())


@asynccontextmanager
async def _haproxy(
    home: Path, backend: Backend, ports: PortPool, program: str, *, single: bool = False
) -> AsyncIterator[Peer]:
    """Nothing tuned: as many threads as there are processors, or ``single``, as the router and PgBouncer are.

    It relays PostgreSQL's TLS as it is, so the server behind it must speak TLS, which PostgreSQL does on TCP only.
    """
    port, tls_port = ports.take(), ports.take()
    configuration = f"""
global
    maxconn {pgbouncer.MAX_CLIENTS}
    {"nbthread 1" if single else ""}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen plain
    bind 127.0.0.1:{port}
    server pg unix@{backend.socket_path}
listen tls
    bind 127.0.0.1:{tls_port}
    server pg 127.0.0.1:{backend.port}
"""
    directory = _own_directory(home, backend, "haproxy1" if single else "haproxy")
    backend.account.write_file(directory / "haproxy.cfg", configuration)
    async with _process(backend, directory, [program, "-db", "-f", str(directory / "haproxy.cfg")], port) as pid:
        name = HAPROXY_SINGLE if single else HAPROXY
        yield Peer(name=name, host="127.0.0.1", port=port, tls_port=tls_port, pid=pid)


@asynccontextmanager
async def _pgbouncer(
    home: Path, backend: Backend, ports: PortPool, program: str, server_idle_s: int
) -> AsyncIterator[Peer]:
    """Session pooling: a client has a server connection for as long as it stays. The pool is larger than any run."""
    port = ports.take()
    directory = _own_directory(home, backend, "pgbouncer")
    certificates = RouterPaths(home).tls  # the router is there already: the same certificate costs the same
    for name in ("server.crt", "server.key"):
        backend.account.write_file(directory / name, (certificates / name).read_bytes())
    backend.account.write_file(directory / "users.txt", f'"{USER}" "{backend.password}"\n')
    configuration = pgbouncer.configuration(
        directory,
        database=DATABASE,
        server=f"host={backend.socket_dir} port={backend.port}",
        port=port,
        pool_mode="session",
        pool_size=pgbouncer.MAX_CLIENTS,
        server_idle_s=server_idle_s,
    )
    backend.account.write_file(directory / "pgbouncer.ini", configuration)
    async with _process(backend, directory, [program, str(directory / "pgbouncer.ini")], port) as pid:
        yield Peer(name=PGBOUNCER, host="127.0.0.1", port=port, tls_port=port, pid=pid)


def _own_directory(home: Path, backend: Backend, name: str) -> Path:
    directory = home / name
    backend.account.make_directory(directory)
    return directory


@asynccontextmanager
async def _process(backend: Backend, directory: Path, command: Sequence[str], port: int) -> AsyncIterator[int]:
    """A program under the engine account, which alone can enter the server's socket directory, until it listens."""
    log = directory / "output.log"
    backend.account.write_file(log, "")
    process = Process.spawn(command, account=backend.account, env=backend.account.environment(), log=log)
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            while not await _listens(port):
                if not process.is_alive():
                    raise RuntimeError(f"{command[0]} ended at once: {log.read_text()[-500:]}")
                await asyncio.sleep(0.02)
        yield process.pid
    finally:
        with undisturbed():
            process.kill_session()
            await asyncio.shield(process.ended_within(5))
            process.close()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def quiet() -> None:
    """What the product logs while it runs in our process belongs on no report."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
