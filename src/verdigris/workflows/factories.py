"""Every kind of workflow, and what carries it out."""

from collections.abc import Callable

from verdigris.domain.model import Workflow
from verdigris.domain.statuses import WorkflowKind
from verdigris.workflows import cluster_endpoints, clusters, instance_deletion, instances, replicas, snapshots
from verdigris.workflows.create_deployment import CreateDeployment
from verdigris.workflows.delete_deployment import DeleteDeployment
from verdigris.workflows.runner import Factory, Runnable
from verdigris.workflows.services import Services
from verdigris.workflows.switch_over import SwitchOver

_CLASSES: dict[WorkflowKind, Callable[[Services, Workflow], Runnable]] = {
    **instances.KINDS,
    **instance_deletion.KINDS,
    **replicas.KINDS,
    **clusters.KINDS,
    **snapshots.KINDS,
    **cluster_endpoints.KINDS,
    WorkflowKind.CREATE_DEPLOYMENT: CreateDeployment,
    WorkflowKind.SWITCH_OVER: SwitchOver,
    WorkflowKind.DELETE_DEPLOYMENT: DeleteDeployment,
}


def factories(services: Services) -> dict[WorkflowKind, Factory]:
    def of(kind: WorkflowKind) -> Factory:
        return lambda workflow: _CLASSES[kind](services, workflow)

    return {kind: of(kind) for kind in WorkflowKind}
