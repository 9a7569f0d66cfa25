"""DescribeBlueGreenDeployments, SwitchoverBlueGreenDeployment, DeleteBlueGreenDeployment."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault
from verdigris.domain.model import BlueGreenDeployment, DBCluster, DBInstance, Member
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    DeploymentStatus,
    InstanceStatus,
    WorkflowKind,
)
from verdigris.rds import deployment_views, views
from verdigris.rds.checks import check_range
from verdigris.rds.context import Context
from verdigris.rds.filters import Values, apply_filters
from verdigris.rds.lookups import require_deployment
from verdigris.rds.pagination import Key, paginate
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments
from verdigris.workflows.services import is_busy

# RDS user guide, "Switching a blue/green deployment"; the model knows the minimum only.
MIN_TIMEOUT_S = 30
MAX_TIMEOUT_S = 3600
DEFAULT_TIMEOUT_S = 300

_CAN_SWITCH_OVER = frozenset({DeploymentStatus.AVAILABLE, DeploymentStatus.SWITCHOVER_FAILED})


def describe_blue_green_deployments(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    named = params.get("BlueGreenDeploymentIdentifier")
    with context.store.transaction() as tx:
        found = tx.deployments() if named is None else [require_deployment(context, tx, named)]
        shown = [(deployment, deployment_views.deployment_view(context, deployment, tx)) for deployment in found]
    passed = apply_filters(params.get("Filters"), shown, _FILTERS)
    page, marker = paginate("DescribeBlueGreenDeployments", params, passed, _key)
    return {"BlueGreenDeployments": [view for _, view in page], "Marker": marker}


_Shown = tuple[BlueGreenDeployment, views.View]


def _key(shown: _Shown) -> Key:
    return [shown[0].created_at.isoformat(timespec="microseconds"), shown[0].identifier]


def _members(shown: _Shown, end: str) -> list[str]:
    return [detail[end].lower() for detail in shown[1]["SwitchoverDetails"] if detail[end] is not None]


_FILTERS: Mapping[str, Values[_Shown]] = {
    "blue-green-deployment-identifier": lambda shown: [shown[0].identifier],
    "blue-green-deployment-name": lambda shown: [shown[0].name.lower()],
    "source": lambda shown: _with_names(_members(shown, "SourceMember")),
    "target": lambda shown: _with_names(_members(shown, "TargetMember")),
}


def _with_names(arns: list[str]) -> list[str]:
    """RDS documents "source databases" without saying whether by ARN or by name: either will do."""
    return [*arns, *(arn.rpartition(":")[2] for arn in arns)]


def switchover_blue_green_deployment(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """The response shows the members as they were: they follow when the guardrails have been passed."""
    check_range(params, "SwitchoverTimeout", MIN_TIMEOUT_S, MAX_TIMEOUT_S)
    timeout_s: int = params.get("SwitchoverTimeout", DEFAULT_TIMEOUT_S)
    with context.store.transaction() as tx:
        deployment = require_deployment(context, tx, params["BlueGreenDeploymentIdentifier"])
        _require_ready(tx, deployment)
        deployment = structs.replace(deployment, status=DeploymentStatus.SWITCHOVER_IN_PROGRESS, status_details=None)
        tx.put_deployment(deployment)
        start_workflow(
            context,
            tx,
            WorkflowKind.SWITCH_OVER,
            deployment.identifier,
            arguments.SwitchOver(timeout_s=timeout_s, accepted=context.clock.since_boot()),
            deadline_at=context.clock.now() + timedelta(seconds=timeout_s),
        )
        view = deployment_views.deployment_view(context, deployment, tx)
    context.wake()
    return {"BlueGreenDeployment": view}


def _require_ready(tx: Transaction, deployment: BlueGreenDeployment) -> None:
    if deployment.status not in _CAN_SWITCH_OVER:
        details = f": {deployment.status_details}" if deployment.status_details else ""
        raise _invalid_state(
            f"Blue/green deployment {deployment.identifier} cannot be switched over, it is in state "
            f"{deployment.status}{details}"
        )
    _require_cluster_ready(tx, deployment)
    for member in deployment.moving:
        for resource_id, name in _ends(member):
            instance = tx.instance(resource_id)
            if instance is None:
                raise _invalid_state(f"DB instance {name} of the blue/green deployment no longer exists")
            if instance.status is not InstanceStatus.AVAILABLE:
                raise _invalid_state(f"DB instance {instance.identifier} is not in available state")
            if instance.replication_error and resource_id == member.target_resource_id:
                raise _invalid_state(
                    f"DB instance {instance.identifier} does not follow its source: {instance.replication_error}"
                )


def _require_cluster_ready(tx: Transaction, deployment: BlueGreenDeployment) -> None:
    """Both, and those of their custom endpoints that move."""
    if deployment.cluster is None:
        return
    for cluster_id, name in _ends(deployment.cluster):
        cluster = tx.cluster(cluster_id)
        if cluster is None or cluster.status is not ClusterStatus.AVAILABLE:
            raise _invalid_state(f"DB cluster {name} is not in available state")
    for endpoint_id, name in (end for member in deployment.moving_endpoints for end in _ends(member)):
        if is_busy(tx, endpoint_id):
            raise _invalid_state(f"DB cluster endpoint {name} is being changed")


def _ends(member: Member) -> list[tuple[str, str]]:
    """Resource ids and names, of a member that has both sides."""
    return [
        (member.source_resource_id, member.source_identifier),
        (member.target_resource_id or "", member.target_identifier or ""),
    ]


def delete_blue_green_deployment(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Allowed while green is still being made: the runner then gives up the making and cleans up after it."""
    delete_target: bool = params.get("DeleteTarget", False)
    with context.store.transaction() as tx:
        deployment = require_deployment(context, tx, params["BlueGreenDeploymentIdentifier"])
        _require_deletable(tx, deployment, delete_target=delete_target)
        # A green that was never finished keeps its status: it tells the workflow that there is nothing to set free.
        targets = [each for each in _targets(tx, deployment) if each.status is not InstanceStatus.CREATING]
        if delete_target:
            for target in targets:
                _require_unprotected(target)
            _require_unprotected_cluster(tx, deployment)
            for target in targets:
                tx.put_instance(structs.replace(target, status=InstanceStatus.DELETING))
            _show_cluster_deleting(tx, deployment)
        deployment = structs.replace(deployment, status=DeploymentStatus.DELETING, deleted_at=context.clock.now())
        tx.put_deployment(deployment)
        told = arguments.DeleteDeployment(delete_target=delete_target)
        start_workflow(context, tx, WorkflowKind.DELETE_DEPLOYMENT, deployment.identifier, told)
        view = deployment_views.deployment_view(context, deployment, tx)
    context.wake()
    return {"BlueGreenDeployment": view}


def _require_deletable(tx: Transaction, deployment: BlueGreenDeployment, *, delete_target: bool) -> None:
    if deployment.status in (DeploymentStatus.SWITCHOVER_IN_PROGRESS, DeploymentStatus.DELETING):
        raise _invalid_state(
            f"Blue/green deployment {deployment.identifier} cannot be deleted, it is in state {deployment.status}"
        )
    if any(
        workflow.subject == deployment.identifier and workflow.kind is WorkflowKind.DELETE_DEPLOYMENT
        for workflow in tx.unfinished_workflows()
    ):
        raise _invalid_state(f"Blue/green deployment {deployment.identifier} is still being cleaned up after a failure")
    if deployment.has_switched_over:
        if delete_target:
            raise _invalid_state(
                "Deleting target is not allowed while blue green deployment lifecycle is SWITCHOVER_COMPLETED."
            )
        return
    for target in _targets(tx, deployment):
        if is_busy(tx, target.resource_id):
            raise _invalid_state(f"DB instance {target.identifier} is not in available state")
    cluster = _green_cluster(tx, deployment)
    if cluster is not None:
        its = [each.resource_id for each in tx.cluster_endpoints([cluster.resource_id])]
        if any(is_busy(tx, each) for each in (cluster.resource_id, *its)):
            raise _invalid_state(f"DB cluster {cluster.identifier} is not in available state")
    added = [
        replica.identifier
        for replica in tx.replicas_of([deployment.primary.target_resource_id or ""])
        if replica.resource_id not in deployment.resource_ids
    ]
    if delete_target and added:
        raise _invalid_state(
            f"DB instance {deployment.primary.target_identifier} has read replicas of its own: {', '.join(added)}. "
            "Promote or delete them first."
        )


def _targets(tx: Transaction, deployment: BlueGreenDeployment) -> list[DBInstance]:
    """Those that there are."""
    found = [tx.instance(member.target_resource_id or "") for member in deployment.members]
    return [target for target in found if target is not None]


def _require_unprotected(target: DBInstance) -> None:
    if target.deletion_protection:
        raise _invalid_state(
            f"Cannot delete protected DB Instance {target.identifier}, please disable deletion protection and try "
            "again."
        )


def _require_unprotected_cluster(tx: Transaction, deployment: BlueGreenDeployment) -> None:
    cluster = _green_cluster(tx, deployment)
    if cluster is not None and cluster.deletion_protection:
        raise _invalid_state(
            f"Cannot delete protected DB Cluster {cluster.identifier}, please disable deletion protection and try "
            "again."
        )


def _show_cluster_deleting(tx: Transaction, deployment: BlueGreenDeployment) -> None:
    cluster = _green_cluster(tx, deployment)
    if cluster is None or cluster.status is ClusterStatus.CREATING:
        return
    tx.put_cluster(structs.replace(cluster, status=ClusterStatus.DELETING))
    for endpoint in tx.cluster_endpoints([cluster.resource_id]):
        tx.put_cluster_endpoint(structs.replace(endpoint, status=ClusterEndpointStatus.DELETING))


def _green_cluster(tx: Transaction, deployment: BlueGreenDeployment) -> DBCluster | None:
    return None if deployment.cluster is None else tx.cluster(deployment.cluster.target_resource_id or "")


def _invalid_state(message: str) -> Fault:
    return Fault("InvalidBlueGreenDeploymentStateFault", message)
