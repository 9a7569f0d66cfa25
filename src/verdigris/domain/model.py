"""The records of the control plane: immutable, stored whole, changed by ``msgspec.structs.replace``."""

from datetime import datetime
from typing import Any

from msgspec import Struct, structs

from verdigris.domain.parameters import ApplyStatus, ParameterValue
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    CustomEndpointType,
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    SnapshotStatus,
    SnapshotType,
    SourceType,
    TaskName,
    TaskStatus,
    WorkflowKind,
    WorkflowStatus,
)


class Tag(Struct, frozen=True, order=True):
    key: str
    value: str = ""


class PendingChange(Struct, frozen=True, kw_only=True):
    """What has been left for an instance's maintenance window, because clients would notice it; None: nothing."""

    engine_version: str | None = None
    instance_class: str | None = None
    new_identifier: str | None = None


class DBInstance(Struct, frozen=True, kw_only=True):
    """One database server under management.

    ``resource_id`` (``DbiResourceId``) is the physical server and never changes; ``identifier`` is a name, always
    lower case, and moves at a switchover. ``port`` belongs to the endpoint, so it moves with the name.
    """

    resource_id: str
    identifier: str
    engine: str
    engine_version: str
    instance_class: str
    status: InstanceStatus
    status_reason: str = ""
    master_username: str
    db_name: str | None = None
    port: int
    created_at: datetime
    allocated_storage_gib: int
    deletion_protection: bool = False
    parameter_group: str
    parameter_status: ApplyStatus = ApplyStatus.IN_SYNC
    # True for a green and a read replica that follow their source, and for blue after a switchover.
    read_only: bool = False
    # Of a read replica: its source's resource id, and why it does not follow it at the moment (empty: it does).
    replica_of: str | None = None
    replication_error: str = ""
    cluster: str | None = None  # resource id of the cluster that it is a member of
    token_logins: bool = False  # IAMDatabaseAuthenticationEnabled
    pending: PendingChange = PendingChange()
    # RDS members that are accepted, kept and shown, under their botocore names. Most change nothing here; windows and
    # BackupRetentionPeriod do.
    settings: dict[str, Any] = {}
    tags: tuple[Tag, ...] = ()


class DBSnapshot(Struct, frozen=True, kw_only=True):
    """An instance as it was at one moment: its data, under ``snapshot_id``, and what was known of it."""

    snapshot_id: str
    identifier: str  # lower case
    type: SnapshotType = SnapshotType.MANUAL
    status: SnapshotStatus
    resource_id: str  # of the instance, which may be gone
    instance_identifier: str  # as it was called
    instance_created_at: datetime
    engine: str
    engine_version: str
    instance_class: str
    master_username: str
    db_name: str | None = None
    port: int
    allocated_storage_gib: int
    begun_at: datetime | None = None  # None for one of before automated ones
    taken_at: datetime | None = None  # of a copy, when it was made; None until it is available
    data_of: datetime | None = None  # the moment whose data it has
    size_bytes: int | None = None
    copy_of: str | None = None  # snapshot id, of one that may be gone
    settings: dict[str, Any] = {}  # the instance's, and its tags
    instance_tags: tuple[Tag, ...] = ()
    tags: tuple[Tag, ...] = ()


class DBCluster(Struct, frozen=True, kw_only=True):
    """A writer, its read replicas, and two endpoints: one leads to the writer, one to the readers.

    Its members are the instances that name it. ``port`` is that of both endpoints, on two addresses. The engine is
    what the cluster was asked for as: the servers are PostgreSQL in any case.
    """

    resource_id: str
    identifier: str  # lower case
    engine: str
    engine_version: str  # of its first member
    status: ClusterStatus
    writer: str | None = None  # resource id; None until there is a member
    master_username: str
    master_password_verifier: str  # for the first member
    db_name: str | None = None
    port: int
    created_at: datetime
    deletion_protection: bool = False
    # As an instance's.
    settings: dict[str, Any] = {}
    tags: tuple[Tag, ...] = ()

    @property
    def inherited(self) -> dict[str, Any]:
        """Settings that its members have from it."""
        return {name: value for name, value in self.settings.items() if name in INHERITED}


INHERITED = frozenset({"BackupRetentionPeriod", "DBSubnetGroupName", "PreferredBackupWindow", "VpcSecurityGroupIds"})


class DBClusterEndpoint(Struct, frozen=True, kw_only=True):
    """A custom endpoint: it leads to some of its cluster's members, on the cluster's port and an address of its own.

    Members are resource ids, so that a rename changes nothing. One that has been deleted stays in the list: a static
    list never becomes an empty one, which would stand for everybody.
    """

    resource_id: str
    identifier: str  # lower case
    cluster: str  # resource id
    type: CustomEndpointType
    status: ClusterEndpointStatus
    host: str
    static_members: tuple[str, ...] = ()
    excluded_members: tuple[str, ...] = ()  # empty if there are static ones
    tags: tuple[Tag, ...] = ()

    def includes(self, resource_id: str) -> bool:
        """Whether a member of the cluster is one of those listed; its role is another question."""
        if self.static_members:
            return resource_id in self.static_members
        return resource_id not in self.excluded_members


class ParameterGroup(Struct, frozen=True, kw_only=True):
    """Values for servers of one family (``postgres17``). The default groups are not among them: they cannot be changed,
    and say what every server has that has no other."""

    name: str  # lower case
    family: str
    description: str
    parameters: dict[str, ParameterValue] = {}
    tags: tuple[Tag, ...] = ()


class DBSubnetGroup(Struct, frozen=True, kw_only=True):
    """Kept and shown; nothing has subnets here."""

    name: str  # lower case
    description: str
    subnet_ids: tuple[str, ...]
    tags: tuple[Tag, ...] = ()


class Task(Struct, frozen=True):
    name: TaskName
    status: TaskStatus = TaskStatus.PENDING


class Member(Struct, frozen=True, kw_only=True):
    """One source with its target: two instances, two clusters, or two custom endpoints. Names are kept so that ARNs can
    be shown after one of them is gone."""

    source_resource_id: str
    source_identifier: str
    target_resource_id: str | None = None
    target_identifier: str | None = None
    status: MemberStatus | None = None  # absent in the response of CreateBlueGreenDeployment, as on RDS

    @property
    def resource_ids(self) -> tuple[str, ...]:
        """Of its sides, as far as there are any."""
        if self.target_resource_id is None:
            return (self.source_resource_id,)
        return self.source_resource_id, self.target_resource_id

    @property
    def is_whole(self) -> bool:
        """Both sides are there, or will be."""
        return self.status not in (MemberStatus.MISSING_SOURCE, MemberStatus.MISSING_TARGET)


class ReplicaSpec(Struct, frozen=True, kw_only=True):
    """What a green replica shall be; the rest follows from its counterpart and from green."""

    instance_class: str
    parameter_group: str


class TargetSpec(Struct, frozen=True, kw_only=True):
    """What green shall be, fully resolved when the deployment is created."""

    engine_version: str
    instance_class: str
    parameter_group: str
    allocated_storage_gib: int
    # Iops, StorageType, StorageThroughput, under the names that an instance has for them: kept and shown only.
    settings: dict[str, Any] = {}
    replicas: dict[str, ReplicaSpec] = {}  # by the blue replica's resource id

    @property
    def parameter_groups(self) -> frozenset[str]:
        return frozenset({self.parameter_group, *(replica.parameter_group for replica in self.replicas.values())})


class BlueGreenDeployment(Struct, frozen=True, kw_only=True):
    identifier: str  # "bgd-" and 16 of [a-z0-9]
    name: str
    mode: ReplicationMode
    target: TargetSpec
    status: DeploymentStatus
    status_details: str | None = None
    members: tuple[Member, ...]  # instances: the primary first, then a read replica each
    cluster: Member | None = None  # whose members they are, on either side
    endpoints: tuple[Member, ...] = ()  # its custom ones
    tasks: tuple[Task, ...]
    created_at: datetime
    deleted_at: datetime | None = None  # DeleteTime: when deletion was asked for
    tags: tuple[Tag, ...] = ()

    @property
    def subject(self) -> Member:
        """What it was created for."""
        return self.primary if self.cluster is None else self.cluster

    @property
    def primary(self) -> Member:
        return self.members[0]

    @property
    def replicas(self) -> tuple[Member, ...]:
        return self.members[1:]

    @property
    def moving(self) -> tuple[Member, ...]:
        """Those that a switchover moves: of a replica one side may have been deleted."""
        return (self.primary, *(each for each in self.replicas if each.is_whole))

    @property
    def resource_ids(self) -> frozenset[str]:
        """Of everybody on either side."""
        return frozenset(resource_id for each in self.members for resource_id in each.resource_ids)

    @property
    def has_switched_over(self) -> bool:
        """The members tell it even while the deployment is being deleted, or after its deletion has failed."""
        return self.primary.status is MemberStatus.SWITCHOVER_COMPLETED

    @property
    def streams(self) -> bool:
        """Green is a standby of blue: it has blue's roles and their passwords, and cannot have others."""
        return self.mode is ReplicationMode.PHYSICAL and not self.has_switched_over

    def with_member_status(self, status: MemberStatus) -> "BlueGreenDeployment":
        """Of everything that there are both sides of."""

        def changed(member: Member) -> Member:
            return structs.replace(member, status=status) if member.is_whole else member

        return structs.replace(
            self,
            members=tuple(map(changed, self.members)),
            cluster=None if self.cluster is None else changed(self.cluster),
            endpoints=tuple(map(changed, self.endpoints)),
        )

    @property
    def moving_endpoints(self) -> tuple[Member, ...]:
        """As ``moving``, of custom endpoints."""
        return tuple(each for each in self.endpoints if each.is_whole)


class Event(Struct, frozen=True, kw_only=True):
    """One row of ``DescribeEvents``. ``event_id`` is RDS's number, e.g. ``RDS-EVENT-0244``."""

    event_id: str
    source_type: SourceType
    source_identifier: str
    source_resource_id: str  # resource id of the instance or identifier of the deployment
    categories: tuple[str, ...]
    message: str
    at: datetime


class Workflow(Struct, frozen=True, kw_only=True):
    """A durable piece of work. ``arguments`` never holds a secret: passwords arrive as SCRAM verifiers."""

    workflow_id: str
    kind: WorkflowKind
    subject: str  # resource id of the instance or identifier of the deployment
    arguments: dict[str, Any] = {}
    status: WorkflowStatus = WorkflowStatus.RUNNING
    error: str | None = None
    started_at: datetime
    deadline_at: datetime | None = None


class JournalEntry(Struct, frozen=True, kw_only=True):
    """``outcome``: "started", "done", "failed" or "undone"; the last entry of a step is its state."""

    workflow_id: str
    step: str
    outcome: str
    at: datetime
    detail: str = ""
