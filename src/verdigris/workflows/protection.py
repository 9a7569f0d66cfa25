"""Production comes first: as long as there is a green, or a read replica, or a snapshot is taken, what its source keeps
for it stays within bounds.

A loop of its own, because none of them, however slow or frozen, may keep it from looking.
"""

import asyncio
from collections.abc import Awaitable

import structlog

from verdigris.domain.errors import VerdigrisError
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, SnapshotStatus
from verdigris.workflows.replication import replica_record
from verdigris.workflows.services import Services, pair_of

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
# A server that is frozen answers nothing for ever.
LIMIT_S = 30.0
# Whoever may have slots on blue: also while green is being made, and when it is broken.
PROTECTED = frozenset(DeploymentStatus) - {DeploymentStatus.SWITCHOVER_COMPLETED, DeploymentStatus.DELETING}


class SourceProtection:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("protection.failed")
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        with self._services.store.transaction() as tx:
            deployments = [deployment for deployment in tx.deployments() if deployment.status in PROTECTED]
            pairs = [pair_of(tx, each) for each in deployments if each.primary.target_resource_id is not None]
            replicas = [
                replica_record(tx, instance)
                for instance in tx.instances()
                if instance.replica_of is not None and instance.status is not InstanceStatus.DELETING
            ]
            taken = [each for each in tx.snapshots() if each.status is SnapshotStatus.CREATING and not each.copy_of]
        green, ours, snapshots = self._services.green, self._services.replicas, self._services.snapshots
        await asyncio.gather(
            *(self._look_at(pair.deployment_id, green.protect_source(pair)) for pair in pairs),
            *(self._look_at(replica.resource_id, ours.protect_source(replica)) for replica in replicas),
            *(self._look_at(s.identifier, snapshots.protect_source(s.snapshot_id, s.resource_id)) for s in taken),
        )

    async def _look_at(self, follower: str, protecting: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                await protecting
        except (VerdigrisError, TimeoutError) as error:
            log.info("source.not_protected", follower=follower, reason=str(error) or "no answer")
