"""What is read for a few records does not depend on how many there are: each query goes through an index."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from tests.unit.store.test_store import a_deployment, a_workflow, an_instance
from verdigris.store import SqlStore
from verdigris.store.transaction import SqlTransaction


def names(store: SqlStore, after: str = "") -> list[str]:
    with store.transaction() as transaction:
        return [instance.identifier for instance in transaction.instances_after(after)]


def test_instances_after_one_in_bytewise_order_and_with_what_is_not_written_yet(store: SqlStore) -> None:
    with store.transaction() as transaction:
        for number, name in enumerate(("app-z", "app1", "app", "b")):
            transaction.put_instance(an_instance(name, port=20000 + number))
    assert names(store) == ["app", "app-z", "app1", "b"]
    assert names(store, "app") == ["app-z", "app1", "b"]
    with store.transaction() as transaction:
        transaction.delete_instance("db-B")
        transaction.put_instance(replace(an_instance("app1", port=20001), identifier="c"))
        assert [instance.identifier for instance in transaction.instances_after("app")] == ["app-z", "c"]


def test_more_instances_than_one_batch_come_once_each(store: SqlStore) -> None:
    wanted = [f"i{number:03}" for number in range(250)]
    with store.transaction() as transaction:
        for number, name in enumerate(wanted):
            transaction.put_instance(an_instance(name, port=20000 + number))
    assert names(store) == wanted


def test_replicas_and_names_with_what_is_not_written_yet(store: SqlStore) -> None:
    app, old, new = (an_instance(name, port=20000 + n) for n, name in enumerate(("app", "old", "new")))
    with store.transaction() as transaction:
        for instance in (app, replace(old, replica_of=app.resource_id)):
            transaction.put_instance(instance)
    with store.transaction() as transaction:
        assert [i.identifier for i in transaction.replicas_of([app.resource_id])] == ["old"]
        transaction.put_instance(replace(old, identifier="free", replica_of=None))
        transaction.put_instance(replace(new, replica_of=app.resource_id))
        assert [i.identifier for i in transaction.replicas_of([app.resource_id])] == ["new"]
        transaction.delete_instance(app.resource_id)
        assert transaction.identifiers(["db-APP", "db-OLD", "db-NEW", "db-NONE"]) == {"db-OLD": "free", "db-NEW": "new"}


def test_deployments_and_workflows_of_some_instances(store: SqlStore) -> None:
    with store.transaction() as transaction:
        one, other = a_deployment("bgd-1", name="one"), a_deployment("bgd-2", name="other", source="db-X")
        member = replace(other.primary, target_resource_id="db-Y", target_identifier="y")
        for deployment in (one, replace(other, members=(member,))):
            transaction.put_deployment(deployment)
        for number, subject in enumerate(("db-X", "db-Z")):
            transaction.put_workflow(a_workflow(f"wf-{number}", subject=subject))
        assert [d.name for d in transaction.deployments_of(["db-APP"])] == ["one"]
        assert [d.name for d in transaction.deployments_of(["db-Y", "db-APP"])] == ["one", "other"]
        assert transaction.deployments_of(["db-Z"]) == transaction.deployments_of([]) == []
        assert [w.subject for w in transaction.unfinished_workflows_of(["db-X", "db-Y"])] == ["db-X"]


class TestPlans:
    @pytest.fixture
    def statements(self, store: SqlStore) -> Iterator[list[tuple[str, object]]]:
        if store._engine.dialect.name != "sqlite":
            pytest.skip("the plans are SQLite's")
        seen: list[tuple[str, object]] = []

        def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
            seen.append((statement, parameters))

        sa.event.listen(store._engine, "before_cursor_execute", note)
        yield seen
        sa.event.remove(store._engine, "before_cursor_execute", note)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda tx: tx.instance_named("app"),
            lambda tx: next(iter(tx.instances_after("a")), None),
            lambda tx: tx.replicas_of(["db-1", "db-2"]),
            lambda tx: tx.identifiers(["db-1", "db-2"]),
            lambda tx: tx.deployments_of(["db-1", "db-2"]),
            lambda tx: tx.unfinished_workflows_of(["db-1", "db-2"]),
        ],
        ids=["one", "after", "replicas", "names", "deployments", "workflows"],
    )
    def test_no_table_is_read_from_end_to_end(
        self, store: SqlStore, statements: list[tuple[str, object]], ask: object
    ) -> None:
        assert callable(ask)
        with store.transaction() as transaction:
            assert isinstance(transaction, SqlTransaction)
            transaction.put_deployment(a_deployment(source="db-1"))
            del statements[:]
            ask(transaction)
            asked = list(statements)
            plans = [
                step[3]
                for statement, parameters in asked
                for step in transaction._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
            ]
        assert asked
        assert plans
        assert [step for step in plans if step.startswith("SCAN")] == []
