"""``pg_upgrade`` of a target, and what it leaves to be done."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import structlog
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.undoing import to_its_end
from verdigris.domain.versions import PostgresVersion
from verdigris.engines.installations import Installation
from verdigris.engines.postgres import config
from verdigris.engines.postgres.own_sessions import UNNOTICED
from verdigris.engines.postgres.roles import keep_administration
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Database, for_each, list_databases, session
from verdigris.engines.postgres.strays import end_strays

log = structlog.get_logger(__name__)

_CONTROL_SEGMENT_BYTES = "Bytes per WAL segment"
_CONTROL_CHECKSUMS = "Data page checksum version"
# From this version on CREATEROLE alone lets nobody alter, grant or drop a role.
_ADMIN_OPTION_SINCE = 16


async def upgrade_in_place(
    target: PostgresServer, installation: Installation, parameters: Mapping[str, str] = config.NO_PARAMETERS
) -> None:
    """The stopped target's data directory becomes one of ``installation``, with a parameter group's values that are
    meant for it. Files are linked, not copied, so there is no
    way back to the old one: the caller starts from a new copy."""
    old, new = target.data_dir, target.data_dir.with_name("data.new")
    await _delete(new)
    settings = _carried_settings(target)
    await target.initdb(new, installation=installation, options=await _same_as(target))
    known = await _known_settings(target, installation)
    await _run_pg_upgrade(target, new, installation)
    target.save(installation=installation, parameters=dict(parameters))
    _carry_configuration(target, old, new, settings, known)
    # A crash between the two renames leaves no data directory under the name: the workflow starts again from a copy.
    superseded = target.data_dir.with_name("data.superseded")
    await _delete(superseded)
    with target.control.effect():
        old.rename(superseded)
        new.rename(target.data_dir)
    await _delete(superseded)
    log.info("upgrade.done", target=target.resource_id, version=installation.version)


async def finish(target: PostgresServer, *, previous: PostgresVersion) -> None:
    """On the running target: extensions brought to the version that its installation has, statistics complete, roles
    administered by those who did so in the ``previous`` version."""
    databases = await list_databases(target)
    if previous.major < _ADMIN_OPTION_SINCE <= target.version.major:
        async with session(target) as connection:
            await keep_administration(connection, target.record.master_username)
    await for_each(databases, lambda database: _update_extensions(target, database))
    arguments = ["--all", "--analyze-only", f"--jobs={_jobs()}"]
    if target.version.major >= 18:
        # From 18 on pg_upgrade carries the planner's statistics over, all but the extended ones.
        arguments.append("--missing-stats-only")
    await target.run("vacuumdb", "--quiet", "--maintenance-db", target.conninfo(), *arguments)


async def _update_extensions(target: PostgresServer, database: Database) -> None:
    async with session(target, database.name, **UNNOTICED) as connection:
        outdated = await connection.rows(
            "SELECT name FROM pg_available_extensions WHERE installed_version <> default_version ORDER BY name"
        )
        for (name,) in outdated:
            await connection.run(sql.SQL("ALTER EXTENSION {} UPDATE").format(sql.Identifier(name)))
            log.info("extension.updated", target=target.resource_id, database=database.name, extension=name)


async def _same_as(target: PostgresServer) -> list[str]:
    """Options of initdb for what pg_upgrade wants alike. Encoding and locales of databases, templates included, it
    carries itself since version 16."""
    completed = await target.run("pg_controldata", str(target.data_dir))
    control = dict(line.split(":", 1) for line in completed.stdout.splitlines() if ":" in line)
    options = [f"--wal-segsize={int(control[_CONTROL_SEGMENT_BYTES]) // 1024**2}"]
    if int(control[_CONTROL_CHECKSUMS]) == 0:
        raise EngineError(f"{target.resource_id} has no data checksums, and Verdigris makes no server without them")
    return options


async def _run_pg_upgrade(target: PostgresServer, new: Path, installation: Installation) -> None:
    """Check first, then do it. Its log files go into ``new``; what a failed check wrote there is in the error."""
    work = target.directory / "upgrade"
    await _delete(work)
    target.account.make_directory(work)
    common = [
        "--old-datadir", str(target.data_dir),
        "--new-datadir", str(new),
        "--old-bindir", target.installation.bin_dir,
        "--new-bindir", installation.bin_dir,
        "--username", config.ADMIN_ROLE,
        "--socketdir", str(target.socket_dir),
        f"--jobs={_jobs()}",
        "--link",
    ]  # fmt: skip
    try:
        for extra in (["--check"], []):
            completed = await target.run(
                "pg_upgrade", *common, *extra, installation=installation, cwd=work, check=False, gently=True
            )
            if completed.exit_status != 0:
                raise EngineError("pg_upgrade refused: " + _complaint(completed.stdout + completed.stderr, new))
    except BaseException:
        await to_its_end(end_strays(target, server_too=True))
        raise
    finally:
        await to_its_end(_delete(work))


def _complaint(output: str, new: Path) -> str:
    """The failed check's own words, and the lists that it wrote to files."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.rstrip().endswith("ok")]
    reports = [
        f"{report.name}: {report.read_text(errors='replace').strip()[:1000]}"
        for report in sorted(new.glob("pg_upgrade_output.d/*/*.txt"))
    ]
    return "\n".join([*lines[-12:], *reports])


def _carried_settings(target: PostgresServer) -> dict[str, str]:
    """Settings in our file that are not derived from version and class: an operator's or a parameter group's."""
    derived = target.derived_settings()
    return {name: value for name, value in target.read_settings().items() if name not in derived}


async def _known_settings(target: PostgresServer, installation: Installation) -> frozenset[str]:
    completed = await target.run("postgres", "--describe-config", installation=installation)
    return frozenset(line.split("\t", 1)[0].lower() for line in completed.stdout.splitlines())


def _carry_configuration(
    target: PostgresServer, old: Path, new: Path, settings: dict[str, str], known: frozenset[str]
) -> None:
    """What ALTER SYSTEM said, user maps and our own additions, less what the new version no longer knows."""

    def survives(name: str) -> bool:
        return "." in name or name.lower() in known

    kept = [
        line
        for line in (old / "postgresql.auto.conf").read_text().splitlines()
        if "=" not in line or line.startswith("#") or survives(line.split("=", 1)[0].strip())
    ]
    target.account.write_file(new / "postgresql.auto.conf", "\n".join(kept) + "\n")
    target.account.write_file(new / "pg_ident.conf", (old / "pg_ident.conf").read_bytes())
    kept_settings = {name: value for name, value in settings.items() if survives(name)}
    target.write_settings(kept_settings | target.derived_settings(), new)


def _jobs() -> int:
    """Half of the processors: the rest is blue's."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


async def _delete(path: Path) -> None:
    if path.exists():
        await asyncio.to_thread(shutil.rmtree, path)
