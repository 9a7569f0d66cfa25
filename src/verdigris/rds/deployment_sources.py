"""What a blue/green deployment can be created for: an instance with its read replicas, or a cluster."""

from collections.abc import Sequence

from msgspec import Struct

from verdigris.aws.errors import Fault, invalid_parameter_value
from verdigris.domain.identifiers import Arn
from verdigris.domain.model import DBCluster, DBClusterEndpoint, DBInstance, Member
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import ClusterEndpointStatus, InstanceStatus, MemberStatus
from verdigris.rds.cluster_members import unavailable_writer, writer_of
from verdigris.rds.context import Context
from verdigris.rds.lookups import cluster_deployment_of, deployment_of, parse_own_arn, require_cluster, require_instance
from verdigris.rds.states import (
    invalid_cluster_state,
    require_available,
    require_available_cluster,
    require_settled,
)
from verdigris.workflows.services import is_busy

# Neither is being worked on.
_AT_REST = frozenset({ClusterEndpointStatus.AVAILABLE, ClusterEndpointStatus.INACTIVE})


class Source(Struct, frozen=True, kw_only=True):
    """``cluster``, if it is one: the primary is its writer then, the replicas are its readers."""

    primary: DBInstance
    replicas: Sequence[DBInstance]
    cluster: DBCluster | None = None
    endpoints: Sequence[DBClusterEndpoint] = ()  # custom ones

    @property
    def members(self) -> tuple[Member, ...]:
        return tuple(self._member(each) for each in (self.primary, *self.replicas))

    @property
    def cluster_member(self) -> Member | None:
        return None if self.cluster is None else self._member(self.cluster)

    @property
    def endpoint_members(self) -> tuple[Member, ...]:
        return tuple(map(self._member, self.endpoints))

    def _member(self, record: DBInstance | DBCluster | DBClusterEndpoint) -> Member:
        """RDS shows no status of an instance's members yet, and ``PROVISIONING`` of a cluster's."""
        return Member(
            source_resource_id=record.resource_id,
            source_identifier=record.identifier,
            status=None if self.cluster is None else MemberStatus.PROVISIONING,
        )


def parse_source(context: Context, text: str) -> Arn:
    arn = parse_own_arn(context, text)
    if arn.kind not in ("db", "cluster"):
        raise invalid_parameter_value(f"Source is not the ARN of a DB instance or DB cluster: {text}")
    return arn


def usable_source(tx: Transaction, arn: Arn) -> Source:
    """Of an ARN that ``parse_source`` has passed. Raises RDS's fault if it cannot be the source of a deployment now."""
    if arn.kind == "cluster":
        return _usable_cluster(tx, require_cluster(tx, arn.name))
    source = require_instance(tx, arn.name)
    _require_usable_instance(tx, source)
    return Source(primary=source, replicas=_usable_replicas(tx, source))


def _usable_cluster(tx: Transaction, cluster: DBCluster) -> Source:
    deployment = cluster_deployment_of(tx, cluster.resource_id)
    if deployment is not None:
        raise invalid_cluster_state(
            f"DB cluster {cluster.identifier} is a member of the blue/green deployment {deployment.identifier} "
            f"({deployment.name}). Delete that deployment first."
        )
    require_available_cluster(cluster)
    writer = writer_of(tx, cluster)
    if writer is None:
        raise invalid_cluster_state(f"DB cluster {cluster.identifier} has no DB instances")
    if writer.status is not InstanceStatus.AVAILABLE:
        raise unavailable_writer(cluster, writer)
    if writer.read_only:
        raise Fault(
            "SourceClusterNotSupportedFault",
            f"DB cluster {cluster.identifier} is read-only since its switchover: it cannot be the source of another",
        )
    endpoints = tx.cluster_endpoints([cluster.resource_id])
    for each in endpoints:
        if each.status not in _AT_REST or is_busy(tx, each.resource_id):
            raise invalid_cluster_state(f"DB cluster endpoint {each.identifier} is in state {each.status}")
    return Source(primary=writer, replicas=_usable_replicas(tx, writer), cluster=cluster, endpoints=endpoints)


def _require_usable_instance(tx: Transaction, source: DBInstance) -> None:
    if source.cluster is not None:
        raise Fault(
            "SourceDatabaseNotSupportedFault",
            f"DB instance {source.identifier} is a member of a DB cluster: create the deployment for the cluster",
        )
    deployment = deployment_of(tx, source.resource_id)
    if deployment is not None:
        raise Fault(
            "InvalidDBInstanceStateFault",
            f"DB instance {source.identifier} is a member of the blue/green deployment {deployment.identifier} "
            f"({deployment.name}). Delete that deployment first.",
        )
    if source.status is not InstanceStatus.AVAILABLE:
        raise Fault(
            "InvalidDBInstanceStateFault",
            f"DB instance {source.identifier} is not in available state, but {source.status}",
        )
    if source.replica_of is not None:
        raise Fault(
            "SourceDatabaseNotSupportedFault",
            f"DB instance {source.identifier} is a read replica. Create the deployment for its source, or promote it "
            "first with PromoteReadReplica.",
        )
    if source.read_only:
        raise Fault(
            "SourceDatabaseNotSupportedFault",
            f"DB instance {source.identifier} is read-only since its switchover: it cannot be the source of another",
        )


def _usable_replicas(tx: Transaction, source: DBInstance) -> list[DBInstance]:
    """Those of the source: green gets as many. Each must be at rest, because the switchover will want it."""
    replicas = tx.replicas_of([source.resource_id])
    for replica in replicas:
        require_available(replica)
        require_settled(tx, replica)
    return replicas
