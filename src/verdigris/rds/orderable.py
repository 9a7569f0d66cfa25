"""DescribeOrderableDBInstanceOptions: which classes there are, for each version."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from verdigris.aws.errors import invalid_parameter_value
from verdigris.domain.instance_classes import instance_classes
from verdigris.domain.versions import PostgresVersion
from verdigris.rds import views
from verdigris.rds.catalogue import CLUSTER_ENGINES, Catalogue
from verdigris.rds.context import Context
from verdigris.rds.filters import apply_filters
from verdigris.rds.pagination import Key, paginate

_LICENCE = "postgresql-license"


class Option(Struct, frozen=True):
    engine: str
    version: str
    instance_class: str


def describe_orderable_db_instance_options(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    apply_filters(params.get("Filters"), (), {})  # "This parameter isn't currently supported", says the reference
    engine = params["Engine"].lower()
    if engine not in CLUSTER_ENGINES:
        offered = ", ".join(CLUSTER_ENGINES)
        raise invalid_parameter_value(f"Invalid DB engine: {params['Engine']}. This server offers: {offered}")
    version, wanted = params.get("EngineVersion"), params.get("DBInstanceClass")
    nothing = (
        params.get("LicenseModel", _LICENCE) != _LICENCE
        or params.get("AvailabilityZoneGroup")
        or not params.get("Vpc", True)  # the others are from before there were VPCs
    )
    options = [
        Option(engine, info.version, name)
        for info in Catalogue(context).versions
        if version in (None, info.version) and not nothing
        for name in instance_classes()
        if wanted in (None, name)
    ]
    page, marker = paginate("DescribeOrderableDBInstanceOptions", params, options, _key)
    return {
        "OrderableDBInstanceOptions": [
            views.orderable_option_view(context, option.engine, option.version, option.instance_class, _LICENCE)
            for option in page
        ],
        "Marker": marker,
    }


def _key(option: Option) -> Key:
    version = PostgresVersion.parse(option.version)
    return [version.major, version.minor, option.instance_class]
