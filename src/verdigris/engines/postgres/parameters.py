"""What an operator may set on a server, as its own build describes it: in the words of RDS.

The description comes from the server itself (``pg_settings`` of a scratch cluster in single-user mode), so it is right
for whatever build is installed. Which of it may be changed by a parameter group is decided here, by the manual's
chapters: nothing that opens files, runs commands, loads code, lets somebody in, or is Verdigris's own business.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgspec
from msgspec import Struct

from verdigris.domain.parameters import ApplyType, DataType, ParameterInfo
from verdigris.domain.undoing import to_its_end
from verdigris.domain.versions import PostgresVersion
from verdigris.engines.account import EngineAccount
from verdigris.engines.installations import Installation
from verdigris.engines.postgres import config
from verdigris.engines.process import run_program

_TIMEOUT_S = 60.0

# In hex: single-user mode has no quiet output format, and COPY's text format would escape what JSON has escaped.
_QUERY = """\
COPY (SELECT encode(convert_to(json_build_object('pkglibdir', (SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'),\
 'settings', (SELECT json_agg(s) FROM (SELECT name, category, short_desc, context, vartype, min_val, max_val, enumvals,\
 boot_val FROM pg_settings ORDER BY name) s))::text, 'UTF8'), 'hex')) TO '{path}'
"""

# Chapters of the manual ("Server Configuration") that are not an operator's business here.
_CLOSED_CATEGORIES = (
    "Connections and Authentication / Authentication",
    "Connections and Authentication / Connection Settings",
    "Connections and Authentication / SSL",
    "Connections and Authentication / TCP Settings",
    "Developer Options",
    "Error Handling",
    "File Locations",
    "Preset Options",
    "Replication / ",
    "Reporting and Logging / Process Title",  # the fence recognises processes by their titles
    "Reporting and Logging / Where to Log",
    "Client Connection Defaults / Shared Library Preloading",
    "Version and Platform Compatibility / Other Platforms and Clients",
    "Write-Ahead Log / Archive Recovery",
    "Write-Ahead Log / Archiving",
    "Write-Ahead Log / Recovery",
)
_OPEN_IN_CLOSED_CATEGORIES = frozenset(
    {
        "authentication_timeout",
        "client_connection_check_interval",
        "hot_standby_feedback",
        "max_connections",
        "max_standby_archive_delay",
        "max_standby_streaming_delay",
        "scram_iterations",
        "shared_preload_libraries",
        "track_commit_timestamp",
        "wal_keep_size",
        "wal_sender_timeout",
    }
)
_CLOSED = frozenset(
    {
        "application_name",
        "debug_print_parse",  # would write our own statements, with verifiers in them, to the log
        "debug_print_plan",
        "debug_print_rewritten",
        "default_transaction_read_only",  # who may write where is what a deployment is about
        "dynamic_library_path",
        "dynamic_shared_memory_type",
        "event_triggers",
        "extension_control_path",
        "fsync",
        "full_page_writes",
        "huge_page_size",
        "huge_pages",
        "log_timezone",
        "session_replication_role",
        "shared_memory_type",
        "track_activities",  # the fence and the guardrails look at who is active
        "transaction_deferrable",
        "transaction_isolation",
        "transaction_read_only",
        "transaction_timeout",  # would end our own transactions; a role or a database may have one
        "wal_init_zero",
        "wal_recycle",
        "wal_sync_method",
    }
)

# Libraries that add something to a server and are made to be preloaded: those of them that a build has may be chosen.
_PRELOADABLE = ("auto_explain", "pg_cron", "pg_hint_plan", "pg_prewarm", "pg_stat_statements", "pgaudit", "set_user")


class _Setting(Struct, frozen=True, kw_only=True):
    """A row of ``pg_settings``."""

    name: str
    category: str
    short_desc: str
    context: str
    vartype: str
    min_val: str | None = None
    max_val: str | None = None
    enumvals: list[str] | None = None
    boot_val: str | None = None


class _Description(Struct, frozen=True):
    pkglibdir: str
    settings: list[_Setting]


async def describe(installation: Installation, account: EngineAccount) -> tuple[ParameterInfo, ...]:
    """Every parameter of a build, by name. Takes a second or two. Raises ``EngineError``."""
    description = msgspec.json.decode(await _ask(installation, account), type=_Description)
    managed = frozenset(config.fixed_settings(PostgresVersion.parse(installation.version)))
    preloadable = tuple(name for name in _PRELOADABLE if Path(description.pkglibdir, f"{name}.so").exists())
    return tuple(_info(setting, managed, preloadable) for setting in description.settings)


async def _ask(installation: Installation, account: EngineAccount) -> bytes:
    directory = Path(tempfile.gettempdir(), f"verdigris-parameters-{token_hex(8)}")
    account.make_directory(directory)
    try:
        answer, data_dir = directory / "answer", str(directory / "data")
        common: dict[str, Any] = {
            "account": account,
            "env": account.environment(installation.environment()),
            "cwd": directory,
            "timeout_s": _TIMEOUT_S,
        }
        await run_program(
            [installation.program("initdb"), "-D", data_dir, "-U", config.ADMIN_ROLE, "--auth=reject", "--no-sync"],
            **common,
        )
        await run_program(
            [installation.program("postgres"), "--single", "-D", data_dir, "template1"],
            **common,
            stdin_text=_QUERY.format(path=answer),
        )
        return bytes.fromhex(account.read_file(answer).strip())
    finally:
        await to_its_end(asyncio.to_thread(shutil.rmtree, directory))


def _info(setting: _Setting, managed: frozenset[str], preloadable: tuple[str, ...]) -> ParameterInfo:
    name, choices = setting.name, tuple(setting.enumvals or ())
    data_type = _DATA_TYPES[setting.vartype]
    if name == "shared_preload_libraries":
        data_type, choices = DataType.LIST, preloadable
    return ParameterInfo(
        name=name,
        description=setting.short_desc,
        data_type=data_type,
        # "backend" and "superuser-backend" are taken over at once, by connections to come.
        apply_type=ApplyType.STATIC if setting.context in ("postmaster", "internal") else ApplyType.DYNAMIC,
        is_modifiable=name not in managed and _is_open(setting),
        default=setting.boot_val,
        system_value=config.SYSTEM_VALUES.get(name),
        minimum=setting.min_val,
        maximum=setting.max_val,
        choices=choices,
    )


_DATA_TYPES = {
    "bool": DataType.BOOLEAN,
    "enum": DataType.STRING,
    "integer": DataType.INTEGER,
    "real": DataType.FLOAT,
    "string": DataType.STRING,
}


def _is_open(setting: _Setting) -> bool:
    if setting.name in _OPEN_IN_CLOSED_CATEGORIES:
        return True
    return (
        setting.context != "internal"
        and setting.name not in _CLOSED
        and not setting.category.startswith(_CLOSED_CATEGORIES)
    )
