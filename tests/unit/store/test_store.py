"""The store's contract (domain.ports.Store), on SQLite and on a real PostgreSQL where one is installed."""

import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from msgspec import Struct
from msgspec.structs import asdict, fields, replace

from verdigris.domain import model
from verdigris.domain.errors import ControllerSuperseded
from verdigris.domain.model import (
    BlueGreenDeployment,
    DBCluster,
    DBClusterEndpoint,
    DBInstance,
    DBSnapshot,
    Event,
    JournalEntry,
    Member,
    PendingChange,
    Tag,
    TargetSpec,
    Task,
    Workflow,
)
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
    TaskName,
    TaskStatus,
    WorkflowKind,
    WorkflowStatus,
)
from verdigris.domain.subscriptions import EventSubscription
from verdigris.store import SqlStore, StoreError, open_store, schema, sqlite_url
from verdigris.store.database import create_engine
from verdigris.store.migrate import migrate

if TYPE_CHECKING:
    from verdigris.domain.ports import Store

NOON = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)


def an_instance(identifier: str = "app", *, port: int = 20000, resource_id: str | None = None) -> DBInstance:
    return DBInstance(
        resource_id=resource_id or f"db-{identifier.upper()}",
        identifier=identifier,
        engine="postgres",
        engine_version="17.10",
        instance_class="db.t3.medium",
        status=InstanceStatus.AVAILABLE,
        master_username="boss",
        db_name="app",
        port=port,
        created_at=NOON,
        allocated_storage_gib=20,
        parameter_group="default.postgres17",
        pending=PendingChange(new_identifier="next") if identifier == "app" else PendingChange(),
        settings={"BackupRetentionPeriod": 7, "VpcSecurityGroupIds": ["sg-1"], "note": "ä'\"\\"},
        tags=(Tag("stage", "prod"), Tag("empty")),
    )


def an_endpoint(identifier: str, *, host: str = "127.0.0.3") -> DBClusterEndpoint:
    return DBClusterEndpoint(
        resource_id=f"cluster-endpoint-{identifier.upper()}",
        identifier=identifier,
        cluster="cluster-SHOP",
        type=CustomEndpointType.ANY,
        status=ClusterEndpointStatus.AVAILABLE,
        host=host,
    )


def a_cluster(identifier: str = "shop", *, port: int = 21000) -> DBCluster:
    return DBCluster(
        resource_id=f"cluster-{identifier.upper()}",
        identifier=identifier,
        engine="aurora-postgresql",
        engine_version="17.10",
        status=ClusterStatus.AVAILABLE,
        master_username="boss",
        master_password_verifier="SCRAM-SHA-256$4096:",
        port=port,
        created_at=NOON,
    )


def a_snapshot(identifier: str = "monday") -> DBSnapshot:
    return DBSnapshot(
        snapshot_id=f"snap-{identifier}",
        identifier=identifier,
        status=SnapshotStatus.CREATING,
        resource_id="db-APP",
        instance_identifier="app",
        instance_created_at=NOON,
        engine="postgres",
        engine_version="17.10",
        instance_class="db.t3.medium",
        master_username="boss",
        port=20000,
        allocated_storage_gib=20,
    )


def a_deployment(
    identifier: str = "bgd-0123456789abcdef", *, name: str = "up", source: str = "db-APP"
) -> BlueGreenDeployment:
    return BlueGreenDeployment(
        identifier=identifier,
        name=name,
        mode=ReplicationMode.LOGICAL,
        target=TargetSpec(
            engine_version="18.6",
            instance_class="db.t3.medium",
            parameter_group="default.postgres18",
            allocated_storage_gib=20,
            settings={"TargetIops": 3000},
        ),
        status=DeploymentStatus.PROVISIONING,
        members=(Member(source_resource_id=source, source_identifier="app"),),
        tasks=(Task(TaskName.CREATING_READ_REPLICA_OF_SOURCE), Task(TaskName.CONFIGURE_BACKUPS, TaskStatus.COMPLETED)),
        created_at=NOON,
    )


def a_workflow(
    workflow_id: str = "wf-1", *, kind: WorkflowKind = WorkflowKind.CREATE_DEPLOYMENT, subject: str = "bgd-1"
) -> Workflow:
    return Workflow(workflow_id=workflow_id, kind=kind, subject=subject, started_at=NOON)


def an_event(at: datetime = NOON, message: str = "Something happened.") -> Event:
    return Event(
        event_id="RDS-EVENT-0005",
        source_type=SourceType.DB_INSTANCE,
        source_identifier="app",
        source_resource_id="db-APP",
        categories=("creation",),
        message=message,
        at=at,
    )


def an_entry(step: str, outcome: str = "done") -> JournalEntry:
    return JournalEntry(workflow_id="wf-1", step=step, outcome=outcome, at=NOON)


# Columns that came after version 2.
_LATER = frozenset({"cluster", "pending", "replica_of", "replication_error", "token_logins"})


def _write_as_version_2(engine: sa.Engine) -> None:
    """An instance, its event, and a workflow that has come to its second step."""
    entries = [an_entry("copy", "started"), an_entry("copy"), an_entry("align", "started")]
    with engine.begin() as connection:
        for table, records in (
            (schema.instances, [an_instance()]),
            (schema.workflows, [a_workflow()]),
            (schema.journal, entries),
            (schema.events, [an_event()]),
        ):
            rows = [{name: v for name, v in asdict(record).items() if name not in _LATER} for record in records]
            connection.execute(sa.insert(table), rows)


class TestInstances:
    def test_a_record_comes_back_as_it_was_put(self, store: SqlStore) -> None:
        app = an_instance()
        with store.transaction() as transaction:
            transaction.put_instance(app)
            assert transaction.instance(app.resource_id) == app  # its own writes
        with store.transaction() as transaction:
            assert transaction.instance(app.resource_id) == app
            assert transaction.instance_named("APP") == app
            assert transaction.instance("db-NONE") is None
            assert transaction.instance_named("none") is None

    def test_two_instances_exchange_names_and_ports_in_one_transaction(self, store: SqlStore) -> None:
        blue, green = an_instance("app", port=20000), an_instance("app-green-abc123", port=20001)
        with store.transaction() as transaction:
            for instance in (blue, green):
                transaction.put_instance(instance)
        with store.transaction() as transaction:
            transaction.put_instance(replace(green, identifier="app", port=20000))
            transaction.put_instance(replace(blue, identifier="app-old1", port=20001))
            assert transaction.instance_named("app") == replace(green, identifier="app", port=20000)
            assert transaction.instance_named("app-green-abc123") is None
        with store.transaction() as transaction:
            assert [(i.identifier, i.port, i.resource_id) for i in transaction.instances()] == [
                ("app", 20000, green.resource_id),
                ("app-old1", 20001, blue.resource_id),
            ]

    def test_deleting_and_reusing_a_name_in_one_transaction(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            transaction.put_instance(an_instance())
        with store.transaction() as transaction:
            transaction.delete_instance("db-APP")
            assert transaction.instance_named("app") is None
            assert transaction.instances() == []
            transaction.put_instance(an_instance(resource_id="db-OTHER"))
        with store.transaction() as transaction:
            assert [i.resource_id for i in transaction.instances()] == ["db-OTHER"]

    @pytest.mark.parametrize(
        "second",
        [an_instance("app", port=20001, resource_id="db-X"), an_instance("other", port=20000), an_instance("Other")],
        ids=["same name", "same port", "upper case"],
    )
    def test_the_schema_refuses(self, store: SqlStore, second: DBInstance) -> None:
        with store.transaction() as transaction:
            transaction.put_instance(an_instance())
        with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
            transaction.put_instance(second)
        with store.transaction() as transaction:
            assert [i.resource_id for i in transaction.instances()] == ["db-APP"]


class TestClusterEndpoints:
    def test_put_and_read(self, store: SqlStore) -> None:
        far = replace(an_endpoint("far"), static_members=("db-ONE", "db-TWO"), tags=(Tag("a", "b"),))
        near = replace(an_endpoint("near"), cluster="cluster-DEPOT")
        with store.transaction() as transaction:
            transaction.put_cluster_endpoint(an_endpoint("far"))
            for endpoint in (near, far):
                transaction.put_cluster_endpoint(endpoint)
        with store.transaction() as transaction:
            assert transaction.cluster_endpoint(far.resource_id) == transaction.cluster_endpoint_named("FAR") == far
            assert transaction.cluster_endpoints([far.cluster]) == [far]
            assert transaction.cluster_endpoints([near.cluster, far.cluster]) == [far, near]
            transaction.delete_cluster_endpoint(far.resource_id)
            assert transaction.cluster_endpoint_named("far") is None

    @pytest.mark.parametrize(
        "changes", [{"identifier": "Far"}, {"identifier": "far", "host": "h"}, {"host": "127.0.0.3"}]
    )
    def test_what_cannot_be(self, store: SqlStore, changes: dict[str, str]) -> None:
        other = replace(an_endpoint("other", host="127.0.0.4"), **changes)
        with store.transaction() as transaction:
            transaction.put_cluster_endpoint(an_endpoint("far"))
        with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
            transaction.put_cluster_endpoint(other)


class TestClusters:
    def test_a_record_comes_back_as_it_was_put(self, store: SqlStore) -> None:
        cluster = replace(a_cluster(), writer="db-ONE", settings={"BackupRetentionPeriod": 7}, tags=(Tag("a", "b"),))
        with store.transaction() as transaction:
            transaction.put_cluster(a_cluster())
            transaction.put_cluster(cluster)
        with store.transaction() as transaction:
            assert transaction.cluster(cluster.resource_id) == transaction.cluster_named("SHOP") == cluster
            transaction.put_cluster(a_cluster("depot", port=21001))
            assert [each.identifier for each in transaction.clusters()] == ["depot", "shop"]
            transaction.delete_cluster(cluster.resource_id)
        with store.transaction() as transaction:
            assert transaction.cluster_named("shop") is None
            assert transaction.clusters() == [a_cluster("depot", port=21001)]

    def test_members(self, store: SqlStore) -> None:
        shop, depot = a_cluster().resource_id, a_cluster("depot").resource_id
        one = replace(an_instance("one"), cluster=shop)
        two = replace(an_instance("two", port=20001), cluster=depot)
        with store.transaction() as transaction:
            for instance in (one, two, an_instance("three", port=20002)):
                transaction.put_instance(instance)
            assert transaction.members_of([shop]) == [one]
        with store.transaction() as transaction:
            assert transaction.members_of([shop]) == [one]
            assert transaction.members_of([shop, depot]) == [one, two]
            transaction.put_instance(replace(two, cluster=None))
            assert transaction.members_of([depot]) == []

    @pytest.mark.parametrize(
        "changes", [{"identifier": "Shop"}, {"identifier": "other"}, {"port": 0}, {"resource_id": "cluster-X"}]
    )
    def test_what_cannot_be(self, store: SqlStore, changes: dict[str, object]) -> None:
        """A name in capitals, a port twice, none, a name twice."""
        other = replace(a_cluster(), **{"resource_id": "cluster-OTHER", **changes})
        with store.transaction() as transaction:
            transaction.put_cluster(a_cluster())
        with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
            transaction.put_cluster(other)


class TestDeployments:
    def test_a_record_comes_back_as_it_was_put(self, store: SqlStore) -> None:
        deployment = a_deployment()
        with store.transaction() as transaction:
            transaction.put_deployment(deployment)
        changed = replace(
            deployment,
            status=DeploymentStatus.DELETING,
            status_details="going",
            deleted_at=NOON + timedelta(hours=1),
            members=(
                replace(
                    deployment.primary,
                    target_resource_id="db-GREEN",
                    target_identifier="app-green-abc123",
                    status=MemberStatus.AVAILABLE,
                ),
            ),
            tags=(Tag("a", "b"),),
        )
        with store.transaction() as transaction:
            assert transaction.deployment(deployment.identifier.upper()) == deployment
            transaction.put_deployment(changed)
            assert transaction.deployment(deployment.identifier) == changed
        with store.transaction() as transaction:
            assert transaction.deployments() == [changed]
            transaction.delete_deployment(deployment.identifier)
            assert transaction.deployment(deployment.identifier) is None
        with store.transaction() as transaction:
            assert transaction.deployments() == []
            transaction.put_deployment(deployment)  # name and source are free again

    def test_in_the_order_of_creation(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            for n in (3, 1, 2):
                deployment = a_deployment(f"bgd-{9 - n}", name=f"d{n}", source=f"db-{n}")
                transaction.put_deployment(replace(deployment, created_at=NOON + timedelta(seconds=n)))
            found = transaction.deployments()
        assert [d.name for d in found] == ["d1", "d2", "d3"]
        assert [d.primary.source_resource_id for d in found] == ["db-1", "db-2", "db-3"]

    @pytest.mark.parametrize(
        "second",
        [
            a_deployment("bgd-2", name="up", source="db-2"),
            a_deployment("bgd-2", name="two", source="db-APP"),
            replace(a_deployment("bgd-2", name="two", source="db-2"), status=DeploymentStatus.DELETING),
        ],
        ids=["same name", "same source", "deleting without a time"],
    )
    def test_the_schema_refuses(self, store: SqlStore, second: BlueGreenDeployment) -> None:
        with store.transaction() as transaction:
            transaction.put_deployment(a_deployment())
        with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
            transaction.put_deployment(second)
        with store.transaction() as transaction:
            assert len(transaction.deployments()) == 1


class TestWorkflows:
    def test_a_record_comes_back_as_it_was_put(self, store: SqlStore) -> None:
        workflow = replace(a_workflow(), arguments={"timeout_s": 300}, deadline_at=NOON + timedelta(seconds=300))
        with store.transaction() as transaction:
            transaction.put_workflow(workflow)
            transaction.put_workflow(replace(workflow, status=WorkflowStatus.UNDOING, error="no"))
        with store.transaction() as transaction:
            assert transaction.workflow("wf-1") == replace(workflow, status=WorkflowStatus.UNDOING, error="no")
            assert transaction.workflow("wf-2") is None

    def test_unfinished_ones_oldest_first(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            for n, status in enumerate(WorkflowStatus):
                workflow = a_workflow(f"wf-{n}", subject=f"s{n}")
                transaction.put_workflow(replace(workflow, status=status, started_at=NOON - timedelta(seconds=n)))
            assert [w.status for w in transaction.unfinished_workflows()] == ["undoing", "running"]

    def test_all_of_a_subject_oldest_first(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            for n in range(3):
                failed = replace(a_workflow(f"wf-{n}", subject="s"), status=WorkflowStatus.FAILED)
                transaction.put_workflow(replace(failed, started_at=NOON - timedelta(seconds=n)))
            transaction.put_workflow(a_workflow("wf-3", subject="other"))
            assert [w.workflow_id for w in transaction.workflows_of("s")] == ["wf-2", "wf-1", "wf-0"]

    def test_one_unfinished_per_subject_except_a_deletion_beside_another(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            transaction.put_workflow(a_workflow("wf-1"))
            transaction.put_workflow(a_workflow("wf-2", kind=WorkflowKind.DELETE_DEPLOYMENT))
        for kind in (WorkflowKind.SWITCH_OVER, WorkflowKind.DELETE_DEPLOYMENT):
            with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
                transaction.put_workflow(a_workflow("wf-3", kind=kind))
        with store.transaction() as transaction:
            transaction.put_workflow(replace(a_workflow("wf-1"), status=WorkflowStatus.FAILED))
            transaction.put_workflow(a_workflow("wf-3", kind=WorkflowKind.SWITCH_OVER))

    def test_the_journal_keeps_its_order_and_needs_its_workflow(self, store: SqlStore) -> None:
        entries = [
            JournalEntry(workflow_id="wf-1", step=step, outcome=outcome, at=NOON, detail=step * 2)
            for step, outcome in (("b", "started"), ("b", "done"), ("a", "started"), ("a", "undone"))
        ]
        with store.transaction() as transaction:
            transaction.put_workflow(a_workflow())
            for entry in entries:
                transaction.add_journal_entry(entry)
        with store.transaction() as transaction:
            assert transaction.journal("wf-1") == entries
        for bad in (replace(entries[0], workflow_id="wf-9"), replace(entries[0], outcome="perhaps")):
            with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
                transaction.add_journal_entry(bad)


class TestEvents:
    def test_both_ends_of_the_time_range_belong_to_it(self, store: SqlStore) -> None:
        moments = [NOON + timedelta(minutes=m) for m in range(4)]
        with store.transaction() as transaction:
            for at in reversed(moments):
                transaction.add_event(an_event(at))
            found = transaction.events(since=moments[1], until=moments[2])
        assert found == [an_event(moments[1]), an_event(moments[2])]

    def test_text_order_is_time_order(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            transaction.add_event(an_event())
            assert transaction.events(since=NOON.replace(year=999), until=NOON) == [an_event()]
            assert transaction.events(since=NOON.replace(microsecond=0), until=NOON) == [an_event()]
            assert transaction.events(since=NOON.replace(year=1), until=NOON.replace(year=999)) == []

    def test_those_older_than_a_fortnight_are_forgotten(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            for at in (NOON, NOON + timedelta(days=1), NOON + timedelta(days=14, seconds=1)):
                transaction.add_event(an_event(at))
            found = transaction.events(since=NOON - timedelta(days=99), until=NOON + timedelta(days=99))
        assert [e.at for e in found] == [NOON + timedelta(days=1), NOON + timedelta(days=14, seconds=1)]

    def test_a_naive_moment_is_refused(self, store: SqlStore) -> None:
        with pytest.raises(sa.exc.StatementError, match="time zone"), store.transaction() as transaction:
            transaction.add_event(an_event(NOON.replace(tzinfo=None)))


class TestTransactions:
    def test_nothing_stays_of_a_block_that_raises(self, store: SqlStore) -> None:
        def write_and_fail() -> None:
            with store.transaction() as transaction:
                transaction.put_instance(an_instance())
                transaction.put_deployment(a_deployment())
                transaction.add_event(an_event())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            write_and_fail()
        with store.transaction() as transaction:
            assert transaction.instances() == []
            assert transaction.deployments() == []
            assert transaction.events(since=NOON, until=NOON) == []

    def test_threads_take_turns_and_lose_nothing(self, store: SqlStore) -> None:
        def count(ports: range) -> None:
            for port in ports:
                with store.transaction() as transaction:
                    seen = len(transaction.instances())
                    transaction.put_instance(an_instance(f"i{port}", port=port))
                    assert len(transaction.instances()) == seen + 1

        threads = [threading.Thread(target=count, args=(range(n, n + 15),)) for n in (1000, 2000, 3000, 4000)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with store.transaction() as transaction:
            assert len(transaction.instances()) == 60

    def test_one_inside_another_is_an_error_not_a_deadlock(self, store: SqlStore) -> None:
        with store.transaction(), pytest.raises(RuntimeError, match="already inside"), store.transaction():
            pass
        with store.transaction() as transaction:
            assert transaction.instances() == []


class TestEpoch:
    def test_it_counts_up_and_is_kept(self, store: SqlStore) -> None:
        assert store.epoch() == 0
        assert [store.raise_epoch(), store.raise_epoch()] == [1, 2]
        assert store.epoch() == 2
        with store.transaction():
            pass

    def test_who_was_superseded_cannot_write_any_more(self, store: SqlStore, url: str) -> None:
        store.raise_epoch()
        successor = open_store(url)
        try:
            successor.raise_epoch()
            with pytest.raises(ControllerSuperseded), store.transaction():
                pytest.fail("the block must not run")
            with successor.transaction() as transaction:
                transaction.put_instance(an_instance())
        finally:
            successor.close()


class TestSnapshots:
    def test_a_record_comes_back_as_it_was_put(self, store: SqlStore) -> None:
        snapshot = replace(
            a_snapshot(),
            status=SnapshotStatus.AVAILABLE,
            type=SnapshotType.AUTOMATED,
            begun_at=NOON,
            taken_at=NOON,
            size_bytes=1 << 40,
            tags=(Tag("a", "b"),),
        )
        with store.transaction() as transaction:
            transaction.put_snapshot(a_snapshot())
            transaction.put_snapshot(snapshot)
        with store.transaction() as transaction:
            assert transaction.snapshot(snapshot.snapshot_id) == transaction.snapshot_named("Monday") == snapshot
            transaction.put_snapshot(a_snapshot("friday"))
            assert [each.identifier for each in transaction.snapshots()] == ["friday", "monday"]
            transaction.delete_snapshot(snapshot.snapshot_id)
        with store.transaction() as transaction:
            assert transaction.snapshot_named("monday") is None
            assert transaction.snapshots() == [a_snapshot("friday")]

    @pytest.mark.parametrize(
        "second",
        [
            replace(a_snapshot(), snapshot_id="snap-other"),
            replace(a_snapshot("Friday")),
            replace(a_snapshot("friday"), status=SnapshotStatus.AVAILABLE),
            replace(a_snapshot("friday"), type=SnapshotType.AUTOMATED),
        ],
        ids=["a name twice", "capitals", "no moment", "automated, and begun at no moment"],
    )
    def test_the_schema_refuses(self, store: SqlStore, second: DBSnapshot) -> None:
        with store.transaction() as transaction:
            transaction.put_snapshot(a_snapshot())
        with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
            transaction.put_snapshot(second)


class TestSchema:
    def test_the_migrations_lead_to_the_schema(self, store: SqlStore) -> None:
        with store._engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []

    @pytest.mark.parametrize(
        ("table", "record", "elsewhere"),
        [
            (schema.instances, model.DBInstance, set()),
            (schema.clusters, model.DBCluster, set()),
            (schema.snapshots, model.DBSnapshot, set()),
            (schema.cluster_endpoints, model.DBClusterEndpoint, set()),
            (schema.parameter_groups, model.ParameterGroup, set()),
            (schema.subnet_groups, model.DBSubnetGroup, set()),
            (schema.event_subscriptions, EventSubscription, set()),
            (schema.deployments, model.BlueGreenDeployment, {"members"}),
            (schema.deployment_members, model.Member, set()),
            (schema.events, model.Event, set()),
            (schema.workflows, model.Workflow, set()),
            (schema.journal, model.JournalEntry, set()),
        ],
        ids=lambda value: value.name if isinstance(value, sa.Table) else "",
    )
    def test_each_table_has_its_records_fields(
        self, table: sa.Table, record: type[Struct], elsewhere: set[str]
    ) -> None:
        own = {"number", "deployment_identifier", "position"}
        assert set(table.c.keys()) - own == {field.name for field in fields(record)} - elsewhere

    def test_opening_again_keeps_what_is_there(self, store: SqlStore, url: str) -> None:
        with store.transaction() as transaction:
            transaction.put_instance(an_instance())
        again = open_store(url)
        try:
            with again.transaction() as transaction:
                assert transaction.instances() == [an_instance()]
        finally:
            again.close()

    def test_an_earlier_versions_work_is_still_there(self, url: str) -> None:
        """SQLite copies a table to change a rule of it; what refers to its rows must not go with the old ones."""
        engine = create_engine(url)
        migrate(engine, "v0002")
        _write_as_version_2(engine)
        engine.dispose()
        store = open_store(url)
        try:
            with store.transaction() as transaction:
                assert transaction.instances() == [replace(an_instance(), pending=PendingChange())]
                assert transaction.unfinished_workflows() == [a_workflow()]
                assert [entry.step for entry in transaction.journal("wf-1")] == ["copy", "copy", "align"]
                assert transaction.events(since=NOON, until=NOON) == [an_event()]
            with pytest.raises(sa.exc.IntegrityError), store.transaction() as transaction:
                transaction.put_workflow(a_workflow("wf-2"))  # the rules are still there, too
            with store.transaction() as transaction:
                transaction.put_workflow(replace(a_workflow(), status=WorkflowStatus.COMPLETED))
                transaction.add_journal_entry(an_entry("join"))  # numbers go on
                transaction.put_workflow(a_workflow("wf-3", kind=WorkflowKind.PROMOTE_READ_REPLICA))
                transaction.put_instance(replace(an_instance(), status=InstanceStatus.STOPPING))
            with store.transaction() as transaction:
                assert [entry.step for entry in transaction.journal("wf-1")] == ["copy", "copy", "align", "join"]
        finally:
            store.close()

    def test_what_waits_for_delivery_is_still_there(self, url: str) -> None:
        """It refers to events, whose rules have changed."""
        engine = create_engine(url)
        migrate(engine, "v0009")
        subscription = EventSubscription(
            name="all", topic_arn="arn:aws:sns:us-east-1:000000000000:alerts", created_at=NOON
        )
        with engine.begin() as connection:
            connection.execute(sa.insert(schema.event_subscriptions), asdict(subscription))
            connection.execute(sa.insert(schema.events), asdict(an_event()))
            number = connection.execute(sa.select(schema.events.c.number)).scalar_one()
            delivery = {"message_id": "m", "subscription_name": "all", "event_number": number}
            connection.execute(sa.insert(schema.deliveries), {**delivery, "attempts": 2, "due_at": NOON})
        engine.dispose()
        store = open_store(url)
        try:
            with store.transaction() as transaction:
                (waiting,) = transaction.next_deliveries()
                assert (waiting.event, waiting.attempts) == (an_event(), 2)
        finally:
            store.close()

    def test_every_value_of_an_enumeration_can_be_stored(self, store: SqlStore) -> None:
        with store.transaction() as transaction:
            for number, status in enumerate(InstanceStatus):
                transaction.put_instance(replace(an_instance(f"i{number}", port=20000 + number), status=status))
            for number, cluster_status in enumerate(ClusterStatus):
                cluster = a_cluster(f"c{number}", port=21000 + number)
                transaction.put_cluster(replace(cluster, status=cluster_status))
            for snapshot_status in SnapshotStatus:
                snapshot = replace(a_snapshot(snapshot_status.value), taken_at=NOON)
                transaction.put_snapshot(replace(snapshot, status=snapshot_status))
            for snapshot_type in SnapshotType:
                snapshot = replace(a_snapshot(snapshot_type.value), begun_at=NOON)
                transaction.put_snapshot(replace(snapshot, type=snapshot_type))
            for endpoint_status in ClusterEndpointStatus:
                for endpoint_type in CustomEndpointType:
                    name = f"{endpoint_status}-{endpoint_type}".lower()
                    endpoint = an_endpoint(name, host=name)
                    transaction.put_cluster_endpoint(replace(endpoint, status=endpoint_status, type=endpoint_type))
            for kind in WorkflowKind:
                transaction.put_workflow(a_workflow(f"wf-{kind}", kind=kind, subject=kind))
            for source_type in SourceType:
                transaction.add_event(replace(an_event(), source_type=source_type))
        with store.transaction() as transaction:
            assert {instance.status for instance in transaction.instances()} == set(InstanceStatus)
            endpoints = transaction.cluster_endpoints(["cluster-SHOP"])
            assert {endpoint.status for endpoint in endpoints} == set(ClusterEndpointStatus)
            assert {workflow.kind for workflow in transaction.unfinished_workflows()} == set(WorkflowKind)
            assert {event.source_type for event in transaction.events(since=NOON, until=NOON)} == set(SourceType)

    def test_a_later_versions_database_is_refused(self, store: SqlStore, url: str) -> None:
        with store._engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = 'v9999'"))
        with pytest.raises(StoreError, match="later version"):
            open_store(url)


class TestPostgresql:
    def test_a_writer_that_stands_still_is_ended(self, store: SqlStore) -> None:
        if store._engine.dialect.name != "postgresql":
            pytest.skip("SQLite's lock ends with its process")
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == "10s"


class TestSqlite:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Iterator[Path]:
        file = tmp_path / "state.db"
        file.touch(mode=0o644)
        store = open_store(sqlite_url(file))
        with store.transaction() as transaction:
            transaction.put_instance(an_instance())
            yield file
        store.close()

    def test_nobody_else_may_read_it(self, file: Path) -> None:
        files = list(file.parent.glob("state.db*"))
        assert len(files) >= 2  # the database and its WAL
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}

    def test_every_commit_reaches_the_disk(self, tmp_path: Path) -> None:
        store = open_store(sqlite_url(tmp_path / "state.db"))
        with store._engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
        store.close()
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}

    @pytest.mark.parametrize("url", ["sqlite://", "mysql://x/y", "not a url", "sqlite:////nonexistent/dir/state.db"])
    def test_a_place_that_cannot_work_is_refused(self, url: str) -> None:
        with pytest.raises(StoreError):
            open_store(url)

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "state.db"
        file.write_bytes(b"something else entirely" * 100)
        with pytest.raises(StoreError, match="cannot open"):
            open_store(sqlite_url(file))

    def test_an_old_library_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pysqlite3.sqlite_version_info", (3, 51, 2))
        with pytest.raises(StoreError, match=r"3\.51\.3"):
            open_store(sqlite_url(tmp_path / "state.db"))


def test_it_is_a_store(store: SqlStore) -> None:
    as_port: Store = store  # checked by mypy
    assert as_port.epoch() == 0
