"""When to strike: the control plane's log as a clock, and how long each step took when it was last seen."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime

from tests.acceptance.serve_log import Event, ServeLog
from tests.faults.points import Moment, Scene, switchover_steps
from tests.faults.schedule import Run
from verdigris.domain.switchover import Step

Condition = Callable[[Event], bool]

# Of steps that nobody has measured yet.
_PHASE_S, _STEP_S = 0.01, 0.3
_END = "workflow.ended"
_LIMIT_S = 45.0


class Missed(Exception):
    """What was to be struck never came; the run does not count."""


def await_point(log: ServeLog, run: Run, durations_s: dict[str, float]) -> None:
    """Return at the moment for the blow."""
    point = run.point
    during = point.moment is Moment.DURING
    if point.scene in (Scene.SWITCHOVER, Scene.WAY_BACK):
        condition = _beginning(run) if during else _after(Step(point.step))
        if condition is not None:
            _await(log, condition, str(point))
        took_s = durations_s.get(point.step, _PHASE_S)
    else:
        event = "workflow.step_started" if during else "workflow.step_done"
        found = _await(log, lambda e: e.get("event") == event and e.get("step") == point.step, str(point))
        took_s = durations_s.get(_key(found), _STEP_S)
    if during:
        time.sleep(run.share * took_s)


def _key(event: Event) -> str:
    """Workflows have steps of the same name."""
    return f"{event.get('kind')}.{event.get('step')}"


def _phase(event: Event) -> object:
    return event.get("phase") if event.get("event") == "switchover.phase" else None


def _await(log: ServeLog, condition: Condition, what: str) -> Event:
    """Also for the end of everything, after which nothing will come."""
    try:
        found = log.wait_until(lambda e: condition(e) or e.get("event") == _END, what, limit_s=_LIMIT_S)
    except AssertionError as error:
        raise Missed(str(error)) from None
    if not condition(found):
        raise Missed(f"{found.get('event')} came first: {found.get('reason', '')}")
    return found


def _beginning(run: Run) -> Condition | None:
    """What a step of a switchover begins with, which itself says only when it is done. None: with the scene."""
    step, mode = Step(run.point.step), run.mode
    if run.point.scene is Scene.WAY_BACK:
        return _WAY_BACK[step]
    steps = switchover_steps(mode)
    position = steps.index(step)
    if position == 0:
        return lambda event: event.get("event") == "workflow.started" and event.get("kind") == "switch_over"
    if step in (Step.HAND_OVER, Step.FENCE_SOURCE):
        return _after(Step.PARK)
    if step is Step.CATCH_UP:
        return _after(Step.FENCE_SOURCE)
    if step is Step.COMMIT_ROUTE:
        return _after_all(Step.HAND_OVER, Step.CATCH_UP)
    return _after(steps[position - 1])


def _after(*steps: Step) -> Condition:
    return lambda event: _phase(event) in {step.value for step in steps}


def _after_all(*steps: Step) -> Condition:
    missing = {step.value for step in steps}

    def seen(event: Event) -> bool:
        missing.discard(str(_phase(event)))
        return not missing

    return seen


def _is(name: str) -> Condition:
    return lambda event: event.get("event") == name


_WAY_BACK: dict[Step, Condition | None] = {
    Step.UNFENCE_SOURCE: None,
    Step.ABORT_PARK: _after(Step.UNFENCE_SOURCE),
    Step.WAIT: _is("switchover.set_back"),
    Step.UNREADY_SESSIONS: _after(Step.UNFENCE_SOURCE, Step.ABORT_PARK),
    Step.FAIL: _after(Step.UNREADY_SESSIONS),
    Step.PARK_WITHOUT_STRAGGLERS: _is("switchover.readied"),
}


def learn(durations_s: dict[str, float], events: Sequence[Event]) -> None:
    """From a run's events: how long its steps took."""
    started: dict[str, datetime] = {}
    for event in events:
        match event:
            case {"event": "switchover.phase", "phase": str(phase), "duration_ms": float() | int() as ms}:
                durations_s[phase] = float(ms) / 1000
            case {"event": "workflow.step_started", "timestamp": str(at)}:
                started[_key(event)] = datetime.fromisoformat(at)
            case {"event": "workflow.step_done", "timestamp": str(at)} if _key(event) in started:
                durations_s[_key(event)] = (datetime.fromisoformat(at) - started[_key(event)]).total_seconds()


def last_of(events: Sequence[Event], before: datetime) -> str:
    """The last thing that the log told before a moment."""
    told = ""
    for event in events:
        at = event.get("timestamp")
        if isinstance(at, str) and datetime.fromisoformat(at) < before and event.get("event"):
            told = " ".join(str(event[key]) for key in ("event", "phase", "step") if key in event)
    return told
