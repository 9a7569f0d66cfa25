"""Production comes first: WAL kept for green, or for read replicas, may take a share of the disk that would be free
without it, and no more.

Past the limit PostgreSQL invalidates the slot at its next checkpoint, green is lost, and blue goes on. Free disk
shrinks for other reasons as well, so the limit follows it, and a checkpoint is asked for when it has been passed: by
itself PostgreSQL would make the next one only after another ``max_wal_size`` of WAL.

There is one limit on a server, whoever it is kept for; it stays until the last of them is gone.
"""

import asyncio
import shutil

import structlog
from psycopg import sql

from verdigris.engines.postgres import publisher
from verdigris.engines.postgres.names import PREFIX, ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Session, session

log = structlog.get_logger(__name__)

# Blue always has as much free as is kept for green, or more.
SHARE_OF_FREE_DISK = 0.5
_LEAST_MIB = 64
# A limit that is off by less than this is left as it is: to change it wakes up every backend.
_OFF_BY = 0.1

_SETTING = "max_slot_wal_keep_size"
# A placeholder setting that remembers, across any crash, for whom the limit is: identifiers, comma between them.
_OWNERS = "verdigris.wal_limit_for"
# What a copy of the source must not inherit.
SETTINGS = (_SETTING, _OWNERS)

# The checkpointer takes a new setting in before its next checkpoint, but may get the request first.
_CHECKPOINTS_MAX = 3
_POLL_S = 0.1

# For one, and for everybody of ours: it is the same WAL.
_KEPT = sql.SQL("""
    SELECT coalesce(max(kept) FILTER (WHERE slot_name = %s OR starts_with(slot_name, %s)), 0)::bigint,
           coalesce(max(kept), 0)::bigint
      FROM (SELECT slot_name, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                                   ELSE pg_current_wal_lsn() END, restart_lsn) AS kept
              FROM pg_replication_slots
             WHERE starts_with(slot_name, {}) AND wal_status <> 'lost') AS ours
""").format(sql.Literal(PREFIX))


async def impose(source: PostgresServer, owner: str) -> None:
    """Bound what slots may keep back, unless somebody has done so already. Needs no restart."""
    if not _owners(source):
        async with session(source) as connection:
            if await connection.value("SELECT setting::int >= 0 FROM pg_settings WHERE name = %s", _SETTING):
                return
    if owners := _owners(source):
        source.change_settings({_OWNERS: ",".join(sorted(owners | {owner}))})
        return
    limit_mib = _share_mib(_free_bytes(source))
    source.change_settings(_settings(limit_mib, owner))
    source.reload()
    log.info("source.wal_limited", source=source.resource_id, limit_mib=limit_mib)


async def follow(source: PostgresServer, names: ObjectNames) -> None:
    """Have the limit follow the free disk. What is kept for this one is given up where it takes more than its share,
    whoever has filled the disk and whoever has set the limit."""
    async with session(source) as connection:
        kept_bytes, kept_for_all_bytes = await _kept(connection, names)
        free_bytes = _free_bytes(source)
        limit_mib = _share_mib(free_bytes + kept_for_all_bytes)
        owners = _owners(source)
        # Below a segment or two there is nothing to be had.
        if kept_bytes > free_bytes and kept_bytes >> 20 > _LEAST_MIB // 2:
            log.warning("source.disk_short", source=source.resource_id, free_bytes=free_bytes, kept_bytes=kept_bytes)
            await _give_up(source, connection, names, alone=owners == {names.deployment_id})
        elif names.deployment_id in owners and not _is_about(limit_mib, source.read_settings().get(_SETTING, "0")):
            _set(source, limit_mib)
            log.info("source.wal_limit_followed", source=source.resource_id, limit_mib=limit_mib)


def unless_set(target: PostgresServer, limit_mib: int, owner: str) -> dict[str, str | None]:
    """Settings for a limit on what a target keeps for slots of its own, if its parameter group has none."""
    return {} if _SETTING in target.read_settings() else _settings(limit_mib, owner)


def lift(source: PostgresServer, owner: str) -> None:
    """Take the limit away if it is for this one and for nobody else. The caller reloads."""
    owners = _owners(source)
    if owners == {owner}:
        source.change_settings(dict.fromkeys(SETTINGS))
    elif owner in owners:
        source.change_settings({_OWNERS: ",".join(sorted(owners - {owner}))})


async def _give_up(source: PostgresServer, connection: Session, names: ObjectNames, *, alone: bool) -> None:
    """Have the slots invalidated, which remain as a sign of what has happened. A limit that is somebody else's as well
    is left alone: then they are dropped."""
    if alone:
        _set(source, 0)
        for _ in range(_CHECKPOINTS_MAX):
            await connection.run("CHECKPOINT")
            if not (await _kept(connection, names))[0]:
                log.warning("source.slots_given_up", source=source.resource_id)
                return
            await asyncio.sleep(_POLL_S)
    await publisher.drop_slots(source, names)
    await connection.run("CHECKPOINT")
    log.warning("source.slots_dropped", source=source.resource_id)


async def _kept(connection: Session, names: ObjectNames) -> tuple[int, int]:
    [(own, everybodys)] = await connection.rows(_KEPT, names.base, names.base + "_")
    return own, everybodys


def _owners(source: PostgresServer) -> set[str]:
    """Nobody where there is no limit, or one that was set by hand."""
    return {owner for owner in source.read_settings().get(_OWNERS, "").split(",") if owner}


def _set(source: PostgresServer, limit_mib: int) -> None:
    source.change_settings({_SETTING: f"{limit_mib}MB"})
    source.reload()


def _settings(limit_mib: int, owner: str) -> dict[str, str | None]:
    return {_SETTING: f"{limit_mib}MB", _OWNERS: owner}


def _free_bytes(source: PostgresServer) -> int:
    """Where the WAL is, which may be elsewhere than the data."""
    return shutil.disk_usage((source.data_dir / "pg_wal").resolve()).free


def _share_mib(free_bytes: int) -> int:
    return max(_LEAST_MIB, int(free_bytes * SHARE_OF_FREE_DISK) >> 20)


def _is_about(limit_mib: int, present: str) -> bool:
    return abs(int(present.removesuffix("MB")) - limit_mib) <= limit_mib * _OFF_BY
