"""Members of the operations that create and modify instances that have no effect here.

Two kinds. *Kept*: checked for form, stored with the instance and shown where RDS shows them, because refusing, say, a
maintenance window would keep tools away for nothing. *Off only*: accepted with the value that says "not wanted" and
refused by name with any other, because RDS would promise something then that is not done here.
A test holds that every member of the model is handled, kept or off only.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value
from verdigris.domain import backups, maintenance

Check = Callable[[str, Any], None]

_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_DAY = r"(?:mon|tue|wed|thu|fri|sat|sun)"
_BACKUP_WINDOW = re.compile(f"{_TIME}-{_TIME}")
_MAINTENANCE_WINDOW = re.compile(f"{_DAY}:{_TIME}-{_DAY}:{_TIME}")


def _anything(_name: str, _value: Any) -> None:
    """The model's type was check enough."""


def _matches(pattern: re.Pattern[str], form: str) -> Check:
    def check(name: str, value: str) -> None:
        if not pattern.fullmatch(value.lower()):
            raise invalid_parameter_value(f"Invalid value {value} for {name}. Must be in the form {form}")

    return check


def _between(minimum: int, maximum: int) -> Check:
    def check(name: str, value: int) -> None:
        if not minimum <= value <= maximum:
            raise invalid_parameter_value(f"Invalid value {value} for {name}. Must be between {minimum} and {maximum}")

    return check


def _one_of(*allowed: str) -> Check:
    def check(name: str, value: str) -> None:
        if value not in allowed:
            raise invalid_parameter_value(f"Invalid value {value} for {name}. Must be one of {', '.join(allowed)}")

    return check


def _is_maintenance_window(name: str, value: str) -> None:
    _matches(_MAINTENANCE_WINDOW, "ddd:hh24:mi-ddd:hh24:mi")(name, value)
    if maintenance.length_min(value) < maintenance.SHORTEST_MIN:
        raise invalid_parameter_value(f"{name} {value} is shorter than {maintenance.SHORTEST_MIN} minutes")


def _is_backup_window(name: str, value: str) -> None:
    _matches(_BACKUP_WINDOW, "hh24:mi-hh24:mi")(name, value)
    if backups.length_min(value) < backups.SHORTEST_MIN:
        raise invalid_parameter_value(f"{name} {value} is shorter than {backups.SHORTEST_MIN} minutes")


def _is_default_option_group(_name: str, value: str) -> None:
    check_option_group(value)


def check_option_group(value: str) -> None:
    """PostgreSQL has no options; RDS shows an empty default group all the same, and tools send it back."""
    if not value.lower().startswith("default:postgres-"):
        raise Fault("OptionGroupNotFoundFault", f"Specified OptionGroupName: {value} not found.")


# Those that RDS offers, and the one before them that scripts still name.
_AUTHORITIES = ("rds-ca-2019", "rds-ca-ecc384-g1", "rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1")


def _is_authority(_name: str, value: str) -> None:
    if value not in _AUTHORITIES:
        raise Fault("CertificateNotFoundFault", f"Certificate {value} not found.")


KEPT: Mapping[str, Check] = {
    "AutoMinorVersionUpgrade": _anything,
    "AvailabilityZone": _anything,
    "BackupRetentionPeriod": _between(0, 35),
    "BackupTarget": _one_of("region"),
    "CACertificateIdentifier": _is_authority,
    "CopyTagsToSnapshot": _anything,
    "DBSubnetGroupName": _anything,
    "EngineLifecycleSupport": _one_of("open-source-rds-extended-support", "open-source-rds-extended-support-disabled"),
    "Iops": _between(1000, 256000),
    "LicenseModel": _one_of("postgresql-license"),
    "MaxAllocatedStorage": _between(20, 65536),
    "NetworkType": _one_of("IPV4"),
    "OptionGroupName": _is_default_option_group,
    "PreferredBackupWindow": _is_backup_window,
    "PreferredMaintenanceWindow": _is_maintenance_window,
    "PromotionTier": _between(0, 15),
    "PubliclyAccessible": _anything,
    "StorageThroughput": _between(125, 4000),
    "StorageType": _one_of("gp2", "gp3", "io1", "io2", "standard"),
    "VpcSecurityGroupIds": _anything,
}

OFF_ONLY: Mapping[str, tuple[Any, ...]] = {
    "AdditionalStorageVolumes": ([],),
    "AutomationMode": ("full",),
    "AwsBackupRecoveryPointArn": (),
    "CharacterSetName": (),
    "CloudwatchLogsExportConfiguration": ({},),
    "CustomIamInstanceProfile": (),
    "DatabaseInsightsMode": ("standard",),
    "DBCapacityReservationIdentifier": (),
    "DBSecurityGroups": ([],),
    "DBSystemId": (),
    "DedicatedLogVolume": (False,),
    "DisableDomain": (False,),
    "Domain": (),
    "DomainAuthSecretArn": (),
    "DomainDnsIps": ([],),
    "DomainFqdn": (),
    "DomainIAMRoleName": (),
    "DomainOu": (),
    "EnableCloudwatchLogsExports": ([],),
    "EnableCustomerOwnedIp": (False,),
    "EnablePerformanceInsights": (False,),
    "KmsKeyId": (),
    "ManageMasterUserPassword": (False,),
    "MasterUserAuthenticationType": ("password",),
    "MasterUserSecretKmsKeyId": (),
    "MonitoringInterval": (0,),
    "MonitoringRoleArn": (),
    "MultiAZ": (False,),
    "MultiTenant": (False,),
    "NcharCharacterSetName": (),
    "PerformanceInsightsKMSKeyId": (),
    "PerformanceInsightsRetentionPeriod": (),
    "PreSignedUrl": (),
    "ProcessorFeatures": ([],),
    "ReplicaMode": (),
    "ResumeFullAutomationModeMinutes": (),
    "RotateMasterUserPassword": (False,),
    "StorageEncrypted": (False,),
    "TagSpecifications": ([],),
    "TdeCredentialArn": (),
    "TdeCredentialPassword": (),
    "Timezone": (),
    "UseDefaultProcessorFeatures": (True, False),
}


# Of the operations on clusters.
CLUSTER_KEPT: Mapping[str, Check] = {
    "AutoMinorVersionUpgrade": _anything,
    "AvailabilityZones": _anything,
    "BackupRetentionPeriod": _between(1, 35),
    "CopyTagsToSnapshot": _anything,
    "DBSubnetGroupName": _anything,
    "EngineLifecycleSupport": KEPT["EngineLifecycleSupport"],
    "EngineMode": _one_of("provisioned"),
    "NetworkType": _one_of("IPV4"),
    "PreferredBackupWindow": KEPT["PreferredBackupWindow"],
    "PreferredMaintenanceWindow": KEPT["PreferredMaintenanceWindow"],
    "StorageType": _one_of("aurora", "aurora-iopt1"),
    "VpcSecurityGroupIds": _anything,
}

CLUSTER_OFF_ONLY: Mapping[str, tuple[Any, ...]] = {
    "AllocatedStorage": (),
    "AllowEngineModeChange": (False,),
    "AllowMajorVersionUpgrade": (False,),
    "AssociatedRoles": ([],),
    "AwsBackupRecoveryPointArn": (),
    "BacktrackWindow": (0,),
    "CACertificateIdentifier": (),
    "CharacterSetName": (),
    "CloudwatchLogsExportConfiguration": ({},),
    "ClusterScalabilityType": ("standard",),
    "DatabaseInsightsMode": ("standard",),
    "DBClusterInstanceClass": (),
    "DBInstanceParameterGroupName": (),
    "DBSystemId": (),
    "Domain": (),
    "DomainIAMRoleName": (),
    "EnableCloudwatchLogsExports": ([],),
    "EnableGlobalWriteForwarding": (False,),
    "EnableHttpEndpoint": (False,),
    "EnableIAMDatabaseAuthentication": (False,),
    "EnableInternetAccessGateway": (False,),
    "EnableLimitlessDatabase": (False,),
    "EnableLocalWriteForwarding": (False,),
    "EnablePerformanceInsights": (False,),
    "EnableVPCNetworking": (),
    "GlobalClusterIdentifier": (),
    "Iops": (),
    "KmsKeyId": (),
    "ManageMasterUserPassword": (False,),
    "MasterUserAuthenticationType": ("password",),
    "MasterUserSecretKmsKeyId": (),
    "MonitoringInterval": (0,),
    "MonitoringRoleArn": (),
    "NewDBClusterIdentifier": (),
    "OptionGroupName": (),
    "PerformanceInsightsKMSKeyId": (),
    "PerformanceInsightsRetentionPeriod": (),
    "PreSignedUrl": (),
    "PubliclyAccessible": (False,),
    "RdsCustomClusterConfiguration": (),
    "ReplicationSourceIdentifier": (),
    "RotateMasterUserPassword": (False,),
    "ScalingConfiguration": (),
    "ServerlessV2ScalingConfiguration": (),
    "SourceRegion": (),
    "StorageEncrypted": (False,),
    "TagSpecifications": ([],),
    "WithExpressConfiguration": (False,),
}


def collect_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """The kept ones of ``params``, checked. Raises for one that is not possible here, naming it but not its value: it
    may be secret."""
    return _collect(params, KEPT, OFF_ONLY)


def collect_cluster_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    return _collect(params, CLUSTER_KEPT, CLUSTER_OFF_ONLY)


def _collect(
    params: Mapping[str, Any], keeps: Mapping[str, Check], off_only: Mapping[str, tuple[Any, ...]]
) -> dict[str, Any]:
    for name, allowed in off_only.items():
        if name in params and params[name] not in allowed:
            raise invalid_parameter_combination(f"{name} asks for what this server does not offer")
    kept = {name: params[name] for name in keeps if name in params}
    for name, value in kept.items():
        keeps[name](name, value)
    return kept
