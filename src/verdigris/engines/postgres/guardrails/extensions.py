"""Code that runs by itself: on green as well, where nobody asked for it yet."""

from collections.abc import Sequence

from psycopg import sql

from verdigris.engines.postgres.backends import HARMLESS_BACKENDS, OWN_BACKENDS
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

# Extensions whose workers run jobs or replicate, by what they are called in pg_extension. RDS names pg_cron, pglogical
# and pgactive among the limits of blue/green deployments.
_WITH_WORKERS = (
    "bdr", "citus", "pg_cron", "pg_partman_bgw", "pg_squeeze", "pg_task", "pgactive", "pglogical", "spock",
    "timescaledb",
)  # fmt: skip

_LOGIN_TRIGGERS = sql.SQL(
    "SELECT quote_ident(evtname) FROM pg_event_trigger WHERE evtevent = 'login' AND evtenabled <> 'D' ORDER BY 1"
)

# Ordinary ones stay silent for what is ours (own_sessions.UNNOTICED).
_REPLICA_EVENT_TRIGGERS = sql.SQL(
    "SELECT quote_ident(evtname) FROM pg_event_trigger WHERE evtevent <> 'login' AND evtenabled IN ('A', 'R')"
    " ORDER BY 1"
)


async def _workers(view: View) -> Sequence[str]:
    return await view.source_names(
        "SELECT DISTINCT backend_type FROM pg_stat_activity WHERE backend_type <> ALL(%s) ORDER BY 1",
        [*OWN_BACKENDS, *HARMLESS_BACKENDS],
    )


async def _extensions(view: View) -> Sequence[str]:
    return await view.source_names(
        "SELECT extname FROM pg_extension WHERE extname = ANY(%s) ORDER BY 1", list(_WITH_WORKERS)
    )


GUARDRAILS = (
    Guardrail(
        name="extensions-with-workers",
        rds=UNSUPPORTED,
        complaint="extensions that run jobs or replicate by themselves",
        remedy="Drop them until after the switchover, and create them again on green.",
        threshold=f"none of {', '.join(_WITH_WORKERS)}",
        why="Their jobs would run on green as well while it only follows, and their effects would be there twice.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=_extensions,
    ),
    Guardrail(
        name="background-workers",
        rds=UNSUPPORTED,
        complaint="background workers that are not PostgreSQL's own",
        remedy="Take their library out of shared_preload_libraries until after the switchover.",
        threshold=f"none but {', '.join(HARMLESS_BACKENDS)}",
        why="What they do is unknown, and they would do it on green as well while it only follows.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=_workers,
    ),
    Guardrail(
        name="login-triggers",
        rds=UNSUPPORTED,
        complaint="event triggers that fire at login",
        remedy="Disable them until after the switchover.",
        why="Sessions are opened on green beforehand, in the names of clients: the trigger would act there, once more.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.DATABASE,
        look=on_source(_LOGIN_TRIGGERS),
    ),
    Guardrail(
        name="replica-event-triggers",
        rds=UNSUPPORTED,
        complaint="event triggers that would fire for what Verdigris makes on green (ENABLE ALWAYS or REPLICA)",
        remedy="Enable them for origin sessions only.",
        why="One that writes would write on green by itself, and stop the replication.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION,
        extent=Extent.DATABASE,
        look=on_source(_REPLICA_EVENT_TRIGGERS),
    ),
)
