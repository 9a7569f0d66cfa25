"""The servers' side of snapshots: ``domain.ports.Snapshots``."""

import asyncio
from dataclasses import dataclass, field

from tests.simulation.engines import Dismantling, WorldServers
from tests.simulation.servers import Server
from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Restoration

_COPYING_S = 0.2


@dataclass
class Snapshot:
    version: str
    password: str
    rows: list[int] = field(default_factory=list)
    sequence: int = 0
    at_work: bool = False  # a program is
    complete: bool = False
    taken_at: float = 0.0


class WorldSnapshots(Dismantling):
    """``Snapshots``."""

    async def take(self, snapshot_id: str, resource_id: str) -> int:
        await self.discard(snapshot_id, resource_id)
        source, found = self.server(resource_id), self.world.snapshots
        source.require_running()

        def enrol() -> None:
            found[snapshot_id] = Snapshot(source.version, source.password)

        try:
            await self.do("snapshot.enrol", enrol)
            await self.do("snapshot.wal_limit", lambda: source.wal_limits.add(snapshot_id), source)
            await self.do("snapshot.slot", lambda: source.slots.add(snapshot_id), source)
            await self.do("snapshot.begin", lambda: setattr(found[snapshot_id], "at_work", True), source)
            await asyncio.sleep(_COPYING_S)
            await self.do("snapshot.end", lambda: self._end(found[snapshot_id], source), source)
            await self.do("snapshot.verify", lambda: None)
            await self.do("snapshot.complete", lambda: setattr(found[snapshot_id], "complete", True))
        except EngineError:
            await self.do("snapshot.delete", lambda: found.pop(snapshot_id, None))
            raise
        await self.release_slot(resource_id, snapshot_id)
        return len(found[snapshot_id].rows)

    def _end(self, snapshot: Snapshot, source: Server) -> None:
        """What is not on disk is not in it."""
        if not snapshot.at_work:
            raise EngineError("pg_basebackup was killed")
        source.flush()
        snapshot.at_work = False
        snapshot.rows, snapshot.sequence = source.rows.copy(), source.sequence
        snapshot.taken_at = self.world.loop.time()

    async def discard(self, snapshot_id: str, resource_id: str) -> None:
        await self.remove(snapshot_id)
        await self.release_slot(resource_id, snapshot_id)

    async def protect_source(self, snapshot_id: str, resource_id: str) -> None:
        """The disks of this world have no end."""

    async def copy(self, snapshot_id: str, source_id: str) -> None:
        await self.remove(snapshot_id)
        found = self.world.snapshots
        source = self._complete(source_id)

        def begin() -> None:
            found[snapshot_id] = Snapshot(source.version, source.password, source.rows.copy(), source.sequence)

        await self.do("snapshot.link", begin)
        await self.do("snapshot.complete", lambda: setattr(found[snapshot_id], "complete", True))

    async def restore(self, restoration: Restoration) -> None:
        servers, rid = self.world.servers, restoration.resource_id
        local = WorldServers(self.world, self.controller)
        if rid in servers and servers[rid].stage == "done":
            await local.start(rid)
            return
        await local.remove(rid)
        snapshot = self._complete(restoration.snapshot_id)

        def shell() -> None:
            server = Server(rid, restoration.engine_version, restoration.instance_class, snapshot.password)
            server.running = server.wanted = server.data = False
            server.stage = "new"
            servers[rid] = server

        await self.do("restore.shell", shell)
        await self.do("restore.copy", lambda: self._fill(servers[rid], snapshot))
        await self.do("restore.verify", lambda: None)
        await self.do("restore.rename", lambda: setattr(servers[rid], "data", True))
        await self.do("restore.recover", servers[rid].start)
        await self.do("restore.set_free", lambda: None, servers[rid])
        await self.do("restore.stop", servers[rid].stop)
        await local.start(rid)
        await self.do("restore.created", lambda: setattr(servers[rid], "stage", "done"))

    def _fill(self, server: Server, snapshot: Snapshot) -> None:
        server.rows, server.stamps = snapshot.rows.copy(), [0.0] * len(snapshot.rows)
        server.durable, server.sequence = len(server.rows), snapshot.sequence

    async def remove(self, snapshot_id: str) -> None:
        found = self.world.snapshots
        if snapshot_id in found:
            await self.do("snapshot.end_programs", lambda: setattr(found[snapshot_id], "at_work", False))
            await self.do("snapshot.delete", lambda: found.pop(snapshot_id, None))

    def _complete(self, snapshot_id: str) -> Snapshot:
        snapshot = self.world.snapshots.get(snapshot_id)
        if snapshot is None or not snapshot.complete:
            raise EngineError(f"{snapshot_id} is not a complete snapshot")
        return snapshot
