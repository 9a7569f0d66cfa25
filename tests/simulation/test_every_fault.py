"""Every single fault at every point of every kind of workflow, and a sample of the pairs of faults."""

from collections.abc import Iterator

import pytest

from tests.simulation.campaign import Job, campaign, doubles, quiet, singles
from tests.simulation.faults import Fault, Kind
from tests.simulation.run import Result, simulate
from tests.simulation.scenario import Scenario
from tests.simulation.scenarios import SCENARIOS
from verdigris.domain.green import build_steps
from verdigris.domain.statuses import ReplicationMode, WorkflowKind
from verdigris.domain.switchover import Step

# What ends without having done what was asked, undisturbed.
_FAIL = (
    "switchover, refused by a guardrail",
    "switchover, refused for a pinned session",
    "switchover, replication stalled",
    "switchover, stragglers to the end",
)
# Of pairs: there are some million. `python -m tests.simulation --doubles` makes them all.
_FIRST, _SECOND = slice(3, None, 23), slice(5, None, 61)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_undisturbed(scenario: Scenario) -> None:
    with quiet():
        result = simulate(scenario)
    assert result.violation is None
    expected = "failed" if scenario.name in _FAIL or "during creation" in scenario.name else "completed"
    assert result.outcome == expected


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_single_fault(scenario: Scenario) -> None:
    summary = campaign(singles([scenario]))
    assert [told(result) for result in summary.violations] == []
    assert summary.runs > 50  # one step alone has 82


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_pairs_of_faults(scenario: Scenario) -> None:
    summary = campaign(doubles([scenario], first=_FIRST, second=_SECOND))
    assert [told(result) for result in summary.violations] == []
    assert summary.runs > 0


def test_a_death_while_undoing() -> None:
    """Of a creation that fails, at every point of what is undone."""
    scenario = next(found for found in SCENARIOS if found.name == "creation, physical")

    def jobs() -> Iterator[Job]:
        for first in errors_of(simulate(scenario)):
            for point in range(first.point + 1, len(simulate(scenario, (first,)).points)):
                yield scenario, (first, Fault(point, Kind.CRASH, after=True)), 0

    summary = campaign(jobs())
    assert [told(result) for result in summary.violations] == []
    assert summary.runs > 50  # one step alone has 82


def test_every_kind_of_workflow_has_a_scenario() -> None:
    assert {scenario.kind for scenario in SCENARIOS} == set(WorkflowKind)


def test_every_named_step_meets_a_fault() -> None:
    """The names come from the code: a step that is new has to be come by. Those of the way back are, when something has
    failed."""
    met: set[str] = set()
    with quiet():
        for scenario in SCENARIOS:
            undisturbed = simulate(scenario)
            for result in (undisturbed, *(simulate(scenario, (fault,)) for fault in errors_of(undisturbed))):
                met.update(name for names in result.steps for name in names.split())
    wanted = {step.value for step in Step}
    wanted |= {
        planned.name
        for mode in ReplicationMode
        for cluster in (False, True)
        for planned in build_steps(mode, replicas=1, cluster=cluster)
    }
    # Whose point is the commit of a step that does nothing else (register, backups) is met by that commit's faults.
    assert wanted - met == set()


def errors_of(undisturbed: Result) -> list[Fault]:
    return [Fault(point, Kind.ERROR) for point, name in enumerate(undisturbed.points) if name != "commit"]


def told(result: Result) -> str:
    return f"{result.scenario}, {', '.join(map(str, result.plan))}: {result.violation}"
