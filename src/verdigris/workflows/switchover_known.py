"""What a switchover that is going on knows: its records, its facts, and how far it is with the present attempt."""

import asyncio

import msgspec
from msgspec import structs

from verdigris.domain.errors import ParkBroken
from verdigris.domain.model import BlueGreenDeployment, DBInstance, Workflow
from verdigris.domain.ports import Pair, Parked
from verdigris.domain.switchover import Facts, Side
from verdigris.workflows import arguments
from verdigris.workflows.lease import Lease
from verdigris.workflows.services import Services, require_deployment, require_instance
from verdigris.workflows.switchover_readers import Reader, Readers
from verdigris.workflows.switchover_records import SwitchoverRecords
from verdigris.workflows.timeline import Timeline


class Known:
    def __init__(self, services: Services, workflow: Workflow) -> None:
        self._services = services
        self._workflow = workflow
        self.records = SwitchoverRecords(services, workflow)
        self.timeline = Timeline()
        self.parked: Parked | None = None
        self.pause_ends_at = 0.0  # event loop time
        self.task: asyncio.Task[None] | None = None  # that runs the switchover
        self.limit: asyncio.Timeout | None = None  # of the steps that are going on
        self.retry_s = services.policy.retry_first_s
        self.last_setback: str | None = None
        self.ended = False
        # Held while it is being decided which side production is on: what comes of it is not to be guessed at.
        self.deciding = asyncio.Lock()
        self.facts = Facts(route=Side.TARGET)  # until they are observed nothing can be taken back
        self.observed = asyncio.Event()

    @property
    def is_left(self) -> bool:
        """The control plane ends: the task is cancelled, and not by its limit."""
        limited = self.limit is not None and self.limit.expired()
        return self.task is not None and self.task.cancelling() > int(limited)

    def read_records(self) -> None:
        """The rest of what there is to know beforehand."""
        with self._services.store.transaction() as tx:
            self.deployment: BlueGreenDeployment = require_deployment(tx, self._workflow.subject)
            self.source: DBInstance = require_instance(tx, self.deployment.primary.source_resource_id)
            self.target: DBInstance = require_instance(tx, self.deployment.primary.target_resource_id or "")
            replicas = [
                (require_instance(tx, each.source_resource_id), require_instance(tx, each.target_resource_id or ""))
                for each in self.deployment.moving[1:]
            ]
        self.pair: Pair = self._services.pair(self.deployment)
        # The name that production uses: blue's until RENAME, green's afterwards.
        renamed = self.records.is_renamed()
        self.name = self.target.identifier if renamed else self.source.identifier
        self.readers = Readers(self._services, [Reader(source, target, renamed=renamed) for source, target in replicas])
        remaining_s = 0.0
        if self._workflow.deadline_at is not None:
            told = msgspec.convert(self._workflow.arguments, arguments.SwitchOver)
            remaining_s = (self._workflow.deadline_at - self._services.clock.now()).total_seconds()
            now = self._services.clock.since_boot()
            if told.accepted is not None and told.accepted.boot == now.boot:
                remaining_s = told.timeout_s - (now.seconds - told.accepted.seconds)
            # A wall's clock that was set back meanwhile gives nobody more time than was asked for.
            remaining_s = min(remaining_s, told.timeout_s)
        self.deadline = asyncio.get_running_loop().time() + max(remaining_s, 0.0)
        self.lease = Lease(self._services.router, self._services.policy.lease_s, self.deadline)

    @property
    def moving(self) -> list[tuple[DBInstance, DBInstance]]:
        """Every source that is switched over, with its target; production's first."""
        return [(self.source, self.target), *((reader.source, reader.target) for reader in self.readers.each)]

    def learn(self, **facts: object) -> None:
        self.facts = structs.replace(self.facts, **facts)

    def give_up(self, reason: str) -> None:
        """The first reason is the one to tell; what goes wrong later may only follow from it."""
        self.learn(failure=self.facts.failure or reason)

    def require_park(self) -> Parked:
        if self.parked is None:
            raise ParkBroken("no sessions are parked")
        return self.parked

    async def observed_route(self) -> Side:
        for route in await self._services.router.routes():
            if route.name == self.name and route.backend.resource_id == self.target.resource_id:
                return Side.TARGET
        return Side.SOURCE
