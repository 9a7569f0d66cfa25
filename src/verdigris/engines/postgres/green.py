"""Makes a green and keeps it in step: the ``GreenBuilder`` of the domain."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Finding, Pair
from verdigris.domain.statuses import ReplicationMode
from verdigris.domain.versions import PostgresVersion
from verdigris.engines.postgres import (
    dismantling,
    fence,
    fingerprint,
    lag,
    marker,
    own_writes,
    publisher,
    session_functions,
    standby,
    subscriber,
    upgrade,
    wal_limit,
)
from verdigris.engines.postgres.carrying import ddl, definitions, large_objects, materialized_views, roles
from verdigris.engines.postgres.carrying.tending import Tending
from verdigris.engines.postgres.guardrails import run as guardrails
from verdigris.engines.postgres.guardrails.model import DEFAULT_TIMEOUT_S, Moment, Subject
from verdigris.engines.postgres.names import READ_ONLY, ObjectNames
from verdigris.engines.postgres.own_sessions import UNNOTICED
from verdigris.engines.postgres.remembered import remember
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import MAINTENANCE_DATABASE, Database, for_each, list_databases, session
from verdigris.engines.postgres.strays import end_strays

if TYPE_CHECKING:
    from verdigris.engines.postgres.guardrails.trouble import Troubles

log = structlog.get_logger(__name__)

# A target that does not answer must not keep its source from being cleaned.
_TARGET_LIMIT_S = 15.0


class PostgresGreenBuilder:
    def __init__(self, servers: PostgresServers, *, copy_rate_mib: int | None = None) -> None:
        """``copy_rate_mib``: what a copy may take of the source in a second, at most; None: whatever it can."""
        self._servers = servers
        self._copy_rate_mib = copy_rate_mib
        self._troubles: Troubles = {}
        self._note_due_s: dict[str, float] = {}  # by names.base, monotonic
        self.tending = Tending()

    # ---------------------------------------------------------------------------------------------------------- making

    async def check_source(self, pair: Pair) -> list[Finding]:
        """Everything that is wrong, not the first thing only."""
        return await guardrails.findings(self.subject(pair, Moment.CREATION))

    async def copy(self, pair: Pair) -> None:
        names = ObjectNames(pair.deployment_id)
        async with self.tending.interrupted(names):
            await self._dismantle(pair, names)  # of an earlier attempt
            self.tending.begin(names)
        await self._servers.remove(pair.target_resource_id)
        source = self._servers.server(pair.source_resource_id)
        installation, parameters = source.installation, source.record.parameters
        if pair.mode is ReplicationMode.PHYSICAL:
            parameters = dict(pair.target_parameters)
            extensions = await self._servers.extensions_in_use(source)
            installation = await self._servers.catalogue.installation(pair.target_version, extensions=extensions)
        target = await self._servers.clone_shell(
            pair.target_resource_id,
            like=source,
            installation=installation,
            instance_class=pair.target_instance_class,
            parameters=parameters,
        )
        await wal_limit.impose(source, pair.deployment_id)
        await standby.base_backup(source, target, names.physical_slot, rate_mib=self._copy_rate_mib)
        if pair.mode is ReplicationMode.PHYSICAL:
            await standby.follow(source, target, names.physical_slot)
            await target.start()
            await marker.prove_physical(source, target)

    async def align(self, pair: Pair) -> None:
        """The copy has not been started yet, so it cannot have gone past the LSN it is to stop at."""
        source, target, names = self._pair(pair)
        majors = (source.version.major, PostgresVersion.parse(pair.target_version).major)
        async with session(source) as connection:
            horizon = await large_objects.read_horizon(connection)
        lsn = await publisher.publish(source, names)
        await standby.follow(source, target, names.physical_slot, until_lsn=lsn)
        await standby.recover_to_end(target)
        await self._remember(target, names, lsn, horizon, majors)
        await publisher.take_from_copy(target, names)
        await target.stop()
        standby.stop_following(target)
        await publisher.drop_slot(source, names.physical_slot)

    async def upgrade(self, pair: Pair) -> None:
        source, target, names = self._pair(pair)
        extensions = await self._servers.extensions_in_use(source)
        installation = await self._servers.catalogue.installation(pair.target_version, extensions=extensions)
        await upgrade.upgrade_in_place(target, installation, pair.target_parameters)
        databases = len(await list_databases(source))
        target.change_settings(
            {READ_ONLY: "on"}
            | wal_limit.unless_set(target, own_writes.KEEP_MIB, pair.deployment_id)
            | subscriber.settings_for(databases, target.read_settings())
        )
        await target.start()
        await upgrade.finish(target, previous=source.version)
        await publisher.take_back_identities(target, names)
        majors = (source.version.major, target.version.major)

        async def remember(database: Database) -> None:
            async with session(target, database.name, **UNNOTICED) as connection:
                await definitions.remember_respelling(connection, names, majors)

        await for_each(await list_databases(target), remember)

    async def join(self, pair: Pair) -> None:
        source, target, names = self._pair(pair)
        if pair.mode is ReplicationMode.PHYSICAL:
            await session_functions.install_everywhere(source, names)
            await marker.prove_physical(source, target)
            return
        async with session(target) as connection:
            lsn: str = await connection.value(
                sql.SQL("SELECT begins_at FROM {}").format(sql.Identifier(names.schema, "stream"))
            )
        await subscriber.subscribe(source, target, names, lsn)
        await marker.prove_logical(source, target, names)
        await own_writes.watch(target, names)
        log.info("green.joined", deployment=pair.deployment_id, target=target.resource_id)

    # -------------------------------------------------------------------------------------------------------- watching

    async def lag_bytes(self, pair: Pair) -> int | None:
        return await lag.lag_bytes(*self._pair(pair))

    async def health(self, pair: Pair) -> str | None:
        """None also while a server is down: one that restarts is well again in a moment."""
        found = await guardrails.findings(self.subject(pair, Moment.STANDING))
        return " ".join(map(str, found)) or None

    def subject(self, pair: Pair, moment: Moment, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Subject:
        """For guardrails to look at, with what was seen of it before."""
        return Subject(servers=self._servers, pair=pair, moment=moment, timeout_s=timeout_s, troubles=self._troubles)

    async def protect_source(self, pair: Pair) -> None:
        source = self._known(pair.source_resource_id)
        # Behind a fence nobody writes, and we may not be let in either.
        if source is not None and source.is_running() and not fence.is_raised(source):
            await wal_limit.follow(source, ObjectNames(pair.deployment_id))

    async def tend(self, pair: Pair) -> list[str]:
        if pair.mode is ReplicationMode.PHYSICAL:
            return []
        source, target, names = self._pair(pair)
        now_s = time.monotonic()
        if target.is_running() and now_s >= self._note_due_s.get(names.base, now_s):
            self._note_due_s[names.base] = now_s + own_writes.INTERVAL_S
            async with self.tending.interrupted(names):
                if not self.tending.is_over(names):
                    await own_writes.note_everywhere(target, names)
        return await self.tending.tend(source, target, names)

    # ------------------------------------------------------------------------------------------------------ taking down

    async def dismantle(self, pair: Pair) -> None:
        names = ObjectNames(pair.deployment_id)
        async with self.tending.interrupted(names):
            self.tending.end(names)
            await self._dismantle(pair, names)

    async def _dismantle(self, pair: Pair, names: ObjectNames) -> None:
        for key in [key for key in self._troubles if key[0] == names.base]:
            del self._troubles[key]
        self._note_due_s.pop(names.base, None)
        target = self._known(pair.target_resource_id)
        if target is not None:
            async with self._despite_target(target):
                await end_strays(target)
                await dismantling.detach_target(pair.mode, target, names)
        source = self._known(pair.source_resource_id)
        if source is not None:
            await dismantling.clean_source(source, names)

    async def release_target(self, pair: Pair) -> None:
        names = ObjectNames(pair.deployment_id)
        await self.dismantle(pair)
        target = self._servers.server(pair.target_resource_id)
        # It lives on, so what ``dismantle`` forgives a target that goes is not forgiven here.
        await dismantling.detach_target(pair.mode, target, names)
        target.change_settings({READ_ONLY: None})
        if target.is_running():
            target.reload()
            await standby.promote(target)
            await publisher.unpublish(target, names)
        else:
            standby.stop_following(target)

    async def _remember(
        self, copy: PostgresServer, names: ObjectNames, lsn: str, horizon: str, majors: definitions.Majors
    ) -> None:
        """On the copy, which is at ``lsn`` exactly: where its stream begins, and how everything was defined then."""

        async def one(database: Database) -> None:
            shared = database.name == MAINTENANCE_DATABASE
            async with session(copy, database.name, **UNNOTICED) as connection:
                await fingerprint.take(connection, names, shared=shared)
                await ddl.remember(connection, names, majors)
                await large_objects.take(connection, names, horizon)
                await materialized_views.take(connection, names)
                if shared:
                    await roles.take(connection, names)

        await for_each(await list_databases(copy), one)
        stream = sql.Identifier(names.schema, "stream")
        async with session(copy, MAINTENANCE_DATABASE, **UNNOTICED) as connection:
            await remember(connection, stream, sql.SQL("SELECT {} AS begins_at").format(sql.Literal(lsn)))

    @contextlib.asynccontextmanager
    async def _despite_target(self, target: PostgresServer) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_TARGET_LIMIT_S):
                yield
        except (EngineError, TimeoutError) as error:
            log.warning("target.not_detached", target=target.resource_id, reason=str(error) or "it does not answer")

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
