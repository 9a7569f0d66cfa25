"""Every object, grant and row of a many-sided database is there after an upgrade, whatever was written meanwhile."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from tests.acceptance.inspection import Inspector, assert_same, in_words_of, sequences_behind
from tests.acceptance.installation import Installation, wait_until
from tests.acceptance.rich_writer import NOT_WRITTEN, RichWriter
from verdigris.engines.catalogue import Catalogue

RICH_SCHEMA = Path(__file__).parents[1] / "data" / "rich_schema.sql"
RICH_EXTRAS = Path(__file__).with_name("rich_extras.sql")

UPGRADES = [
    pytest.param("15.19", "18.6", id="15-to-18"),
    pytest.param("16.15", "17.11", id="16-to-17"),
    pytest.param("17.10", "18.6", id="17-to-18"),
    pytest.param("18.3", "18.6", id="18.3-to-18.6"),
    pytest.param("15.19", "16.15", id="15-to-16", marks=pytest.mark.long),
    pytest.param("16.15", "18.6", id="16-to-18", marks=pytest.mark.long),
    pytest.param("17.9", "17.11", id="17.9-to-17.11", marks=pytest.mark.long),
]

# What applications do between the making of green and the switchover: rows of all types, keys that change, values
# stored out of line that do not, whole tables, sequences in both directions.
CHANGES = (
    """
    DO $$ DECLARE names text := (
        SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
         WHERE attrelid = 'extras.every_type'::regclass AND attnum > 0 AND attgenerated = '' AND attidentity = '');
    BEGIN EXECUTE format('INSERT INTO extras.every_type (%1$s) SELECT %1$s FROM extras.every_type', names); END $$
    """,
    "UPDATE extras.every_type SET i4 = 7, by = by || '\\x00', n = 'Infinity', st = '{}', a2 = NULL WHERE id = 1000",
    "UPDATE extras.parent SET a = a + 1000 WHERE b < 10",
    "DELETE FROM extras.parent WHERE b > 45",
    "UPDATE extras.by_index SET k = k + 100 WHERE k % 2 = 0",
    "DELETE FROM extras.by_index WHERE k % 3 = 0",
    "UPDATE extras.lists SET tenant = 'z' WHERE tenant = 'a'",
    "TRUNCATE extras.lists_ab",
    "TRUNCATE shop.bookings RESTART IDENTITY",
    "UPDATE shop.documents SET title = title || '!' WHERE id < 5",
    "UPDATE shop.log SET line = NULL WHERE line LIKE 'line %7'",
    "UPDATE ONLY shop.parents SET note = note || '!'",
    "INSERT INTO shop.children (note, age) VALUES ('new', 1)",
    'INSERT INTO "Odd ""name"""."Table; with -- all" VALUES (3, \'E\'\'\\n\', \'7\')',
    "SELECT nextval('shop.countdown') FROM generate_series(1, 99)",
    "SELECT setval('shop.never_used', 70, false), setval('extras.small', -4)",
    "ALTER ROLE rich_auditor PASSWORD 'changed meanwhile'",
)


@pytest.mark.parametrize(("before", "after"), UPGRADES)
def test_everything_comes_over(verdigris: Installation, catalogue: Catalogue, before: str, after: str) -> None:
    programs = asyncio.run(catalogue.installation(after))
    verdigris.create_instance("app", before)
    _load(verdigris)
    blue = Inspector(verdigris.home, verdigris.instance("app")["DbiResourceId"])
    large_objects = blue.large_objects("app")
    assert len(large_objects) == 2
    definitions = blue.definitions(programs)
    writer = RichWriter(verdigris.dsn("app"))
    writer.start()

    deployment, green_name = verdigris.build_green("app", TargetEngineVersion=after)
    green = Inspector(verdigris.home, verdigris.instance(green_name)["DbiResourceId"])
    _change(verdigris)
    verdigris.switch_over(deployment)
    acknowledged = writer.acknowledged
    wait_until(lambda: writer.acknowledged >= acknowledged + 20, "commits on green")
    writer.finish()

    assert writer.versions == [before, after]
    assert_same(definitions, blue.definitions(programs))
    assert_same(in_words_of(before, definitions), in_words_of(before, green.definitions(programs)))
    assert blue.memberships() <= green.memberships()
    assert green.passwords() == blue.passwords()
    for dbname in green.databases():
        assert green.rows(dbname, NOT_WRITTEN) == blue.rows(dbname, NOT_WRITTEN)
        assert sequences_behind(blue.sequences(dbname), green.sequences(dbname)) == []
    assert green.large_objects("app") == large_objects
    with green.connect("app") as connection:
        assert writer.differences(connection) == []
    _assert_roles_work(verdigris)
    assert (blue.traces(), green.traces()) == ([], [])


def test_changes_that_logical_replication_does_not_carry(verdigris: Installation) -> None:
    """Definitions are refused by name; undone, they are forgiven: the same deployment switches over. What belongs to
    roles and databases, and large objects, is carried."""
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, x text); SELECT lo_from_bytea(4711, 'kept')")
        connection.execute("CREATE TABLE keyless (x int); INSERT INTO keyless VALUES (1), (1), (2)")
        connection.execute("GRANT SELECT ON t TO PUBLIC")
        deployment, _ = verdigris.build_green("app", TargetEngineVersion="18.6")
        for carried in (
            "SELECT lo_put(4711, 1, 'ept alive'), lo_from_bytea(4712, 'new')",
            "CREATE ROLE newcomer LOGIN PASSWORD 'newcomer''s own' VALID UNTIL '2030-01-01'",
            "GRANT pg_monitor TO newcomer",
            "ALTER DATABASE app SET work_mem = '8MB'",
            "ALTER ROLE newcomer SET search_path = 'somewhere', \"$user\"",
            "UPDATE keyless SET x = 3 WHERE x = 1",
        ):
            connection.execute(carried.encode())
        for change, undo, name in (
            ('CREATE COLLATION created FROM "C"', "DROP COLLATION created", "collation public.created (created)"),
        ):
            connection.execute(change.encode())
            verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
            refused = verdigris.await_deployment(deployment, "SWITCHOVER_FAILED")
            assert "Unsupported PostgreSQL changes" in refused["StatusDetails"]
            assert name in refused["StatusDetails"]
            connection.execute("INSERT INTO t SELECT count(*) + 1 FROM t")  # blue serves on
            connection.execute(undo.encode())
        verdigris.switch_over(deployment)
        assert connection.execute("SELECT count(*), current_setting('server_version') FROM t").fetchone() == (1, "18.6")
        assert connection.execute("SELECT lo_get(4711), lo_get(4712)").fetchone() == (b"kept alive", b"new")
        assert connection.execute("SELECT x FROM keyless ORDER BY x").fetchall() == [(2,), (3,), (3,)]
    with verdigris.connect("app", user="newcomer", password="newcomer's own") as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("8MB",)
        assert connection.execute("SHOW search_path").fetchone() == ('somewhere, "$user"',)
        assert connection.execute("SELECT pg_has_role('pg_monitor', 'USAGE')").fetchone() == (True,)


def _load(verdigris: Installation) -> None:
    """As the master user, through the endpoint."""
    with verdigris.connect("app") as connection:
        connection.execute(RICH_SCHEMA.read_bytes())
        connection.execute(RICH_EXTRAS.read_bytes())


def _change(verdigris: Installation) -> None:
    with verdigris.connect("app") as connection:
        for statement in CHANGES:
            connection.execute(statement.encode())


def _assert_roles_work(verdigris: Installation) -> None:
    """Passwords, memberships, grants and settings through the endpoint, as people will find them."""
    with verdigris.connect("app", user="rich_clerk", password="clerk-password") as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("50s",)
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert connection.execute("SHOW timezone").fetchone() == ("Europe/Berlin",)
        assert connection.execute("SELECT what FROM shop.secrets").fetchall() == [("mine",)]
        assert connection.execute("SELECT extras.guarded(1, 'x', 2, 3)").fetchone() == ("x12",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM shop.orders")
    with verdigris.connect("app", user="rich_auditor", password="changed meanwhile") as connection:
        connection.execute('GRANT rich_clerk TO "Röle ""quoted"""'.encode())
        assert connection.execute("SELECT count(*) FROM extras.child").fetchone() == (50,)
    with verdigris.connect("app") as connection:
        assert connection.execute("SHOW lock_timeout").fetchone() == ("20s",)
        connection.execute("INSERT INTO extras.every_type (st) VALUES ('{b}')")
        connection.execute("CREATE TABLE extras.after_it (id int PRIMARY KEY)")
        for statement in (  # what a master user does with the roles that it made
            "ALTER ROLE rich_clerk CONNECTION LIMIT 40",
            "ALTER ROLE rich_auditor PASSWORD 'and again'",
            "GRANT rich_reader TO rich_auditor",
            "CREATE ROLE late; DROP ROLE late",
        ):
            connection.execute(statement.encode())
