"""Databases that others designed and filled, upgraded while an application rewrites their rows."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.acceptance import sample_schemas
from tests.acceptance.inspection import Inspector, assert_same, in_words_of, sequences_behind
from tests.acceptance.installation import Installation
from tests.acceptance.sample_schemas import SampleSchema
from verdigris.engines.catalogue import Catalogue

# A user's own objects of each kind; what an extension brings does not count.
_OBJECTS = """
    SELECT kind, count(*)
      FROM (SELECT relkind::text AS kind, oid, 'pg_class'::regclass AS of, relnamespace AS n FROM pg_class
            UNION ALL SELECT 'function', oid, 'pg_proc'::regclass, pronamespace FROM pg_proc
            UNION ALL SELECT 'type', oid, 'pg_type'::regclass, typnamespace FROM pg_type
             WHERE typrelid = 0 AND typelem = 0
            UNION ALL SELECT 'constraint', oid, 'pg_constraint'::regclass, connamespace FROM pg_constraint
             WHERE contype <> 'n'  -- catalogued since 18
            UNION ALL SELECT 'trigger', oid, 'pg_trigger'::regclass, 0 FROM pg_trigger WHERE NOT tgisinternal) objects
     WHERE oid >= 16384 AND n NOT IN (SELECT oid FROM pg_namespace WHERE nspname ~ '^(pg_toast|verdigris)')
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = of AND d.objid = objects.oid AND d.deptype = 'e')
     GROUP BY kind ORDER BY kind
"""

_LEAVES = """
    SELECT n.nspname, c.relname,
           (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = '' ORDER BY a.attnum LIMIT 1),
           CASE WHEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
                THEN CASE c.relreplident WHEN 'n' THEN 'DEFAULT' END ELSE 'FULL' END
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema|verdigris)'
     ORDER BY 1, 2
"""


@pytest.fixture
def samples(pytestconfig: pytest.Config) -> Sequence[SampleSchema]:
    directory = pytestconfig.getoption("--sample-schemas")
    if directory is None:
        pytest.skip("no published schemas: give a directory of SQL files with --sample-schemas")
    found = sample_schemas.find_samples(Path(directory))
    assert found, f"there are no SQL files in {directory}"
    return found


@pytest.mark.parametrize("before", ["15.19", "17.10"])
def test_published_schemas_come_over(
    verdigris: Installation,
    catalogue: Catalogue,
    samples: Sequence[SampleSchema],
    before: str,
    record_property: Callable[[str, object], None],
) -> None:
    programs = asyncio.run(catalogue.installation("18.6"))
    verdigris.create_instance("app", before)
    for sample in samples:
        with verdigris.connect("app") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(sample.name)))
        # The self-contained psql is built without TLS.
        dsn = verdigris.dsn("app", dbname=sample.name, sslmode="disable")
        sample_schemas.load(sample, dsn, programs, version=before)
        _refresh_views(dsn)
    _give_identities(verdigris, samples)
    blue = Inspector(verdigris.home, verdigris.resource_id("app"))
    definitions = blue.definitions(programs)

    deployment, green_name = verdigris.build_green("app", TargetEngineVersion="18.6")
    green = Inspector(verdigris.home, verdigris.resource_id(green_name))
    rewritten = {sample.name: _rewrite_rows(verdigris, sample) for sample in samples}
    verdigris.switch_over(deployment)

    assert_same(definitions, blue.definitions(programs))
    assert_same(in_words_of(before, definitions), in_words_of(before, green.definitions(programs)))
    for sample in samples:
        assert _objects(green, sample) == _objects(blue, sample)
        rows = blue.rows(sample.name)
        assert green.rows(sample.name) == rows
        assert sequences_behind(blue.sequences(sample.name), green.sequences(sample.name)) == []
        figures = {"tables": len(rows), "rows": sum(count for count, *_ in rows.values())}
        figures |= {"rewritten": rewritten[sample.name], **_objects(blue, sample)}
        record_property(f"{sample.name} {before}", figures)
        print(f"{sample.name} {before} to 18.6: {figures}")


def _refresh_views(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        for view in connection.execute("SELECT schemaname, matviewname FROM pg_matviews").fetchall():
            connection.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(sql.Identifier(*view)))


def _objects(server: Inspector, sample: SampleSchema) -> dict[str, int]:
    return dict(server.query(_OBJECTS, dbname=sample.name))


def _give_identities(verdigris: Installation, samples: Sequence[SampleSchema]) -> None:
    """To tables without a key, where it is an index: all others are given one while green exists."""
    for sample in samples:
        with verdigris.connect("app", dbname=sample.name) as connection:
            for table, identity in _keyless(verdigris, sample).items():
                if identity != "FULL":
                    connection.execute(f"ALTER TABLE {table} REPLICA IDENTITY {identity}".encode())


def _leaves(connection: psycopg.Connection[Any]) -> list[tuple[str, str, str, str | None]]:
    return connection.execute(_LEAVES).fetchall()


def _keyless(verdigris: Installation, sample: SampleSchema) -> dict[str, str]:
    """Tables, and the replica identity that each needs."""
    with verdigris.connect("app", dbname=sample.name) as connection:
        return {f"{schema}.{table}": identity for schema, table, _, identity in _leaves(connection) if identity}


def _rewrite_rows(verdigris: Installation, sample: SampleSchema) -> int:
    """Every row of every table once, with the author's triggers at work; how many there were."""
    count = 0
    with verdigris.connect("app", dbname=sample.name) as connection:
        for schema, table, column, _ in _leaves(connection):
            update = sql.SQL("UPDATE {} SET {} = {}").format(
                sql.Identifier(schema, table), sql.Identifier(column), sql.Identifier(column)
            )
            count += connection.execute(update).rowcount
    return count
