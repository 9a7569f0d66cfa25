"""What has been left for an instance's maintenance window is done in it, by a reboot."""

import asyncio

import structlog

from verdigris.aws.errors import Fault
from verdigris.domain import maintenance
from verdigris.domain.model import DBInstance, PendingChange
from verdigris.domain.statuses import InstanceStatus
from verdigris.rds.context import Context
from verdigris.rds.instance_changes import begin_reboot

log = structlog.get_logger(__name__)

INTERVAL_S = 20.0


def _window(instance: DBInstance) -> str:
    return str(instance.settings.get("PreferredMaintenanceWindow", maintenance.DEFAULT_WINDOW))


class Maintenance:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("maintenance.failed")
            await asyncio.sleep(INTERVAL_S)

    def look(self) -> None:
        """Begins whatever is due. What is busy or in the way now may be free at the next look; else it is left for the
        next window."""
        with self._context.store.transaction() as tx:
            due = [instance.resource_id for instance in tx.instances() if self._is_due(instance)]
        for resource_id in due:
            self._begin(resource_id)

    def _is_due(self, instance: DBInstance) -> bool:
        return (
            instance.pending != PendingChange()
            and instance.status is InstanceStatus.AVAILABLE
            and maintenance.is_open(_window(instance), self._context.clock.now())
        )

    def _begin(self, resource_id: str) -> None:
        try:
            with self._context.store.transaction() as tx:
                instance = tx.instance(resource_id)
                if instance is None or not self._is_due(instance):
                    return
                begin_reboot(self._context, tx, instance)
        except Fault as fault:
            log.info("maintenance.not_now", resource_id=resource_id, reason=fault.message)
            return
        log.info("maintenance.begun", resource_id=resource_id)
        self._context.wake()
