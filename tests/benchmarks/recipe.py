"""The same change of servers by hand, with PgBouncer: PAUSE, wait for replication, sequences, RELOAD, RESUME.

PgBouncer has to pool transactions for it: its PAUSE waits until every server connection has been released, which in
session mode is when every client has left (its manual, admin console). So its clients must live without prepared
statements, settings and all else that belongs to a session. Nothing keeps blue from being written to by anybody who
does not come through PgBouncer, and nothing is checked: this is the shortest way there is.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg.conninfo import make_conninfo

from tests.acceptance.installation import MASTER, PASSWORD, Installation, wait_until
from tests.benchmarks import pgbouncer
from tests.benchmarks.bare import source_server
from tests.benchmarks.command import state_directory, undisturbed
from tests.benchmarks.event_log import Span
from tests.benchmarks.peers import PortPool
from tests.benchmarks.product import BLUE_VERSION, GREEN_VERSION, INSTANCE_CLASS
from verdigris.demo.schema import install_schema
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.process import Process
from verdigris.router import tls

DATABASE = "app"
_START_LIMIT_S = 20.0
_WAIT_S = 0.001

Connection = psycopg.Connection[Any]

_SEQUENCES = "SELECT format('%I.%I', schemaname, sequencename), last_value FROM pg_sequences WHERE last_value > 0"
_SET_SEQUENCES = "SELECT setval(name::regclass, value) FROM unnest(%s::text[], %s::bigint[]) AS s (name, value)"
# When the apply worker has gone through everything up to here; it says so whenever the sender has caught up.
_APPLIED = (
    "SELECT bool_and(replay_lsn >= %s::pg_lsn) FROM pg_stat_replication WHERE application_name LIKE 'verdigris%%'"
)


class ServerPair(Struct, frozen=True):
    """Blue, and green that follows it: stopped, with a copy of both that brings them back as they were."""

    home: Path
    blue: PostgresServer
    green: PostgresServer

    @property
    def _saved(self) -> Path:
        return self.home / "saved"

    @classmethod
    def build(cls, home: Path) -> "ServerPair":
        """The same pair that a switchover would have: Verdigris makes it, and is then stopped."""
        verdigris = Installation(home, ports=range(18400, 19000))
        try:
            verdigris.start()
            verdigris.create_instance("pair", BLUE_VERSION, DBInstanceClass=INSTANCE_CLASS)
            install_schema(verdigris.dsn("pair"))
            _, green = verdigris.build_green("pair", TargetEngineVersion=GREEN_VERSION)
            resource_ids = [verdigris.resource_id(name) for name in ("pair", green)]
        finally:
            with undisturbed():
                verdigris.remove()
        pair = cls(home, *(source_server(home, resource_id) for resource_id in resource_ids))
        # An administrator's green is open from the start: nothing but PgBouncer leads there.
        settings = pair.green.data_dir / "postgresql.auto.conf"
        pair.green.account.write_file(
            settings, pair.green.account.read_file(settings) + "default_transaction_read_only = 'off'\n"
        )
        _copy(home / "instances", pair._saved)
        return pair

    @contextmanager
    def running(self) -> Iterator[None]:
        """Both as they were saved, following each other."""
        shutil.rmtree(self.home / "instances")
        _copy(self._saved, self.home / "instances")
        try:
            asyncio.run(self._start())
            with self.session(self.blue) as blue:
                wait_until(lambda: _has_applied(blue, _flushed(blue)), "green follows blue")
            yield
        finally:
            with undisturbed():
                asyncio.run(self._stop())

    async def _start(self) -> None:
        for server in (self.blue, self.green):
            await server.start(supervise=False)

    async def _stop(self) -> None:
        for server in (self.blue, self.green):
            await server.stop()

    def session(self, server: PostgresServer) -> Connection:
        return psycopg.connect(server.conninfo(DATABASE), autocommit=True, prepare_threshold=None)


def _copy(source: Path, target: Path) -> None:
    """With owners and modes, which ``shutil.copytree`` does not keep."""
    subprocess.run(["cp", "-a", source, target], check=True)  # noqa: S607  cp is wherever PATH says


class PgBouncer:
    """One in front of a pair, with transaction pooling. ``dsn`` is for clients, with TLS."""

    def __init__(self, program: str, pair: ServerPair, port: int, pool_size: int) -> None:
        self._pair = pair
        self._port = port
        self._pool_size = pool_size
        account = self._account = pair.blue.account
        self._directory = pair.home / "pgbouncer"
        certificates = pair.home / "certificates"
        certificates.mkdir(exist_ok=True)
        tls.server_context(certificates)
        account.make_directory(self._directory)
        for name in ("server.crt", "server.key"):
            account.write_file(self._directory / name, (certificates / name).read_bytes())
        account.write_file(self._directory / "users.txt", f'"{MASTER}" "{PASSWORD}"\n')
        self._configuration = self._directory / "pgbouncer.ini"
        self._write(self._configuration, pair.blue)
        self._next = self._directory / "pgbouncer.ini.green"
        self._write(self._next, pair.green)
        log = self._directory / "output.log"
        account.write_file(log, "")
        self._process = Process.spawn(
            [program, str(self._configuration)], account=account, env=account.environment(), log=log
        )

    @property
    def dsn(self) -> str:
        return self._conninfo(DATABASE)

    def _conninfo(self, database: str) -> str:
        return make_conninfo(host="127.0.0.1", port=self._port, user=MASTER, password=PASSWORD, dbname=database,
                             sslmode="require")  # fmt: skip

    def _write(self, path: Path, server: PostgresServer) -> None:
        configuration = pgbouncer.configuration(
            self._directory,
            database=DATABASE,
            server=f"host={server.socket_dir} port=5432",
            port=self._port,
            pool_mode="transaction",
            pool_size=self._pool_size,
            admin=MASTER,
        )
        self._account.write_file(path, configuration)

    def lead_to_green(self) -> None:
        """By a file that has been written beforehand; RELOAD makes it so."""
        self._next.rename(self._configuration)

    def console(self) -> Connection:
        end_s = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                return psycopg.connect(self._conninfo("pgbouncer"), autocommit=True)
            except psycopg.OperationalError:
                if time.monotonic() > end_s or not self._process.is_alive():
                    raise
                time.sleep(0.02)

    def stop(self) -> None:
        self._process.kill_session()
        asyncio.run(self._process.ended_within(5))
        self._process.close()


@contextmanager
def running_pgbouncer(program: str, pair: ServerPair, ports: PortPool, pool_size: int) -> Iterator[PgBouncer]:
    bouncer = PgBouncer(program, pair, ports.take(), pool_size)
    try:
        bouncer.console().close()
        yield bouncer
    finally:
        with undisturbed():
            bouncer.stop()


class Recipe:
    """Everything that it needs is open before it begins."""

    def __init__(self, pair: ServerPair, bouncer: PgBouncer, stack: ExitStack) -> None:
        self._bouncer = bouncer
        self._console = stack.enter_context(bouncer.console())
        self._blue = stack.enter_context(pair.session(pair.blue))
        self._green = stack.enter_context(pair.session(pair.green))

    def follow(self) -> list[Span]:
        """From the first client that waits to the last that goes on, step by step."""
        return [
            _timed("PAUSE", lambda: self._command(f"PAUSE {DATABASE}")),
            _timed("replication", self._wait),
            _timed("sequences", self._carry_sequences),
            _timed("RELOAD", self._lead_to_green),
            _timed("RESUME", lambda: self._command(f"RESUME {DATABASE}")),
        ]

    def _command(self, command: str) -> None:
        """The console knows the simple protocol only."""
        result = self._console.pgconn.exec_(command.encode())
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise RuntimeError(f"PgBouncer refused {command}: {result.error_message.decode()}")

    def _wait(self) -> None:
        lsn = _flushed(self._blue)
        while not _has_applied(self._blue, lsn):
            time.sleep(_WAIT_S)

    def _carry_sequences(self) -> None:
        rows = self._blue.execute(_SEQUENCES).fetchall()
        self._green.execute(_SET_SEQUENCES, [[name for name, _ in rows], [value for _, value in rows]])

    def _lead_to_green(self) -> None:
        self._bouncer.lead_to_green()
        self._command("RELOAD")


def _timed(name: str, act: Callable[[], None]) -> Span:
    began_at = datetime.now(UTC)
    act()
    return Span(name, began_at, datetime.now(UTC))


def _flushed(blue: Connection) -> str:
    row = blue.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    return str(row[0]) if row else ""


def _has_applied(blue: Connection, lsn: str) -> bool:
    row = blue.execute(_APPLIED, (lsn,)).fetchone()
    return bool(row and row[0])


@contextmanager
def running_pair() -> Iterator[ServerPair]:
    """Nothing of it is left afterwards."""
    with state_directory() as home:
        yield ServerPair.build(Path(os.path.realpath(home)))
