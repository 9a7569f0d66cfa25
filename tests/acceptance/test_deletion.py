"""Deleting a deployment in every state, with and without its green, and its members alone: nothing stays behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError

from tests.acceptance.installation import Installation, installation, wait_until
from tests.acceptance.inventory import Unchanged, admin, await_same, server_inventory
from tests.acceptance.serve_log import ServeLog

INVALID_STATE = "InvalidBlueGreenDeploymentStateFault"
# Target versions of a blue 17.10: green by logical and by physical replication.
LOGICAL, PHYSICAL = "18.6", "17.11"


@pytest.fixture(scope="module")
def verdigris() -> Iterator[Installation]:
    with installation() as verdigris:
        yield verdigris


@pytest.fixture
def blue(verdigris: Installation) -> Iterator[str]:
    """A blue of the test's own. Whatever is there at the end is deleted one by one, as a user would."""
    verdigris.create_instance("blue", "17.10", DeletionProtection=False)
    with verdigris.connect("blue") as connection:
        connection.execute("CREATE TABLE kept AS SELECT g AS id FROM generate_series(1, 100) g")
        connection.execute("ALTER TABLE kept ADD PRIMARY KEY (id)")
    yield "blue"
    for deployment in verdigris.rds.describe_blue_green_deployments()["BlueGreenDeployments"]:
        verdigris.delete_deployment(deployment["BlueGreenDeploymentIdentifier"])
    for instance in verdigris.rds.describe_db_instances()["DBInstances"]:
        verdigris.delete_instance(instance["DBInstanceIdentifier"])
    for directory in ("instances", "run"):
        assert list((verdigris.home / directory).iterdir()) == []


@contextmanager
def refused(code: str, word: str = "") -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code, error
    assert word in error["Message"]


def is_standalone(verdigris: Installation, identifier: str) -> None:
    """It follows nobody, anybody may write, it holds what blue held, and nothing of the deployment is left on it."""
    with verdigris.connect(identifier) as connection:
        assert connection.execute("SELECT pg_is_in_recovery(), count(*) >= 100 FROM kept").fetchall() == [(False, True)]
        connection.execute("INSERT INTO kept VALUES (-1)")
        connection.execute("DELETE FROM kept WHERE id = -1")
    assert "ReadReplicaSourceDBInstanceIdentifier" not in verdigris.instance(identifier)
    has_nothing_of_ours(verdigris, identifier)


def has_nothing_of_ours(verdigris: Installation, identifier: str) -> None:
    resource_id = verdigris.resource_id(identifier)

    def traces() -> list[str]:
        found = server_inventory(verdigris, resource_id)
        return [
            f"{kind}: {thing}"
            for kind, things in found.items()
            for thing in things
            if kind in ("slots", "replication origins", "our sessions") or "verdigris_" in thing or "bgd_" in thing
        ]

    await_same(dict, lambda: {"traces": left} if (left := traces()) else {}, limit_s=60)


# -------------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize(("step", "delete_target"), [("copy", True), ("copy", False), ("upgrade", False)])
def test_while_green_is_made(verdigris: Installation, blue: str, step: str, delete_target: bool) -> None:
    """There is no green to keep yet."""
    log = ServeLog(verdigris.log_path)
    with Unchanged(verdigris, blue):
        deployment = verdigris.create_deployment(blue, TargetEngineVersion=LOGICAL)
        log.wait_for("workflow.step_started", step=step)
        answer = verdigris.rds.delete_blue_green_deployment(
            BlueGreenDeploymentIdentifier=deployment, DeleteTarget=delete_target
        )["BlueGreenDeployment"]
        assert answer["Status"] == "DELETING"
        assert answer["DeleteTime"]
        verdigris.await_no_deployment(deployment)


@pytest.mark.parametrize("version", [LOGICAL, PHYSICAL], ids=["logical", "physical"])
def test_available(verdigris: Installation, blue: str, version: str) -> None:
    """Once with its green; then without, which makes green a server like any other."""
    with Unchanged(verdigris, blue):
        deployment, _ = verdigris.build_green(blue, TargetEngineVersion=version)
        verdigris.delete_deployment(deployment, DeleteTarget=True)
    with Unchanged(verdigris, blue, host=False):
        deployment, green = verdigris.build_green(blue, TargetEngineVersion=version)
        verdigris.delete_deployment(deployment)
        is_standalone(verdigris, green)
    assert verdigris.instance(green)["DBInstanceStatus"] == "available"


@pytest.mark.parametrize("delete_target", [True, False])
def test_invalid_after_it_was_available(verdigris: Installation, blue: str, delete_target: bool) -> None:
    """Somebody drops the slot that green needs."""
    with Unchanged(verdigris, blue, host=False):
        deployment, green = verdigris.build_green(blue, TargetEngineVersion=PHYSICAL)
        with admin(verdigris, verdigris.resource_id(blue)) as connection:
            connection.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
            wait_until(lambda: _slots_dropped(connection), "the slots are dropped")
        shown = verdigris.await_deployment_invalid(deployment)
        assert shown["StatusDetails"]
        verdigris.delete_deployment(deployment, DeleteTarget=delete_target)
        if not delete_target:
            is_standalone(verdigris, green)


def _slots_dropped(connection: psycopg.Connection[Any]) -> bool:
    """Between two attempts of green to come back."""
    try:
        connection.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    except psycopg.errors.ObjectInUse:
        return False
    return True


@pytest.mark.parametrize("delete_target", [True, False])
def test_after_a_failed_switchover(verdigris: Installation, blue: str, delete_target: bool) -> None:
    deployment, green = verdigris.build_green(blue, TargetEngineVersion=LOGICAL)
    with verdigris.connect(blue) as connection:
        connection.execute("CREATE UNLOGGED TABLE not_replicated AS SELECT 1 AS id")
    verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
    shown = verdigris.await_deployment(deployment, "SWITCHOVER_FAILED")
    assert "not_replicated" in shown["StatusDetails"]
    verdigris.delete_deployment(deployment, DeleteTarget=delete_target)
    has_nothing_of_ours(verdigris, blue)
    if not delete_target:
        is_standalone(verdigris, green)


@pytest.mark.parametrize("version", [LOGICAL, PHYSICAL], ids=["logical", "physical"])
def test_after_the_switchover(verdigris: Installation, blue: str, version: str) -> None:
    """The record goes; both servers stay, and neither shows that there was a deployment."""
    deployment, _ = verdigris.build_green(blue, TargetEngineVersion=version)
    verdigris.switch_over(deployment)
    with refused(INVALID_STATE, "Deleting target is not allowed"):
        verdigris.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    verdigris.delete_deployment(deployment)
    is_standalone(verdigris, blue)
    has_nothing_of_ours(verdigris, f"{blue}-old1")
    with verdigris.connect(f"{blue}-old1") as old:
        assert old.execute("SELECT count(*) FROM kept").fetchall() == [(100,)]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            old.execute("DELETE FROM kept")


# -------------------------------------------------------------------------------------------- protection, and members


def test_a_protected_green_stays(verdigris: Installation, blue: str) -> None:
    deployment, green = verdigris.build_green(blue)
    verdigris.rds.modify_db_instance(DBInstanceIdentifier=green, DeletionProtection=True)
    with refused(INVALID_STATE, "protect"):
        verdigris.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
    with refused("InvalidParameterCombination", "protect"):
        verdigris.rds.delete_db_instance(DBInstanceIdentifier=green, SkipFinalSnapshot=True)
    assert verdigris.deployment(deployment)["Status"] == "AVAILABLE"
    verdigris.rds.modify_db_instance(DBInstanceIdentifier=green, DeletionProtection=False)
    verdigris.delete_deployment(deployment, DeleteTarget=True)


@pytest.mark.parametrize("version", [LOGICAL, PHYSICAL], ids=["logical", "physical"])
def test_green_deleted_on_its_own(verdigris: Installation, blue: str, version: str) -> None:
    """Nothing of it stays on blue, and the deployment says what it misses."""
    with Unchanged(verdigris, blue):
        deployment, green = verdigris.build_green(blue, TargetEngineVersion=version)
        verdigris.delete_instance(green)
        _misses(verdigris, deployment, "MISSING_TARGET", green)
        verdigris.delete_deployment(deployment)


@pytest.mark.parametrize("version", [LOGICAL, PHYSICAL], ids=["logical", "physical"])
def test_blue_deleted_on_its_own(verdigris: Installation, blue: str, version: str) -> None:
    """Green stays, and deleting the deployment sets it free."""
    deployment, green = verdigris.build_green(blue, TargetEngineVersion=version)
    verdigris.delete_instance(blue)
    _misses(verdigris, deployment, "MISSING_SOURCE", blue)
    assert verdigris.await_connection(green) == version
    verdigris.delete_deployment(deployment)
    is_standalone(verdigris, green)


def test_both_members_deleted_on_their_own(verdigris: Installation, blue: str) -> None:
    deployment, green = verdigris.build_green(blue)
    verdigris.delete_instance(blue)
    verdigris.delete_instance(green)
    assert verdigris.deployment(deployment)["Status"] == "INVALID_CONFIGURATION"
    verdigris.delete_deployment(deployment)


def _misses(verdigris: Installation, deployment: str, status: str, name: str) -> None:
    shown = verdigris.deployment(deployment)
    assert shown["Status"] == "INVALID_CONFIGURATION"
    assert [detail["Status"] for detail in shown["SwitchoverDetails"]] == [status]
    assert name in shown["StatusDetails"]
    with refused(INVALID_STATE):
        verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
