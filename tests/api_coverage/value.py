"""What may become of an expression, as far as can be told without running it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

Constant = str | int | float | bool | None
EMPTY: Final = "(empty)"  # a list or mapping that is written down without anything in it


@dataclass(frozen=True)
class Value:
    """Lists and their elements are not told apart: a list of dictionaries is one that has the keys of all of them.

    ``live`` are members of the request that it was made from, ``kept`` those that have gone through a field of a record
    that nothing acts on.
    """

    fields: Mapping[str, "Value"] = field(default_factory=dict)
    parts: tuple["Value", ...] | None = None  # of a tuple
    constants: frozenset[Constant] = frozenset()
    unknown: bool = False  # may be something else besides
    live: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    is_request: bool = False
    things: tuple[object, ...] = ()  # functions, classes, modules, constant containers

    def deep(self) -> tuple[frozenset[str], frozenset[str]]:
        """``live`` and ``kept`` of it and of everything in it."""
        live, kept = set(self.live), set(self.kept)
        for inner in (*self.fields.values(), *(self.parts or ())):
            inner_live, inner_kept = inner.deep()
            live |= inner_live
            kept |= inner_kept
        return frozenset(live), frozenset(kept)

    def traces(self) -> "Value":
        """Something that was made of it and does not look like it any more."""
        live, kept = self.deep()
        return Value(unknown=True, live=live, kept=kept)

    def shelved(self) -> "Value":
        """It, in a field that nothing acts on."""
        live, kept = self.deep()
        stripped = _mapped(self, lambda value: replace(value, live=frozenset(), kept=value.kept | value.live))
        return replace(stripped, kept=live | kept)

    def item(self, name: str) -> "Value":
        """Under a key, or an attribute of that name."""
        if name in self.fields:
            return union([self.fields[name], Value(live=self.live, kept=self.kept, unknown=self.unknown)])
        return self.traces()


UNKNOWN = Value(unknown=True)


def _mapped(value: Value, change: Callable[[Value], Value]) -> Value:
    return change(
        replace(
            value,
            fields={name: _mapped(inner, change) for name, inner in value.fields.items()},
            parts=None if value.parts is None else tuple(_mapped(part, change) for part in value.parts),
        )
    )


def union(values: Iterable[Value]) -> Value:
    """One of them."""
    found = list(values)
    if len(found) == 1:
        return found[0]
    fields: dict[str, list[Value]] = {}
    for value in found:
        for name, inner in value.fields.items():
            fields.setdefault(name, []).append(inner)
    return Value(
        fields={name: union(inner) for name, inner in fields.items()},
        parts=_parts([value.parts for value in found if value.parts is not None]),
        constants=frozenset().union(*(value.constants for value in found)),
        unknown=any(value.unknown for value in found),
        live=frozenset().union(*(value.live for value in found)),
        kept=frozenset().union(*(value.kept for value in found)),
        is_request=any(value.is_request for value in found),
        things=tuple({id(thing): thing for value in found for thing in value.things}.values()),
    )


def _parts(tuples: list[tuple[Value, ...]]) -> tuple[Value, ...] | None:
    if not tuples or len({len(each) for each in tuples}) > 1:
        return None
    return tuple(union(part) for part in zip(*tuples, strict=True))


def constant(value: Constant) -> Value:
    return Value(constants=frozenset({value}))


def tuple_of(parts: Sequence[Value]) -> Value:
    return replace(union(parts), parts=tuple(parts))


def tinged(value: Value, by: Value) -> Value:
    """One that depends on ``by``."""
    live, kept = by.deep()
    return union([value, Value(live=live, kept=kept)]) if live or kept else value


def constants_of(value: Value) -> frozenset[Constant] | None:
    """What it is one of, or None if that is not known."""
    return None if value.unknown or value.fields else value.constants
