"""Kinds of server processes: PostgreSQL's own, and those that a library brings along and that nobody connects for."""

from psycopg import sql

from verdigris.engines.postgres.sessions import Session

# backend_type of PostgreSQL's own processes, 14 to 18 (GetBackendTypeDesc, and the names of its background workers).
OWN_BACKENDS = (
    "archiver", "autovacuum launcher", "autovacuum worker", "background writer", "checkpointer", "client backend",
    "io worker", "logger", "logical replication apply worker", "logical replication launcher",
    "logical replication parallel worker", "logical replication tablesync worker", "logical replication worker",
    "parallel worker", "slotsync worker", "standalone backend", "startup", "walreceiver", "walsender",
    "walsummarizer", "walwriter",
)  # fmt: skip
# They only read, or write what is no table.
HARMLESS_BACKENDS = ("autoprewarm worker", "pg_wait_sampling collector")

# Preloaded libraries that are known to begin no worker, or one of those.
_HARMLESS_LIBRARIES = (
    "auth_delay", "auto_explain", "basic_archive", "passwordcheck", "pg_hint_plan", "pg_prewarm", "pg_qualstats",
    "pg_stat_kcache", "pg_stat_statements", "pg_wait_sampling", "pgaudit", "plpgsql", "plpgsql_check", "sepgsql",
)  # fmt: skip

# A worker that has just ended, and that the server will begin again, shows by its library only.
_MAY_BEGIN_BY_THEMSELVES = sql.SQL("""
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type <> ALL(%s))
        OR EXISTS (SELECT FROM regexp_split_to_table(current_setting('shared_preload_libraries'), '[\\s,"]+') AS l
                    WHERE l <> '' AND regexp_replace(l, '^.*/|\\.so$', '', 'g') <> ALL(%s))
""")


async def may_begin_by_themselves(connection: Session) -> bool:
    """Whether there is, or may be in a moment, a process of an extension's that does nobody knows what."""
    known = [*OWN_BACKENDS, *HARMLESS_BACKENDS]
    return bool(await connection.value(_MAY_BEGIN_BY_THEMSELVES, known, list(_HARMLESS_LIBRARIES)))
