"""The target's side of carrying definitions: a trigger that executes each statement as its row arrives.

The apply worker fires it inside the transaction that brings the row, so that a statement stands exactly where it stood
on the source among the changes of rows. It fails as a row that cannot be applied fails: the worker tries again, and
what came later waits.
"""

from psycopg import sql

from verdigris.engines.postgres.carrying.ddl_capture import SETTINGS
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.sessions import Session

# Whether there is anything left to drop. What was made by a statement that was not carried is not here.
_IS_ANY_THERE = sql.SQL("""
    CREATE FUNCTION {schema}.is_any_there(objects jsonb) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $function$
    DECLARE
        object jsonb;
    BEGIN
        FOR object IN SELECT jsonb_array_elements(objects) LOOP
            BEGIN
                PERFORM pg_get_object_address(object ->> 0, ARRAY(SELECT jsonb_array_elements_text(object -> 1)),
                                              ARRAY(SELECT jsonb_array_elements_text(object -> 2)));
                RETURN true;
            EXCEPTION WHEN undefined_table OR undefined_function OR undefined_object OR invalid_schema_name
                        OR undefined_column THEN
                NULL;
            END;
        END LOOP;
        RETURN false;
    END
    $function$
""")

# What PostgreSQL noted once for all rows that were there when a column was added (DEFAULT now()) has to be the source's
# value. Only a table that was rewritten on this side has its values in its rows.
_FILL = sql.SQL("""
    CREATE FUNCTION {schema}.fill(filled jsonb, older text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET datestyle = 'ISO'
    SET intervalstyle = 'postgres'
    SET bytea_output = 'hex'
    SET extra_float_digits = 1
    SET allow_system_table_mods = 'on'
    AS $function$
    DECLARE
        to_fill record;
        base record;
    BEGIN
        FOR to_fill IN
            SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.atthasmissing, f ->> 3 AS value
              FROM jsonb_array_elements(filled) f
              JOIN pg_attribute a ON a.attrelid = to_regclass(format('%I.%I', f ->> 0, f ->> 1)) AND a.attname = f ->> 2
             WHERE a.attmissingval::text IS DISTINCT FROM f ->> 3
        LOOP
            IF to_fill.atthasmissing THEN
                -- As its base type: a domain's checks are somebody's functions.
                WITH RECURSIVE based AS (
                    SELECT to_fill.atttypid AS type, to_fill.atttypmod AS typmod
                     UNION ALL
                    SELECT t.typbasetype, t.typtypmod FROM based b JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd'
                ) SELECT b.type, b.typmod INTO base FROM based b JOIN pg_type t ON t.oid = b.type AND t.typtype <> 'd';
                EXECUTE format('UPDATE pg_attribute SET attmissingval = array_in(%L::cstring, %s, %s)'
                               ' WHERE attrelid = %s AND attnum = %s',
                               to_fill.value, base.type, base.typmod, to_fill.attrelid, to_fill.attnum);
            ELSIF older IS NULL OR format('%s.%s', to_fill.attrelid, to_fill.attname) <> ALL (older) THEN
                RAISE EXCEPTION 'column % of % has been given other values than on the source', to_fill.attname,
                      to_fill.attrelid::regclass;
            END IF;
        END LOOP;
    END
    $function$
""")

# A table that joins is empty on both sides at this moment, and everything that comes into it comes through this stream:
# so it is entered as ready, as ALTER SUBSCRIPTION ... REFRESH PUBLICATION does without copying. That command cannot be
# used: it has to be outside of any transaction, and rows that arrive before it are passed over.
_JOIN = sql.SQL("""
    CREATE FUNCTION {schema}.join_replication(created jsonb) RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
    SET allow_system_table_mods = 'on'
    BEGIN ATOMIC
        INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)
        SELECT s.oid, c.oid, 'r'
          FROM jsonb_array_elements(created) t
          JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', t ->> 0, t ->> 1))
          JOIN pg_database d ON d.datname = current_database()
          JOIN pg_subscription s ON s.subdbid = d.oid AND s.subname = {name}
         WHERE NOT EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srsubid = s.oid AND r.srrelid = c.oid);
    END
""")

# A statement runs as the role that ran it, in a function that this role owns and that lives as long as the statement:
# inside a SECURITY DEFINER function nothing may SET ROLE, so no function that the statement calls (the apply worker is
# a superuser) can become more than it was on the source. Settings end with this function, which has them all.
_REPLAY = sql.SQL("""
    CREATE FUNCTION {schema}.replay() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET check_function_bodies = 'off'
    {settings}
    AS $function$
    DECLARE
        setting record;
        older text[];
    BEGIN
        IF NEW.statement IS NULL OR NEW.dropped <> '[]' AND NOT {schema}.is_any_there(NEW.dropped) THEN
            RETURN NULL;
        END IF;
        SELECT array_agg(format('%s.%s', a.attrelid, a.attname)) INTO older
          FROM jsonb_array_elements(NEW.filled) f
          JOIN pg_attribute a ON a.attrelid = to_regclass(format('%I.%I', f ->> 0, f ->> 1)) AND a.attname = f ->> 2;

        CREATE FUNCTION {schema}.run(statement text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
            AS $run$ BEGIN EXECUTE statement; END $run$;
        EXECUTE format('ALTER FUNCTION {schema}.run(text) OWNER TO %I', NEW.role);
        FOR setting IN SELECT s.key, s.value FROM jsonb_each_text(NEW.settings) s ORDER BY s.key = 'search_path' LOOP
            PERFORM pg_catalog.set_config(setting.key, setting.value, true);
        END LOOP;
        PERFORM {schema}.run(NEW.statement);
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        DROP FUNCTION IF EXISTS {schema}.run(text);

        PERFORM {schema}.join_replication(NEW.created);
        PERFORM {schema}.fill(NEW.filled, older);
        RETURN NULL;
    END
    $function$
""")

_TRIGGER = sql.SQL("""
    CREATE TRIGGER replay AFTER INSERT ON {schema}.ddl FOR EACH ROW EXECUTE FUNCTION {schema}.replay();
    ALTER TABLE {schema}.ddl ENABLE REPLICA TRIGGER replay
""")

_FUNCTIONS = (_IS_ANY_THERE, _FILL, _JOIN, _REPLAY)
_FUNCTION_NAMES = ("is_any_there", "fill", "join_replication", "replay")

_IS_INSTALLED = """
    SELECT to_regclass(%s) IS NULL
        OR EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal)
"""


async def install(connection: Session, names: ObjectNames) -> None:
    """In one database of the target, before its subscription begins. Does nothing where it is there already, or where
    the source writes nothing down."""
    table = sql.Identifier(names.schema, "ddl").as_string()
    async with connection.transaction():
        if await connection.value(_IS_INSTALLED, table, table):
            return
        parts: dict[str, sql.Composable] = {
            "schema": sql.Identifier(names.schema),
            "name": sql.Literal(names.subscription),
            "settings": sql.SQL(" ").join(sql.SQL("SET {} FROM CURRENT").format(sql.SQL(name)) for name in SETTINGS),
        }
        for statement in (*_FUNCTIONS, _TRIGGER):
            await connection.run(statement.format(**parts))
        for function in _FUNCTION_NAMES:
            await connection.run(
                sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(sql.Identifier(names.schema, function))
            )
