"""The servers' side of read replicas: ``domain.ports.Replicas``."""

from tests.simulation.engines import Dismantling, WorldGreen, WorldServers, promote
from verdigris.domain.ports import Pair, Replica, ReplicaState
from verdigris.domain.statuses import ReplicationMode


class WorldReplicas(Dismantling):
    """``Replicas``. A copy for a physical green and one for a replica are made of the same effects."""

    async def create(self, replica: Replica) -> None:
        pair = Pair(
            deployment_id=replica.resource_id,
            source_resource_id=replica.source_resource_id,
            target_resource_id=replica.resource_id,
            mode=ReplicationMode.PHYSICAL,
            source_version=replica.engine_version,
            target_version=replica.engine_version,
            target_instance_class=replica.instance_class,
        )
        await WorldGreen(self.world, self.controller).copy(pair)

    async def look(self, replica: Replica) -> ReplicaState:
        return ReplicaState()

    async def protect_source(self, replica: Replica) -> None:
        """The disks of this world have no end."""

    async def make_room(self, replica: Replica) -> bool:
        return False

    async def catch_up(self, replica: Replica) -> None:
        source, target = self.server(replica.source_resource_id), self.server(replica.resource_id)
        await self.do("replica.marker", lambda: None, source)
        await self.applied(source, target, len(source.rows))

    async def promote(self, replica: Replica) -> None:
        target = self.server(replica.resource_id)
        await WorldServers(self.world, self.controller).start(replica.resource_id)
        await self.do("replica.promote", lambda: promote(target), target)
        await self.do("replica.stop_following", lambda: None)
        await self.do("replica.reload", target.reload, target)
        await self.release_source(replica)

    async def set_free(self, replica: Replica) -> None:
        target = self.world.servers.get(replica.resource_id)
        if target is not None and target.data:
            await self.do("replica.set_free", lambda: promote(target))

    async def release_source(self, replica: Replica) -> None:
        await self.release_slot(replica.source_resource_id, replica.resource_id)
