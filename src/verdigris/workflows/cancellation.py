"""Cancelling a switchover that is under way, as its operator asks for it. RDS has no such call."""

from verdigris.domain.errors import VerdigrisError
from verdigris.domain.model import Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import WorkflowKind
from verdigris.workflows.runner import WorkflowRunner
from verdigris.workflows.services import Services
from verdigris.workflows.switch_over import SwitchOver
from verdigris.workflows.switchover_records import SwitchoverRecords


class CannotCancel(VerdigrisError):
    """There is nothing to cancel, or it is too late for it. The text says which."""


class TooLate(CannotCancel):
    """Past the point of no return: the switchover will be completed."""


async def cancel_switchover(services: Services, runner: WorkflowRunner, identifier: str) -> None:
    """Return once it is certain that the switchover does not happen; undoing what it did may take a little longer.

    Raises ``CannotCancel``. To be called in the runner's event loop.
    """
    with services.store.transaction() as tx:
        workflow = _switchover(tx, identifier)
    running = runner.running(workflow.workflow_id)
    if isinstance(running, SwitchOver):
        if not await running.cancel():
            raise TooLate(
                f"the switchover of {identifier} is past its point of no return: green serves production already, and "
                "what remains to be done will be done"
            )
        return
    records = SwitchoverRecords(services, workflow)
    if records.has_begun():
        raise CannotCancel(f"the switchover of {identifier} is being taken up again after an interruption: try again")
    records.note_cancellation()


def _switchover(tx: Transaction, identifier: str) -> Workflow:
    deployment = tx.deployment(identifier)
    if deployment is None:
        raise CannotCancel(f"there is no blue/green deployment {identifier}")
    for workflow in tx.unfinished_workflows():
        if workflow.subject == deployment.identifier and workflow.kind is WorkflowKind.SWITCH_OVER:
            return workflow
    raise CannotCancel(f"no switchover of {identifier} is in progress: its status is {deployment.status}")
