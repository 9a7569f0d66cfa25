"""Take a snapshot of an instance, copy and delete snapshots, and make an instance of one."""

import msgspec
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.model import DBSnapshot, Workflow
from verdigris.domain.ports import Restoration, Transaction
from verdigris.domain.statuses import InstanceStatus, SnapshotStatus, SnapshotType, WorkflowKind
from verdigris.workflows import arguments, backups
from verdigris.workflows.instances import InstanceWorkflow, NewInstance
from verdigris.workflows.saga import PATIENCE_S, Step
from verdigris.workflows.saga_workflow import SagaWorkflow
from verdigris.workflows.services import Services, require_instance, server_parameters
from verdigris.workflows.snapshot_taking import require_snapshot


class CreateSnapshot(InstanceWorkflow):
    """Its subject is the instance: nothing else is done to it meanwhile, and least of all a switchover."""

    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        told = msgspec.convert(workflow.arguments, arguments.CreateSnapshot)
        self._taking = self.taking(told.snapshot_id)

    def steps(self) -> list[Step]:
        return [self._taking.step()]

    def failing(self, tx: Transaction, reason: str) -> None:
        self._taking.failing(tx, reason)

    def failed(self, tx: Transaction, reason: str) -> None:  # noqa: ARG002 (shown by ``failing``)
        self.settle(tx, InstanceStatus.AVAILABLE)

    def completed(self, tx: Transaction) -> None:
        self.settle(tx, InstanceStatus.AVAILABLE)


class RestoreInstance(NewInstance):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.told = msgspec.convert(workflow.arguments, arguments.RestoreInstance)
        self.port_requested = self.told.port_requested

    def steps(self) -> list[Step]:
        return [
            Step(name="server", do=self._restore, undo=self.remove_server, bulky=True),
            *self.steps_to_be_reached(),
        ]

    async def _restore(self) -> None:
        with self.services.store.transaction() as tx:
            instance = require_instance(tx, self.resource_id)
            parameters = server_parameters(tx, instance.parameter_group)
        await self.services.snapshots.restore(
            Restoration(
                snapshot_id=self.told.snapshot_id,
                resource_id=instance.resource_id,
                engine_version=instance.engine_version,
                instance_class=instance.instance_class,
                parameters=parameters,
            )
        )

    def completed(self, tx: Transaction) -> None:
        instance, now = require_instance(tx, self.resource_id), self.services.clock.now()
        snapshot = require_snapshot(tx, self.told.snapshot_id)
        created, restored = events.instance_created(instance, now), events.snapshot_restored(snapshot, now)
        self.settle(tx, InstanceStatus.AVAILABLE, created, restored)
        backups.begin_first(tx, self.resource_id, self.services)


class SnapshotWorkflow(SagaWorkflow):
    """Of one that no instance has to do with any more."""

    @property
    def snapshot_id(self) -> str:
        return self.workflow.subject

    async def remove(self) -> None:
        await self.services.snapshots.remove(self.snapshot_id)

    def settle(self, tx: Transaction, status: SnapshotStatus) -> DBSnapshot:
        snapshot = structs.replace(require_snapshot(tx, self.snapshot_id), status=status)
        tx.put_snapshot(snapshot)
        return snapshot


class CopySnapshot(SnapshotWorkflow):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.told = msgspec.convert(workflow.arguments, arguments.CopySnapshot)

    def steps(self) -> list[Step]:
        return [Step(name="copy", do=self._copy, undo=self.remove, bulky=True)]

    async def _copy(self) -> None:
        await self.services.snapshots.copy(self.snapshot_id, self.told.source_id)

    def failing(self, tx: Transaction, reason: str) -> None:
        copy, source = self.settle(tx, SnapshotStatus.FAILED), self._source_name(tx)
        now = self.services.clock.now()
        tx.add_event(events.snapshot_copy_failed(source, copy, self.told.region, reason, now))

    def failed(self, tx: Transaction, reason: str) -> None:
        """Shown by ``failing``."""

    def completed(self, tx: Transaction) -> None:
        now = self.services.clock.now()
        copy = structs.replace(require_snapshot(tx, self.snapshot_id), status=SnapshotStatus.AVAILABLE, taken_at=now)
        tx.put_snapshot(copy)
        tx.add_event(events.snapshot_copied(self._source_name(tx), copy, self.told.region, now))

    def _source_name(self, tx: Transaction) -> str:
        return require_snapshot(tx, self.told.source_id).identifier


class DeleteSnapshot(SnapshotWorkflow):
    def steps(self) -> list[Step]:
        return [Step(name="files", do=self.remove, patience_s=PATIENCE_S)]

    def failed(self, tx: Transaction, reason: str) -> None:  # noqa: ARG002 (it is in the log)
        """Perhaps only a part of it is left. It can be deleted again."""
        self.settle(tx, SnapshotStatus.FAILED)

    def completed(self, tx: Transaction) -> None:
        snapshot = require_snapshot(tx, self.snapshot_id)
        tx.delete_snapshot(self.snapshot_id)
        if snapshot.type is SnapshotType.MANUAL:
            tx.add_event(events.snapshot_deleted(snapshot, self.services.clock.now()))


KINDS: dict[WorkflowKind, type[SagaWorkflow]] = {
    WorkflowKind.CREATE_SNAPSHOT: CreateSnapshot,
    WorkflowKind.COPY_SNAPSHOT: CopySnapshot,
    WorkflowKind.DELETE_SNAPSHOT: DeleteSnapshot,
    WorkflowKind.RESTORE_INSTANCE: RestoreInstance,
}
