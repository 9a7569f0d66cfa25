"""The members of an operation, as the model has them, with what the handler makes of each."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import botocore.loaders
import botocore.model

from tests.api_coverage.following import Found, follow
from tests.api_coverage.value import EMPTY, Value, constants_of, union
from verdigris.aws.model import ListShape, Operation, Shape, StructureShape, load_service
from verdigris.rds.operations import HANDLERS
from verdigris.rds.settings import CLUSTER_OFF_ONLY, OFF_ONLY

# Why nothing is made of a member, of an operation that is built or is being built. A test holds that there is a reason
# for each that is ignored, and for no other.
WHY_IGNORED: Mapping[str, Mapping[str, str]] = {
    "CreateBlueGreenDeployment": {"UpgradeTargetStorageConfig": "green's files are made anew anyway"},
    "CopyDBSnapshot": {"CopyOptionGroup": "PostgreSQL has no options"},
    "CreateDBInstanceReadReplica": {"UpgradeStorageConfig": "a replica's files are made anew anyway"},
    "DeleteDBCluster": {"DeleteAutomatedBackups": "clusters have no automated backups"},
    "DescribeDBClusters": {"IncludeShared": "nothing is shared between accounts"},
    "DescribeDBSnapshots": {
        "IncludePublic": "nothing is shared between accounts",
        "IncludeShared": "nothing is shared between accounts",
    },
    "DescribeDBEngineVersions": {"IncludeAll": "there are no versions that cannot be had"},
    "ModifyDBCluster": {"ApplyImmediately": "every change is applied at once"},
    "ModifyDBInstance": {
        "CertificateRotationRestart": "certificates are not rotated by this API",
    },
}


# Settings of instances that are kept by the operations that take them, and acted on by others: what comes of them.
ACTED_ON_LATER: Mapping[str, str] = {
    "BackupRetentionPeriod": "so many days automated snapshots of the instance are kept; 0: none are taken",
    "CopyTagsToSnapshot": "snapshots of the instance get its tags",
    "PreferredBackupWindow": "automated snapshots of the instance are begun in it",
    "PreferredMaintenanceWindow": "changes that interrupt clients are done in it",
}

_OF_CLUSTERS = frozenset({"CreateDBCluster", "ModifyDBCluster"})


class State(StrEnum):
    DONE = "done"
    PARTLY = "partly"
    NOT = "not"


class Fate(StrEnum):
    """What becomes of a member of the request."""

    DOES = "done"
    FILTERS = "some filters are missing"
    KEPT = "kept without effect"
    CHECKED = "only checked"
    REFUSED = "refused"
    IGNORED = "ignored"


_STATES = {
    Fate.DOES: State.DONE,
    Fate.FILTERS: State.PARTLY,
    Fate.KEPT: State.PARTLY,
    Fate.CHECKED: State.PARTLY,
    Fate.REFUSED: State.NOT,
    Fate.IGNORED: State.NOT,
}


@dataclass(frozen=True)
class Asked:
    """A member of the request."""

    name: str
    required: bool
    fate: Fate
    remark: str

    @property
    def state(self) -> State:
        return _STATES[self.fate]


Given = dict[str, dict[str, Value]]  # of shapes that may be in an answer: the members that ever are


@dataclass(frozen=True)
class Coverage:
    operation: Operation
    asked: tuple[Asked, ...]
    given: Given

    @property
    def missing(self) -> Mapping[str, list[str]]:
        """Members that the answer never has, by shape."""
        return {name: [m for m in shapes()[name].members if m not in given] for name, given in self.given.items()}

    @property
    def state(self) -> State:
        whole = all(asked.state is State.DONE for asked in self.asked) and not any(self.missing.values())
        return State.DONE if whole else State.PARTLY


@lru_cache
def coverage(operation_name: str) -> Coverage:
    operation = load_service("rds").operation(operation_name)
    asked = operation.input.members if operation.input is not None else {}
    found = follow(HANDLERS[operation_name], frozenset(asked))
    given: Given = {}
    if operation.output is not None:
        given[operation.output.name] = {}
        _give(operation.output, found.answer, given)
    return Coverage(operation, tuple(_asked(operation, name, found) for name in asked), given)


def all_given() -> Given:
    """By any operation."""
    given: Given = {}
    for name in sorted(HANDLERS):
        for shape, members in coverage(name).given.items():
            known = given.setdefault(shape, {})
            for member, value in members.items():
                known[member] = union([known[member], value]) if member in known else value
    return given


# ------------------------------------------------------------------------------------------------------------- request


def _asked(operation: Operation, name: str, found: Found) -> Asked:
    assert operation.input is not None
    required = name in operation.input.required
    documentation = _documentation(operation.name)[name]
    if name == "Filters":
        return Asked(name, required, *_filters(found, documentation))
    if name in found.does:
        return Asked(name, required, Fate.DOES, "")
    if name in found.kept and name in ACTED_ON_LATER and operation.name not in _OF_CLUSTERS:
        return Asked(name, required, Fate.DOES, ACTED_ON_LATER[name])
    if name in found.kept:
        return Asked(name, required, Fate.KEPT, "kept and shown; nothing acts on it")
    if name not in found.refusals:
        why = WHY_IGNORED.get(operation.name, {}).get(name, "")
        return Asked(name, required, Fate.IGNORED, f"ignored: {why}")
    quoted = "; ".join(f"*{text}*" for text in found.refusals[name])
    if name in found.refused:
        return Asked(name, required, Fate.REFUSED, f"refused: {quoted}")
    off_only = CLUSTER_OFF_ONLY if operation.name in _OF_CLUSTERS else OFF_ONLY
    if name in off_only:
        allowed = ", ".join(f"`{json.dumps(value)}`" for value in off_only[name])
        return Asked(name, required, Fate.REFUSED, f"refused, but for {allowed}" if allowed else "refused")
    return Asked(name, required, Fate.CHECKED, f"checked, and nothing else: {quoted}")


def _filters(found: Found, documentation: str) -> tuple[Fate, str]:
    """Of each filter that is documented, and of each that is not: whether there is one."""
    if "Filters" not in found.read:
        return Fate.IGNORED, "ignored: "
    if "isn't currently supported" in documentation:
        return Fate.DOES, "refused, because RDS has no filters here either"
    offered = ", ".join(f"`{name}`" for name in sorted(found.filters))
    absent = ", ".join(f"`{name}`" for name in sorted(set(_documented_filters(documentation)) - found.filters))
    if not offered:
        return Fate.REFUSED, "refused"
    return (Fate.FILTERS, f"{offered}; refused: {absent}") if absent else (Fate.DOES, offered)


def _documented_filters(documentation: str) -> Iterator[str]:
    """The reference names them in a list, each with its explanation, which may hold lists of values."""
    depth = 0
    for tag, name in re.findall(r"(</?ul>)|<li>\s*<p>\s*<code>([a-z-]+)</code>", documentation):
        depth += {"<ul>": 1, "</ul>": -1, "": 0}[tag]
        if name and depth == 1:
            yield name


@lru_cache
def _documentation(operation_name: str) -> Mapping[str, str]:
    """What the model says of the members of a request."""
    shape = _model().operation_model(operation_name).input_shape
    return {} if shape is None else {name: member.documentation for name, member in shape.members.items()}


@lru_cache
def _model() -> botocore.model.ServiceModel:
    """With its documentation, which a server has no use for."""
    builtin = botocore.loaders.Loader.BUILTIN_DATA_PATH
    loader = botocore.loaders.Loader(extra_search_paths=[builtin], include_default_search_paths=False)
    return botocore.model.ServiceModel(loader.load_service_model("rds", "service-2"), "rds")


# -------------------------------------------------------------------------------------------------------------- answer


def _give(shape: Shape, value: Value, given: Given) -> None:
    while isinstance(shape, ListShape):
        shape = shape.member
    if not isinstance(shape, StructureShape):
        return
    for name, member in shape.members.items():
        inner = value.fields.get(name)
        if inner is None or constants_of(inner) == frozenset({None}):
            continue
        known = given.setdefault(shape.name, {})
        known[name] = union([known[name], inner]) if name in known else inner
        _give(member.shape, inner, given)


@lru_cache
def shapes() -> Mapping[str, StructureShape]:
    """Those of the answers, by name."""
    service, found = load_service("rds"), dict[str, StructureShape]()
    for name in HANDLERS:
        for shape in _structures(service.operation(name).output, ()):
            found[shape.name] = shape
    return found


def _structures(shape: Shape | None, above: tuple[str, ...]) -> Iterator[StructureShape]:
    while isinstance(shape, ListShape):
        shape = shape.member
    if isinstance(shape, StructureShape) and shape.name not in above:
        yield shape
        for member in shape.members.values():
            yield from _structures(member.shape, (*above, shape.name))


# ------------------------------------------------------------------------------------------------------------ checking


class Watched(dict[str, Any]):
    """A request that remembers which members of it were read."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.read.add(str(name))
        return super().__contains__(name)


def overlooked(operation_name: str, request: Watched, answer: Mapping[str, Any]) -> set[str]:
    """What a real call has read or answered, and the coverage says it never does."""
    covered = coverage(operation_name)
    ignored = {asked.name for asked in covered.asked if asked.fate is Fate.IGNORED}
    output = covered.operation.output
    return (request.read & ignored) | (set() if output is None else set(_not_given(output, answer, covered.given)))


def _not_given(shape: Shape, answer: Any, given: Given) -> Iterator[str]:
    match shape:
        case StructureShape():
            for name, value in answer.items():
                known = given.get(shape.name, {}).get(name)
                if known is None:
                    yield f"{shape.name}.{name}"
                elif _is_another(known, value):
                    yield f"{shape.name}.{name} {value}"
                else:
                    yield from _not_given(shape.members[name].shape, value, given)
        case ListShape():
            for element in answer:
                yield from _not_given(shape.member, element, given)


def _is_another(known: Value, answered: Any) -> bool:
    """Than all that it ever is, where that is known."""
    constants = constants_of(known)
    if constants is None or isinstance(answered, Mapping):
        return False
    found = answered if isinstance(answered, list) else [answered]
    return any(each not in constants - {EMPTY} for each in found)
