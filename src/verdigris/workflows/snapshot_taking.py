"""A snapshot of an instance, whichever workflow takes it: one that does nothing else, a stop, or a deletion."""

from datetime import datetime

from msgspec import structs

from verdigris.domain import events
from verdigris.domain.errors import StepFailed
from verdigris.domain.identifiers import RandomText, new_snapshot_id
from verdigris.domain.model import DBInstance, DBSnapshot, Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import SnapshotStatus, SnapshotType
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


def new_snapshot(
    instance: DBInstance, identifier: str, snapshot_type: SnapshotType, now: datetime, random_text: RandomText
) -> DBSnapshot:
    """The record of one that is to be taken."""
    return DBSnapshot(
        snapshot_id=new_snapshot_id(random_text),
        identifier=identifier,
        type=snapshot_type,
        status=SnapshotStatus.CREATING,
        resource_id=instance.resource_id,
        instance_identifier=instance.identifier,
        instance_created_at=instance.created_at,
        engine=instance.engine,
        engine_version=instance.engine_version,
        instance_class=instance.instance_class,
        master_username=instance.master_username,
        db_name=instance.db_name,
        port=instance.port,
        allocated_storage_gib=instance.allocated_storage_gib,
        begun_at=now,
        settings=instance.settings,
        instance_tags=instance.tags,
        tags=instance.tags if instance.settings.get("CopyTagsToSnapshot") else (),
    )


def user_of(tx: Transaction, snapshot: DBSnapshot) -> Workflow | None:
    """Who reads it, or has made it and not ended yet."""
    for workflow in tx.unfinished_workflows():
        if snapshot.snapshot_id == workflow.subject or snapshot.snapshot_id in workflow.arguments.values():
            return workflow
    return None


def require_snapshot(tx: Transaction, snapshot_id: str) -> DBSnapshot:
    snapshot = tx.snapshot(snapshot_id)
    if snapshot is None:
        raise StepFailed(f"DB snapshot {snapshot_id} no longer exists")
    return snapshot
