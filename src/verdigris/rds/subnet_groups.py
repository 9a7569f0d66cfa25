"""DB subnet groups: kept and shown, so that scripts that make them work. Nothing here has subnets, so nothing acts on
them: the network is the machine's."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_value
from verdigris.domain.model import DBSubnetGroup
from verdigris.domain.ports import Transaction
from verdigris.domain.quotas import Quota
from verdigris.rds import views
from verdigris.rds.context import Context
from verdigris.rds.filters import apply_filters
from verdigris.rds.lookups import require_subnet_group, subnet_group_not_found
from verdigris.rds.pagination import paginate
from verdigris.rds.quotas import require_less, require_subnets
from verdigris.rds.tags import parse_tags

# RDS API reference, CreateDBSubnetGroup.
_NAME = re.compile(r"[a-z][a-z0-9._ -]{0,254}")
_SUBNET = re.compile(r"subnet-[0-9a-z]+")
# Each subnet counts as one of another zone.
_ZONES_NEEDED = 2
DEFAULT = "default"


def create_db_subnet_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    group = DBSubnetGroup(
        name=_new_name(params["DBSubnetGroupName"]),
        description=params["DBSubnetGroupDescription"],
        subnet_ids=_subnets(context, params["SubnetIds"]),
        tags=parse_tags(params.get("Tags")),
    )
    with context.store.transaction() as tx:
        if tx.subnet_group(group.name) is not None:
            raise Fault("DBSubnetGroupAlreadyExistsFault", f"The DB subnet group '{group.name}' already exists.")
        present = len(tx.subnet_groups())
        require_less(context, Quota.DB_SUBNET_GROUPS, present, "DBSubnetGroupQuotaExceededFault")
        tx.put_subnet_group(group)
    return {"DBSubnetGroup": views.subnet_group_view(context, group)}


def modify_db_subnet_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    subnet_ids = _subnets(context, params["SubnetIds"])
    with context.store.transaction() as tx:
        before = require_subnet_group(tx, params["DBSubnetGroupName"])
        description = params.get("DBSubnetGroupDescription", before.description)
        group = structs.replace(before, description=description, subnet_ids=subnet_ids)
        tx.put_subnet_group(group)
    return {"DBSubnetGroup": views.subnet_group_view(context, group)}


def describe_db_subnet_groups(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    named = params.get("DBSubnetGroupName")
    with context.store.transaction() as tx:
        found = tx.subnet_groups() if named is None else [require_subnet_group(tx, named)]
    page, marker = paginate("DescribeDBSubnetGroups", params, found, lambda group: [group.name])
    return {"DBSubnetGroups": [views.subnet_group_view(context, group) for group in page], "Marker": marker}


def delete_db_subnet_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    with context.store.transaction() as tx:
        group = require_subnet_group(tx, params["DBSubnetGroupName"])
        users = [i.identifier for i in tx.instances() if _named(i.settings.get("DBSubnetGroupName")) == group.name]
        users += [c.identifier for c in tx.clusters() if _named(c.settings.get("DBSubnetGroupName")) == group.name]
        if users:
            raise Fault(
                "InvalidDBSubnetGroupStateFault",
                f"Cannot delete the subnet group '{group.name}' because at least one database instance: {users[0]} is "
                "still using it.",
            )
        tx.delete_subnet_group(group.name)
    return {}


def require_usable(tx: Transaction, settings: Mapping[str, Any]) -> None:
    """For an instance that is to be in one."""
    name = _named(settings.get("DBSubnetGroupName"))
    if name and name != DEFAULT and tx.subnet_group(name) is None:
        raise subnet_group_not_found(name)


def _named(name: str | None) -> str:
    return (name or "").lower()


def _new_name(text: str) -> str:
    name = text.lower()
    if not _NAME.fullmatch(name) or name == DEFAULT:
        raise invalid_parameter_value(
            f"The parameter DBSubnetGroupName is not a valid name: {text}. Names must begin with a letter; must contain"
            " only letters, digits, periods, underscores, spaces, and hyphens; must not be longer than 255 characters;"
            " and must not be default."
        )
    return name


def _subnets(context: Context, wanted: Sequence[str]) -> tuple[str, ...]:
    subnet_ids = tuple(dict.fromkeys(wanted))
    for subnet_id in subnet_ids:
        if not _SUBNET.fullmatch(subnet_id):
            raise Fault("InvalidSubnet", f"The subnet ID '{subnet_id}' is not valid")
    if len(subnet_ids) < _ZONES_NEEDED:
        raise Fault(
            "DBSubnetGroupDoesNotCoverEnoughAZs",
            "The DB subnet group doesn't meet Availability Zone (AZ) coverage requirement. Current AZ coverage: "
            f"{len(subnet_ids)}. Add subnets to cover at least {_ZONES_NEEDED} AZs.",
        )
    require_subnets(context, len(subnet_ids))
    return subnet_ids
