"""The members of a green: its primary, and one read replica for each that blue has, made of green when it is as it
shall be.

A member is named by its position in the deployment; the primary is at 0.
"""

from msgspec import structs

from verdigris.domain.identifiers import green_identifier, new_resource_id
from verdigris.domain.model import BlueGreenDeployment, DBInstance, Member, PendingChange
from verdigris.domain.parameters import ApplyStatus
from verdigris.domain.ports import Replica, Transaction
from verdigris.domain.statuses import InstanceStatus, MemberStatus
from verdigris.workflows.instances import open_endpoint
from verdigris.workflows.replication import replica_record
from verdigris.workflows.services import (
    Services,
    replace_member,
    require_cluster,
    require_deployment,
    require_instance,
    taken_ports,
)


def _green(
    services: Services, tx: Transaction, deployment: BlueGreenDeployment, source: DBInstance, position: int
) -> DBInstance:
    """The record of what is to be made of, or like, ``source``: with a name, an id and a port of its own."""
    taken = {instance.identifier for instance in tx.instances()}
    target = deployment.target
    spec = target.replicas[source.resource_id] if position else target
    cluster = deployment.cluster
    green = structs.replace(
        source,
        cluster=None if cluster is None else cluster.target_resource_id,
        resource_id=new_resource_id(services.random_text),
        identifier=green_identifier(source.identifier, services.random_text, taken),
        engine_version=target.engine_version,
        instance_class=spec.instance_class,
        allocated_storage_gib=target.allocated_storage_gib,  # a replica's too, as on RDS
        parameter_group=spec.parameter_group,
        parameter_status=ApplyStatus.IN_SYNC,
        status=InstanceStatus.CREATING,
        status_reason="",
        port=services.ports.allocate(taken_ports(tx)),
        created_at=services.clock.now(),
        read_only=True,
        pending=PendingChange(),
    )
    if position:
        return structs.replace(green, replica_of=deployment.primary.target_resource_id, replication_error="")
    return structs.replace(green, settings={**source.settings, **target.settings})


async def register(services: Services, deployment_id: str, position: int) -> None:
    """Give it its name, its id and its endpoint's port. Repeated after a crash it finds them there."""
    with services.store.transaction() as tx:
        deployment = require_deployment(tx, deployment_id)
        member = deployment.members[position]
        if member.target_resource_id is not None:
            return
        target = _green(services, tx, deployment, require_instance(tx, member.source_resource_id), position)
        tx.put_instance(target)
        if target.cluster is not None and position == 0:
            tx.put_cluster(structs.replace(require_cluster(tx, target.cluster), writer=target.resource_id))
        _put_member(
            tx,
            deployment_id,
            position,
            structs.replace(
                member,
                target_resource_id=target.resource_id,
                target_identifier=target.identifier,
                status=MemberStatus.PROVISIONING,
            ),
        )


async def unregister(services: Services, deployment_id: str, position: int) -> None:
    with services.store.transaction() as tx:
        member = require_deployment(tx, deployment_id).members[position]
        if member.target_resource_id is not None:
            tx.delete_instance(member.target_resource_id)
        gone = structs.replace(
            member, target_resource_id=None, target_identifier=None, status=MemberStatus.MISSING_TARGET
        )
        _put_member(tx, deployment_id, position, gone)


async def copy(services: Services, deployment_id: str, position: int) -> None:
    await services.replicas.create(_replica(services, deployment_id, position))


async def remove(services: Services, deployment_id: str, position: int) -> None:
    """The copy first: it may be what fills green's disk, and then green does not even let us in."""
    replica = _replica(services, deployment_id, position)
    await services.servers.remove(replica.resource_id)
    await services.replicas.release_source(replica)


async def open_endpoint_of(services: Services, deployment_id: str, position: int) -> None:
    await open_endpoint(services, _target(services, deployment_id, position).resource_id, port_is_ours=True)


async def close_endpoint_of(services: Services, deployment_id: str, position: int) -> None:
    await services.router.remove_route(_target(services, deployment_id, position).identifier)


# -- records


def _put_member(tx: Transaction, deployment_id: str, position: int, member: Member) -> None:
    deployment = require_deployment(tx, deployment_id)
    tx.put_deployment(structs.replace(deployment, members=replace_member(deployment.members, position, member)))


def _target(services: Services, deployment_id: str, position: int) -> DBInstance:
    with services.store.transaction() as tx:
        member = require_deployment(tx, deployment_id).members[position]
        return require_instance(tx, member.target_resource_id or "")


def _replica(services: Services, deployment_id: str, position: int) -> Replica:
    target = _target(services, deployment_id, position)
    with services.store.transaction() as tx:
        return replica_record(tx, target)
