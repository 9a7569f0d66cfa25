"""Requests of the Query protocol: a form in, a dictionary in the operation's input shape out.

Nothing is trusted: size, fields and nesting are bounded, and whatever is wrong is a :class:`Fault`, never another
exception. What AWS leaves open is decided so:

* Parameters that the operation does not have are ignored, as AWS does: newer SDKs know more members than we do. The
  same within structures; but within a list or map nothing is ignored, because an entry would be lost in silence.
* A list's entries may be named as in the model (``Tags.Tag.1``) or, as in AWS's older examples, ``Tags.member.1``.
  They are ordered by their numbers, which need not be without gaps.
* An empty value makes an empty list, map or structure (SDKs send ``Tags=`` for ``Tags=[]``); for a number, boolean or
  timestamp it is an error.
* A field given twice is an error, not a choice between the two.
* Characters that XML cannot carry are refused, since no answer could ever show them.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from verdigris.aws.errors import (
    invalid_action,
    invalid_parameter_value,
    malformed_input,
    malformed_query_string,
    missing_action,
    request_too_large,
)
from verdigris.aws.model import ListShape, MapShape, Operation, Service, Shape, StructureShape, UnknownOperation
from verdigris.aws.scalars import BadScalar, parse_scalar
from verdigris.aws.text import UNCARRIABLE, shown

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_INDEX = re.compile(r"[0-9]{1,9}")


class Limits(Struct, frozen=True, kw_only=True):
    body_bytes: int = 1 << 20
    fields: int = 5_000
    depth: int = 24  # names between dots


DEFAULT_LIMITS = Limits()


class _Node:
    """One name between dots: a value, names below it, or (malformed) both."""

    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.value: str | None = None
        self.children: dict[str, _Node] = {}


# ---------------------------------------------------------------------------------------------------------------- form


def parse_form(body: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, str]:
    """The fields of an ``application/x-www-form-urlencoded`` body. Raises :class:`Fault`."""
    if len(body) > limits.body_bytes:
        raise request_too_large(limits.body_bytes)
    if not body:
        return {}
    if body.count(b"&") >= limits.fields:
        raise malformed_query_string(f"The request has more than {limits.fields} parameters")
    if _BAD_ESCAPE.search(body):
        raise malformed_query_string("The request body holds a percent sign that does not begin an escape")
    fields: dict[str, str] = {}
    for field in body.split(b"&"):
        raw_name, separator, raw_value = field.partition(b"=")
        if not raw_name:
            if separator:
                raise malformed_query_string("The request has a parameter without a name")
            continue  # "a=1&&b=2&" is common and harmless
        name = _decoded(raw_name)
        if name in fields:
            raise malformed_query_string(f"The request has the parameter {shown(name)} more than once")
        fields[name] = _decoded(raw_value)
    return fields


def _decoded(raw: bytes) -> str:
    try:
        text = unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise malformed_query_string("The request body is not UTF-8") from None
    if UNCARRIABLE.search(text):
        raise malformed_query_string("The request body holds a control character that XML cannot carry")
    return text


def select_operation(service: Service, fields: Mapping[str, str]) -> Operation:
    """The operation that ``Action`` names; no ``Version`` means the one version there is. Raises :class:`Fault`."""
    action = fields.get("Action")
    if not action:
        raise missing_action()
    version = fields.get("Version", service.api_version)
    if version != service.api_version:
        raise invalid_action(shown(action), shown(version))
    try:
        return service.operation(action)
    except UnknownOperation:
        raise invalid_action(shown(action), version) from None


# --------------------------------------------------------------------------------------------------------------- input


def parse_input(operation: Operation, fields: Mapping[str, str], limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """``fields`` in the operation's input shape, members under their model names. Raises :class:`Fault`.

    Values are str, int, float, bool, bytes or an aware datetime in UTC; constraints are not checked here.
    """
    root = _tree(fields, limits)
    if operation.input is None:
        return {}
    return _parse_structure(operation.input, root, "")


def _tree(fields: Mapping[str, str], limits: Limits) -> _Node:
    root = _Node()
    for name, value in fields.items():
        if name.count(".") >= limits.depth:
            raise malformed_query_string(f"A parameter is nested more than {limits.depth} levels deep")
        node = root
        for part in name.split("."):
            child = node.children.get(part)
            if child is None:
                child = node.children[part] = _Node()
            node = child
        node.value = value
    return root


def _parse(shape: Shape, node: _Node, path: str) -> Any:
    match shape:
        case StructureShape():
            _check_complex(node, path)
            return _parse_structure(shape, node, path)
        case ListShape():
            _check_complex(node, path)
            return _parse_list(shape, node, path)
        case MapShape():
            _check_complex(node, path)
            return _parse_map(shape, node, path)
        case _:
            return _parse_scalar(shape, node, path)


def _check_complex(node: _Node, path: str) -> None:
    if node.value:
        raise malformed_input(f"{path} takes no value of its own: it is a structure, list or map")


def _parse_structure(shape: StructureShape, node: _Node, path: str) -> dict[str, Any]:
    prefix = f"{path}." if path else ""
    params: dict[str, Any] = {}
    for member in shape.members.values():
        child = node.children.get(member.wire_name)
        if child is None and _is_flattened_list(member.shape):
            # Named by its entries, or by itself: botocore does the latter for empty ones, other SDKs for all.
            child = node.children.get(member.shape.location_name or member.name)
        if child is not None:
            params[member.name] = _parse(member.shape, child, prefix + member.wire_name)
    return params


def _is_flattened_list(shape: Shape) -> bool:
    return isinstance(shape, ListShape) and shape.flattened


def _parse_list(shape: ListShape, node: _Node, path: str) -> list[Any]:
    if not shape.flattened:
        node, path = _only_child(node, path, (shape.element_name, "member"))
    return [_parse(shape.member, child, f"{path}.{index}") for index, child in _numbered(node, path)]


def _parse_map(shape: MapShape, node: _Node, path: str) -> dict[Any, Any]:
    if not shape.flattened:
        node, path = _only_child(node, path, ("entry",))
    entries: dict[Any, Any] = {}
    for index, child in _numbered(node, path):
        key, value = _parse_entry(shape, child, f"{path}.{index}")
        if key in entries:
            raise malformed_input(f"{path}.{index} repeats the key {shown(str(key))}")
        entries[key] = value
    return entries


def _parse_entry(shape: MapShape, node: _Node, path: str) -> tuple[Any, Any]:
    _check_complex(node, path)
    key, value = node.children.get(shape.key_name), node.children.get(shape.value_name)
    if value is None and isinstance(shape.value, StructureShape | ListShape | MapShape):
        value = _Node()  # SDKs send nothing for an empty structure
    if key is None or value is None or node.children.keys() - {shape.key_name, shape.value_name}:
        raise malformed_input(f"{path} must have a {shape.key_name} and a {shape.value_name}, nothing else")
    return (
        _parse(shape.key, key, f"{path}.{shape.key_name}"),
        _parse(shape.value, value, f"{path}.{shape.value_name}"),
    )


def _only_child(node: _Node, path: str, names: tuple[str, ...]) -> tuple[_Node, str]:
    """The one level between a list or map and its numbers; an empty node if there are no entries."""
    if not node.children:
        return node, path
    if len(node.children) > 1:
        raise malformed_input(f"The entries of {path} must all be named alike")
    name, child = next(iter(node.children.items()))
    if name not in names:
        raise malformed_input(f"{path}.{shown(name)} is unknown: the entries of {path} are named {path}.{names[0]}.1")
    _check_complex(child, f"{path}.{name}")
    return child, f"{path}.{name}"


def _numbered(node: _Node, path: str) -> list[tuple[int, _Node]]:
    numbered: dict[int, _Node] = {}
    for name, child in node.children.items():
        if not _INDEX.fullmatch(name):
            raise malformed_input(f"{path}.{shown(name)} is not numbered: the entries of {path} are {path}.1, {path}.2")
        index = int(name)
        if index in numbered:
            raise malformed_input(f"{path}.{index} is given more than once")
        numbered[index] = child
    return [(index, numbered[index]) for index in sorted(numbered)]


def _parse_scalar(shape: Shape, node: _Node, path: str) -> Any:
    if node.children or node.value is None:
        raise malformed_input(f"{path} is a single value: it has no members and no entries")
    try:
        return parse_scalar(shape, node.value)
    except BadScalar as error:
        value = "" if shape.sensitive else f" {shown(node.value)!r}"
        raise invalid_parameter_value(f"Invalid value{value} for {path}: it must be {error}") from None
