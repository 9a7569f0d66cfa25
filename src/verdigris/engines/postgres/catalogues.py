"""The system catalogues whose rows define a database, and how a row of each is recognised and named.

Source: PostgreSQL manual, chapter "System Catalogs". Left out are those that follow from others (pg_depend), that hold
statistics, publications and subscriptions (ours, or found by a guardrail of their own).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import LiteralString

from msgspec import Struct


class Catalogue(Struct, frozen=True):
    """``key``, ``label`` and ``where`` are SQL over a row ``x``. ``noise`` names columns that change without any
    change of definition: by VACUUM, ANALYZE, TRUNCATE, a rewrite, or lazily.

    ``instead`` gives SQL to be digested in place of a column:

    * privileges, which are NULL until the first GRANT and spelt out after its REVOKE, though nothing has changed;
    * the oid of an index, which REINDEX CONCURRENTLY changes: indexes go by their names;
    * the replica identity that a deployment has given a table without a key: what it was instead."""

    name: LiteralString
    key: LiteralString = "x.oid::text"
    label: LiteralString = "pg_describe_object(x.tableoid, x.oid, 0)"
    where: LiteralString = "x.oid >= 16384"  # FirstNormalObjectId: made by users
    noise: frozenset[str] = frozenset()
    instead: Mapping[str, LiteralString] = MappingProxyType({})


def _privileges(column: LiteralString, kind: LiteralString, owner: LiteralString) -> Mapping[str, LiteralString]:
    return {column: f"coalesce(x.{column}, acldefault({kind}, x.{owner}))"}


# What a comment is on.
_DESCRIBED: LiteralString = (
    "CASE WHEN x.classoid = 'pg_class'::regclass THEN x.objoid::regclass::text ELSE x.objoid::text END"
)


def _of_relation(
    name: LiteralString,
    column: LiteralString,
    *,
    key: LiteralString,
    noise: tuple[str, ...] = (),
    instead: Mapping[str, LiteralString] = MappingProxyType({}),
) -> Catalogue:
    """A row that belongs to a relation and has no name of its own to speak of."""
    return Catalogue(
        name,
        key=key,
        label=f"pg_describe_object('pg_class'::regclass, x.{column}, 0)",
        where=f"x.{column} IN (SELECT oid FROM relations)",  # noqa: S608 - a column name of this module
        noise=frozenset(noise),
        instead=instead,
    )


def _on_relation(
    name: LiteralString,
    column: LiteralString,
    *,
    noise: tuple[str, ...] = (),
    instead: Mapping[str, LiteralString] = MappingProxyType({}),
) -> Catalogue:
    """An object of its own on a relation."""
    where: LiteralString = f"x.{column} IN (SELECT oid FROM relations)"  # noqa: S608 - a column name of this module
    return Catalogue(name, where=where, noise=frozenset(noise), instead=instead)


def _in_namespace(
    name: LiteralString, column: LiteralString, *, instead: Mapping[str, LiteralString] = MappingProxyType({})
) -> Catalogue:
    """An object of its own in a schema."""
    where: LiteralString = f"x.{column} NOT IN (SELECT oid FROM foreign_namespaces)"  # noqa: S608 - likewise
    return Catalogue(name, where="x.oid >= 16384 AND " + where, instead=instead)


DATABASE_CATALOGUES = (
    Catalogue(
        "pg_namespace",
        where="x.oid NOT IN (SELECT oid FROM foreign_namespaces)",
        instead=_privileges("nspacl", "'n'", "nspowner"),
    ),
    Catalogue(
        "pg_class",
        key="CASE WHEN x.relkind IN ('i', 'I') THEN x.oid::regclass::text ELSE x.oid::text END",
        where="x.oid IN (SELECT oid FROM relations)",
        noise=frozenset(
            {
                "relfilenode", "relpages", "reltuples", "relallvisible", "relallfrozen", "reltoastrelid",
                "relfrozenxid", "relminmxid", "relhasindex", "relhasrules", "relhastriggers", "relhassubclass",
                "relispopulated",
            }
        ),
        instead={
            "oid": "CASE WHEN x.relkind IN ('i', 'I') THEN 0 ELSE x.oid END",
            "relreplident": (
                "CASE x.relreplident WHEN 'f' THEN coalesce((SELECT g.was FROM given_identities g"
                " WHERE g.relation = x.oid), 'f') ELSE x.relreplident END"
            ),
            **_privileges("relacl", "CASE x.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\"", "relowner"),
        },
    ),
    Catalogue(
        "pg_attribute",
        key="x.attrelid || '.' || x.attnum",
        label="pg_describe_object('pg_class'::regclass, x.attrelid, x.attnum)",
        # Those of indexes follow from pg_index.
        where=(
            "x.attrelid IN (SELECT oid FROM relations WHERE relkind NOT IN ('i', 'I'))"
            " AND x.attnum > 0 AND NOT x.attisdropped"
        ),
        noise=frozenset({"attcacheoff", "attstattarget", "atthasmissing", "attmissingval"}),
    ),
    _on_relation("pg_attrdef", "adrelid"),
    _of_relation(
        "pg_index",
        "indexrelid",
        key="x.indexrelid::regclass::text",
        noise=("indcheckxmin", "indisclustered"),
        instead={"indexrelid": "x.indexrelid::regclass"},
    ),
    _of_relation(
        "pg_inherits",
        "inhrelid",
        key="x.inhrelid::regclass || '.' || x.inhparent::regclass",
        instead={"inhrelid": "x.inhrelid::regclass", "inhparent": "x.inhparent::regclass"},
    ),
    _of_relation("pg_partitioned_table", "partrelid", key="x.partrelid::text"),
    _of_relation("pg_sequence", "seqrelid", key="x.seqrelid::text"),
    _of_relation("pg_foreign_table", "ftrelid", key="x.ftrelid::text"),
    _on_relation("pg_trigger", "tgrelid", instead={"tgconstrindid": "x.tgconstrindid::regclass"}),
    _on_relation("pg_rewrite", "ev_class"),
    _on_relation("pg_policy", "polrelid"),
    _on_relation("pg_statistic_ext", "stxrelid"),
    Catalogue(
        "pg_constraint",
        where="x.oid >= 16384 AND x.connamespace NOT IN (SELECT oid FROM foreign_namespaces)",
        instead={"conindid": "x.conindid::regclass"},
    ),
    _in_namespace("pg_type", "typnamespace", instead=_privileges("typacl", "'T'", "typowner")),
    Catalogue("pg_enum", label="pg_describe_object('pg_type'::regclass, x.enumtypid, 0)"),
    Catalogue(
        "pg_range",
        key="x.rngtypid::text",
        label="pg_describe_object('pg_type'::regclass, x.rngtypid, 0)",
        where="x.rngtypid >= 16384",
    ),
    _in_namespace("pg_proc", "pronamespace", instead=_privileges("proacl", "'f'", "proowner")),
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
    Catalogue("pg_language", where="true", instead=_privileges("lanacl", "'l'", "lanowner")),
    Catalogue("pg_transform"),
    Catalogue("pg_extension", where="true"),
    Catalogue("pg_event_trigger"),
    Catalogue("pg_foreign_data_wrapper", instead=_privileges("fdwacl", "'F'", "fdwowner")),
    Catalogue("pg_foreign_server", instead=_privileges("srvacl", "'S'", "srvowner")),
    Catalogue("pg_user_mapping"),
    Catalogue("pg_default_acl", where="true"),
    Catalogue(
        "pg_description",
        key=f"x.classoid || '.' || {_DESCRIBED} || '.' || x.objsubid",
        instead={"objoid": _DESCRIBED},
        label="'comment on ' || pg_describe_object(x.classoid, x.objoid, x.objsubid)",
        # Large objects are carried over with all that belongs to them.
        where="x.objoid >= 16384 AND x.classoid <> 'pg_largeobject'::regclass",
    ),
)  # fmt: skip

# The same in every database: digested once, in the maintenance database. Roles and the like are carried over, and so
# are the columns of a database that belong to them.
SHARED_CATALOGUES = (
    Catalogue(
        "pg_database",
        label="'database ' || x.datname",
        where="true",
        noise=frozenset({"datfrozenxid", "datminmxid", "dathasloginevt", "datdba", "datacl", "datconnlimit"}),
    ),
)
