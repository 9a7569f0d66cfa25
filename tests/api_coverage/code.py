"""The code of the handlers: functions by their syntax trees, and what their names stand for."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any

from tests.api_coverage.value import EMPTY, Value, constant, tuple_of, union

FOLLOWED = "verdigris.rds"


@dataclass(frozen=True)
class Code:
    """A function, or a lambda, with the names that it sees."""

    node: ast.FunctionDef | ast.Lambda
    scope: Mapping[str, Any]
    closure: Mapping[str, Value]
    path: str


@lru_cache
def _functions(module: ModuleType) -> Mapping[int, ast.FunctionDef]:
    """By their first lines."""
    tree = ast.parse(inspect.getsource(module))
    return {node.lineno: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def code_of(thing: object) -> Code | None:
    """None for what is not gone into: everything outside ``verdigris.rds``."""
    if isinstance(thing, Code):
        return thing
    if not isinstance(thing, FunctionType) or not thing.__module__.startswith(FOLLOWED):
        return None
    module = inspect.getmodule(thing)
    assert module is not None
    node = _functions(module).get(thing.__code__.co_firstlineno)
    return None if node is None else Code(node, thing.__globals__, {}, str(module.__file__))


def lifted(thing: object) -> Value:
    """A Python object that the code has at hand: a constant, a table, a function."""
    if isinstance(thing, Enum):
        return constant(thing.value)
    if thing is None or isinstance(thing, str | int | float):
        return constant(thing)
    if isinstance(thing, Mapping):
        fields = {str(key): lifted(value) for key, value in thing.items()}
        return Value(fields=fields, things=(thing,)) if thing else constant(EMPTY)
    if isinstance(thing, tuple):
        return replace(tuple_of([lifted(each) for each in thing]), things=(thing,))
    if isinstance(thing, list | set | frozenset):
        return union([lifted(each) for each in thing]) if thing else constant(EMPTY)
    return Value(unknown=True, things=(thing,))


def body_of(node: ast.FunctionDef) -> list[ast.stmt]:
    """Without its docstring."""
    first = node.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return node.body[1:] if has_docstring else node.body
