"""Minor upgrades on real servers: a streaming standby that is promoted."""

import time

import psycopg
import pytest

from tests.conftest import GREEN_VERSION, CreateServer
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
from verdigris.domain.errors import EngineError
from verdigris.engines.postgres import standby
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine


async def test_minor_upgrade_under_load_loses_nothing(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
) -> None:
    source = await create_server(version="18.3")
    await load_rich_schema(source)
    # Without a key: physical replication does not mind.
    await run_sql(source, "CREATE TABLE public.keyless (x text)", "INSERT INTO public.keyless VALUES ('a'), ('a')")
    pair = make_pair(source, GREEN_VERSION)
    assert await green.check_source(pair) == []
    async with writing(source) as acknowledged:
        await build(green, pair)
        await switchover.prepare(pair)
    target = servers.server(pair.target_resource_id)
    assert acknowledged
    assert await green.health(pair) is None
    assert await switchover.guardrails(pair) == []
    async with await as_master(target) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await connection.execute("CREATE TABLE public.nope ()")

    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    before = await contents(source)
    await switchover.open_target(pair)
    await switchover.open_target(pair)  # again, as after a crash
    assert await contents(target) == before
    async with await as_master(target) as connection:
        await connection.execute("INSERT INTO shop.customers (name) VALUES ('first on green')")
    await switchover.retire_source(pair)
    await switchover.retire_source(pair)
    assert await traces(source, pair) == []
    assert await traces(target, pair) == []
    await target.restart()
    assert await query(target, "SELECT pg_is_in_recovery(), version() LIKE 'PostgreSQL 18.6 %'") == [(False, True)]


async def test_a_standby_that_somebody_promoted_is_no_green_any_more(
    servers: PostgresServers, green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=GREEN_VERSION)
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    target = servers.server(pair.target_resource_id)
    [finding] = await green.check_source(make_pair(target, GREEN_VERSION))
    assert finding.check == "blue-is-standby"
    await run_sql(target, "SELECT pg_promote()")
    problem = await green.health(pair)
    assert problem is not None
    assert "promoted" in problem
    await green.dismantle(pair)
    assert await traces(source, pair) == []


async def test_releasing_a_standby_makes_it_a_server_of_its_own(
    servers: PostgresServers, green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=GREEN_VERSION)
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    await green.release_target(pair)
    target = servers.server(pair.target_resource_id)
    async with await as_master(target) as connection:
        await connection.execute("CREATE TABLE mine (id int)")
    assert await traces(source, pair) == []
    assert await traces(target, pair) == []


async def test_a_recovery_that_stands_still_is_given_up(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    create_server: CreateServer,
    make_pair: MakePair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standby, "STALLED_S", 0.5)
    source = await create_server(version=GREEN_VERSION)
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    target = servers.server(pair.target_resource_id)
    await target.stop()
    with pytest.raises(EngineError, match="no progress"):
        await standby.recover_to_end(target)  # nobody ends its recovery, and the source is idle
    await green.dismantle(pair)


async def test_a_copy_takes_no_more_of_the_source_than_it_may(
    servers: PostgresServers, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=GREEN_VERSION)
    [(size_mib,)] = await query(source, "SELECT sum(pg_database_size(oid))::bigint >> 20 FROM pg_database")
    rate_mib = int(str(size_mib)) // 2
    green = PostgresGreenBuilder(servers, copy_rate_mib=rate_mib)
    pair = make_pair(source, GREEN_VERSION)
    began_s = time.monotonic()
    await green.copy(pair)
    # On any machine, at any load: two seconds' worth, of which the first may come as a burst.
    assert time.monotonic() - began_s > 1.0
    await green.dismantle(pair)
