"""Prepared statements with names. The unnamed one is the router's to remember: no server tells its text."""

import re
from typing import Final

from msgspec import Struct

from verdigris.router.pins import PinReason
from verdigris.router.state.pieces import Piece, Rows, run
from verdigris.router.state.private import PRIVATE_PREFIX
from verdigris.router.state.statement_text import preparing
from verdigris.wire.postgres import messages

# A longer statement comes back as NULL, and its session is not carried.
_MAX_STATEMENT_BYTES = 1024 * 1024

QUESTION: Final = b"""
SELECT 'prepared', p.name,
       CASE WHEN pg_catalog.octet_length(p.statement) OPERATOR(pg_catalog.<=) %(max)d THEN p.statement END,
       p.from_sql::pg_catalog.text OPERATOR(pg_catalog.||) ' '
         OPERATOR(pg_catalog.||) p.parameter_types::pg_catalog.oid[]::pg_catalog.text
  FROM pg_catalog.pg_prepared_statements p
 WHERE pg_catalog.left(p.name, %(prefix)d) OPERATOR(pg_catalog.<>) '%(private)s'
""" % {b"max": _MAX_STATEMENT_BYTES, b"prefix": len(PRIVATE_PREFIX), b"private": PRIVATE_PREFIX}


class Prepared(Struct, frozen=True):
    """A row of ``pg_prepared_statements``."""

    statement: bytes | None  # None: too long, or not to be found in the string that it came in
    from_sql: bool  # made by PREPARE, which is then the statement's text, and not by a Parse message
    parameter_types: tuple[int, ...]

    @property
    def portable(self) -> bool:
        return self.statement is not None


def read(found: Rows) -> dict[bytes, Prepared]:
    return {name: _prepared(name, statement, extra or b"") for name, statement, extra in found.get(b"prepared", [])}


def _prepared(name: bytes, statement: bytes | None, extra: bytes) -> Prepared:
    """``extra`` is like ``true {23,25}``."""
    from_sql, _, types = extra.partition(b" ")
    if from_sql == b"true" and statement is not None:
        statement = preparing(name, statement)
    return Prepared(statement, from_sql == b"true", tuple(int(oid) for oid in re.findall(rb"[0-9]+", types)))


def pieces(prepared: dict[bytes, Prepared]) -> list[Piece]:
    made = []
    for name, one in prepared.items():
        statement = one.statement or b""
        if one.from_sql:
            made.append(run(PinReason.PREPARED_STATEMENTS, statement))
        else:
            parse = messages.parse(name, statement, one.parameter_types)
            made.append(Piece(PinReason.PREPARED_STATEMENTS, parse + messages.SYNC))
    return made


def unnamed_pieces(body: bytes | None) -> list[Piece]:
    """``body`` is that of the Parse message as the client sent it."""
    return [] if body is None else [Piece(PinReason.UNNAMED_STATEMENT, messages.message(b"P", body) + messages.SYNC)]
