"""The question for the temporary objects of a session: a server describes them as the statements that make them.

It is asked of both sides. What the source says is the recipe for the target; what the target says afterwards is the
proof that it was followed. It is put in a transaction with an empty ``search_path`` (see ``dialogue``): functions and
operators are never looked for in the temporary schema, so those need no schema here; relations and types do.

The world is closed: whatever depends on the temporary schema or on something in it, and is not known to this question,
is a ``pin``.
"""

from typing import Final

# Columns, all text: kind, owner, name, statement, extra, printed. "printed" marks statements with an expression in
# them, which another major version may print differently.
_DESCRIPTION: Final = b"""
WITH relation AS MATERIALIZED (
    SELECT c.*, 'pg_temp.' || quote_ident(c.relname) AS called, pg_get_userbyid(c.relowner) AS owner
      FROM pg_catalog.pg_class c WHERE c.relnamespace = pg_my_temp_schema()
), col AS MATERIALIZED (
    SELECT a.*, r.called, r.owner, r.relkind, r.relname, quote_ident(a.attname) AS quoted, t.typstorage,
           format_type(a.atttypid, a.atttypmod) AS type,
           (SELECT ' COLLATE ' || quote_ident(n.nspname) || '.' || quote_ident(l.collname)
              FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
             WHERE l.oid = a.attcollation AND a.attcollation <> t.typcollation) AS collate,
           (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
             WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) AS expression
      FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid
      JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
     WHERE a.attnum > 0 AND NOT a.attisdropped
), sequence AS MATERIALIZED (
    SELECT r.*, s.seqtypid, s.seqcache,
           ' INCREMENT BY ' || s.seqincrement || ' MINVALUE ' || s.seqmin || ' MAXVALUE ' || s.seqmax
             || ' START WITH ' || s.seqstart || ' CACHE ' || s.seqcache
             || CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END AS options,
           d.deptype, d.refobjid AS of_table, d.refobjsubid AS of_column
      FROM relation r JOIN pg_catalog.pg_sequence s ON s.seqrelid = r.oid
      LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = r.oid
       AND d.objsubid = 0 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
), constr AS MATERIALIZED (
    SELECT k.*, r.called, r.owner FROM relation r JOIN pg_catalog.pg_constraint k ON k.conrelid = r.oid
), trig AS MATERIALIZED (
    SELECT t.*, r.called, r.owner FROM relation r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid
     WHERE NOT t.tgisinternal
), setting AS (
    SELECT r.oid, ' WITH (' || string_agg(o.prefix || quote_ident(o.option_name) || '='
             || quote_literal(o.option_value), ', ' ORDER BY o.prefix, o.option_name) || ')' AS clause
      FROM relation r LEFT JOIN pg_catalog.pg_class t ON t.oid = r.reltoastrelid,
           LATERAL (SELECT '' AS prefix, * FROM pg_options_to_table(r.reloptions)
                    UNION ALL SELECT 'toast.', * FROM pg_options_to_table(t.reloptions)) o
     WHERE r.relkind <> 'i' GROUP BY r.oid
), dependent AS MATERIALIZED (
    SELECT d.classid, d.objid, d.objsubid
      FROM pg_catalog.pg_depend d
     WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = pg_my_temp_schema()
    UNION
    SELECT d.classid, d.objid, d.objsubid FROM relation r JOIN pg_catalog.pg_depend d
        ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = r.oid
    UNION
    SELECT d.classid, d.objid, d.objsubid FROM relation r
      JOIN pg_catalog.pg_type t ON t.oid = r.reltype OR t.typelem = r.reltype AND t.oid = (
           SELECT e.typarray FROM pg_catalog.pg_type e WHERE e.oid = r.reltype)
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid = t.oid
), pin AS (
    SELECT pg_describe_object(d.classid, d.objid, 0) AS what FROM dependent d
     WHERE NOT CASE d.classid
           WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN
                EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid
                           AND (c.relkind = 't' OR c.relnamespace = pg_my_temp_schema()))
           WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN
                EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = d.objid AND t.typnamespace = pg_my_temp_schema()
                           AND (t.typrelid <> 0 OR EXISTS (
                                SELECT FROM relation r WHERE r.reltype = t.typelem AND r.reltype <> 0)))
           WHEN 'pg_catalog.pg_attrdef'::pg_catalog.regclass THEN true
           WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass THEN
                EXISTS (SELECT FROM constr k WHERE k.oid = d.objid)
           WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass THEN
                EXISTS (SELECT FROM pg_catalog.pg_rewrite w JOIN relation r ON r.oid = w.ev_class
                         WHERE w.oid = d.objid AND r.relkind = 'v' AND w.rulename = '_RETURN')
           WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass THEN
                EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.oid = d.objid)
           ELSE false END
    UNION ALL
    SELECT 'relation ' || r.called FROM relation r LEFT JOIN pg_catalog.pg_am m ON m.oid = r.relam
     WHERE r.relkind NOT IN ('r', 'i', 'S', 'v') OR r.reloftype <> 0 OR r.reltablespace <> 0 OR r.relrowsecurity
        OR r.relforcerowsecurity OR r.relreplident NOT IN ('d', 'n') OR r.relkind = 'r' AND m.amname <> 'heap'
    UNION ALL
    SELECT 'inheritance of ' || r.called FROM relation r
     WHERE EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE r.oid IN (i.inhrelid, i.inhparent))
    UNION ALL
    SELECT 'index ' || r.called FROM relation r JOIN pg_catalog.pg_index i ON i.indexrelid = r.oid
     WHERE NOT i.indisvalid OR NOT i.indisready OR i.indisreplident
        OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.oid
                      AND (a.attstattarget >= 0 OR a.attoptions IS NOT NULL))
    UNION ALL
    SELECT 'column ' || c.called || '.' || c.quoted FROM col c
     WHERE c.attacl IS NOT NULL OR c.relkind = 'v' AND c.expression IS NOT NULL
    UNION ALL
    SELECT 'sequence ' || s.called FROM sequence s
     WHERE s.deptype = 'i' AND s.seqtypid <> (SELECT c.atttypid FROM col c
                                               WHERE c.attrelid = s.of_table AND c.attnum = s.of_column)
    UNION ALL
    SELECT 'constraint ' || quote_ident(k.conname) || ' on ' || k.called FROM constr k
     WHERE k.contype NOT IN ('n', 'c', 'p', 'u', 'x', 'f', 't') OR k.contype = 'n' AND NOT k.convalidated
    UNION ALL
    SELECT 'trigger ' || quote_ident(t.tgname) || ' on ' || t.called FROM trig t WHERE t.tgenabled <> 'O'
    UNION ALL
    SELECT 'privileges on ' || r.called FROM relation r, aclexplode(r.relacl) x WHERE x.grantor <> r.relowner
    UNION ALL
    SELECT 'security label of ' || r.called FROM relation r JOIN pg_catalog.pg_seclabel l ON l.objoid = r.oid
    UNION ALL
    SELECT 'prepared statement ' || quote_ident(p.name) FROM pg_catalog.pg_prepared_statements p
     WHERE EXISTS (SELECT FROM pg_catalog.pg_type t
                    WHERE t.oid = ANY (p.parameter_types) AND t.typnamespace = pg_my_temp_schema())
    UNION ALL
    SELECT 'event trigger ' || quote_ident(e.evtname) FROM pg_catalog.pg_event_trigger e
     WHERE e.evtenabled <> 'D' AND e.evtevent <> 'login'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
                        WHERE f.oid = e.evtfoid AND pg_catalog.starts_with(n.nspname, 'verdigris_bgd_'))
), description (stage, at, kind, owner, name, statement, extra, printed) AS (
    SELECT 0, 0::pg_catalog.oid, 'pin', NULL, p.what, NULL, NULL, false FROM pin p
    UNION ALL
    SELECT 0, 1, 'schema', NULL, n.nspname, NULL, current_setting('server_version_num'), false
      FROM pg_catalog.pg_namespace n WHERE n.oid = pg_my_temp_schema()
    UNION ALL
    SELECT 1, s.oid, 'make', s.owner, s.called,
           'CREATE TEMPORARY SEQUENCE ' || s.called || ' AS ' || format_type(s.seqtypid, NULL) || s.options, NULL, false
      FROM sequence s WHERE s.deptype IS DISTINCT FROM 'i'
    UNION ALL
    SELECT 2, r.oid, 'table', r.owner, r.called,
           'CREATE TEMPORARY TABLE ' || r.called || ' (' || coalesce((
               SELECT string_agg(c.quoted || ' ' || c.type || coalesce(c.collate, '')
                        || CASE c.attgenerated WHEN '' THEN ''
                           ELSE ' GENERATED ALWAYS AS (' || c.expression || ')'
                             || CASE c.attgenerated WHEN 's' THEN ' STORED' ELSE ' VIRTUAL' END END
                        || CASE WHEN c.attnotnull
                           THEN coalesce((SELECT ' CONSTRAINT ' || quote_ident(k.conname) || ' NOT NULL'
                                              || CASE WHEN k.connoinherit THEN ' NO INHERIT' ELSE '' END
                                            FROM constr k WHERE k.conrelid = c.attrelid AND k.contype = 'n'
                                             AND k.conkey = ARRAY[c.attnum] AND $source >= 180000), ' NOT NULL')
                           ELSE '' END, ', ' ORDER BY c.attnum)
                 FROM col c WHERE c.attrelid = r.oid), '') || ') USING heap'
             || coalesce((SELECT o.clause FROM setting o WHERE o.oid = r.oid), ''),
           pg_relation_size(r.oid)::pg_catalog.text || ' '
             || CASE WHEN r.reltoastrelid = 0 THEN 0 ELSE pg_relation_size(r.reltoastrelid) END,
           EXISTS (SELECT FROM col c WHERE c.attrelid = r.oid AND c.attgenerated <> '')
      FROM relation r WHERE r.relkind = 'r'
    UNION ALL
    SELECT 3, c.attrelid, 'make', c.owner, c.called || '.' || c.quoted,
           'ALTER TABLE ' || c.called || ' ALTER COLUMN ' || c.quoted || ' SET DEFAULT ' || c.expression, NULL, true
      FROM col c WHERE c.relkind = 'r' AND c.attgenerated = '' AND c.expression IS NOT NULL
    UNION ALL
    SELECT 3, s.oid, 'make', s.owner, s.called,
           CASE s.deptype WHEN 'a' THEN 'ALTER SEQUENCE ' || s.called || ' OWNED BY ' || c.called || '.' || c.quoted
           ELSE 'ALTER TABLE ' || c.called || ' ALTER COLUMN ' || c.quoted || ' ADD GENERATED '
             || CASE c.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END
             || ' AS IDENTITY (SEQUENCE NAME ' || s.called || s.options || ')' END, NULL, false
      FROM sequence s JOIN col c ON c.attrelid = s.of_table AND c.attnum = s.of_column
    UNION ALL
    SELECT CASE k.contype WHEN 'c' THEN 4 WHEN 'f' THEN 8 ELSE 5 END, k.oid, 'make', k.owner,
           k.called || ' ' || quote_ident(k.conname),
           'ALTER TABLE ' || k.called || ' ADD CONSTRAINT ' || quote_ident(k.conname) || ' '
             || pg_get_constraintdef(k.oid), NULL, true
      FROM constr k WHERE k.contype IN ('c', 'p', 'u', 'x', 'f')
    UNION ALL
    SELECT 6, r.oid, 'make', r.owner, r.called, pg_get_indexdef(r.oid), NULL, true
      FROM relation r WHERE r.relkind = 'i' AND NOT EXISTS (
           SELECT FROM constr k WHERE k.conindid = r.oid AND k.contype IN ('p', 'u', 'x'))
    UNION ALL
    SELECT 7, r.oid, 'make', r.owner, r.called || ' clustered',
           'ALTER TABLE ' || t.called || ' CLUSTER ON ' || quote_ident(r.relname), NULL, false
      FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indexrelid JOIN relation t ON t.oid = i.indrelid
     WHERE i.indisclustered
    UNION ALL
    SELECT 7, c.attrelid, 'make', c.owner, c.called || '.' || c.quoted || ' ' || a.what,
           'ALTER TABLE ' || c.called || ' ALTER COLUMN ' || c.quoted || ' SET ' || a.action, NULL, false
      FROM col c, LATERAL (VALUES
           ('statistics', CASE WHEN c.attstattarget >= 0 THEN 'STATISTICS ' || c.attstattarget END),
           ('options', (SELECT '(' || string_agg(quote_ident(o.option_name) || '=' || quote_literal(o.option_value),
                                                ', ' ORDER BY o.option_name) || ')'
                          FROM pg_options_to_table(c.attoptions) o)),
           ('storage', CASE WHEN c.attstorage <> c.typstorage THEN 'STORAGE ' || CASE c.attstorage WHEN 'p' THEN 'PLAIN'
                            WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED' ELSE 'MAIN' END END),
           ('compression', CASE c.attcompression WHEN 'p' THEN 'COMPRESSION pglz' WHEN 'l' THEN 'COMPRESSION lz4' END)
           ) a (what, action)
     WHERE c.relkind = 'r' AND a.action IS NOT NULL
    UNION ALL
    SELECT 9, r.oid, 'make', r.owner, r.called,
           'CREATE TEMPORARY VIEW ' || r.called || coalesce((
               SELECT ' (' || string_agg(c.quoted, ', ' ORDER BY c.attnum) || ')'
                 FROM col c WHERE c.attrelid = r.oid), '')
             || coalesce((SELECT o.clause FROM setting o WHERE o.oid = r.oid), '') || ' AS '
             || rtrim(pg_get_viewdef(r.oid), ';'), NULL, true
      FROM relation r WHERE r.relkind = 'v'
    UNION ALL
    SELECT 10, t.oid, 'make', t.owner, t.called || ' ' || quote_ident(t.tgname), pg_get_triggerdef(t.oid), NULL, true
      FROM trig t
    UNION ALL
    SELECT 11, r.oid, 'make', r.owner, r.called || ' comment ' || d.objsubid,
           'COMMENT ON ' || CASE WHEN d.objsubid > 0 THEN 'COLUMN' WHEN r.relkind = 'r' THEN 'TABLE'
                                 WHEN r.relkind = 'v' THEN 'VIEW' WHEN r.relkind = 'i' THEN 'INDEX' ELSE 'SEQUENCE' END
             || ' ' || r.called || coalesce('.' || c.quoted, '') || ' IS ' || quote_literal(d.description), NULL, false
      FROM relation r JOIN pg_catalog.pg_description d
        ON d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objoid = r.oid
      LEFT JOIN col c ON c.attrelid = d.objoid AND c.attnum = d.objsubid
    UNION ALL
    SELECT 11, d.objoid, 'make', n.owner, n.called || ' ' || n.what || ' comment',
           'COMMENT ON ' || n.what || ' ON ' || n.called || ' IS ' || quote_literal(d.description), NULL, false
      FROM (SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass AS class, k.oid, k.owner, k.called,
                   'CONSTRAINT ' || quote_ident(k.conname) AS what FROM constr k
            UNION ALL
            SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, t.owner, t.called,
                   'TRIGGER ' || quote_ident(t.tgname) FROM trig t) n
      JOIN pg_catalog.pg_description d ON d.classoid = n.class AND d.objoid = n.oid
    UNION ALL
    SELECT 12, r.oid, 'analyze', r.owner, r.called, 'ANALYZE ' || r.called, NULL, false FROM relation r
     WHERE r.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_stats s WHERE s.tablename = r.relname
               AND s.schemaname = (SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = pg_my_temp_schema()))
    UNION ALL
    SELECT 12, s.oid, 'sequence', s.owner, s.called, NULL, s.seqcache::pg_catalog.text, false FROM sequence s
    UNION ALL
    SELECT 13, r.oid, 'make', r.owner, r.called || ' owner''s privileges',
           'REVOKE ALL ON ' || CASE r.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || r.called
             || ' FROM ' || quote_ident(r.owner), NULL, false
      FROM relation r WHERE r.relacl IS NOT NULL
    UNION ALL
    SELECT 14, r.oid, 'make', r.owner,
           r.called || ' privileges of ' || pg_get_userbyid(x.grantee) || ' ' || x.is_grantable,
           'GRANT ' || string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type) || ' ON '
             || CASE r.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || r.called || ' TO '
             || CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
             || CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, NULL, false
      FROM relation r, aclexplode(r.relacl) x GROUP BY r.oid, r.owner, r.called, r.relkind, x.grantee, x.is_grantable
)
SELECT d.kind, d.owner, d.name, d.statement, d.extra, d.printed::pg_catalog.text
  FROM description d ORDER BY d.stage, d.at, d.name
"""


def description(source_version: int | None) -> bytes:
    """``source_version`` as in ``server_version_num``; None if it is the source that is asked. Names of NOT NULL
    constraints exist from 18 on, so a target is not asked for them if its source is older."""
    version = b"current_setting('server_version_num')::int" if source_version is None else b"%d" % source_version
    return _DESCRIPTION.replace(b"$source", version)


# On the target, before anything is made: whatever an event trigger does has been done on the source already. An error
# ends the transaction.
NO_EVENT_TRIGGERS: Final = b"""
SELECT 1 / CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
                              WHERE e.evtenabled <> 'D' AND e.evtevent <> 'login') THEN 0 ELSE 1 END
"""
