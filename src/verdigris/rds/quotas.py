"""DescribeAccountAttributes, and what is refused because there would be too much of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from verdigris.aws.errors import Fault
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import DeploymentStatus, SnapshotType
from verdigris.rds.context import Context


def describe_account_attributes(context: Context, _params: Mapping[str, Any]) -> dict[str, Any]:
    """Only of what exists here. Of a quota that each source or group has of its own: the most that one of them uses."""
    with context.store.transaction() as tx:
        sizes_gib = _sizes_gib(tx)
        replicas = Counter(instance.replica_of for instance in tx.instances() if instance.replica_of)
        clusters, groups = tx.clusters(), tx.subnet_groups()
        custom = Counter(each.cluster for each in tx.cluster_endpoints([each.resource_id for each in clusters]))
        used = {
            Quota.ALLOCATED_STORAGE: sum(sizes_gib),
            Quota.CUSTOM_ENDPOINTS_PER_DB_CLUSTER: max(custom.values(), default=0),
            Quota.DB_CLUSTERS: len(clusters),
            Quota.DB_INSTANCES: len(sizes_gib),
            Quota.DB_PARAMETER_GROUPS: len(tx.parameter_groups()),
            Quota.DB_SUBNET_GROUPS: len(groups),
            Quota.EVENT_SUBSCRIPTIONS: len(tx.event_subscriptions()),
            Quota.MANUAL_SNAPSHOTS: count_manual(tx),
            Quota.READ_REPLICAS_PER_MASTER: max(replicas.values(), default=0),
            Quota.SUBNETS_PER_DB_SUBNET_GROUP: max((len(group.subnet_ids) for group in groups), default=0),
        }
    return {
        "AccountQuotas": [
            {"AccountQuotaName": quota, "Used": count, "Max": most(context, quota)} for quota, count in used.items()
        ]
    }


def count_manual(tx: Transaction) -> int:
    """Snapshots that somebody has asked for."""
    return sum(snapshot.type is SnapshotType.MANUAL for snapshot in tx.snapshots())


def most(context: Context, quota: Quota) -> int:
    """Each instance has one of the configured ports."""
    allowed = context.quotas[quota]
    return min(allowed, context.ports.count) if quota is Quota.DB_INSTANCES else allowed


def require_room(context: Context, tx: Transaction, new_gib: Sequence[int]) -> None:
    """For instances of these sizes."""
    allowed, present = most(context, Quota.DB_INSTANCES), len(_sizes_gib(tx))
    if present + len(new_gib) > allowed:
        raise Fault(
            "InstanceQuotaExceededFault",
            f"The quota of DB instances would be exceeded: {present} of {allowed} are there, {len(new_gib)} more"
            " wanted",
        )
    require_storage(context, tx, sum(new_gib))


def require_storage(context: Context, tx: Transaction, more_gib: int) -> None:
    """What is freed is always welcome, and what stays as it is."""
    allowed, present = most(context, Quota.ALLOCATED_STORAGE), sum(_sizes_gib(tx))
    if more_gib > 0 and present + more_gib > allowed:
        raise Fault(
            "StorageQuotaExceededFault",
            f"The quota of allocated storage would be exceeded: {present} of {allowed} GiB are allocated,"
            f" {more_gib} more wanted",
        )


def require_less(context: Context, quota: Quota, present: int, fault: str) -> None:
    """Than there may be: one more is wanted."""
    allowed = most(context, quota)
    if present >= allowed:
        raise Fault(fault, f"The quota of {quota} would be exceeded: there are {present} of {allowed}")


def cluster_count(tx: Transaction) -> int:
    """Of those that there are, and of those that a deployment is about to make."""
    planned = [
        deployment
        for deployment in tx.deployments()
        if deployment.status is DeploymentStatus.PROVISIONING
        if deployment.cluster is not None and deployment.cluster.target_resource_id is None
    ]
    return len(tx.clusters()) + len(planned)


def require_subnets(context: Context, wanted: int) -> None:
    allowed = most(context, Quota.SUBNETS_PER_DB_SUBNET_GROUP)
    if wanted > allowed:
        raise Fault(
            "DBSubnetQuotaExceededFault",
            f"The quota of subnets in a DB subnet group would be exceeded: it is {allowed}",
        )


def _sizes_gib(tx: Transaction) -> list[int]:
    """Of the instances that there are, and of those that a deployment is about to make."""
    planned = [
        deployment.target.allocated_storage_gib
        for deployment in tx.deployments()
        if deployment.status is DeploymentStatus.PROVISIONING
        for member in deployment.members
        if member.target_resource_id is None
    ]
    return [instance.allocated_storage_gib for instance in tx.instances()] + planned
