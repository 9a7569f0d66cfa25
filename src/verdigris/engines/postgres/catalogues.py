"""The system catalogues whose rows define a database, and how a row of each is recognised and named.

Source: PostgreSQL manual, chapter "System Catalogs". Left out are those that follow from others (pg_depend), that hold
statistics, publications and subscriptions (ours, or found by a guardrail of their own).
"""

from typing import LiteralString

from msgspec import Struct


class Catalogue(Struct, frozen=True):
    """``key``, ``label`` and ``where`` are SQL over a row ``x``. ``noise`` names columns that change without any
    change of definition: by VACUUM, ANALYZE, TRUNCATE, a rewrite, or lazily.

    ``acl`` is the column of privileges, and what it stands for while it is NULL, as SQL: after a GRANT and its REVOKE
    it is spelt out, and nothing has changed."""

    name: LiteralString
    key: LiteralString = "x.oid::text"
    label: LiteralString = "pg_describe_object(x.tableoid, x.oid, 0)"
    where: LiteralString = "x.oid >= 16384"  # FirstNormalObjectId: made by users
    noise: frozenset[str] = frozenset()
    acl: tuple[str, LiteralString] | None = None


def _of_relation(
    name: LiteralString, column: LiteralString, *, key: LiteralString, noise: tuple[str, ...] = ()
) -> Catalogue:
    """A row that belongs to a relation and has no name of its own to speak of."""
    return Catalogue(
        name,
        key=key,
        label=f"pg_describe_object('pg_class'::regclass, x.{column}, 0)",
        where=f"x.{column} IN (SELECT oid FROM relations)",  # noqa: S608 - a column name of this module
        noise=frozenset(noise),
    )


def _on_relation(name: LiteralString, column: LiteralString, *, noise: tuple[str, ...] = ()) -> Catalogue:
    """An object of its own on a relation."""
    where: LiteralString = f"x.{column} IN (SELECT oid FROM relations)"  # noqa: S608 - a column name of this module
    return Catalogue(name, where=where, noise=frozenset(noise))


def _in_namespace(
    name: LiteralString, column: LiteralString, *, acl: tuple[str, LiteralString] | None = None
) -> Catalogue:
    """An object of its own in a schema."""
    where: LiteralString = f"x.{column} NOT IN (SELECT oid FROM foreign_namespaces)"  # noqa: S608 - likewise
    return Catalogue(name, where="x.oid >= 16384 AND " + where, acl=acl)


DATABASE_CATALOGUES = (
    Catalogue(
        "pg_namespace",
        where="x.oid NOT IN (SELECT oid FROM foreign_namespaces)",
        acl=("nspacl", "acldefault('n', x.nspowner)"),
    ),
    Catalogue(
        "pg_class",
        where="x.oid IN (SELECT oid FROM relations)",
        noise=frozenset(
            {
                "relfilenode", "relpages", "reltuples", "relallvisible", "relallfrozen", "reltoastrelid",
                "relfrozenxid", "relminmxid", "relhasindex", "relhasrules", "relhastriggers", "relhassubclass",
                "relispopulated",
            }
        ),
        acl=("relacl", "acldefault(CASE x.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", x.relowner)"),
    ),
    Catalogue(
        "pg_attribute",
        key="x.attrelid || '.' || x.attnum",
        label="pg_describe_object('pg_class'::regclass, x.attrelid, x.attnum)",
        where="x.attrelid IN (SELECT oid FROM relations) AND x.attnum > 0 AND NOT x.attisdropped",
        noise=frozenset({"attcacheoff", "attstattarget", "atthasmissing", "attmissingval"}),
    ),
    _on_relation("pg_attrdef", "adrelid"),
    _of_relation("pg_index", "indexrelid", key="x.indexrelid::text", noise=("indcheckxmin", "indisclustered")),
    _of_relation("pg_inherits", "inhrelid", key="x.inhrelid || '.' || x.inhparent"),
    _of_relation("pg_partitioned_table", "partrelid", key="x.partrelid::text"),
    _of_relation("pg_sequence", "seqrelid", key="x.seqrelid::text"),
    _of_relation("pg_foreign_table", "ftrelid", key="x.ftrelid::text"),
    _on_relation("pg_trigger", "tgrelid"),
    _on_relation("pg_rewrite", "ev_class"),
    _on_relation("pg_policy", "polrelid"),
    _on_relation("pg_statistic_ext", "stxrelid"),
    Catalogue(
        "pg_constraint",
        where="x.oid >= 16384 AND x.connamespace NOT IN (SELECT oid FROM foreign_namespaces)",
    ),
    _in_namespace("pg_type", "typnamespace", acl=("typacl", "acldefault('T', x.typowner)")),
    Catalogue("pg_enum", label="pg_describe_object('pg_type'::regclass, x.enumtypid, 0)"),
    Catalogue(
        "pg_range",
        key="x.rngtypid::text",
        label="pg_describe_object('pg_type'::regclass, x.rngtypid, 0)",
        where="x.rngtypid >= 16384",
    ),
    _in_namespace("pg_proc", "pronamespace", acl=("proacl", "acldefault('f', x.proowner)")),
    Catalogue(
        "pg_aggregate",
        key="x.aggfnoid::oid::text",
        label="pg_describe_object('pg_proc'::regclass, x.aggfnoid::oid, 0)",
        where="x.aggfnoid::oid >= 16384",
    ),
    _in_namespace("pg_operator", "oprnamespace"),
    _in_namespace("pg_opclass", "opcnamespace"),
    _in_namespace("pg_opfamily", "opfnamespace"),
    Catalogue("pg_amop"),
    Catalogue("pg_amproc"),
    Catalogue("pg_cast"),
    _in_namespace("pg_collation", "collnamespace"),
    _in_namespace("pg_conversion", "connamespace"),
    _in_namespace("pg_ts_config", "cfgnamespace"),
    _in_namespace("pg_ts_dict", "dictnamespace"),
    _in_namespace("pg_ts_parser", "prsnamespace"),
    _in_namespace("pg_ts_template", "tmplnamespace"),
    Catalogue(
        "pg_ts_config_map",
        key="x.mapcfg || '.' || x.maptokentype || '.' || x.mapseqno",
        label="pg_describe_object('pg_ts_config'::regclass, x.mapcfg, 0)",
        where="x.mapcfg >= 16384",
    ),
    Catalogue("pg_language", where="true", acl=("lanacl", "acldefault('l', x.lanowner)")),
    Catalogue("pg_transform"),
    Catalogue("pg_extension", where="true"),
    Catalogue("pg_event_trigger"),
    Catalogue("pg_foreign_data_wrapper", acl=("fdwacl", "acldefault('F', x.fdwowner)")),
    Catalogue("pg_foreign_server", acl=("srvacl", "acldefault('S', x.srvowner)")),
    Catalogue("pg_user_mapping"),
    Catalogue("pg_default_acl", where="true"),
    Catalogue(
        "pg_description",
        key="x.classoid || '.' || x.objoid || '.' || x.objsubid",
        label="'comment on ' || pg_describe_object(x.classoid, x.objoid, x.objsubid)",
        where="x.objoid >= 16384",
    ),
    Catalogue(
        "pg_largeobject_metadata",
        label="'large object ' || x.oid",
        where="true",
        acl=("lomacl", "acldefault('L', x.lomowner)"),
    ),
    # The contents too: nothing replicates them.
    Catalogue(
        "pg_largeobject",
        key="x.loid || '.' || x.pageno",
        label="'large object ' || x.loid",
        where="true",
    ),
)  # fmt: skip

# The same in every database: digested once, in the maintenance database.
SHARED_CATALOGUES = (
    # Passwords are carried over.
    Catalogue("pg_authid", label="'role ' || x.rolname", where="true", noise=frozenset({"rolpassword"})),
    Catalogue(
        "pg_auth_members",
        key="x.roleid || '.' || x.member || '.' || x.grantor",
        label="format('membership of role %s in role %s', x.member::regrole, x.roleid::regrole)",
        where="true",
    ),
    Catalogue(
        "pg_database",
        label="'database ' || x.datname",
        where="true",
        noise=frozenset({"datfrozenxid", "datminmxid", "dathasloginevt"}),
        acl=("datacl", "acldefault('d', x.datdba)"),
    ),
    Catalogue(
        "pg_db_role_setting",
        key="x.setdatabase || '.' || x.setrole",
        label="format('settings of role %s in database %s', x.setrole::regrole, x.setdatabase)",
        where="true",
    ),
    Catalogue("pg_parameter_acl", label="'privileges on setting ' || x.parname", where="true"),
)
