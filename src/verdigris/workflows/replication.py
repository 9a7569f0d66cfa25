"""Read replicas in the records, and what becomes of them when their source is deleted."""

import asyncio
from collections.abc import Awaitable

import structlog
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.errors import ControllerSuperseded, StepFailed, VerdigrisError
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Replica, Transaction
from verdigris.domain.statuses import InstanceStatus
from verdigris.workflows.services import Services, server_parameters

log = structlog.get_logger(__name__)

# A source that is deleted waits this long for each of its replicas: to receive the rest, and to be promoted.
CATCH_UP_LIMIT_S = 30.0
PROMOTION_LIMIT_S = 60.0


def replica_record(tx: Transaction, instance: DBInstance) -> Replica:
    """Raises ``StepFailed`` for an instance that is no read replica."""
    if instance.replica_of is None:
        raise StepFailed(f"{instance.identifier} is not a read replica")
    return Replica(
        resource_id=instance.resource_id,
        source_resource_id=instance.replica_of,
        engine_version=instance.engine_version,
        instance_class=instance.instance_class,
        parameters=server_parameters(tx, instance.parameter_group),
    )


def standalone(replica: DBInstance) -> DBInstance:
    """The record of a replica that follows nobody any more."""
    return structs.replace(replica, replica_of=None, replication_error="", read_only=False)


# ------------------------------------------------------------------------------------------- when its source is deleted


async def set_replicas_free(services: Services, source_resource_id: str) -> None:
    """Each receives the rest, if it can, and is promoted. One that does not answer is left as it is, and follows nobody
    when it is next started."""
    with services.store.transaction() as tx:
        replicas = [replica_record(tx, each) for each in tx.replicas_of([source_resource_id])]
    ends = await asyncio.gather(*(_set_free(services, replica) for replica in replicas), return_exceptions=True)
    for error in ends:
        if error is not None:
            raise error


async def _set_free(services: Services, replica: Replica) -> None:
    await _is_done(services.replicas.catch_up(replica), CATCH_UP_LIMIT_S, "replica.not_caught_up", replica)
    if not await _is_done(services.replicas.promote(replica), PROMOTION_LIMIT_S, "replica.not_promoted", replica):
        await services.replicas.set_free(replica)


async def _is_done(work: Awaitable[None], limit_s: float, otherwise: str, replica: Replica) -> bool:
    """What cannot be done, or not in time, is logged as ``otherwise``."""
    try:
        async with asyncio.timeout(limit_s):
            await work
    except ControllerSuperseded:
        raise
    except (VerdigrisError, TimeoutError) as error:
        log.warning(otherwise, replica=replica.resource_id, reason=str(error) or "not in time")
        return False
    return True


def record_freedom(tx: Transaction, services: Services, source_resource_id: str) -> None:
    for replica in tx.replicas_of([source_resource_id]):
        tx.put_instance(_released(standalone(replica)))
        tx.add_event(events.replica_promoted(replica, services.clock.now()))


def release_replicas(tx: Transaction, source_resource_id: str) -> None:
    """Their source's deletion has failed: they follow it as before."""
    for replica in tx.replicas_of([source_resource_id]):
        tx.put_instance(_released(replica))


def _released(replica: DBInstance) -> DBInstance:
    held = replica.status is InstanceStatus.MODIFYING
    return structs.replace(replica, status=InstanceStatus.AVAILABLE) if held else replica
