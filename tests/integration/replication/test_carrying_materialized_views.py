"""Materialised views that blue refreshes are refreshed on green: while it waits, before the pause, and in it."""

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer, until
from tests.integration.replication.conftest import MakePair, as_master, build, query, run_as_master
from verdigris.domain.errors import StepFailed
from verdigris.domain.ports import Pair
from verdigris.engines.postgres.carrying import materialized_views
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine

VIEWS = (
    'CREATE SCHEMA "Odd; schema"',
    "CREATE TABLE base (id int PRIMARY KEY, x int)",
    "INSERT INTO base SELECT i, i FROM generate_series(1, 100) i",
    "CREATE MATERIALIZED VIEW newer AS SELECT sum(x) AS total FROM base",
    "CREATE VIEW between_them AS SELECT 1 AS total",
    'CREATE MATERIALIZED VIEW "Odd; schema"."an ""older"" %s" AS SELECT total FROM between_them',
    # So the one that was made last is what the other is made of.
    "CREATE MATERIALIZED VIEW lowest AS SELECT total * 2 AS total FROM newer",
    "CREATE OR REPLACE VIEW between_them AS SELECT total::int AS total FROM lowest",
    "CREATE MATERIALIZED VIEW concurrent AS SELECT id, x FROM base",
    "CREATE UNIQUE INDEX ON concurrent (id)",
    "CREATE MATERIALIZED VIEW stale AS SELECT sum(x) AS total FROM base",
    "CREATE MATERIALIZED VIEW emptied AS SELECT 1 AS x",
    "CREATE MATERIALIZED VIEW unpopulated AS SELECT 1 AS x WITH NO DATA",
)
CHANGES = (
    "UPDATE base SET x = x + 1000",
    "REFRESH MATERIALIZED VIEW newer",
    "REFRESH MATERIALIZED VIEW lowest",
    'REFRESH MATERIALIZED VIEW "Odd; schema"."an ""older"" %s"',
    "REFRESH MATERIALIZED VIEW CONCURRENTLY concurrent",
    "REFRESH MATERIALIZED VIEW emptied WITH NO DATA",
)  # fmt: skip


async def views_of(server: PostgresServer) -> dict[str, object]:
    found: dict[str, object] = {}
    async with await as_master(server) as connection:
        rows = await query(server, "SELECT format('%I.%I', schemaname, matviewname) FROM pg_matviews")
        for (name,) in rows:
            try:
                cursor = await connection.execute(f"SELECT v::text FROM {name} v ORDER BY 1".encode())
                found[str(name)] = await cursor.fetchall()
            except psycopg.errors.ObjectNotInPrerequisiteState:
                found[str(name)] = "not populated"
    return found


@pytest.fixture
async def pair(create_server: CreateServer, green: PostgresGreenBuilder, make_pair: MakePair) -> Pair:
    source = await create_server(version=BLUE_VERSION)
    await run_as_master(source, *VIEWS)
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    return pair


async def test_green_has_what_blue_refreshed_and_nothing_else(
    servers: PostgresServers, green: PostgresGreenBuilder, switchover: PostgresSwitchoverEngine, pair: Pair
) -> None:
    source, target = servers.server(pair.source_resource_id), servers.server(pair.target_resource_id)
    stale = (await views_of(target))["public.stale"]

    async def alike() -> bool:
        assert await green.tend(pair) == []
        return await views_of(target) == await views_of(source)

    await run_as_master(source, *CHANGES)
    await until(alike, limit_s=60)

    await run_as_master(source, "UPDATE base SET x = -x", "REFRESH MATERIALIZED VIEW CONCURRENTLY concurrent")
    # Nobody refreshes it, and a look that has nothing to do with a refresh does not either.
    await run_as_master(source, "VACUUM ANALYZE stale")
    assert await switchover.guardrails(pair) == []
    await switchover.prepare(pair)
    assert await views_of(target) == await views_of(source)

    await run_as_master(source, "INSERT INTO base VALUES (1000, 1000)", "REFRESH MATERIALIZED VIEW newer")
    await switchover.close(pair)
    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    await switchover.unfence(pair)
    assert (now := await views_of(target)) == await views_of(source)
    assert now["public.stale"] == stale
    await switchover.stand_down(pair)
    assert await switchover.guardrails(pair) == []


async def test_one_that_takes_long_is_not_refreshed_in_the_pause(
    servers: PostgresServers,
    switchover: PostgresSwitchoverEngine,
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, target = servers.server(pair.source_resource_id), servers.server(pair.target_resource_id)
    await run_as_master(source, "REFRESH MATERIALIZED VIEW newer")
    await switchover.prepare(pair)
    prepared = await views_of(target)
    await run_as_master(source, "UPDATE base SET x = x + 1", "REFRESH MATERIALIZED VIEW newer")
    monkeypatch.setattr(materialized_views, "PAUSE_SHARE_S", 0.0)  # what it took is more
    await switchover.close(pair)
    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    assert await views_of(target) == prepared
    await switchover.unfence(pair)
    await switchover.stand_down(pair)
    await switchover.prepare(pair)
    assert await views_of(target) == await views_of(source)
    await switchover.stand_down(pair)


async def test_one_that_green_cannot_refresh_is_named_before_anything_is_changed(
    servers: PostgresServers, switchover: PostgresSwitchoverEngine, pair: Pair
) -> None:
    source = servers.server(pair.source_resource_id)
    await run_as_master(
        source,
        "CREATE FUNCTION public.broken() RETURNS int LANGUAGE plpgsql AS"
        " 'BEGIN IF current_setting(''server_version_num'')::int >= 180000 THEN RAISE ''not here''; END IF; RETURN 1;"
        " END'",
        "CREATE MATERIALIZED VIEW awkward AS SELECT public.broken() AS x WITH NO DATA",
        "REFRESH MATERIALIZED VIEW awkward",
    )
    with pytest.raises(StepFailed, match=r"public\.awkward cannot be refreshed on green: not here"):
        await switchover.prepare(pair)
    await switchover.stand_down(pair)
