"""A deployment's switchovers as ``verdigris deployments show`` tells them."""

from pathlib import Path

import pytest

from tests.unit.stores import new_store
from tests.unit.workflows.world import DEPLOYMENT, World, plant_records, services
from verdigris.config import Settings
from verdigris.deployment_report import read_deployment, sheets
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.statuses import WorkflowStatus
from verdigris.store.sql_store import open_store
from verdigris.workflows.switch_over import SwitchOver


async def test_every_attempt_phase_and_reason_is_shown(tmp_path: Path) -> None:
    store = new_store(tmp_path / "state.db")
    try:
        workflow = plant_records(store)
        world = World(stragglers=1, pins=["listen"])
        running = read_deployment(Settings(home=tmp_path), DEPLOYMENT)
        await SwitchOver(services(world, store), workflow).run()
    finally:
        store.close()
    assert [one.timeline for one in running.switchovers] == [None]
    assert [sheet.title for sheet in sheets(running)][1].endswith(": running")
    report = read_deployment(Settings(home=tmp_path), DEPLOYMENT)
    (switchover,) = report.switchovers
    assert switchover.status is WorkflowStatus.COMPLETED
    assert switchover.timeline is not None
    deployment, outcome, attempts, phases = sheets(report)
    assert ("details", report.status_details) in deployment.rows
    assert {("attempts", 2), ("sessions carried", 1), ("pinned sessions", "listen (1)")} <= set(outcome.rows)
    first, second = attempts.rows
    assert first[3].startswith("1 session did not end a transaction or request within 1 s")
    assert second[3] == ""
    assert [(row[0], row[1]) for row in phases.rows if row[1] in ("park", "commit_route")] == [
        (1, "park"),
        (2, "park"),
        (2, "commit_route"),
    ]


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(VerdigrisError, match="not a state directory"):
        read_deployment(Settings(home=tmp_path), DEPLOYMENT)
    open_store(f"sqlite:///{tmp_path / 'state.db'}").close()
    with pytest.raises(VerdigrisError, match="no blue/green deployment bgd-none"):
        read_deployment(Settings(home=tmp_path), "bgd-none")
