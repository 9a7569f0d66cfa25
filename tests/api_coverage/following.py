"""What a handler reads of its request, what becomes of that, and what its answer may hold, found by following its code
without running it: every branch is taken, every function of ``verdigris.rds`` that it calls is gone into.

A member of the request may

- reach the store, the answer or a decision between two ways: it *does* something;
- only reach fields of the records that nothing acts on (``IDLE_FIELDS``): it is *kept*;
- only decide whether the request is refused: it is *checked*, and the refusals are quoted;
- not be read at all.

What cannot be followed is an error, not a guess: :class:`Unfollowable`.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.api_coverage.code import Code, body_of, code_of
from tests.api_coverage.expressions import Expressions, Unfollowable
from tests.api_coverage.value import UNKNOWN, Value, constant, union


@dataclass
class Found:
    """Of one handler. ``refused`` are members that are refused whatever they say, if they say anything; ``refusals``
    what a member may be refused with."""

    read: set[str] = field(default_factory=set)
    does: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    refusals: dict[str, dict[str, None]] = field(default_factory=dict)
    filters: set[str] = field(default_factory=set)
    answer: Value = UNKNOWN


def follow(handler: Callable[..., Any], members: frozenset[str]) -> Found:
    """``members``: those of the request's shape."""
    follower = _Follower(members)
    code = code_of(handler)
    assert code is not None, handler
    answer = follower.run(code, [Value(unknown=True), Value(is_request=True)], {})
    follower.use(answer)
    follower.found.answer = answer
    return follower.found


class _Follower:
    def __init__(self, members: frozenset[str]) -> None:
        self.members = members
        self.found = Found()
        self.within_if = 0
        self._within: list[ast.AST] = []

    # -------------------------------------------------------------------------------------------------------- results

    def use(self, value: Value) -> None:
        live, kept = value.deep()
        self.found.does |= live
        self.found.kept |= kept

    def guard(self, test: Value, refusals: list[str], *, outright: bool) -> None:
        live, _ = test.deep()
        for member in live:
            self.found.refusals.setdefault(member, {}).update(dict.fromkeys(refusals))
        if outright and not self.within_if and len(live) == 1:
            self.found.refused |= live

    # ------------------------------------------------------------------------------------------------------ functions

    def run(self, code: Code, args: list[Value], named: Mapping[str, Value]) -> Value:
        if code.node in self._within:
            return UNKNOWN
        frame = _Frame(self, code, {**code.closure, **_arguments(self, code, args, named)})
        self._within.append(code.node)
        try:
            if isinstance(code.node, ast.Lambda):
                return frame.value(code.node.body)
            frame.statements(code.node.body)
            return union(frame.returned) if frame.returned else constant(None)
        finally:
            self._within.pop()

    def filter_by(self, supported: Value) -> None:
        self.found.filters |= supported.fields.keys()

    def read(self, key: Value, where: str) -> Value:
        """A member of the request, or whether it is there."""
        names = {name for name in key.constants if isinstance(name, str)}
        if not names:
            raise Unfollowable(f"{where}: which member of the request is read here?")
        read = frozenset(names & self.members)
        self.found.read |= read
        return Value(unknown=True, live=read)


def _arguments(follower: _Follower, code: Code, args: list[Value], named: Mapping[str, Value]) -> Mapping[str, Value]:
    signature = code.node.args
    places = [each.arg for each in (*signature.posonlyargs, *signature.args)]
    keywords = [each.arg for each in signature.kwonlyargs]
    outer = _Frame(follower, code, dict(code.closure))
    defaults = dict(zip(reversed(places), map(outer.value, reversed(signature.defaults)), strict=False))
    defaults |= {
        name: outer.value(default)
        for name, default in zip(keywords, signature.kw_defaults, strict=True)
        if default is not None
    }
    given = {**dict(zip(places, args, strict=False)), **named}
    return {name: given.get(name, defaults.get(name, UNKNOWN)) for name in (*places, *keywords)}


class _Frame(Expressions):
    """One call of one function, from its first statement to its last, through every branch."""

    follower: _Follower

    def __init__(self, follower: _Follower, code: Code, names: dict[str, Value]) -> None:
        super().__init__(follower, code, names)
        self.returned: list[Value] = []

    def statements(self, body: list[ast.stmt]) -> None:
        for place, statement in enumerate(body):
            self._statement(statement, body[place + 1 :])

    def _statement(self, node: ast.stmt, rest: list[ast.stmt]) -> None:
        match node:
            case ast.Return():
                self.returned.append(constant(None) if node.value is None else self.value(node.value))
            case ast.Assign():
                for target in node.targets:
                    self.assign(target, self.value(node.value))
            case ast.AnnAssign(value=ast.expr()) | ast.AugAssign():
                assert node.value is not None
                self.assign(node.target, self.value(node.value))
            case ast.Expr():
                self._discard(node.value)
            case ast.If():
                self._if(node, rest)
            case ast.For():
                for names in self.rounds(node.target, node.iter):
                    self.names |= names
                    self.statements(node.body)
                self.statements(node.orelse)
            case ast.While():
                self.follower.use(self.value(node.test))
                self.statements(node.body)
            case ast.With():
                for item in node.items:
                    entered = self.value(item.context_expr)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, entered)
                self.statements(node.body)
            case ast.Try():
                for body in (node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody):
                    self.statements(body)
            case ast.Match():
                subject = self.value(node.subject)
                for case in node.cases:
                    if not self._only_refuses(case.body):
                        self.follower.use(subject)
                    self.statements(case.body)
            case ast.FunctionDef():
                code = Code(node, self.code.scope, self.names, self.code.path)
                self.assign(ast.Name(node.name, ast.Store()), Value(things=(code,)))
            case ast.Raise():
                if node.exc is not None:
                    self.value(node.exc)  # for what it reads
            case ast.Pass() | ast.Continue() | ast.Break() | ast.AnnAssign():
                pass
            case _:
                raise Unfollowable(f"{self.where(node)}: {type(node).__name__}")

    def _if(self, node: ast.If, rest: list[ast.stmt]) -> None:
        test = self.value(node.test)
        if self._only_refuses(node.body) and self._only_refuses(node.orelse):
            after = next(([each] for each in rest if isinstance(each, ast.Raise)), [])
            refusals = self._refusals([*node.body, *node.orelse, *after])
            outright = _is_member_itself(node.test) and isinstance(node.body[-1], ast.Raise)
            self.follower.guard(test, refusals, outright=outright)
        else:
            self.follower.use(test)
        self.follower.within_if += 1
        self.statements(node.body)
        self.statements(node.orelse)
        self.follower.within_if -= 1

    def _discard(self, node: ast.expr) -> None:
        """A call for its effect. What it does is seen by going into it, or else taken for granted."""
        value = self.value(node)
        if isinstance(node, ast.Call) and not any(code_of(thing) for thing in self.callee(node).things):
            self.follower.use(value)

    def _only_refuses(self, body: list[ast.stmt]) -> bool:
        """All it does is to raise, or to be content."""
        if body and isinstance(body[-1], ast.Raise):
            return True
        return all(self._refuses_or_not(statement) for statement in body)

    def _refuses_or_not(self, node: ast.stmt) -> bool:
        match node:
            case ast.Raise() | ast.Pass():
                return True
            case ast.Return():
                return node.value is None
            case ast.If():
                return self._only_refuses(node.body) and self._only_refuses(node.orelse)
            case ast.For():
                return self._only_refuses(node.body)
            case ast.Expr(value=ast.Call() as call):
                codes = [code_of(thing) for thing in self.callee(call).things]
                return bool(codes) and all(code is not None and self._is_check(code) for code in codes)
        return False

    def _is_check(self, code: Code) -> bool:
        inner = _Frame(self.follower, code, {})
        return isinstance(code.node, ast.FunctionDef) and inner._only_refuses(body_of(code.node))

    def _refusals(self, body: list[ast.stmt]) -> list[str]:
        raised = [node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Raise)]
        texts = [self._message(node.exc) for node in raised if isinstance(node.exc, ast.Call)]
        return [text for text in texts if text]

    def _message(self, call: ast.Call) -> str:
        return self._text(call.args[-1]) if call.args else ""

    def _text(self, node: ast.expr) -> str:
        match node:
            case ast.Constant():
                return str(node.value)
            case ast.JoinedStr():
                return "".join(self._text(part) for part in node.values)
            case ast.FormattedValue():
                return self._text(node.value)
        value = self.value(node)
        return str(next(iter(value.constants))) if len(value.constants) == 1 and not value.unknown else "…"


def _is_member_itself(test: ast.expr) -> bool:
    """Not what is made of it: ``params.get("ForceFailover")``, or a name for that."""
    is_get = isinstance(test, ast.Call) and isinstance(test.func, ast.Attribute) and test.func.attr == "get"
    return is_get or isinstance(test, ast.Name)
