"""One deployment as an operator asks for it: what it is, and what became of each of its switchovers."""

from datetime import datetime

from msgspec import Struct

from verdigris.admin import Sheet, require_state
from verdigris.app import store_url
from verdigris.config import Settings
from verdigris.domain import status_details
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import BlueGreenDeployment, Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import DeploymentStatus, ReplicationMode, WorkflowKind, WorkflowStatus
from verdigris.store.sql_store import open_store
from verdigris.workflows.switchover_records import TIMELINE
from verdigris.workflows.timeline import TimelineRecord


class SwitchoverReport(Struct, frozen=True, kw_only=True):
    """``timeline`` comes with the end of the switchover."""

    started_at: datetime
    deadline_at: datetime | None
    status: WorkflowStatus
    error: str | None
    timeline: TimelineRecord | None


class DeploymentReport(Struct, frozen=True, kw_only=True):
    identifier: str
    name: str
    status: DeploymentStatus
    status_details: str | None
    mode: ReplicationMode
    source: str
    target: str | None
    target_version: str
    created_at: datetime
    switchovers: tuple[SwitchoverReport, ...]


def read_deployment(settings: Settings, identifier: str) -> DeploymentReport:
    """Reads the records of the state directory, whether ``serve`` runs or not."""
    require_state(settings)
    store = open_store(store_url(settings))
    try:
        with store.transaction() as tx:
            deployment = tx.deployment(identifier)
            if deployment is None:
                raise VerdigrisError(f"there is no blue/green deployment {identifier}")
            return _report(tx, deployment)
    finally:
        store.close()


def _report(tx: Transaction, deployment: BlueGreenDeployment) -> DeploymentReport:
    workflows = tx.workflows_of(deployment.identifier)
    return DeploymentReport(
        identifier=deployment.identifier,
        name=deployment.name,
        status=deployment.status,
        status_details=deployment.status_details,
        mode=deployment.mode,
        source=deployment.subject.source_identifier,
        target=deployment.subject.target_identifier,
        target_version=deployment.target.engine_version,
        created_at=deployment.created_at,
        switchovers=tuple(_switchover(tx, w) for w in workflows if w.kind is WorkflowKind.SWITCH_OVER),
    )


def _switchover(tx: Transaction, workflow: Workflow) -> SwitchoverReport:
    found = [entry.detail for entry in tx.journal(workflow.workflow_id) if entry.step == TIMELINE]
    return SwitchoverReport(
        started_at=workflow.started_at,
        deadline_at=workflow.deadline_at,
        status=workflow.status,
        error=workflow.error,
        timeline=TimelineRecord.from_json(found[-1]) if found else None,
    )


# -- for people


def sheets(report: DeploymentReport) -> list[Sheet]:
    rows = [
        ("identifier", report.identifier),
        ("name", report.name),
        ("status", report.status),
        ("details", report.status_details or ""),
        ("replication", report.mode),
        ("source", report.source),
        ("target", report.target or "(none yet)"),
        ("target version", report.target_version),
        ("created", _moment(report.created_at)),
    ]
    made = [Sheet("Blue/green deployment", ("what", "value"), rows)]
    for switchover in report.switchovers:
        made += _switchover_sheets(switchover)
    return made


def _switchover_sheets(switchover: SwitchoverReport) -> list[Sheet]:
    title = f"Switchover of {_moment(switchover.started_at)}"
    timeline = switchover.timeline
    if timeline is None:
        return [Sheet(f"{title}: {switchover.status}", ("what", "value"), [("reason", switchover.error or "")])]
    outcome: list[tuple[str, object]] = [("outcome", switchover.status)]
    if switchover.error is not None:
        outcome.append(("reason", switchover.error))
    outcome += [
        ("attempts", len(timeline.attempts)),
        ("pause, ms", _or_dash(timeline.pause_ms)),
        ("sessions carried", timeline.carried),
        ("pinned sessions", status_details.counts(timeline.pinned) or 0),
        ("refused by green too late", status_details.counts(timeline.late_pins) or 0),
        ("stragglers ended", timeline.stragglers),
    ]
    if timeline.resumed:
        outcome.append(("note", "another control plane began it; what that one did is not in the timeline"))
    attempts = [
        (number, attempt.started_ms, _or_dash(attempt.pause_ms), attempt.setback or "")
        for number, attempt in enumerate(timeline.attempts, 1)
    ]
    phases = [(phase.attempt, phase.name, phase.started_ms, phase.duration_ms) for phase in timeline.phases]
    return [
        Sheet(title, ("what", "value"), list(outcome)),
        Sheet("Attempts", ("attempt", "start, ms", "pause, ms", "set back by"), attempts),
        Sheet("Phases", ("attempt", "phase", "start, ms", "duration, ms"), phases),
    ]


def _moment(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")


def _or_dash(value: float | None) -> float | str:
    return "-" if value is None else value
