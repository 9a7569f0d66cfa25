"""Orders of text that may have changed between the library that an index was built with and the one that reads it."""

from collections.abc import Sequence

from psycopg import sql

from verdigris.engines.postgres.guardrails.model import UNSUPPORTED, Extent, Guardrail, Moment, Side, View

# Those that an index or a partition bound depends on.
_COLLATIONS = sql.SQL("""
    SELECT format('collation %I.%I (%s, now %s)', n.nspname, c.collname, c.collversion, v.actual)
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
     CROSS JOIN LATERAL pg_collation_actual_version(c.oid) AS v (actual)
     WHERE c.collversion <> v.actual
       AND (EXISTS (SELECT FROM pg_index i WHERE c.oid = ANY(i.indcollation::oid[]))
            OR EXISTS (SELECT FROM pg_partitioned_table p WHERE c.oid = ANY(p.partcollation::oid[])))
     ORDER BY 1
""")
_DATABASE = sql.SQL("""
    SELECT format('the default collation (%s, now %s)', d.datcollversion, v.actual)
      FROM pg_database d CROSS JOIN LATERAL pg_database_collation_actual_version(d.oid) AS v (actual)
     WHERE d.datname = current_database() AND d.datcollversion <> v.actual
""")


async def _changed(view: View) -> Sequence[str]:
    changed = await view.target_names(_COLLATIONS)
    if view.target.info.server_version >= 150000:  # before, databases kept no version
        changed += await view.target_names(_DATABASE)
    return changed


GUARDRAILS = (
    Guardrail(
        name="collation-versions",
        rds=UNSUPPORTED,
        complaint="collations of green's indexes have another version than the indexes were built with",
        remedy="REINDEX what uses them on green, and then ALTER COLLATION or DATABASE ... REFRESH (COLLATION) VERSION.",
        threshold="the version that is recorded is the library's",
        why="Text may be ordered otherwise now, and an index that is ordered wrongly loses rows.",
        side=Side.GREEN,
        moments=Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_changed,
    ),
)
