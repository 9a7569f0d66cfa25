"""The guardrails of RDS, under its names: what must be true before a switchover is begun.

RDS does not publish its thresholds. Ours, with reasons, are the constants here.
"""

from verdigris.domain.ports import Finding
from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres import config, fingerprint
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import (
    MAINTENANCE_DATABASE,
    Database,
    Session,
    for_each,
    list_databases,
    session,
    sessions,
)
from verdigris.engines.postgres.source_checks import (
    UNSUPPORTED,
    external_replication,
    filled_unlogged_tables,
    listed,
    prepared_transactions,
)

REPLICATION_HEALTH = "Replication health"
REPLICATION_LAG = "Replication lag"
ACTIVE_WRITES = "Active writes"
LONG_WRITES = "Long-running active writes"
LONG_DDL = "Long-running DDL"

# An apply worker was seen to apply some 20 MB of WAL a second: what is behind by this much is there in about ten
# seconds. The switchover waits for it before the pause begins, so the guardrail only has to stop hopeless attempts.
LAG_LIMIT_BYTES = 256 * 1024**2
# A transaction that has written for so long will not end within the budget of a pause, which is about a second, and
# to repeat the attempt until it does only hurts others.
LONG_WRITE_S = 10.0
# Exclusive locks that others meet are held for milliseconds; one held for longer is a table being rewritten, or
# an open transaction with DDL in it.
LONG_DDL_S = 3.0

_WRITERS = """
    SELECT format('process %%s (%%s@%%s)', pid, usename, datname)
      FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND usename <> %s AND backend_xid IS NOT NULL
       AND clock_timestamp() - xact_start >= make_interval(secs => %s)
     ORDER BY xact_start
"""

_DDL = """
    SELECT DISTINCT format('process %%s (%%s@%%s)', a.pid, a.usename, a.datname)
      FROM pg_stat_activity a
     WHERE a.backend_type = 'client backend' AND a.usename <> %s
       AND clock_timestamp() - a.xact_start >= make_interval(secs => %s)
       AND (a.pid IN (SELECT pid FROM pg_stat_progress_create_index UNION ALL SELECT pid FROM pg_stat_progress_cluster)
            OR EXISTS (SELECT FROM pg_locks l
                        WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation'
                          AND l.mode IN ('AccessExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')))
     ORDER BY 1
"""


def replication_health(problem: str | None) -> list[Finding]:
    return [] if problem is None else [_finding(REPLICATION_HEALTH, f"{problem}.")]


def replication_lag(lag_bytes: int | None) -> list[Finding]:
    if lag_bytes is None:
        return [_finding(REPLICATION_HEALTH, "Green is not connected to blue at the moment.")]
    if lag_bytes <= LAG_LIMIT_BYTES:
        return []
    return [_finding(REPLICATION_LAG, f"Green is {lag_bytes >> 20} MiB behind; the limit is {LAG_LIMIT_BYTES >> 20}.")]


async def target_findings(target: PostgresServer) -> list[Finding]:
    async with session(target) as connection:
        if not await connection.value("SELECT pg_is_in_recovery()"):
            writers = await _writers(connection, 0.0)
            if writers:
                return [_finding(ACTIVE_WRITES, f"Sessions are writing on green: {listed(writers)}. End them.")]
    return []


async def source_findings(mode: ReplicationMode, source: PostgresServer, names: ObjectNames) -> list[Finding]:
    findings: list[Finding] = []
    if mode is ReplicationMode.PHYSICAL:
        findings += await _filled_unlogged_findings(source)
    async with session(source) as connection:
        if mode is ReplicationMode.LOGICAL:
            findings += await external_replication(connection, names)
            if prepared := await prepared_transactions(connection):
                findings.append(_finding(LONG_WRITES, f"Prepared transactions are open: {listed(prepared)}."))
        if writers := await _writers(connection, LONG_WRITE_S):
            message = f"Transactions have been writing for more than {LONG_WRITE_S:g} s: {listed(writers)}."
            findings.append(_finding(LONG_WRITES, message))
        rows = await connection.rows(_DDL, config.ADMIN_ROLE, LONG_DDL_S)
        if rows:
            what = listed([row[0] for row in rows])
            findings.append(_finding(LONG_DDL, f"DDL has been running for more than {LONG_DDL_S:g} s: {what}."))
    return findings


async def unsupported_changes(source: PostgresServer, target: PostgresServer, names: ObjectNames) -> list[Finding]:
    """What was done on blue since green was made and that logical replication does not carry, by name."""
    on_target = {database.name for database in await list_databases(target)}

    async def look(database: Database) -> list[Finding]:
        if database.name not in on_target:
            return [_unsupported(f"database {database.name} (created)")]
        async with sessions(source, target, database.name) as (ours, theirs):
            shared = database.name == MAINTENANCE_DATABASE
            changes = await fingerprint.changes(ours, theirs, names, shared=shared)
            return [_unsupported(f"database {database.name}: {listed([str(c) for c in changes])}")] if changes else []

    found = await for_each(await list_databases(source), look)
    findings = [finding for findings in found.values() for finding in findings]
    return findings + await _filled_unlogged_findings(source)


async def _filled_unlogged_findings(source: PostgresServer) -> list[Finding]:
    """They were empty, or not there, when the deployment was made."""

    async def look(database: Database) -> list[str]:
        async with session(source, database.name) as connection:
            return [f"{database.name}: {table}" for table in await filled_unlogged_tables(connection)]

    found = await for_each(await list_databases(source), look)
    filled = [name for names in found.values() for name in names]
    if not filled:
        return []
    message = f"Unlogged tables have rows, which green does not get: {listed(filled)}. Empty them or make them logged."
    return [_finding(UNSUPPORTED, message)]


def _unsupported(what: str) -> Finding:
    return _finding(
        UNSUPPORTED,
        f"Logical replication does not carry changes of definitions, and blue's were changed: {what}."
        " Undo them, or delete the deployment and create it again.",
    )


async def _writers(connection: Session, older_than_s: float) -> list[str]:
    return [row[0] for row in await connection.rows(_WRITERS, config.ADMIN_ROLE, older_than_s)]


def _finding(guardrail: str, message: str) -> Finding:
    return Finding(guardrail=guardrail, message=message)
