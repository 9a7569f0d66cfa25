"""The parameters of DB parameter groups: DescribeDBParameters, ModifyDBParameterGroup, ResetDBParameterGroup,
DescribeEngineDefaultParameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from verdigris.aws.errors import invalid_parameter_combination, invalid_parameter_value, missing_parameter
from verdigris.domain import events
from verdigris.domain.model import ParameterGroup
from verdigris.domain.parameters import (
    SERVICE_PARAMETERS,
    ApplyMethod,
    ApplyStatus,
    ApplyType,
    InvalidValue,
    ParameterInfo,
    ParameterValue,
    check,
)
from verdigris.domain.ports import Transaction
from verdigris.rds import views
from verdigris.rds.catalogue import Catalogue
from verdigris.rds.context import Context
from verdigris.rds.filters import Values, apply_filters
from verdigris.rds.lookups import parameter_group_name_of, require_own_parameter_group
from verdigris.rds.pagination import paginate
from verdigris.rds.parameter_groups import families, require_group

# RDS API reference, ModifyDBParameterGroup.
MAX_CHANGES = 20
_SOURCES = ("user", "system", "engine-default")


def describe_db_parameters(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    group = require_group(context, parameter_group_name_of(context, params["DBParameterGroupName"]))
    shown = [views.parameter_view(info, group.parameters.get(info.name)) for info in _catalogue(context, group.family)]
    wanted = params.get("Source")
    if wanted:
        if wanted not in _SOURCES:
            raise invalid_parameter_value(f"Invalid value {wanted} for Source. Must be one of {', '.join(_SOURCES)}")
        shown = [view for view in shown if view["Source"] == wanted]
    passed = apply_filters(params.get("Filters"), shown, _FILTERS)
    page, marker = paginate("DescribeDBParameters", params, passed, _name)
    return {"Parameters": page, "Marker": marker}


def describe_engine_default_parameters(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    family = params["DBParameterGroupFamily"].lower()
    if family not in families(Catalogue(context)):
        raise invalid_parameter_value(f"ParameterGroupFamily {family} is not a valid parameter group family")
    shown = apply_filters(
        params.get("Filters"), [views.parameter_view(info, None) for info in _catalogue(context, family)], _FILTERS
    )
    page, marker = paginate("DescribeEngineDefaultParameters", params, shown, _name)
    return {"EngineDefaults": {"DBParameterGroupFamily": family, "Parameters": page, "Marker": marker}}


def modify_db_parameter_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    name, changes = parameter_group_name_of(context, params["DBParameterGroupName"]), params["Parameters"]
    with context.store.transaction() as tx:
        family = require_own_parameter_group(tx, name, "modified").family
    infos = {info.name.lower(): info for info in _catalogue(context, family)}
    values = dict(_checked(infos, change, needs_value=True) for change in _limited(changes))
    with context.store.transaction() as tx:
        group = require_own_parameter_group(tx, name, "modified")
        _put(context, tx, group, structs.replace(group, parameters={**group.parameters, **values}))
    return {"DBParameterGroupName": name}


def reset_db_parameter_group(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    """All of them unless some are named."""
    name = parameter_group_name_of(context, params["DBParameterGroupName"])
    named: Sequence[Mapping[str, Any]] = params.get("Parameters") or ()
    reset_all: bool = params.get("ResetAllParameters", not named)
    if reset_all and named:
        raise invalid_parameter_combination("ResetAllParameters and Parameters cannot be specified together")
    if not reset_all and not named:
        raise missing_parameter("Parameters")
    with context.store.transaction() as tx:
        family = require_own_parameter_group(tx, name, "reset").family
    gone = None
    if not reset_all:
        infos = {info.name.lower(): info for info in _catalogue(context, family)}
        gone = dict(_checked(infos, each, needs_value=False) for each in _limited(named))
    with context.store.transaction() as tx:
        group = require_own_parameter_group(tx, name, "reset")
        left = {n: value for n, value in group.parameters.items() if gone is not None and n not in gone}
        _put(context, tx, group, structs.replace(group, parameters=left))
    return {"DBParameterGroupName": name}


def _catalogue(context: Context, family: str) -> list[ParameterInfo]:
    return sorted((*context.parameters(family), *SERVICE_PARAMETERS.values()), key=lambda info: info.name)


def _put(context: Context, tx: Transaction, before: ParameterGroup, group: ParameterGroup) -> None:
    """With the instances that are to follow marked in the same transaction."""
    if before == group:
        return
    tx.put_parameter_group(group)
    for event in events.parameters_updated(before, group, context.clock.now()):
        tx.add_event(event)
    for instance in tx.instances():
        if instance.parameter_group == group.name:
            tx.put_instance(structs.replace(instance, parameter_status=ApplyStatus.APPLYING))


def _limited(changes: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    if not changes:
        raise missing_parameter("Parameters")
    if len(changes) > MAX_CHANGES:
        raise invalid_parameter_value(f"At most {MAX_CHANGES} parameters can be modified in a single request")
    return changes


def _checked(
    infos: Mapping[str, ParameterInfo], change: Mapping[str, Any], *, needs_value: bool
) -> tuple[str, ParameterValue]:
    name, value, method = (change.get(member) for member in ("ParameterName", "ParameterValue", "ApplyMethod"))
    if not name:
        raise missing_parameter("ParameterName")
    info = infos.get(name.lower())
    if info is None:
        raise invalid_parameter_value(f"Could not find parameter with name: {name}")
    if method is None:
        raise missing_parameter("ApplyMethod")
    if not info.is_modifiable:
        raise invalid_parameter_value(f"The parameter {info.name} cannot be modified.")
    if info.apply_type is ApplyType.STATIC and method == ApplyMethod.IMMEDIATE:
        raise invalid_parameter_combination("cannot use immediate apply method for static parameter")
    if needs_value:
        if value is None:
            raise missing_parameter("ParameterValue")
        try:
            check(info, value)
        except InvalidValue as error:
            raise invalid_parameter_value(str(error)) from None
    return info.name, ParameterValue(value or "", ApplyMethod(method))


_FILTERS: Mapping[str, Values[views.View]] = {
    "parameter-name": lambda view: [view["ParameterName"].lower()],
}


def _name(view: views.View) -> list[str | int]:
    return [view["ParameterName"]]
