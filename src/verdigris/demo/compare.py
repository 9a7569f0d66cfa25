"""The old production against the new one, table by table and sequence by sequence.

The old one has stopped at the switchover and the new one went on, so three kinds of table are compared differently:
most tables must be equal; append-only tables of the workload must be equal up to the last id on the old side; tables
that are updated in place are judged by ``verify``, which reckons them from the append-only ones.
"""

from collections import Counter
from typing import Any, LiteralString

import psycopg
from msgspec import Struct
from psycopg import sql

from verdigris.demo.promises import EXAMPLES_KEPT, Breach, Promise, breach_of

Connection = psycopg.Connection[tuple[Any, ...]]

# Column that says how far the old side got. Ids and keys only grow, so what is beyond came after the switchover.
APPEND_ONLY = {"ledger.chain": "id", "ledger.transfers": "id"}
JUDGED_BY_VERIFY = frozenset({"ledger.heads", "ledger.accounts", "ledger.receipts", "ledger.lists"})

# A row's text depends on these; both sides shall say it alike whatever their roles and databases have set.
_SAME_TEXT = (
    "SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'; SET intervalstyle = 'postgres';"
    " SET extra_float_digits = 1; SET bytea_output = 'hex'; SET row_security = off"
)

_TABLES: LiteralString = """
SELECT n.nspname, c.relname
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
   AND n.nspname NOT LIKE 'verdigris\\_%'  -- what a deployment puts there for itself
 ORDER BY 1, 2
"""

# Order does not matter to a sum, and md5's halves as numbers make one of 128 bits; the count catches what is left.
_DIGEST: LiteralString = """
SELECT count(*),
       coalesce(sum(('x' || left(m, 16))::bit(64)::bigint::numeric), 0),
       coalesce(sum(('x' || right(m, 16))::bit(64)::bigint::numeric), 0)
  FROM (SELECT md5(t::text) AS m FROM {table} t WHERE {condition}) rows
"""

_SEQUENCES: LiteralString = """
SELECT schemaname || '.' || sequencename, last_value, increment_by > 0
  FROM pg_sequences WHERE schemaname NOT LIKE 'verdigris\\_%'
"""


class TableComparison(Struct, frozen=True, kw_only=True):
    """``rows`` were compared by hash; ``rows_new`` came on the new side after the switchover."""

    table: str
    rows: int
    rows_new: int
    equal: bool


class Comparison(Struct, frozen=True, kw_only=True):
    tables: tuple[TableComparison, ...]
    sequences: int
    breaches: tuple[Breach, ...]

    @property
    def rows_compared(self) -> int:
        return sum(table.rows for table in self.tables)


def compare_databases(old_dsn: str, new_dsn: str) -> Comparison:
    """Nothing may write to either side meanwhile. Reads every row of every table once on each side."""
    with psycopg.connect(old_dsn) as old, psycopg.connect(new_dsn) as new:
        for connection in (old, new):
            connection.read_only = True
            connection.execute(_SAME_TEXT)
        names, new_names = _tables(old), set(_tables(new))
        wrong = [f"{schema}.{name} is gone" for schema, name in names if (schema, name) not in new_names]
        tables = []
        for schema, name in names:
            if f"{schema}.{name}" in JUDGED_BY_VERIFY or (schema, name) not in new_names:
                continue
            table, differences = _compare_table(old, new, schema, name)
            tables.append(table)
            wrong += differences
        sequences, backwards = _compare_sequences(old, new)
    return Comparison(
        tables=tuple(tables),
        sequences=sequences,
        breaches=(
            *breach_of(Promise.ROWS_IDENTICAL, wrong),
            *breach_of(Promise.SEQUENCES_GO_FORWARD, backwards),
        ),
    )


def _tables(connection: Connection) -> list[tuple[str, str]]:
    return [(schema, name) for schema, name in connection.execute(_TABLES)]


def _compare_table(old: Connection, new: Connection, schema: str, name: str) -> tuple[TableComparison, list[str]]:
    table = sql.Identifier(schema, name)
    condition: sql.Composable = sql.SQL("true")
    if column := APPEND_ONLY.get(f"{schema}.{name}"):
        row = old.execute(sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(column), table)).fetchone()
        end = row[0] if row and row[0] is not None else 0
        condition = sql.SQL("{} <= {}").format(sql.Identifier(column), sql.Literal(end))
    query = sql.SQL(_DIGEST).format(table=table, condition=condition)
    digests = [connection.execute(query).fetchone() for connection in (old, new)]
    equal = digests[0] == digests[1]
    differences = [] if equal else _differences(old, new, f"{schema}.{name}", table, condition)
    rows = digests[0][0] if digests[0] else 0
    counted = new.execute(sql.SQL("SELECT count(*) FROM {} WHERE NOT ({})").format(table, condition)).fetchone()
    rows_new = counted[0] if counted else 0
    return TableComparison(table=f"{schema}.{name}", rows=rows, rows_new=rows_new, equal=equal), differences


def _differences(
    old: Connection, new: Connection, name: str, table: sql.Identifier, condition: sql.Composable
) -> list[str]:
    """Which rows: by their hashes, and the text of the first few."""
    query = sql.SQL("SELECT md5(t::text) FROM {} t WHERE {}").format(table, condition)
    old_rows, new_rows = (Counter(m for (m,) in connection.execute(query)) for connection in (old, new))
    text = sql.SQL("SELECT left(t::text, 100) FROM {} t WHERE md5(t::text) = ANY(%s)").format(table)
    found = []
    for side, connection, lone in (("old", old, old_rows - new_rows), ("new", new, new_rows - old_rows)):
        rows = [row for (row,) in connection.execute(text, (list(lone)[:EXAMPLES_KEPT],))][: lone.total()]
        found += [f"{name}: only on the {side} side: {row}" for row in rows]
        found += [f"{name}: only on the {side} side"] * (lone.total() - len(rows))
    return found


def _compare_sequences(old: Connection, new: Connection) -> tuple[int, list[str]]:
    """No sequence of the new side may be behind the old one's, or ids would be given out again."""
    ahead = {name: last for name, last, _ in new.execute(_SEQUENCES)}
    wrong = []
    count = 0
    for name, last, ascending in old.execute(_SEQUENCES):
        count += 1
        if name not in ahead:
            wrong.append(f"{name} is gone")
        elif last is not None:
            now = ahead[name]
            if now is None or (now < last if ascending else now > last):
                wrong.append(f"{name} is at {now}, was at {last}")
    return count, wrong
