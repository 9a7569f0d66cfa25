"""A few runs of the driver in every run of the tests; campaigns are ``python -m tests.faults``.

What a campaign has found is here as well: the same fault at the same point, with the run's own figures.
"""

import shutil
from collections.abc import Iterator

import pytest

from tests.faults.points import Moment, Point, Scene
from tests.faults.schedule import Fault, Run
from tests.faults.stage import Stage, stage
from tests.faults.trial import Trial
from verdigris.domain.statuses import ReplicationMode

LOGICAL, PHYSICAL = ReplicationMode.LOGICAL, ReplicationMode.PHYSICAL
AFTER, DURING = Moment.AFTER, Moment.DURING
FORWARD = Scene.SWITCHOVER

# In this order they share their servers: only the last of a mode ends in green's favour.
RUNS = (
    Run(0, Fault.CONTROL_PLANE_KILLED, Point(FORWARD, LOGICAL, "fence_source", DURING), 0.5, 0.0),
    Run(1, Fault.WORKER_KILLED, Point(FORWARD, LOGICAL, "ready_sessions", AFTER), 0.0, 0.0),
    Run(2, Fault.CONTROL_PLANE_STOPPED, Point(FORWARD, LOGICAL, "park", AFTER), 0.0, 2.5),
    Run(3, Fault.CONTROL_PLANE_KILLED, Point(FORWARD, LOGICAL, "commit_route", AFTER), 0.0, 0.0),
    Run(4, Fault.ROUTER_KILLED, Point(FORWARD, PHYSICAL, "hand_over", DURING), 0.5, 0.0),
)


@pytest.fixture(scope="module")
def here() -> Iterator[Stage]:
    with stage(job=3) as here:
        yield here


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_run(here: Stage, run: Run) -> None:
    """Whatever comes of it, no promise is broken. How much load the machine bears is not asked here."""
    trial = Trial(here, run)
    try:
        trial.conduct()
    finally:
        shutil.rmtree(trial.ledgers)
    assert trial.play.violations == []
    assert trial.counts.partition(":")[0] in ("", "too little load")
    print(trial.outcome)
