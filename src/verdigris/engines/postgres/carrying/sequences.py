"""Sequences do not replicate logically: their positions are read on the source and set on the target."""

from collections.abc import Mapping

from msgspec import Struct
from psycopg import sql

from verdigris.engines.postgres.sessions import Session, both


class Position(Struct, frozen=True):
    last_value: int
    is_called: bool


QualifiedName = tuple[str, str]  # schema, sequence
Positions = Mapping[QualifiedName, Position]

_SEQUENCES = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
_LASTING = "WHERE c.relkind = 'S' AND c.relpersistence <> 't'"

_FROM_18 = sql.SQL(f"""
    SELECT n.nspname, c.relname, d.last_value, d.is_called
      {_SEQUENCES} CROSS JOIN LATERAL pg_get_sequence_data(c.oid) d {_LASTING}
""")

# pg_sequence_last_value() is null both for a sequence that was never used and after setval(..., false): those are read
# one by one.
_BEFORE_18 = sql.SQL(f"""
    SELECT n.nspname, c.relname, pg_sequence_last_value(c.oid) {_SEQUENCES} {_LASTING}
""")

# So many branches of a UNION are planned in a few milliseconds, where thousands are not.
_READ_AT_ONCE = 200

_SET = sql.SQL("""
    SELECT setval(format('%%I.%%I', s.nsp, s.name)::regclass, s.last_value, s.is_called)
      FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::boolean[]) AS s (nsp, name, last_value, is_called)
""")


async def read_positions(connection: Session) -> dict[QualifiedName, Position]:
    if connection.info.server_version >= 180000:
        rows = await connection.rows(_FROM_18)
        return {(schema, name): Position(last, called) for schema, name, last, called in rows}
    rows = await connection.rows(_BEFORE_18)
    positions = {(schema, name): Position(last, True) for schema, name, last in rows if last is not None}
    uncalled = [(schema, name) for schema, name, last in rows if last is None]
    for start in range(0, len(uncalled), _READ_AT_ONCE):
        positions |= await _read_each(connection, uncalled[start : start + _READ_AT_ONCE])
    return positions


async def carry_positions(source: Session, target: Session) -> int:
    """Set those that differ, in one statement; how many they were. Only after a fence are they the last word. One that
    the target does not have yet is left out: it is there before both sides are found to be defined alike."""
    wanted, present = await both(read_positions(source), read_positions(target))
    moved = [
        (*name, *_fields(position))
        for name, position in wanted.items()
        if name in present and present[name] != position
    ]
    if moved:
        await target.run(_SET, *(list(column) for column in zip(*moved, strict=True)))
    return len(moved)


async def _read_each(connection: Session, names: list[QualifiedName]) -> dict[QualifiedName, Position]:
    selects = [
        sql.SQL("SELECT {}, last_value, is_called FROM {}").format(sql.Literal(index), sql.Identifier(*name))
        for index, name in enumerate(names)
    ]
    rows = await connection.rows(sql.SQL(" UNION ALL ").join(selects))
    return {names[index]: Position(last, called) for index, last, called in rows}


def _fields(position: Position) -> tuple[int, bool]:
    return position.last_value, position.is_called
