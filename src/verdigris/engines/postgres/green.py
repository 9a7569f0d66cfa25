"""Makes a green and keeps it in step: the ``GreenBuilder`` of the domain."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

import structlog
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Finding, Pair
from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres import fence, marker, publisher, standby, subscriber, upgrade
from verdigris.engines.postgres.health import HealthMonitor
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import session, until
from verdigris.engines.postgres.source_checks import check_source

log = structlog.get_logger(__name__)

# A target that does not answer must not keep its source from being cleaned.
_TARGET_LIMIT_S = 15.0

# Share of the free disk that WAL kept for green may take at most. Past it the slot is invalidated and the deployment
# with it: production never stops for green.
_WAL_SHARE_OF_FREE_DISK = 0.5
_WAL_LIMIT_SETTING = "max_slot_wal_keep_size"
# A placeholder setting of our own that remembers, across anything, that the limit is ours to take away.
_WAL_LIMIT_OWNER = "verdigris.wal_limit_for"

_READ_ONLY = {"default_transaction_read_only": "on"}


class PostgresGreenBuilder:
    def __init__(self, servers: PostgresServers) -> None:
        self._servers = servers
        self._health = HealthMonitor()

    # ---------------------------------------------------------------------------------------------------------- making

    async def check_source(self, pair: Pair) -> list[Finding]:
        return await check_source(self._servers, pair)

    async def copy(self, pair: Pair) -> None:
        await self.dismantle(pair)
        await self._servers.remove(pair.target_resource_id)
        source = self._servers.server(pair.source_resource_id)
        installation = source.installation
        if pair.mode is ReplicationMode.PHYSICAL:
            extensions = await self._servers.extensions_in_use(source)
            installation = await self._servers.catalogue.installation(pair.target_version, extensions=extensions)
        target = await self._servers.clone_shell(
            pair.target_resource_id, like=source, installation=installation, instance_class=pair.target_instance_class
        )
        names = ObjectNames(pair.deployment_id)
        await self._limit_wal(source, pair.deployment_id)
        await standby.base_backup(source, target, names.physical_slot)
        if pair.mode is ReplicationMode.PHYSICAL:
            await standby.follow(source, target, names.physical_slot)
            await target.start()
            await marker.prove_physical(source, target)

    async def align(self, pair: Pair) -> None:
        """The copy has not been started yet, so it cannot have gone past the LSN it is to stop at."""
        source, target, names = self._pair(pair)
        lsn = await publisher.publish(source, names)
        await standby.follow(source, target, names.physical_slot, until_lsn=lsn)
        await standby.recover_to_end(target)
        async with session(target) as connection:
            await connection.run(
                sql.SQL("CREATE TABLE {} AS SELECT {} AS begins_at").format(
                    sql.Identifier(names.schema, "stream"), sql.Literal(lsn)
                )
            )
        await publisher.drop_publications(target, names)
        await target.stop()
        standby.stop_following(target)
        await publisher.drop_slot(source, names.physical_slot)

    async def upgrade(self, pair: Pair) -> None:
        source, target, _ = self._pair(pair)
        extensions = await self._servers.extensions_in_use(source)
        installation = await self._servers.catalogue.installation(pair.target_version, extensions=extensions)
        await upgrade.upgrade_in_place(target, installation)
        target.change_settings(_READ_ONLY)
        await target.start()
        await upgrade.finish(target)

    async def join(self, pair: Pair) -> None:
        source, target, names = self._pair(pair)
        if pair.mode is ReplicationMode.PHYSICAL:
            await marker.prove_physical(source, target)
            return
        async with session(target) as connection:
            lsn: str = await connection.value(
                sql.SQL("SELECT begins_at FROM {}").format(sql.Identifier(names.schema, "stream"))
            )
        await subscriber.subscribe(source, target, names, lsn)
        await marker.prove_logical(source, target, names)
        log.info("green.joined", deployment=pair.deployment_id, target=target.resource_id)

    # -------------------------------------------------------------------------------------------------------- watching

    async def lag_bytes(self, pair: Pair) -> int | None:
        source, target, names = self._pair(pair)
        return await self._health.lag_bytes(pair.mode, source, target, names)

    async def health(self, pair: Pair) -> str | None:
        return await self._health.problem(pair.mode, *self._pair(pair))

    # ------------------------------------------------------------------------------------------------------ taking down

    async def dismantle(self, pair: Pair) -> None:
        names = ObjectNames(pair.deployment_id)
        self._health.forget(names)
        target = self._known(pair.target_resource_id)
        if target is not None:
            async with self._despite_target(target):
                await self._detach_target(pair.mode, target, names)
        source = self._known(pair.source_resource_id)
        if source is not None:
            await self._clean_source(pair.mode, source, names)

    async def release_target(self, pair: Pair) -> None:
        await self.dismantle(pair)
        target = self._servers.server(pair.target_resource_id)
        target.change_settings(dict.fromkeys(_READ_ONLY))
        standby_signal = target.data_dir / "standby.signal"
        if not target.is_running():
            standby_signal.unlink(missing_ok=True)
            return
        target.reload()
        async with session(target) as connection:
            if await connection.value("SELECT pg_is_in_recovery()"):
                await connection.run("SELECT pg_promote(false)")
            await until(lambda: connection.value("SELECT NOT pg_is_in_recovery()"), every_s=standby.POLL_S)

    async def _detach_target(self, mode: ReplicationMode, target: PostgresServer, names: ObjectNames) -> None:
        """A target that does not run has nothing that pulls; what it holds goes when it runs next or is deleted."""
        if target.has_data:
            standby_before = bool(target.read_settings().get("primary_conninfo"))
            target.change_settings(dict.fromkeys(standby.FOLLOWING_SETTINGS))
            if standby_before and target.is_running():
                target.reload()
        if mode is ReplicationMode.LOGICAL and target.is_running():
            async with session(target) as connection:
                if await connection.value("SELECT pg_is_in_recovery()"):
                    return
            await subscriber.unsubscribe(target, names)
            await publisher.unpublish(target, names)

    async def _clean_source(self, mode: ReplicationMode, source: PostgresServer, names: ObjectNames) -> None:
        await fence.lift(source)
        self._lift_wal_limit(source)
        if not source.is_running():
            log.warning("source.not_cleaned", source=source.resource_id, reason="it does not run")
            return
        source.reload()
        await publisher.drop_slots(source, names)
        if mode is ReplicationMode.LOGICAL:
            await publisher.unpublish(source, names)

    @contextlib.asynccontextmanager
    async def _despite_target(self, target: PostgresServer) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_TARGET_LIMIT_S):
                yield
        except (EngineError, TimeoutError) as error:
            log.warning("target.not_detached", target=target.resource_id, reason=str(error) or "it does not answer")

    # ------------------------------------------------------------------------------------------------------ blue's disk

    async def _limit_wal(self, source: PostgresServer, deployment_id: str) -> None:
        """Bound the WAL that slots may keep back, unless somebody has done so already."""
        async with session(source) as connection:
            if await connection.value("SELECT setting::int FROM pg_settings WHERE name = %s", _WAL_LIMIT_SETTING) >= 0:
                return
            free_bytes = shutil.disk_usage(source.data_dir).free
            limit_mib = max(64, int(free_bytes * _WAL_SHARE_OF_FREE_DISK) // 1024**2)
            source.change_settings({_WAL_LIMIT_SETTING: f"{limit_mib}MB", _WAL_LIMIT_OWNER: deployment_id})
            source.reload()
        log.info("source.wal_limited", source=source.resource_id, limit_mib=limit_mib)

    def _lift_wal_limit(self, source: PostgresServer) -> None:
        if _WAL_LIMIT_OWNER in source.read_settings():
            source.change_settings({_WAL_LIMIT_SETTING: None, _WAL_LIMIT_OWNER: None})

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _pair(self, pair: Pair) -> tuple[PostgresServer, PostgresServer, ObjectNames]:
        return (
            self._servers.server(pair.source_resource_id),
            self._servers.server(pair.target_resource_id),
            ObjectNames(pair.deployment_id),
        )

    def _known(self, resource_id: str) -> PostgresServer | None:
        try:
            return self._servers.server(resource_id)
        except EngineError:
            return None
