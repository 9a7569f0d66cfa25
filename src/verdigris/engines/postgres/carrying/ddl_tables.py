"""What becomes of the tables that a statement made or changed: functions in the source's schema.

They join the publication, keep a replica identity, and the rows that a statement has put into them reach the target.
"""

from psycopg import sql

from verdigris.engines.postgres.carrying import identity
from verdigris.engines.postgres.names import ObjectNames

# Rows of a table up to this size are written once more by the source: a few tenths of a second under the lock that the
# statement holds anyway.
_RESENT_UP_TO_BYTES = 4 * 1024**2

# A table without a replica identity that is published has its UPDATEs and DELETEs refused: it is given FULL, for the
# while. Where a column cannot be compared (json) that is no help, and where its identity was an index that is gone
# nothing could put it back: then its rows are not carried. Whether they are.
_IDENTIFY = sql.SQL("""
    CREATE FUNCTION {schema}.identify(the_table regclass) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $function$
    DECLARE
        identity "char";
    BEGIN
        SELECT c.relreplident INTO identity FROM pg_class c WHERE c.oid = the_table AND NOT {has_key};
        IF identity IS NULL
           AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = the_table AND c.relreplident = 'f') THEN
            RETURN true;
        ELSIF identity = 'i' OR EXISTS ({incomparable}) THEN
            INSERT INTO {schema}.identities AS i VALUES (the_table, 'x') ON CONFLICT (relation) DO UPDATE SET was = 'x';
            RETURN false;
        ELSIF identity IS NOT NULL THEN
            INSERT INTO {schema}.identities AS i VALUES (the_table, identity)
                ON CONFLICT (relation) DO UPDATE SET was = excluded.was WHERE i.was <> 'x';
            EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', the_table);
        END IF;
        RETURN true;
    END
    $function$
""")

# Whether a row of a table can be written without calling anything that a client has made: what we write would call it
# with our rights. Ordinary triggers and rules do not fire for us. No expression of a client's is evaluated at all,
# whatever it depends on: ts_rewrite() and its like call what a text says, and no catalogue knows.
_RUNS_NOTHING = sql.SQL("""
    CREATE FUNCTION {schema}.runs_nothing(the_table oid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = the_table AND c.relispartition)
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = the_table AND k.contype = 'c')
           AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = the_table AND a.attgenerated <> '')
           AND NOT EXISTS (SELECT FROM pg_index i
                            WHERE i.indrelid = the_table AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
           AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = the_table)
           AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = the_table AND t.tgenabled IN ('A', 'R'))
           AND NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                            WHERE a.attrelid = the_table AND a.attnum > 0 AND NOT a.attisdropped
                              AND t.oid >= 16384 AND t.typtype <> 'e')
           AND NOT EXISTS (
               SELECT FROM pg_depend d
                WHERE d.refobjid >= 16384
                  AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass)
                  AND (d.classid = 'pg_class'::regclass AND d.objid = the_table
                       OR d.classid = 'pg_class'::regclass
                          AND d.objid IN (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = the_table)
                       OR d.classid = 'pg_constraint'::regclass
                          AND d.objid IN (SELECT k.oid FROM pg_constraint k WHERE k.conrelid = the_table)));
    END
""")

# Tables that a command was about, with all that inherit from them: leaves of partition trees are what is published.
#
# A table may have rows already that green does not have (CREATE TABLE AS), or has with other values (a new column that
# is random, or counts). Of a small table they are sent again, as changes of rows; the key by which green finds them
# must not be what has changed, and no value may be left out of the change because it is stored elsewhere.
_SETTLE_TABLES = sql.SQL("""
    CREATE FUNCTION {schema}.settle_tables(
        about oid[], words text[], rewritten oid[],
        OUT created jsonb, OUT filled jsonb, OUT unequal oid[], OUT resent oid[]
    )
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET datestyle = 'ISO'
    SET intervalstyle = 'postgres'
    SET bytea_output = 'hex'
    SET extra_float_digits = 1
    AS $function$
    DECLARE
        the_table record;
        has_rows boolean;
        is_doubtful boolean := {schema}.is_doubtful(words);
    BEGIN
        created := '[]';
        filled := '[]';
        unequal := '{{}}';
        resent := '{{}}';
        FOR the_table IN
            WITH RECURSIVE tree AS (
                SELECT unnest(about) AS oid
                 UNION SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid
            )
            SELECT c.oid, n.nspname, c.relname, pg_relation_size(c.oid) <= {resent_up_to} AS is_small,
                   pg_relation_size(c.oid) <= {resent_up_to}
                   AND {schema}.runs_nothing(c.oid)
                   AND coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) = 0
                   AND EXISTS (SELECT FROM pg_index i
                                WHERE i.indrelid = c.oid AND i.indisvalid
                                  AND CASE c.relreplident
                                      WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END
                                  AND NOT EXISTS (SELECT FROM pg_attribute a, unnest(words) w
                                                   WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
                                                     AND a.attname = trim(both '"' FROM w))) AS can_be_updated,
                   EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                            WHERE r.prrelid = c.oid AND p.pubname = {name}) AS is_published
              FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname <> {name}
             ORDER BY c.oid
        LOOP
            has_rows := false;
            IF NOT the_table.is_published OR is_doubtful AND the_table.oid = ANY (rewritten) THEN
                EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %I.%I)', the_table.nspname, the_table.relname)
                   INTO has_rows;
            END IF;
            IF NOT {schema}.identify(the_table.oid) THEN
                has_rows := false;
                IF the_table.is_published THEN
                    EXECUTE format('ALTER PUBLICATION %I DROP TABLE ONLY %I.%I',
                                   {name}, the_table.nspname, the_table.relname);
                END IF;
            ELSIF NOT the_table.is_published THEN
                EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %I.%I',
                               {name}, the_table.nspname, the_table.relname);
                created := created || jsonb_build_array(jsonb_build_array(the_table.nspname, the_table.relname));
            END IF;
            IF has_rows AND (the_table.is_published AND the_table.can_be_updated
                             OR NOT the_table.is_published AND the_table.is_small AND words IS NULL) THEN
                resent := resent || the_table.oid;
            ELSIF has_rows THEN
                unequal := unequal || the_table.oid;
            END IF;
            SELECT filled || coalesce(jsonb_agg(jsonb_build_array(the_table.nspname, the_table.relname, a.attname,
                                                                  a.attmissingval::text)), '[]')
              INTO filled FROM pg_attribute a
             WHERE a.attrelid = the_table.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atthasmissing;
        END LOOP;
    END
    $function$
""")

# CREATE TABLE AS and SELECT INTO make plain columns and nothing else.
_AS_CREATE_TABLE = sql.SQL("""
    CREATE FUNCTION {schema}.as_create_table(the_table oid) RETURNS text
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        SELECT format('CREATE %sTABLE %s (%s) USING %I%s', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END,
                      c.oid::regclass,
                      (SELECT string_agg(format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                                                CASE WHEN a.attcollation <> t.typcollation
                                                     THEN ' COLLATE ' || a.attcollation::regcollation END),
                                         ', ' ORDER BY a.attnum)
                         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                        WHERE a.attrelid = c.oid AND a.attnum > 0),
                      m.amname, ' WITH (' || array_to_string(c.reloptions, ', ') || ')')
          FROM pg_class c JOIN pg_am m ON m.oid = c.relam
         WHERE c.oid = the_table AND pg_relation_size(c.oid) <= {resent_up_to};
    END
""")

# Nobody's triggers fire. A table that joins with its rows gets them once more, and loses those that it had while it is
# not published, because the target has none of them; one that was there updates them.
_RESEND = sql.SQL("""
    CREATE FUNCTION {schema}.resend(tables oid[], are_new boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $function$
    DECLARE
        the_table regclass;
        last_row tid;
    BEGIN
        FOREACH the_table IN ARRAY tables LOOP
            IF are_new THEN
                EXECUTE format('SELECT max(ctid) FROM ONLY %s', the_table) INTO last_row;
                EXECUTE format('INSERT INTO %1$s SELECT * FROM ONLY %1$s', the_table);
                EXECUTE format('ALTER PUBLICATION %I DROP TABLE ONLY %s', {name}, the_table);
                EXECUTE format('DELETE FROM ONLY %s WHERE ctid <= %L', the_table, last_row);
                EXECUTE format('ALTER PUBLICATION %I ADD TABLE ONLY %s', {name}, the_table);
            ELSE
                EXECUTE format('UPDATE ONLY %1$s SET %2$I = %2$I', the_table, (
                    SELECT a.attname FROM pg_attribute a
                     WHERE a.attrelid = the_table AND a.attnum > 0 AND NOT a.attisdropped
                       AND a.attgenerated = '' AND a.attidentity <> 'a' ORDER BY a.attnum DESC LIMIT 1));
            END IF;
        END LOOP;
    END
    $function$
""")

FUNCTIONS = {
    "identify": _IDENTIFY,
    "runs_nothing": _RUNS_NOTHING,
    "settle_tables": _SETTLE_TABLES,
    "as_create_table": _AS_CREATE_TABLE,
    "resend": _RESEND,
}


def parts(names: ObjectNames) -> dict[str, sql.Composable]:
    """What these functions' texts leave open, but for the schema."""
    return {
        "name": sql.Literal(names.base),
        "resent_up_to": sql.Literal(_RESENT_UP_TO_BYTES),
        "has_key": sql.SQL(identity.HAS_KEY),
        "incomparable": sql.SQL(identity.INCOMPARABLE.format(suspected="c.oid = the_table")),
    }
