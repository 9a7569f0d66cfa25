"""Members of clusters: CreateDBInstance with DBClusterIdentifier, and what being one means for the other operations."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value
from verdigris.domain.identifiers import is_instance_identifier, new_resource_id
from verdigris.domain.model import DBCluster, DBInstance
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import ClusterStatus, InstanceStatus, WorkflowKind
from verdigris.rds import checks, views
from verdigris.rds.catalogue import choose_parameter_group
from verdigris.rds.cluster_views import cluster_version
from verdigris.rds.context import Context
from verdigris.rds.instances import DEFAULT_STORAGE_GIB, choose_port, create_instance_alone, require_free_name
from verdigris.rds.lookups import identifier_rule, require_cluster
from verdigris.rds.quotas import most, require_room
from verdigris.rds.settings import collect_settings
from verdigris.rds.states import invalid_cluster_state, invalid_instance_state, require_growing_cluster
from verdigris.rds.tags import parse_tags
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments, membership
from verdigris.workflows.cluster_members import LOST

# What a cluster decides for its members, in RDS's words.
_THE_CLUSTERS: Mapping[str, str] = {
    "BackupRetentionPeriod": "backup retention period",
    "DBName": "database name",
    "DBPortNumber": "database endpoint port number",
    "DBSubnetGroupName": "db subnet group",
    "MasterUsername": "master user name",
    "MasterUserPassword": "master user password",
    "Port": "database endpoint port number",
    "PreferredBackupWindow": "backup window",
    "VpcSecurityGroupIds": "vpc security group",
}


def create_db_instance(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    if params.get("DBClusterIdentifier"):
        return _create_member(context, params)
    return create_instance_alone(context, params)


def _create_member(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """The first is the writer, the others follow it."""
    _check(params)
    settings, tags = collect_settings(params), parse_tags(params.get("Tags"))
    storage_gib = params.get("AllocatedStorage", DEFAULT_STORAGE_GIB)
    with context.store.transaction() as tx:
        cluster = require_cluster(tx, params["DBClusterIdentifier"].lower())
        _require_open(cluster)
        require_growing_cluster(tx, cluster)
        require_free_name(tx, params["DBInstanceIdentifier"].lower())
        require_room(context, tx, [storage_gib])
        version = _version(tx, cluster, params)
        writer = writer_of(tx, cluster)
        if writer is not None:
            _require_copyable(context, tx, cluster, writer)
        member = DBInstance(
            resource_id=new_resource_id(context.random_text),
            identifier=params["DBInstanceIdentifier"].lower(),
            engine=cluster.engine,
            engine_version=version,
            instance_class=params["DBInstanceClass"],
            status=InstanceStatus.CREATING,
            master_username=cluster.master_username,
            db_name=cluster.db_name,
            port=choose_port(context, tx, None),
            created_at=context.clock.now(),
            allocated_storage_gib=storage_gib,
            parameter_group=choose_parameter_group(tx, params.get("DBParameterGroupName"), version),
            read_only=writer is not None,
            replica_of=None if writer is None else writer.resource_id,
            cluster=cluster.resource_id,
            settings={**cluster.inherited, **settings},
            tags=tags,
        )
        tx.put_instance(member)
        if writer is None:
            tx.put_cluster(structs.replace(cluster, writer=member.resource_id))
            told = arguments.CreateInstance(master_password_verifier=cluster.master_password_verifier)
            start_workflow(context, tx, WorkflowKind.CREATE_INSTANCE, member.resource_id, told)
        else:
            told_reader = arguments.CreateReadReplica()
            start_workflow(context, tx, WorkflowKind.CREATE_READ_REPLICA, member.resource_id, told_reader)
        around = views.surroundings(tx, [member])
    context.wake()
    return {"DBInstance": views.instance_view(context, member, around(member))}


def _check(params: Mapping[str, Any]) -> None:
    if not is_instance_identifier(params["DBInstanceIdentifier"]):
        raise invalid_parameter_value(identifier_rule("DBInstanceIdentifier"))
    for name, words in _THE_CLUSTERS.items():
        if name in params:
            raise invalid_parameter_combination(
                f"The requested DB Instance will be a member of a DB Cluster. Set {words} for the DB Cluster."
            )
    _refuse_protection(params)
    checks.check_instance_class(params["DBInstanceClass"])
    if "AllocatedStorage" in params:
        checks.check_storage("AllocatedStorage", params["AllocatedStorage"])


def _version(tx: Transaction, cluster: DBCluster, params: Mapping[str, Any]) -> str:
    """The cluster's: neither engine nor version can be another one's."""
    engine = params["Engine"].lower()
    if engine != cluster.engine:
        raise invalid_parameter_combination(
            f"The engine name requested for your DB instance ({engine}) is incompatible with the engine name of your "
            f"DB cluster ({cluster.engine})."
        )
    version = cluster_version(cluster, tx.members_of([cluster.resource_id]))
    if params.get("EngineVersion", version) not in (version, version.partition(".")[0]):
        raise invalid_parameter_combination(
            f"The engine version that you requested for your DB instance ({params['EngineVersion']}) does not match "
            f"the engine version of your DB cluster ({version})."
        )
    return version


def _require_open(cluster: DBCluster) -> None:
    """One that is being created may have members already: they wait for each other."""
    if cluster.status not in (ClusterStatus.AVAILABLE, ClusterStatus.CREATING):
        raise invalid_cluster_state(f"DB cluster {cluster.identifier} is in state {cluster.status}")


def _require_copyable(context: Context, tx: Transaction, cluster: DBCluster, writer: DBInstance) -> None:
    if writer.status in LOST:  # nothing could be copied from it
        raise unavailable_writer(cluster, writer)
    if writer.read_only and not membership.is_target_in_waiting(tx, writer.resource_id):
        raise invalid_cluster_state(f"DB cluster {cluster.identifier} is read-only since its switchover")
    allowed = most(context, Quota.READ_REPLICAS_PER_MASTER)
    if len(tx.replicas_of([writer.resource_id])) >= allowed:
        raise invalid_cluster_state(f"DB cluster {cluster.identifier} has {allowed} readers, which is the limit")


# ------------------------------------------------------------------------------------------------ for other operations


def writer_of(tx: Transaction, cluster: DBCluster) -> DBInstance | None:
    return None if cluster.writer is None else tx.instance(cluster.writer)


def unavailable_writer(cluster: DBCluster, writer: DBInstance) -> Fault:
    return invalid_cluster_state(
        f"The writer of DB cluster {cluster.identifier}, {writer.identifier}, is in state {writer.status}"
    )


def require_no_member(instance: DBInstance, what: str) -> None:
    """``what``: cannot be done to it, with what to do."""
    if instance.cluster is not None:
        raise invalid_instance_state(f"DB instance {instance.identifier} is a member of a DB cluster and {what}")


def require_changeable(instance: DBInstance, params: Mapping[str, Any]) -> None:
    """For ModifyDBInstance."""
    if instance.cluster is None:
        return
    for name, words in _THE_CLUSTERS.items():
        if name in params:
            raise invalid_parameter_combination(
                f"The specified DB Instance is a member of a cluster. Modify {words} for the DB Cluster using the "
                "ModifyDbCluster API"
            )
    _refuse_protection(params)


def _refuse_protection(params: Mapping[str, Any]) -> None:
    if params.get("DeletionProtection"):
        raise invalid_parameter_combination(
            "Deletion Protection can only be applied on the Cluster level, not for individual instances"
        )
    if params.get("EnableIAMDatabaseAuthentication"):
        raise invalid_parameter_combination("IAM database authentication is not offered here for members of clusters")


def require_deletable(tx: Transaction, instance: DBInstance) -> bool:
    """Whether its data goes with it: it is no reader. A writer goes last, because nobody takes its place yet."""
    cluster = None if instance.cluster is None else tx.cluster(instance.cluster)
    if cluster is None:
        return True
    if cluster.writer != instance.resource_id:
        return False
    readers = [
        each.identifier
        for each in tx.members_of([cluster.resource_id])
        if each.resource_id != instance.resource_id and each.status is not InstanceStatus.DELETING
    ]
    if readers:
        raise invalid_instance_state(
            f"DB instance {instance.identifier} is the writer of the DB cluster {cluster.identifier}, which has "
            f"readers ({', '.join(readers)}). Failover is not offered here yet: delete the readers first."
        )
    return True
