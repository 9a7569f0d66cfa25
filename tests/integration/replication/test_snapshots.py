"""Snapshots of real servers: what is in them, what is made of them, and that nothing else is left of either."""

import asyncio
import contextlib

import pytest

from tests.acceptance.disks import can_mount, mounted
from tests.conftest import BLUE_VERSION, GREEN_VERSION, MASTER, CreateServer, processes_of, random_resource_id, until
from tests.integration.replication.conftest import MakePair, as_master, build, contents, query, run_sql, traces
from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Replica, Restoration
from verdigris.engines.postgres import wal_limit
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.replicas import PostgresReplicas
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.snapshots import PostgresSnapshots

FIRST, SECOND = "snap-first", "snap-second"
SLOTS = "SELECT slot_name FROM pg_replication_slots"
ROWS = "SELECT n FROM public.ledger ORDER BY n"


@pytest.fixture
def snapshots(servers: PostgresServers) -> PostgresSnapshots:
    return PostgresSnapshots(servers)


def restoration(source: PostgresServer, snapshot_id: str = FIRST, **parameters: str) -> Restoration:
    return Restoration(
        snapshot_id=snapshot_id,
        resource_id=random_resource_id(),
        engine_version=str(source.version),
        instance_class="db.t4g.micro",
        parameters=parameters,
    )


async def restored(servers: PostgresServers, snapshots: PostgresSnapshots, wanted: Restoration) -> PostgresServer:
    await snapshots.restore(wanted)
    return servers.server(wanted.resource_id)


async def slow_snapshots(servers: PostgresServers, source: PostgresServer) -> PostgresSnapshots:
    """Their checkpoint takes its time, too, if it has anything to write."""
    await run_sql(source, "CHECKPOINT")
    return PostgresSnapshots(servers, copy_rate_mib=1)


async def nothing_left(servers: PostgresServers, source: PostgresServer) -> None:
    assert list(servers.layout.snapshots.iterdir()) == []
    assert await query(source, SLOTS, "postgres") == []
    assert not set(wal_limit.SETTINGS) & source.read_settings().keys()
    assert processes_of(servers.layout.snapshots) == []


class Writer:
    """Writes a number to one database, then to the other, and so on."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.acknowledged = 0

    async def run(self) -> None:
        async with await as_master(self._server) as one, await as_master(self._server, "other") as two:
            while True:
                for connection in (one, two):
                    await connection.execute("INSERT INTO public.ledger VALUES (%s)", [self.acknowledged + 1])
                self.acknowledged += 1


async def test_it_is_of_one_moment(
    servers: PostgresServers, snapshots: PostgresSnapshots, create_server: CreateServer
) -> None:
    """Of all databases together, with roles, passwords and extensions as they were then, made by its own binaries."""
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, "CREATE DATABASE other", f"CREATE ROLE reader LOGIN PASSWORD 'secret' IN ROLE {MASTER}")
    for database in ("app", "other"):
        await run_sql(source, "CREATE TABLE public.ledger (n int)", dbname=database)
        await run_sql(source, f"ALTER TABLE public.ledger OWNER TO {MASTER}", dbname=database)
    await run_sql(
        source,
        "CREATE EXTENSION pg_stat_statements SCHEMA public",
        "CREATE TABLE public.bulk AS SELECT repeat('x', 900) AS x FROM generate_series(1, 20000)",
    )
    writer = Writer(source)
    writing = asyncio.create_task(writer.run())
    await until(lambda: writer.acknowledged > 10, limit_s=60)
    before = writer.acknowledged
    size = await snapshots.take(FIRST, source.resource_id)
    after = writer.acknowledged
    await until(lambda: writer.acknowledged > after + 10, limit_s=60)
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    assert size > 20000 * 900
    assert await query(source, SLOTS, "postgres") == []
    assert not set(wal_limit.SETTINGS) & source.read_settings().keys()

    await run_sql(source, f"ALTER ROLE {MASTER} PASSWORD 'another'", "ALTER ROLE reader NOLOGIN")
    await snapshots.copy(SECOND, FIRST)
    await snapshots.remove(FIRST)
    target = await restored(servers, snapshots, restoration(source, SECOND, work_mem="12345"))
    assert target.version == source.version
    async with await as_master(target) as connection:  # with the password that it had
        await connection.execute("CREATE TABLE public.mine AS SELECT 1")
        assert await (await connection.execute("SHOW work_mem")).fetchall() == [("12345kB",)]
    assert await query(target, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'reader'") == [(True,)]
    assert await query(target, "SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'") == [(1,)]
    one, two = [[n for (n,) in await query(target, ROWS, database)] for database in ("app", "other")]
    assert one == list(range(1, len(one) + 1))
    assert two == one[: len(two)]
    assert before <= len(two) <= len(one) <= len(two) + 1
    assert len(two) <= after + 1
    await snapshots.remove(SECOND)
    await nothing_left(servers, source)


async def test_one_interrupted_is_begun_anew(
    servers: PostgresServers, snapshots: PostgresSnapshots, create_server: CreateServer
) -> None:
    source = await create_server(version=BLUE_VERSION)
    slow = await slow_snapshots(servers, source)
    taking = asyncio.create_task(slow.take(FIRST, source.resource_id))
    partial = servers.layout.snapshot(FIRST) / "data.partial" / "base"
    await until(partial.exists, limit_s=60)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await query(source, SLOTS, "postgres") != []  # as a death would leave it
    await snapshots.take(FIRST, source.resource_id)
    await snapshots.take(FIRST, source.resource_id)  # again, as when its end was not recorded
    wanted = restoration(source)
    await restored(servers, snapshots, wanted)
    await restored(servers, snapshots, wanted)
    await snapshots.discard(FIRST, source.resource_id)
    await nothing_left(servers, source)


async def test_one_whose_server_dies_fails_and_leaves_nothing(
    servers: PostgresServers, create_server: CreateServer
) -> None:
    source = await create_server(version=BLUE_VERSION)
    slow = await slow_snapshots(servers, source)
    taking = asyncio.create_task(slow.take(FIRST, source.resource_id))
    await until((servers.layout.snapshot(FIRST) / "data.partial" / "base").exists, limit_s=60)
    await source.stop()
    with pytest.raises(EngineError, match=r"^pg_basebackup failed"):
        await taking
    await slow.discard(FIRST, source.resource_id)
    await servers.start(source.resource_id)
    await until(lambda: source.record.to_clean == (), limit_s=60)
    await nothing_left(servers, source)


async def test_a_damaged_one_makes_no_server(
    servers: PostgresServers, snapshots: PostgresSnapshots, create_server: CreateServer
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await snapshots.take(FIRST, source.resource_id)
    with (servers.layout.snapshot(FIRST) / "data" / "global" / "pg_control").open("r+b") as file:
        file.seek(100)
        file.write(bytes([file.read(1)[0] ^ 1]))
    wanted = restoration(source)
    with pytest.raises(EngineError, match="pg_control"):
        await snapshots.restore(wanted)
    assert wanted.resource_id not in servers.known()
    with pytest.raises(EngineError, match="not a complete snapshot"):
        await snapshots.restore(restoration(source, SECOND))


async def test_too_little_disk(
    servers: PostgresServers,
    snapshots: PostgresSnapshots,
    create_server: CreateServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As seen before it begins."""
    source = await create_server(version=BLUE_VERSION)
    monkeypatch.setattr("verdigris.engines.disk.FREE_DISK_FACTOR", 1e9)
    with pytest.raises(EngineError, match="too little free disk"):
        await snapshots.take(FIRST, source.resource_id)
    await nothing_left(servers, source)


async def test_a_disk_that_is_full_meanwhile(servers: PostgresServers, create_server: CreateServer) -> None:
    """Whoever finds out, pg_basebackup or we: the server whose snapshot it is does not notice."""
    if not can_mount():
        pytest.skip("a small file system cannot be mounted here")
    source = await create_server(version=BLUE_VERSION)
    slow = await slow_snapshots(servers, source)
    disk = mounted(servers.layout.snapshots)
    try:
        taking = asyncio.create_task(slow.take(FIRST, source.resource_id))
        await until((servers.layout.snapshot(FIRST) / "data.partial" / "base").exists, limit_s=60)
        await asyncio.to_thread(disk.fill)
        with pytest.raises(EngineError, match=r"the disk runs full|No space left"):
            await taking
        await run_sql(source, "CREATE TABLE public.t AS SELECT 1")
        await slow.discard(FIRST, source.resource_id)
        await nothing_left(servers, source)
    finally:
        disk.unmount()


async def test_of_a_read_replica(
    servers: PostgresServers, snapshots: PostgresSnapshots, create_server: CreateServer
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, "CREATE TABLE public.t AS SELECT g FROM generate_series(1, 1000) g")
    replica = Replica(
        resource_id=random_resource_id(),
        source_resource_id=source.resource_id,
        engine_version=str(source.version),
        instance_class="db.t4g.micro",
    )
    replicas = PostgresReplicas(servers)
    await replicas.create(replica)
    await snapshots.take(FIRST, replica.resource_id)
    target = await restored(servers, snapshots, restoration(source))
    assert await query(target, "SELECT pg_is_in_recovery(), (SELECT count(*) FROM public.t)") == [(False, 1000)]
    assert (await replicas.look(replica)).trouble is None
    assert await query(servers.server(replica.resource_id), SLOTS, "postgres") == []


async def test_of_the_members_of_a_deployment(
    servers: PostgresServers,
    snapshots: PostgresSnapshots,
    green: PostgresGreenBuilder,
    create_server: CreateServer,
    make_pair: MakePair,
) -> None:
    """What is made of them stands alone, and takes nothing from those who go on."""
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, "CREATE TABLE public.t (g int PRIMARY KEY)", "INSERT INTO public.t VALUES (1)")
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    target = servers.server(pair.target_resource_id)
    await snapshots.take(FIRST, source.resource_id)
    await snapshots.take(SECOND, target.resource_id)
    of_blue = await restored(servers, snapshots, restoration(source))
    of_green = await restored(servers, snapshots, restoration(target, SECOND))
    for copy in (of_blue, of_green):
        assert await traces(copy, pair) == []
        async with await as_master(copy) as connection:
            await connection.execute("CREATE TABLE public.mine AS SELECT 1")
    await run_sql(source, "INSERT INTO public.t VALUES (2)")
    await until(lambda: _has(target, 2), limit_s=60)
    assert await green.health(pair) is None
    assert await contents(of_blue) != await contents(source)
    await servers.remove(target.resource_id)
    await green.dismantle(pair)


async def _has(server: PostgresServer, number: int) -> bool:
    return (number,) in await query(server, "SELECT g FROM public.t")
