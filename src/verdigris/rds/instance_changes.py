"""ModifyDBInstance, RebootDBInstance, DeleteDBInstance.

What needs the server or the router is done by a workflow, and shown in ``PendingModifiedValues`` until it has been.
Without ``ApplyImmediately`` whatever interrupts clients (another version, class or name) waits for the maintenance
window, or for a reboot before it, when they are interrupted anyway.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, structs

from verdigris.aws.errors import invalid_parameter_combination, invalid_parameter_value
from verdigris.domain import events
from verdigris.domain.backups import retention_days
from verdigris.domain.identifiers import is_instance_identifier
from verdigris.domain.model import BlueGreenDeployment, DBInstance, PendingChange
from verdigris.domain.parameters import ApplyStatus
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.domain.versions import PostgresVersion
from verdigris.rds import checks, views
from verdigris.rds.catalogue import CLUSTER_ENGINES, Catalogue, choose_parameter_group
from verdigris.rds.cluster_members import require_changeable, require_deletable
from verdigris.rds.context import Context
from verdigris.rds.instances import require_free_name, require_free_port
from verdigris.rds.lookups import deployment_of, identifier_rule, require_instance
from verdigris.rds.quotas import require_storage
from verdigris.rds.read_replicas import hold_replicas, require_backups_where_replicated, require_no_replicas_below
from verdigris.rds.settings import collect_settings
from verdigris.rds.snapshots import begin_snapshot
from verdigris.rds.states import (
    invalid_instance_state,
    require_available,
    require_free_hands,
    require_settled,
)
from verdigris.rds.subnet_groups import require_usable
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments, backups

# Members that modify_db_instance reads itself, or that need nothing done; the others are in ``settings``.
MODIFY_MEMBERS = frozenset(
    {
        "AllocatedStorage",
        "AllowMajorVersionUpgrade",
        "ApplyImmediately",
        "CertificateRotationRestart",
        "DBInstanceClass",
        "DBInstanceIdentifier",
        "DBParameterGroupName",
        "DBPortNumber",
        "DeletionProtection",
        "EnableIAMDatabaseAuthentication",
        "Engine",
        "EngineVersion",
        "MasterUserPassword",
        "NewDBInstanceIdentifier",
    }
)


class _Request(Struct, frozen=True, kw_only=True):
    """ModifyDBInstance's parameters that were checked without looking at the instance."""

    settings: dict[str, Any]
    verifier: str | None
    catalogue: Catalogue


def modify_db_instance(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    request = _check_request(context, params)
    with context.store.transaction() as tx:
        instance = require_instance(tx, params["DBInstanceIdentifier"])
        require_changeable(instance, params)
        wanted = _server_change(context, tx, instance, params, request)
        change, pending = _apportioned(instance, params, wanted)
        changed = structs.replace(_record_change(tx, instance, params, request, wanted), pending=pending)
        require_storage(context, tx, changed.allocated_storage_gib - instance.allocated_storage_gib)
        require_backups_where_replicated(tx, instance, request.settings)
        require_usable(tx, request.settings)
        if wanted != arguments.ModifyInstance() or pending != instance.pending:
            require_available(instance)
            require_free_hands(tx, instance)
            _require_possible_on_standby(tx, instance, wanted)
            version = wanted.engine_version or change.engine_version
            if version is not None:
                require_no_replicas_below(tx, instance, version)
        elif changed != instance:
            require_settled(tx, instance)
            _require_possible_while_stopped(instance, changed)
        starts_backups = _switch_backups(context, tx, instance, changed)
        if change != arguments.ModifyInstance():
            changed = structs.replace(changed, status=_status_during(change))
            change = structs.replace(change, first_backup=starts_backups or None)
            start_workflow(context, tx, WorkflowKind.MODIFY_INSTANCE, instance.resource_id, change)
        tx.put_instance(changed)
        if starts_backups and change == arguments.ModifyInstance() and backups.can_be_begun(tx, changed):
            backups.begin(tx, changed, context.clock, context.random_text)
            changed = require_instance(tx, changed.identifier)
        if changed.allocated_storage_gib != instance.allocated_storage_gib:
            tx.add_event(events.storage_modified(instance, context.clock.now()))
        around = views.surroundings(tx, [changed])
    context.wake()
    return {"DBInstance": views.instance_view(context, changed, around(changed))}


def _switch_backups(context: Context, tx: Transaction, before: DBInstance, after: DBInstance) -> bool:
    """Whether automated backups are wanted from now on: then one is taken at once, where one can be. Without them those
    that there are go, when they are looked at next."""
    was_on, is_on = (retention_days(each) > 0 for each in (before, after))
    if was_on is is_on:
        return False
    tx.add_event(events.backups_switched(after, context.clock.now(), on=is_on))
    return is_on and backups.is_backed_up(tx, after)


def _check_request(context: Context, params: Mapping[str, Any]) -> _Request:
    if params.get("Engine", CLUSTER_ENGINES[-1]).lower() not in CLUSTER_ENGINES:
        raise invalid_parameter_combination("The engine of a DB instance cannot be changed here")
    if "DBInstanceClass" in params:
        checks.check_instance_class(params["DBInstanceClass"])
    if "AllocatedStorage" in params:
        checks.check_storage("AllocatedStorage", params["AllocatedStorage"])
    if "DBPortNumber" in params:
        checks.check_port(params["DBPortNumber"])
    if not is_instance_identifier(params.get("NewDBInstanceIdentifier", "valid")):
        raise invalid_parameter_value(identifier_rule("NewDBInstanceIdentifier"))
    settings, verifier = collect_settings(params), None
    if "MasterUserPassword" in params:
        checks.check_password(params["MasterUserPassword"])
        verifier = context.servers.conceal_password(params["MasterUserPassword"])
    return _Request(settings=settings, verifier=verifier, catalogue=Catalogue(context))


def _server_change(
    context: Context, tx: Transaction, instance: DBInstance, params: Mapping[str, Any], request: _Request
) -> arguments.ModifyInstance:
    """What the workflow has to do; what already is as asked is left out."""
    new_identifier = params.get("NewDBInstanceIdentifier", instance.identifier).lower()
    if new_identifier != instance.identifier:
        require_free_name(tx, new_identifier, wanted_by=instance.resource_id)
    token_logins = params.get("EnableIAMDatabaseAuthentication", instance.token_logins)
    port = params.get("DBPortNumber", instance.port)
    if port != instance.port:
        require_free_port(context, tx, port)
    version = _version(instance, params, request.catalogue)
    instance_class = params.get("DBInstanceClass", instance.instance_class)
    return arguments.ModifyInstance(
        new_identifier=None if new_identifier == instance.identifier else new_identifier,
        master_password_verifier=request.verifier,
        engine_version=None if version == instance.engine_version else version,
        instance_class=None if instance_class == instance.instance_class else instance_class,
        port=None if port == instance.port else port,
        token_logins=None if token_logins == instance.token_logins else token_logins,
    )


def _apportioned(
    instance: DBInstance, params: Mapping[str, Any], wanted: arguments.ModifyInstance
) -> tuple[arguments.ModifyInstance, PendingChange]:
    """What is done now, and what waits. Who asks for something to be as it is takes back what was to change it; who
    wants it now gets what has been waiting, too."""
    before = instance.pending
    pending = PendingChange(
        engine_version=wanted.engine_version if "EngineVersion" in params else before.engine_version,
        instance_class=wanted.instance_class if "DBInstanceClass" in params else before.instance_class,
        new_identifier=wanted.new_identifier if "NewDBInstanceIdentifier" in params else before.new_identifier,
    )
    if params.get("ApplyImmediately"):
        return _with(wanted, pending), PendingChange()
    return _with(wanted, PendingChange()), pending


def _with(change: arguments.ModifyInstance, pending: PendingChange) -> arguments.ModifyInstance:
    return structs.replace(
        change,
        engine_version=pending.engine_version,
        instance_class=pending.instance_class,
        new_identifier=pending.new_identifier,
    )


def _version(instance: DBInstance, params: Mapping[str, Any], catalogue: Catalogue) -> str:
    wanted = params.get("EngineVersion")
    if wanted is None:
        return instance.engine_version
    current = PostgresVersion.parse(instance.engine_version)
    if wanted == str(current.major):
        newest = catalogue.newest(major=current.major)
        wanted = instance.engine_version if newest is None else newest.version
    if wanted == instance.engine_version:
        return instance.engine_version
    target = catalogue.require_upgrade(instance.engine_version, wanted)
    if PostgresVersion.parse(target).major == current.major:
        return target
    if not params.get("AllowMajorVersionUpgrade"):
        raise invalid_parameter_combination(
            "The AllowMajorVersionUpgrade flag must be present when upgrading to a new major version."
        )
    raise invalid_parameter_combination(
        f"A major version upgrade in place, from {current} to {target}, is not offered here, because it would stop the "
        f"database for its duration. Use CreateBlueGreenDeployment with TargetEngineVersion={target}, then "
        "SwitchoverBlueGreenDeployment."
    )


def _record_change(
    tx: Transaction,
    instance: DBInstance,
    params: Mapping[str, Any],
    request: _Request,
    change: arguments.ModifyInstance,
) -> DBInstance:
    """What is changed in the record alone."""
    storage_gib = params.get("AllocatedStorage", instance.allocated_storage_gib)
    if storage_gib < instance.allocated_storage_gib:
        raise invalid_parameter_combination("Requested storage must not be less than the allocated storage")
    group = params.get("DBParameterGroupName")
    version = change.engine_version or instance.engine_version
    chosen = instance.parameter_group if group is None else choose_parameter_group(tx, group, version)
    return structs.replace(
        instance,
        allocated_storage_gib=storage_gib,
        deletion_protection=params.get("DeletionProtection", instance.deletion_protection),
        parameter_group=chosen,
        parameter_status=instance.parameter_status if chosen == instance.parameter_group else ApplyStatus.APPLYING,
        settings={**instance.settings, **request.settings},
    )


def _status_during(change: arguments.ModifyInstance) -> InstanceStatus:
    """Of several changes the one that clients will notice most names the status."""
    if change.engine_version is not None:
        return InstanceStatus.UPGRADING
    if change.instance_class is not None or change.port is not None or change.token_logins is not None:
        return InstanceStatus.MODIFYING
    if change.new_identifier is not None:
        return InstanceStatus.RENAMING
    return InstanceStatus.RESETTING_MASTER_CREDENTIALS


def reboot_db_instance(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """With what has been waiting for it."""
    if params.get("ForceFailover"):
        raise invalid_parameter_combination(
            "ForceFailover cannot be specified since the instance is not configured for MultiAZ"
        )
    with context.store.transaction() as tx:
        instance = require_instance(tx, params["DBInstanceIdentifier"])
        instance = begin_reboot(context, tx, instance)
        around = views.surroundings(tx, [instance])
    context.wake()
    return {"DBInstance": views.instance_view(context, instance, around(instance))}


def begin_reboot(context: Context, tx: Transaction, instance: DBInstance) -> DBInstance:
    """With what has been waiting. Raises RDS's fault if it cannot be now; whoever commits calls ``context.wake()``."""
    require_available(instance)
    require_free_hands(tx, instance)
    told = _with(arguments.ModifyInstance(), instance.pending)
    if told.engine_version is not None:
        require_no_replicas_below(tx, instance, told.engine_version)
    if told.new_identifier is not None:
        require_free_name(tx, told.new_identifier, wanted_by=instance.resource_id)
    instance = structs.replace(instance, status=InstanceStatus.REBOOTING, pending=PendingChange())
    tx.put_instance(instance)
    start_workflow(context, tx, WorkflowKind.REBOOT_INSTANCE, instance.resource_id, told)
    return instance


def delete_db_instance(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """A member of a deployment may be deleted, as on RDS: the deployment then misses it (``MISSING_TARGET`` ...). The
    read replicas of one become servers of their own."""
    with context.store.transaction() as tx:
        instance = require_instance(tx, params["DBInstanceIdentifier"])
        _check_final_snapshot(params, needed=require_deletable(tx, instance))
        if instance.status is InstanceStatus.DELETING:
            raise invalid_instance_state(f"Instance {instance.identifier} is already being deleted.")
        require_settled(tx, instance)
        require_free_hands(tx, instance)
        if instance.deletion_protection:
            raise invalid_parameter_combination(
                "Cannot delete protected DB Instance, please disable deletion protection and try again."
            )
        final = _begin_final_snapshot(context, tx, instance, params)
        # Of a cluster's writer the readers are being deleted, too: nobody is promoted.
        has_replicas = instance.cluster is None and hold_replicas(tx, instance)
        told = arguments.DeleteInstance(
            is_replica=instance.replica_of is not None,
            has_replicas=has_replicas,
            final_snapshot=final,
            was_stopped=instance.status is InstanceStatus.STOPPED,
            keeps_backups=not params.get("DeleteAutomatedBackups", True),
        )
        instance = structs.replace(instance, status=InstanceStatus.DELETING)
        tx.put_instance(instance)
        start_workflow(context, tx, WorkflowKind.DELETE_INSTANCE, instance.resource_id, told)
        around = views.surroundings(tx, [instance])
    context.wake()
    return {"DBInstance": views.instance_view(context, instance, around(instance))}


def _check_final_snapshot(params: Mapping[str, Any], *, needed: bool) -> None:
    """RDS makes a final snapshot unless told not to, but not of a cluster's readers: their data is the writer's.
    Deleting without one must never be a misunderstanding."""
    name, skips = params.get("FinalDBSnapshotIdentifier"), params.get("SkipFinalSnapshot")
    if name and skips:
        raise invalid_parameter_combination(
            "FinalDBSnapshotIdentifier cannot be specified when deleting a DB instance with SkipFinalSnapshot"
        )
    if needed and not name and not skips:
        raise invalid_parameter_combination("FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is true.")


def _begin_final_snapshot(
    context: Context, tx: Transaction, instance: DBInstance, params: Mapping[str, Any]
) -> str | None:
    if not params.get("FinalDBSnapshotIdentifier"):
        return None
    if instance.cluster is not None:
        raise invalid_parameter_combination(
            "FinalDBSnapshotIdentifier cannot be specified when deleting a member of a DB cluster: snapshots of DB "
            "clusters are not offered here"
        )
    if instance.replica_of is not None:
        raise invalid_parameter_combination(
            "FinalDBSnapshotIdentifier cannot be specified when deleting a read replica"
        )
    if instance.status is InstanceStatus.FAILED:
        raise invalid_instance_state(
            f"DB instance {instance.identifier} is in state {instance.status}: it can only be deleted with "
            "SkipFinalSnapshot=true"
        )
    return begin_snapshot(context, tx, instance, "FinalDBSnapshotIdentifier", params).snapshot_id


def _require_possible_while_stopped(instance: DBInstance, changed: DBInstance) -> None:
    """Of a stopped instance the parameter group alone can be changed, for its next start (RDS user guide, "Stopping an
    Amazon RDS DB instance temporarily")."""
    group = {"parameter_group": changed.parameter_group, "parameter_status": changed.parameter_status}
    if instance.status is InstanceStatus.STOPPED and changed != structs.replace(instance, **group):
        raise invalid_instance_state(
            f"You can't modify a stopped DB instance. Start the DB instance {instance.identifier}, and then modify it."
        )


def _require_possible_on_standby(tx: Transaction, instance: DBInstance, change: arguments.ModifyInstance) -> None:
    """Whoever streams from another takes roles and their passwords from there."""
    source = _streams_from(tx, instance)
    if source is not None and change.master_password_verifier is not None:
        raise invalid_parameter_combination(
            f"{instance.identifier} is a physical replica: change the master password of {source} instead"
        )


def _streams_from(tx: Transaction, instance: DBInstance) -> str | None:
    """The source of a read replica, or of a physical green that has not been switched over to."""
    if instance.replica_of is not None:
        source = tx.instance(instance.replica_of)
        return instance.replica_of if source is None else source.identifier
    deployment: BlueGreenDeployment | None = deployment_of(tx, instance.resource_id)
    if deployment is not None and deployment.streams and deployment.primary.target_resource_id == instance.resource_id:
        return deployment.primary.source_identifier
    return None
