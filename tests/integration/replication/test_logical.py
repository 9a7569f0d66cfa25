"""Major upgrades on real servers: green made under load, followed, and switched to."""

import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, MASTER, CreateServer
from tests.integration.replication.conftest import (
    MakePair,
    as_master,
    build,
    contents,
    load_rich_schema,
    query,
    run_sql,
    traces,
    writing,
)
from verdigris.domain.ports import Pair
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import until
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine


async def test_major_upgrade_under_load_loses_nothing(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
    record_property: Callable[[str, object], None],
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await load_rich_schema(source)
    await run_sql(source, 'CREATE DATABASE "Second db"')
    await run_sql(
        source,
        "CREATE TABLE public.t (id serial PRIMARY KEY, x text)",
        "INSERT INTO public.t (x) SELECT 'x' || i FROM generate_series(1, 1000) i",
        dbname="Second db",
    )
    pair = make_pair(source, GREEN_VERSION)
    assert await green.check_source(pair) == []

    async with writing(source) as acknowledged:
        await build(green, pair)
        await run_sql(
            source, "UPDATE public.t SET x = x || '!'", "SELECT nextval('public.t_id_seq')", dbname="Second db"
        )
        await run_sql(
            source,
            "UPDATE shop.orders SET state = 'sent', placed_on = placed_on + 200 WHERE id % 3 = 0",
            "DELETE FROM shop.log WHERE line LIKE '%7'",
            "TRUNCATE shop.bookings",
            "INSERT INTO shop.bookings (room, during) VALUES (1, 'empty')",
            "SELECT setval('shop.never_used', 70, false)",
            "ALTER ROLE rich_clerk PASSWORD 'another-password'",
        )
        assert await switchover.guardrails(pair) == []
        await switchover.prepare(pair)
    assert len(acknowledged) > 100
    target = servers.server(pair.target_resource_id)

    parked = await as_master(source)
    other = await as_master(source)
    before_at = time.monotonic()
    await switchover.fence(pair, [parked.info.backend_pid])
    fenced_at = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        await other.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        await as_master(source)
    assert await switchover.is_fenced(pair)
    caught_up_from = time.monotonic()
    await switchover.catch_up(pair)
    caught_up_at = time.monotonic()
    assert await contents(target) == await contents(source)

    verifiers = await switchover.login_verifiers(pair, ["rich_clerk", "rich_reader", MASTER, "nobody"])
    assert verifiers.keys() == {"rich_clerk", MASTER}
    before_opening = time.monotonic()
    await switchover.open_target(pair)
    opened_at = time.monotonic()
    async with await as_master(target) as connection:
        await connection.execute("INSERT INTO shop.customers (name) VALUES ('first on green')")
    await switchover.retire_source(pair)
    await parked.close()
    await other.close()

    assert await traces(source, pair) == []
    assert await traces(target, pair) == []
    async with await as_master(source) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("DELETE FROM shop.log")
    record_property("fence_ms", (fenced_at - before_at) * 1000)
    record_property("catch_up_ms", (caught_up_at - caught_up_from) * 1000)
    record_property("open_target_ms", (opened_at - before_opening) * 1000)
    print(
        f"fence {1000 * (fenced_at - before_at):.1f} ms, catch_up {1000 * (caught_up_at - caught_up_from):.1f} ms,"
        f" open_target {1000 * (opened_at - before_opening):.1f} ms"
    )


@pytest.mark.parametrize(("source_version", "target_version"), [("15.19", GREEN_VERSION), ("16.15", "17.11")])
async def test_other_majors(
    source_version: str,
    target_version: str,
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
) -> None:
    source = await create_server(version=source_version)
    await load_rich_schema(source)
    pair = make_pair(source, target_version)
    assert await green.check_source(pair) == []
    await build(green, pair)
    await run_sql(source, "UPDATE shop.customers SET name = name || '!'", "SELECT nextval('shop.receipt')")
    assert await switchover.guardrails(pair) == []
    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    target = servers.server(pair.target_resource_id)
    assert await contents(target) == await contents(source)
    assert str(target.version) == target_version


async def test_green_is_read_only_until_released(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    create_server: CreateServer,
    make_pair: MakePair,
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, "CREATE TABLE public.t (id int PRIMARY KEY)", f"ALTER TABLE public.t OWNER TO {MASTER}")
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    target = servers.server(pair.target_resource_id)
    async with await as_master(target) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("INSERT INTO public.t VALUES (1)")

    assert await green.health(pair) is None
    async with asyncio.timeout(20):
        await until(lambda: _streams(green, pair), every_s=0.05)

    # A round that waits meanwhile finds nothing to do, instead of half of its tables.
    async with green.tending.interrupted(ObjectNames(pair.deployment_id)):
        released = asyncio.create_task(green.release_target(pair))
        await asyncio.sleep(0)
        told = asyncio.create_task(green.tend(pair))
        await asyncio.sleep(0)
    await released
    assert await told == []
    await green.release_target(pair)
    async with await as_master(target) as connection:
        await connection.execute("INSERT INTO public.t VALUES (1)")
    assert await query(source, "SELECT * FROM public.t") == []
    assert await traces(source, pair) == []
    assert await traces(target, pair) == []


async def _streams(green: PostgresGreenBuilder, pair: Pair) -> bool:
    return await green.lag_bytes(pair) is not None
