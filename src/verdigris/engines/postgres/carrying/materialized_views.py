"""Materialised views: what REFRESH writes is not replicated, so green's are those of the copy until they are refreshed
there.

Every REFRESH, CONCURRENTLY or not, writes the view's row in ``pg_class`` anew (``SetMatViewPopulatedState``), which
VACUUM and ANALYZE overwrite in place: so the row's ``xmin`` says whether a view was refreshed on the source since the
last look. Those are refreshed on the target, after it has everything that the source had at the look: their contents
are at least as new as the source's. One that was not refreshed on the source is the same on both sides already, and
stays. See docs/decisions/0028.
"""

import math
import time
from collections.abc import Sequence

import structlog
from msgspec import Struct
from psycopg import errors, sql

from verdigris.domain.errors import StepFailed
from verdigris.engines.postgres import marker
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.remembered import remember
from verdigris.engines.postgres.sessions import Session, describe

log = structlog.get_logger(__name__)

# Behind the fence those are refreshed once more that were refreshed on the source since, if all of it took no longer
# than this the last time here. Others are as old as the switchover's preparations.
PAUSE_SHARE_S = 0.2
# A session that reads on green may keep a refresh waiting.
_LOCK_WAIT_MS = 10_000

_LOOK = """
    SELECT c.oid, n.nspname, c.relname, c.xmin::text, c.relispopulated
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'
"""

# How many others a view is made of, by way of plain views too: whoever is made of another has more.
_ORDER = """
    WITH RECURSIVE uses (view, relation) AS (
        SELECT c.oid, d.refobjid
          FROM pg_class c JOIN pg_rewrite r ON r.ev_class = c.oid
          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid
         WHERE c.relkind = 'm'
         UNION
        SELECT u.view, d.refobjid
          FROM uses u JOIN pg_rewrite r ON r.ev_class = u.relation
          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                          AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> u.relation
    )
    SELECT n.nspname, c.relname
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm'
     ORDER BY (SELECT count(*) FROM uses u JOIN pg_class m ON m.oid = u.relation AND m.relkind = 'm'
                WHERE u.view = c.oid), c.oid
"""


class MaterializedView(Struct, frozen=True):
    """As the source has it."""

    oid: int
    schema: str
    name: str
    version: str
    populated: bool

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


async def take(copy: Session, names: ObjectNames) -> None:
    """On the copy: what it has is what the source had when the stream began."""
    await remember(
        copy,
        _table(names),
        sql.SQL(
            "SELECT c.oid AS relation, c.xmin::text AS version, 'Infinity'::float8 AS took_s FROM pg_class c"
            " WHERE c.relkind = 'm'"
        ),
    )


async def carry(source: Session, target: Session, names: ObjectNames) -> None:
    """However long it takes; may be cancelled at any time, and goes on then where it was. Raises ``StepFailed`` with
    the name of a view that cannot be refreshed on the target."""
    refreshed = await look(source, target, names)
    if refreshed:
        await marker.wait_for(target, names, await marker.send(source, names))
        await _refresh(target, names, refreshed)


async def look(source: Session, target: Session, names: ObjectNames) -> list[MaterializedView]:
    """Those that were refreshed on the source, and not yet on the target."""
    now = [MaterializedView(*row) for row in await source.rows(_LOOK)]
    if not now:
        return []
    then: dict[int, str] = dict(await target.rows(sql.SQL("SELECT relation, version FROM {}").format(_table(names))))
    return [view for view in now if then.get(view.oid) != view.version]


async def carry_finally(target: Session, names: ObjectNames, refreshed: Sequence[MaterializedView]) -> None:
    """Behind the fence, when the target has everything: refresh what a ``look`` there has found, if it is quick."""
    if not refreshed:
        return
    took_s: dict[int, float] = dict(await target.rows(sql.SQL("SELECT relation, took_s FROM {}").format(_table(names))))
    if sum(took_s.get(view.oid, math.inf) for view in refreshed) > PAUSE_SHARE_S:
        log.warning("materialized_views.left", deployment=names.base, views=[str(view) for view in refreshed])
        return
    await _refresh(target, names, refreshed)


async def _refresh(target: Session, names: ObjectNames, views: Sequence[MaterializedView]) -> None:
    wanted = {(view.schema, view.name): view for view in views}
    for schema, name in await target.rows(_ORDER):
        view = wanted.get((schema, name))
        if view is None:
            continue
        began_at = time.monotonic()
        await _refresh_one(target, view)
        took_s = round(time.monotonic() - began_at, 3)
        async with target.transaction():
            await target.run(sql.SQL("DELETE FROM {} WHERE relation = %s::oid").format(_table(names)), view.oid)
            await target.run(
                sql.SQL("INSERT INTO {} VALUES (%s::oid, %s, %s)").format(_table(names)),
                view.oid,
                view.version,
                took_s,
            )
        log.info("materialized_view.refreshed", deployment=names.base, schema=schema, view=name, took_s=took_s)


async def _refresh_one(target: Session, view: MaterializedView) -> None:
    statement = sql.SQL("REFRESH MATERIALIZED VIEW {}{}").format(
        sql.Identifier(view.schema, view.name), sql.SQL("" if view.populated else " WITH NO DATA")
    )
    try:
        async with target.transaction():
            await target.run(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT_MS)))
            # Clients' event triggers are for what clients do.
            await target.run("SET LOCAL session_replication_role = replica")
            # Sessions of ours refuse clients' views; but what this one is made of is read with its owner's rights, in
            # an operation that is restricted to them (``RefreshMatViewByOid``), and not with ours.
            await target.run(
                "SELECT set_config(name, '', true) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'"
            )
            await target.run(statement)
    except errors.Error as error:
        raise StepFailed(f"materialized view {view} cannot be refreshed on green: {describe(error)}") from error


def _table(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, "materialized_views")
