"""Every event that Verdigris writes, as pure builders: numbers, categories and texts in one place.

Numbers and texts: Amazon RDS user guide, "Amazon RDS event categories and event messages". Where RDS has no event
of its own (a rename, a failed change) the general notification RDS-EVENT-0044 carries our message.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBInstance,
    DBSnapshot,
    Event,
    Member,
    ParameterGroup,
)
from verdigris.domain.parameters import ParameterValue
from verdigris.domain.statuses import SnapshotType, SourceType

AVAILABILITY = "availability"
BACKUP = "backup"
CONFIGURATION_CHANGE = "configuration change"
CREATION = "creation"
DELETION = "deletion"
FAILURE = "failure"
MAINTENANCE = "maintenance"
NOTIFICATION = "notification"
READ_REPLICA = "read replica"
RESTORATION = "restoration"

# Those that the builders below use, by kind of source.
CATEGORIES: Mapping[SourceType, frozenset[str]] = {
    SourceType.BLUE_GREEN_DEPLOYMENT: frozenset({CREATION, DELETION, FAILURE, NOTIFICATION}),
    SourceType.DB_CLUSTER: frozenset({CONFIGURATION_CHANGE, CREATION, DELETION}),
    SourceType.DB_INSTANCE: frozenset(
        {
            AVAILABILITY, BACKUP, CONFIGURATION_CHANGE, CREATION, DELETION, FAILURE, MAINTENANCE, NOTIFICATION,
            READ_REPLICA,
        }
    ),
    SourceType.DB_PARAMETER_GROUP: frozenset({CONFIGURATION_CHANGE}),
    SourceType.DB_SNAPSHOT: frozenset({CREATION, DELETION, NOTIFICATION, RESTORATION}),
}  # fmt: skip

ARN_KINDS: Mapping[SourceType, str] = {
    SourceType.BLUE_GREEN_DEPLOYMENT: "deployment",
    SourceType.DB_CLUSTER: "cluster",
    SourceType.DB_INSTANCE: "db",
    SourceType.DB_PARAMETER_GROUP: "pg",
    SourceType.DB_SNAPSHOT: "snapshot",
}

# ----------------------------------------------------------------------------------------------------------- instances


def instance_created(instance: DBInstance, at: datetime) -> Event:
    return _of_instance(instance, "0005", CREATION, "DB instance created", at)


def instance_deleted(instance: DBInstance, at: datetime) -> Event:
    return _of_instance(instance, "0003", DELETION, "DB instance deleted", at)


def instance_rebooted(instance: DBInstance, at: datetime) -> Event:
    return _of_instance(instance, "0006", AVAILABILITY, "DB instance restarted", at)


def instance_stopped(instance: DBInstance, at: datetime) -> Event:
    return _of_instance(instance, "0087", NOTIFICATION, "DB instance stopped", at)


def instance_started(instance: DBInstance, at: datetime) -> Event:
    return _of_instance(instance, "0088", NOTIFICATION, "DB instance started", at)


def instance_failed(instance: DBInstance, reason: str, at: datetime) -> Event:
    return _of_instance(instance, "0031", FAILURE, f"DB instance put into failed state. {reason}", at)


def instance_modified(instance: DBInstance, changes: Collection[str], at: datetime) -> list[Event]:
    """One event per change; ``changes`` are names of fields of ``workflows.arguments.ModifyInstance``."""
    known = {
        "instance_class": ("0014", CONFIGURATION_CHANGE, "Finished applying modification to DB instance class"),
        "master_password_verifier": ("0016", CONFIGURATION_CHANGE, "Reset master credentials"),
        "engine_version": ("0047", MAINTENANCE, "Database instance patched"),
        "port": ("0044", NOTIFICATION, f"The port of the DB instance is {instance.port} now"),
        "new_identifier": ("0044", NOTIFICATION, f"DB instance renamed to {instance.identifier}"),
    }
    return [_of_instance(instance, *event, at) for name, event in known.items() if name in changes]


def storage_modified(instance: DBInstance, at: datetime) -> Event:
    return _of_instance(
        instance, "0017", CONFIGURATION_CHANGE, "Finished applying modification to allocated storage", at
    )


def modification_failed(instance: DBInstance, reason: str, at: datetime) -> Event:
    return _of_instance(instance, "0044", NOTIFICATION, f"Modification of the DB instance failed: {reason}", at)


# ----------------------------------------------------------------------------------------------------------- snapshots


def snapshot_begun(snapshot: DBSnapshot, instance: DBInstance, at: datetime) -> list[Event]:
    return [
        _of_instance(instance, "0001", BACKUP, "Backing up DB instance", at),
        _of_snapshot(snapshot, *_begun(snapshot), at),
    ]


def snapshot_taken(snapshot: DBSnapshot, instance: DBInstance, at: datetime) -> list[Event]:
    return [
        _of_snapshot(snapshot, *_taken(snapshot), at),
        _of_instance(instance, "0002", BACKUP, "Finished DB Instance backup", at),
    ]


def _begun(snapshot: DBSnapshot) -> tuple[str, str, str]:
    if snapshot.type is SnapshotType.AUTOMATED:
        return "0090", CREATION, "Creating automated snapshot"
    return "0040", CREATION, "Creating manual snapshot"


def _taken(snapshot: DBSnapshot) -> tuple[str, str, str]:
    if snapshot.type is SnapshotType.AUTOMATED:
        return "0091", CREATION, "Automated snapshot created"
    return "0042", CREATION, "Manual snapshot created"


def backups_switched(instance: DBInstance, at: datetime, *, on: bool) -> Event:
    number, message = ("0032", "Enabled automated backups") if on else ("0028", "Disabled automated backups")
    return _of_instance(instance, number, CONFIGURATION_CHANGE, message, at)


def snapshot_failed(snapshot: DBSnapshot, instance: DBInstance, reason: str, at: datetime) -> Event:
    message = f"The DB snapshot {snapshot.identifier} could not be taken. {_sentence(reason)}"
    return _of_instance(instance, "0044", NOTIFICATION, message, at)


def snapshot_deleted(snapshot: DBSnapshot, at: datetime) -> Event:
    return _of_snapshot(snapshot, "0041", DELETION, "Deleted user snapshot", at)


def snapshot_restored(snapshot: DBSnapshot, at: datetime) -> Event:
    return _of_snapshot(snapshot, "0043", RESTORATION, f"Restored from snapshot {snapshot.identifier}", at)


def snapshot_copy_begun(source: str, copy: DBSnapshot, region: str, at: datetime) -> Event:
    message = f"Started copy of snapshot {source} in region {region}"
    return _of_snapshot(copy, "0196", NOTIFICATION, message, at)


def snapshot_copied(source: str, copy: DBSnapshot, region: str, at: datetime) -> Event:
    message = f"Finished copy of snapshot {source} in region {region}"
    return _of_snapshot(copy, "0197", NOTIFICATION, message, at)


def snapshot_copy_failed(source: str, copy: DBSnapshot, region: str, reason: str, at: datetime) -> Event:
    message = f"Canceled snapshot copy request of {source} in region {region}. {_sentence(reason)}"
    return _of_snapshot(copy, "0190", NOTIFICATION, message, at)


def _of_snapshot(snapshot: DBSnapshot, number: str, category: str, message: str, at: datetime) -> Event:
    return _event(SourceType.DB_SNAPSHOT, snapshot.identifier, snapshot.snapshot_id, number, category, message, at)


# ------------------------------------------------------------------------------------------------------------ clusters


def cluster_created(cluster: DBCluster, at: datetime) -> Event:
    return _of_cluster(cluster, "0170", CREATION, "DB cluster created", at)


def cluster_deleted(cluster: DBCluster, at: datetime) -> Event:
    return _of_cluster(cluster, "0171", DELETION, "DB cluster deleted", at)


def cluster_password_reset(cluster: DBCluster, at: datetime) -> Event:
    return _of_cluster(cluster, "0016", CONFIGURATION_CHANGE, "Reset master credentials", at)


def _of_cluster(cluster: DBCluster, number: str, category: str, message: str, at: datetime) -> Event:
    return _event(SourceType.DB_CLUSTER, cluster.identifier, cluster.resource_id, number, category, message, at)


# ---------------------------------------------------------------------------------------------------- parameter groups


def parameters_updated(before: ParameterGroup, after: ParameterGroup, at: datetime) -> list[Event]:
    """One event for each that is another now; a reset one has its default."""
    changed = sorted({name for name, _ in before.parameters.items() ^ after.parameters.items()})
    return [_of_group(after, _updated(name, after.parameters.get(name)), at) for name in changed]


def _updated(name: str, now: ParameterValue | None) -> str:
    if now is None:
        return f"Reset parameter {name} to its default."
    return f"Updated parameter {name} to {now.value} with apply method {now.apply_method}."


def _of_group(group: ParameterGroup, message: str, at: datetime) -> Event:
    return _event(SourceType.DB_PARAMETER_GROUP, group.name, group.name, "0037", CONFIGURATION_CHANGE, message, at)


# ------------------------------------------------------------------------------------------------------- read replicas


def replication_stopped(instance: DBInstance, reason: str, at: datetime) -> Event:
    return _of_instance(instance, "0045", READ_REPLICA, f"Replication has stopped. {_sentence(reason)}", at)


def replication_resumed(instance: DBInstance, at: datetime) -> Event:
    """Also when it begins."""
    return _of_instance(instance, "0046", READ_REPLICA, "Replication for the Read Replica resumed.", at)


def replica_creation_failed(instance: DBInstance, reason: str, at: datetime) -> Event:
    return _of_instance(instance, "0202", READ_REPLICA, f"Read replica creation failed. {_sentence(reason)}", at)


def replica_promoted(instance: DBInstance, at: datetime) -> Event:
    message = "Promoted Read Replica instance to a stand-alone database instance."
    return _of_instance(instance, "0044", NOTIFICATION, message, at)


# --------------------------------------------------------------------------------------------------------- deployments


def deployment_created(deployment: BlueGreenDeployment, at: datetime) -> Event:
    message = (
        "Blue/green deployment tasks completed. You can make more modifications to the green environment databases "
        "or switch over the deployment."
    )
    return _of_deployment(deployment, "0244", CREATION, message, at)


def deployment_creation_failed(deployment: BlueGreenDeployment, reason: str, at: datetime) -> Event:
    message = f"Creation of blue/green deployment failed because {_unended(reason)}."
    return _of_deployment(deployment, "0245", FAILURE, message, at)


def deployment_deleted(deployment: BlueGreenDeployment, at: datetime) -> Event:
    return _of_deployment(deployment, "0246", DELETION, "Blue/green deployment deleted.", at)


def deployment_notice(deployment: BlueGreenDeployment, message: str, at: datetime) -> Event:
    return _of_deployment(deployment, "0409", NOTIFICATION, message, at)


# ---------------------------------------------------------------------------------------------------------- switchover
# Before the switchover a deployment's members are called app and app-green-x1y2z3, after it app-old1 and app. Of
# clusters RDS tells of the whole, and not of the members (Aurora user guide, "Blue/green deployment events").


def switchover_started(deployment: BlueGreenDeployment, at: datetime) -> list[Event]:
    begun = f"Switchover from {_names(deployment.subject)} started."
    if deployment.cluster is not None:
        return [
            _of_deployment(deployment, "0247", NOTIFICATION, begun, at),
            _of_deployment(deployment, "0259", NOTIFICATION, f"{_of_clusters(deployment.cluster)} started.", at),
        ]
    return [
        _of_deployment(deployment, "0247", NOTIFICATION, begun, at),
        *(
            _of_deployment(deployment, "0250", NOTIFICATION, f"Switchover from {role} {_names(each)} started.", at)
            for role, each in _moving(deployment)
        ),
    ]


def sequences_synchronised(
    deployment: BlueGreenDeployment, at: datetime, *, greens: Mapping[str, str] | None = None
) -> list[Event]:
    """Logical replication does not carry sequences; the switchover does. Names as for ``switchover_completed``."""
    if deployment.cluster is not None:
        blue = deployment.cluster.target_identifier or ""
        green = (greens or {}).get(blue, "its green DB cluster")
        synced = f"Sequence sync for switchover of DB cluster {blue} to {green}"
        return [
            _of_deployment(deployment, "0311", NOTIFICATION, f"{synced} has initiated.", at),
            _of_deployment(deployment, "0312", NOTIFICATION, f"{synced} has completed.", at),
        ]
    message = f"Synchronization of sequences to {deployment.primary.target_identifier}"
    return [
        _of_deployment(deployment, "0307", NOTIFICATION, f"{message} initiated.", at),
        _of_deployment(deployment, "0308", NOTIFICATION, f"{message} completed.", at),
    ]


def switchover_completed(
    deployment: BlueGreenDeployment, at: datetime, *, greens: Mapping[str, str] | None = None
) -> list[Event]:
    """``deployment`` carries the new names already; ``greens``: what greens were called before, by their names now, as
    far as it is known."""
    if deployment.cluster is not None:
        message = _moved("DB cluster", deployment.cluster, greens or {})
        told = [_of_deployment(deployment, "0260", NOTIFICATION, message, at)]
    else:
        told = [
            _of_deployment(deployment, "0251", NOTIFICATION, _moved(role, each, greens or {}), at)
            for role, each in _moving(deployment)
        ]
    completed = "Switchover completed on blue/green deployment."
    return [*told, _of_deployment(deployment, "0248", NOTIFICATION, completed, at)]


def _moved(role: str, member: Member, greens: Mapping[str, str]) -> str:
    blue, old = member.target_identifier or "", member.source_identifier
    green = greens.get(blue)
    if green is None:
        return f"Switchover of {role} {blue} completed. Renamed the former {blue} to {old}."
    return f"Switchover from {role} {blue} to {green} completed. Renamed {blue} to {old} and {green} to {blue}."


def switchover_canceled(deployment: BlueGreenDeployment, reason: str, at: datetime) -> list[Event]:
    why = f"was canceled due to {_unended(reason)}."
    if deployment.cluster is not None:
        told = [_of_deployment(deployment, "0261", FAILURE, f"{_of_clusters(deployment.cluster)} {why}", at)]
    else:
        told = [
            _of_deployment(deployment, "0252", FAILURE, f"Switchover from {role} {_names(each)} {why}", at)
            for role, each in _moving(deployment)
        ]
    return [*told, _of_deployment(deployment, "0249", FAILURE, "Switchover canceled on blue/green deployment.", at)]


# -------------------------------------------------------------------------------------------------------------- shared


def _moving(deployment: BlueGreenDeployment) -> list[tuple[str, Member]]:
    """With what RDS calls each."""
    primary, *replicas = deployment.moving
    return [("primary", primary), *(("read replica", replica) for replica in replicas)]


def _of_clusters(member: Member) -> str:
    return f"Switchover from DB cluster {_names(member)}"


def _names(member: Member) -> str:
    return f"{member.source_identifier} to {member.target_identifier}"


def _unended(sentence: str) -> str:
    """A reason fits into a sentence of ours: its own full stop would double."""
    return sentence.rstrip().removesuffix(".")


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{_unended(clause[1:])}."


def _of_instance(instance: DBInstance, number: str, category: str, message: str, at: datetime) -> Event:
    return _event(SourceType.DB_INSTANCE, instance.identifier, instance.resource_id, number, category, message, at)


def _of_deployment(deployment: BlueGreenDeployment, number: str, category: str, message: str, at: datetime) -> Event:
    return _event(
        SourceType.BLUE_GREEN_DEPLOYMENT, deployment.identifier, deployment.identifier, number, category, message, at
    )


def _event(
    source_type: SourceType, identifier: str, resource_id: str, number: str, category: str, message: str, at: datetime
) -> Event:
    return Event(
        event_id=f"RDS-EVENT-{number}",
        source_type=source_type,
        source_identifier=identifier,
        source_resource_id=resource_id,
        categories=(category,),
        message=message,
        at=at,
    )
