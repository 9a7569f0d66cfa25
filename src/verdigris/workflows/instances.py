"""Create, modify, reboot, stop and start one instance."""

from collections.abc import Callable, Iterable

import msgspec
import structlog
from msgspec import structs

from verdigris.domain import events
from verdigris.domain.errors import EngineError, PortInUse, StepFailed
from verdigris.domain.identifiers import old_identifier
from verdigris.domain.model import DBInstance, Event, Workflow
from verdigris.domain.parameters import FORCE_TLS, ApplyStatus, is_on
from verdigris.domain.ports import Route, ServerSpec, Transaction
from verdigris.domain.statuses import InstanceStatus, WorkflowKind
from verdigris.workflows import arguments, backups, cluster_routes, membership
from verdigris.workflows.saga import Step
from verdigris.workflows.saga_workflow import SagaWorkflow
from verdigris.workflows.services import Services, add_events, require_instance, server_parameters, taken_ports
from verdigris.workflows.snapshot_taking import SnapshotTaking

log = structlog.get_logger(__name__)


class InstanceWorkflow(SagaWorkflow):
    """What all kinds share: their subject, and how an ending is shown."""

    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.resource_id = workflow.subject

    def instance(self) -> DBInstance:
        with self.services.store.transaction() as tx:
            return require_instance(tx, self.resource_id)

    def settle(self, tx: Transaction, status: InstanceStatus, *what: Event, reason: str = "") -> None:
        instance = tx.instance(self.resource_id)
        if instance is not None:
            tx.put_instance(structs.replace(instance, status=status, status_reason=reason))
        add_events(tx, what)

    def _settle_failed(self, tx: Transaction, reason: str) -> None:
        failure = events.instance_failed(require_instance(tx, self.resource_id), reason, self.services.clock.now())
        self.settle(tx, InstanceStatus.FAILED, failure, reason=reason)

    def settle_unchanged(self, tx: Transaction, reason: str) -> None:
        """It is as it was before, and available."""
        failure = events.modification_failed(require_instance(tx, self.resource_id), reason, self.services.clock.now())
        self.settle(tx, InstanceStatus.AVAILABLE, failure, reason=reason)

    async def lead_cluster(self) -> None:
        """Clients of its endpoints come to this instance from now on, or no more if it is being deleted."""
        instance = self.instance()
        if instance.cluster is not None:
            joining = [instance.resource_id] if instance.status is InstanceStatus.CREATING else []
            await cluster_routes.lead(self.services, instance.cluster, joining=joining)

    def steps_of_members(self, *steps: Step) -> tuple[Step, ...]:
        """None for an instance that is no member of a cluster."""
        with self.services.store.transaction() as tx:
            instance = tx.instance(self.resource_id)
        return () if instance is None or instance.cluster is None else steps

    async def _set_token_logins(self) -> None:
        instance = self.instance()
        await set_token_logins(self.services, instance, enabled=instance.token_logins)

    async def close_endpoint(self) -> None:
        await self.services.router.remove_route(self.instance().identifier)

    def taking(self, snapshot_id: str) -> SnapshotTaking:
        return SnapshotTaking(self.services, snapshot_id, self.resource_id)

    # -- Outcome

    def failed(self, tx: Transaction, reason: str) -> None:
        self._settle_failed(tx, reason)


def route_of(services: Services, instance: DBInstance) -> Route:
    with services.store.transaction() as tx:
        group = tx.parameter_group(instance.parameter_group)
    return Route(
        name=instance.identifier,
        host=services.ports.host,
        port=instance.port,
        backend=services.servers.address(instance.resource_id),
        require_tls=group is not None and is_on(group.parameters.get(FORCE_TLS)),
        token_logins=instance.token_logins,
    )


def routes_after_switchover(services: Services, members: Iterable[tuple[DBInstance, DBInstance]]) -> list[Route]:
    """Of each source and its target: production's endpoint leads to the target; the source gets an endpoint of its own
    that nobody knows yet."""
    with services.store.transaction() as tx:
        names, ports = {instance.identifier for instance in tx.instances()}, taken_ports(tx)
    routes = []
    for source, target in members:
        old_name = old_identifier(source.identifier, names)
        old_port = services.ports.allocate(ports)
        names.add(old_name)
        ports.add(old_port)
        ours, theirs = (route_of(services, instance) for instance in (source, target))
        routes += [
            structs.replace(theirs, name=ours.name, port=ours.port),
            structs.replace(ours, name=old_name, port=old_port),
        ]
    return routes


async def set_token_logins(services: Services, instance: DBInstance, *, enabled: bool) -> None:
    """The server leaves nobody to a router that does not verify tokens: only one that does takes keys, and it refuses
    whom the server has not asked until it has been told of the endpoint."""
    route = structs.replace(route_of(services, instance), token_logins=enabled)
    if enabled:
        await services.router.set_token_keys(services.token_keys())
        await services.router.put_route(route)
    await services.servers.set_token_logins(instance.resource_id, enabled)
    await services.router.put_route(route)


async def open_endpoint(services: Services, resource_id: str, *, port_is_ours: bool) -> None:
    """Give an instance its endpoint. A port that we chose ourselves, and that another program has taken since, is
    replaced by the next free one; a port that the user asked for is not: ``PortInUse``."""
    while True:
        with services.store.transaction() as tx:
            instance = require_instance(tx, resource_id)
        try:
            await services.router.put_route(route_of(services, instance))
        except PortInUse:
            if not port_is_ours:
                raise
        else:
            return
        with services.store.transaction() as tx:
            port = services.ports.allocate(taken_ports(tx))
            tx.put_instance(structs.replace(require_instance(tx, resource_id), port=port))


class NewInstance(InstanceWorkflow):
    """One that is to be made, of whatever it is made."""

    port_requested: bool  # by the user: no other one will do

    def steps_to_be_reached(self) -> tuple[Step, ...]:
        """Once there is a server."""
        with self.services.store.transaction() as tx:
            instance = tx.instance(self.resource_id)
            source = None if instance is None or instance.replica_of is None else tx.instance(instance.replica_of)
        endpoint = Step(name="endpoint", do=self._open_endpoint, undo=self.close_endpoint)
        inherited = source is not None and source.token_logins
        if instance is None or instance.token_logins == inherited:
            return (endpoint,)
        return (endpoint, Step(name="tokens", do=self._set_token_logins))

    async def _open_endpoint(self) -> None:
        await open_endpoint(self.services, self.resource_id, port_is_ours=not self.port_requested)

    async def remove_server(self) -> None:
        await self.services.servers.remove(self.resource_id)

    def failing(self, tx: Transaction, reason: str) -> None:
        self._settle_failed(tx, reason)

    def failed(self, tx: Transaction, reason: str) -> None:
        """The record stays, ``failed``, until the user deletes it, as on RDS."""


class CreateInstance(NewInstance):
    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.told = msgspec.convert(workflow.arguments, arguments.CreateInstance)
        self.port_requested = self.told.port_requested

    def steps(self) -> list[Step]:
        return [
            Step(name="server", do=self._create_server, undo=self.remove_server),
            *self.steps_to_be_reached(),
            *self.steps_of_members(Step(name="cluster", do=self.lead_cluster)),
        ]

    async def _create_server(self) -> None:
        with self.services.store.transaction() as tx:
            instance = require_instance(tx, self.resource_id)
            parameters = server_parameters(tx, instance.parameter_group)
        await self.services.servers.create(
            ServerSpec(
                resource_id=instance.resource_id,
                engine_version=instance.engine_version,
                instance_class=instance.instance_class,
                master_username=instance.master_username,
                master_password_verifier=self.told.master_password_verifier,
                db_name=instance.db_name,
                parameters=parameters,
            )
        )

    def completed(self, tx: Transaction) -> None:
        instance = require_instance(tx, self.resource_id)
        self.settle(tx, InstanceStatus.AVAILABLE, events.instance_created(instance, self.services.clock.now()))
        backups.begin_first(tx, self.resource_id, self.services)


class ModifyInstance(InstanceWorkflow):
    """One step for each thing that has to be done; their order keeps restarts and renames apart."""

    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        self.told = msgspec.convert(workflow.arguments, arguments.ModifyInstance)

    def steps(self) -> list[Step]:
        steps = []
        if self.told.master_password_verifier is not None:
            steps.append(Step(name="password", do=self._set_password))
        if self.told.engine_version is not None:
            steps.append(
                Step(name="version", do=self._change_version, undo=self._restore_version, done=self._put_version)
            )
        if self.told.instance_class is not None:
            steps.append(Step(name="class", do=self._change_class, undo=self._restore_class, done=self._put_class))
        if self.told.port is not None:
            steps.append(Step(name="port", do=self._move_port, undo=self._restore_port, done=self._put_port))
        if self.told.token_logins is not None:
            steps.append(
                Step(name="tokens", do=self._change_tokens, undo=self._set_token_logins, done=self._put_tokens)
            )
        if self.told.new_identifier is not None:
            steps.append(Step(name="rename", do=self._rename, undo=self._rename_back, done=self._put_name))
        return steps

    async def _set_password(self) -> None:
        verifier = self.told.master_password_verifier
        if verifier is None:
            raise StepFailed("no password was given")
        await self.services.servers.set_master_password(self.resource_id, self.instance().master_username, verifier)

    async def _change_version(self) -> None:
        await self.services.servers.change_minor_version(self.resource_id, self.told.engine_version or "")

    async def _restore_version(self) -> None:
        await self.services.servers.change_minor_version(self.resource_id, self.instance().engine_version)

    def _put_version(self, tx: Transaction) -> None:
        self._put(tx, lambda instance: structs.replace(instance, engine_version=self.told.engine_version))

    async def _change_class(self) -> None:
        await self.services.servers.set_instance_class(self.resource_id, self.told.instance_class or "")
        await self.services.servers.restart(self.resource_id)

    async def _restore_class(self) -> None:
        await self.services.servers.set_instance_class(self.resource_id, self.instance().instance_class)
        await self.services.servers.restart(self.resource_id)

    def _put_class(self, tx: Transaction) -> None:
        self._put(tx, lambda instance: structs.replace(instance, instance_class=self.told.instance_class))

    async def _move_port(self) -> None:
        """Clients that are connected stay: they are on a socket of their own."""
        await self.services.router.put_route(
            structs.replace(route_of(self.services, self.instance()), port=self.told.port)
        )

    async def _restore_port(self) -> None:
        await self.services.router.put_route(route_of(self.services, self.instance()))

    def _put_port(self, tx: Transaction) -> None:
        self._put(tx, lambda instance: structs.replace(instance, port=self.told.port))

    async def _change_tokens(self) -> None:
        await set_token_logins(self.services, self.instance(), enabled=bool(self.told.token_logins))

    def _put_tokens(self, tx: Transaction) -> None:
        self._put(tx, lambda instance: structs.replace(instance, token_logins=self.told.token_logins))

    async def _rename(self) -> None:
        await self._move_endpoint(self.instance().identifier, self.told.new_identifier or "")

    async def _rename_back(self) -> None:
        await self._move_endpoint(self.told.new_identifier or "", self.instance().identifier)

    async def _move_endpoint(self, name: str, new_name: str) -> None:
        names = {route.name for route in await self.services.router.routes()}
        if name in names and new_name not in names:
            await self.services.router.rename_route(name, new_name)

    def _put_name(self, tx: Transaction) -> None:
        self._put(tx, lambda instance: structs.replace(instance, identifier=self.told.new_identifier))
        membership.renamed(tx, self.resource_id, self.told.new_identifier or "")

    def _put(self, tx: Transaction, change: Callable[[DBInstance], DBInstance]) -> None:
        tx.put_instance(change(require_instance(tx, self.resource_id)))

    def failed(self, tx: Transaction, reason: str) -> None:
        self.settle_unchanged(tx, reason)

    def completed(self, tx: Transaction) -> None:
        instance = require_instance(tx, self.resource_id)
        self.settle(
            tx,
            InstanceStatus.AVAILABLE,
            *events.instance_modified(instance, self.told_names(), self.services.clock.now()),
        )
        if self.told.first_backup:
            backups.begin_first(tx, self.resource_id, self.services)

    def told_names(self) -> list[str]:
        return [name for name, value in structs.asdict(self.told).items() if value is not None]


class _WithAllParameters(InstanceWorkflow):
    """The server begins anew, and so takes what can only be taken then."""

    async def write_parameters(self) -> None:
        """Those too that were to wait for a reboot. What the server refuses is left out, and was shown already."""
        with self.services.store.transaction() as tx:
            parameters = server_parameters(tx, require_instance(tx, self.resource_id).parameter_group)
        try:
            await self.services.servers.set_parameters(self.resource_id, parameters)
        except EngineError as error:
            log.warning("parameters.refused", resource_id=self.resource_id, reason=str(error))

    def begun_anew(self, tx: Transaction, event: Event) -> None:
        instance = require_instance(tx, self.resource_id)
        if instance.parameter_status is ApplyStatus.PENDING_REBOOT:
            # Most likely done now; who looks after parameters finds out.
            tx.put_instance(structs.replace(instance, parameter_status=ApplyStatus.APPLYING))
        self.settle(tx, InstanceStatus.AVAILABLE, event)


class RebootInstance(_WithAllParameters, ModifyInstance):
    """With the changes that have waited for it: those of version and class restart the server themselves."""

    def steps(self) -> list[Step]:
        steps = [Step(name="parameters", do=self.write_parameters), *super().steps()]
        if not self._restarts_by_itself:
            steps.append(Step(name="restart", do=self._restart))
        return steps

    @property
    def _restarts_by_itself(self) -> bool:
        return self.told.engine_version is not None or self.told.instance_class is not None

    async def _restart(self) -> None:
        await self.services.servers.restart(self.resource_id)

    def failed(self, tx: Transaction, reason: str) -> None:
        """What was changed has been undone, with a restart; but the server that does not restart at all is down."""
        if self._restarts_by_itself:
            self.settle_unchanged(tx, reason)
        else:
            self._settle_failed(tx, reason)

    def completed(self, tx: Transaction) -> None:
        instance, now = require_instance(tx, self.resource_id), self.services.clock.now()
        add_events(tx, events.instance_modified(instance, self.told_names(), now))
        self.begun_anew(tx, events.instance_rebooted(instance, now))


class StopInstance(InstanceWorkflow):
    """Its endpoint stays: nobody else gets the port meanwhile, and clients are told that the server is not there."""

    def __init__(self, services: Services, workflow: Workflow) -> None:
        super().__init__(services, workflow)
        told = msgspec.convert(workflow.arguments, arguments.StopInstance)
        self._taking = None if told.snapshot_id is None else self.taking(told.snapshot_id)

    def steps(self) -> list[Step]:
        snapshot = [] if self._taking is None else [self._taking.step()]
        return [*snapshot, Step(name="stop", do=self._stop, undo=self._start)]

    async def _stop(self) -> None:
        await self.services.servers.stop(self.resource_id)

    async def _start(self) -> None:
        await self.services.servers.start(self.resource_id)

    def failing(self, tx: Transaction, reason: str) -> None:
        if self._taking is not None:
            self._taking.failing(tx, reason)

    def failed(self, tx: Transaction, reason: str) -> None:
        self.settle_unchanged(tx, reason)

    def completed(self, tx: Transaction) -> None:
        instance = require_instance(tx, self.resource_id)
        self.settle(tx, InstanceStatus.STOPPED, events.instance_stopped(instance, self.services.clock.now()))


class StartInstance(_WithAllParameters):
    """One that does not come up is ``failed``, and tried now and then, like any other that does not."""

    def steps(self) -> list[Step]:
        return [Step(name="parameters", do=self.write_parameters), Step(name="start", do=self._start)]

    async def _start(self) -> None:
        await self.services.servers.start(self.resource_id)

    def completed(self, tx: Transaction) -> None:
        instance = require_instance(tx, self.resource_id)
        self.begun_anew(tx, events.instance_started(instance, self.services.clock.now()))


KINDS: dict[WorkflowKind, type[InstanceWorkflow]] = {
    WorkflowKind.CREATE_INSTANCE: CreateInstance,
    WorkflowKind.MODIFY_INSTANCE: ModifyInstance,
    WorkflowKind.REBOOT_INSTANCE: RebootInstance,
    WorkflowKind.STOP_INSTANCE: StopInstance,
    WorkflowKind.START_INSTANCE: StartInstance,
}
