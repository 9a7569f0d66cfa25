"""What every session of ours begins with, whatever the server, a database or a role says.

Its user is a superuser and its databases are their owners', who may say what a session in them begins with (ALTER
DATABASE ... SET) and what stands in their schemas. None of it may lead ours: not where names are looked up, not what a
relation turns into between two looks, not how long anything may take. Given at start-up, so they beat those settings.
"""

from collections.abc import Mapping

from verdigris.domain.versions import PostgresVersion

APPLICATION_NAME = "verdigris"

Setting = str | None  # None: as the server has it

_SETTINGS: Mapping[str, str] = {
    # A superuser who looks names up in public runs what others put there.
    "search_path": "",
    # A name that was a sequence's or a table's a moment ago may be a view's now, which calls functions as whoever reads
    # it (the hole that pg_dump had: CVE-2024-7348).
    "restrict_nonsystem_relation_kind": "view,foreign-table",
    # A library that is not there keeps a session from beginning.
    "local_preload_libraries": "",
    "role": "none",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_deferrable": "off",
    "session_replication_role": "origin",
    "standard_conforming_strings": "on",
    # Durable here; waiting for somebody's synchronous standby is not ours to do.
    "synchronous_commit": "local",
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    # Verifiers pass through our statements.
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_error_statement": "panic",
    "jit": "off",
}

# For definitions of ours. Event triggers of users that are not ENABLE ALWAYS stay silent: one that takes DDL down would
# write on green by itself, and one that forbids it would keep us from taking away what is ours.
UNNOTICED: Mapping[str, Setting] = {"session_replication_role": "replica"}

# Where a setting came with a minor version (of August 2024), by major version.
_RESTRICTS_RELATIONS_SINCE = {14: 13, 15: 8, 16: 4}
_TRANSACTION_TIMEOUT_SINCE = 17


def options(version: PostgresVersion, changes: Mapping[str, Setting] | None = None) -> str:
    """libpq's ``options`` for a session on a server of ``version``; ``changes`` to what is otherwise asked for."""
    given = {name: value for name, value in {**_SETTINGS, **(changes or {})}.items() if value is not None}
    return " ".join(f"-c {name}={value}" for name, value in given.items() if _knows(version, name))


def _knows(version: PostgresVersion, setting: str) -> bool:
    if setting == "transaction_timeout":
        return version.major >= _TRANSACTION_TIMEOUT_SINCE
    if setting == "restrict_nonsystem_relation_kind":
        return version.minor >= _RESTRICTS_RELATIONS_SINCE.get(version.major, 0)
    return True
