"""How far green is behind, and how long it will take to make up for it."""

import asyncio
import time

from msgspec import Struct
from psycopg import sql

from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Session, session

# One WAL segment: applied in less than a second on any machine that was seen, so not worth measuring.
NOTHING_BYTES = 16 * 1024**2
# The rest of the time is for attempts that are set back.
SHARE_OF_TIMEOUT = 0.5
# Long enough for a large transaction to commit on green; nobody waits for it but the operator who asked.
MEASURED_S = 3.0

_SLOTS = sql.SQL("""
    SELECT slot_name, wal_status = 'lost', active, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
           pg_wal_lsn_diff(coalesce((SELECT replay_lsn FROM pg_stat_replication r WHERE r.pid = s.active_pid),
                                    confirmed_flush_lsn, restart_lsn, '0/0'), '0/0')::bigint
      FROM pg_replication_slots s
     WHERE slot_name = %s OR starts_with(slot_name, %s)
     ORDER BY 1
""")

# A busy apply worker reports to the source only when it comes to rest; what it has committed is known here at once.
_APPLIED = sql.SQL("""
    SELECT s.subslotname, pg_wal_lsn_diff(o.remote_lsn, '0/0')::bigint
      FROM pg_subscription s JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || s.oid
     WHERE s.subname = %s AND o.remote_lsn IS NOT NULL
""")
_REPLAYED = "SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_replay_lsn(), '0/0'), '0/0')::bigint"


class Slot(Struct, frozen=True):
    """Positions are byte offsets in the source's WAL: where it writes, and up to where green has it."""

    name: str
    lost: bool
    active: bool
    written: int
    position: int

    @property
    def lag_bytes(self) -> int:
        return max(0, self.written - self.position)


class Lag(Struct, frozen=True, kw_only=True):
    """Of the slot that is farthest behind. ``gained_bytes``: by how much that became less in ``seconds``; both are 0 if
    it was too little to be measured."""

    bytes: int
    gained_bytes: int = 0
    seconds: float = 0.0

    def too_far(self, timeout_s: float) -> str | None:
        """What is wrong with it, if it is not made up for within our share of ``timeout_s``."""
        if not self.seconds or self.bytes <= NOTHING_BYTES:
            return None
        behind = f"{self.bytes >> 20} MiB behind"
        if self.gained_bytes <= 0:
            return f"{behind}, and no nearer after {self.seconds:.1f} s"
        needed_s = self.bytes * self.seconds / self.gained_bytes
        if needed_s <= timeout_s * SHARE_OF_TIMEOUT:
            return None
        speed = self.gained_bytes / self.seconds / 1024**2
        return (
            f"{behind}; gaining {speed:.1f} MiB a second on blue it needs {needed_s:.0f} s, and"
            f" {timeout_s * SHARE_OF_TIMEOUT:.0f} s may be spent on that"
        )


async def read_slots(source: Session, names: ObjectNames) -> list[Slot]:
    return [Slot(*row) for row in await source.rows(_SLOTS, names.base, names.base + "_")]


async def lag_bytes(source: PostgresServer, target: PostgresServer, names: ObjectNames) -> int | None:
    """Of the slot that is farthest behind; None unless every one of them has somebody who follows."""
    if not (source.is_running() and target.is_running()):
        return None
    async with session(source) as connection:
        slots = await read_slots(connection, names)
    if not slots or not all(slot.active for slot in slots):
        return None
    return max(slot.lag_bytes for slot in slots)


async def measure(source: Session, target: Session, names: ObjectNames, mode: ReplicationMode) -> Lag:
    """Takes no time where little is missing, else ``MEASURED_S``."""
    first = await _farthest(source, target, names, mode)
    if first <= NOTHING_BYTES:
        return Lag(bytes=first)
    began_s = time.monotonic()
    await asyncio.sleep(MEASURED_S)
    now = await _farthest(source, target, names, mode)
    return Lag(bytes=now, gained_bytes=first - now, seconds=time.monotonic() - began_s)


async def _farthest(source: Session, target: Session, names: ObjectNames, mode: ReplicationMode) -> int:
    # Target first: what it gets to afterwards must not look like being ahead.
    applied: dict[str, int] = {}
    if mode is ReplicationMode.LOGICAL:
        applied = {slot: lsn for slot, lsn in await target.rows(_APPLIED, names.subscription)}  # noqa: C416 - typed
    else:
        applied[names.physical_slot] = await target.value(_REPLAYED)
    slots = await read_slots(source, names)
    return max((max(0, s.written - max(s.position, applied.get(s.name, 0))) for s in slots), default=0)
