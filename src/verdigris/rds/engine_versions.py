"""DescribeDBEngineVersions: the real catalogue of servers."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from verdigris.aws.errors import invalid_parameter_value
from verdigris.domain.ports import EngineVersionInfo
from verdigris.domain.versions import PostgresVersion
from verdigris.rds import views
from verdigris.rds.catalogue import CLUSTER_ENGINES, Catalogue, parameter_group_family
from verdigris.rds.context import Context
from verdigris.rds.filters import Values, apply_filters
from verdigris.rds.pagination import Key, paginate

_FILTERS: Mapping[str, Values[EngineVersionInfo]] = {
    "db-parameter-group-family": lambda info: [parameter_group_family(info.version)],
    "engine": lambda info: [info.engine],
    "engine-mode": lambda _info: ["provisioned"],
    "engine-version": lambda info: [info.version],
    "status": lambda _info: ["available"],
}

# Engines of RDS that are not built here: no versions, but no error either. Any other name is a mistake.
_OTHER_ENGINES = (
    "aurora-", "custom-", "db2-", "mariadb", "mysql", "oracle-", "sqlserver-",
)  # fmt: skip


def describe_db_engine_versions(context: Context, params: Mapping[str, Any]) -> dict[str, Any]:
    catalogue = Catalogue(context)
    found = apply_filters(params.get("Filters"), _chosen(catalogue, params), _FILTERS)
    page, marker = paginate("DescribeDBEngineVersions", params, found, _key)
    lists = [
        member
        for asked, member in (
            ("ListSupportedCharacterSets", "SupportedCharacterSets"),
            ("ListSupportedTimezones", "SupportedTimezones"),
        )
        if params.get(asked)
    ]
    return {"DBEngineVersions": [views.engine_version_view(info, lists=lists) for info in page], "Marker": marker}


def _chosen(catalogue: Catalogue, params: Mapping[str, Any]) -> Iterable[EngineVersionInfo]:
    """Of all engines unless one is named. A cluster's may have another name, and has the same versions."""
    engine = params["Engine"].lower() if "Engine" in params else None
    if engine not in (None, *CLUSTER_ENGINES) and not engine.startswith(_OTHER_ENGINES):
        raise invalid_parameter_value(f"Unrecognized engine name: {engine}")
    family = params.get("DBParameterGroupFamily")
    found = [
        info
        for info in catalogue.versions
        if _is_version(info, params.get("EngineVersion")) and family in (None, parameter_group_family(info.version))
    ]
    if params.get("DefaultOnly"):
        found = _defaults(catalogue, found)
    return [structs.replace(info, engine=name) for name in CLUSTER_ENGINES if engine in (None, name) for info in found]


def _is_version(info: EngineVersionInfo, wanted: str | None) -> bool:
    return wanted is None or info.version == wanted or info.version.partition(".")[0] == wanted


def _defaults(catalogue: Catalogue, found: list[EngineVersionInfo]) -> list[EngineVersionInfo]:
    """The default if it is among them, else the newest: what CreateDBInstance would take for the same words."""
    if not found:
        return []
    default = catalogue.default()
    return [default if default in found else found[-1]]


def _key(info: EngineVersionInfo) -> Key:
    version = PostgresVersion.parse(info.version)
    return [info.engine, version.major, version.minor]
