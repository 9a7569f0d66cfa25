"""Read replicas on real servers: the ``Replicas`` of the domain.

A replica is a physical standby with a slot of its own on its source, which may be a standby too: a physical
green. All that ties the two together is found by resource ids: the slot's name, and the path of the source's socket.
Neither moves when an instance is renamed.
"""

import contextlib

import structlog
from msgspec import structs
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Replica, ReplicaState
from verdigris.engines.postgres import dismantling, fence, marker, standby, wal_limit
from verdigris.engines.postgres.names import READ_ONLY, ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import Row, session
from verdigris.engines.postgres.strays import end_strays

log = structlog.get_logger(__name__)

_SLOT = sql.SQL("""
    SELECT s.wal_status = 'lost', s.active,
           coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                         ELSE pg_current_wal_lsn() END,
                                    coalesce(r.replay_lsn, s.restart_lsn)), 0)::bigint
      FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
     WHERE s.slot_name = %s
""")
# Recovery that waits for a restart with larger settings does not end well when it is told to.
_IS_PAUSED = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() = 'paused' ELSE false END"


class PostgresReplicas:
    def __init__(self, servers: PostgresServers, *, copy_rate_mib: int | None = None) -> None:
        """``copy_rate_mib``: what a copy may take of the source in a second, at most; None: whatever it can."""
        self._servers = servers
        self._copy_rate_mib = copy_rate_mib

    async def create(self, replica: Replica) -> None:
        await self._remove_attempt(replica)
        source, names = self._servers.server(replica.source_resource_id), ObjectNames(replica.resource_id)
        extensions = await self._servers.extensions_in_use(source)
        target = await self._servers.clone_shell(
            replica.resource_id,
            like=source,
            installation=await self._servers.catalogue.installation(replica.engine_version, extensions=extensions),
            instance_class=replica.instance_class,
            parameters=replica.parameters,
        )
        await wal_limit.impose(source, replica.resource_id)
        await standby.base_backup(source, target, names.physical_slot, rate_mib=self._copy_rate_mib)
        # A green's, for as long as it waits. A standby needs none, and shall have none when it is promoted.
        target.change_settings({READ_ONLY: None})
        await standby.follow(source, target, names.physical_slot)
        await target.start()
        await marker.prove_replicas(source, [target])

    async def _remove_attempt(self, replica: Replica) -> None:
        """An earlier one, interrupted by the end of a control plane; its programs may be at work still."""
        target = self._known(replica.resource_id)
        if target is not None:
            await end_strays(target)
        await self._servers.remove(replica.resource_id)
        await self.release_source(replica)

    async def look(self, replica: Replica) -> ReplicaState:
        source, target = self._known(replica.source_resource_id), self._known(replica.resource_id)
        if source is None or not source.is_running():
            return ReplicaState(trouble="its source does not run")
        if target is None or not target.has_data:
            return ReplicaState(trouble="it has no data")
        async with session(source) as connection:
            needed = await standby.read_sizes(connection)
            rows = await connection.rows(_SLOT, ObjectNames(replica.resource_id).physical_slot)
        cramped = bool(standby.lacking(standby.needed_after_start(source, needed), standby.written_sizes(target)))
        if not target.is_running():
            return ReplicaState(trouble="it does not run", cramped=cramped)
        async with session(target) as connection:
            if not await connection.value("SELECT pg_is_in_recovery()"):
                return ReplicaState(trouble="it follows nobody any more: promote it here, too, or delete it")
            cramped |= bool(standby.lacking(needed, await standby.read_sizes(connection)))
        return structs.replace(_following(rows), cramped=cramped)

    async def protect_source(self, replica: Replica) -> None:
        source = self._known(replica.source_resource_id)
        # Behind a fence nobody writes, and we may not be let in either.
        if source is not None and source.is_running() and not fence.is_raised(source):
            await wal_limit.follow(source, ObjectNames(replica.resource_id))

    async def make_room(self, replica: Replica) -> bool:
        source, target = self._known(replica.source_resource_id), self._known(replica.resource_id)
        if source is None or target is None or not source.is_running() or not target.has_data:
            return False
        async with session(source) as connection:
            needed = await standby.read_sizes(connection)
        lacking = standby.lacking(standby.needed_after_start(source, needed), standby.written_sizes(target))
        if lacking:
            # One that is down for want of it comes up with the next attempt of its supervision.
            target.change_settings({name: str(size) for name, size in lacking.items()})
            log.info("replica.given_room", replica=replica.resource_id, settings=lacking)
        if not target.is_running():
            return False
        async with session(target) as connection:
            if not standby.lacking(needed, await standby.read_sizes(connection)):
                return False
        log.info("replica.restarted_for_room", replica=replica.resource_id)
        await self._servers.restart(replica.resource_id)
        return True

    async def catch_up(self, replica: Replica) -> None:
        source, target = map(self._servers.server, (replica.source_resource_id, replica.resource_id))
        await marker.prove_replicas(source, [target])

    async def promote(self, replica: Replica) -> None:
        target = self._servers.server(replica.resource_id)
        await self._servers.start(replica.resource_id)
        async with session(target) as connection:
            paused = await connection.value(_IS_PAUSED)
        if paused:
            await self.make_room(replica)
        await standby.promote(target)
        standby.stop_following(target)
        target.reload()
        await self.release_source(replica)
        log.info("replica.promoted", replica=replica.resource_id)

    async def set_free(self, replica: Replica) -> None:
        target = self._known(replica.resource_id)
        if target is not None and target.has_data:
            standby.stop_following(target)
            with contextlib.suppress(EngineError):  # it does not run
                target.reload()

    async def release_source(self, replica: Replica) -> None:
        source = self._known(replica.source_resource_id)
        if source is not None:
            await dismantling.release_slot(source, ObjectNames(replica.resource_id))

    def _known(self, resource_id: str) -> PostgresServer | None:
        try:
            return self._servers.server(resource_id)
        except EngineError:
            return None


def _following(slot: list[Row]) -> ReplicaState:
    """What the source's slot tells. It is given up, or dropped, before the source's disk is full: see wal_limit.py."""
    lost, active, lag_bytes = slot[0] if slot else (True, False, 0)
    if lost:
        trouble = "its source no longer has what it needs, because it fell too far behind: create it again"
        return ReplicaState(trouble=trouble)
    if not active:
        return ReplicaState(trouble="it does not receive anything from its source; its log says why")
    return ReplicaState(lag_bytes=max(0, lag_bytes))
