"""How much there may be of what, by the names that DescribeAccountAttributes has for it."""

from collections.abc import Mapping
from enum import StrEnum


class Quota(StrEnum):
    ALLOCATED_STORAGE = "AllocatedStorage"  # GiB, of all instances together
    CUSTOM_ENDPOINTS_PER_DB_CLUSTER = "CustomEndpointsPerDBCluster"
    DB_CLUSTERS = "DBClusters"
    DB_INSTANCES = "DBInstances"
    DB_PARAMETER_GROUPS = "DBParameterGroups"
    DB_SUBNET_GROUPS = "DBSubnetGroups"
    EVENT_SUBSCRIPTIONS = "EventSubscriptions"
    MANUAL_SNAPSHOTS = "ManualSnapshots"
    READ_REPLICAS_PER_MASTER = "ReadReplicasPerMaster"
    SUBNETS_PER_DB_SUBNET_GROUP = "SubnetsPerDBSubnetGroup"


# What an account of RDS has to begin with; but for instances, of which there can be as many as there are ports.
DEFAULTS: Mapping[Quota, int] = {
    Quota.ALLOCATED_STORAGE: 100_000,
    Quota.CUSTOM_ENDPOINTS_PER_DB_CLUSTER: 5,
    Quota.DB_CLUSTERS: 40,
    Quota.DB_INSTANCES: 65_535,
    Quota.DB_PARAMETER_GROUPS: 50,
    Quota.DB_SUBNET_GROUPS: 50,
    Quota.EVENT_SUBSCRIPTIONS: 20,
    Quota.MANUAL_SNAPSHOTS: 100,
    Quota.READ_REPLICAS_PER_MASTER: 15,
    Quota.SUBNETS_PER_DB_SUBNET_GROUP: 20,
}
