"""The arithmetic behind the tables, and the reading of what other programs say."""

import math
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tests.benchmarks.event_log import Span, build_steps, read_events, switchover_phases
from tests.benchmarks.figures import number, paired_ratio, percentile, table
from tests.benchmarks.pause import parked_at, parked_ms
from tests.benchmarks.pgbench import PgbenchFailed, parse_log, parse_report

REPORT = """\
transaction type: <builtin: select only>
number of transactions actually processed: 4321
number of failed transactions: 0 (0.000%)
latency average = 0.125 ms
initial connection time = 4.4 ms
tps = 2160.512 (without initial connection time)
"""


def test_percentile_is_by_nearest_rank() -> None:
    assert [percentile([3, 1, 2], percent) for percent in (0, 50, 99, 100)] == [1, 2, 3, 3]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_ratio_is_formed_within_rounds() -> None:
    # The second round was twice as slow for both: that says nothing about either.
    assert paired_ratio([10, 5, 30], [10, 5, 10]) == 1
    assert math.isnan(paired_ratio([1], [0]))


def test_numbers_are_short() -> None:
    assert [number(value) for value in (12345.6, 12.34, 1.234, float("nan"))] == ["12,346", "12.3", "1.23", "-"]


def test_table_is_markdown() -> None:
    assert table(("", "s"), [["slow", 12.0]]).splitlines() == ["|      |    s |", "|------|-----:|", "| slow | 12.0 |"]


def test_pgbench_is_read() -> None:
    assert parse_report(REPORT) == (4321, 2160.512, 0.125)
    assert parse_log("0 1 4500 0 1700000000 1\n3 7 500 0 1700000000 2\n") == [4.5, 0.5]


@pytest.mark.parametrize("report", ["", REPORT.replace("transactions: 0 ", "transactions: 7 ")])
def test_failures_are_not_figures(report: str) -> None:
    with pytest.raises(PgbenchFailed):
        parse_report(report)


def test_log_is_read(tmp_path: Path) -> None:
    second = "2026-01-01T00:00:{}Z"
    lines = [
        {"event": "workflow.step_started", "subject": "bgd-1", "step": "copy", "timestamp": second.format("01")},
        {"event": "workflow.step_done", "subject": "bgd-1", "step": "copy", "timestamp": second.format("03.5")},
        {"event": "switchover.phase", "deployment": "bgd-1", "phase": "park", "duration_ms": 250.0,
         "timestamp": second.format("05.5")},
        {"event": "switchover.phase", "deployment": "bgd-2", "phase": "park", "duration_ms": 1.0,
         "timestamp": second.format("06")},
    ]  # fmt: skip
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "serve.log").write_bytes(b"\n".join(msgspec.json.encode(line) for line in lines) + b"\n")
    events = read_events(tmp_path, "bgd-1")
    assert [(span.name, span.ms) for span in build_steps(events)] == [("copy", 2500)]
    (park,) = switchover_phases(events)
    assert (park.name, park.ms, park.began_at) == ("park", 250, datetime(2026, 1, 1, 0, 0, 5, 250_000, tzinfo=UTC))


def test_pause_is_the_last_attempts() -> None:
    def at(second: int) -> datetime:
        return datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)

    spans = [Span("park", at(1), at(2)), Span("park", at(10), at(11)), Span("release", at(13), at(14))]
    assert parked_at(spans) == at(10)
    assert parked_ms(spans) == 4000
