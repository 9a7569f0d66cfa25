"""Programs at work on a target, or on a snapshot, that outlived whoever started them.

A control plane that dies leaves its ``pg_basebackup`` or ``pg_upgrade`` running, and ``pg_upgrade``, killed, leaves the
servers that it had started through ``pg_ctl``, which are in sessions of their own. All of them work below the
directory of what they make, which is how they are found.
"""

import signal
from pathlib import Path

import structlog

from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount
from verdigris.engines.control import Control
from verdigris.engines.postgres.postmaster import StopMode
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.process import Process

log = structlog.get_logger(__name__)

_ENDED_WITHIN_S = 10.0


async def end_strays(target: PostgresServer, *, server_too: bool = False) -> None:
    """Kill them: what they were making is thrown away. The target's own server is spared unless ``server_too``."""
    await end_programs(target.directory, target.account, target.control, but_in=target.data_dir)
    if server_too:
        await target.stop(StopMode.IMMEDIATE)


async def end_programs(
    directory: Path, account: EngineAccount, control: Control, *, but_in: Path | None = None
) -> None:
    """Kill those of the account that work in ``directory`` or below it, but not in ``but_in`` itself."""

    def is_stray(pid: int) -> bool:
        try:
            if Path(f"/proc/{pid}").stat().st_uid != account.uid:
                return False
            at_work_in = Path(f"/proc/{pid}/cwd").readlink()
        except OSError:
            return False
        return at_work_in.is_relative_to(directory) and at_work_in != but_in

    found = [process for pid in _pids() if (process := Process.open(pid, is_stray))]
    for process in found:
        log.warning("stray.killed", directory=str(directory), pid=process.pid)
        with control.effect():
            process.signal(signal.SIGKILL)
    for process in found:
        ended = await process.ended_within(_ENDED_WITHIN_S)
        process.close()
        if not ended:
            raise EngineError(f"process {process.pid} in {directory} does not end")


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
