"""The constraints of the model, checked as AWS does. SDKs check only what is required and minimums; the rest is ours.

Only what the model declares is checked: many RDS strings have their values in their documentation alone, and those are
the operation's business.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from verdigris.aws.errors import validation_error
from verdigris.aws.model import Kind, ListShape, MapShape, Operation, Shape, StructureShape
from verdigris.aws.patterns import Unsupported, compile_pattern
from verdigris.aws.text import shown

log = structlog.get_logger(__name__)

_MAX_REPORTED = 10
_NUMBERS = frozenset({Kind.INTEGER, Kind.LONG, Kind.FLOAT, Kind.DOUBLE})


def validate_input(operation: Operation, params: Mapping[str, Any]) -> None:
    """``params`` as from :func:`verdigris.aws.query.parse_input`. Raises one :class:`Fault` that names what is wrong,
    the first ten of it if there is more."""
    if operation.input is None:
        return
    violations = list(_structure_violations(operation.input, params, ""))
    if violations:
        noun = "error" if len(violations) == 1 else "errors"
        reported = "; ".join(violations[:_MAX_REPORTED])
        raise validation_error(f"{len(violations)} validation {noun} detected: {reported}")


def _violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape:
        case StructureShape():
            yield from _structure_violations(shape, value, path)
        case ListShape():
            yield from _size_violations(shape, len(value), "", path)
            for index, element in enumerate(value, 1):
                yield from _violations(shape.member, element, f"{path}.{index}.member")
        case MapShape():
            yield from _size_violations(shape, len(value), "", path)
            for key, element in value.items():
                yield from _violations(shape.key, key, f"{path}.key")
                yield from _violations(shape.value, element, f"{path}.{shown(str(key))}.member")
        case _:
            yield from _scalar_violations(shape, value, path)


def _structure_violations(shape: StructureShape, params: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in shape.required:
        if name not in params:
            yield _violation("null", _below(path, name), "Member must not be null")
    for name, value in params.items():
        yield from _violations(shape.members[name].shape, value, _below(path, name))


def _below(path: str, name: str) -> str:
    """AWS lowers the first letter and no more: ``dBInstanceIdentifier``."""
    own = name[:1].lower() + name[1:]
    return f"{path}.{own}" if path else own


def _scalar_violations(shape: Shape, value: Any, path: str) -> Iterator[str]:
    text = "" if shape.sensitive else f"'{shown(str(value))}'"
    if shape.kind in _NUMBERS:
        yield from _range_violations(shape, value, text, path)
    elif isinstance(value, str | bytes):
        too_long = shape.maximum is not None and len(value) > shape.maximum
        yield from _size_violations(shape, len(value), text, path)
        # Never the pattern of a value that is too long: see patterns.py.
        if isinstance(value, str) and shape.pattern is not None and not too_long:
            yield from _pattern_violations(shape.pattern, value, text, path)
        if shape.enum and value not in shape.enum:
            yield _violation(text, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")


def _range_violations(shape: Shape, value: float, text: str, path: str) -> Iterator[str]:
    # Written so that NaN satisfies neither.
    if shape.minimum is not None and not value >= shape.minimum:
        yield _violation(text, path, f"Member must have value greater than or equal to {shape.minimum}")
    if shape.maximum is not None and not value <= shape.maximum:
        yield _violation(text, path, f"Member must have value less than or equal to {shape.maximum}")


def _size_violations(shape: Shape, size: int, text: str, path: str) -> Iterator[str]:
    if shape.minimum is not None and size < shape.minimum:
        yield _violation(text, path, f"Member must have length greater than or equal to {shape.minimum}")
    if shape.maximum is not None and size > shape.maximum:
        yield _violation(text, path, f"Member must have length less than or equal to {shape.maximum}")


def _pattern_violations(pattern: str, value: str, text: str, path: str) -> Iterator[str]:
    try:
        compiled = compile_pattern(pattern)
    except Unsupported as error:
        # Better to let a value through to the operation than to refuse what may be right.
        log.warning("pattern.unsupported", pattern=pattern, reason=str(error))
        return
    if compiled.fullmatch(value) is None:
        yield _violation(text, path, f"Member must satisfy regular expression pattern: {pattern}")


def _violation(text: str, path: str, constraint: str) -> str:
    value = f"Value {text} at" if text else "Value at"
    return f"{value} '{path}' failed to satisfy constraint: {constraint}"
