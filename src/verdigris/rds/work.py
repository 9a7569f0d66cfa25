"""Starting durable work from a handler."""

from datetime import datetime

from msgspec import Struct

from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import WorkflowKind
from verdigris.rds.context import Context
from verdigris.workflows.services import new_workflow


def start_workflow(
    context: Context,
    tx: Transaction,
    kind: WorkflowKind,
    subject: str,
    arguments: Struct | None = None,
    *,
    deadline_at: datetime | None = None,
) -> None:
    """Write down the work; whoever commits ``tx`` calls ``context.wake()`` afterwards."""
    now = context.clock.now()
    tx.put_workflow(new_workflow(context.random_text, now, kind, subject, arguments, deadline_at=deadline_at))
