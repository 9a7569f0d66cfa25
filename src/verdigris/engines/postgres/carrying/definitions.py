"""How everything in a database is defined, in words that two servers of different versions share.

One row for each object: kind, name and definition, without oids and without what a version adds by itself. Two
databases with the same rows are defined alike. Objects that belong to an extension are its version's business; of an
extension itself its name and schema are compared. ``search_path`` is empty in our sessions, so names are spelt in full.
"""

from typing import LiteralString

from psycopg import sql

from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.remembered import remember
from verdigris.engines.postgres.sessions import Session, both

# The catalogues whose rows these definitions tell, but for what belongs to extensions.
COVERED = frozenset(
    {
        "pg_namespace", "pg_class", "pg_attribute", "pg_attrdef", "pg_index", "pg_inherits", "pg_partitioned_table",
        "pg_sequence", "pg_trigger", "pg_rewrite", "pg_policy", "pg_statistic_ext", "pg_constraint", "pg_type",
        "pg_enum", "pg_range", "pg_proc", "pg_extension", "pg_default_acl", "pg_description",
    }
)  # fmt: skip
# What CREATE EXTENSION fills besides.
OF_EXTENSIONS = frozenset(
    {
        "pg_aggregate", "pg_amop", "pg_amproc", "pg_cast", "pg_collation", "pg_conversion", "pg_foreign_data_wrapper",
        "pg_language", "pg_opclass", "pg_operator", "pg_opfamily", "pg_transform", "pg_ts_config", "pg_ts_config_map",
        "pg_ts_dict", "pg_ts_parser", "pg_ts_template",
    }
)  # fmt: skip

# Views are printed without needless table names from this version on.
_UNQUALIFIED_SINCE = 16


# By names, in one order, without MAINTAIN, which owners have from 17 on without anybody's doing.
_PRIVILEGES = sql.SQL("""
    array_to_string(ARRAY(
        SELECT format('%s=%s%s/%s', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                      a.privilege_type, CASE WHEN a.is_grantable THEN '*' END, a.grantor::regrole)
          FROM aclexplode({}) a WHERE a.privilege_type <> 'MAINTAIN' ORDER BY 1), ',')
""")
_OPTIONS = sql.SQL("array_to_string(ARRAY(SELECT unnest({}) ORDER BY 1), ',')")

_RECURRING = {
    "schema_privileges": _PRIVILEGES.format(sql.SQL("coalesce(n.nspacl, acldefault('n', n.nspowner))")),
    "relation_privileges": _PRIVILEGES.format(
        sql.SQL(
            "coalesce(c.relacl,"
            " acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::pg_catalog.\"char\", c.relowner))"
        )
    ),
    "column_privileges": _PRIVILEGES.format(sql.SQL("a.attacl")),
    "type_privileges": _PRIVILEGES.format(sql.SQL("coalesce(t.typacl, acldefault('T', t.typowner))")),
    "function_privileges": _PRIVILEGES.format(sql.SQL("coalesce(p.proacl, acldefault('f', p.proowner))")),
    "default_privileges": _PRIVILEGES.format(sql.SQL("d.defaclacl")),
    "relation_options": _OPTIONS.format(sql.SQL("c.reloptions")),
    "relation_kind": sql.SQL(
        "CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'"
        " WHEN 'c' THEN 'composite type' WHEN 'f' THEN 'foreign table' ELSE 'table' END"
    ),
    "column_options": _OPTIONS.format(sql.SQL("a.attoptions")),
}

_CONTEXT: LiteralString = """
    WITH namespaces AS MATERIALIZED (
        SELECT * FROM pg_namespace n
         WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', {name})
    ), members AS MATERIALIZED (
        SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    ), relations AS MATERIALIZED (
        SELECT c.* FROM pg_class c
         WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND c.relnamespace IN (SELECT oid FROM namespaces)
           AND c.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_class'::regclass)
           AND c.oid NOT IN (SELECT i.indexrelid FROM pg_index i JOIN members m
                                 ON m.classid = 'pg_class'::regclass AND m.objid = i.indrelid)
    )
"""

_PARTS: tuple[LiteralString, ...] = (
    """SELECT 'schema' AS kind, quote_ident(n.nspname) AS name,
               concat_ws('|', n.nspowner::regrole, {schema_privileges}) AS definition
          FROM namespaces n""",
    """SELECT {relation_kind}, c.oid::regclass::text,
               concat_ws('|', c.relkind, c.relpersistence, c.relowner::regrole,
                         {relation_privileges},
                         {relation_options}, c.relrowsecurity, c.relforcerowsecurity,
                         pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid), m.amname, t.spcname,
                         {identity}, nullif(c.reloftype, 0)::regtype)
          FROM relations c LEFT JOIN pg_am m ON m.oid = c.relam LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace
         WHERE c.relkind NOT IN ('i', 'I')""",
    """SELECT 'column', format('%I of %s %s', a.attname, {relation_kind}, c.oid::regclass),
               concat_ws('|', row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum),
                         format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
                         a.attidentity, a.attgenerated, nullif(a.attcollation, 0)::regcollation, a.attstorage,
                         a.attcompression, a.attislocal, a.attinhcount, {column_options}, {column_privileges})
          FROM relations c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relkind NOT IN ('i', 'I', 'S')""",
    """SELECT 'parent', format('%s of %s', i.inhparent::regclass, c.oid::regclass), i.inhseqno::text
          FROM relations c JOIN pg_inherits i ON i.inhrelid = c.oid""",
    # From 18 on a NOT NULL is a constraint of its own, with a name; the column says it in every version.
    """SELECT 'constraint', format('%I on %s', k.conname, coalesce(nullif(k.conrelid, 0)::regclass::text,
                                                                  k.contypid::regtype::text)),
               concat_ws('|', k.contype, pg_get_constraintdef(k.oid), k.convalidated, k.conislocal, k.coninhcount,
                         k.contype = 'c' AND k.connoinherit)
          FROM pg_constraint k
         WHERE k.contype <> 'n' AND k.connamespace IN (SELECT oid FROM namespaces)
           AND (k.conrelid = 0 OR k.conrelid IN (SELECT oid FROM relations))""",
    """SELECT 'index', c.oid::regclass::text,
               concat_ws('|', pg_get_indexdef(c.oid), i.indisvalid, i.indisready, i.indisprimary,
                         {relation_options}, t.spcname)
          FROM relations c JOIN pg_index i ON i.indexrelid = c.oid
          LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace""",
    """SELECT 'parameters of sequence', c.oid::regclass::text,
               concat_ws('|', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache,
                         s.seqcycle, (SELECT format('%s %s', d.deptype,
                                                    pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid))
                                        FROM pg_depend d
                                       WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                         AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
          FROM relations c JOIN pg_sequence s ON s.seqrelid = c.oid""",
    """SELECT 'trigger', format('%I on %s', t.tgname, c.oid::regclass),
               concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled)
          FROM relations c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal""",
    """SELECT 'rule', format('%I on %s', r.rulename, c.oid::regclass),
               concat_ws('|', regexp_replace(pg_get_ruledef(r.oid), {qualifier}, '', 'g'), r.ev_enabled)
          FROM relations c JOIN pg_rewrite r ON r.ev_class = c.oid""",
    """SELECT 'policy', format('%I on %s', p.polname, c.oid::regclass),
               concat_ws('|', p.polcmd, p.polpermissive,
                         ARRAY(SELECT CASE r WHEN 0 THEN 'PUBLIC' ELSE r::regrole::text END
                                 FROM unnest(p.polroles) r ORDER BY 1)::text,
                         pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
          FROM relations c JOIN pg_policy p ON p.polrelid = c.oid""",
    """SELECT 'statistics', format('%s.%I', s.stxnamespace::regnamespace, s.stxname),
               concat_ws('|', s.stxowner::regrole, pg_get_statisticsobjdef(s.oid))
          FROM pg_statistic_ext s WHERE s.stxrelid IN (SELECT oid FROM relations)""",
    """SELECT 'type', t.oid::regtype::text,
               concat_ws('|', t.typtype, t.typowner::regrole, {type_privileges},
                         CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END, t.typnotnull,
                         pg_get_expr(t.typdefaultbin, 0), nullif(t.typcollation, 0)::regcollation,
                         ARRAY(SELECT e.enumlabel FROM pg_enum e
                                WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)::text,
                         (SELECT concat_ws('|', r.rngsubtype::regtype, nullif(r.rngcollation, 0)::regcollation,
                                           r.rngcanonical, r.rngsubdiff, r.rngmultitypid::regtype)
                            FROM pg_range r WHERE r.rngtypid = t.oid))
          FROM pg_type t
         WHERE t.oid >= 16384 AND t.typnamespace IN (SELECT oid FROM namespaces) AND t.typelem = 0
           AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
           AND t.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_type'::regclass)""",
    """SELECT 'function', p.oid::regprocedure::text,
               concat_ws('|', p.proowner::regrole, {function_privileges}, p.prokind,
                         CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) END)
          FROM pg_proc p
         WHERE p.oid >= 16384 AND p.pronamespace IN (SELECT oid FROM namespaces)
           AND p.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_proc'::regclass)""",
    """SELECT 'extension', e.extname, e.extnamespace::regnamespace::text FROM pg_extension e""",
    """SELECT 'default privileges', concat_ws(' ', d.defaclobjtype, d.defaclrole::regrole,
                                               nullif(d.defaclnamespace, 0)::regnamespace), {default_privileges}
          FROM pg_default_acl d""",
    """SELECT 'comment', format('%s %s', i.type, i.identity), d.description
          FROM pg_description d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
         WHERE d.objoid >= 16384 AND i.schema IS DISTINCT FROM {name}
           AND (d.classoid, d.objoid) NOT IN (SELECT classid, objid FROM members)""",
)

# A replica identity that was given to a table for the while is not its own.
_IDENTITY = sql.SQL("""
    coalesce((SELECT nullif(i.was, 'x') FROM {}.identities i WHERE i.relation = c.oid AND c.relreplident = 'f'),
             c.relreplident)
""")

Definition = tuple[str, str]  # kind, name
Digests = dict[Definition, str]


Majors = tuple[int, int]  # versions that are compared, the older one first


async def remember_spelling(copy: Session, names: ObjectNames, majors: Majors) -> None:
    """On the copy, before its upgrade: how the source defines everything at this moment."""
    await _keep(copy, names, "agreed", _told(names, majors))


async def remember_respelling(target: Session, names: ObjectNames, majors: Majors) -> None:
    """After its upgrade, when nothing can have been defined in between: what is told differently is only said in the
    new version's words, and is no difference."""
    query = sql.SQL(
        "SELECT kind, name, a.digest AS old, n.digest AS new FROM ({}) n FULL JOIN {} a USING (kind, name)"
        " WHERE a.digest IS DISTINCT FROM n.digest"
    ).format(_told(names, majors), sql.Identifier(names.schema, "agreed"))
    await _keep(target, names, "respelt", query)


async def differences(source: Session, target: Session, names: ObjectNames, *, everything: bool) -> list[str]:
    """What is not defined alike, by name, and what was done to it on the source. Only of what the source has defined
    since both were last found alike, because what is done to the target itself is its owner's business; or of
    ``everything``."""
    told = _told(names, _majors(source, target))
    ours, theirs = await both(_digests(source, told), _digests(target, told))
    agreed = await _digests(
        target, sql.SQL("SELECT kind, name, digest FROM {}").format(sql.Identifier(names.schema, "agreed"))
    )
    respelt = await target.rows(
        sql.SQL("SELECT kind, name, old, new FROM {}").format(sql.Identifier(names.schema, "respelt"))
    )
    accepted = {((kind, name), old, new) for kind, name, old, new in respelt}
    unlike = {
        " ".join(key): "created" if key not in agreed else "dropped" if key not in ours else "changed"
        for key in ours.keys() | theirs.keys()
        if (everything or ours.get(key) != agreed.get(key))
        and ours.get(key) != theirs.get(key)
        and (key, ours.get(key), theirs.get(key)) not in accepted
    }
    # The columns of a table that is not there go without saying.
    return sorted(
        f"{label} ({what})"
        for label, what in unlike.items()
        if not (label.startswith("column ") and unlike.get(label.partition(" of ")[2]) == what)
    )


async def agree(source: Session, target: Session, names: ObjectNames) -> None:
    """Both are alike: how the source defines everything now is what its later definitions are compared with."""
    ours = await _digests(source, _told(names, _majors(source, target)))
    agreed = sql.Identifier(names.schema, "agreed")
    await target.run(sql.SQL("DELETE FROM {}").format(agreed))
    await target.run(
        sql.SQL("INSERT INTO {} (kind, name, digest) SELECT * FROM unnest(%s::text[], %s::text[], %s::text[])").format(
            agreed
        ),
        [kind for kind, _ in ours],
        [name for _, name in ours],
        list(ours.values()),
    )


def _majors(source: Session, target: Session) -> Majors:
    return source.info.server_version // 10000, target.info.server_version // 10000


async def _keep(connection: Session, names: ObjectNames, table: str, query: sql.Composed) -> None:
    where = sql.Identifier(names.schema, table)
    await connection.run(sql.SQL("DROP TABLE IF EXISTS {}").format(where))
    await remember(connection, where, query)


async def _digests(connection: Session, query: sql.Composed) -> Digests:
    return {(kind, name): digest for kind, name, digest in await connection.rows(query)}


def _told(names: ObjectNames, majors: Majors) -> sql.Composed:
    older, newer = majors
    qualifier = r"\m[a-z_][a-z0-9_$]*\." if older < _UNQUALIFIED_SINCE <= newer else "^$"
    context, parts = sql.SQL(_CONTEXT), sql.SQL(" UNION ALL ".join(_PARTS))
    return sql.SQL("{} SELECT kind, name, md5(definition) AS digest FROM ({}) AS told").format(
        context.format(name=sql.Literal(names.schema)),
        parts.format(
            name=sql.Literal(names.schema),
            qualifier=sql.Literal(qualifier),
            identity=_IDENTITY.format(sql.Identifier(names.schema)),
            **_RECURRING,
        ),
    )
