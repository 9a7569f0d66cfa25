"""Clusters as the API shows them."""

from collections.abc import Sequence

from verdigris.domain import maintenance
from verdigris.domain.model import DBCluster, DBInstance
from verdigris.rds.catalogue import default_cluster_parameter_group
from verdigris.rds.context import Context
from verdigris.rds.subnet_groups import DEFAULT as DEFAULT_SUBNET_GROUP
from verdigris.rds.views import View, tags_view

# RDS's, where nobody has said otherwise.
DEFAULT_PROMOTION_TIER = 1


def cluster_view(context: Context, cluster: DBCluster, members: Sequence[DBInstance]) -> View:
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


def cluster_version(cluster: DBCluster, members: Sequence[DBInstance]) -> str:
    """The writer's, where there is one."""
    return next((m.engine_version for m in members if m.resource_id == cluster.writer), cluster.engine_version)
