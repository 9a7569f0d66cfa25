"""Engine versions as callers name them: in full, by major version, or not at all."""

from verdigris.aws.errors import Fault, invalid_parameter_combination
from verdigris.domain.ports import EngineVersionInfo, Transaction
from verdigris.domain.versions import PostgresVersion
from verdigris.rds.context import Context

ENGINE = "postgres"
# What a cluster may be called; all are the same servers.
CLUSTER_ENGINES = ("aurora-postgresql", ENGINE)


class Catalogue:
    """The versions on offer, each once, oldest first."""

    def __init__(self, context: Context) -> None:
        known: dict[PostgresVersion, EngineVersionInfo] = {}
        for info in context.servers.versions():
            if info.engine != ENGINE:
                continue
            version = PostgresVersion.parse(info.version)
            # One version may come from several sources: what is installed speaks for it.
            if version not in known or (info.installed and not known[version].installed):
                known[version] = info
        self.versions = [known[version] for version in sorted(known)]

    def find(self, text: str) -> EngineVersionInfo | None:
        """``"17.10"`` is that version, ``"17"`` the newest of that major version."""
        if text.isascii() and text.isdigit():
            return self.newest(major=int(text))
        return next((info for info in self.versions if info.version == text), None)

    def require(self, text: str) -> EngineVersionInfo:
        info = self.find(text)
        if info is None:
            raise invalid_parameter_combination(f"Cannot find version {text} for {ENGINE}")
        return info

    def newest(self, *, major: int) -> EngineVersionInfo | None:
        return next((i for i in reversed(self.versions) if PostgresVersion.parse(i.version).major == major), None)

    def default(self) -> EngineVersionInfo:
        """The newest that is installed: a call without a version should not depend on a download."""
        newest_first = list(reversed(self.versions))
        chosen = next((info for info in newest_first if info.installed), next(iter(newest_first), None))
        if chosen is None:
            raise Fault("InsufficientDBInstanceCapacityFault", "No PostgreSQL server is installed or known here.")
        return chosen

    def require_upgrade(self, current: str, wanted: str) -> str:
        """The version that ``wanted`` means for a server that now runs ``current``: the same one or a higher one that
        can be reached. Raises ``InvalidParameterCombination`` naming both."""
        target = self.require(wanted).version
        if target == current:
            return target
        if PostgresVersion.parse(target) < PostgresVersion.parse(current):
            raise invalid_parameter_combination(
                f"Cannot upgrade {ENGINE} from {current} to {target}: it is the lower version"
            )
        here = self.find(current)
        # A version that the catalogue has lost since can still be left by any path that leads upwards.
        if here is not None and target not in here.upgrade_targets:
            raise invalid_parameter_combination(f"Cannot find upgrade path from {current} to {target}")
        return target


def parameter_group_family(version: str) -> str:
    return f"{ENGINE}{PostgresVersion.parse(version).major}"


def default_parameter_group(version: str) -> str:
    return f"default.{parameter_group_family(version)}"


def default_cluster_parameter_group(engine: str, version: str) -> str:
    return f"default.{engine}{PostgresVersion.parse(version).major}"


def choose_parameter_group(tx: Transaction, name: str | None, version: str) -> str:
    """The name of a group for servers of ``version``: the default one if none is named. Raises what RDS does for one of
    another family, or one that is not there."""
    chosen = default_parameter_group(version)
    if name is None or name.lower() == chosen:
        return chosen
    own = tx.parameter_group(name)
    family = name.lower().removeprefix("default.") if own is None else own.family
    if own is not None and own.family == parameter_group_family(version):
        return own.name
    if own is not None or (name.lower() == f"default.{family}" and family.removeprefix(ENGINE).isdigit()):
        raise invalid_parameter_combination(
            f"The parameter group {name} with DBParameterGroupFamily {family} can't be used for this instance. Use a "
            f"parameter group with DBParameterGroupFamily {parameter_group_family(version)}."
        )
    raise Fault("DBParameterGroupNotFoundFault", f"DBParameterGroup not found: {name}")
