"""Rows: advisory locks of the session. Mutual exclusion never lapses."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.matrix.case import case
from tests.matrix.stage import GREEN, LIMIT_S, Stage, assert_on_green, value

if TYPE_CHECKING:
    import psycopg

# Each once per time it was taken: of one key and of two, exclusive and shared, at the ends of their ranges.
_LOCKS = Counter(
    {
        "pg_advisory_lock(7001)": 1,
        "pg_advisory_lock(-9223372036854775808)": 3,
        "pg_advisory_lock(9223372036854775807)": 2,
        "pg_advisory_lock_shared(7002)": 2,
        "pg_advisory_lock(7001, 1)": 1,
        "pg_advisory_lock(-2147483648, 2147483647)": 2,
        "pg_advisory_lock_shared(7002, 2)": 3,
        # Both ways of one key.
        "pg_advisory_lock(7003)": 1,
        "pg_advisory_lock_shared(7003)": 2,
    }
)
_HELD = """
    SELECT classid, objid, objsubid, mode FROM pg_locks
     WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted ORDER BY 1, 2, 3, 4
"""


@case("advisory locks", "psycopg")
def locks(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        for lock in _LOCKS.elements():
            connection.execute(f"SELECT {lock}")
        before = connection.execute(_HELD).fetchall()
        assert len(before) == len(_LOCKS)
        going = stage.meanwhile(_contend, stage, 7001)
        yield
        tries = going.result(LIMIT_S)
        assert tries.keys() == {("17.10", False), (GREEN, False)}, tries
        assert connection.execute(_HELD).fetchall() == before
        for lock, count in _LOCKS.items():
            unlock = lock.replace("_lock", "_unlock")
            assert [value(connection, f"SELECT {unlock}") for _ in range(count)] == [True] * count
            assert value(connection, f"SELECT {unlock}") is False
        assert connection.execute(_HELD).fetchall() == []
        assert_on_green(connection)


def _contend(stage: Stage, key: int) -> Counter[tuple[str, bool]]:
    """How often another session got the lock, by the version of the server. It is there before and afterwards."""
    seen: Counter[tuple[str, bool]] = Counter()
    with stage.connect() as contender:
        while True:
            last = stage.over.is_set()
            for connection in (contender, None):
                seen[_try(stage, connection, key)] += 1
            if last:
                return seen


def _try(stage: Stage, connection: "psycopg.Connection[Any] | None", key: int) -> tuple[str, bool]:
    if connection is None:
        with stage.connect() as fresh:
            return _try(stage, fresh, key)
    row = connection.execute(
        "SELECT current_setting('server_version'), pg_try_advisory_lock(k), pg_try_advisory_lock_shared(k)"
        " FROM (VALUES (%s)) AS keys (k)",
        (key,),
    ).fetchone()
    assert row is not None
    return str(row[0]), bool(row[1] or row[2])


@case("waiting for an advisory lock", "psycopg")
def waiting(stage: Stage) -> Iterator[None]:
    """Who waits is in a request: the switchover waits for it, until the holder gives the lock up."""
    with stage.connect() as holder, stage.connect() as waiter:
        holder.execute("SELECT pg_advisory_lock(7100)")
        going = stage.meanwhile(lambda: waiter.execute("SELECT pg_advisory_lock(7100)"))
        ending = stage.once_attempted(lambda: value(holder, "SELECT pg_advisory_unlock(7100)"))
        yield
        assert ending.result(LIMIT_S) is True
        going.result(LIMIT_S)
        assert value(holder, "SELECT pg_try_advisory_lock(7100)") is False
        assert value(waiter, "SELECT pg_advisory_unlock(7100)") is True
        assert value(holder, "SELECT pg_try_advisory_lock(7100)") is True
        assert_on_green(holder)
        assert_on_green(waiter)


@case("shared advisory lock of two sessions", "psycopg")
def shared(stage: Stage) -> Iterator[None]:
    with stage.connect() as one, stage.connect() as other, stage.connect() as third:
        for connection in (one, other):
            connection.execute("SELECT pg_advisory_lock_shared(7200)")
        yield
        assert value(third, "SELECT pg_try_advisory_lock(7200)") is False
        assert value(one, "SELECT pg_advisory_unlock_shared(7200)") is True
        assert value(third, "SELECT pg_try_advisory_lock(7200)") is False
        assert value(other, "SELECT pg_advisory_unlock_shared(7200)") is True
        assert value(third, "SELECT pg_try_advisory_lock(7200)") is True
