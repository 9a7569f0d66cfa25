"""Taking away what a deployment, or a read replica, put on its servers. Each call looks at what is there, and may be
made at any time.

A server that does not run cannot drop anything. What is due on it is noted in its record, and done when it runs again:
a slot that nobody reads any more would keep WAL until the disk is full.
"""

import structlog

from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres import fence, publisher, standby, subscriber, wal_limit
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import session

log = structlog.get_logger(__name__)


async def detach_target(mode: ReplicationMode, target: PostgresServer, names: ObjectNames) -> None:
    """End the target's replication. A target that does not run pulls nothing, so its files are enough for now."""
    if not target.has_data:
        return
    followed = not target.read_settings().keys().isdisjoint(standby.FOLLOWING_SETTINGS)
    if followed:
        target.change_settings(dict.fromkeys(standby.FOLLOWING_SETTINGS))
    if not target.is_running():
        _clean_later(target, names)
        return
    if followed:
        target.reload()
    async with session(target) as connection:
        if await connection.value("SELECT pg_is_in_recovery()"):
            return  # a standby, or a copy in the making: it has no subscription, and nothing can be dropped on it
    if mode is ReplicationMode.LOGICAL:
        await subscriber.unsubscribe(target, names)
        await publisher.drop_slots(target, names)
        wal_limit.lift(target, names.deployment_id)
        target.reload()
    await publisher.unpublish(target, names)


async def clean_source(source: PostgresServer, names: ObjectNames) -> None:
    """Leave nothing of the deployment on the source. The limit of what its slots may keep goes after them."""
    await fence.lift(source)
    if not source.is_running():
        _clean_later(source, names)
        return
    async with source.cleaning:
        await publisher.drop_slots(source, names)
        await publisher.unpublish(source, names)
        wal_limit.lift(source, names.deployment_id)
        source.reload()
        _cleaned(source, names.deployment_id)


async def release_slot(source: PostgresServer, names: ObjectNames) -> None:
    """Keep nothing back for a read replica any more, which has nothing else on its source."""
    if not source.is_running():
        _clean_later(source, names)
        return
    async with source.cleaning:
        await publisher.drop_slots(source, names)
        wal_limit.lift(source, names.deployment_id)
        source.reload()
        _cleaned(source, names.deployment_id)


async def clean_up(server: PostgresServer) -> None:
    """Make good on a server that runs now what was due while it did not. Raises ``EngineError``; it stays due then."""
    async with server.cleaning:
        for deployment_id in server.record.to_clean:
            names = ObjectNames(deployment_id)
            async with session(server) as connection:
                if await connection.value("SELECT pg_is_in_recovery()"):
                    await publisher.drop_slots(server, names)  # of its own; the rest it has from its primary
                    return
            await subscriber.unsubscribe(server, names)
            await publisher.drop_slots(server, names)
            await publisher.unpublish(server, names)
            wal_limit.lift(server, deployment_id)
            server.reload()
            _cleaned(server, deployment_id)
            log.info("server.cleaned", resource_id=server.resource_id, deployment=deployment_id)


def _clean_later(server: PostgresServer, names: ObjectNames) -> None:
    log.warning("server.not_cleaned", resource_id=server.resource_id, reason="it does not run")
    server.save(to_clean=tuple({*server.record.to_clean, names.deployment_id}))


def _cleaned(server: PostgresServer, deployment_id: str) -> None:
    if deployment_id in server.record.to_clean:
        server.save(to_clean=tuple(other for other in server.record.to_clean if other != deployment_id))
