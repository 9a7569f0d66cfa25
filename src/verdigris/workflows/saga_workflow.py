"""What workflows that are sagas share, whatever their subject is."""

from verdigris.domain.model import Workflow
from verdigris.domain.ports import Transaction
from verdigris.workflows.saga import Saga, Step
from verdigris.workflows.services import Services


class SagaWorkflow:
    """The ``Outcome`` of its own saga."""

    def __init__(self, services: Services, workflow: Workflow) -> None:
        self.services = services
        self.workflow = workflow

    async def run(self) -> None:
        await Saga(self.services.store, self.services.clock, self.workflow, self.steps(), self).run()

    def steps(self) -> list[Step]:
        raise NotImplementedError

    def failing(self, tx: Transaction, reason: str) -> None:
        """By default a failure is shown only once everything is undone."""

    def failed(self, tx: Transaction, reason: str) -> None:
        raise NotImplementedError

    def completed(self, tx: Transaction) -> None:
        raise NotImplementedError
