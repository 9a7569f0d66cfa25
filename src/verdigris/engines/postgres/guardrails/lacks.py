"""What blue has and green does not, though it was made with it: taken away there, or come to blue since."""

from collections.abc import Sequence

from psycopg import sql

from verdigris.engines.postgres import config
from verdigris.engines.postgres.guardrails.model import (
    LOGICAL,
    UNSUPPORTED,
    Extent,
    Guardrail,
    Moment,
    Side,
    View,
)

_ROLES = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
_EXTENSIONS = "SELECT extname FROM pg_extension ORDER BY 1"

_SETTINGS_OF_ROLES = sql.SQL("""
    SELECT split_part(setting, '=', 1) || coalesce(' of role ' || quote_ident(r.rolname), '')
                                       || coalesce(' in database ' || quote_ident(d.datname), '')
      FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS setting
      LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
     WHERE (s.setrole = 0 OR r.oid IS NOT NULL) AND (s.setdatabase = 0 OR d.oid IS NOT NULL)
     ORDER BY 1
""")

# What is in our own file comes from parameter groups, and green has been given one of its own.
_SETTINGS_IN_FILES = sql.SQL("""
    SELECT DISTINCT lower(name) FROM pg_file_settings
     WHERE error IS NULL AND NOT (%s AND right(sourcefile, length(%s)) = %s) ORDER BY 1
""")
_KNOWN_SETTINGS = "SELECT lower(name) FROM pg_settings"

# What green must have for changes to be applied and sequences to be carried.
_PUBLISHED = sql.SQL("""
    SELECT format('table %%I.%%I', n.nspname, c.relname),
           array(SELECT a.attname::text FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
      FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
      JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE p.pubname = %s
     UNION ALL
    SELECT format('sequence %%I.%%I', n.nspname, c.relname), '{}'
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND c.relpersistence <> 't'
     ORDER BY 1
""")
_PRESENT = sql.SQL("""
    SELECT format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname, c.relname),
           array(SELECT a.attname::text FROM pg_attribute a
                  WHERE c.relkind <> 'S' AND a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
""")


async def _roles(view: View) -> Sequence[str]:
    return _less(await view.source_names(_ROLES), await view.target_names(_ROLES))


async def _extensions(view: View) -> Sequence[str]:
    return _less(await view.source_names(_EXTENSIONS), await view.target_names(_EXTENSIONS))


async def _settings(view: View) -> Sequence[str]:
    """Names only: green may have other values, that is what a parameter group is for. What its version no longer knows
    it cannot have."""
    known = {*await view.target_names(_KNOWN_SETTINGS)}
    ours = f"/{config.SETTINGS_FILE}"
    there = await view.target_names(_SETTINGS_IN_FILES, False, ours, ours)
    in_files = _less(await view.source_names(_SETTINGS_IN_FILES, True, ours, ours), there)
    missing = [name for name in in_files if "." in name or name in known]
    of_roles = await view.source_names(_SETTINGS_OF_ROLES)
    return missing + _less(of_roles, await view.target_names(_SETTINGS_OF_ROLES))


async def _relations(view: View) -> Sequence[str]:
    present: dict[str, list[str]] = dict(await view.target.rows(_PRESENT))
    missing = []
    for relation, columns in await view.source.rows(_PUBLISHED, view.names.publication):
        if relation not in present:
            missing.append(relation)
        else:
            missing += [f"column {column} of {relation}" for column in _less(columns, present[relation])]
    return missing


def _less(wanted: Sequence[str], present: Sequence[str]) -> list[str]:
    there = {*present, config.ADMIN_ROLE}
    return [name for name in wanted if name not in there]


GUARDRAILS = (
    Guardrail(
        name="green-lacks-roles",
        rds=UNSUPPORTED,
        complaint="green lacks roles that blue has",
        remedy="Create them on green.",
        why="Their sessions could not log in, and what they own or were granted would be nobody's.",
        side=Side.BOTH,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_roles,
    ),
    Guardrail(
        name="green-lacks-extensions",
        rds=UNSUPPORTED,
        complaint="green lacks extensions that blue has",
        remedy="Create them on green.",
        why="Statements that use them would fail after the switchover.",
        side=Side.BOTH,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_extensions,
    ),
    Guardrail(
        name="green-lacks-settings",
        rds=UNSUPPORTED,
        complaint="green lacks settings that blue has, whatever their values",
        remedy="Set them on green, to the same value or another.",
        threshold="every setting of ALTER SYSTEM, of blue's roles and of its databases that green's version knows",
        why="Sessions would work with a default that nobody chose.",
        side=Side.BOTH,
        moments=Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_settings,
    ),
    Guardrail(
        name="green-lacks-relations",
        rds=UNSUPPORTED,
        complaint="green lacks tables, columns or sequences that blue has",
        remedy="Delete the deployment and create it again.",
        why="The first change to one of them stops the replication of all others.",
        side=Side.BOTH,
        modes=LOGICAL,
        moments=Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_relations,
    ),
)
