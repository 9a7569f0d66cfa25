"""A physical copy of a server: taken by ``pg_basebackup``, brought forward by streaming replication.

Every setting that makes it a standby is in our own ``verdigris.conf``, so taking it away again is a matter of names.
"""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

import structlog

from verdigris.domain.errors import EngineError
from verdigris.domain.undoing import to_its_end
from verdigris.engines.postgres import wal_limit
from verdigris.engines.postgres.server import NOT_LESS_THAN_PRIMARY, PostgresServer
from verdigris.engines.postgres.sessions import Session, session, until

log = structlog.get_logger(__name__)

POLL_S = 0.01
# A copy whose recovery stands still this long is given up: a full disk stops it without an error that we would see.
STALLED_S = 120.0

# Ours on a target, none of which may stay on a server that stands alone.
FOLLOWING_SETTINGS = (
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_action",
)


async def base_backup(
    source: PostgresServer, target: PostgresServer, slot: str, *, rate_mib: int | None = None
) -> None:
    """Copy ``source`` into the target's data directory; ``slot`` is made and keeps the WAL that comes after.

    It is made beside its place and renamed, as ``initdb`` does it. The source is asked for an immediate checkpoint: the
    alternative is to wait up to ``checkpoint_timeout`` for nothing. ``rate_mib``: how much to read in a second at most.

    The slot is there before the copy begins: ``--create-slot`` makes it a moment after, and a checkpoint in between,
    of another copy for instance, would take the first of the WAL away.
    """
    partial = target.data_dir.with_name("data.partial")
    await _delete(partial)
    target.make_directories()
    try:
        async with session(source) as connection:
            await connection.run("SELECT pg_create_physical_replication_slot(%s, true)", slot)
        await target.run(
            "pg_basebackup",
            "--pgdata", str(partial),
            "--dbname", source.conninfo(application_name="verdigris"),
            "--checkpoint=fast",
            "--wal-method=stream",
            "--slot", slot,
            # Nobody would read it: the copy is used at once.
            "--no-manifest",
            *([] if rate_mib is None else [f"--max-rate={rate_mib}M"]),
            gently=True,
        )  # fmt: skip
        target.configure(partial, forget=source.record.parameters)
        target.change_settings(dict.fromkeys(wal_limit.SETTINGS), partial)
        with target.control.effect():
            partial.rename(target.data_dir)
    except BaseException:
        await to_its_end(_delete(partial))
        raise
    log.info("copy.taken", source=source.resource_id, target=target.resource_id)


async def follow(source: PostgresServer, target: PostgresServer, slot: str, *, until_lsn: str | None = None) -> None:
    """Make the target a standby of the source from its next start on; with ``until_lsn`` one that replays every record
    that starts before it, none that starts at or after it, and then becomes a server of its own.

    The same boundary decides what a logical slot sends (a commit record that starts at or after the position asked for,
    snapbuild.c), so nothing is lost between the two and nothing comes twice.
    """
    async with session(source) as connection:
        needed = needed_after_start(source, await read_sizes(connection))
    settings: dict[str, str | None] = {n: str(size) for n, size in lacking(needed, written_sizes(target)).items()}
    settings |= {"primary_conninfo": source.conninfo(application_name="verdigris"), "primary_slot_name": slot}
    if until_lsn is not None:
        settings |= {
            "recovery_target_lsn": until_lsn,
            "recovery_target_inclusive": "off",
            "recovery_target_action": "promote",
        }
    target.change_settings(settings)
    with target.control.effect():
        target.account.write_file(target.data_dir / "standby.signal", "")


async def promote(target: PostgresServer) -> None:
    """Make a standby a writable server of its own; does nothing to one that is. ``pg_promote`` itself would look only
    ten times a second whether it is done."""
    async with session(target) as connection:
        if await connection.value("SELECT pg_is_in_recovery()"):
            await connection.run("SELECT pg_promote(false)")
            await until(lambda: connection.value("SELECT NOT pg_is_in_recovery()"), every_s=0.001)


def stop_following(target: PostgresServer) -> None:
    """Take away what ``follow`` wrote. Effective at the next reload or start."""
    target.change_settings(dict.fromkeys(FOLLOWING_SETTINGS))
    with target.control.effect():
        (target.data_dir / "standby.signal").unlink(missing_ok=True)


async def recover_to_end(target: PostgresServer) -> None:
    """Start a target that follows ``until_lsn`` and return when it has become a server of its own."""
    await target.start(supervise=False)
    loop = asyncio.get_running_loop()
    reached, moved_at = None, loop.time()
    async with session(target) as connection:
        while True:
            [(done, lsn)] = await connection.rows("SELECT NOT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text")
            if done:
                return
            if lsn != reached:
                reached, moved_at = lsn, loop.time()
            elif loop.time() - moved_at > STALLED_S:
                raise EngineError(
                    f"the recovery of {target.resource_id} has made no progress for {STALLED_S:g} s, it stands at"
                    f" {lsn}: is the disk full?"
                )
            await asyncio.sleep(POLL_S)


async def wait_for_replay(target: PostgresServer, lsn: str) -> None:
    """Return when the standby has replayed up to ``lsn``. The limit is the caller's."""
    async with session(target) as connection:
        while True:
            standby, reached = (
                await connection.rows(
                    "SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn() >= %s::pg_lsn, false)", lsn
                )
            )[0]
            if reached:
                return
            if not standby:
                raise EngineError(f"{target.resource_id} is no longer a standby: it was promoted")
            await asyncio.sleep(0.001)


async def read_sizes(connection: Session) -> dict[str, int]:
    """``NOT_LESS_THAN_PRIMARY`` as a server runs with them."""
    rows = await connection.rows(
        "SELECT name, setting::int FROM pg_settings WHERE name = ANY(%s)", list(NOT_LESS_THAN_PRIMARY)
    )
    return {str(name): int(size) for name, size in rows}


def written_sizes(server: PostgresServer) -> dict[str, int]:
    """Those of ``NOT_LESS_THAN_PRIMARY`` that our settings for its next start have."""
    settings = server.read_settings()
    return {name: int(settings[name]) for name in NOT_LESS_THAN_PRIMARY if name in settings}


def needed_after_start(primary: PostgresServer, running: Mapping[str, int]) -> dict[str, int]:
    """What a standby of it needs when it starts the next time: the primary may start again before it, with more."""
    written = written_sizes(primary)
    return {name: max(size, written.get(name, 0)) for name, size in running.items()}


def lacking(needed: Mapping[str, int], present: Mapping[str, int]) -> dict[str, int]:
    """What is too small, as large as it has to be."""
    return {name: size for name, size in needed.items() if present.get(name, 0) < size}


async def _delete(path: Path) -> None:
    if path.exists():
        await asyncio.to_thread(shutil.rmtree, path)
