"""What a server's configuration files say. Pure text, no I/O.

``verdigris.conf`` is ours and is included from ``postgresql.conf``; ``ALTER SYSTEM`` (``postgresql.auto.conf``) is read
after it and so stays free for others. Where a server listens is said on its command line instead (see ``server.py``),
because these files travel with a physical copy.
"""

import re
from collections.abc import Mapping

from msgspec import Struct

from verdigris.domain.parameters import MEMORY, evaluate
from verdigris.domain.versions import PostgresVersion
from verdigris.engines.classes import machine_memory_bytes, memory_bytes

SETTINGS_FILE = "verdigris.conf"
INCLUDE_LINE = f"include = '{SETTINGS_FILE}'  # settings that Verdigris manages"

ADMIN_ROLE = "rdsadmin"

# There is no way in but the private socket: see docs on the router, which refuses clients that name rdsadmin.
# As on RDS, roles whose password is stored as an MD5 hash may still come in; "md5" asks all others for SCRAM.
_OURS = f"""\
# Written by Verdigris.
local  all          {ADMIN_ROLE}  scram-sha-256
local  replication  {ADMIN_ROLE}  scram-sha-256
"""
_EVERYBODY = "local  all          all       md5\n"

# Whose members log in with a token, where an instance takes tokens.
TOKEN_ROLE = "rds_iam"  # noqa: S105  a role
_MAP = "router"
# From this version on a map in pg_ident.conf can be for every role.
_MAPS_KNOW_ALL = 16


class TokenLogins(Struct, frozen=True, kw_only=True):
    """``router``: the account that the router runs under, which asks for the tokens and verifies them."""

    master_username: str
    router: str


def hba(version: PostgresVersion, tokens: TokenLogins | None = None) -> str:
    """``pg_hba.conf``. Members of ``rds_iam`` are asked nothing: the router does that (decision 37). The master user
    has its password in any case; it becomes such a member by granting the role."""
    if tokens is None:
        return _OURS + _EVERYBODY
    # Before, the mode of the socket's directory alone keeps everybody else away.
    method = f"peer map={_MAP}" if version.major >= _MAPS_KNOW_ALL else "trust"
    return f"""\
{_OURS}\
local  all          {_quoted(tokens.master_username)}  md5
local  all          +{TOKEN_ROLE}  {method}
{_EVERYBODY}"""


def ident(tokens: TokenLogins | None) -> str:
    """``pg_ident.conf``."""
    return "# Written by Verdigris.\n" + (f"{_MAP}  {_quoted(tokens.router)}  all\n" if tokens else "")


def _quoted(name: str) -> str:
    """Quoted, it is no keyword, nor a group for its first character. The file knows no escape for a quote."""
    if '"' in name or "\n" in name:
        raise ValueError(f"not a name for pg_hba.conf: {name!r}")
    return f'"{name}"'


# A class that RDS does not know gets the settings of its smallest burstable one.
_FALLBACK_CLASS = "db.t4g.micro"

# Slots and senders for: a deployment's physical slot, one logical slot for each database, and clients' own.
_REPLICATION_CONNECTIONS = 50
# An apply worker for each database of a green.
_LOGICAL_WORKERS = 32

# RDS's default groups have these instead of the engine's defaults, in its own formulas. Numbers are in the unit that
# the server has for the setting: pages of 8 kB for the first two, kB, MB.
SYSTEM_VALUES = {
    "shared_buffers": "GREATEST({DBInstanceClassMemory/32768},16)",
    "effective_cache_size": "GREATEST({DBInstanceClassMemory/16384},16)",
    "maintenance_work_mem": "GREATEST({DBInstanceClassMemory*1024/63963136},65536)",
    "autovacuum_work_mem": "GREATEST({DBInstanceClassMemory/32768},131072)",
    # RDS's has no lower bound; a machine with little memory would leave nothing for clients.
    "max_connections": "GREATEST(50,LEAST({DBInstanceClassMemory/9531392},5000))",
    "max_wal_size": "2048",
    "min_wal_size": "192",
}
NO_PARAMETERS: Mapping[str, str] = {}

_ENTRY = re.compile(r"^\s*([A-Za-z_][\w.]*)\s*=\s*'((?:[^']|'')*)'\s*$")


def server_settings(
    version: PostgresVersion, instance_class: str, parameters: Mapping[str, str] = NO_PARAMETERS
) -> dict[str, str]:
    """Settings of a server of ours. The fixed ones are no parameter group's to change."""
    return class_settings(instance_class, parameters) | fixed_settings(version)


def fixed_settings(version: PostgresVersion) -> dict[str, str]:
    """What Verdigris itself depends on."""
    settings = {
        # Both ways of making a green stay open without a restart of the source.
        "wal_level": "logical",
        "max_wal_senders": str(_REPLICATION_CONNECTIONS),
        "max_replication_slots": str(_REPLICATION_CONNECTIONS),
        "max_logical_replication_workers": str(_LOGICAL_WORKERS),
        "max_worker_processes": str(_LOGICAL_WORKERS + 16),
        # How long a walreceiver or apply worker waits before it tries again; the default of 5 s is a long time
        # beside a switchover's pause.
        "wal_retrieve_retry_interval": "200ms",
        "hot_standby": "on",
        "password_encryption": "scram-sha-256",
        # The router terminates TLS; this server is reached by its private socket alone.
        "ssl": "off",
        "logging_collector": "off",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "log_timezone": "UTC",
        "timezone": "UTC",
        # Our own sessions must get in when clients have taken every connection.
        "superuser_reserved_connections": "10",
    }
    if version.major >= 18:
        # Before 18 max_replication_slots bounded origins as well.
        settings["max_active_replication_origins"] = str(_REPLICATION_CONNECTIONS)
    return settings


def class_settings(instance_class: str, parameters: Mapping[str, str] = NO_PARAMETERS) -> dict[str, str]:
    """What RDS's default parameter group derives from ``DBInstanceClassMemory``, and over it ``parameters``: a group's
    own values, which may be formulas as well.

    The memory counted is never more than a quarter of what the machine has, so that a class chosen for its name does
    not keep a server from starting, and source and target, sharing the machine, leave it room: at most a sixteenth of
    it each for shared buffers.
    """
    memory = memory_bytes(instance_class) or memory_bytes(_FALLBACK_CLASS) or 1024**3
    variables = {MEMORY: min(memory, machine_memory_bytes() // 4)}
    return {name: evaluate(value, variables) for name, value in {**SYSTEM_VALUES, **parameters}.items()}


def render_settings(settings: Mapping[str, str]) -> str:
    """The text of ``verdigris.conf``. Raises ``ValueError`` for what a configuration file cannot hold."""
    for name, value in settings.items():
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name) or "\n" in value or "\0" in value:
            raise ValueError(f"not a setting: {name!r}")
    lines = ["# Written by Verdigris, and rewritten by it: put nothing here."]
    lines += [f"{name} = '{_escape(value)}'" for name, value in sorted(settings.items())]
    return "\n".join(lines) + "\n"


def parse_settings(text: str) -> dict[str, str]:
    """Read back what ``render_settings`` wrote."""
    matches = (_ENTRY.match(line) for line in text.splitlines())
    return {match[1]: _unescape(match[2]) for match in matches if match}


def managed(postgresql_conf: str) -> str:
    """``postgresql.conf`` with our include line, once and last, and without its comments.

    Every server process reads all of it at every reload, and eight hundred lines of comments are two thirds of the
    half millisecond that this takes: in a switchover's pause, times the number of sessions.
    """
    lines = [line for line in postgresql_conf.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join([*(line for line in lines if line != INCLUDE_LINE), INCLUDE_LINE]) + "\n"


def _escape(value: str) -> str:
    # guc-file.l understands backslash sequences inside quotes.
    return value.replace("\\", "\\\\").replace("'", "''")


def _unescape(text: str) -> str:
    return text.replace("''", "'").replace("\\\\", "\\")
