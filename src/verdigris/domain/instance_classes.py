"""Memory of the DB instance classes, from which RDS derives settings such as ``max_connections``.

Figures: Amazon RDS user guide, "Hardware specifications for DB instance classes", and the EC2 types of the same names.
Which sizes there are is kept by kind of family, not family by family: a few more are accepted than AWS sells.
"""

import re

_GIB = 1024**3
_CLASS = re.compile(r"db\.([a-z0-9]+)\.([a-z0-9]+)")

# Size -> its memory as a multiple of the family's "large".
_LARGE_AND_UP = {"large": 1.0, "xlarge": 2.0} | {f"{n}xlarge": 2.0 * n for n in (2, 4, 8, 10, 12, 16, 24, 32, 48)}
_BURSTABLE = {"micro": 1 / 8, "small": 1 / 4, "medium": 1 / 2, "large": 1.0, "xlarge": 2.0, "2xlarge": 4.0}

# Memory of "large" in GiB.
_BURSTABLE_FAMILIES = {"t2": 8, "t3": 8, "t4g": 8}
_FAMILIES = {
    "m4": 8, "m5": 8, "m5d": 8, "m6g": 8, "m6gd": 8, "m6i": 8, "m6id": 8, "m6idn": 8, "m6in": 8, "m7g": 8, "m7i": 8,
    "m8g": 8, "m8gd": 8,
    "r4": 15.25, "r5": 16, "r5b": 16, "r5d": 16, "r6g": 16, "r6gd": 16, "r6i": 16, "r6id": 16, "r6idn": 16, "r6in": 16,
    "r7g": 16, "r7i": 16, "r8g": 16, "r8gd": 16,
    "c6gd": 4,
    "x2g": 32, "x2idn": 32, "x2iedn": 64,
}  # fmt: skip


def instance_classes() -> list[str]:
    """Every class that there is, in the order of their names."""
    kinds = ((_BURSTABLE_FAMILIES, _BURSTABLE), (_FAMILIES, _LARGE_AND_UP))
    return sorted(f"db.{family}.{size}" for families, sizes in kinds for family in families for size in sizes)


def memory_bytes(instance_class: str) -> int | None:
    """Memory of a class, or None for a name that is no RDS class known here."""
    match = _CLASS.fullmatch(instance_class)
    if match is None:
        return None
    family, size = match.groups()
    families, sizes = (_BURSTABLE_FAMILIES, _BURSTABLE) if family in _BURSTABLE_FAMILIES else (_FAMILIES, _LARGE_AND_UP)
    if family not in families or size not in sizes:
        return None
    return int(families[family] * sizes[size] * _GIB)
