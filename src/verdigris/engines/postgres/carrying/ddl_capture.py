"""The source's side of carrying definitions: event triggers that write each statement into a published table.

The row commits with what the statement did, and so reaches the target in the order of commits amid all other rows. See
docs/decisions/0029 for why nothing here can make a client's statement fail, and what is not carried.
"""

import structlog
from psycopg import sql

from verdigris.engines.postgres import config, own_sessions
from verdigris.engines.postgres.carrying import ddl_tables, ddl_text
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.sessions import Session

log = structlog.get_logger(__name__)

# Command tags (PostgreSQL manual, "Event Trigger Firing Matrix") whose statements may be repeated as text; CREATE TABLE
# AS and SELECT INTO bring rows and are carried in other words. What is not carried is found by the digest, and refused
# by name.
_KINDS = (
    "TABLE", "INDEX", "VIEW", "MATERIALIZED VIEW", "FUNCTION", "PROCEDURE", "ROUTINE", "TYPE", "DOMAIN", "SCHEMA",
    "SEQUENCE", "TRIGGER", "POLICY", "RULE", "STATISTICS", "PUBLICATION",
)  # fmt: skip
_CARRIED = (
    *(f"{verb} {kind}" for kind in _KINDS for verb in ("CREATE", "ALTER", "DROP")),
    "CREATE EXTENSION", "DROP EXTENSION", "COMMENT", "GRANT", "REVOKE", "ALTER DEFAULT PRIVILEGES",
)  # fmt: skip

# No definition changes by these.
_PASSED_OVER = ("REFRESH MATERIALIZED VIEW", "REINDEX")

# What the meaning of a statement's text depends on, besides its role and search_path. Those of output formats matter
# where a column's type is changed by way of text.
SETTINGS = (
    "array_nulls", "backslash_quote", "bytea_output", "DateStyle", "default_table_access_method", "default_tablespace",
    "default_toast_compression", "extra_float_digits", "IntervalStyle", "lc_monetary", "lc_numeric", "lc_time",
    "TimeZone", "transform_null_equals", "xmlbinary", "xmloption",
)  # fmt: skip

# ``statement`` is null for one that was not carried, and ``refused`` says why. ``created``: tables that join the
# replication with this statement, as [schema, name]. ``filled``: what PostgreSQL gave existing rows for a new column
# without touching them (pg_attribute.attmissingval), as [schema, table, column, value]. ``dropped``: objects as
# pg_get_object_address() takes them. ``unequal``: tables, by oid, whose rows this statement made differ, or may have.
_TABLE = sql.SQL("""
    CREATE TABLE {schema}.ddl (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        tag text NOT NULL,
        objects text NOT NULL,
        statement text,
        refused text,
        role text NOT NULL,
        settings jsonb NOT NULL DEFAULT '{{}}',
        created jsonb NOT NULL DEFAULT '[]',
        filled jsonb NOT NULL DEFAULT '[]',
        dropped jsonb NOT NULL DEFAULT '[]',
        unequal oid[] NOT NULL DEFAULT '{{}}'
    )
""")

# None of these is published: what came of statements that were not carried, so that what is built upon it is not
# carried either; extensions that the target has, once it is there to be asked; replica identities to be put back.
_UNCARRIED = sql.SQL("""
    CREATE TABLE {schema}.uncarried (classid oid, objid oid, PRIMARY KEY (classid, objid))
""")
_AVAILABLE = sql.SQL("""
    CREATE TABLE {schema}.available_extensions (name text PRIMARY KEY)
""")
_IDENTITIES = sql.SQL("""
    CREATE TABLE IF NOT EXISTS {schema}.identities (relation oid PRIMARY KEY, was "char" NOT NULL)
""")

# Whatever the command was about.
_NOTE_UNCARRIED = sql.SQL("""
    CREATE FUNCTION {schema}.note_uncarried() RETURNS void
    LANGUAGE sql
    SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO {schema}.uncarried
        SELECT c.classid, c.objid FROM pg_event_trigger_ddl_commands() c WHERE c.objid IS NOT NULL
            ON CONFLICT DO NOTHING;
    END
""")

# One command has ended. Our own are none of anybody's business, those of this function itself (``within``) included;
# neither are those on temporary objects, or those that an extension's script makes, but for tables: nobody would
# publish their rows.
_RECORD = sql.SQL("""
    CREATE FUNCTION {schema}.record(event text, tag text, path text, strings_conform text, within text) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET standard_conforming_strings = 'on'
    SET quote_all_identifiers = 'off'
    SET lc_messages = 'C'
    SET lock_timeout = '1s'
    SET session_replication_role = 'replica'
    SET {within} = 'on'
    {restrict}
    AS $function$
    DECLARE
        context text;
        said record;
        rewritten oid[] := coalesce(nullif(current_setting({rewritten}, true), ''), '{{}}')::oid[];
        objects text;
        about oid[];
        names text[];
        ours boolean;
        found_uncarried text;
        the_settings jsonb;
        the_dropped jsonb := '[]';
        the_tables record;
        the_role text := current_setting({user});
    BEGIN
        IF within = 'on' OR session_user = {admin} AND current_setting('application_name') = {application} THEN
            RETURN;
        END IF;
        PERFORM set_config({rewritten}, '{{}}', true);
        IF tag = ANY ({passed_over}) OR (event = 'sql_drop') <> starts_with(tag, 'DROP ') THEN
            RETURN;
        END IF;
        IF event <> 'sql_drop' AND (SELECT bool_and(c.in_extension AND c.object_type <> 'table')
                                      FROM pg_event_trigger_ddl_commands() c) THEN
            RETURN;
        END IF;
        GET DIAGNOSTICS context = PG_CONTEXT;
        context := coalesce(substring(context FROM '\\.capture\\(\\) line \\d+ at PERFORM\\n(.*)$'), '');
        SELECT t.* INTO said FROM {schema}.the_statement(tag, context) t;
        IF strings_conform <> 'on' THEN
            said.refused := 'standard_conforming_strings is off';
        END IF;

        IF event = 'sql_drop' THEN
            SELECT coalesce(string_agg(d.object_identity, ', ' ORDER BY d.object_identity), ''),
                   coalesce(bool_and(d.is_temporary), false),
                   coalesce(jsonb_agg(jsonb_build_array(d.object_type, d.address_names, d.address_args)), '[]')
              INTO objects, ours, the_dropped
              FROM pg_event_trigger_dropped_objects() d WHERE d.original;
            DELETE FROM {schema}.uncarried u USING pg_event_trigger_dropped_objects() d
             WHERE u.classid = d.classid AND u.objid = d.objid;
            -- Without its index a replica identity is none.
            SELECT array_agg(c.oid) INTO about FROM pg_class c
             WHERE c.relreplident = 'i'
               AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident);
        ELSE
            SELECT coalesce(string_agg(DISTINCT c.object_identity, ', '), ''),
                   coalesce(bool_and(coalesce(c.schema_name = 'pg_temp' OR c.object_identity ~ '\\mpg_temp\\.', false)),
                            true),
                   array_agg(c.objid) FILTER (WHERE c.classid = 'pg_class'::regclass
                                                AND tag IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA',
                                                            'CREATE TABLE AS', 'SELECT INTO')),
                   array_agg(coalesce(k.relname, f.proname, n.nspname, y.typname)) FILTER (WHERE c.command_tag = tag)
              INTO objects, ours, about, names
              FROM pg_event_trigger_ddl_commands() c
              LEFT JOIN pg_index i ON c.classid = 'pg_class'::regclass AND i.indexrelid = c.objid
              LEFT JOIN pg_class k ON c.classid = 'pg_class'::regclass AND k.oid = coalesce(i.indrelid, c.objid)
              LEFT JOIN pg_proc f ON c.classid = 'pg_proc'::regclass AND f.oid = c.objid
              LEFT JOIN pg_namespace n ON c.classid = 'pg_namespace'::regclass AND n.oid = c.objid
              LEFT JOIN pg_type y ON c.classid = 'pg_type'::regclass AND y.oid = c.objid;
            names := array_remove(names, NULL);
            IF (SELECT bool_or(c.in_extension) FROM pg_event_trigger_ddl_commands() c) THEN
                said.refused := 'rows of an extension''s tables are not carried';
            ELSIF said.words IS NOT NULL AND names <> '{{}}'
                  AND NOT EXISTS (SELECT FROM unnest(said.words) w, unnest(names) n
                                   WHERE w IN (n, '"' || replace(n, '"', '""') || '"')) THEN
                said.refused := 'its text was not found in what the client sent';
            END IF;
        END IF;
        IF ours OR EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = pg_my_temp_schema()
                              AND quote_ident(c.relname) = ANY (said.words)) THEN
            RETURN;
        END IF;

        IF tag IN ('CREATE TABLE AS', 'SELECT INTO') THEN
            said.statement := {schema}.as_create_table(about[1]);
            said.words := NULL;
            said.refused := CASE WHEN said.statement IS NULL THEN format('%s of so many rows is not carried', tag) END;
        ELSIF NOT tag = ANY ({carried}) OR said.words @> '{{large,object}}' THEN
            said.refused := format('%s is not carried', tag);
        ELSIF tag = 'ALTER TABLE' AND (said.words && '{{always,replica}}' AND said.words && '{{trigger,rule}}' OR
                                       said.words @> '{{force,row,level}}' AND NOT 'no' = ANY (said.words)) THEN
            said.refused := 'on green it would change what replication does';
        ELSIF tag = 'CREATE EXTENSION' AND EXISTS (SELECT FROM {schema}.available_extensions)
              AND EXISTS (SELECT extname FROM pg_extension EXCEPT SELECT name FROM {schema}.available_extensions) THEN
            said.refused := 'green''s version does not have it';
        END IF;
        IF session_user = {admin} THEN
            said.refused := format('what %s does is not carried', session_user);
        END IF;
        IF said.refused IS NOT NULL THEN
            NULL;
        ELSIF event <> 'sql_drop' AND EXISTS (SELECT FROM {schema}.uncarried) THEN
            WITH commands AS (
                SELECT c.classid, c.objid FROM pg_event_trigger_ddl_commands() c
            ), relations AS (
                SELECT c.objid FROM commands c WHERE c.classid = 'pg_class'::regclass
            ), parts AS (
                SELECT c.classid, c.objid FROM commands c
                 UNION SELECT 'pg_constraint'::regclass, k.oid FROM pg_constraint k JOIN relations ON k.conrelid = objid
                 UNION SELECT 'pg_rewrite'::regclass, r.oid FROM pg_rewrite r JOIN relations ON r.ev_class = objid
                 UNION SELECT 'pg_attrdef'::regclass, f.oid FROM pg_attrdef f JOIN relations ON f.adrelid = objid
                 UNION SELECT 'pg_trigger'::regclass, g.oid FROM pg_trigger g JOIN relations ON g.tgrelid = objid
            )
            SELECT pg_describe_object(u.classid, u.objid, 0) INTO found_uncarried
              FROM {schema}.uncarried u
             WHERE (u.classid, u.objid) IN (SELECT p.classid, p.objid FROM parts p)
                OR EXISTS (SELECT FROM parts p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid
                            WHERE d.refclassid = u.classid AND d.refobjid = u.objid)
                OR EXISTS (SELECT FROM parts p JOIN pg_depend d ON d.classid = p.classid AND d.objid = p.objid
                             JOIN pg_depend m ON m.classid = d.refclassid AND m.objid = d.refobjid AND m.deptype = 'e'
                            WHERE m.refclassid = u.classid AND m.refobjid = u.objid)
                -- GRANT does not say what it is about.
                OR tag IN ('GRANT', 'REVOKE')
                   AND (SELECT quote_ident(coalesce(k.relname, f.proname, n.nspname, y.typname))
                          FROM (SELECT) AS one_row
                          LEFT JOIN pg_class k ON u.classid = 'pg_class'::regclass AND k.oid = u.objid
                          LEFT JOIN pg_proc f ON u.classid = 'pg_proc'::regclass AND f.oid = u.objid
                          LEFT JOIN pg_namespace n ON u.classid = 'pg_namespace'::regclass AND n.oid = u.objid
                          LEFT JOIN pg_type y ON u.classid = 'pg_type'::regclass AND y.oid = u.objid
                       ) = ANY (said.words)
             LIMIT 1;
            IF found_uncarried IS NOT NULL THEN
                said.refused := format('it builds on %s, which was not carried', found_uncarried);
            END IF;
        END IF;
        IF said.refused IS NOT NULL THEN
            INSERT INTO {schema}.ddl (tag, objects, refused, role) VALUES (tag, objects, said.refused, the_role);
            IF event <> 'sql_drop' THEN
                PERFORM {schema}.note_uncarried();
            END IF;
            RETURN;
        END IF;

        SELECT jsonb_object_agg(s.name, current_setting(s.name)) || jsonb_build_object('search_path', path)
          INTO the_settings FROM unnest({settings}::text[]) AS s (name);
        the_tables := {schema}.settle_tables(about, said.words, rewritten);
        INSERT INTO {schema}.ddl (tag, objects, statement, role, settings, created, filled, dropped, unequal)
        VALUES (tag, objects, said.statement, the_role, the_settings, the_tables.created, the_tables.filled,
                the_dropped, the_tables.unequal);
        PERFORM {schema}.resend(the_tables.resent, said.words IS NULL);
    END
    $function$
""")

# What the record could not be made for, if that much can be written.
_GIVE_UP = sql.SQL("""
    CREATE FUNCTION {schema}.give_up(event text, tag text, reason text) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '1s'
    AS $function$
    BEGIN
        INSERT INTO {schema}.ddl (tag, objects, refused, role) VALUES (tag, '', reason, session_user);
        IF event = 'ddl_command_end' THEN
            PERFORM {schema}.note_uncarried();
        END IF;
    END
    $function$
""")

# What the server calls. It runs with our rights under the client's search_path, which it has to read: so nothing here
# is looked up but by its full name, and there is no operator. Whatever goes wrong stays in here.
_CAPTURE = sql.SQL("""
    CREATE FUNCTION {schema}.capture() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $function$
    BEGIN
        PERFORM {schema}.record(TG_EVENT, TG_TAG, pg_catalog.current_setting('search_path'),
                                pg_catalog.current_setting('standard_conforming_strings'),
                                pg_catalog.current_setting({within_name}, true));
    EXCEPTION WHEN OTHERS THEN
        BEGIN
            PERFORM {schema}.give_up(TG_EVENT, TG_TAG, SQLERRM);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END
    $function$
""")

# A table is about to be rewritten: for ddl_command_end, where the outcome can be seen.
_NOTE_REWRITE = sql.SQL("""
    CREATE FUNCTION {schema}.note_rewrite() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $function$
    BEGIN
        PERFORM set_config({rewritten}, array_append(
            coalesce(nullif(current_setting({rewritten}, true), ''), '{{}}')::oid[],
            pg_event_trigger_table_rewrite_oid())::text, true);
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END
    $function$
""")

# Whose rights a statement has: in a SECURITY DEFINER function not the session's. ``capture`` cannot see it for having
# ours. It is called just before ``capture``, so that nobody can say anything else in between.
_NOTE_USER = sql.SQL("""
    CREATE FUNCTION {schema}.note_user() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY INVOKER
    AS $function$
    BEGIN
        PERFORM pg_catalog.set_config({user}, current_user, true);
    END
    $function$
""")

_FUNCTIONS = {
    **ddl_text.FUNCTIONS,
    **ddl_tables.FUNCTIONS,
    "note_uncarried": _NOTE_UNCARRIED,
    "record": _RECORD,
    "give_up": _GIVE_UP,
    "capture": _CAPTURE,
    "note_rewrite": _NOTE_REWRITE,
    "note_user": _NOTE_USER,
}

# Triggers of the same event fire in the order of their names.
_EVENTS = (
    ("by_end", "ddl_command_end", "note_user"),
    ("by_drop", "sql_drop", "note_user"),
    ("end", "ddl_command_end", "capture"),
    ("drop", "sql_drop", "capture"),
    ("rewrite", "table_rewrite", "note_rewrite"),
)


async def create_table(connection: Session, names: ObjectNames) -> None:
    """The table of statements, which has to be there when the publication is made."""
    await connection.run(_TABLE.format(schema=sql.Identifier(names.schema)))


async def install(connection: Session, names: ObjectNames) -> None:
    """In one database, whose publication is there: from the commit on, statements are written down."""
    await connection.run(_IDENTITIES.format(schema=sql.Identifier(names.schema)))
    if not await connection.value("SELECT EXISTS (SELECT FROM pg_language WHERE lanname = 'plpgsql')"):
        log.warning("ddl.not_captured", database=connection.info.dbname, reason="no PL/pgSQL")
        return
    schema = sql.Identifier(names.schema)
    parts: dict[str, sql.Composable] = {
        **ddl_text.parts(names),
        **ddl_tables.parts(names),
        "admin": sql.Literal(config.ADMIN_ROLE),
        "application": sql.Literal(own_sessions.APPLICATION_NAME),
        "carried": sql.Literal(list(_CARRIED)),
        "passed_over": sql.Literal(list(_PASSED_OVER)),
        "settings": sql.Literal(list(SETTINGS)),
        "rewritten": sql.Literal(f"{names.base}.rewritten"),
        "user": sql.Literal(f"{names.base}.user"),
        "within": sql.Identifier(names.base, "within"),
        "within_name": sql.Literal(f"{names.base}.within"),
    }
    # Our rights are not for a view that has taken a table's place since it was looked up. From August 2024 on.
    restrict = "SET restrict_nonsystem_relation_kind = 'view,foreign-table'"
    knows = await connection.value("SELECT EXISTS (SELECT FROM pg_settings WHERE name = %s)", restrict.split()[1])
    parts["restrict"] = sql.SQL(restrict) if knows else sql.SQL("")
    for table in (_UNCARRIED, _AVAILABLE):
        await connection.run(table.format(schema=schema))
    for name, create in _FUNCTIONS.items():
        await connection.run(create.format(schema=schema, **parts))
        await connection.run(
            sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(sql.Identifier(names.schema, name))
        )
    for suffix, event, function in _EVENTS:
        trigger = sql.Identifier(f"{names.base}_{suffix}")
        await connection.run(
            sql.SQL("CREATE EVENT TRIGGER {} ON {} EXECUTE FUNCTION {}()").format(
                trigger, sql.SQL(event), sql.Identifier(names.schema, function)
            )
        )
        # Also for sessions whose own triggers are silent (session_replication_role), as those of pg_restore may be.
        await connection.run(sql.SQL("ALTER EVENT TRIGGER {} ENABLE ALWAYS").format(trigger))


async def tell_extensions(source: Session, target: Session, names: ObjectNames) -> None:
    """Let the source know which extensions the target has: others are not carried."""
    table = sql.Identifier(names.schema, "available_extensions")
    if not await source.value("SELECT to_regclass(%s) IS NOT NULL", table.as_string()):
        return
    available = [row[0] for row in await target.rows("SELECT name FROM pg_available_extensions")]
    await source.run(
        sql.SQL("INSERT INTO {} SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING").format(table), available
    )


async def uninstall(connection: Session, names: ObjectNames) -> None:
    """On a copy, or where all of it goes: nothing is written down any more. The table stays."""
    for suffix, _, _ in _EVENTS:
        await connection.run(
            sql.SQL("DROP EVENT TRIGGER IF EXISTS {}").format(sql.Identifier(f"{names.base}_{suffix}"))
        )
    if not await connection.value("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", names.schema):
        return
    for function in reversed(_FUNCTIONS):
        await connection.run(sql.SQL("DROP FUNCTION IF EXISTS {}").format(sql.Identifier(names.schema, function)))
    for table in ("uncarried", "available_extensions"):
        await connection.run(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(names.schema, table)))
