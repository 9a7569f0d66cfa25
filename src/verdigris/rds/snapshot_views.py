"""Snapshots as the API shows them."""

from verdigris.domain.model import DBSnapshot
from verdigris.domain.statuses import SnapshotStatus
from verdigris.domain.versions import PostgresVersion
from verdigris.rds.context import Context
from verdigris.rds.views import View, tags_view


def snapshot_view(context: Context, snapshot: DBSnapshot) -> View:
    settings = snapshot.settings
    major = PostgresVersion.parse(snapshot.engine_version).major
    return {
        "DBSnapshotIdentifier": snapshot.identifier,
        "DBSnapshotArn": context.snapshot_arn(snapshot.identifier),
        "DBInstanceIdentifier": snapshot.instance_identifier,
        "DbiResourceId": snapshot.resource_id,
        "InstanceCreateTime": snapshot.instance_created_at,
        "SnapshotCreateTime": snapshot.taken_at,
        "OriginalSnapshotCreateTime": snapshot.data_of,
        "SnapshotDatabaseTime": snapshot.data_of,
        "SnapshotType": snapshot.type,
        "Status": snapshot.status,
        "PercentProgress": 0 if snapshot.status is SnapshotStatus.CREATING else 100,
        "Engine": snapshot.engine,
        "EngineVersion": snapshot.engine_version,
        "MasterUsername": snapshot.master_username,
        "Port": snapshot.port,
        "AllocatedStorage": snapshot.allocated_storage_gib,
        "FullSnapshotSizeInBytes": snapshot.size_bytes,
        "StorageType": settings.get("StorageType", "gp2"),
        "Iops": settings.get("Iops"),
        "StorageThroughput": settings.get("StorageThroughput"),
        "LicenseModel": settings.get("LicenseModel", "postgresql-license"),
        "AvailabilityZone": settings.get("AvailabilityZone", f"{context.region}a"),
        "OptionGroupName": f"default:{snapshot.engine}-{major}",
        "TagList": tags_view(snapshot.tags),
        **_ABSENT_FEATURES,
    }


_ABSENT_FEATURES: View = {
    "DedicatedLogVolume": False,
    "Encrypted": False,
    "IAMDatabaseAuthenticationEnabled": False,
    "MultiTenant": False,
    "ProcessorFeatures": [],
    "SnapshotTarget": "region",
}
