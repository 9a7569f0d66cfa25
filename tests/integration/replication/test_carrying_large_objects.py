"""Large objects are found and copied: whatever is done to them, by transactions of any length.

Green is a server of its own here, empty like blue at the beginning.
"""

import random
import time
from collections.abc import Callable

import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer
from tests.integration.replication.conftest import query, run_sql
from verdigris.domain.errors import StepFailed
from verdigris.engines.postgres.carrying import large_objects
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Session, session, sessions

NAMES = ObjectNames("bgd-0123456789abcdef")

LARGE_OBJECTS = (
    "CREATE ROLE keeper",
    "SELECT lo_from_bytea(1000 + i, convert_to(repeat(md5(i::text), 200), 'UTF8')) FROM generate_series(1, 30) i",
    "SELECT lo_create(2000), lo_put(2000, 1000000, 'behind a hole')",
    "SELECT lo_create(2001)",
    "COMMENT ON LARGE OBJECT 1001 IS 'first'",
    "COMMENT ON LARGE OBJECT 1002 IS 'second'",
)
LARGE_OBJECT_CHANGES = (
    "SELECT lo_put(1001, 3000, 'a few bytes in the middle')",
    "SELECT lo_unlink(1002)",
    # Cut at the end of a page, which leaves nothing to see; in the middle of one; and lengthened again with a hole.
    "BEGIN",
    "SELECT lo_truncate(lo_open(1003, 131072), 2048)",
    "SELECT lo_truncate(lo_open(1004, 131072), 3000)",
    "SELECT lo_truncate(lo_open(1005, 131072), 0), lo_put(1005, 100000, 'far')",
    "COMMIT",
    "SELECT lo_unlink(1006)",
    "SELECT lo_from_bytea(1006, 'another of the same number')",
    "SELECT lo_from_bytea(4294967295, decode(repeat('00ff', 50000), 'hex'))",
    "SELECT lo_create(3000)",
    "ALTER LARGE OBJECT 1007 OWNER TO keeper",
    "GRANT SELECT ON LARGE OBJECT 1007 TO PUBLIC",
    "GRANT UPDATE ON LARGE OBJECT 1008 TO keeper WITH GRANT OPTION",
    "COMMENT ON LARGE OBJECT 1008 IS 'what it''s for'",
    "COMMENT ON LARGE OBJECT 1001 IS NULL",
)


async def large_objects_of(server: PostgresServer) -> list[tuple[object, ...]]:
    return await query(
        server,
        "SELECT m.oid, md5(lo_get(m.oid)), pg_get_userbyid(m.lomowner), obj_description(m.oid, 'pg_largeobject'),"
        " (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(coalesce(lomacl, acldefault('L', lomowner))) a),"
        " (SELECT array_agg(format('%s:%s', pageno, length(data)) ORDER BY pageno) FROM pg_largeobject p"
        "   WHERE p.loid = m.oid) FROM pg_largeobject_metadata m ORDER BY 1",
    )


async def twins(
    create_server: CreateServer, source_version: str = BLUE_VERSION, target_version: str = GREEN_VERSION
) -> tuple[PostgresServer, PostgresServer]:
    source, target = [await create_server(version=version) for version in (source_version, target_version)]
    await run_sql(target, "CREATE ROLE keeper", f"CREATE SCHEMA {NAMES.schema}")
    async with sessions(source, target, "app") as (ours, theirs):
        await large_objects.take(theirs, NAMES, await large_objects.read_horizon(ours))
    return source, target


async def carry(source: PostgresServer, target: PostgresServer) -> float:
    async with sessions(source, target, "app") as (ours, theirs):
        return await large_objects.carry(ours, theirs, NAMES)


async def horizon(target: PostgresServer) -> object:
    return (await query(target, f"SELECT horizon FROM {NAMES.schema}.large_object_look"))[0][0]


async def test_whatever_is_done_to_them(create_server: CreateServer) -> None:
    source, target = await twins(create_server)
    await run_sql(source, *LARGE_OBJECTS)
    await carry(source, target)
    assert await large_objects_of(target) == await large_objects_of(source)
    await run_sql(source, *LARGE_OBJECT_CHANGES)
    await carry(source, target)
    assert await large_objects_of(target) == await large_objects_of(source)
    # Maintenance moves rows, freezes them and takes dead ones away.
    await run_sql(source, "VACUUM (FREEZE) pg_largeobject", "VACUUM FULL pg_largeobject", "SELECT lo_unlink(1012)")
    await run_sql(source, "SELECT lo_put(1013, 0, 'after it')", "VACUUM pg_largeobject, pg_largeobject_metadata")
    await carry(source, target)
    assert await large_objects_of(target) == await large_objects_of(source)
    # Taken away on green by somebody: not blue's doing, and seen when blue changes the object.
    await run_sql(target, "SET default_transaction_read_only = off", "SELECT lo_unlink(1014)")
    await run_sql(source, "SELECT lo_put(1014, 5, '!')")
    await carry(source, target)
    assert await large_objects_of(target) == await large_objects_of(source)


async def test_nothing_is_copied_when_nothing_has_changed(
    create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = await twins(create_server)
    await run_sql(source, *LARGE_OBJECTS)
    await carry(source, target)
    await run_sql(source, "CREATE TABLE public.other AS SELECT 1 AS x", "VACUUM FREEZE")
    before = await horizon(target)
    monkeypatch.setattr(large_objects, "_bring_all", None)  # would fail if it were called
    await carry(source, target)
    assert await horizon(target) != before
    monkeypatch.setattr(large_objects, "LONGEST_LOOK_S", 0.0)
    async with sessions(source, target, "app") as (ours, theirs):
        with pytest.raises(StepFailed, match="to look through the large objects"):
            await large_objects.carry_finally(ours, theirs, NAMES)


@pytest.mark.parametrize("with_a_later_horizon", [False, True])
async def test_a_transaction_that_was_under_way_at_the_look(
    create_server: CreateServer, monkeypatch: pytest.MonkeyPatch, with_a_later_horizon: bool
) -> None:
    """Its subtransactions have numbers of their own, which no snapshot names."""
    source, target = await twins(create_server)
    await run_sql(source, *LARGE_OBJECTS)
    await carry(source, target)
    if with_a_later_horizon:  # so that the test is seen to fail
        later = large_objects._LOOK.replace("pg_snapshot_xmin(", "pg_snapshot_xmax(")
        monkeypatch.setattr(large_objects, "_LOOK", later)
    async with session(source, "app") as writer:
        await writer.execute("BEGIN; SELECT pg_current_xact_id(); SAVEPOINT a; SELECT lo_put(1001, 10, 'changed')")
        await run_sql(source, "SELECT lo_put(1002, 10, 'by another')")
        await carry(source, target)
        await writer.execute("COMMIT")
    await carry(source, target)
    same = await large_objects_of(target) == await large_objects_of(source)
    assert same is not with_a_later_horizon


@pytest.mark.parametrize("seed", range(3))
async def test_transactions_of_any_length(create_server: CreateServer, seed: int) -> None:
    """Three that overlap each other and the looks, with savepoints that are kept or not, at random."""
    source, target = await twins(create_server)
    chance = random.Random(seed)
    async with session(source, "app") as one, session(source, "app") as two, session(source, "app") as three:
        writers = (one, two, three)
        for _ in range(150):
            await _act(chance, chance.choice(writers))
            if chance.random() < 0.15:
                await carry(source, target)
        for writer in writers:
            await writer.execute(chance.choice((b"COMMIT", b"ROLLBACK")))
    await carry(source, target)
    assert await large_objects_of(target) == await large_objects_of(source)
    assert len(await large_objects_of(source)) > 3


async def _act(chance: random.Random, writer: Session) -> None:
    loid = chance.randrange(1, 25)
    there = f"FROM pg_largeobject_metadata WHERE oid = {loid}"
    acts = (
        f"SELECT lo_create({loid}) WHERE NOT EXISTS (SELECT {there})",
        f"SELECT lo_put(oid, {chance.randrange(20000)}, repeat('ab', {chance.randrange(1, 6000)})::bytea) {there}",
        f"SELECT lo_truncate(lo_open(oid, 131072), {chance.choice((0, 2048, 4096, chance.randrange(9000)))}) {there}",
        f"SELECT lo_unlink(oid) {there}",
    )
    try:
        # Who holds one makes others wait for it: they do not, here.
        await writer.execute(b"SET lock_timeout = '20ms'; SET statement_timeout = '100ms'")
        if writer.info.transaction_status.name == "IDLE" and chance.random() < 0.7:
            await writer.execute(b"BEGIN")
        if writer.info.transaction_status.name == "INTRANS" and chance.random() < 0.4:
            await writer.execute(b"SAVEPOINT s")
        await writer.execute(chance.choices(acts, (4, 5, 2, 1))[0].encode())
        if writer.info.transaction_status.name == "INTRANS" and chance.random() < 0.3:
            await writer.execute(chance.choice((b"COMMIT", b"COMMIT", b"ROLLBACK")))
    except Exception:
        await writer.execute(b"ROLLBACK")


async def test_how_long_a_look_takes(
    create_server: CreateServer, record_property: Callable[[str, object], None]
) -> None:
    source, target = await twins(create_server)
    began_at = time.monotonic()
    for _ in range(20):
        await carry(source, target)
    empty_ms = (time.monotonic() - began_at) / 20 * 1000
    await run_sql(
        source, "SELECT lo_from_bytea(i, decode(repeat(md5(i::text), 64 * 1024), 'hex')) FROM generate_series(1, 100) i"
    )
    began_at = time.monotonic()
    await carry(source, target)
    copied_s = time.monotonic() - began_at
    look_s = min([await carry(source, target) for _ in range(3)])
    print(f"empty {empty_ms:.2f} ms, 100 MiB copied in {copied_s:.2f} s, then looked through in {look_s * 1000:.1f} ms")
    record_property("look_ms_of_100_mib", look_s * 1000)
    assert await large_objects_of(target) == await large_objects_of(source)
