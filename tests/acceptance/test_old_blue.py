"""What becomes of blue: ``-old1`` takes no writes, whatever happens to it, until its owner says otherwise."""

import os
import signal

import psycopg
import pytest

from tests.acceptance.installation import Installation, wait_until
from tests.acceptance.serve_log import ServeLog


def kill_server(verdigris: Installation, resource_id: str) -> None:
    pid_file = verdigris.home / "instances" / resource_id / "data" / "postmaster.pid"
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)


def refuses_writes(verdigris: Installation) -> None:
    verdigris.await_connection("app-old1")
    with verdigris.connect("app-old1") as old, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        old.execute("INSERT INTO t VALUES (0)")


def test_it_is_read_only_through_crashes_and_restarts_until_its_owner_says_otherwise(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    deployment, _ = verdigris.build_green("app", TargetEngineVersion="18.6")
    blue = verdigris.resource_id("app")
    log = ServeLog(verdigris.log_path)
    verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=60)
    log.wait_for("switchover.phase", phase="commit_route")
    verdigris.kill()  # most likely before blue is told that it is read-only
    kill_server(verdigris, blue)
    verdigris.start()
    verdigris.await_deployment(deployment, "SWITCHOVER_COMPLETED")
    refuses_writes(verdigris)

    kill_server(verdigris, blue)
    refuses_writes(verdigris)
    verdigris.rds.reboot_db_instance(DBInstanceIdentifier="app-old1")
    wait_until(lambda: verdigris.instance("app-old1")["DBInstanceStatus"] == "available", "it is back")
    refuses_writes(verdigris)
    verdigris.delete_deployment(deployment)
    refuses_writes(verdigris)

    with verdigris.connect("app-old1") as owner:
        owner.execute("SET default_transaction_read_only = off")
        owner.execute("ALTER DATABASE app SET default_transaction_read_only = off")
    with verdigris.connect("app-old1") as old:
        old.execute("INSERT INTO t VALUES (1)")
    with verdigris.connect("app") as production:
        assert production.execute("SELECT * FROM t").fetchall() == []
