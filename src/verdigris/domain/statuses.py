"""Every status that the RDS API shows, one enumeration per shape, values as on the wire."""

from enum import StrEnum


class InstanceStatus(StrEnum):
    """``DBInstanceStatus`` (RDS user guide, "Viewing Amazon RDS DB instance status")."""

    CREATING = "creating"
    AVAILABLE = "available"
    MODIFYING = "modifying"
    RENAMING = "renaming"
    UPGRADING = "upgrading"
    REBOOTING = "rebooting"
    BACKING_UP = "backing-up"
    RESETTING_MASTER_CREDENTIALS = "resetting-master-credentials"
    STOPPING = "stopping"
    STOPPED = "stopped"
    STARTING = "starting"
    DELETING = "deleting"
    FAILED = "failed"


class ClusterStatus(StrEnum):
    """``DBCluster.Status`` (Aurora user guide, "Viewing DB cluster status")."""

    CREATING = "creating"
    AVAILABLE = "available"
    MODIFYING = "modifying"
    RESETTING_MASTER_CREDENTIALS = "resetting-master-credentials"
    DELETING = "deleting"
    FAILED = "failed"


class SnapshotStatus(StrEnum):
    """``DBSnapshot.Status``: creating -> available | failed; available | failed -> deleting."""

    CREATING = "creating"
    AVAILABLE = "available"
    FAILED = "failed"
    DELETING = "deleting"


class SnapshotType(StrEnum):
    """``DBSnapshot.SnapshotType``, those that there are here."""

    MANUAL = "manual"
    AUTOMATED = "automated"


class ClusterEndpointStatus(StrEnum):
    """``DBClusterEndpoint.Status``."""

    CREATING = "creating"
    AVAILABLE = "available"
    MODIFYING = "modifying"
    DELETING = "deleting"
    INACTIVE = "inactive"  # here: it could not be opened


class CustomEndpointType(StrEnum):
    """``DBClusterEndpoint.CustomEndpointType``: whom one may lead to."""

    READER = "READER"
    ANY = "ANY"


class DeploymentStatus(StrEnum):
    """``BlueGreenDeployment.Status``.

    PROVISIONING -> AVAILABLE | INVALID_CONFIGURATION
    AVAILABLE -> SWITCHOVER_IN_PROGRESS | INVALID_CONFIGURATION
    SWITCHOVER_IN_PROGRESS -> SWITCHOVER_COMPLETED | SWITCHOVER_FAILED
    SWITCHOVER_FAILED -> SWITCHOVER_IN_PROGRESS (the call may be made again) | INVALID_CONFIGURATION
    every one but SWITCHOVER_IN_PROGRESS -> DELETING
    """

    PROVISIONING = "PROVISIONING"
    AVAILABLE = "AVAILABLE"
    SWITCHOVER_IN_PROGRESS = "SWITCHOVER_IN_PROGRESS"
    SWITCHOVER_COMPLETED = "SWITCHOVER_COMPLETED"
    INVALID_CONFIGURATION = "INVALID_CONFIGURATION"
    SWITCHOVER_FAILED = "SWITCHOVER_FAILED"
    DELETING = "DELETING"


class MemberStatus(StrEnum):
    """``SwitchoverDetail.Status``."""

    PROVISIONING = "PROVISIONING"
    AVAILABLE = "AVAILABLE"
    SWITCHOVER_IN_PROGRESS = "SWITCHOVER_IN_PROGRESS"
    SWITCHOVER_COMPLETED = "SWITCHOVER_COMPLETED"
    SWITCHOVER_FAILED = "SWITCHOVER_FAILED"
    MISSING_SOURCE = "MISSING_SOURCE"
    MISSING_TARGET = "MISSING_TARGET"


class TaskStatus(StrEnum):
    """``BlueGreenDeploymentTask.Status``."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class TaskName(StrEnum):
    """``BlueGreenDeploymentTask.Name``, in the order in which RDS shows them."""

    CREATING_READ_REPLICA_OF_SOURCE = "CREATING_READ_REPLICA_OF_SOURCE"
    DB_ENGINE_VERSION_UPGRADE = "DB_ENGINE_VERSION_UPGRADE"
    CONFIGURE_BACKUPS = "CONFIGURE_BACKUPS"
    CREATING_TOPOLOGY_OF_SOURCE = "CREATING_TOPOLOGY_OF_SOURCE"
    # Of clusters, where they stand for the two above.
    CREATE_DB_INSTANCES_FOR_CLUSTER = "CREATE_DB_INSTANCES_FOR_CLUSTER"
    CREATE_CUSTOM_ENDPOINTS = "CREATE_CUSTOM_ENDPOINTS"


class ReplicationMode(StrEnum):
    """How green follows blue; chosen as RDS does, see :func:`verdigris.domain.versions.replication_mode`."""

    PHYSICAL = "physical"
    LOGICAL = "logical"


class WorkflowKind(StrEnum):
    CREATE_INSTANCE = "create_instance"
    MODIFY_INSTANCE = "modify_instance"
    REBOOT_INSTANCE = "reboot_instance"
    STOP_INSTANCE = "stop_instance"
    START_INSTANCE = "start_instance"
    DELETE_INSTANCE = "delete_instance"
    CREATE_READ_REPLICA = "create_read_replica"
    PROMOTE_READ_REPLICA = "promote_read_replica"
    CREATE_DEPLOYMENT = "create_deployment"
    SWITCH_OVER = "switch_over"
    DELETE_DEPLOYMENT = "delete_deployment"
    CREATE_CLUSTER = "create_cluster"
    MODIFY_CLUSTER = "modify_cluster"
    DELETE_CLUSTER = "delete_cluster"
    CREATE_SNAPSHOT = "create_snapshot"
    COPY_SNAPSHOT = "copy_snapshot"
    DELETE_SNAPSHOT = "delete_snapshot"
    RESTORE_INSTANCE = "restore_instance"
    CREATE_CLUSTER_ENDPOINT = "create_cluster_endpoint"
    MODIFY_CLUSTER_ENDPOINT = "modify_cluster_endpoint"
    DELETE_CLUSTER_ENDPOINT = "delete_cluster_endpoint"


class WorkflowStatus(StrEnum):
    """RUNNING -> COMPLETED | UNDOING -> FAILED. A RUNNING or UNDOING one is resumed at start-up."""

    RUNNING = "running"
    UNDOING = "undoing"
    COMPLETED = "completed"
    FAILED = "failed"


class SourceType(StrEnum):
    """``Event.SourceType``, those that this version emits."""

    DB_INSTANCE = "db-instance"
    DB_CLUSTER = "db-cluster"
    DB_PARAMETER_GROUP = "db-parameter-group"
    DB_SNAPSHOT = "db-snapshot"
    BLUE_GREEN_DEPLOYMENT = "blue-green-deployment"
