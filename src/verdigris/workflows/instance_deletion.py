"""Delete one instance, with a final snapshot if one is wanted."""

from collections.abc import Awaitable, Callable

import msgspec
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.model import Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.workflows import arguments, backups, cluster_members, membership, replication
from verdigris.workflows.instances import InstanceWorkflow, route_of
from verdigris.workflows.saga import PATIENCE_S, Step
from verdigris.workflows.services import Services, require_instance


class DeleteInstance(InstanceWorkflow):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.told = msgspec.convert(workflow.arguments, arguments.DeleteInstance)
        self._taking = None if self.told.final_snapshot is None else self.taking(self.told.final_snapshot)

    def steps(self) -> list[Step]:
        """Replicas receive the rest when no client can write any more; a replica's slot goes when nobody uses it. The
        final snapshot comes before everything that cannot be undone."""
        steps = [
            *self._final_snapshot(),
            *self.steps_of_members(
                Step(name="members", do=self._await_readers),
                Step(name="cluster", do=self.lead_cluster, patience_s=PATIENCE_S),
            ),
            Step(name="deployment", do=self._leave_deployment, patience_s=PATIENCE_S),
            Step(name="endpoint", do=self.close_endpoint, patience_s=PATIENCE_S),
        ]
        if self.told.has_replicas:
            steps.append(
                Step(name="replicas", do=self._set_replicas_free, done=self._record_freedom, patience_s=PATIENCE_S)
            )
        steps.append(Step(name="server", do=self._remove_server, patience_s=PATIENCE_S))
        if self.told.is_replica:
            steps.append(Step(name="source", do=self._release_source, patience_s=PATIENCE_S))
        return steps

    def _final_snapshot(self) -> list[Step]:
        """With all that clients have been told is committed: their way in is closed first."""
        if self._taking is None:
            return []
        snapshot = self._taking.step()
        return [
            Step(name="close", do=self.close_endpoint, undo=self._open_again, patience_s=PATIENCE_S),
            structs.replace(snapshot, undo=self._return_from(snapshot)),
        ]

    async def _open_again(self) -> None:
        if not self._has_final_snapshot():
            await self.services.router.put_route(route_of(self.services, self.instance()))

    def _return_from(self, snapshot: Step) -> Callable[[], Awaitable[None]]:
        """It was started for the snapshot, perhaps."""

        async def undo() -> None:
            if snapshot.undo is not None:
                await snapshot.undo()
            if self.told.was_stopped and not self._has_final_snapshot():
                await self.services.servers.stop(self.resource_id)

        return undo

    def _has_final_snapshot(self) -> bool:
        with self.services.store.transaction() as tx:
            return self._taking is not None and self._taking.is_taken(tx)

    async def _await_readers(self) -> None:
        """Of a writer: they are being deleted, too."""
        with self.services.store.transaction() as tx:
            instance = require_instance(tx, self.resource_id)
            is_writer = cluster_members.is_writer(tx, instance)
        if is_writer and instance.cluster is not None:
            await cluster_members.others_gone(self.services, instance.cluster, but=self.resource_id)

    async def _leave_deployment(self) -> None:
        """What a deployment keeps on the other member for this one (slots above all) goes with it."""
        for pair in membership.unfinished_pairs_of(self.services, self.resource_id):
            await self.services.green.dismantle(pair)

    async def _set_replicas_free(self) -> None:
        await replication.set_replicas_free(self.services, self.resource_id)

    def _record_freedom(self, tx: Transaction) -> None:
        replication.record_freedom(tx, self.services, self.resource_id)

    async def _remove_server(self) -> None:
        await self.services.servers.remove(self.resource_id)

    async def _release_source(self) -> None:
        with self.services.store.transaction() as tx:
            replica = replication.replica_record(tx, require_instance(tx, self.resource_id))
        await self.services.replicas.release_source(replica)

    def failing(self, tx: Transaction, reason: str) -> None:
        if self._taking is not None:
            self._taking.failing(tx, reason)

    def failed(self, tx: Transaction, reason: str) -> None:
        """Without its final snapshot nothing has been taken from it."""
        if self._taking is None or self._taking.is_taken(tx):
            super().failed(tx, reason)
        else:
            self.settle(tx, InstanceStatus.STOPPED if self.told.was_stopped else InstanceStatus.AVAILABLE)
        replication.release_replicas(tx, self.resource_id)

    def completed(self, tx: Transaction) -> None:
        instance = require_instance(tx, self.resource_id)
        membership.deleted(tx, instance)
        cluster_members.deleted(tx, instance)
        tx.delete_instance(self.resource_id)
        if not self.told.keeps_backups:
            backups.remove_all(tx, self.resource_id, self.services)
        tx.add_event(events.instance_deleted(instance, self.services.clock.now()))


KINDS: dict[WorkflowKind, type[InstanceWorkflow]] = {WorkflowKind.DELETE_INSTANCE: DeleteInstance}
