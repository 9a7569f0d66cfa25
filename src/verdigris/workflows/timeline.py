"""How long each phase of a switchover took, and how long clients were kept waiting."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec import Struct, json


@dataclass
class Phase:
    name: str
    started_s: float  # since the workflow began
    duration_s: float = 0.0


class PhaseRecord(Struct, frozen=True):
    name: str
    started_ms: float
    duration_ms: float


class TimelineRecord(Struct, frozen=True):
    phases: tuple[PhaseRecord, ...]
    pause_ms: float | None
    carried: int
    pinned: dict[str, int]


@dataclass
class Timeline:
    """Measured with the monotonic clock, so wall clock jumps do not show in it."""

    phases: list[Phase] = field(default_factory=list)
    carried: int = 0
    pinned: dict[str, int] = field(default_factory=dict)
    pause_s: float | None = None  # of the last attempt, from the first session parked to all released
    _began_at: float = field(default_factory=time.monotonic)
    _pause_began_at: float | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        began_at = time.monotonic()
        phase = Phase(name, began_at - self._began_at)
        self.phases.append(phase)
        try:
            yield phase
        finally:
            phase.duration_s = time.monotonic() - began_at

    def begin_pause(self) -> None:
        self._pause_began_at = time.monotonic()

    def end_pause(self) -> None:
        if self._pause_began_at is not None:
            self.pause_s = time.monotonic() - self._pause_began_at
            self._pause_began_at = None

    def record(self) -> TimelineRecord:
        return TimelineRecord(
            phases=tuple(
                PhaseRecord(p.name, round(p.started_s * 1000, 3), round(p.duration_s * 1000, 3)) for p in self.phases
            ),
            pause_ms=None if self.pause_s is None else round(self.pause_s * 1000, 3),
            carried=self.carried,
            pinned=self.pinned,
        )

    def as_json(self) -> str:
        return json.encode(self.record()).decode()
