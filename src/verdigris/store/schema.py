"""The tables as they are now. What must never be true is refused here, not only in the code that writes.

A column for each scalar of a record, so that the rows can be read with any SQL tool; JSON for what is nested and never
searched (tags, settings, tasks). A deployment's members have a table of their own, because it is a
rule of the database that an instance is the source of at most one deployment and the target of at most one.

Changing a table means a new revision in ``migrations/versions`` and the same change here; a test holds the two together
and compares each table with its record in ``domain.model``.
"""

import sqlalchemy as sa

from verdigris.domain.model import Member, PendingChange, Tag, TargetSpec, Task
from verdigris.domain.parameters import ApplyStatus, ParameterValue
from verdigris.domain.statuses import (
    ClusterEndpointStatus,
    ClusterStatus,
    CustomEndpointType,
    DeploymentStatus,
    InstanceStatus,
    MemberStatus,
    ReplicationMode,
    SnapshotStatus,
    SnapshotType,
    SourceType,
    WorkflowKind,
    WorkflowStatus,
)
from verdigris.store.columns import Json, Moment, RowNumber, one_of

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

# A name and a port belong to one server at a time, yet at a switchover two servers exchange them; SQLite has no
# deferred uniqueness, so a transaction writes instances when it ends, all old rows out before the new ones go in.
instances = sa.Table(
    "instances",
    metadata,
    sa.Column("resource_id", sa.Text, primary_key=True),
    sa.Column("identifier", sa.Text, nullable=False, unique=True),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("engine_version", sa.Text, nullable=False),
    sa.Column("instance_class", sa.Text, nullable=False),
    # creating -> available | failed; available -> modifying | renaming | upgrading | rebooting | backing-up
    # | resetting-master-credentials -> available; available -> stopping -> stopped -> starting -> available;
    # any -> deleting -> (row gone)
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("status_reason", sa.Text, nullable=False),
    sa.Column("master_username", sa.Text, nullable=False),
    sa.Column("db_name", sa.Text),
    sa.Column("port", sa.Integer, nullable=False, unique=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("allocated_storage_gib", sa.Integer, nullable=False),
    sa.Column("deletion_protection", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("parameter_group", sa.Text, nullable=False),
    # in-sync -> applying -> in-sync | pending-reboot | failed-to-apply; pending-reboot -> applying, by a reboot
    sa.Column("parameter_status", sa.Text, nullable=False),
    sa.Column("read_only", sa.Boolean(create_constraint=False), nullable=False),
    # No reference: at the end of a transaction all old rows go before the new ones come.
    sa.Column("replica_of", sa.Text, index=True, comment="resource id of a read replica's source"),
    sa.Column("replication_error", sa.Text, nullable=False),
    sa.Column("cluster", sa.Text, index=True, comment="resource id of the cluster that it is a member of"),
    sa.Column("token_logins", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("pending", Json(PendingChange), nullable=False),
    sa.Column("settings", Json(dict[str, object]), nullable=False),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint(one_of("status", InstanceStatus), name="status"),
    sa.CheckConstraint(one_of("parameter_status", ApplyStatus), name="parameter_status"),
    sa.CheckConstraint("identifier = lower(identifier) AND identifier <> ''", name="identifier"),
    sa.CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    sa.CheckConstraint("replica_of <> resource_id", name="replica_of"),
)

# Its members are instances that name it; ``writer`` names one of them. No references, as for replica_of.
clusters = sa.Table(
    "clusters",
    metadata,
    sa.Column("resource_id", sa.Text, primary_key=True),
    sa.Column("identifier", sa.Text, nullable=False, unique=True),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("engine_version", sa.Text, nullable=False),
    # creating -> available | failed; available -> modifying | resetting-master-credentials -> available;
    # available | failed -> deleting -> (row gone)
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("writer", sa.Text),
    sa.Column("master_username", sa.Text, nullable=False),
    sa.Column("master_password_verifier", sa.Text, nullable=False),
    sa.Column("db_name", sa.Text),
    sa.Column("port", sa.Integer, nullable=False, unique=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("deletion_protection", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("settings", Json(dict[str, object]), nullable=False),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint(one_of("status", ClusterStatus), name="status"),
    sa.CheckConstraint("identifier = lower(identifier) AND identifier <> ''", name="identifier"),
    sa.CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
)

# No reference to instances: a snapshot outlives its own.
snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("snapshot_id", sa.Text, primary_key=True),
    sa.Column("identifier", sa.Text, nullable=False, unique=True),
    sa.Column("type", sa.Text, nullable=False),
    # creating -> available | failed; available | failed -> deleting -> (row gone)
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("resource_id", sa.Text, nullable=False),
    sa.Column("instance_identifier", sa.Text, nullable=False),
    sa.Column("instance_created_at", Moment, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("engine_version", sa.Text, nullable=False),
    sa.Column("instance_class", sa.Text, nullable=False),
    sa.Column("master_username", sa.Text, nullable=False),
    sa.Column("db_name", sa.Text),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("allocated_storage_gib", sa.Integer, nullable=False),
    sa.Column("begun_at", Moment),
    sa.Column("taken_at", Moment),
    sa.Column("data_of", Moment),
    sa.Column("size_bytes", sa.BigInteger),
    sa.Column("copy_of", sa.Text),
    sa.Column("settings", Json(dict[str, object]), nullable=False),
    sa.Column("instance_tags", Json(tuple[Tag, ...]), nullable=False),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint(one_of("type", SnapshotType), name="type"),
    sa.CheckConstraint("type <> 'automated' OR begun_at IS NOT NULL", name="begun_at"),
    sa.CheckConstraint(one_of("status", SnapshotStatus), name="status"),
    sa.CheckConstraint("identifier = lower(identifier) AND identifier <> ''", name="identifier"),
    sa.CheckConstraint("status <> 'available' OR taken_at IS NOT NULL", name="taken_at"),
)

cluster_endpoints = sa.Table(
    "cluster_endpoints",
    metadata,
    sa.Column("resource_id", sa.Text, primary_key=True),
    sa.Column("identifier", sa.Text, nullable=False, unique=True),
    # No reference, as for members.
    sa.Column("cluster", sa.Text, nullable=False, index=True, comment="resource id"),
    sa.Column("type", sa.Text, nullable=False),
    # creating -> available | inactive; available -> modifying -> available; available | inactive -> deleting
    # -> (row gone)
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("static_members", Json(tuple[str, ...]), nullable=False),
    sa.Column("excluded_members", Json(tuple[str, ...]), nullable=False),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint(one_of("type", CustomEndpointType), name="type"),
    sa.CheckConstraint(one_of("status", ClusterEndpointStatus), name="status"),
    sa.CheckConstraint("identifier = lower(identifier) AND identifier <> ''", name="identifier"),
    # They have one port.
    sa.UniqueConstraint("cluster", "host"),
)

parameter_groups = sa.Table(
    "parameter_groups",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("family", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("parameters", Json(dict[str, ParameterValue]), nullable=False),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint("name = lower(name) AND name <> ''", name="name"),
)

subnet_groups = sa.Table(
    "subnet_groups",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("subnet_ids", Json(tuple[str, ...]), nullable=False),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint("name = lower(name) AND name <> ''", name="name"),
)

deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("identifier", sa.Text, primary_key=True),
    # A deployment is alive for as long as it has a row: one that is being deleted still holds its name.
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("target", Json(TargetSpec), nullable=False),
    # PROVISIONING -> AVAILABLE | INVALID_CONFIGURATION; AVAILABLE -> SWITCHOVER_IN_PROGRESS | INVALID_CONFIGURATION;
    # SWITCHOVER_IN_PROGRESS -> SWITCHOVER_COMPLETED | SWITCHOVER_FAILED (or back to AVAILABLE when nothing was begun);
    # SWITCHOVER_FAILED -> SWITCHOVER_IN_PROGRESS | INVALID_CONFIGURATION;
    # any but SWITCHOVER_IN_PROGRESS -> DELETING -> (row gone)
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("status_details", sa.Text),
    # Whose members the members are; that no cluster is in two deployments follows from them.
    sa.Column("cluster", Json(Member)),
    sa.Column("endpoints", Json(tuple[Member, ...]), nullable=False),
    sa.Column("tasks", Json(tuple[Task, ...]), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("deleted_at", Moment),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint(one_of("mode", ReplicationMode), name="mode"),
    sa.CheckConstraint(one_of("status", DeploymentStatus), name="status"),
    sa.CheckConstraint("status <> 'DELETING' OR deleted_at IS NOT NULL", name="deleted_at"),
)

# No reference to instances: a member may be deleted while its deployment lives (MISSING_SOURCE, MISSING_TARGET), and
# its name is kept here for that.
deployment_members = sa.Table(
    "deployment_members",
    metadata,
    sa.Column(
        "deployment_identifier",
        sa.Text,
        sa.ForeignKey("deployments.identifier", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False, comment="0 is the primary"),
    sa.Column("source_resource_id", sa.Text, nullable=False, unique=True),
    sa.Column("source_identifier", sa.Text, nullable=False),
    sa.Column("target_resource_id", sa.Text, unique=True),
    sa.Column("target_identifier", sa.Text),
    sa.Column("status", sa.Text),
    sa.CheckConstraint(one_of("status", MemberStatus), name="status"),
    sa.CheckConstraint("source_resource_id <> target_resource_id", name="ends"),
    sa.CheckConstraint("(target_resource_id IS NULL) = (target_identifier IS NULL)", name="target"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("number", RowNumber, primary_key=True),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("source_type", sa.Text, nullable=False),
    sa.Column("source_identifier", sa.Text, nullable=False),
    sa.Column("source_resource_id", sa.Text, nullable=False),
    sa.Column("categories", Json(tuple[str, ...]), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("at", Moment, nullable=False, index=True),
    sa.CheckConstraint(one_of("source_type", SourceType), name="source_type"),
)

event_subscriptions = sa.Table(
    "event_subscriptions",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("topic_arn", sa.Text, nullable=False),
    # Any that RDS has, also those of which nothing happens here.
    sa.Column("source_type", sa.Text),
    sa.Column("source_identifiers", Json(tuple[str, ...]), nullable=False),
    sa.Column("categories", Json(tuple[str, ...]), nullable=False),
    sa.Column("enabled", sa.Boolean(create_constraint=False), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("tags", Json(tuple[Tag, ...]), nullable=False),
    sa.CheckConstraint("source_type IS NOT NULL OR CAST(source_identifiers AS TEXT) = '[]'", name="source_identifiers"),
)

# What is to be delivered still, oldest first. Gone with its subscription, or with its event.
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("number", RowNumber, primary_key=True),
    sa.Column("message_id", sa.Text, nullable=False, unique=True),
    sa.Column(
        "subscription_name",
        sa.Text,
        sa.ForeignKey("event_subscriptions.name", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column(
        "event_number", RowNumber, sa.ForeignKey("events.number", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", Moment, nullable=False),
    sa.CheckConstraint("attempts >= 0", name="attempts"),
)

_UNFINISHED = "status IN ('running', 'undoing')"

workflows = sa.Table(
    "workflows",
    metadata,
    sa.Column("number", RowNumber, primary_key=True),
    sa.Column("workflow_id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False, index=True),
    sa.Column("arguments", Json(dict[str, object]), nullable=False),
    # running -> completed | undoing; undoing -> failed
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("deadline_at", Moment),
    sa.CheckConstraint(one_of("kind", WorkflowKind), name="kind"),
    sa.CheckConstraint(one_of("status", WorkflowStatus), name="status"),
    # At most one unfinished piece of work per subject. A deployment may be deleted while it is still being made, and
    # the runner then cancels the making: that pair, and no other, may exist at the same time.
    sa.Index(
        "uq_workflows_unfinished",
        "subject",
        unique=True,
        sqlite_where=sa.text(f"{_UNFINISHED} AND kind <> 'delete_deployment'"),
        postgresql_where=sa.text(f"{_UNFINISHED} AND kind <> 'delete_deployment'"),
    ),
    sa.Index(
        "uq_workflows_unfinished_deletion",
        "subject",
        unique=True,
        sqlite_where=sa.text(f"{_UNFINISHED} AND kind = 'delete_deployment'"),
        postgresql_where=sa.text(f"{_UNFINISHED} AND kind = 'delete_deployment'"),
    ),
)

journal = sa.Table(
    "journal",
    metadata,
    sa.Column("number", RowNumber, primary_key=True),
    sa.Column(
        "workflow_id",
        sa.Text,
        sa.ForeignKey("workflows.workflow_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False, comment="the last entry of a step is its state"),
    sa.Column("at", Moment, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.CheckConstraint(one_of("outcome", ("started", "done", "failed", "undone")), name="outcome"),
)

# One row. Every transaction starts by reading it: who finds a number other than its own has been superseded. On
# PostgreSQL that read locks the row, which makes it the "one writer at a time" too.
epoch = sa.Table(
    "epoch",
    metadata,
    sa.Column("only_row", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.CheckConstraint("only_row = 1", name="only_row"),
    sa.CheckConstraint("epoch >= 0", name="epoch"),
)
