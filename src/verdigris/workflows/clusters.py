"""Create, modify and delete a cluster."""

import msgspec
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.model import DBCluster, Event, Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import ClusterStatus, WorkflowKind
from verdigris.workflows import arguments, cluster_members, membership
from verdigris.workflows.cluster_endpoints import endpoints_settled
from verdigris.workflows.cluster_routes import close_endpoints, cluster_routes, open_endpoints
from verdigris.workflows.saga import PATIENCE_S, Step
from verdigris.workflows.saga_workflow import SagaWorkflow
from verdigris.workflows.services import Services, add_events, require_cluster


class ClusterWorkflow(SagaWorkflow):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.resource_id = workflow.subject

    def cluster(self) -> DBCluster:
        with self.services.store.transaction() as tx:
            return require_cluster(tx, self.resource_id)

    def settle(self, tx: Transaction, status: ClusterStatus, *what: Event) -> None:
        tx.put_cluster(structs.replace(require_cluster(tx, self.resource_id), status=status))
        add_events(tx, what)

    # -- Outcome

    def failed(self, tx: Transaction, reason: str) -> None:  # noqa: ARG002 (a cluster has no place for it)
        self.settle(tx, ClusterStatus.AVAILABLE)


class CreateCluster(ClusterWorkflow):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.told = msgspec.convert(workflow.arguments, arguments.CreateCluster)

    def steps(self) -> list[Step]:
        return [Step(name="endpoints", do=self._open, undo=self._close)]

    async def _open(self) -> None:
        await open_endpoints(self.services, self.resource_id, port_is_ours=not self.told.port_requested)

    async def _close(self) -> None:
        await close_endpoints(self.services, self.cluster())

    def failed(self, tx: Transaction, reason: str) -> None:  # noqa: ARG002 (a cluster has no place for it)
        """The record stays, until the user deletes it."""
        self.settle(tx, ClusterStatus.FAILED)

    def completed(self, tx: Transaction) -> None:
        created = events.cluster_created(require_cluster(tx, self.resource_id), self.services.clock.now())
        self.settle(tx, ClusterStatus.AVAILABLE, created)


class ModifyCluster(ClusterWorkflow):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.told = msgspec.convert(workflow.arguments, arguments.ModifyCluster)

    def steps(self) -> list[Step]:
        steps = []
        if self.told.master_password_verifier is not None:
            steps.append(Step(name="password", do=self._set_password, done=self._put_password))
        if self.told.port is not None:
            steps.append(Step(name="port", do=self._move, undo=self._move_back, done=self._put_port))
        return steps

    async def _set_password(self) -> None:
        """Readers have it from the writer; a writer that is to come, from the record."""
        cluster, verifier = self.cluster(), self.told.master_password_verifier
        if cluster.writer is not None and verifier is not None:
            await self.services.servers.set_master_password(cluster.writer, cluster.master_username, verifier)

    def _put_password(self, tx: Transaction) -> None:
        cluster = require_cluster(tx, self.resource_id)
        tx.put_cluster(structs.replace(cluster, master_password_verifier=self.told.master_password_verifier))

    async def _move(self) -> None:
        """Clients that are connected stay."""
        await self._put_routes(self.told.port)

    async def _move_back(self) -> None:
        await self._put_routes(None)

    async def _put_routes(self, port: int | None) -> None:
        """None: the recorded one."""
        async with self.services.cluster_routing:
            with self.services.store.transaction() as tx:
                routes = cluster_routes(tx, self.services.ports, require_cluster(tx, self.resource_id))
            for route in routes:
                await self.services.router.put_route(structs.replace(route, port=port or route.port))

    def _put_port(self, tx: Transaction) -> None:
        tx.put_cluster(structs.replace(require_cluster(tx, self.resource_id), port=self.told.port))

    def completed(self, tx: Transaction) -> None:
        self.settle(tx, ClusterStatus.AVAILABLE)
        if self.told.master_password_verifier is not None:
            cluster = require_cluster(tx, self.resource_id)
            tx.add_event(events.cluster_password_reset(cluster, self.services.clock.now()))


class DeleteCluster(ClusterWorkflow):
    """Its members are gone, or on their way. Its custom endpoints go with it."""

    def steps(self) -> list[Step]:
        return [
            Step(name="members", do=self._await_members),
            Step(name="endpoints", do=self._close, patience_s=PATIENCE_S),
        ]

    async def _await_members(self) -> None:
        await cluster_members.others_gone(self.services, self.resource_id)
        await endpoints_settled(self.services, self.resource_id)

    async def _close(self) -> None:
        await close_endpoints(self.services, self.cluster())

    def completed(self, tx: Transaction) -> None:
        cluster = require_cluster(tx, self.resource_id)
        tx.add_event(events.cluster_deleted(cluster, self.services.clock.now()))
        for endpoint in tx.cluster_endpoints([self.resource_id]):
            membership.endpoint_deleted(tx, endpoint)
            tx.delete_cluster_endpoint(endpoint.resource_id)
        membership.cluster_deleted(tx, cluster)
        tx.delete_cluster(self.resource_id)


KINDS: dict[WorkflowKind, type[ClusterWorkflow]] = {
    WorkflowKind.CREATE_CLUSTER: CreateCluster,
    WorkflowKind.MODIFY_CLUSTER: ModifyCluster,
    WorkflowKind.DELETE_CLUSTER: DeleteCluster,
}
