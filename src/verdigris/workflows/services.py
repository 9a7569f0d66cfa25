"""What every workflow works with, gathered once by the composition root."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from msgspec import Struct

from verdigris.domain.errors import StepFailed
from verdigris.domain.identifiers import SUFFIX_ALPHABET, RandomText
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    Event,
    Member,
    Workflow,
)
from verdigris.domain.parameters import SERVICE_PARAMETERS
from verdigris.domain.policy import SwitchoverPolicy
from verdigris.domain.ports import (
    Clock,
    DatabaseServers,
    GreenBuilder,
    Pair,
    Ports,
    Replicas,
    Router,
    Snapshots,
    Store,
    SwitchoverEngine,
    TokenKeys,
    Transaction,
)
from verdigris.domain.statuses import DeploymentStatus, InstanceStatus, WorkflowKind


def _no_token_keys() -> TokenKeys:
    return TokenKeys(region="", account_id="")


@dataclass(frozen=True)
class Services:
    store: Store
    clock: Clock
    servers: DatabaseServers
    ports: Ports
    router: Router
    green: GreenBuilder
    replicas: Replicas
    snapshots: Snapshots
    switchover: SwitchoverEngine
    random_text: Callable[[str, int], str]
    token_keys: Callable[[], TokenKeys] = _no_token_keys  # as they are at the moment
    policy: SwitchoverPolicy = field(default_factory=SwitchoverPolicy)
    # Held from reading what a cluster's endpoints shall lead to until the router has been told.
    cluster_routing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def pair(self, deployment: BlueGreenDeployment) -> Pair:
        """The deployment's primary and its target. Raises ``StepFailed`` if there never was a target.

        Either may have been deleted on its own since: taking apart what is left needs a pair as well, and whatever
        needs both servers finds out by itself.
        """
        with self.store.transaction() as tx:
            return pair_of(tx, deployment)


def pair_of(tx: Transaction, deployment: BlueGreenDeployment) -> Pair:
    """With the source as it is recorded now, if it still is. Raises ``StepFailed`` if there never was a target."""
    member = deployment.primary
    if member.target_resource_id is None:
        raise StepFailed("the deployment has no green instance")
    source = tx.instance(member.source_resource_id)
    return Pair(
        deployment_id=deployment.identifier,
        source_resource_id=member.source_resource_id,
        target_resource_id=member.target_resource_id,
        mode=deployment.mode,
        source_version="" if source is None else source.engine_version,
        target_version=deployment.target.engine_version,
        target_instance_class=deployment.target.instance_class,
        target_parameters=server_parameters(tx, deployment.target.parameter_group),
        target_replicas=tuple(
            replica.target_resource_id for replica in deployment.moving[1:] if replica.target_resource_id is not None
        ),
    )


def server_parameters(tx: Transaction, group_name: str) -> dict[str, str]:
    """What a parameter group says to a server. Default groups, and one that is gone, say nothing."""
    group = tx.parameter_group(group_name)
    if group is None:
        return {}
    return {name: each.value for name, each in group.parameters.items() if name not in SERVICE_PARAMETERS}


def is_busy(tx: Transaction, subject: str) -> bool:
    """Whether work on ``subject`` has not ended. A status may say so earlier: undoing goes on behind ``failed``."""
    return bool(tx.unfinished_workflows_of([subject]))


# While a deployment is in one of these, its workflow has the members' servers in its hands.
HANDS_OFF = frozenset(
    {DeploymentStatus.PROVISIONING, DeploymentStatus.SWITCHOVER_IN_PROGRESS, DeploymentStatus.DELETING}
)


def has_free_hands(tx: Transaction, instance: DBInstance) -> bool:
    """Nothing is being done to it, no deployment's workflow is at work on it, and nobody copies it."""
    return (
        not is_busy(tx, instance.resource_id)
        and not any(each.status in HANDS_OFF for each in tx.deployments_of([instance.resource_id]))
        and not any(each.status is InstanceStatus.CREATING for each in tx.replicas_of([instance.resource_id]))
    )


def taken_ports(tx: Transaction) -> set[int]:
    """Those that endpoints have, or are about to have."""
    moving = (
        workflow.arguments.get("port")
        for workflow in tx.unfinished_workflows()
        if workflow.kind in (WorkflowKind.MODIFY_INSTANCE, WorkflowKind.MODIFY_CLUSTER)
    )
    present = {instance.port for instance in tx.instances()} | {cluster.port for cluster in tx.clusters()}
    return present | {port for port in moving if port is not None}


def require_instance(tx: Transaction, resource_id: str) -> DBInstance:
    instance = tx.instance(resource_id)
    if instance is None:
        raise StepFailed(f"DB instance {resource_id} no longer exists")
    return instance


def require_cluster(tx: Transaction, resource_id: str) -> DBCluster:
    cluster = tx.cluster(resource_id)
    if cluster is None:
        raise StepFailed(f"DB cluster {resource_id} no longer exists")
    return cluster


def require_cluster_endpoint(tx: Transaction, resource_id: str) -> DBClusterEndpoint:
    endpoint = tx.cluster_endpoint(resource_id)
    if endpoint is None:
        raise StepFailed(f"DB cluster endpoint {resource_id} no longer exists")
    return endpoint


def require_deployment(tx: Transaction, identifier: str) -> BlueGreenDeployment:
    deployment = tx.deployment(identifier)
    if deployment is None:
        raise StepFailed(f"blue/green deployment {identifier} no longer exists")
    return deployment


def new_workflow(
    random_text: RandomText,
    now: datetime,
    kind: WorkflowKind,
    subject: str,
    arguments: Struct | None = None,
    *,
    deadline_at: datetime | None = None,
) -> Workflow:
    return Workflow(
        workflow_id="wf-" + random_text(SUFFIX_ALPHABET, 20),
        kind=kind,
        subject=subject,
        arguments={} if arguments is None else msgspec.to_builtins(arguments),
        started_at=now,
        deadline_at=deadline_at,
    )


def add_events(tx: Transaction, events: Sequence[Event]) -> None:
    for event in events:
        tx.add_event(event)


def replace_member(members: tuple[Member, ...], position: int, member: Member) -> tuple[Member, ...]:
    return (*members[:position], member, *members[position + 1 :])
