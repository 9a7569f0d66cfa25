"""Keeps read replicas going: shows which of them do not follow, and gives them what their source has come to have."""

import asyncio
from functools import partial

import structlog
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Replica, Transaction
from verdigris.domain.statuses import InstanceStatus
from verdigris.workflows.replication import replica_record
from verdigris.workflows.services import Services, is_busy

log = structlog.get_logger(__name__)

INTERVAL_S = 2.0
# A server that is frozen answers nothing for ever; one that is restarted takes its time.
LIMIT_S = 10.0
RESTART_LIMIT_S = 60.0
# Trouble that passes by itself (a restart of either side, a lost connection) is not worth an event.
GRACE_S = 5.0


class ReplicaKeeper:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._troubled_since: dict[str, float] = {}  # by resource id, event loop time
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            while True:
                try:
                    self._begin_looks()
                except Exception:
                    log.exception("replicas.failed")
                await asyncio.sleep(INTERVAL_S)
        finally:
            for look in self._looks.values():
                look.cancel()
            await asyncio.gather(*self._looks.values(), return_exceptions=True)

    async def look(self) -> None:
        """One round over all replicas."""
        self._begin_looks()
        await asyncio.gather(*self._looks.values())

    def _begin_looks(self) -> None:
        """A look each, and never two at one: a replica that does not answer costs the others nothing."""
        with self._services.store.transaction() as tx:
            replicas = [replica_record(tx, instance) for instance in tx.instances() if is_kept(tx, instance)]
        for resource_id in self._troubled_since.keys() - {replica.resource_id for replica in replicas}:
            del self._troubled_since[resource_id]
        for replica in replicas:
            if replica.resource_id not in self._looks:
                task = asyncio.create_task(self._look_at(replica), name=f"look at {replica.resource_id}")
                self._looks[replica.resource_id] = task
                task.add_done_callback(partial(self._ended, replica.resource_id))

    def _ended(self, resource_id: str, _: asyncio.Task[None]) -> None:
        del self._looks[resource_id]

    async def _look_at(self, replica: Replica) -> None:
        restarted = False
        try:
            async with asyncio.timeout(LIMIT_S):
                state = await self._services.replicas.look(replica)
            if state.cramped:
                async with asyncio.timeout(RESTART_LIMIT_S):
                    restarted = await self._services.replicas.make_room(replica)
            trouble = state.trouble
        except (VerdigrisError, TimeoutError) as error:
            trouble = str(error) or "it, or its source, does not answer"
        try:
            self._record(replica.resource_id, self._lasting(replica.resource_id, trouble), restarted=restarted)
        except Exception:
            log.exception("replica.not_recorded", replica=replica.resource_id)

    def _lasting(self, resource_id: str, trouble: str | None) -> str | None:
        """None: it is too early to say."""
        now = asyncio.get_running_loop().time()
        if trouble is None:
            self._troubled_since.pop(resource_id, None)
            return ""
        return trouble if now - self._troubled_since.setdefault(resource_id, now) >= GRACE_S else None

    def _record(self, resource_id: str, error: str | None, *, restarted: bool) -> None:
        with self._services.store.transaction() as tx:
            instance = tx.instance(resource_id)
            if instance is None or not is_kept(tx, instance):
                return
            now = self._services.clock.now()
            if restarted:
                tx.add_event(events.instance_rebooted(instance, now))
            if error is None or error == instance.replication_error:
                return
            tx.put_instance(structs.replace(instance, replication_error=error))
            if not error:
                tx.add_event(events.replication_resumed(instance, now))
            elif not instance.replication_error:
                tx.add_event(events.replication_stopped(instance, error, now))
        log.info("replica.state_changed", replica=resource_id, error=error)


def is_kept(tx: Transaction, instance: DBInstance) -> bool:
    """In any other state a workflow has it in hand."""
    return (
        instance.replica_of is not None
        and instance.status in (InstanceStatus.AVAILABLE, InstanceStatus.FAILED)
        and not is_busy(tx, instance.resource_id)
    )
