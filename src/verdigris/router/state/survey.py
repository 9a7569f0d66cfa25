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
from verdigris.router.state import channels, prepared, sequences, settings
from verdigris.router.state.prepared import Prepared
from verdigris.router.state.private import PRIVATE_PREFIX
from verdigris.router.state.sequences import Memory
from verdigris.wire.postgres import messages

if TYPE_CHECKING:
    from collections.abc import Iterable

_TEXT_OID = 25
_TEXT_ARRAY_OID = 1009
_NAME = PRIVATE_PREFIX + b"survey"
_TIMEOUT_NAME = PRIVATE_PREFIX + b"timeout"
_NO_TIMEOUT_NAME = PRIVATE_PREFIX + b"no_timeout"
_INVALID_STATEMENT_NAME = "26000"
_QUERY_CANCELED = "57014"
_ATTEMPTS = 3

# A timeout that could strike a question is taken away, for the length of one batch: it is a transaction of its own. It
# is read before, and cannot be asked for its source then. A longer one is left as it is, and shows with other settings.
_IS_SHORT = b"""
pg_catalog.current_setting('statement_timeout') OPERATOR(pg_catalog.<>) '0'
 AND pg_catalog.current_setting('statement_timeout')::pg_catalog.interval OPERATOR(pg_catalog.<)
     '%(limit)dms'::pg_catalog.interval
""" % {b"limit": settings.SHORT_TIMEOUT_MS}
_TIMEOUT = b"SELECT 'timeout', pg_catalog.current_setting('statement_timeout'), NULL, NULL WHERE" + _IS_SHORT
_NO_TIMEOUT = b"SELECT pg_catalog.set_config('statement_timeout', '0', true) WHERE" + _IS_SHORT

# CASE, and not AND, keeps the look-up from running in the many sessions that have no temporary schema.
_TEMPORARY = b"""
SELECT 'temporary', NULL, NULL, NULL
 WHERE CASE WHEN pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.=) '0'::pg_catalog.oid THEN false
       ELSE EXISTS (SELECT FROM pg_catalog.pg_depend d
                     WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
                       AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) END
"""

_CURSORS = b"""
SELECT 'cursors', NULL, NULL, NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors k WHERE k.is_holdable)
"""

# Each row has four columns of text: what it is, then what that kind needs.
_SURVEY = b"UNION ALL".join((settings.QUESTION, prepared.QUESTION, channels.QUESTION, _TEMPORARY, _CURSORS))


class SessionState(Struct, frozen=True, kw_only=True):
    """What a session has that its start-up parameters did not give it. Bytes are in its ``client_encoding``."""

    settings: dict[bytes, bytes]
    custom: dict[bytes, bytes]
    login: bytes  # the user of its start-up packet
    authorization: bytes | None  # what SET SESSION AUTHORIZATION said, if that is another user than the login
    role: bytes  # "none", or what SET ROLE said
    prepared: dict[bytes, Prepared]
    has_unnamed: bool
    channels: frozenset[bytes]
    has_temporary: bool  # objects: see ``temporary``
    has_cursors: bool  # WITH HOLD: see ``cursors``
    sequences: Memory | None = ()  # None: they could not be read


class StateUnreadable(Exception):
    """The backend refused the question."""

    def __init__(self, text: str, sqlstate: str = "") -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class Asker(Protocol):
    """A session, or a connection dialled for one."""

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]: ...


def survey_batch(login: bytes, custom_names: "Iterable[bytes]", of_sequences: bytes | None = None) -> bytes:
    """Three Syncs: the question, its clearing away even if it failed, and the unnamed statement.

    The question ``of_sequences``, if any, comes second and has its own Sync: whatever becomes of it, the rest stands.
    """
    second = (messages.bind(_NO_TIMEOUT_NAME), messages.EXECUTE, of_sequences, messages.SYNC) if of_sequences else ()
    return b"".join(
        (
            messages.parse(_TIMEOUT_NAME, _TIMEOUT),
            messages.bind(_TIMEOUT_NAME),
            messages.EXECUTE,
            messages.parse(_NO_TIMEOUT_NAME, _NO_TIMEOUT),
            messages.bind(_NO_TIMEOUT_NAME),
            messages.EXECUTE,
            messages.parse(_NAME, _SURVEY, [_TEXT_ARRAY_OID, _TEXT_OID]),
            messages.bind(_NAME, [_text_array(custom_names), login]),
            messages.EXECUTE,
            messages.SYNC,
            *second,
            messages.close_statement(sequences.QUESTION_NAME),
            messages.close_statement(_TIMEOUT_NAME),
            messages.close_statement(_NO_TIMEOUT_NAME),
            messages.close_statement(_NAME),
            messages.SYNC,
            messages.describe_statement(b""),
            messages.SYNC,
        )
    )


SURVEY_SYNCS = 3


async def survey(
    asker: Asker, login: bytes, custom_names: "Iterable[bytes]", of_sequences: bytes | None = None
) -> SessionState:
    """Raises ``StateUnreadable``, ``ProtocolError`` or ``ConnectionError``."""
    batch = survey_batch(login, custom_names, of_sequences)
    syncs = SURVEY_SYNCS + (of_sequences is not None)
    for attempt in range(_ATTEMPTS):
        try:
            return read_survey(login, await asker.ask(batch, syncs))
        except StateUnreadable as error:
            # A statement_timeout of a few milliseconds may strike before it is taken away.
            if error.sqlstate != _QUERY_CANCELED or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def read_survey(login: bytes, segments: list[list[Frame]]) -> SessionState:
    """Raises ``StateUnreadable``."""
    refusal = first_error(segments[0])
    if refusal is not None:
        raise StateUnreadable(str(refusal), refusal.sqlstate)
    try:
        memory = sequences.read(segments[1]) if len(segments) > SURVEY_SYNCS else ()
        return _read(login, segments[0], segments[-1], memory)
    except (LookupError, ValueError) as error:
        raise StateUnreadable(f"the answer makes no sense: {error!r}") from error


def _read(login: bytes, question: list[Frame], unnamed: list[Frame], memory: Memory | None) -> SessionState:
    found: dict[bytes, list[tuple[bytes, bytes | None, bytes | None]]] = {}
    for row in rows(question):
        if len(row) == 4:  # not the row of set_config
            kind, name, value, extra = row
            found.setdefault(kind or b"", []).append((name or b"", value, extra))
    unnamed_error = first_error(unnamed)
    return SessionState(
        settings=settings.read_settings(found),
        custom=settings.read_custom(found),
        login=login,
        authorization=settings.read_authorization(found),
        role=settings.read_role(found),
        prepared=prepared.read(found),
        has_unnamed=unnamed_error is None or unnamed_error.sqlstate != _INVALID_STATEMENT_NAME,
        channels=channels.read(found),
        has_temporary=b"temporary" in found,
        has_cursors=b"cursors" in found,
        sequences=memory,
    )


def _text_array(values: "Iterable[bytes]") -> bytes:
    quoted = (b'"' + re.sub(rb'(["\\])', rb"\\\1", value) + b'"' for value in values)
    return b"{" + b",".join(quoted) + b"}"
