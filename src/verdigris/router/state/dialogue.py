"""Several statements as one transaction of the router's own, in the middle of a session."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from verdigris.router.exchange import Frame, first_error
from verdigris.router.state.private import PRIVATE_PREFIX
from verdigris.router.state.survey import Asker
from verdigris.wire.postgres import messages

_NAME: Final = PRIVATE_PREFIX + b"step"
_QUERY_CANCELED = "57014"
_ATTEMPTS = 3
# What is sent in one CopyData message.
_CHUNK_BYTES = 64 * 1024

_DATA_ROW, _COPY_DATA, _COMMAND_COMPLETE = ord("D"), ord("d"), ord("C")

# A statement that fails stays behind under its name: it is taken away whatever has become of the transaction.
CLEAR: Final = messages.close_statement(_NAME) + messages.SYNC

# As pg_dump has them, and what else makes a difference to how values and names are written and read. Names and data
# travel in the server's own encoding, so nothing is lost that the client could not display. search_path is empty, as
# pg_dump has it: names of permanent objects are printed in full, those of temporary relations, which are looked for
# first even then, without a schema. None of this is ever reported to a client: servers report what has changed when
# they become ready, and by then the transaction is over.
_FIXED_SETTINGS: Final = b"""
SELECT pg_catalog.set_config(s.name, s.value, true)
  FROM (VALUES ('search_path', ''), ('client_encoding', pg_catalog.current_setting('server_encoding')),
               ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
               ('client_min_messages', 'error'), ('standard_conforming_strings', 'on'),
               ('quote_all_identifiers', 'off'), ('transform_null_equals', 'off'), ('array_nulls', 'on'),
               ('DateStyle', 'ISO, MDY'), ('IntervalStyle', 'postgres'), ('TimeZone', 'UTC'),
               ('extra_float_digits', '3'), ('bytea_output', 'hex'), ('xmloption', 'content'), ('lc_monetary', 'C'),
               ('synchronize_seqscans', 'off'), ('row_security', 'off'), ('jit', 'off'),
               ('default_tablespace', ''), ('temp_tablespaces', '')) s (name, value)
 WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL
"""


class Result(Struct):
    """Of one statement."""

    rows: list[list[bytes | None]]
    copied: list[bytes]
    tag: bytes = b""  # like "MOVE 3"

    @property
    def count(self) -> int:
        return int(self.tag.rpartition(b" ")[2])


def step(statement: bytes, values: Iterable[bytes | None] = ()) -> bytes:
    """One statement; its parameters in text."""
    return b"".join(
        (
            messages.parse(_NAME, statement),
            messages.bind(_NAME, list(values)),
            messages.EXECUTE,
            messages.close_statement(_NAME),
        )
    )


def copy_in(statement: bytes, data: bytes) -> bytes:
    """A COPY FROM STDIN with its data. If it fails, the server passes over what follows up to the next Sync."""
    chunks = (messages.message(b"d", data[begin : begin + _CHUNK_BYTES]) for begin in range(0, len(data), _CHUNK_BYTES))
    return b"".join(
        (
            messages.parse(_NAME, statement),
            messages.bind(_NAME),
            messages.EXECUTE,
            *chunks,
            messages.message(b"c"),
            messages.close_statement(_NAME),
        )
    )


def act_as(role: bytes) -> bytes:
    """Until the transaction ends."""
    return step(b"SELECT pg_catalog.set_config('role', " + quoted_literal(role) + b", true)")


def transaction(*steps: bytes) -> bytes:
    """Up to and including its Sync."""
    return b"".join((step(_FIXED_SETTINGS), *steps, messages.SYNC))


async def converse(asker: Asker, transactions: list[bytes]) -> list[list[Frame]]:
    """The answers to each of ``transactions``, in one round trip. Raises ``ProtocolError`` or ``ConnectionError``."""
    batch = b"".join(part for one in transactions for part in (one, CLEAR))
    for _ in range(_ATTEMPTS):
        answers = (await asker.ask(batch, 2 * len(transactions)))[::2]
        errors = [error for answer in answers if (error := first_error(answer)) is not None]
        # A statement_timeout of a few milliseconds may strike before it is taken away.
        if all(error.sqlstate != _QUERY_CANCELED for error in errors):
            break
    return answers


def results(answer: list[Frame]) -> list[Result]:
    """One for each statement that was completed, without that of the fixed settings."""
    found = [Result([], [])]
    for code, body in answer:
        if code == _DATA_ROW:
            found[-1].rows.append(messages.read_data_row(body))
        elif code == _COPY_DATA:
            found[-1].copied.append(body)
        elif code == _COMMAND_COMPLETE:
            found[-1].tag = body.rstrip(b"\0")
            found.append(Result([], []))
    return found[1:-1]


def text_array(values: Iterable[bytes | None]) -> bytes:
    """One of ``text[]``, as a parameter."""
    return b"{" + b",".join(map(_array_element, values)) + b"}"


def _array_element(value: bytes | None) -> bytes:
    return b"NULL" if value is None else b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def quoted_literal(text: bytes) -> bytes:
    """For a transaction of this module's, where a backslash is like any other letter."""
    return b"'" + text.replace(b"'", b"''") + b"'"
