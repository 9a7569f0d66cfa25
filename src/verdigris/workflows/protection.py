"""Blue comes first: as long as there is a green, what blue keeps for it stays within bounds.

A loop of its own, because no green, however slow or frozen, may keep it from looking.
"""

import asyncio

import structlog

from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import BlueGreenDeployment
from verdigris.domain.statuses import DeploymentStatus
from verdigris.workflows.services import Services

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
        made = [deployment for deployment in deployments if deployment.primary.target_resource_id is not None]
        await asyncio.gather(*(self._look_at(deployment) for deployment in made))

    async def _look_at(self, deployment: BlueGreenDeployment) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                await self._services.green.protect_source(self._services.pair(deployment))
        except (VerdigrisError, TimeoutError) as error:
            log.info("source.not_protected", deployment=deployment.identifier, reason=str(error) or "no answer")
