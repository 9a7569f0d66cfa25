"""Build a green: from a deployment in PROVISIONING to AVAILABLE, or INVALID_CONFIGURATION with nothing left on blue."""

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import structs

from verdigris.domain import events
from verdigris.domain.errors import StepFailed
from verdigris.domain.green import BuildStep, PlannedStep, build_steps, tasks_at, tasks_completed, tasks_failed
from verdigris.domain.model import BlueGreenDeployment, Workflow
from verdigris.domain.ports import Pair, Transaction
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, MemberStatus
from verdigris.workflows import green_cluster, topology
from verdigris.workflows.saga import Step
from verdigris.workflows.saga_workflow import SagaWorkflow
from verdigris.workflows.services import (
    Services,
    add_events,
    require_deployment,
    require_instance,
)


class CreateDeployment(SagaWorkflow):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.identifier = workflow.subject

    def steps(self) -> list[Step]:
        deployment = self._deployment()
        planned = build_steps(
            deployment.mode, replicas=len(deployment.replicas), cluster=deployment.cluster is not None
        )
        return [self._step(each) for each in planned]

    def _step(self, planned: PlannedStep) -> Step:
        green = self.services.green
        match planned.step:
            case BuildStep.CHECK:
                do, undo = self._check, None
            case BuildStep.REGISTER | BuildStep.REGISTER_REPLICA:
                do, undo = self._of_member(topology.register, planned), self._of_member(topology.unregister, planned)
            case BuildStep.COPY:
                do, undo = self._copy, self._dismantle
            case BuildStep.ALIGN:
                do, undo = lambda: green.align(self._pair()), None
            case BuildStep.UPGRADE:
                do, undo = lambda: green.upgrade(self._pair()), None
            case BuildStep.JOIN:
                do, undo = lambda: green.join(self._pair()), None
            case BuildStep.ENDPOINT | BuildStep.REPLICA_ENDPOINT:
                do = self._of_member(topology.open_endpoint_of, planned)
                undo = self._of_member(topology.close_endpoint_of, planned)
            case BuildStep.BACKUPS:
                do, undo = self._configure_backups, None
            case BuildStep.COPY_REPLICA:
                do, undo = self._of_member(topology.copy, planned), self._of_member(topology.remove, planned)
            case BuildStep.REGISTER_CLUSTER:
                do, undo = self._of_cluster(green_cluster.register), self._of_cluster(green_cluster.unregister)
            case BuildStep.REGISTER_ENDPOINTS:
                do = self._of_cluster(green_cluster.register_endpoints)
                undo = self._of_cluster(green_cluster.unregister_endpoints)
            case BuildStep.CLUSTER_ENDPOINTS:
                do = self._of_cluster(green_cluster.open_endpoints)
                undo = self._of_cluster(green_cluster.close_endpoints)
        return Step(
            name=planned.name,
            do=do,
            undo=undo,
            begun=lambda tx: self._show_task(tx, planned),
            restart_from=planned.restart_from,
            bulky=planned.step in (BuildStep.COPY, BuildStep.COPY_REPLICA),
        )

    def _of_member(
        self, act: Callable[[Services, str, int], Coroutine[Any, Any, None]], planned: PlannedStep
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        return lambda: act(self.services, self.identifier, planned.replica)

    def _of_cluster(
        self, act: Callable[[Services, str], Coroutine[Any, Any, None]]
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        return lambda: act(self.services, self.identifier)

    # -- steps

    async def _check(self) -> None:
        """``check_source`` needs a target id only to name what it would make; none exists yet."""
        deployment = self._deployment()
        with self.services.store.transaction() as tx:
            source = require_instance(tx, deployment.primary.source_resource_id)
        findings = await self.services.green.check_source(
            Pair(
                deployment_id=deployment.identifier,
                source_resource_id=source.resource_id,
                target_resource_id="",
                mode=deployment.mode,
                source_version=source.engine_version,
                target_version=deployment.target.engine_version,
                target_instance_class=deployment.target.instance_class,
            )
        )
        if findings:
            raise StepFailed(" ".join(map(str, findings)))

    async def _copy(self) -> None:
        await self.services.green.copy(self._pair())

    async def _dismantle(self) -> None:
        """Green's files first: they may be what fills blue's disk, and then blue does not even let us in."""
        pair = self._pair()
        await self.services.servers.remove(pair.target_resource_id)
        await self.services.green.dismantle(pair)

    async def _configure_backups(self) -> None:
        """Green keeps blue's backup settings (they came with the record); there are no backups to start yet."""

    # -- what callers see

    def _show_task(self, tx: Transaction, planned: PlannedStep) -> None:
        deployment = require_deployment(tx, self.identifier)
        tx.put_deployment(structs.replace(deployment, tasks=tasks_at(deployment.tasks, planned.task)))

    def failing(self, tx: Transaction, reason: str) -> None:
        deployment = require_deployment(tx, self.identifier)
        if deployment.status is not DeploymentStatus.DELETING:
            deployment = structs.replace(deployment, status=DeploymentStatus.INVALID_CONFIGURATION)
        tx.put_deployment(
            structs.replace(
                deployment,
                status_details=f"Creation of blue/green deployment failed because {reason}",
                tasks=tasks_failed(deployment.tasks),
            )
        )
        add_events(tx, [events.deployment_creation_failed(deployment, reason, self.services.clock.now())])

    def failed(self, tx: Transaction, reason: str) -> None:
        """Already shown by ``failing``."""

    def completed(self, tx: Transaction) -> None:
        deployment, now = require_deployment(tx, self.identifier), self.services.clock.now()
        for member in deployment.members:
            target = require_instance(tx, member.target_resource_id or "")
            tx.put_instance(structs.replace(target, status=InstanceStatus.AVAILABLE))
            if target.replica_of is not None:
                add_events(tx, [events.instance_created(target, now), events.replication_resumed(target, now)])
        green_cluster.completed(tx, deployment)
        tx.put_deployment(
            structs.replace(
                deployment.with_member_status(MemberStatus.AVAILABLE),
                status=DeploymentStatus.AVAILABLE,
                status_details=None,
                tasks=tasks_completed(deployment.tasks),
            )
        )
        add_events(tx, [events.deployment_created(deployment, now)])

    # -- records

    def _deployment(self) -> BlueGreenDeployment:
        with self.services.store.transaction() as tx:
            return require_deployment(tx, self.identifier)

    def _pair(self) -> Pair:
        return self.services.pair(self._deployment())
