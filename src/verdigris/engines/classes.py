"""Memory of the DB instance classes, from which RDS derives settings such as ``max_connections``.

Figures: Amazon RDS user guide, "Hardware specifications for DB instance classes", and the EC2 types of the same names.
"""

import re
from pathlib import Path

_GIB = 1024**3
_CLASS = re.compile(r"db\.([a-z0-9-]+)\.(micro|small|medium|large|(\d*)xlarge)")

# Memory of the "large" size in GiB; other sizes double or halve it. Families of which this is not true are absent.
_LARGE_GIB = {
    "t2": 8, "t3": 8, "t4g": 8,
    "m4": 8, "m5": 8, "m5d": 8, "m6g": 8, "m6gd": 8, "m6i": 8, "m6id": 8, "m6in": 8, "m6idn": 8, "m7g": 8, "m7i": 8,
    "m8g": 8, "m8gd": 8,
    "r4": 15.25, "r5": 16, "r5b": 16, "r5d": 16, "r6g": 16, "r6gd": 16, "r6i": 16, "r6id": 16, "r6in": 16, "r6idn": 16,
    "r7g": 16, "r7i": 16, "r8g": 16, "r8gd": 16,
    "c6gd": 4,
    "x2g": 32, "x2idn": 32, "x2iedn": 64,
}  # fmt: skip
_SMALL_SIZES = {"micro": 1 / 8, "small": 1 / 4, "medium": 1 / 2, "large": 1.0}


def memory_bytes(instance_class: str) -> int | None:
    """Memory of a class, or None for a name that is no RDS class known here."""
    match = _CLASS.fullmatch(instance_class)
    if match is None or match[1] not in _LARGE_GIB:
        return None
    size = _SMALL_SIZES.get(match[2])
    factor = size if size is not None else 2 * int(match[3] or 1)
    return int(_LARGE_GIB[match[1]] * factor * _GIB)


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
