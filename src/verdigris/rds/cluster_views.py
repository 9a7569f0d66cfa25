"""Clusters as the API shows them."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from verdigris.domain import maintenance
from verdigris.domain.model import DBCluster, DBClusterEndpoint, DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import ClusterEndpointStatus, ClusterStatus
from verdigris.rds.catalogue import default_cluster_parameter_group
from verdigris.rds.context import Context
from verdigris.rds.subnet_groups import DEFAULT as DEFAULT_SUBNET_GROUP
from verdigris.rds.views import View, tags_view

# RDS's, where nobody has said otherwise.
DEFAULT_PROMOTION_TIER = 1


class Parts(Struct, frozen=True, kw_only=True):
    """What a cluster is shown with."""

    members: Sequence[DBInstance] = ()
    endpoints: Sequence[DBClusterEndpoint] = ()  # custom ones


def parts(tx: Transaction, clusters: Sequence[DBCluster]) -> list[Parts]:
    """Of each cluster."""
    ids = [each.resource_id for each in clusters]
    members, endpoints = tx.members_of(ids), tx.cluster_endpoints(ids)
    return [
        Parts(
            members=[each for each in members if each.cluster == resource_id],
            endpoints=[each for each in endpoints if each.cluster == resource_id],
        )
        for resource_id in ids
    ]


def cluster_view(context: Context, cluster: DBCluster, parts: Parts) -> View:
    members = parts.members
    version = cluster_version(cluster, members)
    settings = cluster.settings
    return {
        "DBClusterIdentifier": cluster.identifier,
        "DBClusterArn": context.cluster_arn(cluster.identifier),
        "DbClusterResourceId": cluster.resource_id,
        "Status": cluster.status,
        "Engine": cluster.engine,
        "EngineVersion": version,
        "EngineMode": settings.get("EngineMode", "provisioned"),
        "Endpoint": context.endpoint_host,
        "ReaderEndpoint": context.ports.reader_host,
        "CustomEndpoints": [each.host for each in parts.endpoints],
        "Port": cluster.port,
        "MasterUsername": cluster.master_username,
        "DatabaseName": cluster.db_name,
        "DBClusterParameterGroup": default_cluster_parameter_group(cluster.engine, version),
        "DBClusterMembers": [_member(cluster, each) for each in members],
        "ClusterCreateTime": cluster.created_at,
        "DeletionProtection": cluster.deletion_protection,
        "TagList": tags_view(cluster.tags),
        "AutoMinorVersionUpgrade": settings.get("AutoMinorVersionUpgrade", True),
        "AvailabilityZones": settings.get("AvailabilityZones", [f"{context.region}a"]),
        "BackupRetentionPeriod": settings.get("BackupRetentionPeriod", 1),
        "CopyTagsToSnapshot": settings.get("CopyTagsToSnapshot", False),
        "DBSubnetGroup": settings.get("DBSubnetGroupName", DEFAULT_SUBNET_GROUP),
        "EngineLifecycleSupport": settings.get("EngineLifecycleSupport"),
        "NetworkType": settings.get("NetworkType", "IPV4"),
        "PreferredBackupWindow": settings.get("PreferredBackupWindow", "03:00-03:30"),
        "PreferredMaintenanceWindow": settings.get("PreferredMaintenanceWindow", maintenance.DEFAULT_WINDOW),
        "StorageType": settings.get("StorageType"),
        "VpcSecurityGroups": [
            {"VpcSecurityGroupId": group, "Status": "active"} for group in settings.get("VpcSecurityGroupIds", ())
        ],
        **_ABSENT_FEATURES,
    }


# Features that do not exist here, shown as RDS shows them where they are off.
_ABSENT_FEATURES: View = {
    "ActivityStreamStatus": "stopped",
    "AllocatedStorage": 1,  # Aurora's own value: its storage grows by itself
    "AssociatedRoles": [],
    "CrossAccountClone": False,
    "DomainMemberships": [],
    "HttpEndpointEnabled": False,
    "IAMDatabaseAuthenticationEnabled": False,
    "MultiAZ": False,
    "ReadReplicaIdentifiers": [],
    "StorageEncrypted": False,
}


def _member(cluster: DBCluster, instance: DBInstance) -> View:
    return {
        "DBInstanceIdentifier": instance.identifier,
        "IsClusterWriter": instance.resource_id == cluster.writer,
        "DBClusterParameterGroupStatus": "in-sync",
        "PromotionTier": instance.settings.get("PromotionTier", DEFAULT_PROMOTION_TIER),
    }


def endpoint_view(
    context: Context, cluster: DBCluster, endpoint: DBClusterEndpoint, members: Sequence[DBInstance]
) -> View:
    """Members under the names that they have now."""

    def names(resource_ids: Sequence[str]) -> list[str]:
        return [each.identifier for each in members if each.resource_id in resource_ids]

    return {
        "DBClusterEndpointIdentifier": endpoint.identifier,
        "DBClusterIdentifier": cluster.identifier,
        "DBClusterEndpointResourceIdentifier": endpoint.resource_id,
        "DBClusterEndpointArn": context.cluster_endpoint_arn(endpoint.identifier),
        "Endpoint": endpoint.host,
        "Status": endpoint.status,
        "EndpointType": "CUSTOM",
        "CustomEndpointType": endpoint.type,
        "StaticMembers": names(endpoint.static_members),
        "ExcludedMembers": names(endpoint.excluded_members),
    }


_STATUSES: Mapping[ClusterStatus, ClusterEndpointStatus] = {
    ClusterStatus.CREATING: ClusterEndpointStatus.CREATING,
    ClusterStatus.FAILED: ClusterEndpointStatus.INACTIVE,
    ClusterStatus.DELETING: ClusterEndpointStatus.DELETING,
}


def own_endpoint_views(context: Context, cluster: DBCluster) -> list[View]:
    """Of the two that every cluster has."""
    status = _STATUSES.get(cluster.status, ClusterEndpointStatus.AVAILABLE)
    hosts = {"WRITER": context.endpoint_host, "READER": context.ports.reader_host}
    return [
        {"DBClusterIdentifier": cluster.identifier, "Endpoint": host, "Status": status, "EndpointType": kind}
        for kind, host in hosts.items()
    ]


def cluster_version(cluster: DBCluster, members: Sequence[DBInstance]) -> str:
    """The writer's, where there is one."""
    return next((m.engine_version for m in members if m.resource_id == cluster.writer), cluster.engine_version)
