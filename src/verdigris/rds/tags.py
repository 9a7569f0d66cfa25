"""Tags of everything that has tags on RDS."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_value
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    DBSnapshot,
    DBSubnetGroup,
    ParameterGroup,
    Tag,
)
from verdigris.domain.ports import Transaction
from verdigris.domain.subscriptions import EventSubscription
from verdigris.rds import views
from verdigris.rds.context import Context
from verdigris.rds.filters import apply_filters
from verdigris.rds.lookups import (
    cluster_not_found,
    parse_own_arn,
    require_cluster_endpoint,
    require_event_subscription,
    require_own_parameter_group,
    require_snapshot,
    require_subnet_group,
)

MAX_TAGS = 50
MAX_KEY = 128
MAX_VALUE = 256
_RESERVED_PREFIXES = ("aws:", "rds:")
# What has tags on RDS and does not exist here, by the resource type of its ARN (user guide, "Amazon Resource Names").
_NONE_HERE = {
    "db-proxy": ("DBProxyNotFoundFault", "DBProxy"),
    "db-proxy-endpoint": ("DBProxyEndpointNotFoundFault", "DBProxyEndpoint"),
    "integration": ("IntegrationNotFoundFault", "Integration"),
    "shard-group": ("DBShardGroupNotFoundFault", "DBShardGroup"),
    "snapshot-tenant-database": ("DBSnapshotTenantDatabaseNotFoundFault", "Snapshot tenant database"),
    "target-group": ("DBProxyTargetGroupNotFoundFault", "DBProxyTargetGroup"),
    "tenant-database": ("TenantDatabaseNotFoundFault", "Tenant database"),
}
_PUNCTUATION = frozenset("_.:/=+-@")


def add_tags_to_resource(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    added = parse_tags(params["Tags"])
    with context.store.transaction() as tx:
        resource = _require_resource(context, tx, params["ResourceName"])
        _put_tags(tx, resource, merge_tags(resource.tags, added))
    return {}


def list_tags_for_resource(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    with context.store.transaction() as tx:
        return {"TagList": views.tags_view(_require_resource(context, tx, params["ResourceName"]).tags)}


def remove_tags_from_resource(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that the resource does not have are no error."""
    removed = set(params["TagKeys"])
    with context.store.transaction() as tx:
        resource = _require_resource(context, tx, params["ResourceName"])
        _put_tags(tx, resource, tuple(tag for tag in resource.tags if tag.key not in removed))
    return {}


def parse_tags(given: Sequence[Mapping[str, Any]] | None) -> tuple[Tag, ...]:
    """The ``Tags`` of a request, checked (RDS user guide, "Tagging Amazon RDS resources"). At most 50 of them."""
    tags = tuple(Tag(each.get("Key", ""), each.get("Value", "")) for each in given or ())
    for tag in tags:
        _check_tag(tag)
    if len({tag.key for tag in tags}) < len(tags):
        raise invalid_parameter_value("A tag key occurs more than once in the request")
    return merge_tags((), tags)


def merge_tags(present: Iterable[Tag], added: Iterable[Tag]) -> tuple[Tag, ...]:
    merged = {tag.key: tag for tag in (*present, *added)}
    if len(merged) > MAX_TAGS:
        raise invalid_parameter_value(f"A resource can have at most {MAX_TAGS} tags")
    return tuple(sorted(merged.values()))


def _check_tag(tag: Tag) -> None:
    if not 1 <= len(tag.key) <= MAX_KEY:
        raise invalid_parameter_value(f"A tag key must have 1 to {MAX_KEY} characters")
    if len(tag.value) > MAX_VALUE:
        raise invalid_parameter_value(f"The value of the tag {tag.key} has more than {MAX_VALUE} characters")
    if tag.key.lower().startswith(_RESERVED_PREFIXES):
        raise invalid_parameter_value(f"The tag key {tag.key} begins with a reserved prefix (aws: or rds:)")
    for what, text in (("key", tag.key), ("value", tag.value)):
        if not all(map(_is_allowed, text)):
            raise invalid_parameter_value(
                f"The {what} of the tag {tag.key} has characters other than letters, digits, spaces and _.:/=+-@"
            )


def _is_allowed(character: str) -> bool:
    return character in _PUNCTUATION or unicodedata.category(character)[0] in "LNZ"


Tagged = (
    DBInstance
    | DBSnapshot
    | DBCluster
    | DBClusterEndpoint
    | BlueGreenDeployment
    | ParameterGroup
    | DBSubnetGroup
    | EventSubscription
)


def _require_resource(context: Context, tx: Transaction, name: str) -> Tagged:
    arn = parse_own_arn(context, name)
    match arn.kind:
        case "db":
            instance = tx.instance_named(arn.name)
            if instance is None:
                raise Fault("DBInstanceNotFoundFault", f"DBInstance {arn.name} not found.")
            return instance
        case "deployment":
            deployment = tx.deployment(arn.name)
            if deployment is None:
                raise Fault("BlueGreenDeploymentNotFoundFault", f"Blue/green deployment {arn.name} not found.")
            return deployment
        case "snapshot":
            return require_snapshot(tx, arn.name)
        case "pg":
            return require_own_parameter_group(tx, arn.name.lower(), "tagged")
        case "subgrp":
            return require_subnet_group(tx, arn.name)
        case "es":
            return require_event_subscription(tx, arn.name)
        case "cluster-endpoint":
            return require_cluster_endpoint(tx, arn.name)
        case "cluster":
            cluster = tx.cluster_named(arn.name)
            if cluster is None:
                raise cluster_not_found(arn.name)
            return cluster
    if arn.kind in _NONE_HERE:
        fault, what = _NONE_HERE[arn.kind]
        raise Fault(fault, f"{what} {arn.name} not found.")
    raise invalid_parameter_value(f"Invalid resource name: {name}")


def _put_tags(tx: Transaction, resource: Tagged, tags: tuple[Tag, ...]) -> None:
    changed = structs.replace(resource, tags=tags)
    if isinstance(changed, DBInstance):
        tx.put_instance(changed)
    elif isinstance(changed, DBSnapshot):
        tx.put_snapshot(changed)
    elif isinstance(changed, DBCluster):
        tx.put_cluster(changed)
    elif isinstance(changed, DBClusterEndpoint):
        tx.put_cluster_endpoint(changed)
    elif isinstance(changed, ParameterGroup):
        tx.put_parameter_group(changed)
    elif isinstance(changed, DBSubnetGroup):
        tx.put_subnet_group(changed)
    elif isinstance(changed, EventSubscription):
        tx.put_event_subscription(changed)
    else:
        tx.put_deployment(changed)
