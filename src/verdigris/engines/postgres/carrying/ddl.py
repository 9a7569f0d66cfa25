"""Whether what was carried has made both sides alike: then the source's present state is what a switchover expects.

The digest of the source's catalogues (:mod:`verdigris.engines.postgres.fingerprint`) says that something was defined.
Comparing the definitions of both sides says whether the target has it too.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from psycopg import sql

from verdigris.engines.postgres import fingerprint, remembered
from verdigris.engines.postgres.carrying import definitions
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.sessions import Row, Session, both, until

log = structlog.get_logger(__name__)

# What is just being applied is waited for by whoever wants to know the differences.
_APPLIED_WITHIN_S = 5.0
_POLL_S = 0.02

# Catalogues that carried statements may change.
_CARRIED = definitions.COVERED | definitions.OF_EXTENSIONS

_HAS_TABLE = "SELECT to_regclass(%s) IS NOT NULL"
_WRITTEN = sql.SQL("SELECT id, tag, objects FROM {table} ORDER BY id")

# Rows that the target does not have, or not as the source has them: of tables that could be published and are not, and
# of those where a statement gave each row a value that it would not give a second time.
_UNLIKE_ROWS = sql.SQL("""
    SELECT format('rows of table %s (not replicated)', c.oid::regclass)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND pg_relation_is_publishable(c.oid) AND n.nspname <> {name}
       AND NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                        WHERE r.prrelid = c.oid AND p.pubname = {name})
     UNION
    SELECT format('rows of table %s (values that differ with every %s)', c.oid::regclass, d.tag)
      FROM {table} d CROSS JOIN LATERAL unnest(d.unequal) AS u (oid) JOIN pg_class c ON c.oid = u.oid
     ORDER BY 1
""")
_FIRST_AGREED = sql.SQL("SELECT id FROM {table}")
_AGREED = sql.SQL("SELECT id FROM {agreed}")
_AGREE = sql.SQL("INSERT INTO {agreed} SELECT id FROM {table} EXCEPT SELECT id FROM {agreed}")
_REFUSED = sql.SQL("""
    SELECT id, concat_ws(' ', tag, nullif(objects, '')) || ' (' || refused || ')'
      FROM {table} WHERE refused IS NOT NULL ORDER BY id
""")

# What a comparison saw: as long as it would see the same again, there is no need for another.
Seen = tuple[object, ...]


async def remember(copy: Session, names: ObjectNames, majors: definitions.Majors) -> None:
    """On the copy, which has executed what was written down until now: how everything was defined then."""
    await definitions.remember_spelling(copy, names, majors)
    await remembered.remember(copy, _agreed_table(names), _of(_FIRST_AGREED, names))


async def settle(source: Session, target: Session, names: ObjectNames, seen: Seen | None = None) -> Seen | None:
    """If both sides are alike, take the source's present state for what a switchover expects. None if it is now; else
    what was seen, for the next call. The target may also be still applying."""
    if not (now := await _look(source, target, names)) or now == seen:
        return now
    if not await _is_captured(source, target, names):
        return now
    async with _snapshots(source, target):
        if await _unapplied(source, target, names) or await _unlike(source, target, names):
            return now
        accepted = await fingerprint.accept(source, target, names, _CARRIED)
        await definitions.agree(source, target, names)
        await target.run(_of(_AGREE, names))
    log.info("definitions.carried", deployment=names.base, database=source.info.dbname, catalogues=accepted)
    return await _look(source, target, names)


async def differences(source: Session, target: Session, names: ObjectNames) -> list[str]:
    """What is not alike on both sides, by name, when the target has applied what was written down. Changes nothing."""
    if not await _is_captured(source, target, names):
        return []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_APPLIED_WITHIN_S):
            await until(lambda: _has_applied(source, target, names), every_s=_POLL_S)
    if waiting := await _unapplied(source, target, names):
        return [f"{what} (green has not applied it yet)" for what in waiting]
    async with _snapshots(source, target):
        return await _unlike(source, target, names)


async def unsettled(source: Session, target: Session, names: ObjectNames) -> list[str]:
    """Statements that nobody has looked at since both sides were found alike."""
    if not await _is_captured(source, target, names):
        return []
    agreed = await _agreed(target, names)
    return [_phrase(*row) for row in await source.rows(_of(_WRITTEN, names)) if row[0] not in agreed]


async def refused(source: Session, target: Session, names: ObjectNames) -> list[str]:
    """Statements that were not carried since both sides were last found alike, each with its reason."""
    if not await _is_captured(source, target, names):
        return []
    agreed = await _agreed(target, names)
    return [what for number, what in await source.rows(_of(_REFUSED, names)) if number not in agreed]


async def next_to_apply(source: Session, target: Session, names: ObjectNames) -> str | None:
    """The statement that the target is about to execute, or fails to: its kind and its objects."""
    if not await _is_captured(source, target, names):
        return None
    return next(iter(await _unapplied(source, target, names)), None)


async def _look(source: Session, target: Session, names: ObjectNames) -> Seen | None:
    """None: the source's digest is what is expected of it, and nothing has been stated since."""
    differing = await fingerprint.differing(source, target, names, _CARRIED)
    statements = await unsettled(source, target, names)
    if not differing and not statements:
        return None
    unapplied = await _unapplied(source, target, names) if statements else []
    return (*sorted(differing.items()), *statements, len(unapplied))


async def _unlike(source: Session, target: Session, names: ObjectNames) -> list[str]:
    """After a statement that was not carried, of everything: it may have undone on the source what was carried."""
    unlike = [row[0] for row in await source.rows(_of(_UNLIKE_ROWS, names))]
    everything = bool(await refused(source, target, names))
    unlike += await definitions.differences(source, target, names, everything=everything)
    return unlike + list(map(str, await fingerprint.unexplained(source, target, names, definitions.OF_EXTENSIONS)))


async def _agreed(target: Session, names: ObjectNames) -> set[int]:
    """Numbers of the statements that were written down when both sides were last found alike."""
    return {row[0] for row in await target.rows(_of(_AGREED, names))}


async def _is_captured(source: Session, target: Session, names: ObjectNames) -> bool:
    table = _table(names).as_string()
    return all([await connection.value(_HAS_TABLE, table) for connection in (source, target)])


async def _has_applied(source: Session, target: Session, names: ObjectNames) -> bool:
    return not await _unapplied(source, target, names)


async def _unapplied(source: Session, target: Session, names: ObjectNames) -> list[str]:
    """Statements of the source that the target has not executed, in their order, and those of the target that this look
    at the source is too old for."""

    async def written(connection: Session) -> set[Row]:
        return set(await connection.rows(_of(_WRITTEN, names)))

    ours, theirs = await both(written(source), written(target))
    return [_phrase(*row) for row in sorted(ours ^ theirs)]


def _phrase(_: int, tag: str, objects: str) -> str:
    return f"{tag} {objects}".strip()


@contextlib.asynccontextmanager
async def _snapshots(source: Session, target: Session) -> AsyncIterator[None]:
    """One moment on each side. What the block writes on the target is committed at its end."""
    async with source.transaction(), target.transaction():
        for connection in (source, target):
            await connection.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


def _table(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, "ddl")


def _agreed_table(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, "agreed_ddl")


def _of(query: sql.SQL, names: ObjectNames) -> sql.Composed:
    return query.format(table=_table(names), agreed=_agreed_table(names), name=sql.Literal(names.schema))
