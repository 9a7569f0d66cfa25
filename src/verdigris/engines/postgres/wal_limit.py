"""Production comes first: WAL kept for green may take a share of the disk that would be free without it, and no more.

Past the limit PostgreSQL invalidates the slot at its next checkpoint, green is lost, and blue goes on. Free disk
shrinks for other reasons as well, so the limit follows it, and a checkpoint is asked for when it has been passed: by
itself PostgreSQL would make the next one only after another ``max_wal_size`` of WAL.
"""

import asyncio
import shutil

import structlog
from psycopg import sql

from verdigris.engines.postgres import publisher
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Session, session

log = structlog.get_logger(__name__)

# Blue always has as much free as is kept for green, or more.
SHARE_OF_FREE_DISK = 0.5
_LEAST_MIB = 64
# A limit that is off by less than this is left as it is: to change it wakes up every backend.
_OFF_BY = 0.1

_SETTING = "max_slot_wal_keep_size"
# A placeholder setting that remembers, across any crash, whose the limit is.
_OWNER = "verdigris.wal_limit_for"
# What a copy of the source must not inherit.
SETTINGS = (_SETTING, _OWNER)

# The checkpointer takes a new setting in before its next checkpoint, but may get the request first.
_CHECKPOINTS_MAX = 3
_POLL_S = 0.1

_KEPT = sql.SQL("""
    SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::bigint
      FROM pg_replication_slots
     WHERE (slot_name = %s OR starts_with(slot_name, %s)) AND wal_status <> 'lost'
""")


async def impose(source: PostgresServer, deployment_id: str) -> None:
    """Bound what slots may keep back, unless somebody has done so already. Needs no restart."""
    async with session(source) as connection:
        if await connection.value("SELECT setting::int >= 0 FROM pg_settings WHERE name = %s", _SETTING):
            return
    limit_mib = _share_mib(_free_bytes(source))
    _set(source, limit_mib, deployment_id)
    log.info("source.wal_limited", source=source.resource_id, limit_mib=limit_mib)


async def follow(source: PostgresServer, names: ObjectNames) -> None:
    """Have the limit follow the free disk. What is kept for green is given up where it takes more than its share,
    whoever has filled the disk and whoever has set the limit."""
    async with session(source) as connection:
        kept_bytes: int = await connection.value(_KEPT, names.base, names.base + "_")
        free_bytes = _free_bytes(source)
        limit_mib = _share_mib(free_bytes + kept_bytes)
        ours = source.read_settings().get(_OWNER) == names.deployment_id
        # Below a segment or two there is nothing to be had.
        if kept_bytes > free_bytes and kept_bytes >> 20 > _LEAST_MIB // 2:
            log.warning("source.disk_short", source=source.resource_id, free_bytes=free_bytes, kept_bytes=kept_bytes)
            await _give_up(source, connection, names, ours=ours)
        elif ours and not _is_about(limit_mib, source.read_settings()[_SETTING]):
            _set(source, limit_mib, names.deployment_id)
            log.info("source.wal_limit_followed", source=source.resource_id, limit_mib=limit_mib)


def unless_set(target: PostgresServer, limit_mib: int, deployment_id: str) -> dict[str, str | None]:
    """Settings for a limit on what a target keeps for slots of its own, if its parameter group has none."""
    return {} if _SETTING in target.read_settings() else _settings(limit_mib, deployment_id)


def lift(source: PostgresServer, deployment_id: str) -> None:
    """Take the deployment's limit away, not somebody else's. The caller reloads."""
    if source.read_settings().get(_OWNER) == deployment_id:
        source.change_settings(dict.fromkeys(SETTINGS))


async def _give_up(source: PostgresServer, connection: Session, names: ObjectNames, *, ours: bool) -> None:
    """Have the slots invalidated, which remain as a sign of what has happened. A limit of somebody else's is left
    alone: then they are dropped."""
    if ours:
        _set(source, 0, names.deployment_id)
        for _ in range(_CHECKPOINTS_MAX):
            await connection.run("CHECKPOINT")
            if not await connection.value(_KEPT, names.base, names.base + "_"):
                log.warning("source.slots_given_up", source=source.resource_id)
                return
            await asyncio.sleep(_POLL_S)
    await publisher.drop_slots(source, names)
    await connection.run("CHECKPOINT")
    log.warning("source.slots_dropped", source=source.resource_id)


def _set(source: PostgresServer, limit_mib: int, deployment_id: str) -> None:
    source.change_settings(_settings(limit_mib, deployment_id))
    source.reload()


def _settings(limit_mib: int, deployment_id: str) -> dict[str, str | None]:
    return {_SETTING: f"{limit_mib}MB", _OWNER: deployment_id}


def _free_bytes(source: PostgresServer) -> int:
    """Where the WAL is, which may be elsewhere than the data."""
    return shutil.disk_usage((source.data_dir / "pg_wal").resolve()).free


def _share_mib(free_bytes: int) -> int:
    return max(_LEAST_MIB, int(free_bytes * SHARE_OF_FREE_DISK) >> 20)


def _is_about(limit_mib: int, present: str) -> bool:
    return abs(int(present.removesuffix("MB")) - limit_mib) <= limit_mib * _OFF_BY
