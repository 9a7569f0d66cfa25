"""In which states an instance takes an operation; in any other it is RDS's ``InvalidDBInstanceState``."""

from verdigris.aws.errors import Fault
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus
from verdigris.rds.lookups import deployment_of
from verdigris.workflows.services import HANDS_OFF, is_busy

_SETTLED = frozenset({InstanceStatus.AVAILABLE, InstanceStatus.FAILED, InstanceStatus.STOPPED})


def invalid_instance_state(message: str) -> Fault:
    return Fault("InvalidDBInstanceStateFault", message)


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
