"""Watches deployments between their creation and their switchover: a green that broke for good is shown as such."""

import asyncio

import structlog
from msgspec import structs

from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import BlueGreenDeployment
from verdigris.domain.statuses import DeploymentStatus
from verdigris.workflows.services import Services

log = structlog.get_logger(__name__)

INTERVAL_S = 2.0
WATCHED = frozenset({DeploymentStatus.AVAILABLE, DeploymentStatus.SWITCHOVER_FAILED})


class DeploymentMonitor:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("monitor.failed")
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """One round over all deployments; a server that does not answer costs the others nothing."""
        with self._services.store.transaction() as tx:
            watched = [deployment for deployment in tx.deployments() if deployment.status in WATCHED]
        await asyncio.gather(*(self._look_at(deployment) for deployment in watched))

    async def _look_at(self, deployment: BlueGreenDeployment) -> None:
        try:
            async with asyncio.timeout(INTERVAL_S * 5):
                problem = await self._services.green.health(self._services.pair(deployment))
        except (VerdigrisError, TimeoutError) as error:
            # Not answering is not broken: a server that restarts is well again in a moment.
            log.info("deployment.not_observed", deployment=deployment.identifier, reason=str(error))
            return
        if problem is not None:
            self._invalidate(deployment.identifier, problem)

    def _invalidate(self, identifier: str, problem: str) -> None:
        with self._services.store.transaction() as tx:
            deployment = tx.deployment(identifier)
            if deployment is None or deployment.status not in WATCHED:
                return  # something else has begun since we looked
            tx.put_deployment(
                structs.replace(deployment, status=DeploymentStatus.INVALID_CONFIGURATION, status_details=problem)
            )
        log.warning("deployment.invalid", deployment=identifier, reason=problem)
