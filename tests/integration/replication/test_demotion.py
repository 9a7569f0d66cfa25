"""A writer and a reader change places, on real servers: nothing is lost, nothing is copied, one of them can be written
to at most."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, CreateServer, until
from tests.integration.replication.conftest import as_master, query, run_as_master
from tests.integration.replication.test_replicas import replica_of, slots
from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Replica, WriterChange, WriterChanges
from verdigris.engines.postgres import marker, wal_limit
from verdigris.engines.postgres.demotion import PostgresWriterChanges
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.replicas import PostgresReplicas
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers

LIMIT_S = 60.0


@pytest.fixture
def changes(servers: PostgresServers) -> PostgresWriterChanges:
    return PostgresWriterChanges(servers)


class Cluster:
    def __init__(self, servers: PostgresServers, writer: PostgresServer, readers: list[Replica]) -> None:
        self.servers = servers
        self.replicas = PostgresReplicas(servers)
        self.writer = writer
        self.readers = [servers.server(each.resource_id) for each in readers]

    @property
    def change(self) -> WriterChange:
        chosen, *others = (each.resource_id for each in self.readers)
        return WriterChange(writer=self.writer.resource_id, reader=chosen, others=tuple(others))

    async def writable(self) -> list[PostgresServer]:
        found = []
        for server in (self.writer, *self.readers):
            with contextlib.suppress(EngineError, psycopg.Error):
                if await query(server, "SELECT pg_is_in_recovery()") == [(False,)]:
                    found.append(server)
        return found

    async def follow(self, source: PostgresServer) -> None:
        """Return when everybody else has what ``source`` has."""
        for server in (self.writer, *self.readers):
            if server is not source:
                replica = replica_of(source, resource_id=server.resource_id)
                async with asyncio.timeout(LIMIT_S):
                    await self.replicas.catch_up(replica)
                    await until(lambda r=replica: self._is_well(r))  # type: ignore[misc]

    async def _is_well(self, replica: Replica) -> bool:
        return (await self.replicas.look(replica)).trouble is None


async def cluster_of(servers: PostgresServers, writer: PostgresServer, *, readers: int = 2) -> Cluster:
    await run_as_master(writer, "CREATE TABLE ledger (n bigint PRIMARY KEY)")
    made = [replica_of(writer) for _ in range(readers)]
    for each in made:
        await PostgresReplicas(servers).create(each)
    return Cluster(servers, writer, made)


async def change_places(changes: WriterChanges, change: WriterChange) -> None:
    """The steps in their order, each of them twice, as after a crash."""
    for step in (changes.prepare, changes.demote, changes.promote, changes.follow):
        await step(change)
        await step(change)


async def write_until_it_ends(server: PostgresServer, acknowledged: list[int]) -> None:
    async with await as_master(server) as connection:
        with contextlib.suppress(psycopg.OperationalError):
            for n in range(10_000_000):
                await connection.execute("INSERT INTO ledger VALUES (%s)", (n,))
                acknowledged.append(n)


@pytest.mark.parametrize("version", [BLUE_VERSION, "18.6"])
async def test_there_and_back_under_load(
    servers: PostgresServers, changes: PostgresWriterChanges, create_server: CreateServer, version: str
) -> None:
    old = await create_server(version=version)
    cluster = await cluster_of(servers, old)
    new, acknowledged = cluster.readers[0], list[int]()
    load = asyncio.create_task(write_until_it_ends(old, acknowledged))
    await until(lambda: len(acknowledged) > 100)
    system = await query(old, "SELECT system_identifier FROM pg_control_system()")

    await change_places(changes, cluster.change)
    await load
    assert await query(new, "SELECT array_agg(n ORDER BY n) FROM public.ledger") == [(acknowledged,)]
    assert await cluster.writable() == [new]
    await run_as_master(new, "INSERT INTO ledger VALUES (-1)")
    await cluster.follow(new)
    assert await query(old, "SELECT count(*) FROM public.ledger WHERE n = -1") == [(1,)]
    assert await query(old, "SELECT system_identifier FROM pg_control_system()") == system
    assert await slots(old) == []
    assert wal_limit.SETTINGS[0] not in old.read_settings()
    assert wal_limit.SETTINGS[0] in new.read_settings()
    assert await slots(new) == sorted(ObjectNames(each).physical_slot for each in cluster.change.followers)

    # Restarted, everybody is what they are; and the way back is the same way.
    for server in (old, new):
        await server.restart()
    await cluster.follow(new)
    cluster.writer, cluster.readers[0] = new, old
    await change_places(changes, cluster.change)
    assert await cluster.writable() == [old]
    await run_as_master(old, "INSERT INTO ledger VALUES (-2)")
    await cluster.follow(old)
    assert await query(new, "SELECT count(*) FROM public.ledger") == [(len(acknowledged) + 2,)]


async def test_a_writer_that_has_died(
    servers: PostgresServers, changes: PostgresWriterChanges, create_server: CreateServer
) -> None:
    """What was acknowledged is in its WAL; it is brought up once more, and ended cleanly."""
    cluster = await cluster_of(servers, await create_server(), readers=1)
    old, (new,) = cluster.writer, cluster.readers
    await new.stop()
    await run_as_master(old, "INSERT INTO ledger VALUES (1)")
    pid = old.pid()
    assert pid is not None
    await old.detach()  # nobody starts it again
    os.kill(pid, signal.SIGKILL)
    await until(lambda: old.pid() is None)
    await new.start()
    await change_places(changes, cluster.change)
    assert await cluster.writable() == [new]
    assert await query(new, "SELECT n FROM public.ledger") == [(1,)]
    await cluster.follow(new)


def after_the_last_proof(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[object]]) -> None:
    """Between the moment in which the reader has everything and that in which the writer ends."""
    prove = marker.prove_replicas

    async def prove_and_act(source: PostgresServer, replicas: Iterable[PostgresServer]) -> None:
        await prove(source, replicas)
        await act()

    monkeypatch.setattr(marker, "prove_replicas", prove_and_act)


async def test_a_reader_that_does_not_follow(servers: PostgresServers, create_server: CreateServer) -> None:
    """The writer does not even end."""
    changes = PostgresWriterChanges(servers, arrival_limit_s=0.5)
    cluster = await cluster_of(servers, await create_server(), readers=1)
    old, (new,) = cluster.writer, cluster.readers
    pid = old.pid()
    await query(new, "SELECT pg_wal_replay_pause()")
    await run_as_master(old, "INSERT INTO ledger VALUES (1)")
    with pytest.raises(EngineError, match="does not follow"):
        await changes.demote(cluster.change)
    assert await cluster.writable() == [old]
    assert old.pid() == pid
    await query(new, "SELECT pg_wal_replay_resume()")
    await cluster.follow(old)


async def test_a_reader_that_does_not_get_the_rest(
    servers: PostgresServers, create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is promoted, and the writer goes on where it was."""
    changes = PostgresWriterChanges(servers, arrival_limit_s=2.0)
    cluster = await cluster_of(servers, await create_server(), readers=1)
    old, (new,) = cluster.writer, cluster.readers
    await changes.prepare(cluster.change)
    with monkeypatch.context() as patch:
        after_the_last_proof(patch, lambda: query(new, "SELECT pg_wal_replay_pause()"))
        with pytest.raises(EngineError, match="has not replayed the writer's last checkpoint"):
            await changes.demote(cluster.change)
    assert await cluster.writable() == []
    await changes.restore(cluster.change)
    await changes.restore(cluster.change)
    assert await cluster.writable() == [old]
    assert await slots(new) == []
    assert wal_limit.SETTINGS[0] not in new.read_settings()
    await run_as_master(old, "INSERT INTO ledger VALUES (2)")
    await cluster.follow(old)
    assert await query(new, "SELECT n FROM public.ledger") == [(2,)]


async def test_a_standby_that_keeps_its_writer_from_ending(
    servers: PostgresServers, create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is frozen. The writer, ended by force, says that it has ended cleanly: its last checkpoint is made, and nobody
    has it."""
    changes = PostgresWriterChanges(servers, end_limit_s=1.0, arrival_limit_s=2.0)
    cluster = await cluster_of(servers, await create_server(), readers=1)
    old, (new,) = cluster.writer, cluster.readers
    await changes.prepare(cluster.change)
    [(receiver,)] = await query(new, "SELECT pid FROM pg_stat_wal_receiver")

    async def freeze() -> None:
        os.kill(int(str(receiver)), signal.SIGSTOP)
        await run_as_master(old, "INSERT INTO ledger VALUES (1)")

    try:
        with monkeypatch.context() as patch:
            after_the_last_proof(patch, freeze)
            with pytest.raises(EngineError, match="has not replayed the writer's last checkpoint"):
                await changes.demote(cluster.change)
        with pytest.raises(EngineError, match="has not replayed the writer's last checkpoint"):
            await changes.promote(cluster.change)
    finally:
        os.kill(int(str(receiver)), signal.SIGCONT)
    await changes.restore(cluster.change)
    assert await cluster.writable() == [old]
    await cluster.follow(old)
    assert await query(new, "SELECT n FROM public.ledger") == [(1,)]


async def test_a_writer_that_does_not_end_in_time(servers: PostgresServers, create_server: CreateServer) -> None:
    """It may have what no reader has, and nobody is promoted beside it."""
    changes = PostgresWriterChanges(servers, end_limit_s=0.0)
    cluster = await cluster_of(servers, await create_server(), readers=1)
    old, (new,) = cluster.writer, cluster.readers
    await changes.prepare(cluster.change)
    with pytest.raises(EngineError, match="had to be ended by force"):
        await changes.demote(cluster.change)
    with pytest.raises(EngineError, match="can be written to"):
        await changes.promote(cluster.change)
    await changes.restore(cluster.change)
    assert await cluster.writable() == [old]
    await cluster.follow(old)
    assert await slots(new) == []


async def test_there_is_no_way_back_from_a_promotion(
    servers: PostgresServers, changes: PostgresWriterChanges, create_server: CreateServer
) -> None:
    cluster = await cluster_of(servers, await create_server(), readers=1)
    (new,) = cluster.readers
    for step in (changes.prepare, changes.demote, changes.promote):
        await step(cluster.change)
    await run_as_master(new, "INSERT INTO ledger VALUES (1)")
    with pytest.raises(EngineError, match="has been promoted"):
        await changes.restore(cluster.change)
    assert await cluster.writable() == [new]
    await changes.follow(cluster.change)
    assert await query(new, "SELECT n FROM public.ledger") == [(1,)]
    await cluster.follow(new)


async def test_a_reader_that_is_down_follows_when_it_runs(
    servers: PostgresServers, changes: PostgresWriterChanges, create_server: CreateServer
) -> None:
    cluster = await cluster_of(servers, await create_server())
    new, other = cluster.readers
    await other.stop()
    await change_places(changes, cluster.change)
    await run_as_master(new, "INSERT INTO ledger VALUES (1)")
    await other.start()
    await cluster.follow(new)
    assert await query(other, "SELECT n FROM public.ledger") == [(1,)]
