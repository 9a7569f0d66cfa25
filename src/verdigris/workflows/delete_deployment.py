"""Delete a deployment in any state (semantics, section 2.6), with nothing of it left on either side."""

import msgspec
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.model import BlueGreenDeployment, Member, Workflow
from verdigris.domain.ports import Pair, Transaction
from verdigris.domain.statuses import ClusterStatus, DeploymentStatus, InstanceStatus
from verdigris.workflows import arguments, green_cluster
from verdigris.workflows.saga import PATIENCE_S, Step
from verdigris.workflows.saga_workflow import SagaWorkflow
from verdigris.workflows.services import Services, require_deployment


class DeleteDeployment(SagaWorkflow):
    """The handler has set DELETING; what it was before is told by the members, which keep their status meanwhile.

    Switched over: the record goes, all instances stay. Not yet switched over: green and its replicas go with it if the
    caller says so or if they were never finished, else green is set free as a writable server, which they follow.
    """

    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.identifier = workflow.subject
        self.told = msgspec.convert(workflow.arguments, arguments.DeleteDeployment)

    def steps(self) -> list[Step]:
        deployment = self._deployment()
        if deployment.has_switched_over:
            return []
        if deployment.primary.target_resource_id is None:
            return self._steps_of_cluster(deployment)  # never registered, or undone when its creation failed
        if self.told.delete_target or not self._target_is_finished(deployment):
            return [
                *self._steps_of_replicas(deployment),
                Step(name="endpoint", do=self._close_endpoint, patience_s=PATIENCE_S),
                Step(name="dismantle", do=self._dismantle, patience_s=PATIENCE_S),
                Step(name="target", do=self._remove_target, done=self._forget_target, patience_s=PATIENCE_S),
                *self._steps_of_cluster(deployment),
            ]
        return [Step(name="release", do=self._release_target, done=self._free_target, patience_s=PATIENCE_S)]

    def _steps_of_cluster(self, deployment: BlueGreenDeployment) -> list[Step]:
        """Green's, with its custom endpoints, if that is asked for or it was never finished. One whose members were
        deleted one by one is its owner's."""
        if deployment.cluster is None or deployment.cluster.target_resource_id is None:
            return []
        with self.services.store.transaction() as tx:
            green = tx.cluster(deployment.cluster.target_resource_id)
            begun = any(each.step == "cluster" for each in tx.journal(self.workflow.workflow_id))
        unfinished = green is not None and green.status is ClusterStatus.CREATING
        if not (self.told.delete_target or unfinished or begun):
            return []
        return [Step(name="cluster", do=self._close_cluster, done=self._forget_cluster, patience_s=PATIENCE_S)]

    async def _close_cluster(self) -> None:
        await green_cluster.close_endpoints(self.services, self.identifier)

    def _forget_cluster(self, tx: Transaction) -> None:
        for cluster in green_cluster.forget(tx, require_deployment(tx, self.identifier)):
            tx.add_event(events.cluster_deleted(cluster, self.services.clock.now()))

    def _steps_of_replicas(self, deployment: BlueGreenDeployment) -> list[Step]:
        """By their numbers. What green keeps back for them goes with it. One that was finished may stand alone
        by now, because green was deleted on its own: it goes if that is asked for."""
        with self.services.store.transaction() as tx:
            begun = {each.step for each in tx.journal(self.workflow.workflow_id)}
            steps = []
            for number, member in enumerate(deployment.replicas, start=1):
                name, target = f"replica-{number}", tx.instance(member.target_resource_id or "")
                goes = self.told.delete_target or (target is not None and target.status is InstanceStatus.CREATING)
                if (target is not None and goes) or name in begun:
                    steps.append(self._step_of_replica(name, member))
        return steps

    def _step_of_replica(self, name: str, member: Member) -> Step:
        async def remove() -> None:
            await self.services.router.remove_route(member.target_identifier or "")
            await self.services.servers.remove(member.target_resource_id or "")

        return Step(
            name=name,
            do=remove,
            done=lambda tx: self._forget(tx, member.target_resource_id or ""),
            patience_s=PATIENCE_S,
        )

    def _target_is_finished(self, deployment: BlueGreenDeployment) -> bool:
        with self.services.store.transaction() as tx:
            target = tx.instance(deployment.primary.target_resource_id or "")
        return target is not None and target.status is not InstanceStatus.CREATING

    async def _close_endpoint(self) -> None:
        await self.services.router.remove_route(self._deployment().primary.target_identifier or "")

    async def _dismantle(self) -> None:
        await self.services.green.dismantle(self._pair())

    async def _remove_target(self) -> None:
        await self.services.servers.remove(self._deployment().primary.target_resource_id or "")

    async def _release_target(self) -> None:
        await self.services.green.release_target(self._pair())

    def _forget_target(self, tx: Transaction) -> None:
        self._forget(tx, require_deployment(tx, self.identifier).primary.target_resource_id or "")

    def _forget(self, tx: Transaction, resource_id: str) -> None:
        target = tx.instance(resource_id)
        if target is not None:
            tx.delete_instance(target.resource_id)
            tx.add_event(events.instance_deleted(target, self.services.clock.now()))

    def _free_target(self, tx: Transaction) -> None:
        deployment = require_deployment(tx, self.identifier)
        target = tx.instance(deployment.primary.target_resource_id or "")
        if target is not None:
            tx.put_instance(structs.replace(target, read_only=False))

    # -- Outcome

    def failing(self, tx: Transaction, reason: str) -> None:
        deployment = require_deployment(tx, self.identifier)
        tx.put_deployment(
            structs.replace(
                deployment,
                status=DeploymentStatus.INVALID_CONFIGURATION,
                status_details=f"Deletion of blue/green deployment failed because {reason}",
                deleted_at=None,
            )
        )

    def failed(self, tx: Transaction, reason: str) -> None:
        """Nothing was undone: deleting goes on from where it is when it is asked for again."""

    def completed(self, tx: Transaction) -> None:
        deployment = require_deployment(tx, self.identifier)
        tx.delete_deployment(self.identifier)
        tx.add_event(events.deployment_deleted(deployment, self.services.clock.now()))

    def _deployment(self) -> BlueGreenDeployment:
        with self.services.store.transaction() as tx:
            return require_deployment(tx, self.identifier)

    def _pair(self) -> Pair:
        return self.services.pair(self._deployment())
