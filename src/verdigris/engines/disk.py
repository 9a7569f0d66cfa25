"""Room on a disk that servers share with copies of them: production must not find it full because of a copy."""

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path

from verdigris.domain.errors import EngineError
from verdigris.domain.undoing import to_its_end

# The copy itself, and as much again of WAL and working room as a tenth of it.
FREE_DISK_FACTOR = 1.1

# What is left for everybody else while something is being copied: a share of the disk, and of a large one not more than
# anybody can need before he is looked after.
_RESERVE_SHARE = 0.05
_RESERVE_MAX_BYTES = 1 << 30
_POLL_S = 0.2


def tree_bytes(directory: Path) -> int:
    """Space used. Files of a running server come and go."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def require_room(directory: Path, size_bytes: int) -> None:
    """For a copy of that size in ``directory``. Raises ``EngineError``."""
    free, reserve = _free_and_reserve(directory)
    needed = size_bytes * FREE_DISK_FACTOR + reserve
    if free < needed:
        raise EngineError(f"too little free disk: about {_mib(needed)} MiB are needed and {_mib(free)} MiB are free")


async def while_there_is_room(directory: Path, copying: Coroutine[object, object, None]) -> None:
    """Do it, unless ``directory``'s disk runs short meanwhile, whoever fills it: then it is cancelled, and
    ``EngineError`` raised."""
    task = asyncio.ensure_future(copying)
    try:
        while not (await asyncio.wait({task}, timeout=_POLL_S))[0]:
            free, reserve = _free_and_reserve(directory)
            if free < reserve:
                raise EngineError(f"the disk runs full, {_mib(free)} MiB are free: nothing more is copied to it")
        await task
    finally:
        if not task.done():
            task.cancel()
            await to_its_end(asyncio.wait({task}))


def _free_and_reserve(directory: Path) -> tuple[float, float]:
    usage = shutil.disk_usage(directory)
    return usage.free, min(usage.total * _RESERVE_SHARE, _RESERVE_MAX_BYTES)


def _mib(size_bytes: float) -> int:
    return int(size_bytes) >> 20
