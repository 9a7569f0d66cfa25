"""Whatever dies, whenever: work is resumed or given up cleanly, clients lose nothing, and nobody has to help."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.acceptance.installation import Installation, free_port, wait_until
from tests.acceptance.inventory import Unchanged, await_same, server_inventory
from tests.acceptance.serve_log import ServeLog
from verdigris.demo.schema import install_schema
from verdigris.demo.verify import verify_clients, verify_ledger
from verdigris.demo.workload import Workload
from verdigris.router.process import RouterProcess

# Without help, from the start of the new control plane on (the process itself included).
SETTLES_WITHIN_S = 30.0


def kill_at(verdigris: Installation, log: ServeLog, event: str, **fields: Any) -> None:
    log.wait_for(event, **fields)
    verdigris.kill()


@contextmanager
def clients(verdigris: Installation, identifier: str = "app") -> Iterator[None]:
    """A few clients who write and read through the endpoint, and may notice nothing at all."""
    dsn = verdigris.dsn(identifier)
    install_schema(dsn, accounts=50)
    with Workload(dsn, writers=2, readers=1, commits_per_s=40, reads_per_s=20) as workload:
        workload.start(60)
        yield
        result = workload.stop()
    assert result.commits
    assert [*verify_ledger(dsn, result).breaches, *verify_clients(result)] == []


# ------------------------------------------------------------------------------------------------------------ instances


def test_an_instance_survives_the_control_plane_at_every_step(verdigris: Installation) -> None:
    """Created, modified, stopped, started and deleted, with a SIGKILL at the beginning of each step of it."""
    log = ServeLog(verdigris.log_path)
    created = verdigris.begin_instance("app", "17.9")
    for step in ("server", "endpoint"):
        kill_at(verdigris, log, "workflow.step_started", kind="create_instance", step=step)
        verdigris.start()
    verdigris.await_instance("app", limit_s=SETTLES_WITHIN_S)
    assert verdigris.resource_id("app") == created["DbiResourceId"]
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")

    port = free_port()
    verdigris.rds.modify_db_instance(
        DBInstanceIdentifier="app",
        EngineVersion="17.10",
        DBInstanceClass="db.t3.small",
        MasterUserPassword="another-password",
        NewDBInstanceIdentifier="renamed",
        DBPortNumber=port,
        ApplyImmediately=True,
    )
    for step in ("password", "version", "class", "port", "rename"):
        kill_at(verdigris, log, "workflow.step_started", kind="modify_instance", step=step)
        verdigris.start()
    verdigris.await_instance("renamed", limit_s=SETTLES_WITHIN_S)
    assert verdigris.instance("renamed")["Endpoint"]["Port"] == port
    with verdigris.connect("renamed", password="another-password") as connection:
        assert connection.execute(
            "SELECT id, split_part(current_setting('server_version'), ' ', 1) FROM t"
        ).fetchall() == [(1, "17.10")]

    verdigris.rds.modify_db_instance(DBInstanceIdentifier="renamed", DBInstanceClass="db.t3.large")
    assert verdigris.instance("renamed")["PendingModifiedValues"] == {"DBInstanceClass": "db.t3.large"}
    with verdigris.connect("renamed", password="another-password") as connection:
        before = connection.execute("SHOW shared_buffers").fetchone()
    verdigris.rds.reboot_db_instance(DBInstanceIdentifier="renamed")
    for step in ("parameters", "class"):
        kill_at(verdigris, log, "workflow.step_started", kind="reboot_instance", step=step)
        verdigris.start()
    verdigris.await_instance("renamed", limit_s=SETTLES_WITHIN_S)
    assert verdigris.instance("renamed")["PendingModifiedValues"] == {}
    with verdigris.connect("renamed", password="another-password") as connection:
        assert connection.execute("SHOW shared_buffers").fetchone() != before

    verdigris.rds.stop_db_instance(DBInstanceIdentifier="renamed")
    kill_at(verdigris, log, "workflow.step_started", kind="stop_instance", step="stop")
    verdigris.start()
    verdigris.await_instance("renamed", "stopped", limit_s=SETTLES_WITHIN_S)
    verdigris.rds.start_db_instance(DBInstanceIdentifier="renamed")
    for step in ("parameters", "start"):
        kill_at(verdigris, log, "workflow.step_started", kind="start_instance", step=step)
        verdigris.start()
    verdigris.await_instance("renamed", limit_s=SETTLES_WITHIN_S)
    with verdigris.connect("renamed", password="another-password") as connection:
        assert connection.execute("SELECT id FROM t").fetchall() == [(1,)]

    verdigris.rds.delete_db_instance(DBInstanceIdentifier="renamed", SkipFinalSnapshot=True)
    for step in ("deployment", "endpoint", "server"):
        kill_at(verdigris, log, "workflow.step_started", kind="delete_instance", step=step)
        verdigris.start()
    verdigris.await_no_instance("renamed")
    for directory in ("instances", "run"):
        assert list((verdigris.home / directory).iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- deployments

LOGICAL = ("check", "register", "copy", "align", "upgrade", "join", "endpoint", "backups")
PHYSICAL = ("check", "register", "copy", "join", "endpoint", "backups")


@pytest.mark.parametrize(
    ("source", "target", "steps"),
    [("17.10", "18.6", LOGICAL), pytest.param("17.9", "17.10", PHYSICAL, marks=pytest.mark.long)],
    ids=["logical", "physical"],
)
def test_a_green_is_made_whatever_happens_to_the_control_plane(
    verdigris: Installation, source: str, target: str, steps: Sequence[str]
) -> None:
    """Killed at the beginning of every step of the building and of the deletion, with clients on blue all the time."""
    log = ServeLog(verdigris.log_path)
    verdigris.create_instance("app", source)
    install_schema(verdigris.dsn("app"), accounts=50)
    before = server_inventory(verdigris, verdigris.resource_id("app"))
    with clients(verdigris):
        deployment = verdigris.create_deployment("app", TargetEngineVersion=target)
        for step in steps:
            kill_at(verdigris, log, "workflow.step_started", kind="create_deployment", step=step)
            verdigris.start()
        green = verdigris.await_deployment(deployment, "AVAILABLE", limit_s=SETTLES_WITHIN_S)
        assert verdigris.await_connection(green["Target"].rpartition(":")[2]) == target
        verdigris.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, DeleteTarget=True)
        for step in ("endpoint", "dismantle", "target"):
            kill_at(verdigris, log, "workflow.step_started", kind="delete_deployment", step=step)
            verdigris.start()
        verdigris.await_no_deployment(deployment, limit_s=SETTLES_WITHIN_S)
    blue = verdigris.resource_id("app")
    await_same(lambda: before, lambda: server_inventory(verdigris, blue))
    for directory in ("instances", "run"):
        assert len(list((verdigris.home / directory).iterdir())) == 1


# -- the switchover: the log says when a phase is over, so a kill then strikes in the next one

BEFORE_COMMIT = ("check_guardrails", "prepare", "ready_sessions", "park", "fence_source")
AFTER_COMMIT = ("commit_route", "open_target", "release", "rename", "retire_source")


@pytest.mark.parametrize(("source", "target"), [("17.10", "18.6"), ("17.9", "17.10")], ids=["logical", "physical"])
def test_a_switchover_happens_completely_or_not_at_all(verdigris: Installation, source: str, target: str) -> None:
    """Killed after each phase up to the commit it has not happened, and can be asked for again; killed after each
    phase from the commit on it has. Clients see neither an error nor a lost connection in any of it."""
    log = ServeLog(verdigris.log_path)
    verdigris.create_instance("app", source)
    install_schema(verdigris.dsn("app"), accounts=50)
    deployment, green = verdigris.build_green("app", TargetEngineVersion=target)
    named = {"BlueGreenDeploymentIdentifier": deployment}
    resource_ids = [verdigris.resource_id(identifier) for identifier in ("app", green)]
    with clients(verdigris):
        for phase in BEFORE_COMMIT:
            with Unchanged(verdigris, "app", host=False):
                verdigris.rds.switchover_blue_green_deployment(**named, SwitchoverTimeout=120)
                kill_at(verdigris, log, "switchover.phase", phase=phase)
                verdigris.start()
                settled = verdigris.await_settled(deployment, limit_s=SETTLES_WITHIN_S)
                assert settled["Status"] == "SWITCHOVER_FAILED", (phase, settled)
                assert "control plane was restarted" in settled["StatusDetails"]
            assert verdigris.await_connection("app") == source
        verdigris.rds.switchover_blue_green_deployment(**named, SwitchoverTimeout=120)
        for phase in AFTER_COMMIT:
            kill_at(verdigris, log, "switchover.phase", phase=phase)
            verdigris.start()
        verdigris.await_deployment(deployment, "SWITCHOVER_COMPLETED", limit_s=SETTLES_WITHIN_S)
        assert verdigris.await_connection("app") == target
        assert verdigris.await_connection("app-old1") == source
    assert [verdigris.resource_id(identifier) for identifier in ("app-old1", "app")] == resource_ids
    with verdigris.connect("app-old1") as old, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        old.execute("CREATE TABLE t ()")


# ------------------------------------------------------------------------------------------------------ other processes


def test_clients_do_not_notice_that_the_control_plane_is_dead(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with clients(verdigris):
        dsn = verdigris.dsn("app")
        verdigris.kill()
        with psycopg.connect(dsn) as newcomer:
            assert newcomer.execute("SELECT 1").fetchone() == (1,)
        verdigris.start()


def test_a_second_control_plane_on_the_same_directory_refuses(verdigris: Installation) -> None:
    second = verdigris.command("serve", "--port", "0")
    assert second.returncode == 1
    assert "another control plane is running" in second.stderr
    assert verdigris.rds.describe_db_instances()["DBInstances"] == []


def test_a_killed_router_comes_back_with_its_routes(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    endpoint = verdigris.instance("app")["Endpoint"]
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id")
        kill(_router_pid(verdigris))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    verdigris.await_connection("app")
    assert verdigris.instance("app")["Endpoint"] == endpoint
    # With nobody there to start it again, it comes back with the control plane.
    verdigris.kill()
    kill(_router_pid(verdigris))
    verdigris.start()
    with verdigris.connect("app") as connection:
        assert connection.execute("SELECT id FROM t").fetchall() == [(1,)]


def test_killed_servers_come_back_and_green_follows_again(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6")
    for number, identifier in enumerate(("app", green)):
        kill(postmaster_pid(verdigris, identifier))
        verdigris.await_connection("app")
        with verdigris.connect("app") as connection:
            connection.execute("INSERT INTO t VALUES (%s)", [number])
        verdigris.await_connection(green)
        _await_row(verdigris, green, number)
    assert verdigris.deployment(deployment)["Status"] == "AVAILABLE"
    verdigris.switch_over(deployment)
    with verdigris.connect("app") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(2,)]


def _await_row(verdigris: Installation, identifier: str, number: int) -> None:
    query = "SELECT id FROM t WHERE id = %s"
    with verdigris.connect(identifier) as connection:
        wait_until(lambda: connection.execute(query, [number]).fetchall() == [(number,)], f"{identifier} has {number}")


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)


def _router_pid(verdigris: Installation) -> int:
    pid = RouterProcess(verdigris.home).pid
    assert pid is not None
    return pid


def postmaster_pid(verdigris: Installation, identifier: str) -> int:
    data = verdigris.home / "instances" / verdigris.resource_id(identifier) / "data"
    return int((data / "postmaster.pid").read_text().split()[0])
