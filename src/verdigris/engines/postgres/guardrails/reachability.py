"""The two servers themselves."""

from collections.abc import Sequence

from psycopg import sql

from verdigris.engines.postgres.guardrails.model import (
    REPLICATION_HEALTH,
    SOURCE,
    Extent,
    Guardrail,
    Moment,
    Side,
    View,
    on_source,
)


async def _source_down(view: View) -> Sequence[str]:
    source = view.subject.source
    if source is None:
        return [f"there is no server {view.subject.pair.source_resource_id}"]
    return [] if source.is_running() else [f"{source.resource_id} is not running"]


async def _target_down(view: View) -> Sequence[str]:
    target = view.subject.target
    if target is None:
        return [f"there is no server {view.subject.pair.target_resource_id}"]
    return [] if target.is_running() else [f"{target.resource_id} is not running"]


GUARDRAILS = (
    Guardrail(
        name="blue-down",
        rds=SOURCE,
        complaint="blue does not accept connections",
        remedy="Start it, or wait until it is up.",
        threshold="it has to be there and accept connections",
        why="Nothing can be copied, compared or caught up with.",
        side=Side.BLUE,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.PAIR,
        look=_source_down,
    ),
    Guardrail(
        name="green-down",
        rds=REPLICATION_HEALTH,
        complaint="green does not accept connections",
        remedy="Wait until it is up; its log says why it is not. If it is gone, delete the deployment.",
        threshold="it has to be there and accept connections",
        why="Clients would be moved to nobody.",
        side=Side.GREEN,
        moments=Moment.SWITCHOVER,
        extent=Extent.PAIR,
        look=_target_down,
    ),
    Guardrail(
        name="blue-is-standby",
        rds=SOURCE,
        complaint="blue is itself a standby",
        remedy="Deploy from its primary.",
        threshold="pg_is_in_recovery() has to be false",
        why="Publications and slots are made on a server that writes.",
        side=Side.BLUE,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=on_source(sql.SQL("SELECT 'it is in recovery' WHERE pg_is_in_recovery()")),
    ),
)
