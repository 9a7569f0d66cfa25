"""Faults are named by a plain string, the model's shape name: this catches a misspelt one before a client does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import verdigris
from verdigris.aws.errors import common_error_names
from verdigris.aws.model import load_service

SOURCE = Path(verdigris.__file__).parent


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Name(id="Fault") | ast.Attribute(attr="Fault"), args=[ast.Constant(value=str(name)), *_]
            ):
                yield node.lineno, name


def test_every_fault_in_the_source_is_modelled() -> None:
    known = common_error_names() | load_service("rds").errors.keys()
    unknown = [
        f"{path.relative_to(SOURCE)}:{line}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, name in names_in(ast.parse(path.read_text(encoding="utf-8")))
        if name not in known
    ]
    assert not unknown
