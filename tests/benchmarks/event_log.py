"""What the control plane wrote into ``log/serve.log`` about one deployment."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

Event = dict[str, Any]


class Span(Struct, frozen=True):
    """``name`` may come more than once: an attempt that is repeated repeats its phases."""

    name: str
    began_at: datetime
    ended_at: datetime

    @property
    def ms(self) -> float:
        return (self.ended_at - self.began_at).total_seconds() * 1000


def read_events(home: Path, deployment: str) -> list[Event]:
    """The log's lines that name the deployment, oldest first."""
    return [
        event
        for event in _lines(home / "log" / "serve.log")
        if deployment in (event.get("deployment"), event.get("subject"))
    ]


def _lines(path: Path) -> Iterator[Event]:
    with path.open("rb") as log:
        for line in log:
            event = msgspec.json.decode(line, type=Event)
            event["at"] = datetime.fromisoformat(event["timestamp"])
            yield event


def switchover_phases(events: list[Event]) -> list[Span]:
    """Phases as they ended. Their lengths are by the monotonic clock, their places by the log's."""
    spans = []
    for event in events:
        if event["event"] == "switchover.phase":
            length = msgspec.convert(event["duration_ms"], float) / 1000
            began_s = event["at"].timestamp() - length
            spans.append(Span(event["phase"], datetime.fromtimestamp(began_s, event["at"].tzinfo), event["at"]))
    return spans


def build_steps(events: list[Event]) -> list[Span]:
    """The steps of making green, from their own start and end."""
    spans = []
    begun: dict[str, datetime] = {}
    for event in events:
        if event["event"] == "workflow.step_started":
            begun[event["step"]] = event["at"]
        elif event["event"] == "workflow.step_done" and event["step"] in begun:
            spans.append(Span(event["step"], begun.pop(event["step"]), event["at"]))
    return spans
