"""A sequence of idempotent steps with a journal: resumes after a crash, undoes in reverse order on failure.

The outcome of a step, the status that callers see and the event are written in one transaction (``Step.done``). A step
that was started and not done when the control plane died is run again, or, where that is no use, the run goes back
to an earlier step (``Step.restart_from``).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog
from msgspec import Struct, structs

from verdigris.domain.errors import ControllerSuperseded, VerdigrisError
from verdigris.domain.model import JournalEntry, Workflow
from verdigris.domain.ports import Clock, Store, Transaction
from verdigris.domain.statuses import WorkflowStatus
from verdigris.workflows.retrying import Distance, until_it_works

log = structlog.get_logger(__name__)

# Undoing is repeated until it succeeds: a server that is down now comes back, and a slot left on it must go.
RETRIES = Distance(0.5, 30.0)
# How long a step that takes something away waits for a server or a router that is down (``Step.patience_s``): a
# killed server is back in seconds, one whose disk was full when somebody has made room.
PATIENCE_S = 120.0


def _nothing(_: Transaction) -> None:
    return None


class Step(Struct, frozen=True, kw_only=True):
    """``begun`` and ``done`` are written together with the journal; ``do`` and ``undo`` act on the world."""

    name: str
    do: Callable[[], Awaitable[None]]
    undo: Callable[[], Awaitable[None]] | None = None
    begun: Callable[[Transaction], None] = _nothing
    done: Callable[[Transaction], None] = _nothing
    restart_from: str | None = None
    bulky: bool = False  # makes files that may fill the disk; its ``undo`` may be called before that is recorded
    patience_s: float = 0.0  # how long it is tried again before it has failed


class Outcome(Protocol):
    """What the owner of a saga writes at its ends."""

    def failing(self, tx: Transaction, reason: str) -> None:
        """With the decision to undo: the caller sees the failure at once, undoing may take longer."""

    def failed(self, tx: Transaction, reason: str) -> None:
        """Everything is undone."""

    def completed(self, tx: Transaction) -> None: ...


class Saga:
    """Runs one workflow's steps. Cancelling it (shutdown) leaves the workflow to be resumed."""

    def __init__(self, store: Store, clock: Clock, workflow: Workflow, steps: Sequence[Step], outcome: Outcome) -> None:
        self._store = store
        self._clock = clock
        self._workflow = workflow
        self._steps = steps
        self._outcome = outcome

    async def run(self) -> None:
        if self._workflow.status is WorkflowStatus.RUNNING:
            try:
                await self._forward()
            except Exception as error:
                if self._is_completed():
                    return
                await self._decide_to_undo(error)
            else:
                return
        await self._undo()

    def _is_completed(self) -> bool:
        """A commit whose answer was lost may have been made all the same: what is recorded counts."""
        try:
            with self._store.transaction() as tx:
                recorded = tx.workflow(self._workflow.workflow_id)
        except ControllerSuperseded:
            raise
        except Exception as error:
            log.warning("workflow.not_read", workflow_id=self._workflow.workflow_id, reason=str(error))
            return False
        return recorded is not None and recorded.status is WorkflowStatus.COMPLETED

    # -- forward

    async def _forward(self) -> None:
        for step in self._steps[self._first_unfinished() :]:
            self._record(step, "started", step.begun)
            log.info("workflow.step_started", **self._context(step))
            await self._do(step)
            self._record(step, "done", step.done)
            log.info("workflow.step_done", **self._context(step))
        with self._store.transaction() as tx:
            # First, because there is one unfinished workflow a subject: the outcome may begin with the next one.
            tx.put_workflow(structs.replace(self._workflow, status=WorkflowStatus.COMPLETED))
            self._outcome.completed(tx)

    async def _do(self, step: Step) -> None:
        retried = self._tell("workflow.step_retried", step)
        await until_it_works(step.do, RETRIES, retried, patience_s=step.patience_s, what_passes=VerdigrisError)

    def _first_unfinished(self) -> int:
        states = self._states()
        names = [step.name for step in self._steps]
        for position, step in enumerate(self._steps):
            state = states.get(step.name)
            if state == "done":
                continue
            if state == "started" and step.restart_from is not None:
                return names.index(step.restart_from)
            return position
        return len(self._steps)

    async def _decide_to_undo(self, error: Exception) -> None:
        """The decision is recorded before anything is undone, so that a crash does not lead forward over ruins.

        Unless it cannot be recorded because the store's disk is full: what fills it may be what we made, and only its
        going makes room for the record.
        """
        try:
            self._give_up(error)
        except ControllerSuperseded:
            raise
        except Exception as unrecorded:
            log.warning("workflow.making_room", workflow_id=self._workflow.workflow_id, reason=str(unrecorded))
            await self._make_room()
            self._give_up(error)

    async def _make_room(self) -> None:
        """Undo the bulky steps, whatever becomes of it: it is done again, properly, once the decision is recorded. Not
        those that are done: as long as it is not, a death leads forward, and past them."""
        states = self._states()
        for step in reversed(self._steps):
            if step.bulky and step.undo is not None and states.get(step.name) == "started":
                try:
                    await step.undo()
                except Exception as error:
                    log.warning("workflow.no_room_made", **self._context(step), reason=str(error))

    def _give_up(self, error: Exception) -> None:
        expected = isinstance(error, VerdigrisError)
        reason = str(error) if expected else f"internal error: {error!r}"
        log.error("workflow.failed", workflow_id=self._workflow.workflow_id, reason=reason, exc_info=not expected)
        self._workflow = structs.replace(self._workflow, status=WorkflowStatus.UNDOING, error=reason)
        with self._store.transaction() as tx:
            recorded = tx.workflow(self._workflow.workflow_id)
            if recorded is not None and recorded.status is WorkflowStatus.UNDOING:
                return  # the commit whose answer was lost has been made: it is told once
            tx.put_workflow(self._workflow)
            self._outcome.failing(tx, reason)

    # -- backward

    async def _undo(self) -> None:
        states = self._states()
        for step in reversed(self._steps):
            if step.undo is None or states.get(step.name) not in ("started", "done"):
                continue
            await until_it_works(step.undo, RETRIES, self._tell("workflow.undo_retried", step))
            log.info("workflow.step_undone", **self._context(step))
            self._record(step, "undone", _nothing)
        with self._store.transaction() as tx:
            self._outcome.failed(tx, self._workflow.error or "")
            tx.put_workflow(structs.replace(self._workflow, status=WorkflowStatus.FAILED))

    def _tell(self, event: str, step: Step) -> Callable[[Exception, float], None]:
        return lambda error, delay_s: log.warning(event, **self._context(step), delay_s=delay_s, reason=str(error))

    # -- journal

    def _states(self) -> dict[str, str]:
        with self._store.transaction() as tx:
            return {entry.step: entry.outcome for entry in tx.journal(self._workflow.workflow_id)}

    def _record(self, step: Step, outcome: str, write: Callable[[Transaction], None]) -> None:
        with self._store.transaction() as tx:
            tx.add_journal_entry(
                JournalEntry(
                    workflow_id=self._workflow.workflow_id, step=step.name, outcome=outcome, at=self._clock.now()
                )
            )
            write(tx)

    def _context(self, step: Step) -> dict[str, str]:
        return {
            "workflow_id": self._workflow.workflow_id,
            "kind": self._workflow.kind,
            "subject": self._workflow.subject,
            "step": step.name,
        }
