"""What a DB instance class means on this machine."""

from pathlib import Path

from verdigris.domain.instance_classes import memory_bytes

__all__ = ["machine_memory_bytes", "memory_bytes"]


def machine_memory_bytes() -> int:
    """Memory that this machine, or the container we are in, really has."""
    total = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
