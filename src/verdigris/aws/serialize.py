"""Answers of the Query protocol: a result in the operation's output shape in, XML out.

What the model does not have is refused, not dropped: a misspelt member is a bug of ours and has to be loud.
Members whose value is None are left out, as RDS leaves out what it has no value for.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from verdigris.aws.errors import Fault
from verdigris.aws.model import ListShape, MapShape, Operation, Service, Shape, StructureShape
from verdigris.aws.scalars import NotOfKind, format_scalar
from verdigris.aws.text import UNCARRIABLE

# A bare carriage return would reach the client as a line feed (XML 1.0, "End-of-Line Handling").
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#xD;"}
_TO_ESCAPE = re.compile("[&<>\r]")


class UnmodelledResult(Exception):
    """A result of ours does not have the shape that the model gives it."""


def serialize_output(
    service: Service, operation: Operation, result: Mapping[str, Any] | None, request_id: str
) -> bytes:
    """The body of a successful answer. Raises :class:`UnmodelledResult`."""
    parts = [f'<{operation.name}Response xmlns="{service.xml_namespace}">']
    if operation.output is not None:
        if operation.result_wrapper is None:
            _write_members(parts, operation.output, result or {}, operation.name)
        else:
            _write_structure(parts, operation.result_wrapper, operation.output, result or {}, operation.name)
    elif result:
        raise UnmodelledResult(f"{operation.name} has no output, but was given {', '.join(map(str, result))}")
    parts.append(f"<ResponseMetadata><RequestId>{_escape(request_id)}</RequestId></ResponseMetadata>")
    parts.append(f"</{operation.name}Response>")
    return "".join(parts).encode("utf-8")


def serialize_fault(service: Service, fault: Fault, request_id: str) -> bytes:
    """The body of a refusal; its HTTP status is ``fault.status``."""
    return (
        f'<ErrorResponse xmlns="{service.xml_namespace}"><Error>'
        f"<Type>{fault.blame}</Type><Code>{_escape(fault.code)}</Code><Message>{_escape(fault.message)}</Message>"
        f"</Error><RequestId>{_escape(request_id)}</RequestId></ErrorResponse>"
    ).encode()


def _escape(text: str) -> str:
    """Characters that XML cannot carry become U+FFFD: they come from outside (a server's message, a file name), and
    an answer with a mark in it serves better than none."""
    if UNCARRIABLE.search(text):
        text = UNCARRIABLE.sub("\ufffd", text)
    if _TO_ESCAPE.search(text):
        text = _TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], text)
    return text


def _write(parts: list[str], name: str, shape: Shape, value: Any, path: str) -> None:
    match shape:
        case StructureShape():
            _write_structure(parts, name, shape, value, path)
        case ListShape():
            _write_list(parts, name, shape, value, path)
        case MapShape():
            _write_map(parts, name, shape, value, path)
        case _:
            try:
                text = format_scalar(shape, value)
            except NotOfKind as error:
                raise UnmodelledResult(f"{path}: {error}") from None
            parts.append(f"<{name}>{_escape(text)}</{name}>")


def _write_structure(parts: list[str], name: str, shape: StructureShape, value: Any, path: str) -> None:
    parts.append(f"<{name}>")
    _write_members(parts, shape, value, path)
    parts.append(f"</{name}>")


def _write_members(parts: list[str], shape: StructureShape, value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise UnmodelledResult(f"{path}: {type(value).__name__} given where {shape.name} wants a structure")
    members = shape.members
    unknown = value.keys() - members.keys()
    if unknown:
        raise UnmodelledResult(f"{path}: {shape.name} has no member {', '.join(sorted(map(str, unknown)))}")
    for member in members.values():
        member_value = value.get(member.name)
        if member_value is not None:
            _write(parts, member.wire_name, member.shape, member_value, f"{path}.{member.name}")


def _write_list(parts: list[str], name: str, shape: ListShape, value: Any, path: str) -> None:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise UnmodelledResult(f"{path}: {type(value).__name__} given where {shape.name} wants a list")
    if shape.flattened:
        for index, element in enumerate(value):
            _write(parts, name, shape.member, element, f"{path}[{index}]")
        return
    parts.append(f"<{name}>")
    for index, element in enumerate(value):
        _write(parts, shape.element_name, shape.member, element, f"{path}[{index}]")
    parts.append(f"</{name}>")


def _write_map(parts: list[str], name: str, shape: MapShape, value: Any, path: str) -> None:
    if not isinstance(value, Mapping):
        raise UnmodelledResult(f"{path}: {type(value).__name__} given where {shape.name} wants a map")
    entry_name = name if shape.flattened else "entry"
    if not shape.flattened:
        parts.append(f"<{name}>")
    for key, element in value.items():
        parts.append(f"<{entry_name}>")
        _write(parts, shape.key_name, shape.key, key, f"{path}[{key!r}] (key)")
        _write(parts, shape.value_name, shape.value, element, f"{path}[{key!r}]")
        parts.append(f"</{entry_name}>")
    if not shape.flattened:
        parts.append(f"</{name}>")
