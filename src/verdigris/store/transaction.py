"""``domain.ports.Transaction`` on one SQL transaction."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from verdigris.domain.model import BlueGreenDeployment, DBInstance, Event, JournalEntry, ParameterGroup, Workflow
from verdigris.domain.statuses import WorkflowStatus
from verdigris.store import schema
from verdigris.store.records import deployment_from_rows, deployment_row, from_row, member_rows, to_row

# As long as RDS keeps events (user guide, "Viewing Amazon RDS events").
EVENT_RETENTION = timedelta(days=14)


class SqlTransaction:
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
        rows = self._connection.execute(sa.select(schema.instances)).mappings()
        current: dict[str, DBInstance | None] = {row["resource_id"]: from_row(row, DBInstance) for row in rows}
        current.update(self._changed)
        return sorted((i for i in current.values() if i is not None), key=lambda i: i.identifier)

    def put_instance(self, instance: DBInstance) -> None:
        self._changed[instance.resource_id] = instance

    def delete_instance(self, resource_id: str) -> None:
        self._changed[resource_id] = None

    def _one_instance(self, condition: sa.ColumnElement[bool]) -> DBInstance | None:
        row = self._connection.execute(sa.select(schema.instances).where(condition)).mappings().first()
        return None if row is None else from_row(row, DBInstance)

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

    # ---------------------------------------------------------------------------------------------------- deployments

    def deployment(self, identifier: str) -> BlueGreenDeployment | None:
        found = self._deployments(schema.deployments.c.identifier == identifier.lower())
        return found[0] if found else None

    def deployments(self) -> list[BlueGreenDeployment]:
        return self._deployments(sa.true())

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
        """Also forgets the events that are too old to be shown, so that the table stays small by itself."""
        events = schema.events
        self._connection.execute(sa.delete(events).where(events.c.at < event.at - EVENT_RETENTION))
        self._connection.execute(sa.insert(events), to_row(event))

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
        return self._workflows(schema.workflows.c.status.in_([WorkflowStatus.RUNNING, WorkflowStatus.UNDOING]))

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
