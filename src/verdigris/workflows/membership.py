"""What happens to a deployment when one of its members is renamed or deleted on its own."""

from msgspec import structs

from verdigris.domain.model import BlueGreenDeployment, DBInstance
from verdigris.domain.ports import Pair, Transaction
from verdigris.domain.statuses import DeploymentStatus, MemberStatus
from verdigris.workflows.services import Services, replace_member

# Deployments whose two sides are still tied together by replication.
REPLICATING = frozenset(
    {
        DeploymentStatus.PROVISIONING,
        DeploymentStatus.AVAILABLE,
        DeploymentStatus.INVALID_CONFIGURATION,
        DeploymentStatus.SWITCHOVER_FAILED,
    }
)


def unfinished_pairs_of(services: Services, resource_id: str) -> list[Pair]:
    """Of primaries: a replica is tied to its source alone, and not by its deployment."""
    with services.store.transaction() as tx:
        deployments = [d for d in tx.deployments_of([resource_id]) if d.status in REPLICATING]
    deployments = [d for d in deployments if _position(d, resource_id) == 0]
    return [services.pair(d) for d in deployments if d.primary.target_resource_id is not None]


def _position(deployment: BlueGreenDeployment, resource_id: str) -> int:
    """Of the member that it is a side of."""
    ends = [(each.source_resource_id, each.target_resource_id) for each in deployment.members]
    return next(position for position, both in enumerate(ends) if resource_id in both)


def is_target_in_waiting(tx: Transaction, resource_id: str) -> bool:
    """Whether a deployment is to make production of it, and has not yet."""
    return any(
        deployment.primary.status is not MemberStatus.SWITCHOVER_COMPLETED
        and any(member.target_resource_id == resource_id for member in deployment.members)
        for deployment in tx.deployments_of([resource_id])
    )


def renamed(tx: Transaction, resource_id: str, new_identifier: str) -> None:
    for deployment in tx.deployments_of([resource_id]):
        position = _position(deployment, resource_id)
        member = deployment.members[position]
        if member.source_resource_id == resource_id:
            member = structs.replace(member, source_identifier=new_identifier)
        else:
            member = structs.replace(member, target_identifier=new_identifier)
        tx.put_deployment(structs.replace(deployment, members=replace_member(deployment.members, position, member)))


def deleted(tx: Transaction, instance: DBInstance) -> None:
    """The member's status says which side is missing; what has been switched over already stays as it is. Without a
    replica the deployment is as good as before: its counterpart stays where it is in the switchover."""
    for deployment in tx.deployments_of([instance.resource_id]):
        if deployment.status not in REPLICATING:
            continue
        position = _position(deployment, instance.resource_id)
        member = deployment.members[position]
        is_source = member.source_resource_id == instance.resource_id
        status, side = (MemberStatus.MISSING_SOURCE, "blue") if is_source else (MemberStatus.MISSING_TARGET, "green")
        deployment = structs.replace(
            deployment,
            members=replace_member(deployment.members, position, structs.replace(member, status=status)),
        )
        if position == 0:
            deployment = structs.replace(
                deployment,
                status=DeploymentStatus.INVALID_CONFIGURATION,
                status_details=f"The {side} DB instance {instance.identifier} was deleted.",
            )
        tx.put_deployment(deployment)
