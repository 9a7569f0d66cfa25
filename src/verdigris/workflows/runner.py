"""Runs every unfinished workflow of the store: the new ones when woken, the interrupted ones at start-up.

One workflow a subject at a time. The exception is a deployment's deletion, which replaces whatever the deployment was
doing (the API refuses it during a switchover).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from msgspec import structs

from verdigris.domain.errors import ControllerSuperseded
from verdigris.domain.model import Workflow
from verdigris.domain.ports import Store
from verdigris.domain.statuses import WorkflowKind, WorkflowStatus

log = structlog.get_logger(__name__)

# How long an unexpected failure of the runner's own (the store's disk is full, say) waits before the next try.
RETRY_S = 1.0


class Runnable(Protocol):
    async def run(self) -> None: ...


Factory = Callable[[Workflow], Runnable]


class WorkflowRunner:
    def __init__(self, store: Store, factories: Mapping[WorkflowKind, Factory]) -> None:
        self._store = store
        self._factories = factories
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kinds: dict[str, tuple[str, WorkflowKind]] = {}
        self._running: dict[str, Runnable] = {}

    def wake(self) -> None:
        """Look for new work. Safe to call from any thread."""
        self._loop.call_soon_threadsafe(self._woken.set)

    def running(self, workflow_id: str) -> Runnable | None:
        """What works on it at this moment."""
        return self._running.get(workflow_id)

    async def run(self) -> None:
        """Until cancelled; then every task is cancelled too, and its workflow is resumed at the next start."""
        try:
            while True:
                self._woken.clear()
                try:
                    await self._start_what_is_new()
                except ControllerSuperseded:
                    raise
                except Exception:
                    log.exception("runner.failed")
                    await asyncio.sleep(RETRY_S)
                    continue
                await self._woken.wait()
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start_what_is_new(self) -> None:
        with self._store.transaction() as tx:
            unfinished = tx.unfinished_workflows()
        for workflow in unfinished:
            if workflow.kind is WorkflowKind.DELETE_DEPLOYMENT:
                await self._supersede(workflow)
        busy = {subject for workflow_id, (subject, _) in self._kinds.items() if workflow_id in self._tasks}
        for workflow in unfinished:
            if workflow.workflow_id in self._tasks or workflow.subject in busy or self._is_finished(workflow):
                continue
            busy.add(workflow.subject)
            self._start(workflow)

    def _is_finished(self, workflow: Workflow) -> bool:
        with self._store.transaction() as tx:
            now = tx.workflow(workflow.workflow_id)
        return now is None or now.status not in (WorkflowStatus.RUNNING, WorkflowStatus.UNDOING)

    async def _supersede(self, deletion: Workflow) -> None:
        """End what else the deployment was doing; the deletion takes its traces away."""
        with self._store.transaction() as tx:
            others = [
                other
                for other in tx.unfinished_workflows()
                if other.subject == deletion.subject and other.workflow_id != deletion.workflow_id
            ]
        for other in others:
            task = self._tasks.get(other.workflow_id)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            with self._store.transaction() as tx:
                tx.put_workflow(
                    structs.replace(other, status=WorkflowStatus.FAILED, error="superseded by the deletion")
                )
            log.info("workflow.superseded", workflow_id=other.workflow_id, kind=other.kind, subject=other.subject)

    def _start(self, workflow: Workflow) -> None:
        log.info("workflow.started", workflow_id=workflow.workflow_id, kind=workflow.kind, subject=workflow.subject)
        task = asyncio.create_task(self._run_one(workflow), name=f"{workflow.kind}:{workflow.subject}")
        self._tasks[workflow.workflow_id] = task
        self._kinds[workflow.workflow_id] = (workflow.subject, workflow.kind)
        task.add_done_callback(lambda _: self._ended(workflow.workflow_id))

    def _ended(self, workflow_id: str) -> None:
        self._tasks.pop(workflow_id, None)
        self._kinds.pop(workflow_id, None)
        self._running.pop(workflow_id, None)
        self._woken.set()

    async def _run_one(self, workflow: Workflow) -> None:
        try:
            self._running[workflow.workflow_id] = self._factories[workflow.kind](workflow)
            await self._running[workflow.workflow_id].run()
        except Exception:
            # Not a failed step (those are undone and recorded) but a failure to record: try again from the journal.
            log.exception("workflow.crashed", workflow_id=workflow.workflow_id, kind=workflow.kind)
            self._running.pop(workflow.workflow_id, None)
            await asyncio.sleep(RETRY_S)
        else:
            log.info("workflow.ended", workflow_id=workflow.workflow_id, kind=workflow.kind, subject=workflow.subject)
