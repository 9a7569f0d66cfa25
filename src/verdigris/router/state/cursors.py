"""Cursors WITH HOLD: declared on the target over the same rows, at the same position.

The position is in no catalogue. Whoever wants to know it has to move the cursor, and one that cannot scroll gives its
rows only once; so cursors are read from the connection that the session has left, after the point of no return. What
can be found out before is: the names, options and columns, and whether the target is able to declare the like.

A held cursor is a result that is kept, so its query does not matter any more. The target's is made of the rows
themselves, as parameters: it needs no table, no privilege and, if the target is a standby still, no promotion.
"""

from collections.abc import Callable
from typing import Final

import structlog
from msgspec import Struct

from verdigris.router.exchange import Frame, first_error
from verdigris.router.pins import PinReason
from verdigris.router.state.dialogue import CLEAR, converse, results, step, text_array, transaction
from verdigris.router.state.pieces import Piece, quoted_identifier
from verdigris.router.state.survey import Asker
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import ProtocolError
from verdigris.wire.postgres.messages import Field

log = structlog.get_logger()

# Of one session's cursors, as text.
MAX_BYTES: Final = 32 * 1024 * 1024
_ROWS_AT_ONCE = 1000
# FETCH ABSOLUTE counts from the first row, also where rows that have been read are not kept. How many were read of a
# cursor that cannot scroll is not to be known: it is given so many rows before its own that a number below is refused,
# as it should be, instead of being counted from another first row.
_UNKNOWN_ROWS = 65536

_ROW_DESCRIPTION = ord("T")

_LIST = b"""
SELECT c.name, c.is_binary, c.is_scrollable FROM pg_catalog.pg_cursors c
 WHERE c.is_holdable ORDER BY c.creation_time, c.name
"""
_TYPES = b"""
SELECT format_type(c.type, c.modifier), t.typtype
  FROM ROWS FROM (unnest($1::pg_catalog.oid[]), unnest($2::int[])) WITH ORDINALITY AS c (type, modifier, n)
  JOIN pg_catalog.pg_type t ON t.oid = c.type ORDER BY c.n
"""


class Column(Struct, frozen=True):
    name: bytes
    modifier: int
    type: bytes  # as format_type() has it


class HeldCursor(Struct, frozen=True):
    name: bytes
    binary: bool
    scrollable: bool
    columns: tuple[Column, ...]

    @property
    def quoted(self) -> bytes:
        return quoted_identifier(self.name)

    def query(self, unknown_rows: int = 0) -> bytes:
        """Over its rows, a parameter for each column, and behind ``unknown_rows`` empty ones."""
        before = b"array_fill(NULL::pg_catalog.text, ARRAY[%d]) || " % unknown_rows if unknown_rows else b""
        numbers = range(1, len(self.columns) + 1)
        return b"SELECT %b FROM ROWS FROM (%b) WITH ORDINALITY AS t (%b, n) ORDER BY t.n" % (
            b", ".join(
                b"t.c%d::%b AS %b" % (number, column.type, quoted_identifier(column.name))
                for number, column in zip(numbers, self.columns, strict=True)
            ),
            b", ".join(b"unnest(%b$%d::pg_catalog.text[])" % (before, number) for number in numbers),
            b", ".join(b"c%d" % number for number in numbers),
        )

    def declaration(self, unknown_rows: int = 0) -> bytes:
        options = (b"BINARY " if self.binary else b"") + (b"SCROLL" if self.scrollable else b"NO SCROLL")
        return b"DECLARE %b %b CURSOR WITH HOLD FOR %b" % (self.quoted, options, self.query(unknown_rows))


class _NotPortable(Exception):
    """Says why."""


# -------------------------------------------------------------------------------------------------- before the commit


async def read_cursors(asker: Asker) -> tuple[HeldCursor, ...] | PinReason:
    """All that can be known without moving them. Raises ``ConnectionError``, and what ``asker`` raises besides
    ``ProtocolError``."""
    try:
        [found] = results(await _answer(asker, step(_LIST)))
        listed = [(name or b"", binary == b"t", scrollable == b"t") for name, binary, scrollable in found.rows]
        answer = await _answer(asker, *(messages.describe_portal(name) for name, _, _ in listed))
        shapes = [messages.read_row_description(body) for code, body in answer if code == _ROW_DESCRIPTION]
        return tuple(
            [
                HeldCursor(name, binary, scrollable, await _columns(asker, fields))
                for (name, binary, scrollable), fields in zip(listed, shapes, strict=True)
            ]
        )
    except (_NotPortable, ProtocolError) as error:
        log.info("session.pinned", reason=PinReason.HELD_CURSORS, detail=str(error))
        return PinReason.HELD_CURSORS


async def _answer(asker: Asker, *steps: bytes) -> list[Frame]:
    [answer] = await converse(asker, [transaction(*steps)])
    refusal = first_error(answer)
    if refusal is not None:
        raise _NotPortable(refusal.discreet)
    return answer


async def _columns(asker: Asker, fields: list[Field]) -> tuple[Column, ...]:
    oids, modifiers = ([b"%d" % n for n in numbers] for numbers in _numbers(fields))
    [found] = results(await _answer(asker, step(_TYPES, [text_array(oids), text_array(modifiers)])))
    if not fields or len(found.rows) != len(fields) or any(kind == b"p" for _, kind in found.rows):
        raise _NotPortable("a cursor of no columns, or of anonymous rows")
    return tuple(
        Column(field.name, field.modifier, type_name or b"")
        for field, (type_name, _) in zip(fields, found.rows, strict=True)
    )


def _numbers(fields: list[Field]) -> tuple[list[int], list[int]]:
    return [field.type_oid for field in fields], [field.modifier for field in fields]


def pieces(cursors: tuple[HeldCursor, ...]) -> list[Piece]:
    """Whether the target can declare the like: over no rows, and closed again."""
    made = []
    for cursor in cursors:
        nothing = [b"{}"] * len(cursor.columns)
        steps = (
            step(cursor.declaration(), nothing),
            messages.describe_portal(cursor.name),
            step(b"CLOSE " + cursor.quoted),
        )
        made.append(Piece(PinReason.HELD_CURSORS, transaction(*steps), accepts=_shaped_as(cursor)))
        made.append(Piece(PinReason.HELD_CURSORS, CLEAR))
    return made


def _shaped_as(cursor: HeldCursor) -> Callable[[list[Frame]], bool]:
    wanted = [(column.name, column.modifier) for column in cursor.columns]

    def accepts(answer: list[Frame]) -> bool:
        shapes = [messages.read_row_description(body) for code, body in answer if code == _ROW_DESCRIPTION]
        return [[(field.name, field.modifier) for field in shape] for shape in shapes] == [wanted]

    return accepts


# --------------------------------------------------------------------------------------------------- after the commit


class _Position(Struct, frozen=True):
    rows: list[list[bytes | None]]  # all of a cursor that scrolls, else those not read yet
    unknown_rows: int
    move: bytes | None  # from before the first of them


async def carry_cursors(former: Asker, target: Asker, cursors: tuple[HeldCursor, ...]) -> PinReason | None:
    """Use them up where they were and declare them where the session is now. Raises ``ConnectionError``."""
    left = MAX_BYTES
    try:
        for cursor in cursors:
            position = await _read(former, cursor, left)
            left -= _size(position.rows)
            await _declare(target, cursor, position)
    except (_NotPortable, ProtocolError) as error:
        log.warning("cursor.not_carried", error=str(error))
        return PinReason.HELD_CURSORS
    return None


async def _read(former: Asker, cursor: HeldCursor, max_bytes: int) -> _Position:
    here = b"MOVE RELATIVE 0 FROM " + cursor.quoted  # counts the row that it is on
    back = b"MOVE BACKWARD ALL FROM " + cursor.quoted
    forward = b"FETCH FORWARD %d FROM %b" % (_ROWS_AT_ONCE, cursor.quoted)
    moves = [step(here), step(back)] if cursor.scrollable else [step(here)]
    *moved, fetched = results(await _answer(former, *moves, step(forward)))
    rows = fetched.rows
    while len(fetched.rows) == _ROWS_AT_ONCE:
        if _size(rows) > max_bytes:
            break
        [fetched] = results(await _answer(former, step(forward)))
        rows += fetched.rows
    if _size(rows) > max_bytes:
        raise _NotPortable("too much in cursors")
    on_row, *behind = (result.count for result in moved)
    if not cursor.scrollable:
        unknown = _UNKNOWN_ROWS if on_row else 0
        return _Position(rows, unknown, b"MOVE FORWARD %d FROM %b" % (unknown, cursor.quoted) if unknown else None)
    if on_row:
        return _Position(rows, 0, b"MOVE FORWARD %d FROM %b" % (behind[0] + 1, cursor.quoted))
    return _Position(rows, 0, b"MOVE FORWARD ALL FROM " + cursor.quoted if behind[0] else None)


def _size(rows: list[list[bytes | None]]) -> int:
    return sum(len(value or b"") for row in rows for value in row)


async def _declare(target: Asker, cursor: HeldCursor, position: _Position) -> None:
    columns = [text_array(row[number] for row in position.rows) for number in range(len(cursor.columns))]
    steps = [step(cursor.query(), columns), step(cursor.declaration(position.unknown_rows), columns)]
    if position.move is not None:
        # Before the result is kept: of a cursor that cannot scroll nothing is kept that has been passed over.
        steps.append(step(position.move))
    selected, *_ = results(await _answer(target, *steps))
    if selected.rows != position.rows:
        raise _NotPortable("the target understands the rows differently")
