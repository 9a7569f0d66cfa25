"""Every error that the API's model documents for an operation that is built: provoked here, or impossible here.

One that is in neither table, for a new operation or a newer model, fails the test.
"""

from collections.abc import Callable, Mapping
from typing import Any

import botocore.session
import pytest

from tests.unit.rds.world import APP_ARN, NEW_CLUSTER, NEW_INSTANCE, NEW_MEMBER, SHOP_ARN, TOPIC, World
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    DeploymentStatus,
    InstanceStatus,
    SnapshotStatus,
)
from verdigris.rds.operations import HANDLERS

_MODEL = botocore.session.get_session().get_service_model("rds")
_ERRORS = {
    (operation, error.name): error.metadata.get("error", {}).get("code", error.name)
    for operation in HANDLERS
    for error in _MODEL.operation_model(operation).error_shapes
}

_PREFIX = "arn:aws:rds:us-east-1:123456789012"
_SUBNETS = ["subnet-1", "subnet-2"]
NONE = "none"

# -- what has to be the case first


def _nothing(_world: World) -> None:
    """What there is anyway: an instance, and one of each kind of group and subscription, called ``mine``."""


def _busy(world: World) -> None:
    world.change("app", status=InstanceStatus.MODIFYING)


def _stopped(world: World) -> None:
    world.change("app", status=InstanceStatus.STOPPED)


def _deployed(world: World) -> None:
    world.create_deployment()


def _deploying(world: World) -> None:
    world.create_deployment()
    world.change_deployment(status=DeploymentStatus.SWITCHOVER_IN_PROGRESS)


def _subscribed(world: World) -> None:
    world.call("ModifyEventSubscription", SubscriptionName="mine", SourceType="db-instance")


def _in_use(world: World) -> None:
    world.create_instance("user", DBSubnetGroupName="mine", DBParameterGroupName="mine")


def _standby(world: World) -> None:
    world.create_replica()


def _no_ports(world: World) -> None:
    world.ports.used_by_others.update(world.ports.range)


def _older_standby(world: World) -> None:
    world.create_replica()
    for identifier in ("app", "copy"):
        world.change(identifier, engine_version="17.9")


def _deleted(world: World) -> None:
    world.change("app", status=InstanceStatus.DELETING)


def _clustered(world: World) -> None:
    world.create_cluster()


def _with_member(world: World) -> None:
    world.create_cluster()
    world.create_member("one")


def _old_cluster(world: World) -> None:
    """Switched over away from."""
    _with_member(world)
    world.change("one", read_only=True)


def _last_cluster(world: World) -> None:
    _with_member(world)
    world.set_quotas(DBClusters=1)


def _cluster_going(world: World) -> None:
    world.create_cluster()
    world.change_cluster(status=ClusterStatus.DELETING)


def _with_endpoint(world: World) -> None:
    _with_member(world)
    world.create_endpoint("far")


def _endpoint_of_one_going(world: World) -> None:
    _with_endpoint(world)
    world.change_cluster(status=ClusterStatus.DELETING)


def _endpoint_busy(world: World) -> None:
    _with_endpoint(world)
    world.change_cluster_endpoint("far", status=ClusterEndpointStatus.MODIFYING)


def _endpoints_used_up(world: World) -> None:
    _with_endpoint(world)
    world.set_quotas(CustomEndpointsPerDBCluster=1)


def _no_reader_host(world: World) -> None:
    world.ports.reader_host = None


def _kept(world: World) -> None:
    world.create_snapshot()


def _going(world: World) -> None:
    world.create_snapshot()
    world.change_snapshot(status=SnapshotStatus.DELETING)


def _kept_and(**quotas: int) -> Callable[[World], None]:
    def prepare(world: World) -> None:
        world.create_snapshot()
        world.set_quotas(**quotas)

    return prepare


def _kept_without_ports(world: World) -> None:
    world.create_snapshot()
    world.ports.used_by_others.update(world.ports.range)


def _most(**quotas: int) -> Callable[[World], None]:
    return lambda world: world.set_quotas(**quotas)


# -- the requests

_OTHER = {**NEW_INSTANCE, "DBInstanceIdentifier": "other"}
_COPY = {"DBInstanceIdentifier": "copy", "SourceDBInstanceIdentifier": "app"}
_GREEN = {"BlueGreenDeploymentName": "up", "Source": APP_ARN}
_GREEN_CLUSTER = {**_GREEN, "Source": SHOP_ARN}
_APP, _NO_APP = {"DBInstanceIdentifier": "app"}, {"DBInstanceIdentifier": NONE}
_SHOP, _NO_SHOP = {"DBClusterIdentifier": "shop"}, {"DBClusterIdentifier": NONE}
_MEMBER = {**NEW_MEMBER, **_SHOP, "DBInstanceIdentifier": "one"}
_FAR, _NO_FAR = {"DBClusterEndpointIdentifier": "far"}, {"DBClusterEndpointIdentifier": NONE}
_NEW_ENDPOINT = {**_SHOP, **_FAR, "EndpointType": "READER"}
_GROUP = {"DBParameterGroupName": "more", "DBParameterGroupFamily": "postgres17", "Description": "Ours"}
_PARAMETERS = {"Parameters": [{"ParameterName": "work_mem", "ParameterValue": "8192", "ApplyMethod": "immediate"}]}
_GROUP_COPY = {
    "SourceDBParameterGroupIdentifier": "mine",
    "TargetDBParameterGroupIdentifier": "more",
    "TargetDBParameterGroupDescription": "Ours",
}
_SUBNET_GROUP = {"DBSubnetGroupName": "more", "DBSubnetGroupDescription": "Ours", "SubnetIds": _SUBNETS}
_SUBSCRIPTION = {"SubscriptionName": "more", "SnsTopicArn": TOPIC}
_SOURCE = {"SubscriptionName": "mine", "SourceIdentifier": "app"}
_MINE = {"SubscriptionName": "mine"}
_SNAPSHOT = {"DBInstanceIdentifier": "app", "DBSnapshotIdentifier": "monday"}
_NO_SNAPSHOT = {"DBSnapshotIdentifier": NONE}
_SNAPSHOT_COPY = {"SourceDBSnapshotIdentifier": "monday", "TargetDBSnapshotIdentifier": "tuesday"}
_RESTORE = {"DBInstanceIdentifier": "other", "DBSnapshotIdentifier": "monday"}

_Case = tuple[dict[str, Any], Callable[[World], None]]


def _tagging(operation: str, extra: dict[str, Any]) -> dict[tuple[str, str], _Case]:
    of_kind = {
        "BlueGreenDeploymentNotFoundFault": "deployment",
        "DBClusterNotFoundFault": "cluster",
        "DBInstanceNotFoundFault": "db",
        "DBProxyEndpointNotFoundFault": "db-proxy-endpoint",
        "DBProxyNotFoundFault": "db-proxy",
        "DBProxyTargetGroupNotFoundFault": "target-group",
        "DBShardGroupNotFoundFault": "shard-group",
        "DBSnapshotNotFoundFault": "snapshot",
        "DBSnapshotTenantDatabaseNotFoundFault": "snapshot-tenant-database",
        "IntegrationNotFoundFault": "integration",
        "TenantDatabaseNotFoundFault": "tenant-database",
    }
    return {
        (operation, fault): ({"ResourceName": f"{_PREFIX}:{kind}:none", **extra}, _nothing)
        for fault, kind in of_kind.items()
    }


PROVOKED: Mapping[tuple[str, str], _Case] = {
    **_tagging("AddTagsToResource", {"Tags": [{"Key": "k"}]}),
    **_tagging("ListTagsForResource", {}),
    **_tagging("RemoveTagsFromResource", {"TagKeys": ["k"]}),
    # instances
    ("CreateDBInstance", "CertificateNotFoundFault"): ({**_OTHER, "CACertificateIdentifier": NONE}, _nothing),
    ("CreateDBInstance", "DBClusterNotFoundFault"): (_MEMBER, _nothing),
    ("CreateDBInstance", "InvalidDBClusterStateFault"): (_MEMBER, _cluster_going),
    ("CreateDBInstance", "DBInstanceAlreadyExistsFault"): (NEW_INSTANCE, _nothing),
    ("CreateDBInstance", "DBParameterGroupNotFoundFault"): ({**_OTHER, "DBParameterGroupName": NONE}, _nothing),
    ("CreateDBInstance", "DBSubnetGroupNotFoundFault"): ({**_OTHER, "DBSubnetGroupName": NONE}, _nothing),
    ("CreateDBInstance", "InstanceQuotaExceededFault"): (_OTHER, _most(DBInstances=1)),
    ("CreateDBInstance", "InsufficientDBInstanceCapacityFault"): (_OTHER, _no_ports),
    ("CreateDBInstance", "OptionGroupNotFoundFault"): ({**_OTHER, "OptionGroupName": NONE}, _nothing),
    ("CreateDBInstance", "StorageQuotaExceededFault"): (_OTHER, _most(AllocatedStorage=39)),
    ("CreateDBInstanceReadReplica", "CertificateNotFoundFault"): (
        {**_COPY, "CACertificateIdentifier": NONE},
        _nothing,
    ),
    ("CreateDBInstanceReadReplica", "DBClusterNotFoundFault"): (
        {"DBInstanceIdentifier": "copy", "SourceDBClusterIdentifier": NONE},
        _nothing,
    ),
    ("CreateDBInstanceReadReplica", "DBInstanceAlreadyExistsFault"): (
        {**_COPY, "DBInstanceIdentifier": "app"},
        _nothing,
    ),
    ("CreateDBInstanceReadReplica", "DBInstanceNotFoundFault"): (
        {**_COPY, "SourceDBInstanceIdentifier": NONE},
        _nothing,
    ),
    ("CreateDBInstanceReadReplica", "DBParameterGroupNotFoundFault"): (
        {**_COPY, "DBParameterGroupName": NONE},
        _nothing,
    ),
    ("CreateDBInstanceReadReplica", "DBSubnetGroupNotFoundFault"): ({**_COPY, "DBSubnetGroupName": NONE}, _nothing),
    ("CreateDBInstanceReadReplica", "InstanceQuotaExceededFault"): (_COPY, _most(DBInstances=1)),
    ("CreateDBInstanceReadReplica", "InsufficientDBInstanceCapacityFault"): (_COPY, _no_ports),
    ("CreateDBInstanceReadReplica", "InvalidDBInstanceStateFault"): (_COPY, _busy),
    ("CreateDBInstanceReadReplica", "OptionGroupNotFoundFault"): ({**_COPY, "OptionGroupName": NONE}, _nothing),
    ("CreateDBInstanceReadReplica", "StorageQuotaExceededFault"): (_COPY, _most(AllocatedStorage=39)),
    ("DeleteDBInstance", "DBInstanceNotFoundFault"): ({**_NO_APP, "SkipFinalSnapshot": True}, _nothing),
    ("DeleteDBInstance", "InvalidDBInstanceStateFault"): ({**_APP, "SkipFinalSnapshot": True}, _deleted),
    ("DescribeDBInstances", "DBInstanceNotFoundFault"): (_NO_APP, _nothing),
    ("DescribeDBLogFiles", "DBInstanceNotFoundFault"): (_NO_APP, _nothing),
    ("DescribeDBLogFiles", "DBInstanceNotReadyFault"): (_APP, _nothing),  # no server is planted
    ("DownloadDBLogFilePortion", "DBInstanceNotFoundFault"): ({**_NO_APP, "LogFileName": "a"}, _nothing),
    ("DownloadDBLogFilePortion", "DBInstanceNotReadyFault"): ({**_APP, "LogFileName": "a"}, _nothing),
    ("DownloadDBLogFilePortion", "DBLogFileNotFoundFault"): ({**_APP, "LogFileName": "a"}, World.plant_server),
    ("ModifyDBInstance", "CertificateNotFoundFault"): ({**_APP, "CACertificateIdentifier": NONE}, _nothing),
    ("ModifyDBInstance", "DBInstanceAlreadyExistsFault"): ({**_APP, "NewDBInstanceIdentifier": "copy"}, _standby),
    ("ModifyDBInstance", "DBInstanceNotFoundFault"): (_NO_APP, _nothing),
    ("ModifyDBInstance", "DBParameterGroupNotFoundFault"): ({**_APP, "DBParameterGroupName": NONE}, _nothing),
    ("ModifyDBInstance", "DBUpgradeDependencyFailureFault"): (
        {**_APP, "EngineVersion": "17.10", "ApplyImmediately": True},
        _older_standby,
    ),
    ("ModifyDBInstance", "InvalidDBInstanceStateFault"): ({**_APP, "DBInstanceClass": "db.t3.small"}, _busy),
    ("ModifyDBInstance", "OptionGroupNotFoundFault"): ({**_APP, "OptionGroupName": NONE}, _nothing),
    ("ModifyDBInstance", "StorageQuotaExceededFault"): ({**_APP, "AllocatedStorage": 30}, _most(AllocatedStorage=29)),
    ("PromoteReadReplica", "DBInstanceNotFoundFault"): (_NO_APP, _nothing),
    ("PromoteReadReplica", "InvalidDBInstanceStateFault"): (_APP, _nothing),
    ("RebootDBInstance", "DBInstanceNotFoundFault"): (_NO_APP, _nothing),
    ("RebootDBInstance", "InvalidDBInstanceStateFault"): (_APP, _busy),
    ("StartDBInstance", "DBInstanceNotFoundFault"): (_NO_APP, _nothing),
    ("StartDBInstance", "InvalidDBInstanceStateFault"): (_APP, _nothing),
    ("StopDBInstance", "DBInstanceNotFoundFault"): (_NO_APP, _nothing),
    ("StopDBInstance", "InvalidDBInstanceStateFault"): (_APP, _stopped),
    ("DeleteDBInstance", "DBSnapshotAlreadyExistsFault"): ({**_APP, "FinalDBSnapshotIdentifier": "monday"}, _kept),
    ("DeleteDBInstance", "SnapshotQuotaExceededFault"): (
        {**_APP, "FinalDBSnapshotIdentifier": "monday"},
        _most(ManualSnapshots=0),
    ),
    ("StopDBInstance", "DBSnapshotAlreadyExistsFault"): (_SNAPSHOT, _kept),
    ("StopDBInstance", "SnapshotQuotaExceededFault"): (_SNAPSHOT, _most(ManualSnapshots=0)),
    # snapshots
    ("CopyDBSnapshot", "CustomAvailabilityZoneNotFoundFault"): (
        {**_SNAPSHOT_COPY, "TargetCustomAvailabilityZone": NONE},
        _kept,
    ),
    ("CopyDBSnapshot", "DBSnapshotAlreadyExistsFault"): (
        {**_SNAPSHOT_COPY, "TargetDBSnapshotIdentifier": "monday"},
        _kept,
    ),
    ("CopyDBSnapshot", "DBSnapshotNotFoundFault"): (_SNAPSHOT_COPY, _nothing),
    ("CopyDBSnapshot", "InvalidDBSnapshotStateFault"): (_SNAPSHOT_COPY, _going),
    ("CopyDBSnapshot", "SnapshotQuotaExceededFault"): (_SNAPSHOT_COPY, _kept_and(ManualSnapshots=1)),
    ("CreateDBSnapshot", "DBInstanceNotFoundFault"): ({**_SNAPSHOT, **_NO_APP}, _nothing),
    ("CreateDBSnapshot", "DBSnapshotAlreadyExistsFault"): (_SNAPSHOT, _kept),
    ("CreateDBSnapshot", "InvalidDBInstanceStateFault"): (_SNAPSHOT, _busy),
    ("CreateDBSnapshot", "SnapshotQuotaExceededFault"): (_SNAPSHOT, _most(ManualSnapshots=0)),
    ("DeleteDBSnapshot", "DBSnapshotNotFoundFault"): (_NO_SNAPSHOT, _nothing),
    ("DeleteDBSnapshot", "InvalidDBSnapshotStateFault"): ({"DBSnapshotIdentifier": "monday"}, _going),
    ("DescribeDBSnapshots", "DBSnapshotNotFoundFault"): (_NO_SNAPSHOT, _nothing),
    ("ModifyDBSnapshot", "DBSnapshotNotFoundFault"): (_NO_SNAPSHOT, _nothing),
    ("ModifyDBSnapshot", "InvalidDBSnapshotStateFault"): ({"DBSnapshotIdentifier": "monday"}, _going),
    **{
        ("RestoreDBInstanceFromDBSnapshot", error): ({**_RESTORE, **params}, prepare)
        for error, params, prepare in (
            ("CertificateNotFoundFault", {"CACertificateIdentifier": NONE}, _kept),
            ("DBClusterSnapshotNotFoundFault", {"DBClusterSnapshotIdentifier": NONE}, _kept),
            ("DBInstanceAlreadyExistsFault", {"DBInstanceIdentifier": "app"}, _kept),
            ("DBParameterGroupNotFoundFault", {"DBParameterGroupName": NONE}, _kept),
            ("DBSnapshotNotFoundFault", {}, _nothing),
            ("DBSubnetGroupNotFoundFault", {"DBSubnetGroupName": NONE}, _kept),
            ("InstanceQuotaExceededFault", {}, _kept_and(DBInstances=1)),
            ("InsufficientDBInstanceCapacityFault", {}, _kept_without_ports),
            ("InvalidDBSnapshotStateFault", {}, _going),
            ("OptionGroupNotFoundFault", {"OptionGroupName": NONE}, _kept),
            ("StorageQuotaExceededFault", {}, _kept_and(AllocatedStorage=39)),
        )
    },
    # clusters
    ("CreateDBCluster", "DBClusterAlreadyExistsFault"): (NEW_CLUSTER, _clustered),
    ("CreateDBCluster", "DBClusterParameterGroupNotFoundFault"): (
        {**NEW_CLUSTER, "DBClusterParameterGroupName": NONE},
        _nothing,
    ),
    ("CreateDBCluster", "DBClusterQuotaExceededFault"): (NEW_CLUSTER, _most(DBClusters=0)),
    ("CreateDBCluster", "DBSubnetGroupNotFoundFault"): ({**NEW_CLUSTER, "DBSubnetGroupName": NONE}, _nothing),
    ("CreateDBCluster", "InsufficientDBInstanceCapacityFault"): (NEW_CLUSTER, _no_ports),
    ("CreateDBCluster", "InvalidVPCNetworkStateFault"): (NEW_CLUSTER, _no_reader_host),
    ("DeleteDBCluster", "DBClusterNotFoundFault"): ({**_NO_SHOP, "SkipFinalSnapshot": True}, _nothing),
    ("DeleteDBCluster", "InvalidDBClusterStateFault"): ({**_SHOP, "SkipFinalSnapshot": True}, _with_member),
    ("DescribeDBClusters", "DBClusterNotFoundFault"): (_NO_SHOP, _nothing),
    ("ModifyDBCluster", "DBClusterNotFoundFault"): (_NO_SHOP, _nothing),
    ("ModifyDBCluster", "DBClusterParameterGroupNotFoundFault"): (
        {**_SHOP, "DBClusterParameterGroupName": NONE},
        _clustered,
    ),
    ("ModifyDBCluster", "DBSubnetGroupNotFoundFault"): ({**_SHOP, "DBSubnetGroupName": NONE}, _clustered),
    ("ModifyDBCluster", "InvalidDBClusterStateFault"): ({**_SHOP, "DeletionProtection": True}, _cluster_going),
    ("CreateDBClusterEndpoint", "DBClusterEndpointAlreadyExistsFault"): (_NEW_ENDPOINT, _with_endpoint),
    ("CreateDBClusterEndpoint", "DBClusterEndpointQuotaExceededFault"): (
        {**_NEW_ENDPOINT, "DBClusterEndpointIdentifier": "farther"},
        _endpoints_used_up,
    ),
    ("CreateDBClusterEndpoint", "DBClusterNotFoundFault"): (_NEW_ENDPOINT, _nothing),
    ("CreateDBClusterEndpoint", "DBInstanceNotFoundFault"): ({**_NEW_ENDPOINT, "StaticMembers": [NONE]}, _clustered),
    ("CreateDBClusterEndpoint", "InvalidDBClusterStateFault"): (_NEW_ENDPOINT, _cluster_going),
    ("CreateDBClusterEndpoint", "InvalidDBInstanceStateFault"): (
        {**_NEW_ENDPOINT, "ExcludedMembers": ["app"]},  # it is no member
        _clustered,
    ),
    ("DeleteDBClusterEndpoint", "DBClusterEndpointNotFoundFault"): (_NO_FAR, _nothing),
    ("DeleteDBClusterEndpoint", "InvalidDBClusterEndpointStateFault"): (_FAR, _endpoint_busy),
    ("DeleteDBClusterEndpoint", "InvalidDBClusterStateFault"): (_FAR, _endpoint_of_one_going),
    ("DescribeDBClusterEndpoints", "DBClusterNotFoundFault"): (_NO_SHOP, _nothing),
    ("ModifyDBClusterEndpoint", "DBClusterEndpointNotFoundFault"): (_NO_FAR, _nothing),
    ("ModifyDBClusterEndpoint", "DBInstanceNotFoundFault"): ({**_FAR, "StaticMembers": [NONE]}, _with_endpoint),
    ("ModifyDBClusterEndpoint", "InvalidDBClusterEndpointStateFault"): (_FAR, _endpoint_busy),
    ("ModifyDBClusterEndpoint", "InvalidDBClusterStateFault"): (_FAR, _endpoint_of_one_going),
    ("ModifyDBClusterEndpoint", "InvalidDBInstanceStateFault"): ({**_FAR, "StaticMembers": ["app"]}, _with_endpoint),
    # blue/green deployments
    ("CreateBlueGreenDeployment", "BlueGreenDeploymentAlreadyExistsFault"): (_GREEN, _deployed),
    ("CreateBlueGreenDeployment", "DBClusterNotFoundFault"): (
        {**_GREEN, "Source": f"{_PREFIX}:cluster:none"},
        _nothing,
    ),
    ("CreateBlueGreenDeployment", "DBInstanceNotFoundFault"): ({**_GREEN, "Source": f"{_PREFIX}:db:none"}, _nothing),
    ("CreateBlueGreenDeployment", "DBParameterGroupNotFoundFault"): (
        {**_GREEN, "TargetDBParameterGroupName": NONE},
        _nothing,
    ),
    ("CreateBlueGreenDeployment", "InstanceQuotaExceededFault"): (_GREEN, _most(DBInstances=1)),
    ("CreateBlueGreenDeployment", "InvalidDBInstanceStateFault"): (_GREEN, _busy),
    ("CreateBlueGreenDeployment", "SourceDatabaseNotSupportedFault"): (
        {**_GREEN, "Source": f"{_PREFIX}:db:copy"},
        _standby,
    ),
    ("CreateBlueGreenDeployment", "SourceClusterNotSupportedFault"): (_GREEN_CLUSTER, _old_cluster),
    ("CreateBlueGreenDeployment", "InvalidDBClusterStateFault"): (_GREEN_CLUSTER, _clustered),
    ("CreateBlueGreenDeployment", "DBClusterParameterGroupNotFoundFault"): (
        {**_GREEN_CLUSTER, "TargetDBClusterParameterGroupName": NONE},
        _with_member,
    ),
    ("CreateBlueGreenDeployment", "DBClusterQuotaExceededFault"): (_GREEN_CLUSTER, _last_cluster),
    ("CreateBlueGreenDeployment", "StorageQuotaExceededFault"): (_GREEN, _most(AllocatedStorage=39)),
    ("DeleteBlueGreenDeployment", "BlueGreenDeploymentNotFoundFault"): (
        {"BlueGreenDeploymentIdentifier": "bgd-none"},
        _nothing,
    ),
    ("DeleteBlueGreenDeployment", "InvalidBlueGreenDeploymentStateFault"): (
        {"BlueGreenDeploymentIdentifier": "the one"},
        _deploying,
    ),
    ("DescribeBlueGreenDeployments", "BlueGreenDeploymentNotFoundFault"): (
        {"BlueGreenDeploymentIdentifier": "bgd-none"},
        _nothing,
    ),
    ("SwitchoverBlueGreenDeployment", "BlueGreenDeploymentNotFoundFault"): (
        {"BlueGreenDeploymentIdentifier": "bgd-none"},
        _nothing,
    ),
    ("SwitchoverBlueGreenDeployment", "InvalidBlueGreenDeploymentStateFault"): (
        {"BlueGreenDeploymentIdentifier": "the one"},
        _deploying,
    ),
    # parameter groups
    ("CopyDBParameterGroup", "DBParameterGroupAlreadyExistsFault"): (
        {**_GROUP_COPY, "TargetDBParameterGroupIdentifier": "mine"},
        _nothing,
    ),
    ("CopyDBParameterGroup", "DBParameterGroupNotFoundFault"): (
        {**_GROUP_COPY, "SourceDBParameterGroupIdentifier": NONE},
        _nothing,
    ),
    ("CopyDBParameterGroup", "DBParameterGroupQuotaExceededFault"): (_GROUP_COPY, _most(DBParameterGroups=1)),
    ("CreateDBParameterGroup", "DBParameterGroupAlreadyExistsFault"): (
        {**_GROUP, "DBParameterGroupName": "mine"},
        _nothing,
    ),
    ("CreateDBParameterGroup", "DBParameterGroupQuotaExceededFault"): (_GROUP, _most(DBParameterGroups=1)),
    ("DeleteDBParameterGroup", "DBParameterGroupNotFoundFault"): ({"DBParameterGroupName": NONE}, _nothing),
    ("DeleteDBParameterGroup", "InvalidDBParameterGroupStateFault"): ({"DBParameterGroupName": "mine"}, _in_use),
    ("DescribeDBParameterGroups", "DBParameterGroupNotFoundFault"): ({"DBParameterGroupName": NONE}, _nothing),
    ("DescribeDBParameters", "DBParameterGroupNotFoundFault"): ({"DBParameterGroupName": NONE}, _nothing),
    ("ModifyDBParameterGroup", "DBParameterGroupNotFoundFault"): (
        {"DBParameterGroupName": NONE, **_PARAMETERS},
        _nothing,
    ),
    ("ModifyDBParameterGroup", "InvalidDBParameterGroupStateFault"): (
        {"DBParameterGroupName": "default.postgres17", **_PARAMETERS},
        _nothing,
    ),
    ("ResetDBParameterGroup", "DBParameterGroupNotFoundFault"): (
        {"DBParameterGroupName": NONE, "ResetAllParameters": True},
        _nothing,
    ),
    ("ResetDBParameterGroup", "InvalidDBParameterGroupStateFault"): (
        {"DBParameterGroupName": "default.postgres17", "ResetAllParameters": True},
        _nothing,
    ),
    # subnet groups
    ("CreateDBSubnetGroup", "DBSubnetGroupAlreadyExistsFault"): (
        {**_SUBNET_GROUP, "DBSubnetGroupName": "mine"},
        _nothing,
    ),
    ("CreateDBSubnetGroup", "DBSubnetGroupDoesNotCoverEnoughAZs"): (
        {**_SUBNET_GROUP, "SubnetIds": _SUBNETS[:1]},
        _nothing,
    ),
    ("CreateDBSubnetGroup", "DBSubnetGroupQuotaExceededFault"): (_SUBNET_GROUP, _most(DBSubnetGroups=1)),
    ("CreateDBSubnetGroup", "DBSubnetQuotaExceededFault"): (_SUBNET_GROUP, _most(SubnetsPerDBSubnetGroup=1)),
    ("CreateDBSubnetGroup", "InvalidSubnet"): ({**_SUBNET_GROUP, "SubnetIds": [NONE, *_SUBNETS]}, _nothing),
    ("DeleteDBSubnetGroup", "DBSubnetGroupNotFoundFault"): ({"DBSubnetGroupName": NONE}, _nothing),
    ("DeleteDBSubnetGroup", "InvalidDBSubnetGroupStateFault"): ({"DBSubnetGroupName": "mine"}, _in_use),
    ("DescribeDBSubnetGroups", "DBSubnetGroupNotFoundFault"): ({"DBSubnetGroupName": NONE}, _nothing),
    ("ModifyDBSubnetGroup", "DBSubnetGroupDoesNotCoverEnoughAZs"): (
        {"DBSubnetGroupName": "mine", "SubnetIds": _SUBNETS[:1]},
        _nothing,
    ),
    ("ModifyDBSubnetGroup", "DBSubnetGroupNotFoundFault"): (
        {"DBSubnetGroupName": NONE, "SubnetIds": _SUBNETS},
        _nothing,
    ),
    ("ModifyDBSubnetGroup", "DBSubnetQuotaExceededFault"): (
        {"DBSubnetGroupName": "mine", "SubnetIds": _SUBNETS},
        _most(SubnetsPerDBSubnetGroup=1),
    ),
    ("ModifyDBSubnetGroup", "InvalidSubnet"): (
        {"DBSubnetGroupName": "mine", "SubnetIds": [NONE, *_SUBNETS]},
        _nothing,
    ),
    # event subscriptions
    ("AddSourceIdentifierToSubscription", "SourceNotFoundFault"): ({**_SOURCE, "SourceIdentifier": NONE}, _subscribed),
    ("AddSourceIdentifierToSubscription", "SubscriptionNotFoundFault"): (
        {**_SOURCE, "SubscriptionName": NONE},
        _nothing,
    ),
    ("CreateEventSubscription", "EventSubscriptionQuotaExceededFault"): (_SUBSCRIPTION, _most(EventSubscriptions=1)),
    ("CreateEventSubscription", "SNSInvalidTopicFault"): ({**_SUBSCRIPTION, "SnsTopicArn": NONE}, _nothing),
    ("CreateEventSubscription", "SNSTopicArnNotFoundFault"): ({**_SUBSCRIPTION, "SnsTopicArn": TOPIC + "-2"}, _nothing),
    ("CreateEventSubscription", "SourceNotFoundFault"): (
        {**_SUBSCRIPTION, "SourceType": "db-instance", "SourceIds": [NONE]},
        _nothing,
    ),
    ("CreateEventSubscription", "SubscriptionAlreadyExistFault"): ({**_SUBSCRIPTION, **_MINE}, _nothing),
    ("CreateEventSubscription", "SubscriptionCategoryNotFoundFault"): (
        {**_SUBSCRIPTION, "SourceType": "db-instance", "EventCategories": [NONE]},
        _nothing,
    ),
    ("DeleteEventSubscription", "SubscriptionNotFoundFault"): ({"SubscriptionName": NONE}, _nothing),
    ("DescribeEventSubscriptions", "SubscriptionNotFoundFault"): ({"SubscriptionName": NONE}, _nothing),
    ("ModifyEventSubscription", "SNSInvalidTopicFault"): ({**_MINE, "SnsTopicArn": NONE}, _nothing),
    ("ModifyEventSubscription", "SNSTopicArnNotFoundFault"): ({**_MINE, "SnsTopicArn": TOPIC + "-2"}, _nothing),
    ("ModifyEventSubscription", "SubscriptionCategoryNotFoundFault"): (
        {**_MINE, "SourceType": "db-instance", "EventCategories": [NONE]},
        _nothing,
    ),
    ("ModifyEventSubscription", "SubscriptionNotFoundFault"): ({"SubscriptionName": NONE}, _nothing),
    ("RemoveSourceIdentifierFromSubscription", "SourceNotFoundFault"): (
        {**_SOURCE, "SourceIdentifier": NONE},
        _subscribed,
    ),
    ("RemoveSourceIdentifierFromSubscription", "SubscriptionNotFoundFault"): (
        {**_SOURCE, "SubscriptionName": NONE},
        _nothing,
    ),
}

_ALONE = "a member of a cluster is neither stopped nor started by itself"
_NO_BACKUPS = "there are no automated backups yet"
_NO_CLUSTER_SNAPSHOTS = "there are none of clusters yet: a final one is refused by its member's name"
_NO_NETWORK = "subnets and networks have no effect"
_MEMBER_REFUSED = "the member that it is about is refused by name"

# By error, or by operation and error where it is possible elsewhere.
IMPOSSIBLE: Mapping[str | tuple[str, str], str] = {
    "AuthorizationNotFoundFault": "security groups are kept and have no effect",
    "BackupPolicyNotFoundFault": "there is no such thing outside Oracle",
    "DBCapacityReservationNotFoundFault": _MEMBER_REFUSED,
    "DBClusterAutomatedBackupQuotaExceededFault": _NO_BACKUPS,
    "DBClusterRoleQuotaExceededFault": _MEMBER_REFUSED,
    "DBClusterSnapshotAlreadyExistsFault": _NO_CLUSTER_SNAPSHOTS,
    "DBInstanceAutomatedBackupQuotaExceededFault": _NO_BACKUPS,
    "DBSecurityGroupNotFoundFault": _MEMBER_REFUSED,
    "DBSubnetGroupNotAllowedFault": "replicas are in the one region that there is, where any group will do",
    "DomainNotFoundFault": _MEMBER_REFUSED,
    "InvalidDBCapacityReservationStateFault": _MEMBER_REFUSED,
    "GlobalClusterNotFoundFault": _MEMBER_REFUSED,
    "InsufficientStorageClusterCapacityFault": "a cluster has no storage of its own",
    "InvalidDBClusterSnapshotStateFault": _NO_CLUSTER_SNAPSHOTS,
    "InvalidRestoreFault": "there is one network, and nothing else that a DB snapshot could not be restored to",
    "InvalidDBSecurityGroupStateFault": _MEMBER_REFUSED,
    "InvalidDBSubnetGroupFault": "replicas are in the one network that there is",
    "InvalidDBSubnetStateFault": _NO_NETWORK,
    "InvalidEventSubscriptionStateFault": "a subscription has no state in which it cannot be deleted",
    "InvalidGlobalClusterStateFault": _MEMBER_REFUSED,
    "KMSKeyNotAccessibleFault": _MEMBER_REFUSED,
    "NetworkTypeNotSupported": "any other type than IPV4 is InvalidParameterValue",
    "ProvisionedIopsNotAvailableInAZFault": "they are kept and have no effect",
    "SNSNoAuthorizationFault": "topics are configured, and webhooks of one's own",
    "StorageTypeNotAvailableFault": "they have no effect",
    "StorageTypeNotSupportedFault": "they have no effect, and an unknown one is InvalidParameterValue",
    "SubnetAlreadyInUse": _NO_NETWORK,
    "TenantDatabaseQuotaExceededFault": "there is no such thing outside Oracle",
    "VpcEncryptionControlViolationException": _NO_NETWORK,
    ("AddTagsToResource", "InvalidDBClusterEndpointStateFault"): "tags can be changed in any state",
    ("AddTagsToResource", "InvalidDBClusterStateFault"): "tags can be changed in any state",
    ("AddTagsToResource", "InvalidDBInstanceStateFault"): "tags can be changed in any state",
    ("CreateDBCluster", "DBClusterNotFoundFault"): _MEMBER_REFUSED,
    ("CreateDBCluster", "DBInstanceNotFoundFault"): _MEMBER_REFUSED,
    ("CreateDBCluster", "DBSubnetGroupDoesNotCoverEnoughAZs"): _NO_NETWORK,
    ("CreateDBCluster", "InvalidDBClusterStateFault"): "no cluster is made of another one",
    ("CreateDBCluster", "InvalidDBInstanceStateFault"): "no cluster is made of an instance",
    ("CreateDBCluster", "InvalidDBSubnetGroupStateFault"): "one can be used in any state",
    ("CreateDBCluster", "InvalidSubnet"): _NO_NETWORK,
    ("CreateDBCluster", "OptionGroupNotFoundFault"): _MEMBER_REFUSED,
    ("CreateDBCluster", "StorageQuotaExceededFault"): "its members have storage, a cluster has none",
    ("CreateDBInstance", "DBSubnetGroupDoesNotCoverEnoughAZs"): _NO_NETWORK,
    ("CreateDBInstance", "InvalidSubnet"): _NO_NETWORK,
    ("CreateDBInstanceReadReplica", "DBSubnetGroupDoesNotCoverEnoughAZs"): _NO_NETWORK,
    ("CreateDBInstance", "InvalidVPCNetworkStateFault"): _NO_NETWORK,
    ("CreateDBInstanceReadReplica", "InvalidDBClusterStateFault"): "replicas of clusters are refused in any state",
    ("CreateDBInstanceReadReplica", "InvalidSubnet"): _NO_NETWORK,
    ("CreateDBInstanceReadReplica", "InvalidVPCNetworkStateFault"): _NO_NETWORK,
    ("DeleteDBInstance", "InvalidDBClusterStateFault"): "a writer that has readers is InvalidDBInstanceState",
    ("ModifyDBCluster", "DBClusterAlreadyExistsFault"): _MEMBER_REFUSED,
    ("ModifyDBCluster", "DBInstanceAlreadyExistsFault"): _MEMBER_REFUSED,
    ("ModifyDBCluster", "DBParameterGroupNotFoundFault"): _MEMBER_REFUSED,
    ("ModifyDBCluster", "InvalidDBInstanceStateFault"): "a writer that cannot be told is InvalidDBClusterStateFault",
    ("ModifyDBCluster", "InvalidDBSubnetGroupStateFault"): "one can be used in any state",
    ("ModifyDBCluster", "InvalidSubnet"): _NO_NETWORK,
    ("ModifyDBCluster", "InvalidVPCNetworkStateFault"): _NO_NETWORK,
    ("ModifyDBCluster", "OptionGroupNotFoundFault"): _MEMBER_REFUSED,
    ("ModifyDBCluster", "StorageQuotaExceededFault"): "its members have storage, a cluster has none",
    ("ModifyDBInstance", "InvalidDBClusterStateFault"): "what is the cluster's is refused in any state",
    ("ModifyDBInstance", "InvalidVPCNetworkStateFault"): _NO_NETWORK,
    ("ModifyDBInstance", "InsufficientDBInstanceCapacityFault"): "a class has no capacity of its own",
    ("ModifyDBSubnetGroup", "InvalidDBSubnetGroupStateFault"): "one can be changed in any state",
    ("ModifyEventSubscription", "EventSubscriptionQuotaExceededFault"): "nothing is added",
    ("RemoveTagsFromResource", "InvalidDBClusterEndpointStateFault"): "tags can be changed in any state",
    ("RemoveTagsFromResource", "InvalidDBClusterStateFault"): "tags can be changed in any state",
    ("RemoveTagsFromResource", "InvalidDBInstanceStateFault"): "tags can be changed in any state",
    ("DeleteDBCluster", "SnapshotQuotaExceededFault"): _NO_CLUSTER_SNAPSHOTS,
    ("RestoreDBInstanceFromDBSnapshot", "DBSubnetGroupDoesNotCoverEnoughAZs"): _NO_NETWORK,
    ("RestoreDBInstanceFromDBSnapshot", "InvalidSubnet"): _NO_NETWORK,
    ("RestoreDBInstanceFromDBSnapshot", "InvalidVPCNetworkStateFault"): _NO_NETWORK,
    ("StartDBInstance", "DBClusterNotFoundFault"): _ALONE,
    ("StartDBInstance", "InvalidDBClusterStateFault"): _ALONE,
    ("StartDBInstance", "InvalidVPCNetworkStateFault"): _NO_NETWORK,
    ("StopDBInstance", "InvalidDBClusterStateFault"): _ALONE,
    ("StartDBInstance", "DBSubnetGroupDoesNotCoverEnoughAZs"): _NO_NETWORK,
    ("StartDBInstance", "DBSubnetGroupNotFoundFault"): "a group that is in use cannot be deleted",
    ("StartDBInstance", "InsufficientDBInstanceCapacityFault"): "a stopped instance keeps its port",
    ("StartDBInstance", "InvalidSubnet"): _NO_NETWORK,
}


def test_each_is_provoked_or_impossible() -> None:
    impossible = {(operation, error) for operation, error in _ERRORS if {error, (operation, error)} & IMPOSSIBLE.keys()}
    assert set(PROVOKED) | impossible == set(_ERRORS)
    assert set(PROVOKED) & impossible == set()
    assert IMPOSSIBLE.keys() <= {error for _, error in _ERRORS} | _ERRORS.keys()


@pytest.mark.parametrize(("operation", "error"), list(PROVOKED), ids=[" ".join(case) for case in PROVOKED])
def test_provoked(world: World, operation: str, error: str) -> None:
    params, prepare = PROVOKED[operation, error]
    world.create_instance()
    world.call("CreateDBParameterGroup", **{**_GROUP, "DBParameterGroupName": "mine"})
    world.call("CreateDBSubnetGroup", **{**_SUBNET_GROUP, "DBSubnetGroupName": "mine"})
    world.call("CreateEventSubscription", **{**_SUBSCRIPTION, **_MINE})
    prepare(world)
    if params.get("BlueGreenDeploymentIdentifier") == "the one":
        params = {"BlueGreenDeploymentIdentifier": world.deployment().identifier}
    with world.refused(_ERRORS[operation, error]):
        world.call(operation, **params)
