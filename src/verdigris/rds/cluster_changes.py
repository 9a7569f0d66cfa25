"""ModifyDBCluster and DeleteDBCluster."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import invalid_parameter_combination
from verdigris.domain.model import DBCluster
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import ClusterStatus, InstanceStatus, WorkflowKind
from verdigris.rds import checks, cluster_views
from verdigris.rds.cluster_members import unavailable_writer, writer_of
from verdigris.rds.clusters import require_default_parameter_group
from verdigris.rds.context import Context
from verdigris.rds.instances import require_free_port
from verdigris.rds.lookups import cluster_deployment_of, cluster_identifier_of, require_cluster
from verdigris.rds.settings import collect_cluster_settings
from verdigris.rds.states import invalid_cluster_state, require_available_cluster, require_free_cluster
from verdigris.rds.subnet_groups import require_usable
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments
from verdigris.workflows.services import is_busy

# Members that modify_db_cluster reads itself, or that need nothing done; the others are in ``settings``. Everything is
# applied at once: clients notice none of it.
MODIFY_MEMBERS = frozenset(
    {
        "ApplyImmediately",
        "DBClusterIdentifier",
        "DBClusterParameterGroupName",
        "DeletionProtection",
        "EngineVersion",
        "MasterUserPassword",
        "Port",
    }
)


def modify_db_cluster(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    settings, verifier = collect_cluster_settings(params), None
    if "MasterUserPassword" in params:
        checks.check_password(params["MasterUserPassword"])
        verifier = context.servers.conceal_password(params["MasterUserPassword"])
    if "Port" in params:
        checks.check_port(params["Port"])
    with context.store.transaction() as tx:
        cluster = require_cluster(tx, cluster_identifier_of(context, params["DBClusterIdentifier"]))
        require_available_cluster(cluster)
        require_free_cluster(tx, cluster)
        require_usable(tx, settings)
        _require_its_own(tx, cluster, params)
        port = params.get("Port", cluster.port)
        if port != cluster.port:
            require_free_port(context, tx, port, on_both=True)
        change = arguments.ModifyCluster(master_password_verifier=verifier, port=None if port == cluster.port else port)
        changed = structs.replace(
            cluster,
            deletion_protection=params.get("DeletionProtection", cluster.deletion_protection),
            settings={**cluster.settings, **settings},
        )
        if change != arguments.ModifyCluster():
            if verifier is not None:
                _require_writer_available(tx, cluster)
                _require_no_standby(tx, cluster)
            changed = structs.replace(changed, status=_status_during(change))
            start_workflow(context, tx, WorkflowKind.MODIFY_CLUSTER, cluster.resource_id, change)
        tx.put_cluster(changed)
        for member in tx.members_of([cluster.resource_id]):
            tx.put_instance(structs.replace(member, settings={**member.settings, **changed.inherited}))
        (parts,) = cluster_views.parts(tx, [cluster])
    context.wake()
    return {"DBCluster": cluster_views.cluster_view(context, changed, parts)}


def _require_its_own(tx: Transaction, cluster: DBCluster, params: Mapping[str, Any]) -> None:
    """What can be said of a cluster that exists only as it is."""
    version = cluster_views.cluster_version(cluster, tx.members_of([cluster.resource_id]))
    require_default_parameter_group(params.get("DBClusterParameterGroupName"), cluster.engine, version)
    if params.get("EngineVersion", version) not in (version, version.partition(".")[0]):
        raise invalid_parameter_combination(
            f"Cannot upgrade DB cluster {cluster.identifier} from {version} to {params['EngineVersion']}: upgrades of "
            "whole clusters are not offered here yet. For another minor version modify its readers first, then its "
            "writer, with ModifyDBInstance"
        )


def _require_writer_available(tx: Transaction, cluster: DBCluster) -> None:
    """It is told the new password."""
    writer = writer_of(tx, cluster)
    if writer is not None and writer.status is not InstanceStatus.AVAILABLE:
        raise unavailable_writer(cluster, writer)


def _require_no_standby(tx: Transaction, cluster: DBCluster) -> None:
    """A green that streams from blue has blue's passwords."""
    deployment = cluster_deployment_of(tx, cluster.resource_id)
    if (
        deployment is not None
        and deployment.cluster is not None
        and deployment.streams
        and deployment.cluster.target_resource_id == cluster.resource_id
    ):
        raise invalid_parameter_combination(
            f"The master password of DB cluster {cluster.identifier} is that of "
            f"{deployment.cluster.source_identifier}, which it follows: change it there"
        )


def _status_during(change: arguments.ModifyCluster) -> ClusterStatus:
    """Of several changes the one that clients will notice most names the status."""
    return ClusterStatus.RESETTING_MASTER_CREDENTIALS if change.port is None else ClusterStatus.MODIFYING


def delete_db_cluster(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Its data went with its last member."""
    _check_final_snapshot(params)
    with context.store.transaction() as tx:
        cluster = require_cluster(tx, cluster_identifier_of(context, params["DBClusterIdentifier"]))
        if cluster.status not in (ClusterStatus.AVAILABLE, ClusterStatus.FAILED) or is_busy(tx, cluster.resource_id):
            raise invalid_cluster_state(f"DB cluster {cluster.identifier} is in state {cluster.status}")
        require_free_cluster(tx, cluster)
        if cluster.deletion_protection:
            raise invalid_parameter_combination(
                "Cannot delete protected Cluster, please disable deletion protection and try again."
            )
        (parts,) = cluster_views.parts(tx, [cluster])
        if any(member.status is not InstanceStatus.DELETING for member in parts.members):
            raise invalid_cluster_state(
                "Cluster cannot be deleted, it still contains DB instances in non-deleting state."
            )
        cluster = structs.replace(cluster, status=ClusterStatus.DELETING)
        tx.put_cluster(cluster)
        start_workflow(context, tx, WorkflowKind.DELETE_CLUSTER, cluster.resource_id)
    context.wake()
    return {"DBCluster": cluster_views.cluster_view(context, cluster, parts)}


def _check_final_snapshot(params: Mapping[str, Any]) -> None:
    """As for an instance."""
    name, skips = params.get("FinalDBSnapshotIdentifier"), params.get("SkipFinalSnapshot")
    if name and skips:
        raise invalid_parameter_combination(
            "FinalDBSnapshotIdentifier cannot be specified when deleting a DB cluster with SkipFinalSnapshot"
        )
    if name:
        raise invalid_parameter_combination(
            "Snapshots of DB clusters are not offered here: one can only be deleted with SkipFinalSnapshot=true."
        )
    if not skips:
        raise invalid_parameter_combination("FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is true.")
