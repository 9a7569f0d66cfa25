"""DB parameter groups: create, copy, describe, delete. Their parameters are in ``parameters``."""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import Fault, invalid_parameter_value
from verdigris.domain.identifiers import is_parameter_group_name
from verdigris.domain.model import ParameterGroup
from verdigris.domain.quotas import Quota
from verdigris.domain.versions import PostgresVersion
from verdigris.rds import views
from verdigris.rds.catalogue import Catalogue, default_parameter_group, parameter_group_family
from verdigris.rds.context import Context
from verdigris.rds.filters import apply_filters
from verdigris.rds.lookups import parameter_group_name_of, parameter_group_not_found, require_own_parameter_group
from verdigris.rds.pagination import paginate
from verdigris.rds.quotas import require_less
from verdigris.rds.tags import parse_tags


def create_db_parameter_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    family = params["DBParameterGroupFamily"].lower()
    if family not in families(Catalogue(context)):
        raise invalid_parameter_value(f"ParameterGroupFamily {family} is not a valid parameter group family")
    group = ParameterGroup(
        name=_new_name("DBParameterGroupName", params["DBParameterGroupName"]),
        family=family,
        description=params["Description"],
        tags=parse_tags(params.get("Tags")),
    )
    return _added(context, group)


def copy_db_parameter_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    name = _new_name("TargetDBParameterGroupIdentifier", params["TargetDBParameterGroupIdentifier"])
    with context.store.transaction() as tx:
        source = require_own_parameter_group(
            tx, parameter_group_name_of(context, params["SourceDBParameterGroupIdentifier"]), "copied"
        )
    copy = structs.replace(
        source,
        name=name,
        description=params["TargetDBParameterGroupDescription"],
        tags=parse_tags(params.get("Tags")),
    )
    return _added(context, copy)


def _added(context: Context, group: ParameterGroup) -> dict[str, Any]:
    with context.store.transaction() as tx:
        if tx.parameter_group(group.name) is not None:
            raise Fault("DBParameterGroupAlreadyExistsFault", f"Parameter group {group.name} already exists")
        present = len(tx.parameter_groups())
        require_less(context, Quota.DB_PARAMETER_GROUPS, present, "DBParameterGroupQuotaExceededFault")
        tx.put_parameter_group(group)
    return {"DBParameterGroup": views.parameter_group_view(context, group)}


def describe_db_parameter_groups(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    with context.store.transaction() as tx:
        groups = {group.name: group for group in (*default_groups(Catalogue(context)), *tx.parameter_groups())}
    found = [groups[name] for name in sorted(groups)]
    if params.get("DBParameterGroupName"):
        name = parameter_group_name_of(context, params["DBParameterGroupName"])
        if name not in groups:
            raise parameter_group_not_found(name)
        found = [groups[name]]
    page, marker = paginate("DescribeDBParameterGroups", params, found, lambda group: [group.name])
    return {"DBParameterGroups": [views.parameter_group_view(context, group) for group in page], "Marker": marker}


def delete_db_parameter_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    with context.store.transaction() as tx:
        group = require_own_parameter_group(
            tx, parameter_group_name_of(context, params["DBParameterGroupName"]), "deleted"
        )
        if any(instance.parameter_group == group.name for instance in tx.instances()) or any(
            group.name in deployment.target.parameter_groups for deployment in tx.deployments()
        ):
            raise Fault(
                "InvalidDBParameterGroupStateFault",
                "One or more database instances are still members of this parameter group "
                f"{group.name}, so the group cannot be deleted",
            )
        tx.delete_parameter_group(group.name)
    return {}


# ------------------------------------------------------------------------------------------------------------- lookups


def families(catalogue: Catalogue) -> list[str]:
    return sorted({parameter_group_family(info.version) for info in catalogue.versions})


def default_groups(catalogue: Catalogue) -> list[ParameterGroup]:
    """One for each family, as if somebody had made it."""
    majors = sorted({PostgresVersion.parse(info.version).major for info in catalogue.versions})
    return [
        ParameterGroup(
            name=default_parameter_group(f"{major}.0"),
            family=parameter_group_family(f"{major}.0"),
            description=f"Default parameter group for {parameter_group_family(f'{major}.0')}",
        )
        for major in majors
    ]


def require_group(context: Context, name: str) -> ParameterGroup:
    """One of its own or a default one."""
    for group in default_groups(Catalogue(context)):
        if group.name == name:
            return group
    with context.store.transaction() as tx:
        group_of_own = tx.parameter_group(name)
    if group_of_own is None:
        raise parameter_group_not_found(name)
    return group_of_own


def _new_name(parameter: str, text: str) -> str:
    if not is_parameter_group_name(text):
        raise invalid_parameter_value(
            f"The parameter {parameter} is not a valid identifier. Identifiers must begin with a letter; must contain "
            "only ASCII letters, digits, and hyphens; must not end with a hyphen or contain two consecutive hyphens; "
            "and must not be longer than 255 characters."
        )
    return text.lower()
