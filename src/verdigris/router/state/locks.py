"""Advisory locks of the session: held on the target before any session runs there.

One session is asked for everybody's, once all are parked: to look for its own a server looks at the locks of all, which
takes a thousand sessions milliseconds each.

How often a lock is held is in no catalogue. It is counted by giving it back until there is nothing left to give back,
and taking it as often again; meanwhile the transaction that does so holds the same lock itself, so that nobody else can
get in between. Counted only while the session is parked: nobody can cancel that transaction half way then.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from verdigris.router.exchange import first_error, rows
from verdigris.router.pins import PinReason
from verdigris.router.state.private import PRIVATE_PREFIX
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import ProtocolError

if TYPE_CHECKING:
    from verdigris.router.dial import Dialled
    from verdigris.router.exchange import Frame
    from verdigris.router.session import Session
    from verdigris.wire.postgres.messages import ServerError

_NAME = PRIVATE_PREFIX + b"lock"
_QUIET_NAME = PRIVATE_PREFIX + b"quiet"
# What fails stays behind under its name.
_CLEAR: Final = messages.close_statement(_QUIET_NAME) + messages.close_statement(_NAME) + messages.SYNC
# Somebody who holds a lock more often than this is carried by nobody.
_MAX_HOLDS = 10_000
_ATTEMPTS = 3
_QUERY_CANCELED = "57014"
_COLUMNS = 5
_ONE_KEY = 1  # objsubid of a lock with one key of 64 bits; 2: two keys of 32

# Prepared transactions hold theirs without a process.
_EVERYBODYS: Final = b"""
SELECT l.pid, l.mode, l.classid, l.objid, l.objsubid
  FROM pg_catalog.pg_locks l
 WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.granted AND l.pid IS NOT NULL
"""

# For the length of the transaction: no timeout may strike between giving back and taking again, and the warning that
# ends the count is not for the client.
_QUIET = b"""
SELECT pg_catalog.set_config(s.name, s.quiet, true)
  FROM (VALUES ('statement_timeout', '0'), ('transaction_timeout', '0'), ('client_min_messages', 'error'))
       s (name, quiet)
 WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL
"""

_COUNT = b"""
WITH RECURSIVE given_back (n, more) AS (
    SELECT 0, true
    UNION ALL
    SELECT g.n OPERATOR(pg_catalog.+) 1, pg_catalog.pg_advisory_unlock%(kind)s(%(key)s)
      FROM given_back g WHERE g.more AND g.n OPERATOR(pg_catalog.<) %(max)d
), counted AS MATERIALIZED (
    SELECT pg_catalog.count(*) FILTER (WHERE g.more) OPERATOR(pg_catalog.-) 1 AS n FROM given_back g
)
SELECT c.n, (SELECT pg_catalog.count(pg_catalog.pg_advisory_lock%(kind)s(%(key)s))
               FROM pg_catalog.generate_series(1::pg_catalog.int8, c.n))
  FROM counted c
"""


class AdvisoryLock(Struct, frozen=True, order=True):
    key: tuple[int, ...]  # as pg_advisory_lock() takes them
    shared: bool

    @property
    def _names(self) -> dict[bytes, bytes]:
        # Bare numbers: a negative one in parentheses, or the cast would come before the sign.
        cast = b"::pg_catalog.int8" if len(self.key) == 1 else b"::pg_catalog.int4"
        key = b", ".join(b"(%d)%b" % (part, cast) for part in self.key)
        return {b"key": key, b"kind": b"_shared" if self.shared else b""}

    @property
    def guard(self) -> bytes:
        return b"SELECT pg_catalog.pg_advisory_xact_lock%(kind)s(%(key)s)" % self._names

    @property
    def count(self) -> bytes:
        return _COUNT % {**self._names, b"max": _MAX_HOLDS}

    def take(self, times: int) -> bytes:
        return (
            b"SELECT pg_catalog.count(*) FROM pg_catalog.generate_series(1, %(times)d)"
            b" WHERE pg_catalog.pg_try_advisory_lock%(kind)s(%(key)s)" % {**self._names, b"times": times}
        )


Held = Mapping[int, frozenset[AdvisoryLock]]  # by the pid of the server process


async def everybodys(sessions: "Iterable[Session]") -> Held:
    """The locks of a backend's sessions, from the first of ``sessions`` that answers; all of them are parked.

    Raises ``ConnectionError`` if none does.
    """
    batch = _statement(_QUIET_NAME, _QUIET) + _statement(_NAME, _EVERYBODYS) + messages.SYNC
    for session in sessions:
        try:
            answer, refusal = await _ask(session, batch)
        except (ConnectionError, ProtocolError):
            continue  # it has ended, or something of ours is still under way
        if refusal is None:
            return _read(row for row in rows(answer) if len(row) == _COLUMNS)
    raise ConnectionError("no session could be asked for advisory locks")


async def _ask(session: "Session", batch: bytes) -> "tuple[list[Frame], ServerError | None]":
    """A timeout of a few milliseconds, or one that began to run with a batch of the client's, may strike before it is
    taken away: nothing has been done by then."""
    for _ in range(_ATTEMPTS):
        answer, _cleared = await session.ask(batch + _CLEAR, 2)
        refusal = first_error(answer)
        if refusal is None or refusal.sqlstate != _QUERY_CANCELED:
            break
    return answer, refusal


def _read(found: "Iterable[list[bytes | None]]") -> Held:
    held: dict[int, set[AdvisoryLock]] = {}
    for pid, mode, *fields in found:
        held.setdefault(int(pid or 0), set()).add(_lock(mode or b"", *(int(field or 0) for field in fields)))
    return {pid: frozenset(locks) for pid, locks in held.items()}


def _lock(mode: bytes, high: int, low: int, kind: int) -> AdvisoryLock:
    """classid, objid and objsubid, the first two as unsigned numbers of 32 bits."""
    key = (_signed(high << 32 | low, 64),) if kind == _ONE_KEY else (_signed(high, 32), _signed(low, 32))
    return AdvisoryLock(key, shared=mode == b"ShareLock")


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


async def carry_locks(session: "Session", dialled: "Dialled", locks: frozenset[AdvisoryLock]) -> PinReason | None:
    """Take on the target every lock that the session, which is parked, holds, as often as it holds it.

    Raises ``ProtocolError`` or ``ConnectionError``.
    """
    if not locks:
        return None
    ordered = sorted(locks)
    held = await _counts(session, ordered)
    if held is None:
        return PinReason.ADVISORY_LOCKS
    batch = b"".join(_statement(_NAME, lock.take(times)) for lock, times in zip(ordered, held, strict=True))
    [answer] = await dialled.ask(batch + messages.SYNC, 1)
    if first_error(answer) is not None or [int(row[0] or 0) for row in rows(answer)] != held:
        return PinReason.ADVISORY_LOCKS
    return None


async def _counts(session: "Session", locks: list[AdvisoryLock]) -> list[int] | None:
    """One transaction: first every lock is held by it, then each is counted."""
    statements = [_statement(_QUIET_NAME, _QUIET)]
    statements += [_statement(_NAME, lock.guard) for lock in locks]
    statements += [_statement(_NAME, lock.count) for lock in locks]
    answer, refusal = await _ask(session, b"".join(statements) + messages.SYNC)
    if refusal is not None:
        return None
    counted = [(int(row[0] or 0), int(row[1] or 0)) for row in rows(answer) if len(row) == 2]
    held = [given_back for given_back, taken in counted if given_back == taken and 0 < given_back < _MAX_HOLDS]
    return held if len(held) == len(locks) else None


def _statement(name: bytes, statement: bytes) -> bytes:
    return b"".join(
        (messages.parse(name, statement), messages.bind(name), messages.EXECUTE, messages.close_statement(name))
    )
