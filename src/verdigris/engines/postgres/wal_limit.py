"""Production comes first: WAL kept for green may take a share of blue's free disk, and no more.

Past the limit PostgreSQL invalidates the slot, green is lost, and blue goes on.
"""

import shutil

import structlog

from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import session

log = structlog.get_logger(__name__)

SHARE_OF_FREE_DISK = 0.5
_LEAST_MIB = 64

_SETTING = "max_slot_wal_keep_size"
# A placeholder setting that remembers, across any crash, whose the limit is.
_OWNER = "verdigris.wal_limit_for"
# What a copy of the source must not inherit.
SETTINGS = (_SETTING, _OWNER)


async def impose(source: PostgresServer, deployment_id: str) -> None:
    """Bound what slots may keep back, unless somebody has done so already. Needs no restart."""
    async with session(source) as connection:
        if await connection.value("SELECT setting::int >= 0 FROM pg_settings WHERE name = %s", _SETTING):
            return
    free_bytes = shutil.disk_usage(source.data_dir / "pg_wal").free  # often a link to a disk of its own
    limit_mib = max(_LEAST_MIB, int(free_bytes * SHARE_OF_FREE_DISK) >> 20)
    source.change_settings({_SETTING: f"{limit_mib}MB", _OWNER: deployment_id})
    source.reload()
    log.info("source.wal_limited", source=source.resource_id, limit_mib=limit_mib)


def lift(source: PostgresServer, deployment_id: str) -> None:
    """Take the deployment's limit away, not somebody else's. The caller reloads."""
    if source.read_settings().get(_OWNER) == deployment_id:
        source.change_settings(dict.fromkeys(SETTINGS))
