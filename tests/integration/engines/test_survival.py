"""Violent deaths: of servers, of their control plane, and of neither though it looks so."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.conftest import CreateServer, processes_of, server_spec, until
from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.process import ProcessIdentity
from verdigris.engines.supervisor import RestartPolicy, ServerCondition

VERSION = "18.6"


async def scalar(server: PostgresServer, query: str) -> object:
    async with await server.connect(options="") as connection:
        row = await (await connection.execute(query.encode())).fetchone()
        return row[0] if row else None


def pid_of(server: PostgresServer) -> int:
    pid = server.pid()
    assert pid is not None
    return pid


def restarted(server: PostgresServer, old_pid: int) -> bool:
    return server.is_running() and server.pid() != old_pid


async def answers(server: PostgresServer) -> bool:
    """A connection made while the socket is the killed server's still, held by its last orphan, ends with that."""
    try:
        return await scalar(server, "SELECT 1") == 1
    except (EngineError, psycopg.OperationalError):
        return False


@pytest.fixture
def bystander(engine_account: EngineAccount) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the engine account's that is none of ours to signal."""
    process = subprocess.Popen(["/bin/sleep", "600"], cwd="/", **engine_account.process_options())
    yield process
    process.kill()
    process.wait()


async def test_killed_server_comes_back_with_every_commit(create_server: CreateServer) -> None:
    server = await create_server(version=VERSION)
    async with await server.connect(options="") as connection:
        await connection.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    for _ in range(2):
        killed = pid_of(server)
        os.kill(killed, signal.SIGKILL)
        await until(partial(restarted, server, killed))
        await until(partial(answers, server))
        assert await scalar(server, "SELECT count(*) FROM t") == 1000


async def test_orphan_with_a_long_query_does_not_keep_the_server_down(create_server: CreateServer) -> None:
    server = await create_server(version=VERSION)
    async with await server.connect(options="") as busy:
        query = asyncio.create_task(busy.execute("SELECT count(*) FROM generate_series(1, 1e12)"))
        await until(lambda: is_busy(server))
        killed = pid_of(server)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: restarted(server, killed))
        with pytest.raises(psycopg.OperationalError):
            await query


async def is_busy(server: PostgresServer) -> bool:
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%1e12)'"
    return await scalar(server, active) == 1


async def test_crash_loop_ends_and_an_explicit_start_begins_anew(
    verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount, create_server: CreateServer
) -> None:
    first = await create_server(version=VERSION)
    await first.detach()
    seen: list[tuple[ServerCondition, str]] = []
    servers = PostgresServers(
        verdigris_home,
        catalogue,
        engine_account,
        policy=RestartPolicy(deaths=3, first_delay_s=0.01),
        report=lambda _, condition, detail: seen.append((condition, detail)),
    )
    server = servers.server(first.resource_id)
    await servers.start(first.resource_id)
    await until(lambda: bool(seen))
    server.change_settings({"shared_buffers": "a lot"})
    os.kill(pid_of(server), signal.SIGKILL)
    await until(lambda: seen[-1][0] is ServerCondition.CRASH_LOOPING)
    assert [condition for condition, _ in seen] == [
        ServerCondition.RUNNING,
        ServerCondition.DIED,
        ServerCondition.CRASH_LOOPING,
    ]
    with pytest.raises(EngineError, match='invalid value for parameter "shared_buffers": "a lot"'):
        await servers.start(first.resource_id)
    await servers.set_instance_class(first.resource_id, "db.t4g.micro")
    await servers.start(first.resource_id)
    await until(lambda: seen[-1][0] is ServerCondition.RUNNING)
    await servers.stop(first.resource_id)


async def test_who_cannot_write_down_how_a_server_is_minds_it_all_the_same(
    verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount, create_server: CreateServer
) -> None:
    """The disk of the control plane's database is full: the server comes back from its death, and is told later."""
    first = await create_server(version=VERSION)
    await first.detach()
    asked, heard = [], []
    disk_is_full = True

    def report(_id: str, condition: ServerCondition, _detail: str) -> None:
        asked.append(condition)
        if disk_is_full:
            raise OSError("database or disk is full")
        heard.append(condition)

    servers = PostgresServers(verdigris_home, catalogue, engine_account, report=report)
    server = servers.server(first.resource_id)
    await servers.start(first.resource_id)
    await until(lambda: ServerCondition.RUNNING in asked)
    killed = pid_of(server)
    os.kill(killed, signal.SIGKILL)
    await until(partial(restarted, server, killed))
    await until(partial(answers, server))
    disk_is_full = False
    await until(lambda: heard == [ServerCondition.RUNNING])
    await servers.stop(first.resource_id)


async def test_a_crash_loop_ends_when_its_cause_is_gone(
    verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount, create_server: CreateServer
) -> None:
    """At three in the morning nobody restarts a server because its disk has room again."""
    first = await create_server(version=VERSION)
    await first.detach()
    seen: list[ServerCondition] = []
    servers = PostgresServers(
        verdigris_home,
        catalogue,
        engine_account,
        policy=RestartPolicy(deaths=2, first_delay_s=0.01, longest_delay_s=0.1),
        report=lambda _id, condition, _detail: seen.append(condition),
    )
    server = servers.server(first.resource_id)
    await servers.start(first.resource_id)
    server.change_settings({"shared_buffers": "a lot"})
    os.kill(pid_of(server), signal.SIGKILL)
    await until(lambda: ServerCondition.CRASH_LOOPING in seen)
    await servers.set_instance_class(first.resource_id, "db.t4g.micro")
    await until(lambda: seen[-1] is ServerCondition.RUNNING)
    assert seen.count(ServerCondition.CRASH_LOOPING) == 1
    await servers.stop(first.resource_id)


async def test_a_server_that_could_not_be_started_is_tried_again(
    verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount, create_server: CreateServer
) -> None:
    """As after the restart of a machine whose disk is full."""
    first = await create_server(version=VERSION)
    await first.stop()
    seen: list[ServerCondition] = []
    servers = PostgresServers(
        verdigris_home,
        catalogue,
        engine_account,
        policy=RestartPolicy(first_delay_s=0.1, longest_delay_s=0.1),
        report=lambda _id, condition, _detail: seen.append(condition),
    )
    servers.server(first.resource_id).change_settings({"shared_buffers": "a lot"})
    with pytest.raises(EngineError, match="shared_buffers"):
        await servers.start(first.resource_id)
    await servers.set_instance_class(first.resource_id, "db.t4g.micro")
    await until(lambda: ServerCondition.RUNNING in seen)
    await servers.stop(first.resource_id)


async def test_stopped_server_stays_stopped(create_server: CreateServer, verdigris_home: Path) -> None:
    server = await create_server(version=VERSION)
    await server.stop()
    await asyncio.wait([asyncio.create_task(until(server.is_running, limit_s=0.5))])
    assert not server.is_running()
    assert processes_of(verdigris_home) == []


async def test_frozen_server_can_be_stopped(create_server: CreateServer, verdigris_home: Path) -> None:
    server = await create_server(version=VERSION)
    async with await server.connect(options="") as connection:
        os.kill(connection.info.backend_pid, signal.SIGSTOP)
        os.kill(pid_of(server), signal.SIGSTOP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("verdigris.engines.postgres.postmaster.FORCE_S", 0.2)
            await server.stop(timeout_s=0.2)
    assert processes_of(verdigris_home) == []
    await server.start()
    assert await scalar(server, "SELECT 1") == 1


async def test_lock_file_with_the_number_of_another_process(
    create_server: CreateServer, bystander: "subprocess.Popen[bytes]"
) -> None:
    """Usual after a restart of the machine: PostgreSQL alone would refuse to start for good."""
    server = await create_server(version=VERSION)
    lock = server.data_dir / "postmaster.pid"
    content = lock.read_text().splitlines()
    await server.stop()
    forged = "\n".join([str(bystander.pid), *content[1:]]) + "\n"
    server.account.write_file(lock, forged)
    server.account.write_file(server.socket_dir / ".s.PGSQL.5432.lock", forged)
    assert server.pid() is None
    await server.stop()
    assert bystander.poll() is None, "a process that is not the postmaster was signalled"
    await server.start()
    assert await scalar(server, "SELECT 1") == 1
    assert bystander.poll() is None


@pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02])
async def test_cancelled_start_can_be_stopped_or_taken_up(
    create_server: CreateServer, verdigris_home: Path, delay_s: float
) -> None:
    server = await create_server(version=VERSION)
    for then_stop in (True, False):
        await server.stop()
        start = asyncio.create_task(server.start())
        await asyncio.wait([start], timeout=delay_s)
        start.cancel()
        await asyncio.wait([start])
        if then_stop:
            await server.stop()
            assert processes_of(verdigris_home) == []
        else:
            await server.start()
            assert await scalar(server, "SELECT 1") == 1


CONTROL_PLANE = """
import asyncio, sys
from pathlib import Path
from verdigris.engines.account import engine_account
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.postgres.servers import PostgresServers

async def main():
    account = engine_account()
    servers = PostgresServers(Path(sys.argv[1]), Catalogue(account), account)
    await servers.start(sys.argv[2])
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_killed_control_plane_leaves_the_server_and_a_new_one_adopts_it(
    create_server: CreateServer, servers: PostgresServers, verdigris_home: Path
) -> None:
    server = await create_server(version=VERSION)
    await server.stop()
    control_plane = subprocess.Popen(
        [sys.executable, "-c", CONTROL_PLANE, str(verdigris_home), server.resource_id], stdout=subprocess.DEVNULL
    )
    await until(server.is_running)
    async with await server.connect(options="") as session:
        control_plane.kill()
        control_plane.wait()
        row = await (await session.execute("SELECT 'the session lives on'")).fetchone()
        assert row == ("the session lives on",)
    identity = ProcessIdentity.of(pid_of(server))
    await servers.start(server.resource_id)
    assert ProcessIdentity.of(pid_of(server)) == identity, "adopted, not started again"
    killed = pid_of(server)
    os.kill(killed, signal.SIGKILL)
    await until(lambda: restarted(server, killed))


def test_works_on_uvloop_too(verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def life() -> None:
        servers = PostgresServers(verdigris_home, catalogue, engine_account)
        wanted = server_spec(servers, version=VERSION)
        try:
            await servers.create(wanted)
            server = servers.server(wanted.resource_id)
            killed = pid_of(server)
            os.kill(killed, signal.SIGKILL)
            await until(lambda: restarted(server, killed))
            with pytest.raises(EngineError, match=r"did not finish within 0\.2 s"):
                await server.run("psql", "-X", "-d", server.conninfo(), "-c", "SELECT pg_sleep(60)", timeout_s=0.2)
        finally:
            await servers.remove(wanted.resource_id)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())
