"""Asking a backend for the state of one session, in the session itself.

The question runs as the session's user, under whatever that user has set, so nothing in it depends on ``search_path``
(every function, operator and type is named with its schema), on how strings are quoted (there is no backslash), on
``client_encoding`` (all that is not ASCII is data, and goes to the other server under the same encoding), or on
``statement_timeout``. It uses statements of a name of its own: the client's unnamed one has to live.
"""

import re
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from verdigris.router.exchange import Frame, first_error, rows
from verdigris.router.pins import PinReason
from verdigris.router.probe import PRIVATE_PREFIX
from verdigris.wire.postgres import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

_TEXT_ARRAY_OID = 1009
_NAME = PRIVATE_PREFIX + b"survey"
_TIMEOUT_NAME = PRIVATE_PREFIX + b"timeout"
_NO_TIMEOUT_NAME = PRIVATE_PREFIX + b"no_timeout"
# A longer statement comes back as NULL, and its session is not carried.
_MAX_STATEMENT_BYTES = 1024 * 1024
_INVALID_STATEMENT_NAME = "26000"
_QUERY_CANCELED = "57014"
_ATTEMPTS = 3

# Read before it is taken away, so it is the one setting whose source is not looked at.
_TIMEOUT = b"SELECT 'setting', 'statement_timeout', pg_catalog.current_setting('statement_timeout'), NULL"
# For the length of one batch only: it is a transaction of its own.
_NO_TIMEOUT = b"SELECT pg_catalog.set_config('statement_timeout', '0', true)"

# Four columns of text: what it is, then what that kind needs. Settings of a transaction are not the session's.
# CASE, and not AND, keeps the scans from running in the many sessions that have no temporary schema.
# default_transaction_read_only may come from the role or the database; a dialled connection overrides those.
_SURVEY = b"""
SELECT 'setting', s.name, s.setting, NULL
  FROM pg_catalog.pg_settings s
 WHERE (s.source OPERATOR(pg_catalog.=) 'session'
        AND s.name OPERATOR(pg_catalog.<>) ALL
            (ARRAY['transaction_isolation', 'transaction_read_only', 'transaction_deferrable', 'statement_timeout']))
    OR (s.name OPERATOR(pg_catalog.=) 'default_transaction_read_only'
        AND s.source OPERATOR(pg_catalog.=) ANY (ARRAY['database', 'user', 'database user']))
UNION ALL
SELECT 'custom', c.name, pg_catalog.current_setting(c.name, true), NULL
  FROM pg_catalog.unnest($1) c (name)
UNION ALL
SELECT 'role', pg_catalog.current_setting('role'), NULL, NULL
UNION ALL
SELECT 'prepared', p.name,
       CASE WHEN pg_catalog.octet_length(p.statement) OPERATOR(pg_catalog.<=) %(max)d THEN p.statement END,
       p.from_sql::pg_catalog.text OPERATOR(pg_catalog.||) ' '
         OPERATOR(pg_catalog.||) p.parameter_types::pg_catalog.oid[]::pg_catalog.text
  FROM pg_catalog.pg_prepared_statements p
 WHERE pg_catalog.left(p.name, %(prefix)d) OPERATOR(pg_catalog.<>) '%(private)s'
UNION ALL
SELECT 'pin', '%(session_authorization)s', NULL, NULL
 WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a, pg_catalog.pg_roles r
                WHERE r.oid OPERATOR(pg_catalog.=) a.usesysid AND r.rolname OPERATOR(pg_catalog.<>) SESSION_USER)
UNION ALL
SELECT 'pin', '%(listen)s', NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels())
UNION ALL
SELECT 'pin', '%(locks)s', NULL, NULL
 WHERE EXISTS (SELECT FROM pg_catalog.pg_locks l
                WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory'
                  AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())
UNION ALL
SELECT 'pin', '%(temporary)s', NULL, NULL
 WHERE CASE WHEN pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.=) '0'::pg_catalog.oid THEN false
       ELSE EXISTS (SELECT FROM pg_catalog.pg_class c
                     WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
            OR EXISTS (SELECT FROM pg_catalog.pg_proc f
                        WHERE f.pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
            OR EXISTS (SELECT FROM pg_catalog.pg_type t
                        WHERE t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) END
UNION ALL
SELECT 'pin', '%(cursors)s', NULL, NULL
 WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors k WHERE k.is_holdable)
""" % {
    b"max": _MAX_STATEMENT_BYTES,
    b"prefix": len(PRIVATE_PREFIX),
    b"private": PRIVATE_PREFIX,
    b"session_authorization": PinReason.SESSION_AUTHORIZATION.encode(),
    b"listen": PinReason.LISTEN.encode(),
    b"locks": PinReason.ADVISORY_LOCKS.encode(),
    b"temporary": PinReason.TEMPORARY_OBJECTS.encode(),
    b"cursors": PinReason.HELD_CURSORS.encode(),
}


class Prepared(Struct, frozen=True):
    """A row of ``pg_prepared_statements``."""

    statement: bytes
    from_sql: bool  # made by PREPARE, which is then the statement's text, and not by a Parse message
    parameter_types: tuple[int, ...]


class SessionState(Struct, frozen=True, kw_only=True):
    """What a session has that its start-up parameters did not give it. Bytes are in its ``client_encoding``."""

    settings: dict[bytes, bytes]
    custom: dict[bytes, bytes]
    role: bytes  # "none", or what SET ROLE said
    prepared: dict[bytes, Prepared]
    has_unnamed: bool
    pins: tuple[PinReason, ...]


class StateUnreadable(Exception):
    """The backend refused the question."""

    def __init__(self, text: str, sqlstate: str = "") -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class Asker(Protocol):
    """A session, or a connection dialled for one."""

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]: ...


def survey_batch(custom_names: "Iterable[bytes]") -> bytes:
    """Three Syncs: the question, its clearing away even if it failed, and the unnamed statement."""
    return b"".join(
        (
            messages.parse(_TIMEOUT_NAME, _TIMEOUT),
            messages.bind(_TIMEOUT_NAME),
            messages.EXECUTE,
            messages.parse(_NO_TIMEOUT_NAME, _NO_TIMEOUT),
            messages.bind(_NO_TIMEOUT_NAME),
            messages.EXECUTE,
            messages.parse(_NAME, _SURVEY, [_TEXT_ARRAY_OID]),
            messages.bind(_NAME, [_text_array(custom_names)]),
            messages.EXECUTE,
            messages.SYNC,
            messages.close_statement(_TIMEOUT_NAME),
            messages.close_statement(_NO_TIMEOUT_NAME),
            messages.close_statement(_NAME),
            messages.SYNC,
            messages.describe_statement(b""),
            messages.SYNC,
        )
    )


SURVEY_SYNCS = 3


async def survey(asker: Asker, custom_names: "Iterable[bytes]") -> SessionState:
    """Raises ``StateUnreadable``, ``ProtocolError`` or ``ConnectionError``."""
    batch = survey_batch(custom_names)
    for attempt in range(_ATTEMPTS):
        try:
            return read_survey(await asker.ask(batch, SURVEY_SYNCS))
        except StateUnreadable as error:
            # A statement_timeout of a few milliseconds may strike before it is taken away.
            if error.sqlstate != _QUERY_CANCELED or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def read_survey(segments: list[list[Frame]]) -> SessionState:
    """Raises ``StateUnreadable``."""
    refusal = first_error(segments[0])
    if refusal is not None:
        raise StateUnreadable(str(refusal), refusal.sqlstate)
    try:
        return _read(segments[0], segments[2])
    except (LookupError, ValueError) as error:
        raise StateUnreadable(f"the answer makes no sense: {error!r}") from error


def _read(question: list[Frame], unnamed: list[Frame]) -> SessionState:
    kinds: dict[bytes, list[tuple[bytes, bytes | None, bytes | None]]] = {}
    for row in rows(question):
        if len(row) == 4:  # not the row of set_config
            kind, name, value, extra = row
            kinds.setdefault(kind or b"", []).append((name or b"", value, extra))
    pins = [PinReason(name.decode()) for name, _, _ in kinds.get(b"pin", [])]
    prepared: dict[bytes, Prepared] = {}
    for name, statement, extra in kinds.get(b"prepared", []):
        if statement is None:
            pins.append(PinReason.PREPARED_STATEMENTS)
        else:
            prepared[name] = _prepared(statement, extra or b"")
    unnamed_error = first_error(unnamed)
    return SessionState(
        settings={name: value or b"" for name, value, _ in kinds.get(b"setting", [])},
        custom={name: value for name, value, _ in kinds.get(b"custom", []) if value is not None},
        role=kinds[b"role"][0][0],
        prepared=prepared,
        has_unnamed=unnamed_error is None or unnamed_error.sqlstate != _INVALID_STATEMENT_NAME,
        pins=tuple(pins),
    )


def _prepared(statement: bytes, extra: bytes) -> Prepared:
    """``extra`` is like ``true {23,25}``."""
    from_sql, _, types = extra.partition(b" ")
    return Prepared(statement, from_sql == b"true", tuple(int(oid) for oid in re.findall(rb"[0-9]+", types)))


def _text_array(values: "Iterable[bytes]") -> bytes:
    quoted = (b'"' + re.sub(rb'(["\\])', rb"\\\1", value) + b'"' for value in values)
    return b"{" + b",".join(quoted) + b"}"
