"""Each thing that a switchover is refused for, by the name of the guardrail that finds it. All on one pair."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer
from tests.integration.replication.conftest import MakePair, as_master, build, load_rich_schema, query, run_sql, traces
from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Pair
from verdigris.engines.postgres import lag
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import until
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine

WRITABLE = "SET default_transaction_read_only = off"
# The locale of new clusters has no version: libc's C.UTF-8.
VERSIONED = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
LIMIT_S = 60


@dataclass
class Stage:
    green: PostgresGreenBuilder
    engine: PostgresSwitchoverEngine
    pair: Pair
    source: PostgresServer
    target: PostgresServer

    async def found(self) -> dict[str, str]:
        """Messages by the name of the guardrail."""
        findings = await self.engine.guardrails(self.pair)
        told: dict[str, str] = {}
        for finding in findings:
            told[finding.check] = told.get(finding.check, "") + str(finding) + "\n"
        return told

    async def names(self) -> set[str]:
        return set(await self.found())

    async def until_well(self) -> None:
        """Until an undo has had its effect."""

        async def well() -> bool:
            return not await self.names()

        async with asyncio.timeout(LIMIT_S):
            await until(well, every_s=0.1)


@pytest.fixture
async def stage(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
) -> AsyncIterator[Stage]:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(
        source,
        "ALTER SYSTEM SET max_prepared_transactions = 5",
        # With a worker that does no harm.
        "ALTER SYSTEM SET shared_preload_libraries = 'pg_prewarm'",
    )
    await source.restart()
    await load_rich_schema(source)
    await run_sql(
        source,
        "CREATE ROLE bystander",
        "ALTER DATABASE app SET statement_timeout = '1h'",
        "CREATE EXTENSION pg_prewarm SCHEMA public",
        "CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER note_customer BEFORE INSERT ON shop.customers FOR EACH ROW EXECUTE FUNCTION public.note()",
        "CREATE COLLATION public.own (provider = builtin, locale = 'C.UTF-8')",
        "CREATE TABLE public.words (word text COLLATE public.own PRIMARY KEY, n int)",
        "INSERT INTO public.words SELECT 'word ' || n, n FROM generate_series(1, 100) n",
    )
    await run_sql(source, f"CREATE DATABASE spare TEMPLATE template0 {VERSIONED}", dbname="postgres")
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    yield Stage(green, switchover, pair, source, servers.server(pair.target_resource_id))
    await green.dismantle(pair)
    assert await traces(source, pair) == []


async def test_everything_is_refused_by_name(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.until_well()
    for look in (_of_green, _of_blue, _of_replication, _for_good):
        await look(stage, monkeypatch)


async def _of_green(stage: Stage, _: pytest.MonkeyPatch) -> None:
    """What somebody took away on green, and gave back."""
    cases = {
        "green-lacks-roles": ("DROP ROLE bystander", "CREATE ROLE bystander"),
        "green-lacks-extensions": ("DROP EXTENSION pg_prewarm", "CREATE EXTENSION pg_prewarm SCHEMA public"),
        "green-lacks-settings": (
            "ALTER DATABASE app RESET statement_timeout",
            "ALTER DATABASE app SET statement_timeout = '1h'",
        ),
        "green-lacks-relations": (
            "ALTER TABLE public.words RENAME COLUMN n TO m",
            "ALTER TABLE public.words RENAME COLUMN m TO n",
        ),
        "collation-versions": (
            "UPDATE pg_collation SET collversion = '0' WHERE collname = 'own'",
            "ALTER COLLATION public.own REFRESH VERSION",
        ),
    }
    for name, (do, undo) in cases.items():
        await run_sql(stage.target, WRITABLE, do)
        assert await stage.names() == {name}, do
        await run_sql(stage.target, WRITABLE, undo)
        assert await stage.names() == set(), undo
    await run_sql(stage.target, WRITABLE, "UPDATE pg_database SET datcollversion = '0.0' WHERE datname = 'spare'")
    told = await stage.found()
    assert told.keys() == {"collation-versions"}
    assert "Database spare: " in told["collation-versions"]
    assert "the default collation (0.0, now 1)" in told["collation-versions"]
    await run_sql(stage.target, WRITABLE, "ALTER DATABASE spare REFRESH COLLATION VERSION", dbname="spare")
    assert await stage.names() == set()
    await run_sql(stage.target, WRITABLE, "ALTER SEQUENCE shop.receipt RENAME TO other")
    assert "sequence shop.receipt" in (await stage.found())["green-lacks-relations"]
    await run_sql(stage.target, WRITABLE, "ALTER SEQUENCE shop.other RENAME TO receipt")
    # Long ended when it is looked for; what only green has is its own.
    await run_sql(stage.target, WRITABLE, "INSERT INTO public.words VALUES ('green', 0)", "TRUNCATE shop.log")
    await run_sql(stage.target, WRITABLE, "CREATE TABLE public.of_green AS SELECT 1 AS x")
    written = (await stage.found())["written-on-green"]
    assert "Database app: tables that follow blue were written to on green: public.words, shop.log." in written
    await run_sql(stage.target, WRITABLE, "DELETE FROM public.words WHERE word = 'green'")
    await _forgive(stage)


async def _of_blue(stage: Stage, _: pytest.MonkeyPatch) -> None:
    reload = "SELECT pg_reload_conf()"
    cases: dict[str, tuple[set[str], str]] = {
        "SELECT pg_create_physical_replication_slot('a_standby')": (
            {"external-replication"},
            "SELECT pg_drop_replication_slot('a_standby')",
        ),
        "SELECT pg_create_logical_replication_slot('cdc', 'test_decoding')": (
            {"external-replication"},
            "SELECT pg_drop_replication_slot('cdc')",
        ),
        "CREATE SUBSCRIPTION other CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)": (
            {"external-replication"},
            "DROP SUBSCRIPTION other",
        ),
        "ALTER SYSTEM SET synchronous_standby_names = 'somebody'": (
            {"synchronous-standbys", "green-lacks-settings"},
            "ALTER SYSTEM RESET synchronous_standby_names",
        ),
        "ALTER SYSTEM SET vacuum_cost_delay = '1ms'": (
            {"green-lacks-settings"},
            "ALTER SYSTEM RESET vacuum_cost_delay",
        ),
    }
    for do, (names, undo) in cases.items():
        await run_sql(stage.source, do, reload)
        await _until(stage, names, do)
        await run_sql(stage.source, undo, reload)
        await stage.until_well()
    async with _prepared(stage.source):
        assert await stage.names() == {"prepared-transactions"}
    async with _streaming(stage.source):
        await _until(stage, {"external-replication"}, "a standby without a slot")
    await stage.until_well()


async def _of_replication(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = ObjectNames(stage.pair.deployment_id).subscription
    await run_sql(stage.target, WRITABLE, f"ALTER SUBSCRIPTION {subscription} DISABLE")
    await _until(stage, {"subscription-off", "replication-stopped"}, "disabled")
    assert "subscription-off" in (await stage.green.health(stage.pair) or "")
    await run_sql(stage.target, WRITABLE, f"ALTER SUBSCRIPTION {subscription} ENABLE")
    await stage.until_well()

    monkeypatch.setattr(lag, "MEASURED_S", 0.3)
    async with _locked(stage.target, "public.words"):
        await run_sql(
            stage.source, "UPDATE public.words SET n = n + 1", f"SELECT pg_logical_emit_message(false, '', {_bulk()})"
        )
        told = (await stage.found())["lag"]
        assert "MiB behind, and no nearer" in told
    await stage.until_well()

    # The same key on both sides: the worker fails, and fails again.
    await run_sql(stage.target, WRITABLE, "INSERT INTO public.words VALUES ('both', 0)")
    await run_sql(stage.source, "INSERT INTO public.words VALUES ('both', 1)")
    await _until(stage, {"apply-fails"}, "a conflict", at_least=True)
    await run_sql(stage.target, WRITABLE, "DELETE FROM public.words WHERE word = 'both'")
    await _forgive(stage)

    await run_sql(stage.target, WRITABLE, "DELETE FROM public.words WHERE word = 'word 7'")
    await run_sql(stage.source, "UPDATE public.words SET n = 0 WHERE word = 'word 7'")
    await _until(stage, {"conflicts", "written-on-green"}, "a row that is missing on green")
    assert "1 update missing" in (await stage.found())["conflicts"]
    await run_sql(stage.target, "SELECT pg_stat_reset_subscription_stats(oid) FROM pg_subscription")
    await _forgive(stage)


async def _for_good(stage: Stage, _: pytest.MonkeyPatch) -> None:
    slot = await _unused_slot(stage, "app")
    await run_sql(stage.source, f"SELECT pg_drop_replication_slot('{slot}')")
    assert slot in (await stage.found())["slot-missing"]
    assert "slot-missing" in (await stage.green.health(stage.pair) or "")

    # PostgreSQL keeps a database for the slot only as long as somebody reads from it.
    with pytest.raises(EngineError, match="active logical replication slot"):
        await run_sql(stage.source, "DROP DATABASE spare", dbname="postgres")
    slot = await _unused_slot(stage, "spare")
    await run_sql(stage.source, "DROP DATABASE spare", dbname="postgres")
    told = await stage.found()
    assert "database spare (dropped)" in told["databases-changed"]
    assert slot in told["slot-missing"]

    for name, server in (("green-down", stage.target), ("blue-down", stage.source)):
        await server.stop()
        assert f"{server.resource_id} is not running" in (await stage.found())[name]
        await server.start()


async def _unused_slot(stage: Stage, dbname: str) -> str:
    """Of a database that green no longer subscribes to: nobody reads from it."""
    names = ObjectNames(stage.pair.deployment_id)
    await run_sql(stage.target, WRITABLE, f"ALTER SUBSCRIPTION {names.subscription} DISABLE", dbname=dbname)
    [(oid,)] = await query(stage.source, f"SELECT oid FROM pg_database WHERE datname = '{dbname}'")
    slot = names.logical_slot(int(str(oid)))

    async def unused() -> bool:
        return not await query(stage.source, f"SELECT FROM pg_replication_slots WHERE slot_name = '{slot}' AND active")

    async with asyncio.timeout(LIMIT_S):
        await until(unused, every_s=0.05)
    return slot


async def _until(stage: Stage, names: set[str], what: str, *, at_least: bool = False) -> None:
    seen: set[str] = set()

    async def found() -> bool:
        nonlocal seen
        seen = await stage.names()
        return seen >= names if at_least else seen == names

    try:
        async with asyncio.timeout(LIMIT_S / 3):
            await until(found, every_s=0.1)
    except TimeoutError:
        pytest.fail(f"{what}: found {seen}, not {names}")


async def _forgive(stage: Stage) -> None:
    """What was written on green was meant so; and the pair is well again."""
    await stage.names()
    schema = ObjectNames(stage.pair.deployment_id).schema
    async with await as_master(stage.target) as connection:
        await connection.execute(f"BEGIN READ WRITE; DELETE FROM {schema}.own_writes; COMMIT".encode())
    await stage.until_well()


def _bulk() -> str:
    """A message that decoding skips and a lagging worker does not get to: twice what is not worth measuring."""
    return f"repeat('x', {2 * lag.NOTHING_BYTES})"


@contextlib.asynccontextmanager
async def _prepared(source: PostgresServer) -> AsyncIterator[None]:
    await run_sql(source, "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'half'")
    try:
        yield
    finally:
        await run_sql(source, "ROLLBACK PREPARED 'half'")


@contextlib.asynccontextmanager
async def _locked(server: PostgresServer, table: str) -> AsyncIterator[None]:
    async with await server.connect("app", options="-c default_transaction_read_only=off") as connection:
        await connection.execute(f"BEGIN; LOCK TABLE {table}".encode())
        try:
            yield
        finally:
            await connection.execute("ROLLBACK")


@contextlib.asynccontextmanager
async def _streaming(source: PostgresServer) -> AsyncIterator[None]:
    """Somebody receives blue's WAL without a slot, as an old standby does."""
    directory = source.directory / "received"
    source.account.make_directory(directory)
    dsn = source.conninfo(application_name="old_standby")
    receiving = asyncio.create_task(source.run("pg_receivewal", "--directory", str(directory), "--dbname", dsn))
    try:
        yield
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
