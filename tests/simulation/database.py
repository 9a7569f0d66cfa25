"""``domain.ports.Store`` in memory: what a transaction has put is there when it ends, or never was."""

from collections.abc import Callable, Collection
from datetime import datetime
from types import TracebackType
from typing import Protocol

from verdigris.domain.errors import ControllerSuperseded
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    DBSnapshot,
    DBSubnetGroup,
    Event,
    JournalEntry,
    ParameterGroup,
    Workflow,
)
from verdigris.domain.ports import Transaction
from verdigris.domain.statuses import WorkflowKind, WorkflowStatus
from verdigris.domain.subscriptions import Delivery, EventSubscription

_UNFINISHED = (WorkflowStatus.RUNNING, WorkflowStatus.UNDOING)


class Tables:
    """Everything that is durable; records are immutable, so a copy of the tables is a snapshot."""

    def __init__(self) -> None:
        self.instances: dict[str, DBInstance] = {}
        self.clusters: dict[str, DBCluster] = {}
        self.snapshots: dict[str, DBSnapshot] = {}
        self.cluster_endpoints: dict[str, DBClusterEndpoint] = {}
        self.deployments: dict[str, BlueGreenDeployment] = {}
        self.workflows: dict[str, Workflow] = {}
        self.journal: list[JournalEntry] = []
        self.events: list[Event] = []
        self.groups: dict[str, ParameterGroup] = {}
        self.subnet_groups: dict[str, DBSubnetGroup] = {}
        self.subscriptions: dict[str, EventSubscription] = {}

    def copy(self) -> "Tables":
        new = Tables()
        new.instances = self.instances.copy()
        new.clusters = self.clusters.copy()
        new.snapshots = self.snapshots.copy()
        new.cluster_endpoints = self.cluster_endpoints.copy()
        new.deployments = self.deployments.copy()
        new.workflows = self.workflows.copy()
        new.journal = self.journal.copy()
        new.events = self.events.copy()
        new.groups = self.groups.copy()
        new.subnet_groups = self.subnet_groups.copy()
        new.subscriptions = self.subscriptions.copy()
        return new


class Database:
    def __init__(self) -> None:
        self.tables = Tables()
        self.epoch = 0


class MemoryTransaction:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.dirty = False

    @property
    def tables(self) -> Tables:
        return self._tables

    def _write(self) -> Tables:
        if not self.dirty:
            self.dirty = True
            self._tables = self._tables.copy()
        return self._tables

    def instance(self, resource_id: str) -> DBInstance | None:
        return self._tables.instances.get(resource_id)

    def instance_named(self, identifier: str) -> DBInstance | None:
        return next((i for i in self._tables.instances.values() if i.identifier == identifier.lower()), None)

    def instances(self) -> list[DBInstance]:
        return sorted(self._tables.instances.values(), key=lambda instance: instance.identifier)

    def instances_after(self, identifier: str) -> list[DBInstance]:
        return [instance for instance in self.instances() if instance.identifier > identifier]

    def replicas_of(self, resource_ids: Collection[str]) -> list[DBInstance]:
        return [instance for instance in self.instances() if instance.replica_of in resource_ids]

    def members_of(self, cluster_ids: Collection[str]) -> list[DBInstance]:
        return [instance for instance in self.instances() if instance.cluster in cluster_ids]

    def cluster(self, resource_id: str) -> DBCluster | None:
        return self._tables.clusters.get(resource_id)

    def cluster_named(self, identifier: str) -> DBCluster | None:
        return next((cluster for cluster in self.clusters() if cluster.identifier == identifier.lower()), None)

    def clusters(self) -> list[DBCluster]:
        return sorted(self._tables.clusters.values(), key=lambda cluster: cluster.identifier)

    def put_cluster(self, cluster: DBCluster) -> None:
        self._write().clusters[cluster.resource_id] = cluster

    def delete_cluster(self, resource_id: str) -> None:
        self._write().clusters.pop(resource_id, None)

    def snapshot(self, snapshot_id: str) -> DBSnapshot | None:
        return self._tables.snapshots.get(snapshot_id)

    def snapshot_named(self, identifier: str) -> DBSnapshot | None:
        return next((snapshot for snapshot in self.snapshots() if snapshot.identifier == identifier.lower()), None)

    def snapshots(self) -> list[DBSnapshot]:
        return sorted(self._tables.snapshots.values(), key=lambda snapshot: snapshot.identifier)

    def put_snapshot(self, snapshot: DBSnapshot) -> None:
        self._write().snapshots[snapshot.snapshot_id] = snapshot

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._write().snapshots.pop(snapshot_id, None)

    def cluster_endpoint(self, resource_id: str) -> DBClusterEndpoint | None:
        return self._tables.cluster_endpoints.get(resource_id)

    def cluster_endpoint_named(self, identifier: str) -> DBClusterEndpoint | None:
        found = self._tables.cluster_endpoints.values()
        return next((endpoint for endpoint in found if endpoint.identifier == identifier.lower()), None)

    def cluster_endpoints(self, cluster_ids: Collection[str]) -> list[DBClusterEndpoint]:
        found = [each for each in self._tables.cluster_endpoints.values() if each.cluster in cluster_ids]
        return sorted(found, key=lambda endpoint: endpoint.identifier)

    def put_cluster_endpoint(self, endpoint: DBClusterEndpoint) -> None:
        self._write().cluster_endpoints[endpoint.resource_id] = endpoint

    def delete_cluster_endpoint(self, resource_id: str) -> None:
        self._write().cluster_endpoints.pop(resource_id, None)

    def identifiers(self, resource_ids: Collection[str]) -> dict[str, str]:
        found = self._tables.instances
        return {resource_id: found[resource_id].identifier for resource_id in resource_ids if resource_id in found}

    def put_instance(self, instance: DBInstance) -> None:
        self._write().instances[instance.resource_id] = instance

    def delete_instance(self, resource_id: str) -> None:
        self._write().instances.pop(resource_id, None)

    def deployment(self, identifier: str) -> BlueGreenDeployment | None:
        return self._tables.deployments.get(identifier.lower())

    def deployments(self) -> list[BlueGreenDeployment]:
        return sorted(self._tables.deployments.values(), key=lambda d: (d.created_at, d.identifier))

    def deployments_of(self, resource_ids: Collection[str]) -> list[BlueGreenDeployment]:
        def has_member(deployment: BlueGreenDeployment) -> bool:
            ends = {end for m in deployment.members for end in (m.source_resource_id, m.target_resource_id)}
            return not ends.isdisjoint(resource_ids)

        return [deployment for deployment in self.deployments() if has_member(deployment)]

    def put_deployment(self, deployment: BlueGreenDeployment) -> None:
        self._write().deployments[deployment.identifier] = deployment

    def delete_deployment(self, identifier: str) -> None:
        self._write().deployments.pop(identifier.lower(), None)

    def parameter_group(self, name: str) -> ParameterGroup | None:
        return self._tables.groups.get(name.lower())

    def parameter_groups(self) -> list[ParameterGroup]:
        return sorted(self._tables.groups.values(), key=lambda group: group.name)

    def put_parameter_group(self, group: ParameterGroup) -> None:
        self._write().groups[group.name] = group

    def delete_parameter_group(self, name: str) -> None:
        self._write().groups.pop(name.lower(), None)

    def subnet_group(self, name: str) -> DBSubnetGroup | None:
        return self._tables.subnet_groups.get(name.lower())

    def subnet_groups(self) -> list[DBSubnetGroup]:
        return sorted(self._tables.subnet_groups.values(), key=lambda group: group.name)

    def put_subnet_group(self, group: DBSubnetGroup) -> None:
        self._write().subnet_groups[group.name] = group

    def delete_subnet_group(self, name: str) -> None:
        self._write().subnet_groups.pop(name.lower(), None)

    def add_event(self, event: Event) -> None:
        self._write().events.append(event)

    def events(self, *, since: datetime, until: datetime) -> list[Event]:
        return sorted((e for e in self._tables.events if since <= e.at <= until), key=lambda event: event.at)

    def event_subscription(self, name: str) -> EventSubscription | None:
        return self._tables.subscriptions.get(name)

    def event_subscriptions(self) -> list[EventSubscription]:
        return sorted(self._tables.subscriptions.values(), key=lambda subscription: subscription.name)

    def put_event_subscription(self, subscription: EventSubscription) -> None:
        self._write().subscriptions[subscription.name] = subscription

    def delete_event_subscription(self, name: str) -> None:
        self._write().subscriptions.pop(name, None)

    def next_deliveries(self) -> list[Delivery]:
        raise NotImplementedError("nobody is told anything here")

    def postpone_delivery(self, number: int, *, attempts: int, due_at: datetime) -> None:
        raise NotImplementedError

    def delete_delivery(self, number: int) -> None:
        raise NotImplementedError

    def workflow(self, workflow_id: str) -> Workflow | None:
        return self._tables.workflows.get(workflow_id)

    def unfinished_workflows(self) -> list[Workflow]:
        found = [workflow for workflow in self._tables.workflows.values() if workflow.status in _UNFINISHED]
        return sorted(found, key=lambda workflow: workflow.started_at)

    def unfinished_workflows_of(self, subjects: Collection[str]) -> list[Workflow]:
        return [workflow for workflow in self.unfinished_workflows() if workflow.subject in subjects]

    def workflows_of(self, subject: str) -> list[Workflow]:
        found = [workflow for workflow in self._tables.workflows.values() if workflow.subject == subject]
        return sorted(found, key=lambda workflow: workflow.started_at)

    def put_workflow(self, workflow: Workflow) -> None:
        """At once, as an index of the schema has it: one unfinished one a subject, and a deployment's deletion."""
        deletes = workflow.kind is WorkflowKind.DELETE_DEPLOYMENT
        for other in self.unfinished_workflows_of([workflow.subject]) if workflow.status in _UNFINISHED else ():
            if other.workflow_id != workflow.workflow_id and (other.kind is WorkflowKind.DELETE_DEPLOYMENT) is deletes:
                raise ValueError(f"{workflow.subject} has two unfinished workflows: {other.kind}, {workflow.kind}")
        self._write().workflows[workflow.workflow_id] = workflow

    def add_journal_entry(self, entry: JournalEntry) -> None:
        self._write().journal.append(entry)

    def journal(self, workflow_id: str) -> list[JournalEntry]:
        return [entry for entry in self._tables.journal if entry.workflow_id == workflow_id]

    def require_unique(self) -> None:
        """As the schema has it (``store/schema.py``)."""
        instances = self._tables.instances.values()
        for what in ("identifier", "port"):
            values = [getattr(instance, what) for instance in instances]
            if len(values) != len(set(values)):
                raise ValueError(f"two instances have the same {what}: {sorted(values)}")


class MemoryStore:
    """One controller's view of a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._own_epoch: int | None = None

    def transaction(self) -> "MemoryContext":
        return MemoryContext(self._database, self._own_epoch)

    def raise_epoch(self) -> int:
        self._database.epoch += 1
        self._own_epoch = self._database.epoch
        return self._own_epoch

    def epoch(self) -> int:
        return self._database.epoch


class MemoryContext:
    def __init__(self, database: Database, epoch: int | None) -> None:
        self._database = database
        self._epoch = epoch

    def __enter__(self) -> MemoryTransaction:
        if self._epoch is not None and self._epoch != self._database.epoch:
            raise ControllerSuperseded(f"epoch {self._epoch} is over, {self._database.epoch} has begun")
        self._transaction = MemoryTransaction(self._database.tables)
        return self._transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and self._transaction.dirty:
            self._transaction.require_unique()
            self._database.tables = self._transaction.tables


class AnyStore(Protocol):
    """What the world needs of a store: ours, or the product's on SQLite."""

    def transaction(self) -> "AnyContext": ...
    def raise_epoch(self) -> int: ...
    def epoch(self) -> int: ...


class AnyContext(Protocol):
    def __enter__(self) -> Transaction: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None: ...


class GuardedStore:
    """A controller's store in which commits fail, and in which its process dies before or after one.

    ``on_commit`` is called with the number of writes of a transaction that wants to commit, and answers with what shall
    happen: see ``World.commits``.
    """

    def __init__(self, inner: AnyStore, guard: "Guard") -> None:
        self._inner = inner
        self._guard = guard

    def transaction(self) -> "GuardedContext":
        return GuardedContext(self._inner.transaction(), self._guard)

    def raise_epoch(self) -> int:
        return self._inner.raise_epoch()

    def epoch(self) -> int:
        return self._inner.epoch()


class Guard(Protocol):
    def enter(self) -> None:
        """Raises if the process is gone."""

    def step_begins(self, name: str) -> None:
        """Of a saga, as its journal says."""

    def before_commit(self) -> None:
        """Raises what shall keep the commit from happening."""

    def after_commit(self, tx: Transaction) -> None:
        """Raises what shall happen although it has been committed."""


class Recorder:
    """Passes everything on to a transaction and notes whether anything is written."""

    def __init__(self, tx: Transaction, guard: "Guard") -> None:
        self._tx = tx
        self._guard = guard
        self.wrote = False

    def add_journal_entry(self, entry: JournalEntry) -> None:
        self.wrote = True
        if entry.outcome == "started":
            self._guard.step_begins(entry.step)
        self._tx.add_journal_entry(entry)

    def __getattr__(self, name: str) -> Callable[..., object]:
        method: Callable[..., object] = getattr(self._tx, name)
        if name.startswith(("put_", "add_", "delete_")):
            self.wrote = True
        setattr(self, name, method)
        return method


class GuardedContext:
    def __init__(self, inner: AnyContext, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    def __enter__(self) -> Transaction:
        self._guard.enter()
        self._tx = self._inner.__enter__()
        self._recorder = Recorder(self._tx, self._guard)
        return self._recorder  # type: ignore[return-value]  # it passes every method on

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None or not self._recorder.wrote:
            self._inner.__exit__(kind, error, traceback)
            return
        try:
            self._guard.before_commit()
        except BaseException as fault:
            self._inner.__exit__(type(fault), fault, fault.__traceback__)
            raise
        self._inner.__exit__(None, None, None)
        self._guard.after_commit(self._tx)
