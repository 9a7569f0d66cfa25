"""``currval()`` and ``lastval()``: what a backend remembers of the sequences that its session has used.

Only functions of ours can read that and have another backend remember it, see docs/decisions/0018. A session that they
cannot help goes on without: then it is told that the value is not defined yet, and never another value.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import structlog
from msgspec import Struct

from verdigris.domain.ports import Helpers
from verdigris.router.exchange import Frame, first_error, rows
from verdigris.router.state.pieces import quoted_identifier
from verdigris.router.state.private import PRIVATE_PREFIX, RUN
from verdigris.wire.postgres import messages

if TYPE_CHECKING:
    from verdigris.router.dial import Dialled
    from verdigris.router.session import Session
    from verdigris.router.state.examine import Portable
    from verdigris.router.state.survey import Asker

log = structlog.get_logger()

# A database with no more sequences than this is looked through completely: an undefined currval() costs some five
# microseconds, and every one that is asked for a lock until the end of the question.
SCAN_BEFOREHAND: Final = 100
SCAN_IN_PAUSE: Final = 30
# Beyond that the sequence of lastval() is asked for, and those that most sessions were found to have used.
MOST_ASKED_FOR: Final = 30

# Restoring a value makes a server look at all of its shared buffers: 0.5 ms with 128 MB of them, 5 ms with 4 GB. In the
# pause, this long after it has begun with the first, no other is begun.
RECALLING_S: Final = 0.5

QUESTION_NAME: Final = PRIVATE_PREFIX + b"sequences"
_NO_TIMEOUT_NAME = PRIVATE_PREFIX + b"recall_timeout"
_NO_TIMEOUT = b"SELECT pg_catalog.set_config('statement_timeout', '0', true)"
_OID_ARRAY, _INT4, _TEXT, _INT8, _BOOL = 1028, 23, 25, 20, 16
_COLUMNS = 5

# What recall_sequence() ends with when it has done its work.
_RECALLED = "VG001"
_QUERY_CANCELED = "57014"
_ATTEMPTS = 3


class Remembered(Struct, frozen=True):
    """What ``currval()`` says of one sequence."""

    oid: int  # on the source
    schema: bytes  # "pg_temp" for the session's own
    name: bytes
    value: int
    is_last: bool  # lastval() speaks of it


Memory = tuple[Remembered, ...]


class SequenceHelp:
    """The functions that an endpoint's two servers have, and which sequences are worth asking for.

    ``everywhere``: clients of the endpoint have been heard to ask for such values. Else only those sessions are helped
    whose own client has, or whose database has definitions that do: most programs never do, and it costs them nothing.
    """

    def __init__(self, helpers: Helpers, *, everywhere: bool) -> None:
        self._schema = quoted_identifier(helpers.schema.encode())
        self._databases = frozenset(name.encode() for name in helpers.databases)
        self._asking = self._databases if everywhere else frozenset(name.encode() for name in helpers.asking)
        self._used: dict[bytes, Counter[int]] = {}  # database -> oid on the source -> how often it was found
        self._until: float | None = None  # event loop time

    def hurry(self) -> None:
        """Clients are waiting from now on."""
        self._until = asyncio.get_running_loop().time() + RECALLING_S

    @property
    def is_late(self) -> bool:
        return self._until is not None and asyncio.get_running_loop().time() > self._until

    def question(self, session: "Session", *, beforehand: bool) -> bytes | None:
        """A part of a batch, without its Sync; None where there are no functions, or nobody asks."""
        database = _database(session)
        if database not in self._databases:
            return None
        if database not in self._asking and not session.tracker.sequence_values.asked:
            return None
        used = self._used.get(database, Counter())
        candidates = b",".join(b"%d" % oid for oid, _ in used.most_common(MOST_ASKED_FOR))
        scan_up_to = SCAN_BEFOREHAND if beforehand else SCAN_IN_PAUSE
        return b"".join(
            (
                messages.parse(
                    QUESTION_NAME, b"SELECT * FROM %b.session_sequences($1, $2)" % self._schema, [_OID_ARRAY, _INT4]
                ),
                messages.bind(QUESTION_NAME, [b"{" + candidates + b"}", b"%d" % scan_up_to]),
                messages.EXECUTE,
            )
        )

    def found(self, session: "Session", memory: Memory) -> None:
        self._used.setdefault(_database(session), Counter()).update(one.oid for one in memory)

    def call(self, one: Remembered) -> bytes:
        """One transaction, which is always undone. It writes, whatever the session's default is for its own; that has
        to be said before the first question of the transaction, and timeouts of the client's are not for this."""
        query = b"SELECT %b.recall_sequence($1, $2, $3, $4)" % self._schema
        values = [one.schema, one.name, b"%d" % one.value, b"t" if one.is_last else b"f"]
        return b"".join(
            (
                _statement(RUN, b"SET transaction_read_only TO off"),
                _statement(_NO_TIMEOUT_NAME, _NO_TIMEOUT),
                messages.parse(QUESTION_NAME, query, [_TEXT, _TEXT, _INT8, _BOOL]),
                messages.bind(QUESTION_NAME, values),
                messages.EXECUTE,
                messages.SYNC,
                messages.close_statement(RUN),
                messages.close_statement(_NO_TIMEOUT_NAME),
                messages.close_statement(QUESTION_NAME),
                messages.SYNC,
            )
        )


def read(answer: list[Frame]) -> Memory | None:
    """None: the question was refused."""
    if first_error(answer) is not None:
        return None
    return tuple(
        Remembered(int(row[0] or 0), row[1] or b"", row[2] or b"", int(row[3] or 0), row[4] == b"t")
        for row in rows(answer)
        if len(row) == _COLUMNS
    )


async def carry_sequences(session: "Session", dialled: "Dialled", found: "Portable") -> None:
    """Have the dialled connection remember what ``session`` does, and nothing else; on a standby, that is owed.

    Raises ``ProtocolError`` or ``ConnectionError``.
    """
    aid, memory = session.endpoint.sequence_help, found.state.sequences
    if memory is None:
        log.warning("session.sequences_unread", endpoint=session.endpoint.name)
        session.endpoint.counters.sequences_forgotten += 1
        memory = ()
    if aid is not None:
        aid.found(session, memory)
    if dialled.in_recovery:
        dialled.owed_sequences = memory if memory or found.temporary is not None else None
    elif dialled.remembers != memory:
        had, dialled.remembers = dialled.remembers, None
        dialled.remembers = await _bring(session, aid, dialled, had, memory)


async def complete_sequences(session: "Session") -> None:
    """Give the session's own backend, which is the target's by now, what could not be given to a standby.

    Raises ``ProtocolError`` or ``ConnectionError``.
    """
    memory, session.owed_sequences = session.owed_sequences, None
    await _bring(session, session.endpoint.sequence_help, session, None, memory or ())


async def _bring(
    session: "Session", aid: SequenceHelp | None, asker: "Asker", had: Memory | None, wanted: Memory
) -> Memory:
    """Returns what the asked backend remembers now: all that was wanted, or nothing at all.

    ``had``: what it has been made to remember before; None if that is unknown.
    """
    if had is None or not _can_stay(had, wanted):
        await _forget(asker)
        had = ()
    stay = {one.oid: one for one in had}
    changed = sorted((one for one in wanted if stay.get(one.oid) != one), key=lambda one: one.is_last)
    if aid is not None and await _recall(asker, aid, changed):
        return wanted
    if wanted:
        await _forget(asker)
        log.warning("session.sequences_forgotten", endpoint=session.endpoint.name, sequences=len(wanted))
        session.endpoint.counters.sequences_forgotten += 1
    return ()


def _can_stay(had: Memory, wanted: Memory) -> bool:
    """Nothing is remembered that is to be forgotten; a later lastval() takes the place of an earlier one."""
    lasting = any(one.is_last for one in wanted) or not any(one.is_last for one in had)
    return lasting and {one.oid for one in had} <= {one.oid for one in wanted}


async def _recall(asker: "Asker", aid: SequenceHelp, memory: Iterable[Remembered]) -> bool:
    """One after the other in transactions of their own, which so never wait for each other in a circle."""
    left = list(memory)
    for _ in range(_ATTEMPTS):
        if not left:
            break
        if aid.is_late:
            return False
        answers = await asker.ask(b"".join(aid.call(one) for one in left), 2 * len(left))
        errors = [first_error(answer) for answer in answers[::2]]
        refusals = [error for error in errors if error is not None and error.sqlstate != _RECALLED]
        if None in errors or any(refusal.sqlstate != _QUERY_CANCELED for refusal in refusals):
            log.info("session.sequence_refused", errors=[str(refusal) for refusal in refusals])
            return False
        # A timeout of a few milliseconds may strike before it is taken away. The order stays: lastval()'s is the last.
        left = [one for one, error in zip(left, errors, strict=True) if error is None or error.sqlstate != _RECALLED]
    return not left


async def _forget(asker: "Asker") -> None:
    await asker.ask(_statement(RUN, b"DISCARD SEQUENCES") + messages.close_statement(RUN) + messages.SYNC, 1)


def _statement(name: bytes, query: bytes) -> bytes:
    return messages.parse(name, query) + messages.bind(name) + messages.EXECUTE


def _database(session: "Session") -> bytes:
    return session.startup.database if session.startup is not None else b""
