"""Create a read replica, and make one a server of its own."""

import msgspec

from verdigris.domain import events
from verdigris.domain.model import Workflow
from verdigris.domain.ports import Replica, Transaction
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.workflows import arguments, backups, cluster_members
from verdigris.workflows.instances import InstanceWorkflow, NewInstance
from verdigris.workflows.replication import replica_record, standalone
from verdigris.workflows.saga import Step
from verdigris.workflows.services import Services, add_events, require_instance


class ReplicaWorkflow(InstanceWorkflow):
    def replica(self) -> Replica:
        with self.services.store.transaction() as tx:
            return replica_record(tx, require_instance(tx, self.resource_id))


class CreateReadReplica(ReplicaWorkflow, NewInstance):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.port_requested = msgspec.convert(workflow.arguments, arguments.CreateReadReplica).port_requested

    def steps(self) -> list[Step]:
        return [
            *self.steps_of_members(Step(name="writer", do=self._await_source)),
            Step(name="copy", do=self._copy, undo=self._remove, bulky=True),
            *self.steps_to_be_reached(),
            *self.steps_of_members(Step(name="cluster", do=self.lead_cluster)),
        ]

    async def _await_source(self) -> None:
        await cluster_members.source_available(self.services, self.resource_id)

    async def _copy(self) -> None:
        await self.services.replicas.create(self.replica())

    async def _remove(self) -> None:
        """The copy first: it may be what fills the source's disk, and then the source does not even let us in."""
        await self.remove_server()
        await self.services.replicas.release_source(self.replica())

    def failing(self, tx: Transaction, reason: str) -> None:
        super().failing(tx, reason)
        failure = events.replica_creation_failed(
            require_instance(tx, self.resource_id), reason, self.services.clock.now()
        )
        add_events(tx, [failure])

    def failed(self, tx: Transaction, reason: str) -> None:  # noqa: ARG002 (shown by ``failing``)
        """The record stays, ``failed``, until the user deletes it; nothing ties its source to it any more."""
        tx.put_instance(standalone(require_instance(tx, self.resource_id)))

    def completed(self, tx: Transaction) -> None:
        instance, now = require_instance(tx, self.resource_id), self.services.clock.now()
        self.settle(
            tx,
            InstanceStatus.AVAILABLE,
            events.instance_created(instance, now),
            events.replication_resumed(instance, now),
        )


class PromoteReadReplica(ReplicaWorkflow):
    """What it has received by then is what it has, as on RDS: nobody waits for its source."""

    def steps(self) -> list[Step]:
        return [Step(name="promote", do=self._promote)]

    async def _promote(self) -> None:
        await self.services.replicas.promote(self.replica())

    def failed(self, tx: Transaction, reason: str) -> None:
        """It is a replica still, as far as is known; the call may be made again."""
        self.settle_unchanged(tx, reason)

    def completed(self, tx: Transaction) -> None:
        instance = standalone(require_instance(tx, self.resource_id))
        tx.put_instance(instance)
        self.settle(tx, InstanceStatus.AVAILABLE, events.replica_promoted(instance, self.services.clock.now()))
        backups.begin_first(tx, self.resource_id, self.services)


KINDS: dict[WorkflowKind, type[InstanceWorkflow]] = {
    WorkflowKind.CREATE_READ_REPLICA: CreateReadReplica,
    WorkflowKind.PROMOTE_READ_REPLICA: PromoteReadReplica,
}
