"""Temporary tables with their rows, sequences and views: made anew on the target, whole and checked, or a pin.

The source describes its objects as statements (``temporary_catalogue``); the target runs them in one transaction, takes
the rows, gives them back to be compared, and describes what it then has.

``ON COMMIT DELETE ROWS`` is in no catalogue. A table that occupies pages between two transactions does not have it: it
would have been truncated. A table without pages is asked about in a transaction that must fail. PostgreSQL refuses to
commit while a table that keeps its rows refers to one that does not, and says which (``heap_truncate_check_FKs``; it
looks at newer tables first, and at those that refer to them in the order of their oids). So two tables are made, one
cleared at commit, the other kept and referring to it, and the table in question is made to refer to it too: the error
names the latter if it keeps its rows, else the former. Nothing of it remains.
"""

import hashlib
import secrets
from typing import Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from verdigris.router.exchange import Frame, first_error
from verdigris.router.pins import PinReason
from verdigris.router.state.baggage import Baggage, Ticket
from verdigris.router.state.dialogue import (
    CLEAR,
    Result,
    act_as,
    converse,
    copy_in,
    quoted_literal,
    results,
    step,
    transaction,
)
from verdigris.router.state.pieces import Piece
from verdigris.router.state.private import PRIVATE_PREFIX
from verdigris.router.state.survey import Asker
from verdigris.router.state.temporary_catalogue import NO_EVENT_TRIGGERS, description
from verdigris.wire.postgres.errors import ProtocolError

log = structlog.get_logger()

# Pages of all tables together, looked at before anything is read. Dead rows count as well, hence twice what an answer
# may have (``exchange.MAX_ANSWER_BYTES``).
MAX_TABLE_BYTES: Final = 64 * 1024 * 1024
# A row that is larger is not read: it would have to be kept in one piece.
MAX_ROW_BYTES: Final = 7 * 1024 * 1024
# Each costs a few milliseconds: beyond this the session is pinned.
MAX_QUESTIONABLE: Final = 64

_BAGGAGE: Final = Baggage()
_FEATURE_NOT_SUPPORTED = "0A000"
# Names that nobody else's table has: they are looked for in an error's text, in whatever language that is.
_TOKEN = secrets.token_hex(8).encode()
_CLEARED: Final = PRIVATE_PREFIX + b"cleared_" + _TOKEN
_KEPT: Final = PRIVATE_PREFIX + b"kept_" + _TOKEN


class Described(Struct, frozen=True):
    """A row of the description."""

    kind: bytes
    owner: bytes
    name: bytes  # quoted and with its schema, which is pg_temp
    statement: bytes
    extra: bytes
    printed: bool  # an expression is in it: spelt by its server's version

    @property
    def sizes(self) -> tuple[int, int]:
        """Of a table: bytes in its pages, and in those of its large values."""
        pages, large = self.extra.split()
        return int(pages), int(large)


class Content(Struct, frozen=True):
    """Of a table."""

    deletes_rows: bool
    digest: bytes
    rows: bytes  # as COPY writes them; empty once they have been given


class TemporaryObjects(Struct, frozen=True):
    version: int  # of their server, as in server_version_num
    described: tuple[Described, ...]
    positions: dict[bytes, tuple[bytes, bytes]]  # of sequences: last_value, is_called
    contents: dict[bytes, Content]
    ticket: Ticket | None = None  # of the rows

    def without_rows(self) -> "TemporaryObjects":
        contents = {name: replace(content, rows=b"") for name, content in self.contents.items()}
        return replace(self, contents=contents, ticket=None)


class _NotPortable(Exception):
    """Says what it is."""


# ---------------------------------------------------------------------------------------------------------- the source


async def read_temporary(asker: Asker, *, contents: bool) -> TemporaryObjects | PinReason:
    """Ask the session's own backend. Nothing in the session changes. Without ``contents`` only for what could be a pin.
    Raises ``ConnectionError``, and what ``asker`` raises besides ``ProtocolError``."""
    try:
        [answer] = results(await _answer(asker, transaction(step(description(None)))))
        version, described = _read_description(answer)
        tables = _tables(described)
        positions = await _positions(asker, described)
        if not contents or not tables:
            return TemporaryObjects(version, described, positions, {})
        ticket = await _BAGGAGE.room(sum(sum(one.sizes) for one in tables))
        return TemporaryObjects(version, described, positions, await _contents(asker, tables), ticket)
    except TimeoutError:
        log.warning("session.pinned", reason=PinReason.TEMPORARY_OBJECTS, detail="the router carries too much already")
        return PinReason.TEMPORARY_OBJECTS
    except (_NotPortable, ProtocolError) as error:
        log.info("session.pinned", reason=PinReason.TEMPORARY_OBJECTS, detail=str(error))
        return PinReason.TEMPORARY_OBJECTS


async def _answer(asker: Asker, question: bytes) -> list[Frame]:
    [answer] = await converse(asker, [question])
    return _complete(answer)


def _complete(answer: list[Frame]) -> list[Frame]:
    refusal = first_error(answer)
    if refusal is not None:
        raise _NotPortable(refusal.discreet)
    return answer


def _read_description(result: Result) -> tuple[int, tuple[Described, ...]]:
    described = tuple(
        Described(kind or b"", owner or b"", name or b"", statement or b"", extra or b"", printed == b"true")
        for kind, owner, name, statement, extra, printed in result.rows
    )
    pins = [one.name for one in described if one.kind == b"pin"]
    if pins:
        raise _NotPortable(b", ".join(pins).decode(errors="replace"))
    schema = next(one for one in described if one.kind == b"schema")
    # The schema has another number in every session. Older versions print it now and then.
    for one in described:
        if schema.name + b"." in one.statement:
            raise _NotPortable(one.name.decode(errors="replace"))
    return int(schema.extra), tuple(one for one in described if one.kind != b"schema")


async def _positions(asker: Asker, described: tuple[Described, ...]) -> dict[bytes, tuple[bytes, bytes]]:
    sequences = [one for one in described if one.kind == b"sequence"]
    if not sequences:
        return {}
    steps = [
        part
        for one in sequences
        for part in (act_as(one.owner), step(b"SELECT last_value, is_called FROM " + one.name))
    ]
    found = results(await _answer(asker, transaction(*steps)))[1::2]
    positions = {}
    for one, result in zip(sequences, found, strict=True):
        [[last_value, is_called]] = result.rows
        if is_called == b"t" and one.extra != b"1":
            # The server has taken several values at once, and does not show which of them it has given out.
            raise _NotPortable(f"sequence {one.name.decode(errors='replace')} with a cache")
        positions[one.name] = (last_value or b"", is_called or b"")
    return positions


def _tables(described: tuple[Described, ...]) -> list[Described]:
    tables = [one for one in described if one.kind == b"table"]
    if sum(sum(one.sizes) for one in tables) > MAX_TABLE_BYTES:
        raise _NotPortable("too much in temporary tables")
    if sum(not one.sizes[0] for one in tables) > MAX_QUESTIONABLE:
        raise _NotPortable("too many empty temporary tables")
    return tables


async def _contents(asker: Asker, tables: list[Described]) -> dict[bytes, Content]:
    filled = [one for one in tables if one.sizes[0]]
    empty = [one for one in tables if not one.sizes[0]]
    reading = [part for one in filled for part in _reading(one)]
    copied, *answers = await converse(asker, [transaction(*reading), *(_on_commit_question(one) for one in empty)])
    copies = [result for result in results(_complete(copied)) if not result.rows]
    contents = {}
    for one, result in zip(filled, copies, strict=True):
        rows = b"".join(result.copied)
        contents[one.name] = Content(deletes_rows=False, digest=_digest(rows), rows=rows)
    for one, answer in zip(empty, answers, strict=True):
        contents[one.name] = Content(deletes_rows=_deletes_rows(one, answer), digest=_digest(b""), rows=b"")
    return contents


def _reading(table: Described) -> list[bytes]:
    steps = [act_as(table.owner)]
    if table.sizes[1]:
        # A row that would be too large for the router is an error before it is sent.
        steps.append(
            step(
                b"SELECT 1 / CASE WHEN max(octet_length(x::pg_catalog.text)) > %d THEN 0 ELSE 1 END FROM %b x"
                % (MAX_ROW_BYTES, table.name)
            )
        )
    return [*steps, step(_copy_out(table.name))]


def _copy_out(table: bytes) -> bytes:
    return b"COPY " + table + b" TO STDOUT"


def _digest(rows: bytes) -> bytes:
    return hashlib.blake2b(rows, digest_size=32).digest()


def _on_commit_question(table: Described) -> bytes:
    names = {b"cleared": _CLEARED, b"kept": _KEPT, b"table": table.name, b"literal": quoted_literal(table.name)}
    return transaction(
        act_as(table.owner),
        step(b"CREATE TEMPORARY TABLE pg_temp.%(cleared)s (x int UNIQUE) ON COMMIT DELETE ROWS" % names),
        step(b"CREATE TEMPORARY TABLE pg_temp.%(kept)s (x int REFERENCES pg_temp.%(cleared)s (x))" % names),
        step(b"ALTER TABLE %(table)s ADD COLUMN %(cleared)s int REFERENCES pg_temp.%(cleared)s (x)" % names),
        # Oids start anew after four thousand million.
        step(
            b"SELECT %(literal)s::pg_catalog.regclass::pg_catalog.oid"
            b" < 'pg_temp.%(kept)s'::pg_catalog.regclass::pg_catalog.oid" % names
        ),
    )


def _deletes_rows(table: Described, answer: list[Frame]) -> bool:
    refusal = first_error(answer)
    name = table.name.decode(errors="replace")
    if refusal is None:
        raise AssertionError(f"a transaction that must fail was committed: {name}")
    # The text is translated, the names in it are not.
    if refusal.sqlstate != _FEATURE_NOT_SUPPORTED or _CLEARED.decode() not in refusal.detail:
        raise _NotPortable(f"{name}: {refusal.discreet}")
    if results(answer)[-1].rows != [[b"t"]]:
        raise _NotPortable(f"{name}: it is not known whether it is cleared at commit")
    return _KEPT.decode() in refusal.detail


# ---------------------------------------------------------------------------------------------------------- the target


def pieces(wanted: TemporaryObjects | None) -> list[Piece]:
    if wanted is None:
        return []
    reason = PinReason.TEMPORARY_OBJECTS
    return [
        Piece(reason, _making(wanted), writes=True, accepts=lambda answer: _is_made(wanted, answer)),
        Piece(reason, CLEAR),
    ]


def _making(wanted: TemporaryObjects) -> bytes:
    steps = [step(NO_EVENT_TRIGGERS)]
    tables = [one for one in wanted.described if one.kind == b"table"]
    unfilled = len(tables)
    owner = None
    for one in wanted.described:
        if one.owner != owner:
            owner = one.owner
            steps.append(act_as(owner))
        match one.kind:
            case b"table":
                rule = b" ON COMMIT DELETE ROWS" if wanted.contents[one.name].deletes_rows else b""
                steps.append(step(one.statement + rule))
                unfilled -= 1
                if not unfilled:
                    steps += _filling(wanted, tables)
                    owner = None
            case b"sequence":
                value, is_called = wanted.positions[one.name]
                arguments = quoted_literal(one.name), quoted_literal(value), quoted_literal(is_called)
                steps.append(step(b"SELECT setval(%b::pg_catalog.regclass, %b::bigint, %b::boolean)" % arguments))
            case _:
                steps.append(step(one.statement))
    return transaction(*steps, step(description(wanted.version)))


def _filling(wanted: TemporaryObjects, tables: list[Described]) -> list[bytes]:
    """Before there is a constraint, index or trigger; and read again, by the same reader as on the source."""
    steps = []
    for one in tables:
        rows = wanted.contents[one.name].rows
        if rows:
            steps += [act_as(one.owner), copy_in(b"COPY " + one.name + b" FROM STDIN", rows), step(_copy_out(one.name))]
    return steps


def _is_made(wanted: TemporaryObjects, answer: list[Frame]) -> bool:
    *made, last = results(answer)
    given = [wanted.contents[one.name] for one in wanted.described if one.kind == b"table"]
    taken = [_digest(b"".join(result.copied)) for result in made if result.copied]
    try:
        version, described = _read_description(last)
    except _NotPortable as error:
        log.info("target.differs", detail=str(error))
        return False
    # Another major version may spell an expression differently.
    exact = version // 10000 == wanted.version // 10000
    return taken == [content.digest for content in given if content.rows] and (
        _comparable(described, exact=exact) == _comparable(wanted.described, exact=exact)
    )


def _comparable(described: tuple[Described, ...], *, exact: bool) -> list[tuple[bytes, ...]]:
    """Statistics are for the planner: they are no part of what a table is, and shown only to who may read it."""
    return sorted(
        (one.kind, one.owner, one.name, one.statement if exact or not one.printed else b"")
        for one in described
        if one.kind != b"analyze"
    )
