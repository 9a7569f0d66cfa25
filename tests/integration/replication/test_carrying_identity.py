"""Tables without a key are given a replica identity, and have their own back whatever happens."""

import asyncio

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, CreateServer
from tests.integration.replication.conftest import as_master, query, run_sql
from verdigris.domain.errors import EngineError
from verdigris.engines.postgres import publisher
from verdigris.engines.postgres.carrying import identity
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import session

NAMES = ObjectNames("bgd-0123456789abcdef")
TABLES = (
    "CREATE TABLE public.keyless (x int, t text)",
    "INSERT INTO public.keyless SELECT i, 't' FROM generate_series(1, 100) i",
    "CREATE TABLE public.nothing (id int PRIMARY KEY)",
    "ALTER TABLE public.nothing REPLICA IDENTITY NOTHING",
    "CREATE TABLE public.keyed (id int PRIMARY KEY, j json)",
    "INSERT INTO public.keyed VALUES (1, '{}')",
    "CREATE TABLE public.plain (id int PRIMARY KEY, t text)",
    "INSERT INTO public.plain VALUES (1, 'a')",
    "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
)


async def identities(server: PostgresServer) -> dict[str, str]:
    rows = await query(
        server,
        "SELECT c.oid::regclass::text, c.relreplident FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND NOT starts_with(nspname, 'verdigris_')",
    )
    return {str(name): str(identity) for name, identity in rows}


async def end(source: PostgresServer) -> None:
    await publisher.drop_slots(source, NAMES)
    await publisher.unpublish(source, NAMES)


async def tend(source: PostgresServer) -> list[str]:
    async with session(source, "app") as connection:
        return await identity.tend(connection, NAMES, target_major=18)


async def guarded(source: PostgresServer) -> list[str]:
    async with session(source, "app") as connection:
        return await identity.withdrawn(connection, NAMES)


async def test_a_publication_interrupted_anywhere_is_undone(create_server: CreateServer) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, *TABLES)
    before = await identities(source)
    for after_s in (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3):
        publishing = asyncio.create_task(publisher.publish(source, NAMES))
        await asyncio.wait({publishing}, timeout=after_s)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await end(source)
        assert await identities(source) == before
    await publisher.publish(source, NAMES)
    assert await identities(source) == before | {"public.keyless": "f", "public.nothing": "f"}
    await run_sql(source, "UPDATE public.keyless SET t = 'u'", "DELETE FROM public.nothing")
    # A table that its owner has given a key meanwhile, and one that is gone.
    await run_sql(
        source,
        "ALTER TABLE public.nothing REPLICA IDENTITY DEFAULT",
        "CREATE TABLE public.passing (x int)",
    )
    async with session(source, "app") as connection:
        await identity.give(connection, NAMES, "public", "passing")
    await run_sql(source, "DROP TABLE public.passing")
    await end(source)
    await end(source)
    assert await identities(source) == before | {"public.nothing": "d"}


async def test_nobody_waits_for_long_behind_a_table_that_is_in_use(
    create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, *TABLES)
    before = await identities(source)
    reader, writer = await as_master(source), await as_master(source)
    await reader.execute("BEGIN; SELECT count(*) FROM public.keyless")
    publishing = asyncio.create_task(publisher.publish(source, NAMES))
    async with asyncio.timeout(60):  # without a lock timeout the updates would wait for the reader, which is for ever
        for n in range(30):
            await writer.execute("UPDATE public.keyless SET t = %s WHERE x = 1", [str(n)])
            await asyncio.sleep(0.05)
    assert not publishing.done()
    await reader.execute("COMMIT")
    await asyncio.wait_for(publishing, 20)
    assert (await identities(source))["public.keyless"] == "f"
    # The same on the way back; one that never gets the table leaves what it needs to try again.
    monkeypatch.setattr(identity, "_GIVE_UP_AFTER_S", 0.5)
    await reader.execute("BEGIN; SELECT count(*) FROM public.keyless")
    with pytest.raises(EngineError, match=r"table public\.keyless of database app was in use"):
        await end(source)
    await writer.execute("UPDATE public.keyless SET t = 'not refused without a publication' WHERE x = 1")
    await reader.execute("COMMIT")
    await end(source)
    assert await identities(source) == before
    for connection in (reader, writer):
        await connection.close()


async def test_a_table_that_loses_its_key_goes_on_being_written_to(create_server: CreateServer) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, *TABLES)
    before = await identities(source)
    await publisher.publish(source, NAMES)
    assert await tend(source) == []
    await run_sql(
        source,
        "ALTER TABLE public.plain DROP CONSTRAINT plain_pkey",
        "ALTER TABLE public.keyed DROP CONSTRAINT keyed_pkey",
    )
    async with await as_master(source) as connection:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            await connection.execute("UPDATE public.plain SET t = 'b'")
        assert await tend(source) == []
        await connection.execute("UPDATE public.plain SET t = 'b'")
        # Rows with json cannot be compared: green does without the table, not blue.
        await connection.execute("UPDATE public.keyed SET id = 2")
    assert await guarded(source) == ["public.keyed"]
    assert await tend(source) == []
    assert (await identities(source))["public.plain"] == "f"
    await end(source)
    assert await identities(source) == before


async def test_types_without_equality_are_found_wherever_they_are(create_server: CreateServer) -> None:
    source = await create_server(version=BLUE_VERSION, db_name="app")
    await run_sql(
        source,
        "CREATE DOMAIN public.jd AS json",
        "CREATE TYPE public.jc AS (a int, j public.jd)",
        "CREATE DOMAIN public.ok AS text CHECK (value <> '')",
        "CREATE TYPE public.okc AS (a int, b public.ok[])",
        "CREATE TYPE public.mood AS ENUM ('a')",
        "CREATE TABLE public.plain_json (x json)",
        "CREATE TABLE public.an_array (x json[])",
        "CREATE TABLE public.a_domain (x public.jd)",
        "CREATE TABLE public.a_composite (x public.jc)",
        "CREATE TABLE public.composites (x public.jc[])",
        "CREATE TABLE public.a_point (x point)",
        "CREATE TABLE public.a_box (x box)",
        "CREATE TABLE public.fine (a int, b public.ok, c public.okc[], d public.mood[], e numrange, f int4multirange,"
        ' g jsonb, h uuid, i inet, j bit(3), k tsvector, l money, m oidvector, n name, o "char", p interval, q bytea)',
        "CREATE TABLE public.keyed_json (id int PRIMARY KEY, x json)",
    )
    helpless = [row[0] for row in await query(source, identity.HELPLESS.as_string())]
    assert helpless == [
        "public.a_box", "public.a_composite", "public.a_domain", "public.a_point", "public.an_array",
        "public.composites", "public.plain_json",
    ]  # fmt: skip
    with pytest.raises(EngineError, match=r"public\.a_box"):
        await publisher.publish(source, NAMES)
    await end(source)


async def test_what_a_large_table_costs_green_is_told(
    create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_NOTED_FROM_BYTES", 0)
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, *TABLES, "UPDATE public.keyless SET t = 'u'", "SELECT pg_stat_force_next_flush()")
    await publisher.publish(source, NAMES)
    async with session(source, "app") as connection:
        told = await identity.tend(connection, NAMES, target_major=18)
        assert len(told) == 1
        assert told[0].startswith("Table public.keyless of database app has no key, and green reads all of it")
        await connection.execute("CREATE INDEX ON public.keyless (x)")
        assert await identity.tend(connection, NAMES, target_major=18) == []
        assert len(await identity.tend(connection, NAMES, target_major=15)) == 1
    await end(source)
