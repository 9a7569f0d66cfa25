"""Watches deployments between their creation and their switchover.

A green that broke for good is shown as such. As long as one is well, what replication does not carry is carried over,
and ``StatusDetails`` says what could not be, and which sessions a switchover could not take along.
"""

import asyncio

import structlog
from msgspec import structs

from verdigris.domain import status_details
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import BlueGreenDeployment
from verdigris.domain.statuses import DeploymentStatus
from verdigris.workflows.pins import look_for_pins
from verdigris.workflows.services import Services

log = structlog.get_logger(__name__)

INTERVAL_S = 2.0
# A server or router that is frozen answers nothing for ever.
LIMIT_S = 10.0
# Sessions are asked this often, and each time for this long at most: blue works for it a twentieth of the time, however
# many sessions there are.
PINS_INTERVAL_S = 10.0
PINS_BUDGET_S = 0.5
# A round of carrying: what is not done by then goes on in the next one.
TEND_LIMIT_S = 10.0
WATCHED = frozenset({DeploymentStatus.AVAILABLE, DeploymentStatus.SWITCHOVER_FAILED})


class DeploymentMonitor:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._pins_due_at: dict[str, float] = {}  # by deployment, event loop time
        self._untended: dict[str, str] = {}  # what there is to say about carrying, by deployment

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
        here = {deployment.identifier for deployment in watched}
        for remembered in (self._pins_due_at, self._untended):
            for identifier in remembered.keys() - here:
                del remembered[identifier]
        await asyncio.gather(*(self._look_at(deployment) for deployment in watched))

    async def _look_at(self, deployment: BlueGreenDeployment) -> None:
        try:
            async with asyncio.timeout(LIMIT_S):
                problem = await self._services.green.health(self._services.pair(deployment))
        except (VerdigrisError, TimeoutError) as error:
            # Not answering is not broken: a server that restarts is well again in a moment.
            log.info("deployment.not_observed", deployment=deployment.identifier, reason=str(error))
            return
        if problem is not None:
            self._invalidate(deployment.identifier, problem)
            return
        await self._tend(deployment)
        if deployment.status is DeploymentStatus.AVAILABLE and self._is_due(deployment):
            await self._name_pins(deployment)

    async def _tend(self, deployment: BlueGreenDeployment) -> None:
        told: str | None
        try:
            async with asyncio.timeout(TEND_LIMIT_S):
                told = " ".join(await self._services.green.tend(self._services.pair(deployment)))
        except TimeoutError:
            log.info("deployment.tending_goes_on", deployment=deployment.identifier)
            return
        except VerdigrisError as error:
            told = f"Not carried to green yet: {error}."
        if told != self._untended.get(deployment.identifier, ""):
            log.info("deployment.tended", deployment=deployment.identifier, told=told)
            self._pins_due_at.pop(deployment.identifier, None)  # to be shown at once
        self._untended[deployment.identifier] = told

    def _is_due(self, deployment: BlueGreenDeployment) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._pins_due_at.get(deployment.identifier, now):
            return False
        self._pins_due_at[deployment.identifier] = now + PINS_INTERVAL_S
        return True

    async def _name_pins(self, deployment: BlueGreenDeployment) -> None:
        services = self._services
        found = {}
        try:
            async with asyncio.timeout(LIMIT_S):
                for member in deployment.moving:
                    source, name = member.source_resource_id, member.source_identifier
                    report = await look_for_pins(
                        services.router, services.servers, name, source, budget_s=PINS_BUDGET_S
                    )
                    found[name] = report.pinned
        except (VerdigrisError, TimeoutError) as error:
            log.info("deployment.pins_not_known", deployment=deployment.identifier, reason=str(error))
            return
        pinned = status_details.pinned_in_all(found)
        told = status_details.waiting(pinned, self._untended.get(deployment.identifier))
        with services.store.transaction() as tx:
            now = tx.deployment(deployment.identifier)
            # What has begun meanwhile has its own things to say.
            if now is None or now.status is not DeploymentStatus.AVAILABLE or now.status_details == told:
                return
            tx.put_deployment(structs.replace(now, status_details=told))
        log.info("deployment.pins", deployment=deployment.identifier, pinned=found)

    def _invalidate(self, identifier: str, problem: str) -> None:
        with self._services.store.transaction() as tx:
            deployment = tx.deployment(identifier)
            if deployment is None or deployment.status not in WATCHED:
                return  # something else has begun since we looked
            tx.put_deployment(
                structs.replace(deployment, status=DeploymentStatus.INVALID_CONFIGURATION, status_details=problem)
            )
        log.warning("deployment.invalid", deployment=identifier, reason=problem)
