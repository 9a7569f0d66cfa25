import pytest

from verdigris.domain.instance_classes import memory_bytes

GIB = 1024**3


@pytest.mark.parametrize(
    ("name", "memory_gib"),
    [
        ("db.t3.micro", 1),
        ("db.t4g.medium", 4),
        ("db.m5.large", 8),
        ("db.m7g.16xlarge", 256),
        ("db.r6g.large", 16),
        ("db.r4.8xlarge", 244),
        ("db.t3.4xlarge", None),
        ("db.m5.medium", None),
        ("db.r6g.7xlarge", None),
        ("db.zz.large", None),
        ("m5.large", None),
        ("db.m5.large\n", None),
        ("", None),
    ],
)
def test_memory(name: str, memory_gib: int | None) -> None:
    assert memory_bytes(name) == (None if memory_gib is None else memory_gib * GIB)
