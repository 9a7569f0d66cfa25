"""In which states an instance or a cluster takes an operation; in any other it is RDS's ``InvalidDBInstanceState``, or
``InvalidDBClusterStateFault``."""

from verdigris.aws.errors import Fault
from verdigris.domain.model import BlueGreenDeployment, DBCluster, DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import ClusterStatus, DeploymentStatus, InstanceStatus
from verdigris.rds.lookups import cluster_deployment_of, deployment_of
from verdigris.workflows.services import HANDS_OFF, is_busy

# Nobody works on it, and green follows blue.
GREEN_IS_FREE = frozenset({DeploymentStatus.AVAILABLE, DeploymentStatus.SWITCHOVER_FAILED})
_SETTLED = frozenset({InstanceStatus.AVAILABLE, InstanceStatus.FAILED, InstanceStatus.STOPPED})


def invalid_instance_state(message: str) -> Fault:
    return Fault("InvalidDBInstanceStateFault", message)


def invalid_cluster_state(message: str) -> Fault:
    return Fault("InvalidDBClusterStateFault", message)


def require_available(instance: DBInstance) -> None:
    if instance.status is not InstanceStatus.AVAILABLE:
        raise invalid_instance_state(
            f"DB instance {instance.identifier} is not in available state, but {instance.status}"
        )


def require_settled(tx: Transaction, instance: DBInstance) -> None:
    """Nothing is being done to it, or was left half done by something that has not been undone yet."""
    if instance.status not in _SETTLED:
        require_available(instance)
    if is_busy(tx, instance.resource_id):
        raise invalid_instance_state(f"DB instance {instance.identifier} is still being cleaned up after a failure")


def require_free_hands(tx: Transaction, instance: DBInstance) -> None:
    """No deployment's workflow is at work on it, and nobody copies it."""
    deployment = deployment_of(tx, instance.resource_id)
    if deployment is not None and deployment.status in HANDS_OFF:
        raise invalid_instance_state(
            f"DB instance {instance.identifier} is a member of the blue/green deployment {deployment.identifier}, "
            f"which is in state {deployment.status}"
        )
    copying = [r.identifier for r in tx.replicas_of([instance.resource_id]) if r.status is InstanceStatus.CREATING]
    if copying:
        raise invalid_instance_state(
            f"DB instance {instance.identifier} is being copied for its read replica {copying[0]}"
        )


def require_available_cluster(cluster: DBCluster) -> None:
    if cluster.status is not ClusterStatus.AVAILABLE:
        raise invalid_cluster_state(f"DB cluster {cluster.identifier} is not in available state, but {cluster.status}")


def require_free_cluster(tx: Transaction, cluster: DBCluster) -> None:
    """No deployment's workflow is at work on it."""
    deployment = cluster_deployment_of(tx, cluster.resource_id)
    if deployment is not None and deployment.status in HANDS_OFF:
        raise _in_deployment(cluster, deployment, f", which is in state {deployment.status}")


def require_growing_cluster(tx: Transaction, cluster: DBCluster) -> None:
    """Green gets whatever anybody likes, and keeps it; what blue got while there is a green would stay with blue."""
    require_free_cluster(tx, cluster)
    deployment = cluster_deployment_of(tx, cluster.resource_id)
    if deployment is None or deployment.cluster is None or deployment.has_switched_over:
        return
    if deployment.cluster.source_resource_id == cluster.resource_id or deployment.status not in GREEN_IS_FREE:
        raise _in_deployment(cluster, deployment, ": switch it over or delete it first")


def _in_deployment(cluster: DBCluster, deployment: BlueGreenDeployment, why: str) -> Fault:
    return invalid_cluster_state(
        f"DB cluster {cluster.identifier} is a member of the blue/green deployment {deployment.identifier} "
        f"({deployment.name}){why}"
    )
