"""Gives servers the values of their parameter groups.

There is no workflow for it: a group is changed for many instances at once, each of them may be busy with something
else, and only the last change counts. So whoever changes a group, or an instance's, marks the instances as ``applying``
in the same transaction, and this loop brings servers into line with what is written, whenever they are free.
"""

import asyncio

import structlog
from msgspec import structs

from verdigris.domain.errors import EngineError, VerdigrisError
from verdigris.domain.model import DBInstance, ParameterGroup
from verdigris.domain.parameters import ApplyMethod, ApplyStatus
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus
from verdigris.workflows.instances import route_of
from verdigris.workflows.services import HANDS_OFF, Services, is_busy, server_parameters

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0
# A server that is frozen answers nothing for ever.
LIMIT_S = 10.0


class ParameterKeeper:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("parameters.failed")
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """One round over all instances that have not got what their group says."""
        with self._services.store.transaction() as tx:
            waiting = [i for i in tx.instances() if i.parameter_status is ApplyStatus.APPLYING and _is_free(tx, i)]
        await asyncio.gather(*(self._apply(instance.resource_id) for instance in waiting))

    async def _apply(self, resource_id: str) -> None:
        with self._services.store.transaction() as tx:
            instance = tx.instance(resource_id)
            if instance is None or not _is_free(tx, instance):
                return
            group = tx.parameter_group(instance.parameter_group)
            values, deferred = server_parameters(tx, instance.parameter_group), _deferred(group)
        try:
            async with asyncio.timeout(LIMIT_S):
                await self._services.router.put_route(route_of(self._services, instance))
                status = await self._services.servers.set_parameters(resource_id, values, deferred=deferred)
        except EngineError as error:
            log.warning("parameters.refused", instance=instance.identifier, reason=str(error))
            status = ApplyStatus.FAILED
        except (VerdigrisError, TimeoutError) as error:
            log.info("parameters.not_applied", instance=instance.identifier, reason=str(error))
            return
        with self._services.store.transaction() as tx:
            now = tx.instance(resource_id)
            # Changed again meanwhile: the next round has it.
            if now is None or tx.parameter_group(now.parameter_group) != group:
                return
            tx.put_instance(structs.replace(now, parameter_status=status))
        log.info("parameters.applied", instance=instance.identifier, status=status)


def _is_free(tx: Transaction, instance: DBInstance) -> bool:
    if instance.status is not InstanceStatus.AVAILABLE or is_busy(tx, instance.resource_id):
        return False
    return not any(
        instance.resource_id in deployment.resource_ids
        for deployment in tx.deployments()
        if deployment.status in HANDS_OFF
    )


def _deferred(group: ParameterGroup | None) -> frozenset[str]:
    """Those that were changed with the wish that they wait for a reboot."""
    values = {} if group is None else group.parameters
    return frozenset(name for name, each in values.items() if each.apply_method is ApplyMethod.PENDING_REBOOT)
