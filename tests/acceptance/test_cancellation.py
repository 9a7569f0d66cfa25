"""The operator takes a running switchover back: blue serves on as if it had never been tried; or it is too late."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.acceptance.installation import Installation
from tests.acceptance.inventory import Unchanged
from tests.acceptance.serve_log import ServeLog

REASON = "Switchover was canceled due to cancellation by the operator"
# From the operator's word to the next commit on blue; most of it is what a busy test machine may add.
WRITES_AGAIN_WITHIN_S = 2.5


@contextmanager
def frozen(verdigris: Installation, resource_id: str) -> Iterator[None]:
    """No process of a server moves."""
    postmaster = int((verdigris.home / "instances" / resource_id / "data/postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    pids = [postmaster, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def cancel(verdigris: Installation, deployment: str, **environment: str) -> tuple[int, str]:
    verdigris.environment |= environment
    done = verdigris.command("deployments", "cancel", deployment)
    return done.returncode, (done.stdout + done.stderr).strip()


def call(verdigris: Installation, deployment: str) -> None:
    verdigris.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment, SwitchoverTimeout=300)


def messages(verdigris: Installation, deployment: str) -> list[str]:
    told = verdigris.rds.describe_events(SourceIdentifier=deployment, SourceType="blue-green-deployment")["Events"]
    return [event["Message"] for event in told]


def test_until_the_point_of_no_return_and_not_after(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as clerk:
        clerk.execute("CREATE TABLE t (id int PRIMARY KEY)")
        deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6")
        assert cancel(verdigris, deployment) == (
            1,
            f"verdigris: no switchover of {deployment} is in progress: its status is AVAILABLE",
        )
        with Unchanged(verdigris, "app", host=False):
            _cancelled_while_it_waits_for_a_straggler(verdigris, deployment)
        with Unchanged(verdigris, "app", host=False):
            _cancelled_in_the_pause(verdigris, deployment, verdigris.resource_id(green), clerk)
        told = messages(verdigris, deployment)
        assert (
            told.count(f"Switchover from primary app to {green} was canceled due to {REASON.partition('to ')[2]}.") == 2
        )
        assert told.count("Switchover canceled on blue/green deployment.") == 2
        verdigris.switch_over(deployment)
        assert "its status is SWITCHOVER_COMPLETED" in cancel(verdigris, deployment)[1]
        verdigris.kill()
        assert "no control plane runs on" in cancel(verdigris, deployment)[1]
        verdigris.start()
        assert clerk.execute("SELECT array_agg(id ORDER BY id) FROM t").fetchall() == [([1, 2],)]


def _cancelled_while_it_waits_for_a_straggler(verdigris: Installation, deployment: str) -> None:
    log = ServeLog(verdigris.log_path)
    with verdigris.connect("app") as straggler:
        straggler.execute("BEGIN; INSERT INTO t VALUES (1)")
        call(verdigris, deployment)
        log.wait_for("switchover.set_back")
        with pytest.raises(ClientError, match="cannot be deleted, it is in state SWITCHOVER_IN_PROGRESS"):
            verdigris.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=deployment)
        own = verdigris.environment["VERDIGRIS_SECRET_ACCESS_KEY"]
        assert cancel(verdigris, deployment, VERDIGRIS_SECRET_ACCESS_KEY="somebody else's")[0] == 1
        assert verdigris.deployment(deployment)["Status"] == "SWITCHOVER_IN_PROGRESS"
        assert cancel(verdigris, deployment, VERDIGRIS_SECRET_ACCESS_KEY=own) == (
            0,
            f"{deployment}: SWITCHOVER_FAILED. {REASON}",
        )
        straggler.execute("COMMIT")
    assert verdigris.deployment(deployment)["StatusDetails"] == REASON


def _cancelled_in_the_pause(verdigris: Installation, deployment: str, green_id: str, clerk: Any) -> None:
    """Green does not answer, blue is fenced, and a client waits."""
    log = ServeLog(verdigris.log_path)
    call(verdigris, deployment)
    log.wait_for("switchover.phase", phase="ready_sessions")
    with frozen(verdigris, green_id), ThreadPoolExecutor(2) as people:
        log.wait_for("switchover.phase", phase="fence_source")
        waiting = people.submit(clerk.execute, "INSERT INTO t VALUES (2)")
        told = people.submit(cancel, verdigris, deployment)
        log.wait_for("request.answered", operation="cancel")
        began_at = time.monotonic()
        waiting.result(30)
        assert time.monotonic() - began_at < WRITES_AGAIN_WITHIN_S
        assert told.result(30) == (0, f"{deployment}: SWITCHOVER_FAILED. {REASON}")
    with verdigris.connect("app") as newcomer:
        assert newcomer.execute("SHOW server_version").fetchall() == [("17.10",)]
