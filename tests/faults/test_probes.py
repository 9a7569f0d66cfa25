"""What the driver would take for a breach of a promise, and what not."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.faults.cues import last_of, learn
from tests.faults.probes import Write, both_writable
from tests.faults.report import report
from tests.faults.trial import Result

if TYPE_CHECKING:
    from tests.acceptance.serve_log import Event


def _writes(*spans: tuple[int, int]) -> list[Write]:
    return [Write(n, began * 10**6, ended * 10**6) for n, (began, ended) in enumerate(spans)]


def test_sides_that_take_turns_are_well() -> None:
    assert both_writable(_writes((0, 1), (5, 6)), _writes((7, 8), (9, 10))) == []
    assert both_writable(_writes((0, 1)), []) == []


def test_a_write_that_was_under_way_proves_nothing() -> None:
    """It may have been taken before the first on the other side, and have been answered later."""
    assert both_writable(_writes((0, 1), (5, 20)), _writes((7, 8))) == []


def test_a_write_on_blue_after_one_on_green_is_a_breach() -> None:
    (said,) = both_writable(_writes((0, 1), (12, 13)), _writes((7, 8), (9, 10)))
    assert "1 writes on blue, the last 4 ms after the first on green" in said


def test_durations_and_the_last_word_are_read_from_the_log() -> None:
    events: list[Event] = [
        {"event": "switchover.phase", "phase": "park", "duration_ms": 12.5, "timestamp": "2026-01-01T00:00:01+00:00"},
        {
            "event": "workflow.step_started",
            "kind": "create_deployment",
            "step": "copy",
            "timestamp": "2026-01-01T00:00:02+00:00",
        },
        {
            "event": "workflow.step_done",
            "kind": "create_deployment",
            "step": "copy",
            "timestamp": "2026-01-01T00:00:04.500000+00:00",
        },
    ]
    durations_s: dict[str, float] = {}
    learn(durations_s, events)
    assert durations_s == {"park": 0.0125, "create_deployment.copy": 2.5}
    assert last_of(events, datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)) == "workflow.step_started copy"


def _result(fault: str, outcome: str, *, counts: str = "", violations: tuple[str, ...] = ()) -> Result:
    return Result(
        seed=1,
        number=0,
        fault=fault,
        scene="switchover",
        mode="logical",
        moment="after",
        step="park",
        share=0.5,
        length_s=0.0,
        outcome=outcome,
        settled_s=2.0,
        violations=list(violations),
        counts=counts,
    )


def test_the_report_counts_what_counts() -> None:
    said = report(
        [
            _result("router killed", "completed"),
            _result("router killed", "as before (a reason)", violations=("lost",)),
            _result("router killed", "completed", counts="too little load: 3 commits a second"),
        ]
    )
    assert "2 runs count, of seed 1; 1 with a violation." in said
    assert "Not counted: 1 too little load." in said
    assert "| router killed | 2 | 1 completed, 1 as before | 2.0 s, 2.0 s | 0 | 1 |" in said
    assert "| switchover: after park | 2 |" in said
