"""``domain.ports.Transaction`` on one SQL transaction."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, TypeVar

import sqlalchemy as sa

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
from verdigris.domain.statuses import WorkflowStatus
from verdigris.store import schema
from verdigris.store.records import deployment_from_rows, deployment_row, from_row, member_rows, to_row
from verdigris.store.subscriptions import SubscriptionQueries

# As long as RDS keeps events (user guide, "Viewing Amazon RDS events").
EVENT_RETENTION = timedelta(days=14)

# One more than a page of the API has by default, so that one batch tells whether there is another page.
_BATCH = 101

_NamedT = TypeVar("_NamedT", DBCluster, DBSnapshot, DBClusterEndpoint)

_IS_UNFINISHED = schema.workflows.c.status.in_([WorkflowStatus.RUNNING, WorkflowStatus.UNDOING])


class SqlTransaction(SubscriptionQueries):
    """Instances and deployments that are put or deleted are written by ``flush``, when the transaction ends: two
    instances may exchange names and ports in any order, because uniqueness is checked on the outcome only."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        # resource id -> what it shall be; None: deleted
        self._changed: dict[str, DBInstance | None] = {}

    # ------------------------------------------------------------------------------------------------------ instances

    def instance(self, resource_id: str) -> DBInstance | None:
        if resource_id in self._changed:
            return self._changed[resource_id]
        return self._one_instance(schema.instances.c.resource_id == resource_id)

    def instance_named(self, identifier: str) -> DBInstance | None:
        identifier = identifier.lower()
        for changed in self._changed.values():
            if changed is not None and changed.identifier == identifier:
                return changed
        found = self._one_instance(schema.instances.c.identifier == identifier)
        return None if found is not None and found.resource_id in self._changed else found

    def instances(self) -> list[DBInstance]:
        return self._instances(sa.true(), lambda _: True)

    def instances_after(self, identifier: str) -> Iterator[DBInstance]:
        while True:
            batch = self._batch_after(identifier)
            yield from batch
            if len(batch) < _BATCH:
                return
            identifier = batch[-1].identifier

    def replicas_of(self, resource_ids: Collection[str]) -> list[DBInstance]:
        return self._instances(
            schema.instances.c.replica_of.in_(resource_ids), lambda changed: changed.replica_of in resource_ids
        )

    def members_of(self, cluster_ids: Collection[str]) -> list[DBInstance]:
        return self._instances(
            schema.instances.c.cluster.in_(cluster_ids), lambda changed: changed.cluster in cluster_ids
        )

    def identifiers(self, resource_ids: Collection[str]) -> dict[str, str]:
        if not resource_ids:
            return {}
        instances = schema.instances
        rows = self._connection.execute(
            sa.select(instances.c.resource_id, instances.c.identifier).where(instances.c.resource_id.in_(resource_ids))
        )
        found = {resource_id: identifier for resource_id, identifier in rows if resource_id not in self._changed}
        changed = (self._changed.get(resource_id) for resource_id in resource_ids)
        return found | {instance.resource_id: instance.identifier for instance in changed if instance is not None}

    def put_instance(self, instance: DBInstance) -> None:
        self._changed[instance.resource_id] = instance

    def delete_instance(self, resource_id: str) -> None:
        self._changed[resource_id] = None

    def _batch_after(self, identifier: str) -> list[DBInstance]:
        return self._instances(
            self._names > identifier, lambda changed: changed.identifier > identifier, at_most=_BATCH
        )

    def _instances(
        self,
        condition: sa.ColumnElement[bool],
        holds: Callable[[DBInstance], bool],
        *,
        at_most: int | None = None,
    ) -> list[DBInstance]:
        """By identifier. ``holds``: the same condition, for what has been changed and is not written yet."""
        instances = schema.instances
        query = sa.select(instances).where(condition).order_by(self._names).limit(at_most)
        if self._changed:
            query = query.where(instances.c.resource_id.not_in(list(self._changed)))
        found = [from_row(row, DBInstance) for row in self._connection.execute(query).mappings()]
        found += [changed for changed in self._changed.values() if changed is not None and holds(changed)]
        return sorted(found, key=lambda instance: instance.identifier)[:at_most]

    @property
    def _names(self) -> sa.ColumnElement[str]:
        """Identifiers, to be compared as Python does: a PostgreSQL database may have an order of its own."""
        bytewise = "C" if self._connection.dialect.name == "postgresql" else "BINARY"
        return sa.collate(schema.instances.c.identifier, bytewise)

    def _one_instance(self, condition: sa.ColumnElement[bool]) -> DBInstance | None:
        row = self._connection.execute(sa.select(schema.instances).where(condition)).mappings().first()
        return None if row is None else from_row(row, DBInstance)

    def _by_identifier(
        self, table: sa.Table, record_type: type[_NamedT], condition: sa.ColumnElement[bool]
    ) -> list[_NamedT]:
        rows = self._connection.execute(sa.select(table).where(condition)).mappings()
        return sorted((from_row(row, record_type) for row in rows), key=lambda record: record.identifier)

    # ------------------------------------------------------------------------------------------------------- clusters

    def cluster(self, resource_id: str) -> DBCluster | None:
        return next(iter(self._clusters(schema.clusters.c.resource_id == resource_id)), None)

    def cluster_named(self, identifier: str) -> DBCluster | None:
        return next(iter(self._clusters(schema.clusters.c.identifier == identifier.lower())), None)

    def clusters(self) -> list[DBCluster]:
        return self._clusters(sa.true())

    def put_cluster(self, cluster: DBCluster) -> None:
        self._upsert(schema.clusters, "resource_id", to_row(cluster))

    def delete_cluster(self, resource_id: str) -> None:
        self._connection.execute(sa.delete(schema.clusters).where(schema.clusters.c.resource_id == resource_id))

    def _clusters(self, condition: sa.ColumnElement[bool]) -> list[DBCluster]:
        return self._by_identifier(schema.clusters, DBCluster, condition)

    # ------------------------------------------------------------------------------------------------------ snapshots

    def snapshot(self, snapshot_id: str) -> DBSnapshot | None:
        return next(iter(self._snapshots(schema.snapshots.c.snapshot_id == snapshot_id)), None)

    def snapshot_named(self, identifier: str) -> DBSnapshot | None:
        return next(iter(self._snapshots(schema.snapshots.c.identifier == identifier.lower())), None)

    def snapshots(self) -> list[DBSnapshot]:
        return self._snapshots(sa.true())

    def put_snapshot(self, snapshot: DBSnapshot) -> None:
        self._upsert(schema.snapshots, "snapshot_id", to_row(snapshot))

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._connection.execute(sa.delete(schema.snapshots).where(schema.snapshots.c.snapshot_id == snapshot_id))

    def _snapshots(self, condition: sa.ColumnElement[bool]) -> list[DBSnapshot]:
        return self._by_identifier(schema.snapshots, DBSnapshot, condition)

    def cluster_endpoint(self, resource_id: str) -> DBClusterEndpoint | None:
        return next(iter(self._cluster_endpoints(schema.cluster_endpoints.c.resource_id == resource_id)), None)

    def cluster_endpoint_named(self, identifier: str) -> DBClusterEndpoint | None:
        return next(iter(self._cluster_endpoints(schema.cluster_endpoints.c.identifier == identifier.lower())), None)

    def cluster_endpoints(self, cluster_ids: Collection[str]) -> list[DBClusterEndpoint]:
        return self._cluster_endpoints(schema.cluster_endpoints.c.cluster.in_(cluster_ids))

    def put_cluster_endpoint(self, endpoint: DBClusterEndpoint) -> None:
        self._upsert(schema.cluster_endpoints, "resource_id", to_row(endpoint))

    def delete_cluster_endpoint(self, resource_id: str) -> None:
        endpoints = schema.cluster_endpoints
        self._connection.execute(sa.delete(endpoints).where(endpoints.c.resource_id == resource_id))

    def _cluster_endpoints(self, condition: sa.ColumnElement[bool]) -> list[DBClusterEndpoint]:
        return self._by_identifier(schema.cluster_endpoints, DBClusterEndpoint, condition)

    # ----------------------------------------------------------------------------------------------- parameter groups

    def parameter_group(self, name: str) -> ParameterGroup | None:
        found = self._parameter_groups(schema.parameter_groups.c.name == name.lower())
        return found[0] if found else None

    def parameter_groups(self) -> list[ParameterGroup]:
        return self._parameter_groups(sa.true())

    def put_parameter_group(self, group: ParameterGroup) -> None:
        self._upsert(schema.parameter_groups, "name", to_row(group))

    def delete_parameter_group(self, name: str) -> None:
        groups = schema.parameter_groups
        self._connection.execute(sa.delete(groups).where(groups.c.name == name.lower()))

    def _parameter_groups(self, condition: sa.ColumnElement[bool]) -> list[ParameterGroup]:
        groups = schema.parameter_groups
        rows = self._connection.execute(sa.select(groups).where(condition).order_by(groups.c.name)).mappings()
        return [from_row(row, ParameterGroup) for row in rows]

    # -------------------------------------------------------------------------------------------------- subnet groups

    def subnet_group(self, name: str) -> DBSubnetGroup | None:
        found = self._subnet_groups(schema.subnet_groups.c.name == name.lower())
        return found[0] if found else None

    def subnet_groups(self) -> list[DBSubnetGroup]:
        return self._subnet_groups(sa.true())

    def put_subnet_group(self, group: DBSubnetGroup) -> None:
        self._upsert(schema.subnet_groups, "name", to_row(group))

    def delete_subnet_group(self, name: str) -> None:
        groups = schema.subnet_groups
        self._connection.execute(sa.delete(groups).where(groups.c.name == name.lower()))

    def _subnet_groups(self, condition: sa.ColumnElement[bool]) -> list[DBSubnetGroup]:
        rows = self._connection.execute(sa.select(schema.subnet_groups).where(condition)).mappings()
        return sorted((from_row(row, DBSubnetGroup) for row in rows), key=lambda group: group.name)

    # ---------------------------------------------------------------------------------------------------- deployments

    def deployment(self, identifier: str) -> BlueGreenDeployment | None:
        found = self._deployments(schema.deployments.c.identifier == identifier.lower())
        return found[0] if found else None

    def deployments(self) -> list[BlueGreenDeployment]:
        return self._deployments(sa.true())

    def deployments_of(self, resource_ids: Collection[str]) -> list[BlueGreenDeployment]:
        members = schema.deployment_members.c
        either = sa.or_(members.source_resource_id.in_(resource_ids), members.target_resource_id.in_(resource_ids))
        found = (
            self._connection.execute(sa.select(members.deployment_identifier).where(either).distinct()).scalars().all()
        )
        # Most instances are in none.
        return self._deployments(schema.deployments.c.identifier.in_(found)) if found else []

    def put_deployment(self, deployment: BlueGreenDeployment) -> None:
        self._upsert(schema.deployments, "identifier", deployment_row(deployment))
        self._delete_members(deployment.identifier)
        self._connection.execute(sa.insert(schema.deployment_members), member_rows(deployment))

    def delete_deployment(self, identifier: str) -> None:
        self._connection.execute(
            sa.delete(schema.deployments).where(schema.deployments.c.identifier == identifier.lower())
        )

    def _deployments(self, condition: sa.ColumnElement[bool]) -> list[BlueGreenDeployment]:
        deployments, members = schema.deployments, schema.deployment_members
        rows = self._connection.execute(
            sa.select(deployments).where(condition).order_by(deployments.c.created_at, deployments.c.identifier)
        ).mappings()
        member_query = (
            sa.select(members)
            .join(deployments, deployments.c.identifier == members.c.deployment_identifier)
            .where(condition)
            .order_by(members.c.deployment_identifier, members.c.position)
        )
        found = self._connection.execute(member_query).mappings()
        by_deployment = {key: list(group) for key, group in groupby(found, key=lambda m: m["deployment_identifier"])}
        return [deployment_from_rows(row, by_deployment.get(row["identifier"], [])) for row in rows]

    def _delete_members(self, identifier: str) -> None:
        members = schema.deployment_members
        self._connection.execute(sa.delete(members).where(members.c.deployment_identifier == identifier))

    # --------------------------------------------------------------------------------------------------------- events

    def add_event(self, event: Event) -> None:
        """Also queues it for those who have subscribed to it, and forgets the events that are too old to be shown, so
        that the table stays small by itself."""
        events = schema.events
        self._connection.execute(sa.delete(events).where(events.c.at < event.at - EVENT_RETENTION))
        written = self._connection.execute(sa.insert(events).values(to_row(event)).returning(events.c.number))
        self._queue(event, written.scalar_one())

    def events(self, *, since: datetime, until: datetime) -> list[Event]:
        """Both ends included."""
        events = schema.events
        rows = self._connection.execute(
            sa.select(events).where(events.c.at.between(since, until)).order_by(events.c.at, events.c.number)
        ).mappings()
        return [from_row(row, Event) for row in rows]

    # ------------------------------------------------------------------------------------------------------ workflows

    def workflow(self, workflow_id: str) -> Workflow | None:
        workflows = schema.workflows
        row = (
            self._connection.execute(sa.select(workflows).where(workflows.c.workflow_id == workflow_id))
            .mappings()
            .first()
        )
        return None if row is None else from_row(row, Workflow)

    def unfinished_workflows(self) -> list[Workflow]:
        return self._workflows(_IS_UNFINISHED)

    def unfinished_workflows_of(self, subjects: Collection[str]) -> list[Workflow]:
        return self._workflows(_IS_UNFINISHED & schema.workflows.c.subject.in_(subjects))

    def workflows_of(self, subject: str) -> list[Workflow]:
        return self._workflows(schema.workflows.c.subject == subject)

    def _workflows(self, condition: sa.ColumnElement[bool]) -> list[Workflow]:
        workflows = schema.workflows
        rows = self._connection.execute(
            sa.select(workflows).where(condition).order_by(workflows.c.started_at, workflows.c.number)
        ).mappings()
        return [from_row(row, Workflow) for row in rows]

    def put_workflow(self, workflow: Workflow) -> None:
        self._upsert(schema.workflows, "workflow_id", to_row(workflow))

    def add_journal_entry(self, entry: JournalEntry) -> None:
        self._connection.execute(sa.insert(schema.journal), to_row(entry))

    def journal(self, workflow_id: str) -> list[JournalEntry]:
        journal = schema.journal
        rows = self._connection.execute(
            sa.select(journal).where(journal.c.workflow_id == workflow_id).order_by(journal.c.number)
        ).mappings()
        return [from_row(row, JournalEntry) for row in rows]

    # ------------------------------------------------------------------------------------------------------- the rest

    def flush(self) -> None:
        """Write the changed instances: all of their old rows out, then the new ones in."""
        instances = schema.instances
        if not self._changed:
            return
        self._connection.execute(sa.delete(instances).where(instances.c.resource_id.in_(list(self._changed))))
        rows = [to_row(instance) for instance in self._changed.values() if instance is not None]
        if rows:
            self._connection.execute(sa.insert(instances), rows)
        self._changed.clear()

    def _upsert(self, table: sa.Table, key: str, row: Mapping[str, Any]) -> None:
        """Update, or insert where there was nothing: there is one writer, so nobody comes in between."""
        if self._connection.execute(sa.update(table).where(table.c[key] == row[key]), dict(row)).rowcount == 0:
            self._connection.execute(sa.insert(table), dict(row))
