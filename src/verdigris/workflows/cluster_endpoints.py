"""Open, change and close a custom endpoint of a cluster. Whom it leads to is in ``cluster_routes``."""

import asyncio

from msgspec import structs

from verdigris.domain.identifiers import custom_endpoint_name
from verdigris.domain.model import Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import ClusterEndpointStatus, WorkflowKind
from verdigris.workflows import membership
from verdigris.workflows.cluster_routes import custom_route
from verdigris.workflows.saga import PATIENCE_S, Step
from verdigris.workflows.saga_workflow import SagaWorkflow
from verdigris.workflows.services import Services, is_busy, require_cluster_endpoint

_POLL_S = 0.1


class EndpointWorkflow(SagaWorkflow):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.resource_id = workflow.subject

    def completed(self, tx: Transaction) -> None:
        self._settle(tx, ClusterEndpointStatus.AVAILABLE)

    def failed(self, tx: Transaction, reason: str) -> None:  # noqa: ARG002 (an endpoint has no place for it)
        self._settle(tx, ClusterEndpointStatus.INACTIVE)

    def _settle(self, tx: Transaction, status: ClusterEndpointStatus) -> None:
        tx.put_cluster_endpoint(structs.replace(require_cluster_endpoint(tx, self.resource_id), status=status))

    async def _lead(self) -> None:
        """To whom it shall, opening it where it is not open. Clients that are connected stay."""
        async with self.services.cluster_routing:
            with self.services.store.transaction() as tx:
                route = custom_route(tx, require_cluster_endpoint(tx, self.resource_id))
            await self.services.router.put_route(route)

    async def _close(self) -> None:
        async with self.services.cluster_routing:
            with self.services.store.transaction() as tx:
                name = custom_endpoint_name(require_cluster_endpoint(tx, self.resource_id).identifier)
            await self.services.router.remove_route(name)


class CreateClusterEndpoint(EndpointWorkflow):
    """One that cannot be opened is ``inactive`` until it can be (``ClusterKeeper``), or is deleted."""

    def steps(self) -> list[Step]:
        return [Step(name="endpoint", do=self._lead, undo=self._close)]


class ModifyClusterEndpoint(EndpointWorkflow):
    def steps(self) -> list[Step]:
        return [Step(name="endpoint", do=self._lead, patience_s=PATIENCE_S)]


class DeleteClusterEndpoint(EndpointWorkflow):
    def steps(self) -> list[Step]:
        return [Step(name="endpoint", do=self._close, patience_s=PATIENCE_S)]

    def completed(self, tx: Transaction) -> None:
        membership.endpoint_deleted(tx, require_cluster_endpoint(tx, self.resource_id))
        tx.delete_cluster_endpoint(self.resource_id)


async def endpoints_settled(services: Services, cluster_id: str) -> None:
    """Return when nothing is being done to an endpoint of the cluster. Nothing new begins: it is being deleted."""
    while True:
        with services.store.transaction() as tx:
            if not any(is_busy(tx, each.resource_id) for each in tx.cluster_endpoints([cluster_id])):
                return
        await asyncio.sleep(_POLL_S)


KINDS: dict[WorkflowKind, type[EndpointWorkflow]] = {
    WorkflowKind.CREATE_CLUSTER_ENDPOINT: CreateClusterEndpoint,
    WorkflowKind.MODIFY_CLUSTER_ENDPOINT: ModifyClusterEndpoint,
    WorkflowKind.DELETE_CLUSTER_ENDPOINT: DeleteClusterEndpoint,
}
