"""Whatever parameters arrive, in whatever order: an answer of the model's shape or a fault, and a sound store."""

import tempfile
import threading
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from tests.unit.rds.world import APP_ARN, NEW_INSTANCE, World
from tests.unit.stores import new_store
from verdigris.aws.errors import Fault
from verdigris.aws.model import Kind, ListShape, Shape, StructureShape, load_service
from verdigris.rds.operations import HANDLERS

# Values that mean something somewhere, so that random calls get past the first check.
_MEANINGFUL = [
    "app", "APP", "second", "monday", APP_ARN, APP_ARN.replace("app", "second"), "up", "postgres", "17", "17.10",
    "18.6", "db.t3.medium", "db.m5.large", "boss", "correct-horse-7", "default.postgres17", "default.postgres18",
    "db-instance-id", "source", "target", "engine", "blue-green-deployment-name", "gp3", "db-instance", "creation",
    "01:00-02:00", "mon:01:00-mon:02:00", "", "bgd-none", "arn:aws:rds:::", "a" * 300, "ü",
    "'; DROP TABLE instances;--",
]  # fmt: skip
_NUMBERS = [0, -1, 1, 20, 30, 100, 300, 3600, 5432, 20000, 20001, 2**31 - 1, -(2**31)]

_LIKELY: Mapping[str, Mapping[str, Any]] = {
    "CreateDBInstance": NEW_INSTANCE,
    "CreateBlueGreenDeployment": {"BlueGreenDeploymentName": "up", "Source": APP_ARN},
    "DeleteDBInstance": {"DBInstanceIdentifier": "app", "SkipFinalSnapshot": True},
    "ModifyDBInstance": {"DBInstanceIdentifier": "app"},
    "RebootDBInstance": {"DBInstanceIdentifier": "app"},
    "CreateDBSnapshot": {"DBInstanceIdentifier": "app", "DBSnapshotIdentifier": "monday"},
    "CopyDBSnapshot": {"SourceDBSnapshotIdentifier": "monday", "TargetDBSnapshotIdentifier": "second"},
    "RestoreDBInstanceFromDBSnapshot": {"DBInstanceIdentifier": "second", "DBSnapshotIdentifier": "monday"},
    "DeleteDBSnapshot": {"DBSnapshotIdentifier": "monday"},
}


def _values(shape: Shape) -> st.SearchStrategy[Any]:
    match shape:
        case StructureShape():
            members = {name: _values(member.shape) for name, member in shape.members.items()}
            required = {name: members.pop(name) for name in shape.required}
            return st.fixed_dictionaries(required, optional=members)
        case ListShape():
            return st.lists(_values(shape.member), max_size=3)
    match shape.kind:
        case Kind.BOOLEAN:
            return st.booleans()
        case Kind.INTEGER | Kind.LONG:
            return st.sampled_from(_NUMBERS)
        case Kind.TIMESTAMP:
            return st.datetimes(timezones=st.just(UTC))
        case _:
            return st.sampled_from([*_MEANINGFUL, *shape.enum]) | st.text(max_size=20)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Mapping[str, Any]]:
    name = draw(st.sampled_from(sorted(HANDLERS)))
    shape = load_service("rds").operation(name).input
    assert shape is not None
    likely = _LIKELY.get(name, {})
    required = [member for member in shape.required if member not in likely]
    # One of the operations takes nothing at all.
    others = draw(st.lists(st.sampled_from(sorted(shape.members)), max_size=3, unique=True)) if shape.members else []
    drawn = {member: draw(_values(shape.members[member].shape)) for member in (*required, *others)}
    return name, {**likely, **drawn}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(calls() | st.just(("finish", {})), max_size=12))
def test_an_answer_or_a_fault(sequence: list[tuple[str, Mapping[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        store = new_store(Path(directory) / "state.db")
        world = World(store)
        for name, params in sequence:
            if name == "finish":
                world.finish()
                continue
            fault = _call(world, name, params)
            assert fault is None or (fault.message and fault.status < 500)
        world.finish()
        with store.transaction() as tx:
            assert len({instance.port for instance in tx.instances()}) == len(tx.instances())
        store.close()


def _call(world: World, name: str, params: Mapping[str, Any]) -> Fault | None:
    try:
        world.call(name, **_named(world, params))
    except Fault as fault:
        return fault
    return None


def _named(world: World, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Deployments get random identifiers: let every other one that is asked for be there."""
    named = params.get("BlueGreenDeploymentIdentifier")
    with world.store.transaction() as tx:
        deployments = tx.deployments()
    if named is None or len(named) % 2 or not deployments:
        return params
    return {**params, "BlueGreenDeploymentIdentifier": deployments[0].identifier}


def test_of_many_at_once_one_gets_the_name_and_none_the_same_port(world: World) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        for identifier in ("app", f"own{number}"):
            try:
                HANDLERS["CreateDBInstance"](world.context, {**NEW_INSTANCE, "DBInstanceIdentifier": identifier})
                outcomes.append(identifier)
            except Fault as fault:
                outcomes.append(fault.code)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == sorted(["app", *["DBInstanceAlreadyExists"] * 7, *(f"own{n}" for n in range(8))])
    with world.store.transaction() as tx:
        assert sorted(instance.port for instance in tx.instances()) == list(range(20000, 20009))
        assert len(tx.unfinished_workflows()) == 9
