"""Functions in a deployment's schema, with which the router carries what no client may read or write by itself.

``currval()`` and ``lastval()`` speak of the memory of one server process (``SeqTable`` in PostgreSQL's
commands/sequence.c). No catalogue shows it and nothing sets it, except that a sequence is used. See
docs/decisions/0018.
"""

import structlog
from psycopg import sql

from verdigris.domain.ports import Helpers
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.own_sessions import UNNOTICED
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Database, Session, for_each, list_databases, session, sessions

log = structlog.get_logger(__name__)

# What the session's user, or a role that it may become, could ask of the sequence c.
_PERMITTED = sql.SQL("""
    (has_sequence_privilege(session_user, c.oid, 'USAGE, SELECT')
     OR EXISTS (SELECT FROM pg_roles r
                 WHERE pg_has_role(session_user, r.oid, 'MEMBER')
                   AND has_sequence_privilege(r.oid, c.oid, 'USAGE, SELECT')))
""")

# The sequences that this session remembers: the one of lastval(), then those of all sequences if they are at most
# ``scan_up_to``, else of ``candidates``. Undefined values are errors, which are caught here, because uncaught ones
# would stand in the server's log. lastval() does not say of which sequence it speaks, but leaves it locked
# (lock_and_open_sequence), as the only one as long as the transaction has done nothing else. Where one is locked
# against us the rest is left out: a session that its client uses is not to wait for somebody's DDL.
_READ = sql.SQL("""
    CREATE FUNCTION {}(candidates oid[], scan_up_to integer)
    RETURNS TABLE (sequence oid, schema_name name, sequence_name name, value bigint, is_last boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '20ms'
    AS $function$
    #variable_conflict use_variable
    DECLARE
        the_last oid;
        locked integer;
        looked_at oid[] := candidates;
        listed oid[];
    BEGIN
        BEGIN
            PERFORM lastval();
        EXCEPTION WHEN object_not_in_prerequisite_state OR lock_not_available THEN
            RETURN;
        END;
        SELECT count(*), min(c.oid) INTO locked, the_last
          FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
         WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
           AND c.relkind = 'S';
        IF locked <> 1 THEN
            RETURN;
        END IF;
        SELECT array_agg(s.seqrelid) INTO listed FROM (SELECT seqrelid FROM pg_sequence LIMIT scan_up_to + 1) s;
        IF cardinality(listed) <= scan_up_to THEN
            looked_at := listed;
        END IF;
        FOR sequence, schema_name, sequence_name, is_last IN
            SELECT c.oid, CASE WHEN n.oid = pg_my_temp_schema() THEN 'pg_temp' ELSE n.nspname END, c.relname,
                   c.oid = the_last
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = ANY (looked_at || the_last) AND c.relkind = 'S' AND {}
               AND (c.relpersistence <> 't' OR n.oid = pg_my_temp_schema())
             ORDER BY c.oid <> the_last
        LOOP
            BEGIN
                value := currval(sequence);
            EXCEPTION
                WHEN object_not_in_prerequisite_state THEN CONTINUE;
                WHEN lock_not_available THEN EXIT;
            END;
            RETURN NEXT;
        END LOOP;
    END
    $function$
""")

# Have this session remember ``value`` of a sequence, which nobody else is to notice. RESTART gives the sequence new
# storage (AlterSequence), nextval() or setval() use it, and then all of it is undone: the function always ends with an
# error, SQLSTATE VG001 if it has done its work, so that neither a commit nor a crash can ever move the sequence. What
# a process remembers is not undone ("We do not touch the currval() state", init_sequence). CACHE 1: no further values
# are kept for later. Only nextval() makes a sequence the one of lastval().
# Its errors are not for the server's log. Event triggers are none of a session's business.
_RECALL = sql.SQL("""
    CREATE FUNCTION {}(in_schema text, named text, remembered bigint, is_last boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '1s'
    SET log_min_messages = 'panic'
    AS $function$
    #variable_conflict use_variable
    DECLARE
        sequence regclass;
    BEGIN
        SELECT c.oid INTO sequence
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname = named AND c.relkind = 'S' AND {}
           AND CASE in_schema WHEN 'pg_temp' THEN n.oid = pg_my_temp_schema() ELSE n.nspname = in_schema END;
        IF sequence IS NULL THEN
            RAISE EXCEPTION 'there is no sequence %.% for %', in_schema, named, session_user
                  USING ERRCODE = 'undefined_table';
        END IF;
        IF current_setting('event_triggers', true) IS NOT NULL THEN  -- from 17 on
            PERFORM set_config('event_triggers', 'off', true);
        ELSE
            PERFORM set_config('session_replication_role', 'replica', true);
        END IF;
        EXECUTE format('ALTER SEQUENCE %s RESTART WITH %s CACHE 1', sequence, remembered);
        IF is_last THEN
            PERFORM nextval(sequence);
        ELSE
            PERFORM setval(sequence, remembered);
        END IF;
        IF currval(sequence) <> remembered OR (is_last AND lastval() <> remembered) THEN
            RAISE EXCEPTION 'sequence % gave another value than %', sequence, remembered;
        END IF;
        RAISE EXCEPTION 'done, and undone' USING ERRCODE = 'VG001';
    END
    $function$
""")

_READ_NAME = "session_sequences"
_RECALL_NAME = "recall_sequence"

_PRESENT = """
    SELECT count(*) = 2 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname = %s AND p.proname = ANY (%s)
"""

# Definitions that call currval() or lastval(): in a function's text, or as a node of a parsed expression or query.
_ASKS = """
    SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                    WHERE n.nspname NOT IN ('pg_catalog', %s)
                      AND (p.prosrc ~* '(curr|last)val' OR p.prosqlbody::text ~ called.by_node))
        OR EXISTS (SELECT FROM pg_attrdef d WHERE d.adbin::text ~ called.by_node)
        OR EXISTS (SELECT FROM pg_rewrite r WHERE r.oid >= 16384 AND r.ev_action::text ~ called.by_node)
      FROM (SELECT format(':funcid (%%s|%%s) ', 'currval(regclass)'::regprocedure::oid,
                          'lastval()'::regprocedure::oid) AS by_node) called
"""


async def install(connection: Session, names: ObjectNames) -> None:
    """In one database, whose schema of the deployment is there. Without PL/pgSQL there are none."""
    if not await connection.value("SELECT EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql')"):
        log.warning("session_functions.not_installed", database=connection.info.dbname, reason="no PL/pgSQL")
        return
    schema = sql.Identifier(names.schema)
    for name, create in ((_READ_NAME, _READ), (_RECALL_NAME, _RECALL)):
        await connection.run(create.format(sql.Identifier(names.schema, name), _PERMITTED))
    await connection.run(sql.SQL("GRANT USAGE ON SCHEMA {} TO PUBLIC").format(schema))
    await connection.run(sql.SQL("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {} TO PUBLIC").format(schema))


async def install_everywhere(source: PostgresServer, names: ObjectNames) -> None:
    """In every database, in a schema of their own. What is there is made again."""

    async def one(database: Database) -> None:
        async with session(source, database.name, **UNNOTICED) as connection, connection.transaction():
            schema = sql.Identifier(names.schema)
            await connection.run(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
            await connection.run(sql.SQL("CREATE SCHEMA {}").format(schema))
            await install(connection, names)

    await for_each(await list_databases(source), one)


async def find(source: PostgresServer, target: PostgresServer, names: ObjectNames) -> Helpers:
    """Where both sides have them."""

    async def are_there(database: Database) -> bool:
        async with sessions(source, target, database.name) as both:
            return all([await _present(connection, names) for connection in both])

    on_target = {database.name for database in await list_databases(target)}
    shared = [database for database in await list_databases(source) if database.name in on_target]
    found = await for_each(shared, are_there)
    databases = tuple(database.name for database, present in found.items() if present)
    asks = await for_each(shared, lambda database: _asks(source, names, database))
    asking = tuple(database.name for database, does in asks.items() if does)
    if len(databases) < len(shared):
        missing = sorted(database.name for database, present in found.items() if not present)
        log.info("session_functions.missing", source=source.resource_id, databases=missing)
    return Helpers(schema=names.schema, databases=databases, asking=asking)


async def _asks(source: PostgresServer, names: ObjectNames, database: Database) -> bool:
    async with session(source, database.name) as connection:
        return bool(await connection.value(_ASKS, names.schema))


async def _present(connection: Session, names: ObjectNames) -> bool:
    return bool(await connection.value(_PRESENT, names.schema, [_READ_NAME, _RECALL_NAME]))
