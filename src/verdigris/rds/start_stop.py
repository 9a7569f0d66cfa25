"""StopDBInstance and StartDBInstance.

Nobody starts a stopped instance after seven days, as RDS does: whoever stops one here has his own reasons.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from verdigris.aws.errors import invalid_parameter_combination
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.rds import views
from verdigris.rds.cluster_members import require_no_member
from verdigris.rds.context import Context
from verdigris.rds.lookups import deployment_of, require_instance
from verdigris.rds.snapshots import begin_snapshot
from verdigris.rds.states import invalid_instance_state, require_available, require_free_hands
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments
from verdigris.workflows.services import is_busy


def stop_db_instance(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    _refuse(params, "DetachFromDBCapacityReservation", "there are no capacity reservations here")
    with context.store.transaction() as tx:
        instance = require_instance(tx, params["DBInstanceIdentifier"])
        require_no_member(instance, "cannot be stopped by itself.")
        require_available(instance)
        require_free_hands(tx, instance)
        _require_nobody_follows(tx, instance)
        told = arguments.StopInstance()
        if params.get("DBSnapshotIdentifier"):
            snapshot = begin_snapshot(context, tx, instance, "DBSnapshotIdentifier", params)
            told = arguments.StopInstance(snapshot_id=snapshot.snapshot_id)
        instance = _begin(context, tx, instance, InstanceStatus.STOPPING, WorkflowKind.STOP_INSTANCE, told)
        around = views.surroundings(tx, [instance])
    context.wake()
    return {"DBInstance": views.instance_view(context, instance, around(instance))}


def start_db_instance(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    _refuse(params, "DBCapacityReservationIdentifier", "there are no capacity reservations here")
    with context.store.transaction() as tx:
        instance = require_instance(tx, params["DBInstanceIdentifier"])
        if instance.status is not InstanceStatus.STOPPED or is_busy(tx, instance.resource_id):
            raise invalid_instance_state(
                f"DB instance {instance.identifier} is not stopped: it is in state {instance.status}"
            )
        instance = _begin(context, tx, instance, InstanceStatus.STARTING, WorkflowKind.START_INSTANCE)
        around = views.surroundings(tx, [instance])
    context.wake()
    return {"DBInstance": views.instance_view(context, instance, around(instance))}


def _begin(
    context: Context,
    tx: Transaction,
    instance: DBInstance,
    status: InstanceStatus,
    kind: WorkflowKind,
    told: Struct | None = None,
) -> DBInstance:
    instance = structs.replace(instance, status=status)
    tx.put_instance(instance)
    start_workflow(context, tx, kind, instance.resource_id, told)
    return instance


def _refuse(params: Mapping[str, Any], member: str, why: str) -> None:
    if params.get(member):
        raise invalid_parameter_combination(f"{member} cannot be specified: {why}.")


def _require_nobody_follows(tx: Transaction, instance: DBInstance) -> None:
    if instance.replica_of is not None or tx.replicas_of([instance.resource_id]):
        role = "is a read replica" if instance.replica_of is not None else "has a read replica"
        raise invalid_instance_state(f"DB instance {instance.identifier} {role} and cannot be stopped.")
    """As on RDS, where either side of a deployment is a read replica or has one, until it has been switched over."""
    deployment = deployment_of(tx, instance.resource_id)
    if deployment is not None and not deployment.has_switched_over:
        raise invalid_instance_state(
            f"DB instance {instance.identifier} is a member of the blue/green deployment {deployment.identifier} and "
            "cannot be stopped. Switch the deployment over or delete it first."
        )
