"""Programs at work on a target that outlived whoever started them.

A control plane that dies leaves its ``pg_basebackup`` or ``pg_upgrade`` running, and ``pg_upgrade``, killed, leaves the
servers that it had started through ``pg_ctl``, which are in sessions of their own. All of them work below the target's
directory, which is how they are found.
"""

import signal
from pathlib import Path

import structlog

from verdigris.domain.errors import EngineError
from verdigris.engines.postgres.postmaster import StopMode
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.process import Process

log = structlog.get_logger(__name__)

_ENDED_WITHIN_S = 10.0


async def end_strays(target: PostgresServer, *, server_too: bool = False) -> None:
    """Kill them: what they were making is thrown away. The target's own server is spared unless ``server_too``."""
    found = [process for pid in _pids() if (process := Process.open(pid, lambda pid: _is_stray(target, pid)))]
    for process in found:
        log.warning("stray.killed", target=target.resource_id, pid=process.pid)
        with target.control.effect():
            process.signal(signal.SIGKILL)
    for process in found:
        ended = await process.ended_within(_ENDED_WITHIN_S)
        process.close()
        if not ended:
            raise EngineError(f"process {process.pid} in {target.directory} does not end")
    if server_too:
        await target.stop(StopMode.IMMEDIATE)


def _is_stray(target: PostgresServer, pid: int) -> bool:
    try:
        if Path(f"/proc/{pid}").stat().st_uid != target.account.uid:
            return False
        directory = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return False
    return directory.is_relative_to(target.directory) and directory != target.data_dir


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
