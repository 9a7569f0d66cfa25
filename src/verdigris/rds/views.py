"""Records as the API shows them. The only place that spells members of responses; None means "left out"."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from verdigris.domain import backups, maintenance
from verdigris.domain.events import ARN_KINDS
from verdigris.domain.model import (
    DBInstance,
    DBSubnetGroup,
    Event,
    ParameterGroup,
    PendingChange,
    Tag,
    Workflow,
)
from verdigris.domain.parameters import ApplyMethod, ParameterInfo, ParameterValue
from verdigris.domain.ports import EngineVersionInfo, LogFile, Transaction
from verdigris.domain.statuses import (
    DeploymentStatus,
    InstanceStatus,
    WorkflowKind,
)
from verdigris.domain.subscriptions import EventSubscription
from verdigris.domain.versions import PostgresVersion
from verdigris.rds.catalogue import parameter_group_family
from verdigris.rds.checks import MAX_STORAGE_GIB, MIN_STORAGE_GIB
from verdigris.rds.context import Context
from verdigris.workflows import arguments

View = dict[str, Any]

# While a deployment is in one of these its target replicates from its source.
_REPLICATING = frozenset(
    {DeploymentStatus.AVAILABLE, DeploymentStatus.SWITCHOVER_IN_PROGRESS, DeploymentStatus.SWITCHOVER_FAILED}
)


def tags_view(tags: Iterable[Tag]) -> list[View]:
    return [{"Key": tag.key, "Value": tag.value} for tag in tags]


# ----------------------------------------------------------------------------------------------------------- instances


class Surroundings(Struct, frozen=True, kw_only=True):
    """What an instance's view shows besides its own record."""

    replicates_from: str | None = None  # identifiers, of read replicas and of greens
    replicates_to: tuple[str, ...] = ()
    pending: arguments.ModifyInstance = arguments.ModifyInstance()
    subnet_group: DBSubnetGroup | None = None
    cluster: str | None = None  # identifier


def surroundings(tx: Transaction, shown: Collection[DBInstance]) -> Callable[[DBInstance], Surroundings]:
    """Reads once what all views of a response need, and nothing of the instances that it does not show."""
    own = [instance.resource_id for instance in shown]
    primaries = [deployment.primary for deployment in tx.deployments_of(own) if deployment.status in _REPLICATING]
    pairs = [(m.source_resource_id, m.target_resource_id) for m in primaries if m.target_resource_id is not None]
    followers = [each for each in (*shown, *tx.replicas_of(own)) if each.cluster is None]  # a cluster's tell it there
    pairs += [(each.replica_of, each.resource_id) for each in followers if each.replica_of]
    pairs = list(dict.fromkeys(pairs))  # a replica is shown, perhaps, and its source too
    names = tx.identifiers({end for pair in pairs for end in pair})
    pairs = [(source, target) for source, target in pairs if source in names and target in names]
    changes = {
        workflow.subject: _changes(workflow)
        for workflow in tx.unfinished_workflows_of(own)
        if workflow.kind in (WorkflowKind.MODIFY_INSTANCE, WorkflowKind.REBOOT_INSTANCE)
    }
    groups = {name: tx.subnet_group(name) for name in {i.settings.get("DBSubnetGroupName") for i in shown} if name}
    clusters = {each: tx.cluster(each) for each in {i.cluster for i in shown} if each}

    def of(instance: DBInstance) -> Surroundings:
        cluster = clusters.get(instance.cluster or "")
        own = instance.resource_id
        return Surroundings(
            replicates_from=next((names[source] for source, target in pairs if target == own), None),
            replicates_to=tuple(names[target] for source, target in pairs if source == own),
            pending=changes.get(own, arguments.ModifyInstance()),
            subnet_group=groups.get(instance.settings.get("DBSubnetGroupName")),
            cluster=None if cluster is None else cluster.identifier,
        )

    return of


def _changes(workflow: Workflow) -> arguments.ModifyInstance:
    return msgspec.convert(workflow.arguments, arguments.ModifyInstance)


def instance_view(context: Context, instance: DBInstance, around: Surroundings) -> View:
    major = PostgresVersion.parse(instance.engine_version).major
    return {
        "DBInstanceIdentifier": instance.identifier,
        "DBClusterIdentifier": around.cluster,
        "DBInstanceArn": context.instance_arn(instance.identifier),
        "DbiResourceId": instance.resource_id,
        "DBInstanceClass": instance.instance_class,
        "DBInstanceStatus": instance.status,
        "Engine": instance.engine,
        "EngineVersion": instance.engine_version,
        "Endpoint": _endpoint(context, instance),
        "DbInstancePort": 0,  # RDS's own value outside clusters; the port is in Endpoint
        "MasterUsername": instance.master_username,
        "DBName": instance.db_name,
        "InstanceCreateTime": instance.created_at,
        "AllocatedStorage": instance.allocated_storage_gib,
        "DBParameterGroups": [
            {"DBParameterGroupName": instance.parameter_group, "ParameterApplyStatus": instance.parameter_status}
        ],
        "OptionGroupMemberships": [{"OptionGroupName": f"default:{instance.engine}-{major}", "Status": "in-sync"}],
        "PendingModifiedValues": _pending(around.pending, instance.pending),
        "DeletionProtection": instance.deletion_protection,
        "IAMDatabaseAuthenticationEnabled": instance.token_logins,
        "TagList": tags_view(instance.tags),
        **_replication(instance, around),
        **_settings(context, instance.settings),
        "DBSubnetGroup": None if around.subnet_group is None else subnet_group_view(context, around.subnet_group),
        **_ABSENT_FEATURES,
    }


# Features that do not exist here, shown as RDS shows them where they are off.
_ABSENT_FEATURES: View = {
    "ActivityStreamStatus": "stopped",
    "AssociatedRoles": [],
    "CustomerOwnedIpEnabled": False,
    "DBSecurityGroups": [],
    "DedicatedLogVolume": False,
    "DomainMemberships": [],
    "MonitoringInterval": 0,
    "MultiAZ": False,
    "PerformanceInsightsEnabled": False,
    "StorageEncrypted": False,
}


def _endpoint(context: Context, instance: DBInstance) -> View | None:
    if instance.status is InstanceStatus.CREATING:
        return None
    return {"Address": context.endpoint_host, "Port": instance.port}


def _pending(change: arguments.ModifyInstance, later: PendingChange) -> View:
    """What is being done, and what waits for the maintenance window."""
    return {
        "DBInstanceClass": change.instance_class or later.instance_class,
        "DBInstanceIdentifier": change.new_identifier or later.new_identifier,
        "EngineVersion": change.engine_version or later.engine_version,
        "IAMDatabaseAuthenticationEnabled": change.token_logins,
        "MasterUserPassword": None if change.master_password_verifier is None else "****",
        "Port": change.port,
    }


def _replication(instance: DBInstance, around: Surroundings) -> View:
    view: View = {"ReadReplicaDBInstanceIdentifiers": list(around.replicates_to)}
    if around.replicates_from is not None:
        view["ReadReplicaSourceDBInstanceIdentifier"] = around.replicates_from
    if around.replicates_from is not None or (around.cluster is not None and instance.replica_of is not None):
        view["StatusInfos"] = [_replication_status(instance)]
    return view


def _replication_status(instance: DBInstance) -> View:
    """Of a green its deployment's status says more."""
    error = instance.replication_error
    return {
        "StatusType": "read replication",
        "Normal": not error,
        "Status": "error" if error else "replicating",
        "Message": error or None,
    }


# Kept settings whose member in the response is the request's, with RDS's default (None: left out).
_PLAIN_SETTINGS: View = {
    "AutoMinorVersionUpgrade": True,
    "BackupRetentionPeriod": backups.DEFAULT_RETENTION_DAYS,
    "BackupTarget": "region",
    "CACertificateIdentifier": None,
    "CopyTagsToSnapshot": False,
    "EngineLifecycleSupport": None,
    "Iops": None,
    "LicenseModel": "postgresql-license",
    "MaxAllocatedStorage": None,
    "NetworkType": "IPV4",
    "PreferredBackupWindow": backups.DEFAULT_WINDOW,
    "PreferredMaintenanceWindow": maintenance.DEFAULT_WINDOW,
    "PromotionTier": None,
    "PubliclyAccessible": False,
    "StorageThroughput": None,
    "StorageType": "gp2",
}


def _settings(context: Context, settings: Mapping[str, Any]) -> View:
    view = {name: settings.get(name, default) for name, default in _PLAIN_SETTINGS.items()}
    view["AvailabilityZone"] = settings.get("AvailabilityZone", f"{context.region}a")
    view["VpcSecurityGroups"] = [
        {"VpcSecurityGroupId": group, "Status": "active"} for group in settings.get("VpcSecurityGroupIds", ())
    ]
    return view


# Of a network that there is none of: zones as the region would have them, one after the other.
_ZONES = "abc"
_VPC = "vpc-00000000000000000"


def subnet_group_view(context: Context, group: DBSubnetGroup) -> View:
    return {
        "DBSubnetGroupName": group.name,
        "DBSubnetGroupDescription": group.description,
        "VpcId": _VPC,
        "SubnetGroupStatus": "Complete",
        "Subnets": [
            {
                "SubnetIdentifier": subnet_id,
                "SubnetAvailabilityZone": {"Name": f"{context.region}{_ZONES[place % len(_ZONES)]}"},
                "SubnetOutpost": {},
                "SubnetStatus": "Active",
            }
            for place, subnet_id in enumerate(group.subnet_ids)
        ],
        "DBSubnetGroupArn": context.subnet_group_arn(group.name),
        "SupportedNetworkTypes": ["IPV4"],
    }


# --------------------------------------------------------------------------------------------------- parameter groups


def parameter_group_view(context: Context, group: ParameterGroup) -> View:
    return {
        "DBParameterGroupName": group.name,
        "DBParameterGroupFamily": group.family,
        "Description": group.description,
        "DBParameterGroupArn": context.parameter_group_arn(group.name),
    }


def parameter_view(info: ParameterInfo, own: ParameterValue | None) -> View:
    """``own``: the group's. What it has none for comes from the default group (``system``) or from the engine."""
    value: str | None
    if own is not None:
        source, value, method = "user", own.value, own.apply_method
    elif info.system_value is not None:
        source, value, method = "system", info.system_value, ApplyMethod.PENDING_REBOOT
    else:
        source, value, method = "engine-default", info.default, ApplyMethod.PENDING_REBOOT
    return {
        "ParameterName": info.name,
        "ParameterValue": value,
        "Description": info.description,
        "Source": source,
        "ApplyType": info.apply_type,
        "DataType": info.data_type,
        "AllowedValues": info.allowed_values,
        "IsModifiable": info.is_modifiable,
        "ApplyMethod": method,
    }


def log_file_view(file: LogFile) -> View:
    return {"LogFileName": file.name, "LastWritten": file.written_at_ms, "Size": file.size_bytes}


# ---------------------------------------------------------------------------------------------------- versions, events


def engine_version_view(info: EngineVersionInfo, *, lists: Iterable[str]) -> View:
    """``lists``: members asked for that are empty for this engine (character sets and time zones are a database's
    affair in PostgreSQL, not an instance's)."""
    version = PostgresVersion.parse(info.version)
    return {
        "Engine": info.engine,
        "MajorEngineVersion": str(version.major),
        "EngineVersion": info.version,
        "DBParameterGroupFamily": parameter_group_family(info.version),
        "DBEngineDescription": "PostgreSQL",
        "DBEngineVersionDescription": f"PostgreSQL {info.version}",
        "Status": "available",
        "ValidUpgradeTarget": [_upgrade_target(info, version, target) for target in info.upgrade_targets],
        "ExportableLogTypes": [],
        "SupportedFeatureNames": [],
        "SupportsBabelfish": False,
        "SupportsGlobalDatabases": False,
        "SupportsIntegrations": False,
        "SupportsLimitlessDatabase": False,
        "SupportsLocalWriteForwarding": False,
        "SupportsLogExportsToCloudwatchLogs": False,
        "SupportsParallelQuery": False,
        "SupportsReadReplica": True,
        "TagList": [],
        **{name: [] for name in lists},
    }


def orderable_option_view(context: Context, engine: str, version: str, instance_class: str, licence: str) -> View:
    """What only AWS's hardware has is shown as missing; storage is the machine's own, whatever it is called."""
    return {
        "Engine": engine,
        "EngineVersion": version,
        "DBInstanceClass": instance_class,
        "LicenseModel": licence,
        "AvailabilityZones": [{"Name": f"{context.region}a"}],
        "MultiAZCapable": False,
        "ReadReplicaCapable": True,
        "Vpc": True,
        "SupportsStorageEncryption": False,
        "StorageType": "gp3",
        "SupportsIops": False,
        "SupportsStorageThroughput": False,
        "SupportsEnhancedMonitoring": False,
        "SupportsIAMDatabaseAuthentication": True,
        "SupportsPerformanceInsights": False,
        "MinStorageSize": MIN_STORAGE_GIB,
        "MaxStorageSize": MAX_STORAGE_GIB,
        "AvailableProcessorFeatures": [],
        "SupportedEngineModes": ["provisioned"],
        "SupportsStorageAutoscaling": False,
        "SupportsKerberosAuthentication": False,
        "OutpostCapable": False,
        "SupportedActivityStreamModes": [],
        "SupportsGlobalDatabases": False,
        "SupportedNetworkTypes": ["IPV4"],
        "SupportsClusters": True,
        "SupportsDedicatedLogVolume": False,
        "SupportsAdditionalStorageVolumes": False,
        "SupportsHttpEndpoint": False,
    }


def _upgrade_target(info: EngineVersionInfo, version: PostgresVersion, target: str) -> View:
    return {
        "Engine": info.engine,
        "EngineVersion": target,
        "Description": f"PostgreSQL {target}",
        "AutoUpgrade": False,
        "IsMajorVersionUpgrade": PostgresVersion.parse(target).major > version.major,
        "SupportsBabelfish": False,
        "SupportsGlobalDatabases": False,
        "SupportsIntegrations": False,
        "SupportsLimitlessDatabase": False,
        "SupportsLocalWriteForwarding": False,
        "SupportsParallelQuery": False,
    }


def event_subscription_view(context: Context, subscription: EventSubscription) -> View:
    return {
        "CustomerAwsId": context.account_id,
        "CustSubscriptionId": subscription.name,
        "SnsTopicArn": subscription.topic_arn,
        "Status": "active" if subscription.topic_arn in context.topics else "topic-not-exist",
        "SubscriptionCreationTime": subscription.created_at.strftime("%a %b %d %H:%M:%S UTC %Y"),
        "SourceType": subscription.source_type,
        "SourceIdsList": list(subscription.source_identifiers),
        "EventCategoriesList": list(subscription.categories),
        "Enabled": subscription.enabled,
        "EventSubscriptionArn": context.event_subscription_arn(subscription.name),
    }


def event_view(context: Context, event: Event) -> View:
    return {
        "SourceIdentifier": event.source_identifier,
        "SourceType": event.source_type,
        "SourceArn": context.arn(ARN_KINDS[event.source_type], event.source_identifier),
        "Message": event.message,
        "EventCategories": list(event.categories),
        "Date": event.at,
    }
