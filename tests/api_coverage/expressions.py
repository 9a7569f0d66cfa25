"""What expressions may become, in one call of one function."""

import ast
import builtins
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Protocol, Self

from msgspec import structs

from tests.api_coverage.code import Code, code_of, lifted
from tests.api_coverage.value import EMPTY, UNKNOWN, Value, constant, tinged, tuple_of, union
from verdigris.rds.filters import apply_filters

# Of the records (``domain.model``): kept and shown. A test holds that workflows do no more than copy them.
IDLE_FIELDS = frozenset({"settings", "allocated_storage_gib"})

_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


class Unfollowable(Exception):
    """The code does something that is not understood here."""


class Follows(Protocol):
    """What a handler does to its request, of which an expression may be a part."""

    def run(self, code: Code, args: list[Value], named: Mapping[str, Value]) -> Value: ...

    def read(self, key: Value, where: str) -> Value: ...

    def use(self, value: Value) -> None: ...

    def filter_by(self, supported: Value) -> None: ...


class Expressions:
    """A name may be anything that is assigned to it anywhere before."""

    def __init__(self, follower: Follows, code: Code, names: dict[str, Value]) -> None:
        self.follower = follower
        self.code = code
        self.names = names

    def where(self, node: ast.AST) -> str:
        return f"{self.code.path}:{getattr(node, 'lineno', '?')}"

    def _frame(self, names: dict[str, Value]) -> Self:
        return type(self)(self.follower, self.code, names)

    # ---------------------------------------------------------------------------------------------------- assignments

    def assign(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Name():
                self.names[target.id] = union([self.names[target.id], value]) if target.id in self.names else value
            case ast.Tuple() | ast.List():
                parts = value.parts if value.parts and len(value.parts) == len(target.elts) else None
                for place, each in enumerate(target.elts):
                    self.assign(each, parts[place] if parts else value)
            case ast.Starred():
                self.assign(target.value, value)
            case ast.Subscript():
                keys = [key for key in self.value(target.slice).constants if isinstance(key, str)]
                self.assign(target.value, Value(fields=dict.fromkeys(keys, value)))
            case _:
                self.follower.use(value)  # a field of something that others see

    def rounds(self, target: ast.expr, source: ast.expr) -> Iterator[dict[str, Value]]:
        """The names of each round of a loop, where it is over a table; else of one that stands for all of them."""
        for element in self._elements(source):
            scope = self._frame({})
            scope.assign(target, element)
            yield scope.names

    def _elements(self, source: ast.expr) -> list[Value]:
        """One by one where they are written down in the code, else one that may be any of them."""
        match source:
            case ast.Tuple() | ast.List() | ast.Set():
                return [self.value(element) for element in source.elts]
            case ast.Call(func=ast.Attribute(value=mapping, attr="items" | "keys" | "values" as what)):
                value = self.value(mapping)
                self._refuse_request(value, source)
                return _entries(value, what)
        value = self.value(source)
        self._refuse_request(value, source)
        keys = [constant(key) for key in value.fields]
        if _is_table(value):
            return keys or list(value.parts or ())
        return [union([value, *keys])]

    # ---------------------------------------------------------------------------------------------------- expressions

    def value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant():
                return constant(node.value) if isinstance(node.value, str | int | float | None) else UNKNOWN
            case ast.Name():
                return self._named(node.id)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.Call():
                return self._call(node)
            case ast.Compare():
                return self._compare(node)
            case ast.Dict():
                return self._dict(node)
            case ast.Tuple():
                return tuple_of(list(map(self.value, node.elts)))
            case ast.List() | ast.Set():
                return union(map(self.value, node.elts)) if node.elts else constant(EMPTY)
            case ast.BoolOp():
                return union(map(self.value, node.values))
            case ast.IfExp():
                either = union([self.value(node.body), self.value(node.orelse)])
                return tinged(either, self.value(node.test))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return union([tinged(frame.value(node.elt), why) for frame, why in self._comprehended(node)])
            case ast.DictComp():
                return union([frame._entry(node, why) for frame, why in self._comprehended(node)])
            case ast.Lambda():
                return Value(things=(Code(node, self.code.scope, self.names, self.code.path),))
            case ast.Starred() | ast.NamedExpr() | ast.Await():
                return self.value(node.value)
            case ast.BinOp(op=ast.BitOr() | ast.Add()):
                return union([self.value(node.left), self.value(node.right)])
            case ast.JoinedStr() | ast.FormattedValue() | ast.UnaryOp() | ast.BinOp() | ast.Slice():
                inner = [self.value(each) for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
                return union([UNKNOWN, *(each.traces() for each in inner)])
        raise Unfollowable(f"{self.where(node)}: {type(node).__name__}")

    def _named(self, name: str) -> Value:
        if name in self.names:
            return self.names[name]
        if name in self.code.scope:
            return lifted(self.code.scope[name])
        return lifted(getattr(builtins, name)) if hasattr(builtins, name) else UNKNOWN

    def _attribute(self, node: ast.Attribute) -> Value:
        owner = self.value(node.value)
        for thing in owner.things:
            if isinstance(thing, ModuleType | type):
                return lifted(getattr(thing, node.attr))
        self._refuse_request(owner, node)
        return owner.item(node.attr)

    def _subscript(self, node: ast.Subscript) -> Value:
        owner, key = self.value(node.value), self.value(node.slice)
        if owner.is_request:
            return self.follower.read(key, self.where(node))
        if isinstance(node.slice, ast.Slice):
            return tinged(owner, key)
        places = [place for place in key.constants if isinstance(place, int)]
        if owner.parts is not None and len(places) == 1 and -len(owner.parts) <= places[0] < len(owner.parts):
            return owner.parts[places[0]]
        return self._looked_up(owner, key)

    def _looked_up(self, owner: Value, key: Value) -> Value:
        """In a mapping; a list's elements are not told apart from it."""
        names = [name for name in key.constants if isinstance(name, str)]
        inner = union(map(owner.item, names)) if names else union([owner, *owner.fields.values()])
        return tinged(inner, key)

    def _compare(self, node: ast.Compare) -> Value:
        left, rights = self.value(node.left), list(map(self.value, node.comparators))
        if rights[0].is_request and isinstance(node.ops[0], ast.In | ast.NotIn):
            return self.follower.read(left, self.where(node))
        for each in (left, *rights):
            self._refuse_request(each, node)
        return union([UNKNOWN, *(each.traces() for each in (left, *rights))])

    def _dict(self, node: ast.Dict) -> Value:
        if not node.keys:
            return constant(EMPTY)
        found = []
        for key, value in zip(node.keys, node.values, strict=True):
            inner = self.value(value)
            if key is None:
                self._refuse_request(inner, node)
                found.append(inner)
            else:
                names = [name for name in self.value(key).constants if isinstance(name, str)]
                found.append(Value(fields=dict.fromkeys(names, inner)) if names else inner.traces())
        return union(found)

    def _entry(self, node: ast.DictComp, why: Value) -> Value:
        key = self.value(node.key)
        names = [name for name in key.constants if isinstance(name, str)]
        inner = tinged(tinged(self.value(node.value), why), key)
        return Value(fields=dict.fromkeys(names, inner)) if names else union([key.traces(), inner])

    def _comprehended(self, node: _Comprehension) -> Iterator[tuple[Self, Value]]:
        """A frame for each round, with the conditions that it depends on."""

        def nested(frame: Self, why: Value, generators: list[ast.comprehension]) -> Iterator[tuple[Self, Value]]:
            if not generators:
                yield frame, why
                return
            first, *others = generators
            for names in frame.rounds(first.target, first.iter):
                inner = self._frame({**frame.names, **names})
                conditions = union([why, *map(inner.value, first.ifs)])
                yield from nested(inner, conditions, others)

        return nested(self, Value(), node.generators)

    # ---------------------------------------------------------------------------------------------------------- calls

    def callee(self, node: ast.Call) -> Value:
        """What is called; a method of the request is nothing that could be gone into."""
        of_request = isinstance(node.func, ast.Attribute) and self.value(node.func.value).is_request
        return Value() if of_request else self.value(node.func)

    def _call(self, node: ast.Call) -> Value:
        args = list(map(self.value, node.args))
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value)
            if node.func.attr == "get" and args:
                return self._get(owner, args, node)
            if node.func.attr == "append" and isinstance(node.func.value, ast.Name) and len(args) == 1:
                self.assign(node.func.value, args[0])
            args_and_owner = [owner, *args]
        else:
            args_and_owner = args
        named = {each.arg: self.value(each.value) for each in node.keywords if each.arg is not None}
        spread = [self.value(each.value) for each in node.keywords if each.arg is None]
        callee = self.callee(node)
        codes = [code for code in map(code_of, callee.things) if code is not None]
        if codes:
            if spread or any(isinstance(arg, ast.Starred) for arg in node.args):
                raise Unfollowable(f"{self.where(node)}: arguments that are not written out")
            if apply_filters in callee.things:
                self.follower.filter_by(args[2])
            return union([self.follower.run(code, args, named) for code in codes])
        for each in (*args_and_owner, *named.values(), *spread):
            self._refuse_request(each, node)
        fields = Value(
            fields={name: each.shelved() if name in IDLE_FIELDS else each for name, each in named.items()},
            unknown=True,
        )
        if any(map(_hands_on, callee.things)):
            return union([fields, *args, *spread])
        return union([fields, *(each.traces() for each in (*args_and_owner, *spread))])

    def _get(self, owner: Value, args: list[Value], node: ast.Call) -> Value:
        default = args[1] if len(args) > 1 else constant(None)
        found = self.follower.read(args[0], self.where(node)) if owner.is_request else self._looked_up(owner, args[0])
        return union([found, default])

    def _refuse_request(self, value: Value, node: ast.AST) -> None:
        if value.is_request:
            raise Unfollowable(f"{self.where(node)}: the request goes where it cannot be followed")


def _entries(mapping: Value, what: str) -> list[Value]:
    pairs = [(constant(key), value) for key, value in mapping.fields.items()]
    if not _is_table(mapping):
        rest = mapping.traces()
        pairs = [(union([rest, *(key for key, _ in pairs)]), union([rest, *(value for _, value in pairs)]))]
    return [{"items": tuple_of([key, value]), "keys": key, "values": value}[what] for key, value in pairs]


def _is_table(value: Value) -> bool:
    """Written down in the code, and nothing else."""
    known = bool(value.things) and not value.unknown
    return known and all(isinstance(thing, Mapping | tuple) for thing in value.things)


def _hands_on(thing: object) -> bool:
    """What comes out is what went in: ``list``, ``sorted``, ``zip``, ``structs.replace``."""
    return thing is structs.replace or getattr(builtins, getattr(thing, "__name__", ""), None) is thing
