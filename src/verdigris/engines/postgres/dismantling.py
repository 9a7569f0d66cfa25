"""Taking away what a deployment put on its servers. Each call looks at what is there, and may be made at any time."""

import structlog

from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres import fence, publisher, standby, subscriber, wal_limit
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import session

log = structlog.get_logger(__name__)


async def detach_target(mode: ReplicationMode, target: PostgresServer, names: ObjectNames) -> None:
    """End the target's replication. A target that does not run pulls nothing, so its files are enough."""
    if not target.has_data:
        return
    followed = not target.read_settings().keys().isdisjoint(standby.FOLLOWING_SETTINGS)
    if followed:
        target.change_settings(dict.fromkeys(standby.FOLLOWING_SETTINGS))
    if not target.is_running():
        return
    if followed:
        target.reload()
    async with session(target) as connection:
        if await connection.value("SELECT pg_is_in_recovery()"):
            return  # a standby, or a copy in the making: it has no subscription, and nothing can be dropped on it
    if mode is ReplicationMode.LOGICAL:
        await subscriber.unsubscribe(target, names)
    await publisher.unpublish(target, names)


async def clean_source(source: PostgresServer, names: ObjectNames) -> None:
    """Leave nothing of the deployment on the source."""
    wal_limit.lift(source)
    await fence.lift(source)
    if not source.is_running():
        log.warning("source.not_cleaned", source=source.resource_id, reason="it does not run")
        return
    source.reload()
    await publisher.drop_slots(source, names)
    await publisher.unpublish(source, names)
