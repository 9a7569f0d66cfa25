"""What is going on at the moment."""

from collections.abc import Sequence

from psycopg import sql

from verdigris.engines.postgres import config, own_writes
from verdigris.engines.postgres.backends import OWN_BACKENDS
from verdigris.engines.postgres.guardrails.model import (
    ACTIVE_WRITES,
    LOGICAL,
    LONG_DDL,
    LONG_WRITES,
    Extent,
    Guardrail,
    Moment,
    Side,
    View,
    on_source,
)

# A transaction that has written for so long will not end within the budget of a pause, which is about a second, and
# to repeat the attempt until it does only hurts others.
LONG_WRITE_S = 10.0
# Exclusive locks that others meet are held for milliseconds; one held for longer is a table being rewritten, or
# an open transaction with DDL in it.
LONG_DDL_S = 3.0

# Clients, and workers of extensions: whoever may write and is not PostgreSQL itself.
_NOT_CLIENTS = [backend for backend in OWN_BACKENDS if backend != "client backend"]

_WRITERS = """
    SELECT format('process %%s (%%s@%%s)', pid, usename, datname)
      FROM pg_stat_activity
     WHERE backend_type <> ALL(%s) AND usename <> %s AND backend_xid IS NOT NULL
       AND clock_timestamp() - xact_start >= make_interval(secs => %s)
     ORDER BY xact_start
"""

_DDL = """
    SELECT DISTINCT format('process %%s (%%s@%%s)', a.pid, a.usename, a.datname)
      FROM pg_stat_activity a
     WHERE a.backend_type <> ALL(%s) AND a.usename <> %s
       AND clock_timestamp() - a.xact_start >= make_interval(secs => %s)
       AND (a.pid IN (SELECT pid FROM pg_stat_progress_create_index UNION ALL SELECT pid FROM pg_stat_progress_cluster)
            OR EXISTS (SELECT FROM pg_locks l
                        WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation'
                          AND l.mode IN ('AccessExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')))
     ORDER BY 1
"""


# Not pg_publication_tables, which waits for whoever has one of the tables locked.
_PUBLISHED = sql.SQL("""
    SELECT format('%%I.%%I', n.nspname, c.relname)
      FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
      JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE p.pubname = %s
""")


async def _long_writers(view: View) -> Sequence[str]:
    return await view.source_names(_WRITERS, _NOT_CLIENTS, config.ADMIN_ROLE, LONG_WRITE_S)


async def _long_ddl(view: View) -> Sequence[str]:
    return await view.source_names(_DDL, _NOT_CLIENTS, config.ADMIN_ROLE, LONG_DDL_S)


async def _writers_on_target(view: View) -> Sequence[str]:
    if await view.target.value("SELECT pg_is_in_recovery()"):
        return []
    return await view.target_names(_WRITERS, _NOT_CLIENTS, config.ADMIN_ROLE, 0.0)


async def _written_on_target(view: View) -> Sequence[str]:
    """Into tables that blue writes to as well; others are green's own business."""
    written = await own_writes.note(view.target, view.names)
    published = {*await view.source_names(_PUBLISHED, view.names.publication)} if written else {}
    return [table for table in written if table in published]


GUARDRAILS = (
    Guardrail(
        name="written-on-green",
        rds=ACTIVE_WRITES,
        complaint="tables that follow blue were written to on green",
        remedy="Their rows may differ from blue's: delete the deployment and create it again; or, if it was meant so,"
        " delete their names from the table own_writes in green's schema of this deployment.",
        threshold=f"not a single row; not known any more beyond {own_writes.KEEP_MIB} MiB of WAL of green during which"
        " no control plane ran",
        why="Nothing of it is on blue, and the next change of the same row may stop the replication.",
        side=Side.BOTH,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_written_on_target,
    ),
    Guardrail(
        name="writes-on-green",
        rds=ACTIVE_WRITES,
        complaint="sessions are writing on green",
        remedy="End them.",
        threshold="no transaction of a client may have written",
        why="What they write may be in the way of what comes from blue.",
        side=Side.GREEN,
        moments=Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_writers_on_target,
    ),
    Guardrail(
        name="prepared-transactions",
        rds=LONG_WRITES,
        complaint="prepared transactions are open, which are not replicated",
        remedy="Commit or roll them back.",
        why="Green hears of them only when they are committed, and after the fence nobody could do that.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER | Moment.FENCED,
        extent=Extent.CLUSTER,
        look=on_source(sql.SQL("SELECT gid FROM pg_prepared_xacts ORDER BY 1")),
    ),
    Guardrail(
        name="long-writes",
        rds=LONG_WRITES,
        complaint=f"transactions have been writing for more than {LONG_WRITE_S:g} s",
        remedy="Let them end, or end them.",
        threshold=f"{LONG_WRITE_S:g} s",
        why="They will not end within the budget of a pause, and to repeat the attempt until they do hurts others.",
        side=Side.BLUE,
        moments=Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_long_writers,
    ),
    Guardrail(
        name="long-ddl",
        rds=LONG_DDL,
        complaint=f"DDL has been running for more than {LONG_DDL_S:g} s",
        remedy="Let it end, or end it.",
        threshold=f"{LONG_DDL_S:g} s",
        why="Locks that exclude others are held for milliseconds; longer means a table that is rewritten, an index that"
        " is built, or an open transaction with DDL in it.",
        side=Side.BLUE,
        moments=Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_long_ddl,
    ),
)
