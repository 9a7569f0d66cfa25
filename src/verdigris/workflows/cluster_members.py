"""What workflows of instances do for the cluster that their instance is a member of."""

import asyncio

from msgspec import structs

from verdigris.domain.errors import StepFailed
from verdigris.domain.model import DBCluster, DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus
from verdigris.workflows.services import Services, require_instance

_POLL_S = 0.1

# From these a writer does not come back by itself.
LOST = frozenset({InstanceStatus.FAILED, InstanceStatus.STOPPED, InstanceStatus.DELETING})


async def source_available(services: Services, resource_id: str) -> None:
    """A reader may be asked for while its writer is still being created, or restarted: return when it can be copied."""
    while True:
        with services.store.transaction() as tx:
            source = tx.instance(require_instance(tx, resource_id).replica_of or "")
        if source is None or source.status in LOST:
            raise StepFailed("the writer of the DB cluster is not available")
        if source.status is InstanceStatus.AVAILABLE:
            return
        await asyncio.sleep(_POLL_S)


async def others_gone(services: Services, cluster_id: str, *, but: str = "") -> None:
    """Return when the cluster has no members, ``but`` one: all others are being deleted."""
    while True:
        with services.store.transaction() as tx:
            others = [each for each in tx.members_of([cluster_id]) if each.resource_id != but]
        staying = [each.identifier for each in others if each.status is not InstanceStatus.DELETING]
        if staying:
            raise StepFailed(f"DB instance {staying[0]} could not be deleted")
        if not others:
            return
        await asyncio.sleep(_POLL_S)


def is_writer(tx: Transaction, instance: DBInstance) -> bool:
    return _written_by(tx, instance) is not None


def deleted(tx: Transaction, instance: DBInstance) -> None:
    cluster = _written_by(tx, instance)
    if cluster is not None:
        tx.put_cluster(structs.replace(cluster, writer=None))


def _written_by(tx: Transaction, instance: DBInstance) -> DBCluster | None:
    cluster = None if instance.cluster is None else tx.cluster(instance.cluster)
    return cluster if cluster is not None and cluster.writer == instance.resource_id else None
