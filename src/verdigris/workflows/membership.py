"""What happens to a deployment when one of its members is renamed or deleted on its own."""

from msgspec import structs

from verdigris.domain.model import BlueGreenDeployment, DBCluster, DBClusterEndpoint, DBInstance, Member
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
    return next(position for position, each in enumerate(deployment.members) if resource_id in each.resource_ids)


def is_target_in_waiting(tx: Transaction, resource_id: str) -> bool:
    """Whether a deployment is to make production of it, and has not yet."""
    return any(
        not deployment.has_switched_over
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


def cluster_deleted(tx: Transaction, cluster: DBCluster) -> None:
    """Its members have gone before it, and with them the deployment's validity."""
    for deployment in tx.deployments():
        member = deployment.cluster
        if member is not None and deployment.status in REPLICATING and cluster.resource_id in member.resource_ids:
            tx.put_deployment(structs.replace(deployment, cluster=_missing(member, cluster.resource_id)))


def endpoint_deleted(tx: Transaction, endpoint: DBClusterEndpoint) -> None:
    """A custom one: its counterpart stays where it is in the switchover."""
    for deployment in tx.deployments():
        if deployment.status in REPLICATING:
            endpoints = tuple(
                _missing(each, endpoint.resource_id) if endpoint.resource_id in each.resource_ids else each
                for each in deployment.endpoints
            )
            if endpoints != deployment.endpoints:
                tx.put_deployment(structs.replace(deployment, endpoints=endpoints))


def _missing(member: Member, resource_id: str) -> Member:
    """Without one of its sides."""
    is_source = member.source_resource_id == resource_id
    return structs.replace(member, status=MemberStatus.MISSING_SOURCE if is_source else MemberStatus.MISSING_TARGET)


def deleted(tx: Transaction, instance: DBInstance) -> None:
    """The member's status says which side is missing; what has been switched over already stays as it is. Without a
    replica the deployment is as good as before: its counterpart stays where it is in the switchover."""
    for deployment in tx.deployments_of([instance.resource_id]):
        if deployment.status not in REPLICATING:
            continue
        position = _position(deployment, instance.resource_id)
        member = deployment.members[position]
        side = "blue" if member.source_resource_id == instance.resource_id else "green"
        members = replace_member(deployment.members, position, _missing(member, instance.resource_id))
        deployment = structs.replace(deployment, members=members)
        if position == 0:
            deployment = structs.replace(
                deployment,
                status=DeploymentStatus.INVALID_CONFIGURATION,
                status_details=f"The {side} DB instance {instance.identifier} was deleted.",
            )
        tx.put_deployment(deployment)
