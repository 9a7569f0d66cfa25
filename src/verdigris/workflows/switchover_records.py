"""What a switchover writes: statuses, names, events and its journal, each change in one transaction."""

from collections.abc import Iterable

import structlog
from msgspec import structs, to_builtins

from verdigris.domain import events, status_details
from verdigris.domain.model import BlueGreenDeployment, JournalEntry, Member, Workflow
from verdigris.domain.ports import Route, Transaction
from verdigris.domain.statuses import DeploymentStatus, MemberStatus, ReplicationMode, WorkflowStatus
from verdigris.workflows import cluster_switchover
from verdigris.workflows.services import Services, add_events, require_deployment, require_instance
from verdigris.workflows.timeline import TimelineRecord

log = structlog.get_logger(__name__)

_BEGIN, _RENAME, _RENAME_CLUSTER, _CANCEL = "begin", "rename", "rename-cluster", "cancel"
TIMELINE = "timeline"  # the journal's step whose detail is a ``TimelineRecord``


class SwitchoverRecords:
    def __init__(self, services: Services, workflow: Workflow) -> None:
        self._services = services
        self._workflow = workflow

    def begin(self) -> bool:
        """Note that the switchover runs; True if it did so before, that is if the control plane died during it."""
        with self._services.store.transaction() as tx:
            if tx.journal(self._workflow.workflow_id):
                return True
            self._journal(tx, _BEGIN)
            deployment = self._deployment(tx)
            self._put(tx, deployment, MemberStatus.SWITCHOVER_IN_PROGRESS, status_details=None)
            add_events(tx, events.switchover_started(deployment, self._services.clock.now()))
            return False

    def is_renamed(self) -> bool:
        return self._has(_RENAME)

    def note_cancellation(self) -> None:
        """The operator's wish."""
        with self._services.store.transaction() as tx:
            self._journal(tx, _CANCEL)

    def is_cancelled(self) -> bool:
        return self._has(_CANCEL)

    def has_begun(self) -> bool:
        return self._has(_BEGIN)

    # What follows is repeated when a commit fails, also when it had been made and only its answer was lost.

    def _has_ended(self, tx: Transaction) -> bool:
        recorded = tx.workflow(self._workflow.workflow_id)
        return recorded is not None and recorded.status is not WorkflowStatus.RUNNING

    def note_setback(self, reason: str) -> None:
        with self._services.store.transaction() as tx:
            deployment = self._deployment(tx)
            tx.put_deployment(structs.replace(deployment, status_details=status_details.set_back(reason)))

    def rename(self, olds: Iterable[Route]) -> None:
        """Swap names and ports of every source and its target; ``olds``: the endpoints that the sources have had since
        the commit."""
        endpoints = {old.backend.resource_id: old for old in olds}
        with self._services.store.transaction() as tx:
            if self._green_names(tx):
                return
            deployment = self._deployment(tx)
            moved = {each: self._swap(tx, each, endpoints[each.source_resource_id]) for each in deployment.moving}
            members = tuple(moved.get(each, each) for each in deployment.members)
            if deployment.cluster is not None:
                self._journal(tx, _RENAME_CLUSTER, deployment.cluster.target_identifier or "")
            deployment = cluster_switchover.swap(self._services, tx, deployment)
            tx.put_deployment(structs.replace(deployment, members=members))

    def _swap(self, tx: Transaction, member: Member, old: Route) -> Member:
        source = require_instance(tx, member.source_resource_id)
        target = require_instance(tx, member.target_resource_id or "")
        # Source first: its name has to be free before target takes it.
        tx.put_instance(structs.replace(source, identifier=old.name, port=old.port, read_only=True))
        tx.put_instance(
            structs.replace(
                target,
                identifier=source.identifier,
                port=source.port,
                read_only=target.replica_of is not None,
                tags=source.tags,
            )
        )
        self._journal(tx, _RENAME, target.identifier)
        return structs.replace(member, source_identifier=old.name, target_identifier=source.identifier)

    def complete(self, timeline: TimelineRecord) -> None:
        told = status_details.completed(
            attempts=len(timeline.attempts),
            pause_s=None if timeline.pause_ms is None else timeline.pause_ms / 1000,
            carried=timeline.carried,
            closed=timeline.closed,
            late_pins=timeline.late_pins,
        )
        with self._services.store.transaction() as tx:
            if self._has_ended(tx):
                return
            before, now = self._deployment(tx), self._services.clock.now()
            self._put(
                tx,
                before,
                MemberStatus.SWITCHOVER_COMPLETED,
                status=DeploymentStatus.SWITCHOVER_COMPLETED,
                status_details=told,
            )
            self._journal(tx, TIMELINE, timeline.as_json())
            greens = self._greens(tx, before)
            if before.mode is ReplicationMode.LOGICAL:
                add_events(tx, events.sequences_synchronised(before, now, greens=greens))
            add_events(tx, events.switchover_completed(before, now, greens=greens))
            self._end(tx, WorkflowStatus.COMPLETED, None)
        log.info("switchover.completed", deployment=self._workflow.subject, timeline=to_builtins(timeline))

    def fail(self, reason: str, timeline: TimelineRecord) -> None:
        with self._services.store.transaction() as tx:
            if self._has_ended(tx):
                return
            deployment = self._deployment(tx)
            self._put(
                tx,
                deployment,
                MemberStatus.SWITCHOVER_FAILED,
                status=DeploymentStatus.SWITCHOVER_FAILED,
                status_details=status_details.canceled(reason),
            )
            self._journal(tx, TIMELINE, timeline.as_json())
            add_events(tx, events.switchover_canceled(deployment, reason, self._services.clock.now()))
            self._end(tx, WorkflowStatus.FAILED, reason)
        log.warning(
            "switchover.canceled", deployment=self._workflow.subject, reason=reason, timeline=to_builtins(timeline)
        )

    # -- pieces

    def _has(self, step: str) -> bool:
        with self._services.store.transaction() as tx:
            return any(entry.step == step for entry in tx.journal(self._workflow.workflow_id))

    def _green_names(self, tx: Transaction, step: str = _RENAME) -> list[str]:
        """What targets were called before they were renamed, in the order of the members that move."""
        entries = tx.journal(self._workflow.workflow_id)
        return [entry.detail for entry in entries if entry.step == step]

    def _greens(self, tx: Transaction, deployment: BlueGreenDeployment) -> dict[str, str]:
        """The same by the names that they have now. Of a cluster it is the cluster's that is told."""
        if deployment.cluster is None:
            names = zip(deployment.moving, self._green_names(tx), strict=False)
        else:
            names = zip([deployment.cluster], self._green_names(tx, _RENAME_CLUSTER), strict=False)
        return {member.target_identifier or "": green for member, green in names}

    def _deployment(self, tx: Transaction) -> BlueGreenDeployment:
        return require_deployment(tx, self._workflow.subject)

    def _put(
        self, tx: Transaction, deployment: BlueGreenDeployment, member_status: MemberStatus, **changes: object
    ) -> None:
        tx.put_deployment(structs.replace(deployment.with_member_status(member_status), **changes))

    def _journal(self, tx: Transaction, step: str, detail: str = "") -> None:
        tx.add_journal_entry(
            JournalEntry(
                workflow_id=self._workflow.workflow_id,
                step=step,
                outcome="done",
                at=self._services.clock.now(),
                detail=detail,
            )
        )

    def _end(self, tx: Transaction, status: WorkflowStatus, error: str | None) -> None:
        tx.put_workflow(structs.replace(self._workflow, status=status, error=error))
