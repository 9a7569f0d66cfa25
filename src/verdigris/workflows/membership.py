"""What happens to a deployment when one of its members is renamed or deleted on its own."""

from msgspec import structs

from verdigris.domain.model import BlueGreenDeployment, DBInstance
from verdigris.domain.ports import Pair, Transaction
from verdigris.domain.statuses import DeploymentStatus, MemberStatus
from verdigris.workflows.services import Services, replace_primary

# Deployments whose two sides are still tied together by replication.
REPLICATING = frozenset(
    {
        DeploymentStatus.PROVISIONING,
        DeploymentStatus.AVAILABLE,
        DeploymentStatus.INVALID_CONFIGURATION,
        DeploymentStatus.SWITCHOVER_FAILED,
    }
)


def deployments_of(tx: Transaction, resource_id: str) -> list[BlueGreenDeployment]:
    return [
        deployment
        for deployment in tx.deployments()
        if resource_id in (deployment.primary.source_resource_id, deployment.primary.target_resource_id)
    ]


def unfinished_pairs_of(services: Services, resource_id: str) -> list[Pair]:
    with services.store.transaction() as tx:
        deployments = [d for d in deployments_of(tx, resource_id) if d.status in REPLICATING]
    return [services.pair(d) for d in deployments if d.primary.target_resource_id is not None]


def renamed(tx: Transaction, resource_id: str, new_identifier: str) -> None:
    for deployment in deployments_of(tx, resource_id):
        member = deployment.primary
        if member.source_resource_id == resource_id:
            member = structs.replace(member, source_identifier=new_identifier)
        else:
            member = structs.replace(member, target_identifier=new_identifier)
        tx.put_deployment(structs.replace(deployment, members=replace_primary(deployment.members, member)))


def deleted(tx: Transaction, instance: DBInstance) -> None:
    """The member's status says which side is missing; what has been switched over already stays as it is."""
    for deployment in deployments_of(tx, instance.resource_id):
        if deployment.status not in REPLICATING:
            continue
        is_source = deployment.primary.source_resource_id == instance.resource_id
        status, side = (MemberStatus.MISSING_SOURCE, "blue") if is_source else (MemberStatus.MISSING_TARGET, "green")
        member = structs.replace(deployment.primary, status=status)
        tx.put_deployment(
            structs.replace(
                deployment,
                members=replace_primary(deployment.members, member),
                status=DeploymentStatus.INVALID_CONFIGURATION,
                status_details=f"The {side} DB instance {instance.identifier} was deleted.",
            )
        )
