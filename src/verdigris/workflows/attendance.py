"""Brings what runs into line with the records when a control plane starts, and the records with what dies later."""

import structlog
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus
from verdigris.workflows.instances import route_of
from verdigris.workflows.services import Services, is_busy

log = structlog.get_logger(__name__)

# Servers of these are started and stopped by their own workflow.
_ATTENDED_BY_WORKFLOW = frozenset({InstanceStatus.CREATING, InstanceStatus.DELETING})
_DOWN = frozenset({InstanceStatus.STOPPING, InstanceStatus.STOPPED, InstanceStatus.STARTING})


class Attendance:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def bring_up(self) -> None:
        """Adopt the servers that run, start those that should, and give the router endpoints that it has lost.

        Members of a deployment that is being worked on get no endpoints here: during a switchover the router's table
        is the truth, and the workflow brings the records after it.
        """
        with self._services.store.transaction() as tx:
            instances = tx.instances()
            busy = _resources_of_workflows(tx)
            undone = {found.resource_id for found in instances if _is_undone(tx, found)}
        known = set(self._services.servers.known())
        routed = {route.name for route in await self._services.router.routes()}
        for instance in instances:
            if instance.status in _ATTENDED_BY_WORKFLOW or instance.resource_id not in known:
                continue  # an instance whose creation failed has no server
            if instance.resource_id in undone:
                continue
            if instance.status not in _DOWN:
                await self._start(instance)
            if instance.identifier not in routed and instance.resource_id not in busy:
                await self._give_endpoint(instance)

    async def _start(self, instance: DBInstance) -> None:
        try:
            await self._services.servers.start(instance.resource_id)
        except VerdigrisError as error:
            # One server that does not come up must not keep the others, or the API, from running.
            self.gave_up(instance.resource_id, str(error))

    async def _give_endpoint(self, instance: DBInstance) -> None:
        try:
            await self._services.router.put_route(route_of(self._services, instance))
        except VerdigrisError as error:
            log.warning("endpoint.not_opened", identifier=instance.identifier, port=instance.port, reason=str(error))

    def came_up(self, resource_id: str) -> None:
        """A server runs. One that had been given up is available again."""
        self._change(resource_id, InstanceStatus.FAILED, InstanceStatus.AVAILABLE, "")

    def gave_up(self, resource_id: str, reason: str) -> None:
        """A server does not come up, or does not stay up. It is tried now and then."""
        log.error("instance.failed", resource_id=resource_id, reason=reason)
        self._change(resource_id, InstanceStatus.AVAILABLE, InstanceStatus.FAILED, reason)

    def _change(self, resource_id: str, before: InstanceStatus, after: InstanceStatus, reason: str) -> None:
        """Only from ``before``: in any other state a workflow has the instance in hand."""
        with self._services.store.transaction() as tx:
            instance = tx.instance(resource_id)
            if instance is None or instance.status is not before or _is_undone(tx, instance):
                return
            tx.put_instance(structs.replace(instance, status=after, status_reason=reason))
            now = self._services.clock.now()
            failed = after is InstanceStatus.FAILED
            tx.add_event(
                events.instance_failed(instance, reason, now) if failed else events.instance_rebooted(instance, now)
            )


def _is_undone(tx: Transaction, instance: DBInstance) -> bool:
    """Its creation failed, and what there was of it is being taken away: its server may still run, or run again."""
    return instance.status is InstanceStatus.FAILED and is_busy(tx, instance.resource_id)


def _resources_of_workflows(tx: Transaction) -> set[str]:
    """The resource ids that unfinished workflows work on; a deployment's are those of all its members."""
    subjects = {workflow.subject for workflow in tx.unfinished_workflows()}
    deployments = [deployment for deployment in tx.deployments() if deployment.identifier in subjects]
    return subjects.union(*(deployment.resource_ids for deployment in deployments))
