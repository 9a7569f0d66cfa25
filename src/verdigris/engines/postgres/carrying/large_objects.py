"""Large objects do not replicate logically: what was changed since the last look is found, and copied page by page.

A look is one scan of ``pg_largeobject`` and ``pg_largeobject_metadata`` that reads no contents. It rests on the
*horizon* of the look before: the oldest transaction that was running then (``pg_snapshot_xmin``). Whatever any
transaction that was not over at that look writes has an ``xmin`` at or beyond the horizon, subtransactions too, whose
number follows their parent's. So

* rows with an older ``xmin`` are those that the last look saw, and every other one is copied (some for a second time);
* what was deleted leaves nothing to see, but then there are fewer rows than were counted. Nothing can make up for them:
  new rows belong to objects that are counted anew.

Hence nothing has changed if no row is new and none is missing, and that is exact: see docs/decisions/0025. A trigger on
a catalogue is not possible, and the statistics' counters come late, and not at all after a crash.
"""

import time
from collections.abc import Collection, Sequence
from typing import Any

import structlog
from msgspec import Struct
from psycopg import sql

from verdigris.domain.errors import StepFailed
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.remembered import remember
from verdigris.engines.postgres.sessions import Session, both

log = structlog.get_logger(__name__)

# Objects that one transaction on the target brings over.
_OBJECTS_AT_ONCE = 200
# Pages of 2 kB that are read and written at a time.
_PAGES_AT_ONCE = 256
# Beyond this, the look that a pause cannot do without is not short any more: everybody would wait for it.
LONGEST_LOOK_S = 1.0

_HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"

_LOOK = """
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text,
           pages.rows, coalesce(pages.changed, '{}'), objects.rows, coalesce(objects.changed, '{}'),
           comments.rows, comments.changed
      FROM (SELECT age(%s::xid) AS age OFFSET 0) horizon,
           LATERAL (SELECT count(*) AS rows, array_agg(DISTINCT loid) FILTER (WHERE age(xmin) <= horizon.age) AS changed
                      FROM pg_largeobject) pages,
           LATERAL (SELECT count(*) AS rows, array_agg(oid) FILTER (WHERE age(xmin) <= horizon.age) AS changed
                      FROM pg_largeobject_metadata) objects,
           LATERAL (SELECT count(*) AS rows, count(*) FILTER (WHERE age(xmin) <= horizon.age) AS changed
                      FROM pg_description WHERE classoid = 'pg_largeobject'::regclass) comments
"""

_PROPERTIES = """
    SELECT m.oid, pg_get_userbyid(m.lomowner),
           (SELECT jsonb_agg(jsonb_build_array(CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END,
                                               pg_get_userbyid(a.grantor), a.privilege_type, a.is_grantable))
              FROM aclexplode(coalesce(m.lomacl, acldefault('L', m.lomowner))) a)
      FROM pg_largeobject_metadata m WHERE m.oid = ANY(%s::oid[])
"""
_COUNTS = "SELECT loid, count(*) FROM pg_largeobject WHERE loid = ANY(%s::oid[]) GROUP BY loid"
# lo_put() leaves what is behind its bytes in the page, and makes no empty one, as lo_truncate() leaves them.
_CLEAR = """
    DELETE FROM pg_largeobject p USING unnest(%s::oid[], %s::int[]) AS o (loid, pageno)
     WHERE p.loid = o.loid AND p.pageno = o.pageno
"""
_PUT = "INSERT INTO pg_largeobject SELECT * FROM unnest(%s::oid[], %s::int[], %b::bytea[])"
_COMMENTS = """
    SELECT objoid, description FROM pg_description WHERE classoid = 'pg_largeobject'::regclass AND objsubid = 0
"""


class Known(Struct, frozen=True):
    """What the target has: everything that was over at the horizon. Counts are the source's."""

    horizon: str
    pages: int
    objects: int
    comments: int


class Seen(Struct, frozen=True):
    horizon: str
    pages: int
    changed_pages: list[int]  # of which objects
    objects: int
    changed_objects: list[int]
    comments: int
    changed_comments: int

    @property
    def changed(self) -> list[int]:
        return sorted({*self.changed_pages, *self.changed_objects})

    def is_news(self, known: Known) -> bool:
        """Nothing is changed, and nothing missing."""
        return bool(self.changed) or (self.pages, self.objects) != (known.pages, known.objects)

    def has_other_comments(self, known: Known) -> bool:
        return self.changed_comments > 0 or self.comments != known.comments


async def read_horizon(source: Session) -> str:
    """To be read before the copy's last record is written: what is older is in the copy."""
    return str(await source.value(_HORIZON))


async def take(copy: Session, names: ObjectNames, horizon: str) -> None:
    """On the copy: count what it has. ``horizon`` is of the source, from before."""
    objects, look = _tables(names)
    await remember(
        copy,
        objects,
        sql.SQL(
            "SELECT m.oid AS loid, coalesce(p.pages, 0) AS pages FROM pg_largeobject_metadata m"
            " LEFT JOIN (SELECT loid, count(*) AS pages FROM pg_largeobject GROUP BY loid) p ON p.loid = m.oid"
        ),
    )
    await copy.run(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (loid)").format(objects))
    await remember(
        copy,
        look,
        sql.SQL(
            "SELECT {}::text AS horizon, 0.0::float8 AS look_s,"
            " (SELECT coalesce(sum(pages), 0)::bigint FROM {}) AS pages, (SELECT count(*) FROM {}) AS objects,"
            " (SELECT count(*) FROM pg_description WHERE classoid = 'pg_largeobject'::regclass) AS comments"
        ).format(sql.Literal(horizon), objects, objects),
    )


async def carry(source: Session, target: Session, names: ObjectNames) -> float:
    """Bring over what was changed since the last time; how long the look took, in seconds. May be cancelled at any
    time, and is begun again then."""
    known, seen, look_s = await _look(source, target, names)
    await _bring(source, target, names, known, seen)
    await _remember(target, names, seen, look_s, recount=seen.is_news(known))
    return look_s


async def carry_finally(source: Session, target: Session, names: ObjectNames) -> None:
    """Behind the fence, where nobody writes any more: the last word. Raises ``StepFailed`` where the look takes too
    long for a pause; the rehearsal of the pause finds out."""
    known, seen, look_s = await _look(source, target, names)
    if look_s > LONGEST_LOOK_S:
        raise StepFailed(f"database {source.info.dbname}: {too_long(look_s)}")
    if seen.is_news(known) or seen.has_other_comments(known):
        await _bring(source, target, names, known, seen)
        await _remember(target, names, seen, look_s, recount=True)


async def look_s(target: Session, names: ObjectNames) -> float:
    """How long the last look took, in seconds."""
    _, look = _tables(names)
    return float(await target.value(sql.SQL("SELECT look_s FROM {}").format(look)))


def too_long(look_s: float) -> str:
    return (
        f"it takes {look_s:.1f} s to look through the large objects, and nobody can write meanwhile;"
        f" the limit is {LONGEST_LOOK_S:g} s"
    )


async def _look(source: Session, target: Session, names: ObjectNames) -> tuple[Known, Seen, float]:
    _, look = _tables(names)
    rows = await target.rows(sql.SQL("SELECT horizon, pages, objects, comments FROM {}").format(look))
    known = Known(*rows[0])
    began_at = time.monotonic()
    # The lower half of the full number, as the rows have it. age() compares as the server does, around the wrap.
    rows = await source.rows(_LOOK, str(int(known.horizon) & 0xFFFFFFFF))
    return known, Seen(*rows[0]), time.monotonic() - began_at


async def _bring(source: Session, target: Session, names: ObjectNames, known: Known, seen: Seen) -> None:
    if seen.is_news(known):
        await _bring_all(source, target, names, known, seen)
    if seen.has_other_comments(known):
        await _bring_comments(source, target)


async def _bring_all(source: Session, target: Session, names: ObjectNames, known: Known, seen: Seen) -> None:
    """Those that are new or other, then those of which something is missing."""
    began_at = time.monotonic()
    objects = pages = 0
    for missing in (False, True):
        found = await _find_missing(source, target, names, seen) if missing else seen.changed
        objects += len(found)
        for start in range(0, len(found), _OBJECTS_AT_ONCE):
            batch = found[start : start + _OBJECTS_AT_ONCE]
            pages += await _bring_objects(source, target, names, batch, known.horizon)
    log.info(
        "large_objects.carried",
        deployment=names.base,
        database=source.info.dbname,
        objects=objects,
        pages=pages,
        duration_s=round(time.monotonic() - began_at, 3),
    )


async def _find_missing(source: Session, target: Session, names: ObjectNames, seen: Seen) -> list[int]:
    """Objects that have fewer pages than they had, or are gone; looked for only where the counts say that there are
    some. Those that were changed as well have been counted anew already."""
    objects, _ = _tables(names)
    pages, rows = (
        await target.rows(sql.SQL("SELECT coalesce(sum(pages), 0)::bigint, count(*) FROM {}").format(objects))
    )[0]
    if (pages, rows) == (seen.pages, seen.objects):
        return []
    here: dict[int, int] = dict(
        await source.rows(
            "SELECT m.oid, coalesce(p.pages, 0) FROM pg_largeobject_metadata m"
            " LEFT JOIN (SELECT loid, count(*) AS pages FROM pg_largeobject GROUP BY loid) p ON p.loid = m.oid"
        )
    )
    there = await target.rows(sql.SQL("SELECT loid, pages FROM {}").format(objects))
    return sorted(loid for loid, count in there if here.get(loid) != count)


async def _bring_objects(
    source: Session, target: Session, names: ObjectNames, loids: Sequence[int], horizon: str
) -> int:
    """Some objects, in one transaction of the target; how many pages were written."""
    properties = {oid: (owner, acl) for oid, owner, acl in await source.rows(_PROPERTIES, list(loids))}
    objects, _ = _tables(names)
    async with target.transaction():
        there = {oid: (owner, acl) for oid, owner, acl in await target.rows(_PROPERTIES, list(loids))}
        await _unlink(target, [loid for loid in loids if loid in there and loid not in properties])
        created = [loid for loid in properties if loid not in there]
        await target.run("SELECT lo_create(oid) FROM unnest(%s::oid[]) oid", created)
        pages = await _copy_pages(source, target, list(properties), created, horizon)
        counts = await _even_out(source, target, list(properties))
        for loid, (owner, acl) in properties.items():
            if there.get(loid) != (owner, acl):
                await _set_properties(target, loid, owner, acl)
        await target.run(sql.SQL("DELETE FROM {} WHERE loid = ANY(%s::oid[])").format(objects), list(loids))
        await target.run(
            sql.SQL("INSERT INTO {} SELECT * FROM unnest(%s::oid[], %s::bigint[])").format(objects),
            list(properties),
            [counts.get(loid, 0) for loid in properties],
        )
    return pages


async def _unlink(target: Session, loids: list[int]) -> None:
    await target.run("SELECT lo_unlink(oid) FROM unnest(%s::oid[]) oid", loids)


async def _copy_pages(source: Session, target: Session, loids: list[int], whole: Collection[int], horizon: str) -> int:
    """New pages of these objects, and all of those that are ``whole``. Pages as they are, so that holes stay holes."""
    query = (
        "SELECT loid, pageno, data FROM pg_largeobject WHERE loid = ANY(%s::oid[])"
        " AND (age(xmin) <= (SELECT age(%s::xid)) OR loid = ANY(%s::oid[]))"
    )
    parameters: list[Any] = [loids, str(int(horizon) & 0xFFFFFFFF), list(whole)]
    written = 0
    async with source.transaction(), source.cursor("verdigris_pages", binary=True) as pages:
        await pages.execute(query, parameters)
        while rows := await pages.fetchmany(_PAGES_AT_ONCE):
            owners, pagenos, data = (list(column) for column in zip(*rows, strict=True))
            await target.run(_CLEAR, owners, pagenos)
            await target.run(_PUT, owners, pagenos, data)
            written += len(rows)
    return written


async def _even_out(source: Session, target: Session, loids: list[int]) -> dict[int, int]:
    """Take pages away that the source no longer has; the source's number of pages by object."""
    wanted, present = await both(source.rows(_COUNTS, loids), target.rows(_COUNTS, loids))
    counts: dict[int, int] = dict(wanted)
    there: dict[int, int] = dict(present)
    for loid in loids:
        if there.get(loid, 0) > counts.get(loid, 0):
            kept = await source.rows("SELECT pageno FROM pg_largeobject WHERE loid = %s::oid", loid)
            await target.run(
                "DELETE FROM pg_largeobject WHERE loid = %s::oid AND pageno <> ALL(%s::int[])",
                loid,
                [row[0] for row in kept],
            )
    # Fewer than there are: somebody has taken pages away on green.
    short = [loid for loid in loids if there.get(loid, 0) < counts.get(loid, 0)]
    if short:
        await _copy_pages(source, target, short, short, "0")
    return counts


async def _set_properties(target: Session, loid: int, owner: str, acl: list[list[Any]] | None) -> None:
    """Owner and privileges, from scratch: GRANT speaks for the current role, so each is said by its grantor."""
    what = sql.SQL("LARGE OBJECT {}").format(sql.Literal(loid))
    await target.run(sql.SQL("ALTER {} OWNER TO {}").format(what, sql.Identifier(owner)))
    for grantee in await target.rows(
        "SELECT DISTINCT pg_get_userbyid(a.grantee), a.grantee = 0 FROM pg_largeobject_metadata m,"
        " aclexplode(m.lomacl) a WHERE m.oid = %s::oid",
        loid,
    ):
        who = sql.SQL("PUBLIC") if grantee[1] else sql.Identifier(grantee[0])
        await target.run(sql.SQL("REVOKE ALL ON {} FROM {} CASCADE").format(what, who))
    for grantee, grantor, privilege, grantable in sorted(acl or [], key=lambda item: not item[3]):
        await target.run(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(grantor)))
        await target.run(
            sql.SQL("GRANT {} ON {} TO {}{}").format(
                sql.SQL("SELECT" if privilege == "SELECT" else "UPDATE"),
                what,
                sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee),
                sql.SQL(" WITH GRANT OPTION" if grantable and grantee != grantor else ""),
            )
        )
    await target.run("RESET ROLE")


async def _bring_comments(source: Session, target: Session) -> None:
    """All of them are read: there are never many."""
    wanted: dict[int, str] = dict(await source.rows(_COMMENTS))
    present: dict[int, str] = dict(await target.rows(_COMMENTS))
    async with target.transaction():
        for loid in wanted.keys() | present.keys():
            text = wanted.get(loid)
            exists = await target.value("SELECT EXISTS (SELECT FROM pg_largeobject_metadata WHERE oid = %s::oid)", loid)
            if exists and text != present.get(loid):
                comment = sql.SQL("NULL") if text is None else sql.Literal(text)
                await target.run(sql.SQL("COMMENT ON LARGE OBJECT {} IS {}").format(sql.Literal(loid), comment))


async def _remember(target: Session, names: ObjectNames, seen: Seen, look_s: float, *, recount: bool) -> None:
    objects, look = _tables(names)
    counts = sql.SQL(
        ", (pages, objects) = (SELECT coalesce(sum(pages), 0)::bigint, count(*) FROM {})" if recount else ""
    ).format(objects)
    await target.run(
        sql.SQL("UPDATE {} SET horizon = %s, look_s = %s, comments = %s{}").format(look, counts),
        seen.horizon,
        look_s,
        seen.comments,
    )


def _tables(names: ObjectNames) -> tuple[sql.Identifier, sql.Identifier]:
    return sql.Identifier(names.schema, "large_objects"), sql.Identifier(names.schema, "large_object_look")
