"""A snapshot of an instance, whichever workflow takes it: one that does nothing else, a stop, or a deletion."""

from msgspec import structs

from verdigris.domain import events
from verdigris.domain.errors import StepFailed
from verdigris.domain.model import DBSnapshot
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import SnapshotStatus
from verdigris.workflows.saga import Step
from verdigris.workflows.services import Services, add_events, require_instance


class SnapshotTaking:
    """One that is available stays, whatever becomes of what comes after it."""

    def __init__(self, services: Services, snapshot_id: str, resource_id: str) -> None:
        self._services = services
        self._snapshot_id = snapshot_id
        self._resource_id = resource_id
        self._size_bytes: int | None = None

    def step(self) -> Step:
        return Step(name="snapshot", do=self._take, undo=self._discard, done=self._record, bulky=True)

    def is_taken(self, tx: Transaction) -> bool:
        return require_snapshot(tx, self._snapshot_id).status is SnapshotStatus.AVAILABLE

    async def _take(self) -> None:
        """Its server has to run for that: a death of it a moment ago need not be one of the snapshot."""
        await self._services.servers.start(self._resource_id)
        self._size_bytes = await self._services.snapshots.take(self._snapshot_id, self._resource_id)

    async def _discard(self) -> None:
        with self._services.store.transaction() as tx:
            taken = self.is_taken(tx)
        if not taken:
            await self._services.snapshots.discard(self._snapshot_id, self._resource_id)

    def _record(self, tx: Transaction) -> None:
        now = self._services.clock.now()
        snapshot = structs.replace(
            require_snapshot(tx, self._snapshot_id),
            status=SnapshotStatus.AVAILABLE,
            taken_at=now,
            data_of=now,
            size_bytes=self._size_bytes,
        )
        tx.put_snapshot(snapshot)
        add_events(tx, events.snapshot_taken(snapshot, require_instance(tx, self._resource_id), now))

    def failing(self, tx: Transaction, reason: str) -> None:
        """Shown at once; its record stays until the user deletes it, as on RDS."""
        if self.is_taken(tx):
            return
        snapshot = require_snapshot(tx, self._snapshot_id)
        tx.put_snapshot(structs.replace(snapshot, status=SnapshotStatus.FAILED))
        instance = require_instance(tx, self._resource_id)
        tx.add_event(events.snapshot_failed(snapshot, instance, reason, self._services.clock.now()))


def require_snapshot(tx: Transaction, snapshot_id: str) -> DBSnapshot:
    snapshot = tx.snapshot(snapshot_id)
    if snapshot is None:
        raise StepFailed(f"DB snapshot {snapshot_id} no longer exists")
    return snapshot
