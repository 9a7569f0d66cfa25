"""Read replicas on real servers: whom they follow, what is kept for them, and how they stop being replicas."""

import asyncio
import os
import signal
from collections.abc import Callable

import psycopg
import pytest

from tests.conftest import CreateServer, random_resource_id, until
from tests.integration.replication.conftest import as_master, query, run_as_master, run_sql
from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Replica
from verdigris.engines.postgres import wal_limit
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.replicas import PostgresReplicas
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers

MakeReplica = Callable[..., Replica]
SLOTS = "SELECT slot_name FROM pg_replication_slots ORDER BY 1"


@pytest.fixture
def replicas(servers: PostgresServers) -> PostgresReplicas:
    return PostgresReplicas(servers)


def replica_of(source: PostgresServer, **members: object) -> Replica:
    known = {
        "resource_id": random_resource_id(),
        "source_resource_id": source.resource_id,
        "engine_version": str(source.version),
        "instance_class": "db.t4g.micro",
    }
    return Replica(**{**known, **members})  # type: ignore[arg-type]  # of several types


async def slots(server: PostgresServer) -> list[str]:
    return [str(row[0]) for row in await query(server, SLOTS, "postgres")]


async def follows(replicas: PostgresReplicas, replica: Replica) -> bool:
    try:
        return (await replicas.look(replica)).trouble is None
    except EngineError:
        return False  # one of the two is just dying


async def test_a_life(servers: PostgresServers, replicas: PostgresReplicas, create_server: CreateServer) -> None:
    """Follows, is restarted, is copied once more, and becomes a server of its own; nothing stays on the source."""
    source = await create_server()
    await run_as_master(source, "CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 100) g")
    replica, other = replica_of(source), replica_of(source)
    await replicas.create(replica)
    await replicas.create(replica)  # again, as after a crash
    await replicas.create(other)
    target = servers.server(replica.resource_id)
    assert await slots(source) == sorted(ObjectNames(r.resource_id).physical_slot for r in (replica, other))
    assert wal_limit.SETTINGS[0] in source.read_settings()
    assert wal_limit.SETTINGS[0] not in target.read_settings()

    await run_as_master(source, "INSERT INTO t VALUES (101)")
    await replicas.catch_up(replica)
    async with await as_master(target) as connection:
        assert await (await connection.execute("SELECT count(*) FROM t")).fetchall() == [(101,)]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("INSERT INTO t VALUES (102)")
    assert (await replicas.look(replica)).lag_bytes is not None

    await replicas.promote(replica)
    await replicas.promote(replica)  # again, as after a crash
    assert (await replicas.look(replica)).trouble is not None
    await run_as_master(target, "INSERT INTO t VALUES (102)")
    assert await slots(source) == [ObjectNames(other.resource_id).physical_slot]
    assert wal_limit.SETTINGS[0] in source.read_settings()
    await servers.remove(other.resource_id)
    await replicas.release_source(other)
    assert await slots(source) == []
    assert wal_limit.SETTINGS[0] not in source.read_settings()
    await target.restart()
    assert await query(target, "SELECT pg_is_in_recovery(), count(*) FROM public.t") == [(False, 102)]
    assert "primary_conninfo" not in target.read_settings()


@pytest.mark.parametrize("whose", ["source", "replica"])
async def test_it_follows_again_after_a_crash(
    servers: PostgresServers, replicas: PostgresReplicas, create_server: CreateServer, whose: str
) -> None:
    source = await create_server()
    replica = replica_of(source)
    await replicas.create(replica)
    target = servers.server(replica.resource_id)
    victim = source if whose == "source" else target
    pid = victim.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: victim.pid() not in (pid, None) and victim.is_running())
    await run_sql(source, "CREATE TABLE public.after_the_crash ()")
    await until(lambda: follows(replicas, replica))
    async with asyncio.timeout(20):
        await replicas.catch_up(replica)
    assert await query(target, "SELECT 'public.after_the_crash'::regclass::text") == [("public.after_the_crash",)]


async def test_what_is_due_on_a_source_that_is_down_is_done_when_it_runs(
    servers: PostgresServers, replicas: PostgresReplicas, create_server: CreateServer
) -> None:
    source = await create_server()
    replica = replica_of(source)
    await replicas.create(replica)
    await source.stop()
    assert (await replicas.look(replica)).trouble == "its source does not run"
    assert not await replicas.make_room(replica)
    await replicas.promote(replica)
    await run_as_master(servers.server(replica.resource_id), "CREATE TABLE mine ()")
    await servers.start(source.resource_id)

    async def is_clean() -> bool:
        return await slots(source) == [] and wal_limit.SETTINGS[0] not in source.read_settings()

    await until(is_clean)


async def test_it_has_what_its_source_has(
    servers: PostgresServers, replicas: PostgresReplicas, create_server: CreateServer
) -> None:
    """A standby with less of it than its primary stops replaying, and does not start."""
    source = await create_server()
    replica = replica_of(source, parameters={"max_connections": "60"})
    await replicas.create(replica)
    target = servers.server(replica.resource_id)
    limit = "SELECT current_setting('max_connections')::int"
    [(before,)] = await query(source, limit)
    assert isinstance(before, int)
    assert await query(target, limit) == [(before,)]
    assert not await replicas.make_room(replica)

    more = str(before + 17)
    await servers.set_parameters(source.resource_id, {"max_connections": more, "max_locks_per_transaction": "99"})
    assert not await replicas.make_room(replica)  # in its files only, as its source's
    assert target.read_settings()["max_connections"] == more
    await source.restart()
    await servers.set_parameters(replica.resource_id, {"max_connections": "61"})
    assert target.read_settings()["max_connections"] == more
    assert await replicas.make_room(replica)
    assert not await replicas.make_room(replica)
    assert await query(target, limit) == [(int(more),)]
    async with asyncio.timeout(20):
        await replicas.catch_up(replica)
    await replicas.promote(replica)


async def test_one_that_stays_behind_is_given_up(
    servers: PostgresServers, replicas: PostgresReplicas, create_server: CreateServer
) -> None:
    """It says so, and answers with what it has; its source goes on, and forgets it when it is told to."""
    source = await create_server()
    replica = replica_of(source)
    await replicas.create(replica)
    await servers.stop(replica.resource_id)
    source.change_settings({wal_limit.SETTINGS[0]: "32MB"})
    source.reload()
    for _ in range(6):  # a segment of 16 MB each
        await run_sql(source, "SELECT pg_logical_emit_message(true, 'test', '')", "SELECT pg_switch_wal()")
    await run_sql(source, "CHECKPOINT")
    await servers.start(replica.resource_id)
    trouble = (await replicas.look(replica)).trouble
    assert trouble is not None
    assert "create it again" in trouble
    assert await query(servers.server(replica.resource_id), "SELECT pg_is_in_recovery()") == [(True,)]
    await replicas.release_source(replica)
    assert await slots(source) == []
    assert (await replicas.look(replica)).trouble == trouble


async def test_the_limit_is_everybodys(create_server: CreateServer) -> None:
    """Until the last one is gone; one that was set by hand stays."""
    source = await create_server(db_name=None)
    setting = wal_limit.SETTINGS[0]
    for owner in ("db-A", "db-B", "db-A"):
        await wal_limit.impose(source, owner)
    wal_limit.lift(source, "db-A")
    wal_limit.lift(source, "db-C")
    assert setting in source.read_settings()
    wal_limit.lift(source, "db-B")
    assert not {*wal_limit.SETTINGS} & source.read_settings().keys()
    source.change_settings({setting: "123MB"})
    source.reload()
    await wal_limit.impose(source, "db-A")
    wal_limit.lift(source, "db-A")
    assert source.read_settings()[setting] == "123MB"
