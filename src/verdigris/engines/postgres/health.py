"""How far green is behind, and whether it has fallen off for good."""

import time

from msgspec import Struct
from psycopg import sql

from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Database, Session, for_each, list_databases, session

# How long changes may fail to apply, again and again and without progress, until that is taken for permanent. A worker
# tries every wal_retrieve_retry_interval (200 ms here), so this is some fifty attempts: no deadlock or lock timeout.
ERROR_LOOP_S = 10.0

_SLOTS = sql.SQL("""
    SELECT slot_name, wal_status = 'lost', active, pg_wal_lsn_diff(pg_current_wal_lsn(), coalesce(
               (SELECT replay_lsn FROM pg_stat_replication r WHERE r.pid = s.active_pid),
               confirmed_flush_lsn, restart_lsn))::bigint
      FROM pg_replication_slots s
     WHERE slot_name = %s OR starts_with(slot_name, %s)
""")

_SUBSCRIPTION = sql.SQL("""
    SELECT s.subenabled, t.apply_error_count, o.remote_lsn::text
      FROM pg_subscription s
      JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()
      LEFT JOIN pg_stat_subscription_stats t ON t.subid = s.oid
      LEFT JOIN pg_replication_origin_status o ON o.external_id = 'pg_' || s.oid
     WHERE s.subname = %s
""")


class _Trouble(Struct):
    """A subscription that fails: since when, and what it had reached then."""

    since_s: float
    errors: int
    remote_lsn: str | None


class HealthMonitor:
    """Remembers failing subscriptions between two looks; a new control plane simply needs ten seconds more."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Trouble] = {}

    def forget(self, names: ObjectNames) -> None:
        self._seen = {key: trouble for key, trouble in self._seen.items() if key[0] != names.base}

    async def lag_bytes(self, source: PostgresServer, target: PostgresServer, names: ObjectNames) -> int | None:
        """Of the slot that is farthest behind; None unless every one of them has somebody who follows."""
        if not (source.is_running() and target.is_running()):
            return None
        async with session(source) as connection:
            slots = await connection.rows(_SLOTS, names.base, names.base + "_")
        if not slots or not all(active for _, _, active, _ in slots):
            return None
        return max(0, *(lag or 0 for *_, lag in slots))

    async def problem(
        self, mode: ReplicationMode, source: PostgresServer, target: PostgresServer, names: ObjectNames
    ) -> str | None:
        """None also while a server is down: one that restarts is well again in a moment."""
        if source.is_running() and (problem := await self._slot_problem(mode, source, names)):
            return problem
        if not target.is_running():
            return None
        if mode is ReplicationMode.PHYSICAL:
            async with session(target) as connection:
                if not await connection.value("SELECT pg_is_in_recovery()"):
                    return "green was promoted and no longer follows blue"
            return None
        return await self._subscription_problem(target, names)

    async def _slot_problem(self, mode: ReplicationMode, source: PostgresServer, names: ObjectNames) -> str | None:
        async with session(source) as connection:
            slots = await connection.rows(_SLOTS, names.base, names.base + "_")
        lost = [name for name, is_lost, *_ in slots if is_lost]
        if lost:
            return (
                f"replication slot {lost[0]} was given up because green fell too far behind"
                " (max_slot_wal_keep_size protects blue's disk): delete the deployment and create it again"
            )
        expected = names.physical_slot if mode is ReplicationMode.PHYSICAL else names.base + "_"
        if not any(name.startswith(expected) for name, *_ in slots):
            return "blue's replication slot for green is gone"
        return None

    async def _subscription_problem(self, target: PostgresServer, names: ObjectNames) -> str | None:
        async def look(database: Database) -> str | None:
            async with session(target, database.name) as connection:
                return await self._one_subscription(connection, names, database.name)

        problems = await for_each(await list_databases(target), look)
        return next((problem for problem in problems.values() if problem), None)

    async def _one_subscription(self, connection: Session, names: ObjectNames, database: str) -> str | None:
        rows = await connection.rows(_SUBSCRIPTION, names.subscription)
        if not rows:
            if not await connection.value("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", names.schema):
                return None  # a database that was made on green
            return f"green's subscription in database {database} is gone"
        enabled, errors, remote_lsn = rows[0]
        if not enabled:
            return f"green's subscription in database {database} is disabled"
        key, now_s = (names.base, database), time.monotonic()
        before = self._seen.get(key)
        if before is None or before.remote_lsn != remote_lsn or errors == before.errors:
            self._seen[key] = _Trouble(now_s, errors or 0, remote_lsn)
            return None
        if now_s - before.since_s < ERROR_LOOP_S:
            return None
        return (
            f"green cannot apply changes of database {database} ({errors - before.errors} failed attempts,"
            " see green's log): a change that was made on green, or to blue's schema, is in the way"
        )
