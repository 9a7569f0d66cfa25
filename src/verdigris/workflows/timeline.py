"""What a switchover did and when: its phases, its attempts, and how long clients were kept waiting in each."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from msgspec import Struct, json


class PhaseRecord(Struct, frozen=True, kw_only=True):
    """Milliseconds since the workflow began. Phases of the pause overlap."""

    name: str
    attempt: int = 1
    started_ms: float
    duration_ms: float


class AttemptRecord(Struct, frozen=True, kw_only=True):
    """``pause_ms``: from the first session stopped to all released; None if the attempt ended before that.
    ``setback``: why it was given up; None for the last one."""

    started_ms: float
    pause_ms: float | None = None
    setback: str | None = None


class TimelineRecord(Struct, frozen=True, kw_only=True):
    """As kept in the workflow's journal, logged and shown.

    ``pinned`` and ``stragglers`` are sessions that were not carried: closed, if the switchover was completed. Those of
    ``late_pins`` are among the pinned; they were found beyond the point of no return, whatever the policy.
    ``resumed``: another control plane began it, and what that one did is not in here.
    """

    phases: tuple[PhaseRecord, ...]
    attempts: tuple[AttemptRecord, ...] = ()
    pause_ms: float | None
    carried: int
    pinned: dict[str, int]
    late_pins: dict[str, int] = {}
    stragglers: int = 0
    resumed: bool = False

    @property
    def closed(self) -> int:
        return sum(self.pinned.values()) + self.stragglers

    def as_json(self) -> str:
        return json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ``msgspec.DecodeError``."""
        return json.decode(text, type=cls)


@dataclass
class Phase:
    name: str
    attempt: int
    started_s: float  # since the workflow began
    duration_s: float = 0.0
    ended: bool = False


@dataclass
class Attempt:
    started_s: float
    pause_s: float | None = None
    setback: str | None = None


@dataclass
class Timeline:
    """Measured with the event loop's clock, which is monotonic, so wall clock jumps do not show in it."""

    phases: list[Phase] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=lambda: [Attempt(0.0)])
    carried: int = 0
    pinned: dict[str, int] = field(default_factory=dict)
    late_pins: dict[str, int] = field(default_factory=dict)
    stragglers: int = 0
    resumed: bool = False
    _began_at: float = field(default_factory=lambda: _now())
    _pause_began_at: float | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[Phase]:
        began_at = _now()
        phase = Phase(name, len(self.attempts), began_at - self._began_at)
        self.phases.append(phase)
        try:
            yield phase
        finally:
            phase.duration_s, phase.ended = _now() - began_at, True

    def longest_s(self, name: str) -> float:
        return max((phase.duration_s for phase in self.phases if phase.name == name), default=0.0)

    def begin_pause(self) -> None:
        self._pause_began_at = _now()

    def end_pause(self) -> None:
        if self._pause_began_at is not None:
            self.attempts[-1].pause_s = _now() - self._pause_began_at
            self._pause_began_at = None

    def nobody_moved(self) -> None:
        """The attempt's sessions all go on where they were."""
        self.carried = self.stragglers = 0

    def pin_late(self, by_reason: Mapping[str, int]) -> None:
        """So many of those that were carried have been closed all the same."""
        self.late_pins = dict(by_reason)
        self.pinned = dict(Counter(self.pinned) + Counter(by_reason))
        self.carried -= sum(by_reason.values())

    def set_back(self, reason: str) -> None:
        self.attempts[-1].setback = reason

    def begin_attempt(self) -> None:
        self.attempts.append(Attempt(_now() - self._began_at))

    def record(self) -> TimelineRecord:
        """Without the phase that is going on: the one that writes the record."""
        return TimelineRecord(
            phases=tuple(
                PhaseRecord(
                    name=phase.name,
                    attempt=phase.attempt,
                    started_ms=_ms(phase.started_s),
                    duration_ms=_ms(phase.duration_s),
                )
                for phase in self.phases
                if phase.ended
            ),
            attempts=tuple(
                AttemptRecord(
                    started_ms=_ms(attempt.started_s),
                    pause_ms=None if attempt.pause_s is None else _ms(attempt.pause_s),
                    setback=attempt.setback,
                )
                for attempt in self.attempts
            ),
            pause_ms=None if self.attempts[-1].pause_s is None else _ms(self.attempts[-1].pause_s),
            carried=self.carried,
            pinned=self.pinned,
            late_pins=self.late_pins,
            stragglers=self.stragglers,
            resumed=self.resumed,
        )


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
