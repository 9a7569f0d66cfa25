"""Starting durable work from a handler."""

from datetime import datetime

import msgspec

from verdigris.domain.identifiers import SUFFIX_ALPHABET
from verdigris.domain.model import Workflow
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import WorkflowKind
from verdigris.rds.context import Context


def start_workflow(
    context: Context,
    tx: Transaction,
    kind: WorkflowKind,
    subject: str,
    arguments: msgspec.Struct | None = None,
    *,
    deadline_at: datetime | None = None,
) -> None:
    """Write down the work; whoever commits ``tx`` calls ``context.wake()`` afterwards."""
    tx.put_workflow(
        Workflow(
            workflow_id="wf-" + context.random_text(SUFFIX_ALPHABET, 20),
            kind=kind,
            subject=subject,
            arguments={} if arguments is None else msgspec.to_builtins(arguments),
            started_at=context.clock.now(),
            deadline_at=deadline_at,
        )
    )
