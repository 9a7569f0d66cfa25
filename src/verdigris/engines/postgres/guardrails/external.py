"""Others who replicate from or to blue: nobody can move their positions to green for them."""

from collections.abc import Sequence

from psycopg import sql

from verdigris.engines.postgres.guardrails.model import (
    EXTERNAL_REPLICATION,
    Extent,
    Guardrail,
    Moment,
    Side,
    View,
    on_source,
)
from verdigris.engines.postgres.names import READ_REPLICA

# Read replicas of our own making stay with blue: green has others for their clients.
_OTHERS = sql.SQL("""
    SELECT 'replication slot ' || slot_name FROM pg_replication_slots
     WHERE slot_name <> %s AND NOT starts_with(slot_name, %s) AND NOT starts_with(slot_name, {})
     UNION ALL
    SELECT format('subscription %%I in database %%I', s.subname, d.datname)
      FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
     UNION ALL
    SELECT format('replication connection of %%s (%%s)', r.usename, r.application_name)
      FROM pg_stat_replication r
     WHERE NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid)
     ORDER BY 1
""").format(sql.Literal(READ_REPLICA))


async def _others(view: View) -> Sequence[str]:
    return await view.source_names(_OTHERS, view.names.base, view.names.base + "_")


GUARDRAILS = (
    Guardrail(
        name="synchronous-standbys",
        rds=EXTERNAL_REPLICATION,
        complaint="blue waits for synchronous standbys",
        remedy="Empty synchronous_standby_names.",
        threshold="synchronous_standby_names is empty",
        why="Green would be one of them if the list says so, and blue's commits would wait for it; a list that names"
        " others would have green's commits wait for standbys that it does not have.",
        side=Side.BLUE,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=on_source(
            sql.SQL("SELECT setting FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting <> ''")
        ),
    ),
    Guardrail(
        name="external-replication",
        rds=EXTERNAL_REPLICATION,
        complaint="blue takes part in replication that cannot be carried to green",
        remedy="Remove it, and set it up again on green afterwards.",
        why="Slots, subscriptions and standbys of others stay with blue, and would miss what green is told.",
        side=Side.BLUE,
        moments=Moment.CREATION | Moment.SWITCHOVER | Moment.FENCED,
        extent=Extent.CLUSTER,
        look=_others,
    ),
)
