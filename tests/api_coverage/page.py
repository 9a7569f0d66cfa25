"""The page: ``docs/reference/api-coverage.md``."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from botocore.loaders import Loader

from tests.api_coverage.members import Asked, Coverage, Fate, Given, State, all_given, coverage, shapes
from tests.api_coverage.value import EMPTY, Value, constants_of
from verdigris.aws.model import ListShape, Shape, StructureShape, load_service
from verdigris.rds.operations import HANDLERS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "api-coverage.md"
COMMAND = "uv run python -m tests.api_coverage"

_INTRODUCTION = f"""\
# What there is of the RDS API

Of {{operations}} operations of the RDS API (2014-10-31) {{built}} are built; every other one answers `NotImplemented`
with its name. Whether a script runs here: look up its operations in the table, then what it gives and what it reads.

A program writes this page from botocore's model ({{model}}) and from the code, and a test compares: `{COMMAND}`
writes it anew. The program follows each handler from its request to the store and to its answer. So it knows *whether*
something is made of a member, and not how well: what differs in detail is in [limits](limits.md).

Members of requests are

- **done**: they reach the store, a server or the answer.
- **partly** done: either *kept* (their form is checked, they are stored and shown as RDS shows them, and nothing acts
  on them: tools that set them work), or *checked* (they only decide whether the request is refused; the refusals are
  quoted, with … for what they name then).
- **not** done: either *refused* by name, with any value but those that are given here, so that nobody believes he has
  what he asked for; or *ignored*, with the reason why that does no harm.

Members of structures within a request (`Tags`, `Filters`, `Parameters`) are not looked at one by one. Members that
botocore's model does not know, because they are newer, are ignored, as AWS ignores what it does not know.
An operation is *done* where all its members are, of the request and of the answer. Most lack at least members that
belong to other engines or to AWS's hardware.
"""

# For the list of what is not built, in this order: the first that a name contains decides.
_TOPICS: Mapping[str, tuple[str, ...]] = {
    "Global databases": ("GlobalCluster",),
    "Backups, snapshots, restoring": (
        "Snapshot", "AutomatedBackup", "ToPointInTime", "FromS3", "ExportTask", "Backtrack",
    ),
    "Read replicas": ("ReadReplica",),
    "Parameter groups of clusters": ("ClusterParameter",),
    "Clusters": ("DBCluster", "ClusterCapacity"),
    "Events": ("Event", "Subscription"),
    "Option groups": ("OptionGroup",),
    "Proxies": ("DBProxy", "DBProxies"),
    "Reservations": ("Reserved", "Reservation"),
    "Security and subnet groups": ("SecurityGroup", "SubnetGroup"),
    "Shards, tenants, integrations, streams": ("Shard", "Tenant", "Integration", "ActivityStream", "HttpEndpoint"),
    "Engine versions": ("EngineVersion", "PlatformVersion"),
    "Instances": ("DBInstance",),
    "Certificates, maintenance, recommendations, regions": ("",),
}  # fmt: skip

_Names = Iterable[str]


def model() -> str:
    """Which model of the API is installed, whatever is built of it: botocore brings a new one every few weeks, and
    nobody has looked at that yet."""
    loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    raw = loader.load_service_model("rds", "service-2")
    members = {name: sorted(shape.get("members", ())) for name, shape in sorted(raw["shapes"].items())}
    return hashlib.sha256(msgspec.json.encode([sorted(raw["operations"]), members])).hexdigest()[:12]


def render() -> str:
    names = load_service("rds").operation_names
    covered = [coverage(name) for name in sorted(HANDLERS)]
    parts = [_INTRODUCTION.format(operations=len(names), built=len(HANDLERS), model=model())]
    parts += ["\n## Operations that are built\n\n", *_table(covered)]
    parts += ["\n## Their members\n", *(line for each in covered for line in _operation(each))]
    parts += ["\n## What answers hold\n\n", _OF_SHAPES, *_shapes(all_given())]
    parts += ["\n## Operations that are not built\n\n", *_not_built(name for name in names if name not in HANDLERS)]
    return "".join(parts)


# ----------------------------------------------------------------------------------------------------------- the table


def _table(covered: list[Coverage]) -> Iterator[str]:
    yield "| operation | state | request | answer | what is missing |\n|---|---|---|---|---|\n"
    for each in covered:
        name = each.operation.name
        given, missing = sum(map(len, each.given.values())), sum(map(len, each.missing.values()))
        yield (
            f"| [{name}](#{name.lower()}) | {each.state} | {_counted(each)} "
            f"| {_share(given, given + missing)} | {_missing(each)} |\n"
        )


def _share(some: int, all_of_them: int) -> str:
    return f"{some} of {all_of_them}" if all_of_them else ""


def _counted(each: Coverage) -> str:
    states = Counter(asked.state for asked in each.asked)
    return ", ".join(f"{states[state]} {state}" for state in State if states[state])


def _missing(each: Coverage) -> str:
    sentences = []
    for fate in Fate:
        names = [asked.name for asked in each.asked if asked.fate is fate]
        if names and fate is not Fate.DOES:
            sentences.append(f"{fate.capitalize()}: {_few(names)}.")
    absent = {shape: members for shape, members in each.missing.items() if members}
    if sum(map(len, absent.values())) > 6:
        links = ", ".join(map(_link, absent))
        sentences.append(f"Never answered: {sum(map(len, absent.values()))} members, of {links}.")
    elif absent:
        names = [f"{shape}.{name}" for shape, members in absent.items() for name in members]
        sentences.append(f"Never answered: {_code(names)}.")
    return " ".join(sentences)


def _few(names: _Names) -> str:
    found = list(names)
    shown = found if len(found) <= 6 else found[:5]
    more = f" and {len(found) - 5} more" if len(found) > 6 else ""
    return _code(shown) + more


def _code(names: _Names) -> str:
    return ", ".join(f"`{name}`" for name in names)


# ------------------------------------------------------------------------------------------------------ each operation


def _operation(each: Coverage) -> Iterator[str]:
    counted = _counted(each)
    summary = f"request: {counted}" if counted else "takes nothing"
    yield f"\n### {each.operation.name}\n\n<details><summary>{summary}</summary>\n\n"
    if each.asked:
        yield "| member | state | |\n|---|---|---|\n"
        yield from map(_row, each.asked)
        yield "\n"
    yield f"Answer: {_answer(each)}\n\n</details>\n"


def _row(asked: Asked) -> str:
    required = " (required)" if asked.required else ""
    return f"| `{asked.name}`{required} | {asked.state} | {asked.remark} |\n"


def _answer(each: Coverage) -> str:
    output = each.operation.output
    if output is None:
        return "nothing but the request's id."
    given = each.given[output.name]
    parts = [f"`{name}`{_of(member.shape)}" for name, member in output.members.items() if name in given]
    absent = [name for name in output.members if name not in given]
    never = f" Never: {_code(absent)}." if absent else ""
    return f"{', '.join(parts)}.{never}" if parts or never else "empty."


def _of(shape: Shape) -> str:
    while isinstance(shape, ListShape):
        shape = shape.member
    return f" ({_link(shape.name)})" if isinstance(shape, StructureShape) else ""


def _link(shape: str) -> str:
    return f"[`{shape}`](#shape-{shape.lower()})"


# ---------------------------------------------------------------------------------------------------------- the shapes

_OF_SHAPES = """\
A structure that several operations answer with is described once. *Given*: there whenever there is something to say.
*Always*: there with this value, or left out. *Never*: in no answer.
"""


def _shapes(given: Given) -> Iterator[str]:
    outputs = {coverage(name).operation.output for name in HANDLERS}
    named = {output.name for output in outputs if output is not None}
    for name in sorted(given.keys() - named):
        members = shapes()[name].members
        varying = [m for m in members if m in given[name] and _fixed(given[name][m]) is None]
        fixed = {m: _fixed(given[name][m]) for m in members if m in given[name] and m not in varying}
        absent = [m for m in members if m not in given[name]]
        yield (
            f'\n<a id="shape-{name.lower()}"></a>\n<details><summary><code>{name}</code>: '
            f"{_share(len(members) - len(absent), len(members))}</summary>\n\n"
        )
        if varying:
            yield f"- Given: {', '.join(f'`{m}`{_of(members[m].shape)}' for m in varying)}\n"
        if fixed:
            yield f"- Always: {', '.join(f'`{m}` {text}' for m, text in fixed.items())}\n"
        if absent:
            yield f"- Never: {_code(absent)}\n"
        yield "\n</details>\n"


def _fixed(value: Value) -> str | None:
    """The one thing that it ever is, as text."""
    constants = (constants_of(value) or frozenset()) - {None}
    if len(constants) != 1:
        return None
    (only,) = constants
    if only == EMPTY:
        return EMPTY
    return str(only).lower() if isinstance(only, bool) else str(only)


# ------------------------------------------------------------------------------------------------------------- the rest


def _not_built(names: _Names) -> Iterator[str]:
    by_topic: dict[str, list[str]] = {topic: [] for topic in _TOPICS}
    for name in names:
        by_topic[next(t for t, words in _TOPICS.items() if any(word in name for word in words))].append(name)
    for topic, found in by_topic.items():
        if found:
            yield f"- {topic}: {', '.join(sorted(found))}\n"
