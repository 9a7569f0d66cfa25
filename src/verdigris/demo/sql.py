"""Small helpers over psycopg that the demo's modules share."""

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import psycopg

from verdigris.demo.ledger import CONNECTION_FAILURE


def one_row(
    connection: psycopg.Connection[tuple[Any, ...]],
    query: LiteralString,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    """The first row of a query that always gives one. Raises ``LookupError`` if it gave none."""
    row = connection.execute(query, parameters).fetchone()
    if row is None:
        raise LookupError(f"no row from {query!r}")
    return row


def sqlstate_of(error: psycopg.Error) -> str:
    """The error's SQLSTATE, or 08006 where none came because the connection broke."""
    return error.sqlstate or CONNECTION_FAILURE
