"""What stops a switchover, before it begins and in its last moment; and what breaks a green for good."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from types import SimpleNamespace

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer
from tests.integration.replication.conftest import MakePair, as_master, build, load_rich_schema, query, run_sql, traces
from verdigris.domain.errors import StepFailed
from verdigris.domain.ports import Finding, Pair
from verdigris.engines.postgres import wal_limit
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.guardrails import activity, replication
from verdigris.engines.postgres.own_sessions import APPLICATION_NAME
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import until
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine


@pytest.fixture
async def pair(green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair) -> AsyncIterator[Pair]:
    source = await create_server(version=BLUE_VERSION)
    await load_rich_schema(source)
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    yield pair
    await green.dismantle(pair)
    assert await traces(source, pair) == []


@pytest.fixture
def source(servers: PostgresServers, pair: Pair) -> PostgresServer:
    return servers.server(pair.source_resource_id)


@pytest.fixture
def target(servers: PostgresServers, pair: Pair) -> PostgresServer:
    return servers.server(pair.target_resource_id)


async def test_changes_of_definitions(
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    pair: Pair,
    source: PostgresServer,
    target: PostgresServer,
) -> None:
    # What is done to green itself is its owner's business, and maintenance changes no definition.
    await run_sql(target, "SET default_transaction_read_only = off", "CREATE INDEX ON shop.orders (total)")
    await run_sql(
        source, "VACUUM FULL shop.customers", "ANALYZE", "TRUNCATE shop.log", "REINDEX TABLE shop.orders_rest"
    )
    await run_sql(source, "REINDEX SCHEMA CONCURRENTLY shop")
    await run_sql(target, "SET default_transaction_read_only = off", "CREATE DATABASE of_green")
    assert await green.health(pair) is None
    await run_sql(
        source,
        "CREATE TABLE public.staging AS SELECT 1 AS x",
        "UPDATE public.staging SET x = 2",
        "CREATE TEMP TABLE passing (x int)",
    )
    assert "table public.staging (created)" in _text(await switchover.guardrails(pair))
    await run_sql(source, "DROP TABLE public.staging")
    # Privileges given and taken back are spelt out afterwards, and the same as before.
    for what in ("TABLE shop.log", "FUNCTION shop.touch()", "SCHEMA shop", "TYPE shop.mood", "LANGUAGE plpgsql"):
        await run_sql(source, f"GRANT ALL ON {what} TO pg_monitor", f"REVOKE ALL ON {what} FROM pg_monitor")
    assert await switchover.guardrails(pair) == []

    await run_sql(
        source,
        "ALTER TABLE shop.customers ADD COLUMN extra int",
        "CREATE OR REPLACE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "ALTER TYPE shop.mood ADD VALUE 'returned'",
        "DROP VIEW shop.open_orders",
        "CREATE ROLE newcomer",
        "GRANT SELECT ON shop.secrets TO newcomer",
        "CREATE DATABASE another",
    )
    text = _text(await switchover.guardrails(pair))
    for change in (
        "column extra of table shop.customers (created)",
        "function shop.touch() (changed)",
        "type shop.mood",
        "view shop.open_orders (dropped)",
        "table shop.secrets (changed)",
        "database another (created)",
    ):
        assert change in text
    await run_sql(source, "DROP DATABASE another", dbname="postgres")


async def test_a_table_made_after_the_guardrails_is_found_behind_the_fence(
    switchover: PostgresSwitchoverEngine, pair: Pair, source: PostgresServer
) -> None:
    assert await switchover.guardrails(pair) == []
    await run_sql(source, "CREATE TABLE public.late (id int PRIMARY KEY)", "INSERT INTO public.late VALUES (1)")
    await switchover.fence(pair, [])
    with pytest.raises(StepFailed, match=r"table public\.late \(created\)"):
        await switchover.catch_up(pair)
    await switchover.unfence(pair)
    assert not await switchover.is_fenced(pair)


async def test_long_writes_ddl_and_writes_on_green(
    switchover: PostgresSwitchoverEngine,
    pair: Pair,
    source: PostgresServer,
    target: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(activity, "LONG_WRITE_S", 0.0)
    monkeypatch.setattr(activity, "LONG_DDL_S", 0.0)
    on_blue, on_green = await as_master(source), await as_master(target)
    await on_blue.execute("BEGIN; ALTER TABLE shop.log ADD COLUMN y int")
    await on_green.execute("BEGIN READ WRITE; INSERT INTO shop.log VALUES (now(), 'green')")
    pids = [on_blue.info.backend_pid, 1]
    [busy] = await switchover.describe_sessions(pair, pids)
    assert re.fullmatch(rf"process {pids[0]} \(\w+@app\) idle in transaction for [0-9.]+ s", busy), busy
    assert _names(await switchover.guardrails(pair)) == {"writes-on-green", "long-writes", "long-ddl"}
    for connection in (on_blue, on_green):
        await connection.execute("ROLLBACK")
        await connection.close()
    assert await switchover.guardrails(pair) == []


async def test_prepared_transactions_are_found(
    green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    """Of any database: logical replication does not carry what they will have written."""
    source = await create_server(version=BLUE_VERSION)
    pair = make_pair(source, GREEN_VERSION)
    await run_sql(source, "ALTER SYSTEM SET max_prepared_transactions = 5")
    await source.restart()
    async with await as_master(source) as connection:
        await connection.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'the first half'")
        [finding] = await green.check_source(pair)
        assert finding.check == "prepared-transactions"
        assert "the first half" in finding.message
        await connection.execute("COMMIT PREPARED 'the first half'")
    assert await green.check_source(pair) == []


async def test_a_conflict_on_green_is_taken_for_permanent_after_a_while(
    green: PostgresGreenBuilder,
    pair: Pair,
    source: PostgresServer,
    target: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replication, "ERROR_LOOP_S", 1.0)
    row = "INSERT INTO shop.documents (id, title) VALUES (1000, 'conflict')"
    await run_sql(target, "SET default_transaction_read_only = off", row)
    await run_sql(source, row)

    async def broken() -> bool:
        return "Database app: green cannot apply changes" in (await green.health(pair) or "")

    async with asyncio.timeout(30):
        await until(broken, every_s=0.2)
    await run_sql(target, "SET default_transaction_read_only = off", "DELETE FROM shop.documents WHERE id = 1000")

    async def well() -> bool:
        return await green.health(pair) is None

    async with asyncio.timeout(30):
        await until(well, every_s=0.2)


async def test_wal_kept_for_green_is_bounded_by_the_disk_that_wal_is_on(
    create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await create_server(version=BLUE_VERSION)
    free = {source.data_dir: 64 << 30, source.data_dir / "pg_wal": 2 << 30}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    await wal_limit.impose(source, "bgd-1")
    assert source.read_settings()["max_slot_wal_keep_size"] == "1024MB"


async def test_a_slot_that_is_lost_ends_the_deployment_not_blue(
    green: PostgresGreenBuilder, pair: Pair, source: PostgresServer, target: PostgresServer
) -> None:
    await target.stop()
    assert await green.lag_bytes(pair) is None
    assert await green.health(pair) is None  # it may come back
    source.change_settings({"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"})
    source.reload()
    for _ in range(4):
        await run_sql(
            source, "SELECT pg_switch_wal()", "CREATE TABLE public.w (id int)", "DROP TABLE public.w", "CHECKPOINT"
        )
    problem = await green.health(pair)
    assert problem is not None
    assert "was given up" in problem
    await run_sql(source, "INSERT INTO shop.log VALUES (now(), 'blue goes on')")


@pytest.mark.parametrize("restarted", ["source", "target"])
async def test_a_server_that_restarts_in_the_middle_of_a_look_breaks_nothing(
    green: PostgresGreenBuilder, pair: Pair, source: PostgresServer, target: PostgresServer, restarted: str
) -> None:
    """Such a finding would end the deployment for good."""
    server, seen = {"source": (source, "pg_replication_slots"), "target": (target, "pg_stat_subscription")}[restarted]
    waits = f"SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = '{APPLICATION_NAME}'"
    blocker = await psycopg.AsyncConnection.connect(server.conninfo("postgres"))
    try:
        await blocker.execute("SET allow_system_table_mods = on")
        await blocker.execute("SET transaction_read_only = off")
        await blocker.execute(f"ALTER VIEW {seen} SET (security_barrier)")
        look = asyncio.create_task(green.health(pair))

        async def stands_still() -> bool:
            return await query(server, waits) != []

        async with asyncio.timeout(30):
            await until(stands_still, every_s=0.05)
        await server.restart()
        assert await look is None
    finally:
        await blocker.close()
    assert await green.health(pair) is None


async def test_workers_that_have_yet_to_begin_are_waited_for(
    switchover: PostgresSwitchoverEngine, pair: Pair, target: PostgresServer
) -> None:
    """As after a restart of green, on a busy machine."""
    [(launcher,)] = await query(
        target, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'logical replication launcher'"
    )
    assert isinstance(launcher, int)
    workers = "FROM pg_stat_subscription WHERE pid IS NOT NULL"
    os.kill(launcher, signal.SIGSTOP)
    try:
        await run_sql(target, f"SELECT pg_terminate_backend(pid, 10000) {workers}")
        look = asyncio.create_task(switchover.guardrails(pair))
        done, _ = await asyncio.wait({look}, timeout=3)
        assert not done
        assert await query(target, f"SELECT count(*) {workers}") == [(0,)]
    finally:
        os.kill(launcher, signal.SIGCONT)
    assert await look == []


def _text(findings: list[Finding]) -> str:
    return "\n".join(map(str, findings))


def _names(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings}
