"""Tables without a key: they are given ``REPLICA IDENTITY FULL`` for as long as a publication of ours holds them.

A published table whose updates could not be described has them refused, on the source. So each is altered before it is
published, and put back when the publication is gone, never while it is there. What it was is written down on the source
itself, in the deployment's schema, in the transaction that alters it: no crash can part the two.

``ALTER TABLE`` waits for an exclusive lock, and everybody else who wants the table waits behind it. So each table is
altered in a transaction of its own that waits for a moment only, and is tried again.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from psycopg import errors, sql

from verdigris.domain.errors import EngineError
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.sessions import Session

log = structlog.get_logger(__name__)

# How long one attempt keeps others waiting who come after it, at most; a moment nobody complains of.
_LOCK_WAIT_MS = 100
# Between attempts those who were kept waiting get through.
_RETRY_S = 0.4
# A table that is never free for so long is in a transaction that a switchover would refuse anyway.
_GIVE_UP_AFTER_S = 30.0

# Of ``pg_class c``. A deferrable key does not count (manual, ALTER TABLE, REPLICA IDENTITY).
HAS_KEY = """
    CASE c.relreplident
    WHEN 'f' THEN true
    WHEN 'd' THEN EXISTS (SELECT FROM pg_index i
                           WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid)
    WHEN 'i' THEN EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid)
    ELSE false END
"""
_TABLES = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r'"

# Types that a row on the target could not be found by, because they have no equality (json, xml, point ...): of a
# column itself, of a domain's base, an array's elements, or a composite's columns. TYPECACHE_EQ_OPR looks for a default
# operator class, btree or hash, in the same way. Generated columns are not compared.
INCOMPARABLE = """
    WITH RECURSIVE parts (relation, type) AS (
        SELECT a.attrelid, a.atttypid
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relkind = 'r' AND pg_relation_is_publishable(c.oid) AND {suspected}
           AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
         UNION
        SELECT p.relation, inner_type.oid
          FROM parts p JOIN pg_type t ON t.oid = p.type
          CROSS JOIN LATERAL (
              SELECT t.typbasetype WHERE t.typtype = 'd'
               UNION ALL
              SELECT t.typelem WHERE t.typtype = 'b' AND t.typcategory = 'A' AND t.typlen = -1 AND t.typelem <> 0
               UNION ALL
              SELECT a.atttypid FROM pg_attribute a
               WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
          ) AS inner_type (oid)
    )
    SELECT DISTINCT p.relation FROM parts p JOIN pg_type t ON t.oid = p.type
     WHERE t.typtype = 'b' AND NOT (t.typcategory = 'A' AND t.typlen = -1 AND t.typelem <> 0)
       AND NOT EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname IN ('btree', 'hash')
                        WHERE o.opcdefault AND (o.opcintype = t.oid OR EXISTS (
                            SELECT FROM pg_cast k
                             WHERE k.castsource = t.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b')))
"""

# Without a key, and not to be helped: rows that cannot be compared, or an identity by an index that is gone, which
# nothing could put back.
HELPLESS = sql.SQL(
    f"SELECT format('%I.%I', n.nspname, c.relname) {_TABLES} AND pg_relation_is_publishable(c.oid) AND NOT {HAS_KEY}"
    f" AND (c.relreplident = 'i' OR c.oid IN ({INCOMPARABLE.format(suspected=f'NOT {HAS_KEY}')})) ORDER BY 1"
)
# By the owner's own wish, and as little use.
_FULL_BY_WISH = (
    "c.relreplident = 'f' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)"
)
INCOMPARABLE_IDENTITY = sql.SQL(
    f"SELECT format('%I.%I', n.nspname, c.relname) {_TABLES}"
    f" AND c.oid IN ({INCOMPARABLE.format(suspected=_FULL_BY_WISH)}) ORDER BY 1"
)

# Leaves of partition trees, not their roots: a publication of the root would take in every partition that is added
# later, which the target does not have.
_PUBLISHABLE = sql.SQL(
    f"SELECT n.nspname, c.relname, {HAS_KEY} {_TABLES} AND pg_relation_is_publishable(c.oid) ORDER BY 1, 2"
)
_PUBLISHED_WITHOUT_KEY = sql.SQL(
    f"SELECT n.nspname, c.relname {_TABLES} AND NOT {HAS_KEY}"  # noqa: S608 - texts of this module
    " AND c.oid IN (SELECT prrelid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid"
    "                WHERE p.pubname = %s) ORDER BY 1, 2"
)

# What a table of no key costs green: an update or delete of one row reads it from end to end, unless it has an index
# that PostgreSQL may use for the search (from 16 on: btree, not partial, beginning with a column). The size is
# VACUUM's: pg_relation_size() would wait for whoever has the table locked.
_NOTED_FROM_BYTES = 64 * 1024**2
_COSTLY = sql.SQL("""
    SELECT format('%%I.%%I', n.nspname, c.relname)
      FROM {} g JOIN pg_class c ON c.oid = g.relation JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid) > 0
       AND c.relpages * current_setting('block_size')::bigint >= %s
       AND NOT (%s AND EXISTS (SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                                 JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
                                WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] <> 0))
     ORDER BY 1
""")
_ANY_INDEX_SINCE = 16


async def prepare_journal(connection: Session, names: ObjectNames) -> None:
    """Where it is written down what tables were. The schema of the deployment is there."""
    await connection.run(
        sql.SQL('CREATE TABLE {} (relation oid PRIMARY KEY, was "char" NOT NULL)').format(_journal(names))
    )


async def publishable(connection: Session) -> list[tuple[str, str]]:
    """Tables to be published: schema and name of each that has a key, or an identity in its place. Raises
    ``EngineError`` if there is one that has not."""
    rows = await connection.rows(_PUBLISHABLE)
    keyless = [f"{schema}.{table}" for schema, table, has_key in rows if not has_key]
    if keyless:
        raise EngineError(f"database {connection.info.dbname}: tables without a primary key: {', '.join(keyless)}")
    return [(schema, table) for schema, table, _ in rows]


async def give_to_all(connection: Session, names: ObjectNames) -> None:
    """Before tables are published: an identity to each that has none."""
    helpless = {row[0] for row in await connection.rows(HELPLESS)}
    if helpless:
        listed = ", ".join(sorted(helpless))
        raise EngineError(
            f"database {connection.info.dbname}: tables without a key that cannot be replicated: {listed}"
        )
    for schema, table, has_key in await connection.rows(_PUBLISHABLE):
        if not has_key:
            await give(connection, names, schema, table)


async def give(connection: Session, names: ObjectNames, schema: str, table: str) -> None:
    """``REPLICA IDENTITY FULL`` to one table of the source, to be taken back when the deployment ends. Raises
    ``EngineError`` if it is in use all the time. Does nothing to a table that has it."""
    relation = sql.Identifier(schema, table)
    identity = sql.SQL("SELECT relreplident FROM pg_class WHERE oid = {}::regclass").format(
        sql.Literal(relation.as_string())
    )
    if await connection.value(identity) not in {"d", "n"}:
        return

    async def alter() -> None:
        await connection.run(
            sql.SQL(
                "INSERT INTO {} AS j SELECT oid, relreplident FROM pg_class WHERE oid = {}::regclass"
                " AND relreplident IN ('d', 'n') ON CONFLICT (relation) DO UPDATE SET was = excluded.was"
                " WHERE j.was <> 'x'"
            ).format(_journal(names), sql.Literal(relation.as_string()))
        )
        await connection.run(sql.SQL("ALTER TABLE ONLY {} REPLICA IDENTITY FULL").format(relation))

    await _without_queueing(connection, alter, f"table {schema}.{table}")
    log.info("identity.given", deployment=names.base, database=connection.info.dbname, schema=schema, table=table)


async def tend(connection: Session, names: ObjectNames, *, target_major: int) -> list[str]:
    """A published table that has lost its key has its updates refused until this comes round. Returns what the operator
    should know."""
    lost = await connection.rows(_PUBLISHED_WITHOUT_KEY, names.publication)
    helpless = {row[0] for row in await connection.rows(HELPLESS)} if lost else set()
    for schema, table in lost:
        if await connection.value("SELECT format('%%I.%%I', %s::text, %s::text)", schema, table) not in helpless:
            await give(connection, names, schema, table)
            continue
        await _withdraw(connection, names, schema, table)
    return await _costly(connection, names, target_major)


async def _withdraw(connection: Session, names: ObjectNames, schema: str, table: str) -> None:
    """Blue comes first: green will be without the table's changes, which a guardrail knows from the journal."""
    relation = sql.Identifier(schema, table)

    async def alter() -> None:
        await connection.run(
            sql.SQL("INSERT INTO {} VALUES ({}::regclass, 'x') ON CONFLICT (relation) DO UPDATE SET was = 'x'").format(
                _journal(names), sql.Literal(relation.as_string())
            )
        )
        await connection.run(
            sql.SQL("ALTER PUBLICATION {} DROP TABLE ONLY {}").format(sql.Identifier(names.publication), relation)
        )

    await _without_queueing(connection, alter, f"table {schema}.{table}")
    log.warning("identity.impossible", deployment=names.base, schema=schema, table=table)


async def withdrawn(connection: Session, names: ObjectNames) -> list[str]:
    """Tables that are no longer published, so that blue can go on with them; dropped ones are forgiven."""
    rows = await connection.rows(
        sql.SQL(
            "SELECT c.oid::regclass::text FROM {} g JOIN pg_class c ON c.oid = g.relation AND g.was = 'x' ORDER BY 1"
        ).format(_journal(names))
    )
    return [row[0] for row in rows]


async def _costly(connection: Session, names: ObjectNames, target_major: int) -> list[str]:
    query = _COSTLY.format(_journal(names))
    rows = await connection.rows(query, _NOTED_FROM_BYTES, target_major >= _ANY_INDEX_SINCE)
    return [
        f"Table {name} of database {connection.info.dbname} has no key, and green reads all of it for each row that is"
        " updated or deleted: an index, or a primary key, would spare it that."
        for (name,) in rows
    ]


async def take_back(connection: Session, names: ObjectNames) -> None:
    """Every table as it was, once nothing publishes it any more. On a target that has the source's journal likewise."""
    if not await connection.value("SELECT to_regclass(%s) IS NOT NULL", _journal(names).as_string()):
        return
    given = await connection.rows(
        sql.SQL(
            "SELECT n.nspname, c.relname, g.was FROM {} g"
            "  JOIN pg_class c ON c.oid = g.relation AND c.relreplident = 'f' AND g.was <> 'x'"
            "  JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2"
        ).format(_journal(names))
    )
    for schema, table, was in given:
        await _take_back_one(connection, schema, table, was)
    if given:
        log.info("identity.taken_back", deployment=names.base, database=connection.info.dbname, tables=len(given))


async def _take_back_one(connection: Session, schema: str, table: str, was: str) -> None:
    identity = sql.SQL("NOTHING") if was == "n" else sql.SQL("DEFAULT")

    async def alter() -> None:
        await connection.run(
            sql.SQL("ALTER TABLE IF EXISTS ONLY {} REPLICA IDENTITY {}").format(sql.Identifier(schema, table), identity)
        )

    await _without_queueing(connection, alter, f"table {schema}.{table}")


async def _without_queueing(connection: Session, alter: Callable[[], Awaitable[None]], what: str) -> None:
    """In a transaction of its own, with nobody kept waiting behind it for long."""
    give_up_at = asyncio.get_running_loop().time() + _GIVE_UP_AFTER_S
    while True:
        try:
            async with connection.transaction():
                await connection.run(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_WAIT_MS)))
                # Event triggers are for what is done to the source, not for what is undone again.
                await connection.run("SET LOCAL session_replication_role = replica")
                await alter()
        except errors.LockNotAvailable:
            if asyncio.get_running_loop().time() > give_up_at:
                raise EngineError(
                    f"{what} of database {connection.info.dbname} was in use for {_GIVE_UP_AFTER_S:g} s without a"
                    " break, and its replica identity could not be set"
                ) from None
            await asyncio.sleep(_RETRY_S)
        else:
            return


def _journal(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, "identities")
