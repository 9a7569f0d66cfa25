"""Engine versions as numbers, and the rules that RDS ties to them."""

from functools import total_ordering
from typing import Self

from msgspec import Struct

from verdigris.domain.statuses import ReplicationMode


@total_ordering
class PostgresVersion(Struct, frozen=True):
    """A PostgreSQL release, ``major.minor`` (since version 10 there is no third number)."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"17.10"``. Raises ``ValueError`` for anything else, a bare major included."""
        major, dot, minor = text.partition(".")
        if not dot or not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
            raise ValueError(f"not a PostgreSQL version: {text!r}")
        return cls(int(major), int(minor))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def __lt__(self, other: "PostgresVersion") -> bool:
        return (self.major, self.minor) < (other.major, other.minor)


def replication_mode(source: PostgresVersion, target: PostgresVersion) -> ReplicationMode:
    """Logical when the major version rises, physical otherwise (RDS user guide, "Replication methods")."""
    return ReplicationMode.LOGICAL if target.major > source.major else ReplicationMode.PHYSICAL
