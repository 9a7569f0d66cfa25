"""DB snapshots: create, describe, copy, modify, delete. Making an instance of one is in ``restores``.

Those that the API is asked for are manual ones. Automated ones are taken, and taken away, by ``workflows.backups``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_combination, invalid_parameter_value
from verdigris.domain import events
from verdigris.domain.identifiers import is_snapshot_identifier, new_snapshot_id
from verdigris.domain.model import DBInstance, DBSnapshot, Tag
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.domain.statuses import InstanceStatus, SnapshotStatus, SnapshotType, WorkflowKind
from verdigris.domain.versions import PostgresVersion
from verdigris.rds.catalogue import Catalogue
from verdigris.rds.cluster_members import require_no_member
from verdigris.rds.context import Context
from verdigris.rds.filters import Values, apply_filters
from verdigris.rds.lookups import instance_identifier_of, require_instance, require_snapshot, snapshot_identifier_of
from verdigris.rds.pagination import paginate
from verdigris.rds.quotas import count_manual, require_less
from verdigris.rds.settings import check_option_group
from verdigris.rds.snapshot_views import snapshot_view
from verdigris.rds.states import require_available, require_free_hands, require_settled
from verdigris.rds.tags import merge_tags, parse_tags
from verdigris.rds.work import start_workflow
from verdigris.workflows import arguments
from verdigris.workflows.snapshot_taking import new_snapshot, user_of

# DescribeDBSnapshots; of the last three there are none here.
_TYPES = (*SnapshotType, "shared", "public", "awsbackup")


def create_db_snapshot(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    tags = parse_tags(params.get("Tags"))
    with context.store.transaction() as tx:
        instance = require_instance(tx, params["DBInstanceIdentifier"])
        require_no_member(instance, "has no snapshots of its own, and snapshots of DB clusters are not offered here.")
        require_available(instance)
        require_settled(tx, instance)
        require_free_hands(tx, instance)
        snapshot = begin_snapshot(context, tx, instance, "DBSnapshotIdentifier", params, tags)
        tx.put_instance(structs.replace(instance, status=InstanceStatus.BACKING_UP))
        told = arguments.CreateSnapshot(snapshot_id=snapshot.snapshot_id)
        start_workflow(context, tx, WorkflowKind.CREATE_SNAPSHOT, instance.resource_id, told)
    context.wake()
    return {"DBSnapshot": snapshot_view(context, snapshot)}


def begin_snapshot(
    context: Context,
    tx: Transaction,
    instance: DBInstance,
    parameter: str,
    params: Mapping[str, Any],
    tags: tuple[Tag, ...] = (),
) -> DBSnapshot:
    """The record of one that a workflow, which the caller starts, takes of the instance. ``parameter`` has its name."""
    identifier, now = _new_name(context, tx, parameter, params[parameter]), context.clock.now()
    snapshot = new_snapshot(instance, identifier, SnapshotType.MANUAL, now, context.random_text)
    snapshot = structs.replace(snapshot, tags=merge_tags(snapshot.tags, tags))
    tx.put_snapshot(snapshot)
    for event in events.snapshot_begun(snapshot, instance, now):
        tx.add_event(event)
    return snapshot


def _new_name(context: Context, tx: Transaction, parameter: str, name: str) -> str:
    if not is_snapshot_identifier(name):
        raise invalid_parameter_value(
            f"The parameter {parameter} is not a valid identifier. Identifiers must begin with a letter; must contain "
            "only ASCII letters, digits, and hyphens; must not end with a hyphen or contain two consecutive hyphens; "
            "and must not be longer than 255 characters."
        )
    if tx.snapshot_named(name) is not None:
        raise Fault(
            "DBSnapshotAlreadyExistsFault",
            f"Cannot create the snapshot because a snapshot with the identifier {name.lower()} already exists.",
        )
    require_less(context, Quota.MANUAL_SNAPSHOTS, count_manual(tx), "SnapshotQuotaExceededFault")
    return name.lower()


def describe_db_snapshots(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Nobody else's are here, so IncludeShared and IncludePublic add nothing."""
    wanted_type = params.get("SnapshotType")
    if wanted_type is not None and wanted_type not in _TYPES:
        raise invalid_parameter_value(
            f"Invalid value {wanted_type} for SnapshotType. Must be one of {', '.join(_TYPES)}"
        )
    named = params.get("DBSnapshotIdentifier")
    with context.store.transaction() as tx:
        found: Iterable[DBSnapshot] = (
            tx.snapshots() if named is None else [require_snapshot(tx, snapshot_identifier_of(context, named))]
        )
    if wanted_type is not None:
        found = [snapshot for snapshot in found if snapshot.type == wanted_type]
    if params.get("DBInstanceIdentifier") is not None:
        owner = instance_identifier_of(context, params["DBInstanceIdentifier"])
        found = [snapshot for snapshot in found if snapshot.instance_identifier == owner]
    if params.get("DbiResourceId") is not None:
        found = [snapshot for snapshot in found if snapshot.resource_id == params["DbiResourceId"]]
    passed = apply_filters(params.get("Filters"), found, _filters(context))
    page, marker = paginate("DescribeDBSnapshots", params, passed, lambda snapshot: [snapshot.identifier])
    return {"DBSnapshots": [snapshot_view(context, snapshot) for snapshot in page], "Marker": marker}


def _filters(context: Context) -> Mapping[str, Values[DBSnapshot]]:
    return {
        "db-instance-id": lambda snapshot: [
            snapshot.instance_identifier,
            context.instance_arn(snapshot.instance_identifier),
        ],
        "db-snapshot-id": lambda snapshot: [snapshot.identifier],
        "dbi-resource-id": lambda snapshot: [snapshot.resource_id.lower()],
        "engine": lambda snapshot: [snapshot.engine],
        "snapshot-type": lambda snapshot: [snapshot.type],
    }


def copy_db_snapshot(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_foreign(context, params)
    tags = parse_tags(params.get("Tags"))
    with context.store.transaction() as tx:
        source = require_snapshot(tx, snapshot_identifier_of(context, params["SourceDBSnapshotIdentifier"]))
        _require_available(source)
        identifier = _new_name(context, tx, "TargetDBSnapshotIdentifier", params["TargetDBSnapshotIdentifier"])
        copy = structs.replace(
            source,
            snapshot_id=new_snapshot_id(context.random_text),
            identifier=identifier,
            type=SnapshotType.MANUAL,
            status=SnapshotStatus.CREATING,
            begun_at=context.clock.now(),
            taken_at=None,
            copy_of=source.snapshot_id,
            tags=merge_tags(source.tags if params.get("CopyTags") else (), tags),
        )
        tx.put_snapshot(copy)
        told = arguments.CopySnapshot(source_id=source.snapshot_id, region=context.region)
        start_workflow(context, tx, WorkflowKind.COPY_SNAPSHOT, copy.snapshot_id, told)
        tx.add_event(events.snapshot_copy_begun(source.identifier, copy, context.region, context.clock.now()))
    context.wake()
    return {"DBSnapshot": snapshot_view(context, copy)}


def _refuse_foreign(context: Context, params: Mapping[str, Any]) -> None:
    """There is one region, without zones of one's own and without keys."""
    if params.get("TargetCustomAvailabilityZone"):
        raise Fault(
            "CustomAvailabilityZoneNotFoundFault",
            f"Custom Availability Zone {params['TargetCustomAvailabilityZone']} not found.",
        )
    if params.get("SourceRegion", context.region) != context.region:
        raise invalid_parameter_value(f"Invalid value {params['SourceRegion']} for SourceRegion: there is one region")
    if params.get("SnapshotTarget", "region") != "region":
        raise invalid_parameter_value(
            f"Invalid value {params['SnapshotTarget']} for SnapshotTarget: there is one region"
        )
    for name in ("KmsKeyId", "PreSignedUrl", "SnapshotAvailabilityZone", "TagSpecifications"):
        if params.get(name):
            raise invalid_parameter_combination(f"{name} asks for what this server does not offer")
    if "OptionGroupName" in params:
        check_option_group(params["OptionGroupName"])


def modify_db_snapshot(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """A minor version is one that reads the data as they are; whatever is made of the snapshot begins with it."""
    if "OptionGroupName" in params:
        check_option_group(params["OptionGroupName"])
    catalogue = Catalogue(context)
    with context.store.transaction() as tx:
        snapshot = require_snapshot(tx, snapshot_identifier_of(context, params["DBSnapshotIdentifier"]))
        _require_manual(snapshot, "modified")
        _require_available(snapshot)
        require_unused(tx, snapshot)
        wanted = params.get("EngineVersion", snapshot.engine_version)
        version = wanted if wanted == snapshot.engine_version else _upgrade(catalogue, snapshot, wanted)
        snapshot = structs.replace(snapshot, engine_version=version)
        tx.put_snapshot(snapshot)
    return {"DBSnapshot": snapshot_view(context, snapshot)}


def _upgrade(catalogue: Catalogue, snapshot: DBSnapshot, wanted: str) -> str:
    target = catalogue.require_upgrade(snapshot.engine_version, wanted)
    if PostgresVersion.parse(target).major != PostgresVersion.parse(snapshot.engine_version).major:
        raise invalid_parameter_combination(
            f"A major version upgrade of a DB snapshot, from {snapshot.engine_version} to {target}, is not offered "
            "here. Restore it, and use CreateBlueGreenDeployment with the instance."
        )
    return target


def delete_db_snapshot(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    with context.store.transaction() as tx:
        snapshot = require_snapshot(tx, snapshot_identifier_of(context, params["DBSnapshotIdentifier"]))
        _require_manual(snapshot, "deleted")
        if snapshot.status is not SnapshotStatus.FAILED:
            _require_available(snapshot)
        require_unused(tx, snapshot)
        snapshot = structs.replace(snapshot, status=SnapshotStatus.DELETING)
        tx.put_snapshot(snapshot)
        start_workflow(context, tx, WorkflowKind.DELETE_SNAPSHOT, snapshot.snapshot_id)
    context.wake()
    return {"DBSnapshot": snapshot_view(context, snapshot)}


def _require_manual(snapshot: DBSnapshot, verb: str) -> None:
    if snapshot.type is not SnapshotType.MANUAL:
        raise invalid_snapshot_state(f"Only manual snapshots may be {verb}.")


def _require_available(snapshot: DBSnapshot) -> None:
    if snapshot.status is not SnapshotStatus.AVAILABLE:
        raise invalid_snapshot_state(
            f"The DB snapshot {snapshot.identifier} is not in available state, but {snapshot.status}"
        )


def require_unused(tx: Transaction, snapshot: DBSnapshot) -> None:
    user = user_of(tx, snapshot)
    if user is not None:
        raise invalid_snapshot_state(f"The DB snapshot {snapshot.identifier} is in use: {user.kind}")


def invalid_snapshot_state(message: str) -> Fault:
    return Fault("InvalidDBSnapshotStateFault", message)
