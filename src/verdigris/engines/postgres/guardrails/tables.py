"""Tables whose rows would not arrive on green, or would arrive as others than they were."""

from collections.abc import Sequence

from psycopg import sql

from verdigris.engines.postgres.carrying import identity
from verdigris.engines.postgres.guardrails.model import (
    LOGICAL,
    UNSUPPORTED,
    Extent,
    Guardrail,
    Moment,
    Side,
    View,
    on_source,
)

_UNLOGGED = sql.SQL("""
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence = 'u' ORDER BY 1, 2
""")

# Apply workers run as a replica: ordinary triggers stay silent there, these fire a second time.
_REPLICA_TRIGGERS = sql.SQL("""
    SELECT format('%I on %I.%I', t.tgname, n.nspname, c.relname)
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R') ORDER BY 1
""")

# Changes are applied with the rights of a table's owner, whom row security then filters.
_FORCED_ROW_SECURITY = sql.SQL("""
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
     WHERE c.relkind = 'r' AND c.relrowsecurity AND c.relforcerowsecurity
       AND NOT (r.rolsuper OR r.rolbypassrls) ORDER BY 1
""")

# A generated column is not sent, so nothing would tell green which row was meant. With REPLICA IDENTITY FULL a primary
# key is still what green looks for (logicalrep_rel_mark_updatable in relation.c).
_GENERATED_KEY = sql.SQL("""
    SELECT DISTINCT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_index i ON i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident
                                                                    ELSE i.indisprimary END
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey::int2[]) AND a.attgenerated <> ''
     WHERE c.relkind = 'r' AND pg_relation_is_publishable(c.oid) ORDER BY 1
""")

# Whoever else may write: their changes are applied with the rights of the owner, who may have given away his own.
_POWERLESS_OWNER = sql.SQL("""
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relacl IS NOT NULL AND pg_relation_is_publishable(c.oid)
       AND EXISTS (SELECT FROM aclexplode(c.relacl) a
                    WHERE a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
                      AND (NOT has_table_privilege(c.relowner, c.oid, a.privilege_type)
                           OR a.privilege_type IN ('UPDATE', 'DELETE')
                              AND NOT has_table_privilege(c.relowner, c.oid, 'SELECT')))
     ORDER BY 1
""")


async def _filled_unlogged(view: View) -> Sequence[str]:
    filled = []
    for schema, table in await view.source.rows(_UNLOGGED):
        if await view.source.value(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(schema, table))):
            filled.append(f"{schema}.{table}")
    return filled


async def _withdrawn(view: View) -> Sequence[str]:
    return await identity.withdrawn(view.source, view.names)


GUARDRAILS = (
    Guardrail(
        name="unlogged-tables",
        rds=UNSUPPORTED,
        complaint="unlogged tables with rows, which no copy carries",
        remedy="Make them logged, or empty them.",
        threshold="not a single row",
        why="They are not in the WAL; a copy begins with them empty.",
        side=Side.BLUE,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_filled_unlogged,
    ),
    Guardrail(
        name="tables-without-key",
        rds=UNSUPPORTED,
        complaint="tables without a primary key whose rows cannot be told apart either (a column of a type without"
        " equality, or a replica identity index that is gone)",
        remedy="Add a primary key, or name a unique index as replica identity.",
        threshold="none; other tables without a key have REPLICA IDENTITY FULL for as long as green follows",
        why="Nothing would say which row was updated or deleted, and PostgreSQL would refuse those on blue.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=on_source(identity.HELPLESS),
    ),
    Guardrail(
        name="tables-withdrawn",
        rds=UNSUPPORTED,
        complaint="tables that lost their key while green waited and have a column of a type without equality",
        remedy="Delete the deployment and create it again once they have a primary key.",
        why="Published, their updates would be refused on blue; so they were withdrawn, and green lacks their changes.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_withdrawn,
    ),
    Guardrail(
        name="incomparable-identity",
        rds=UNSUPPORTED,
        complaint="tables with REPLICA IDENTITY FULL and columns of a type that has no equality",
        remedy="Add a primary key.",
        why="Green could not find the row that was updated or deleted.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=on_source(identity.INCOMPARABLE_IDENTITY),
    ),
    Guardrail(
        name="generated-key",
        rds=UNSUPPORTED,
        complaint="tables whose primary key or replica identity has a generated column in it",
        remedy="Choose another replica identity, and another primary key.",
        why="PostgreSQL does not send generated columns; the first UPDATE or DELETE would stop the replication.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=on_source(_GENERATED_KEY),
    ),
    Guardrail(
        name="powerless-owner",
        rds=UNSUPPORTED,
        complaint="tables that others may write and their owner may not",
        remedy="Grant the owner what the others have, and SELECT.",
        why="Changes are applied with the rights of a table's owner.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=on_source(_POWERLESS_OWNER),
    ),
    Guardrail(
        name="replica-triggers",
        rds=UNSUPPORTED,
        complaint="triggers that would fire on green as well (ENABLE ALWAYS or REPLICA)",
        remedy="Enable them for origin sessions only.",
        why="Their effects come from blue already; they would be there twice.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=on_source(_REPLICA_TRIGGERS),
    ),
    Guardrail(
        name="forced-row-security",
        rds=UNSUPPORTED,
        complaint="tables that force row security on an owner who may not bypass it",
        remedy="Give the owner BYPASSRLS, or use NO FORCE ROW LEVEL SECURITY until after the switchover.",
        why="Changes are applied with the rights of a table's owner, whom the policies would filter.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=on_source(_FORCED_ROW_SECURITY),
    ),
)
