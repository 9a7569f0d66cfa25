"""A whole Verdigris for a test: ``verdigris serve`` as a process, boto3 in front of it, everything gone at the end."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import psycopg
from psycopg.conninfo import make_conninfo

from tests.conftest import processes_of
from tests.ports import own_ports

PASSWORD = "correct-horse-battery"
MASTER = "master"
START_LIMIT_S = 60.0
_SHOWN_LINES, _SHOWN_WIDTH = 60, 400


def wait_until(condition: Callable[[], bool], what: str, *, limit_s: float = 60.0, poll_s: float = 0.05) -> None:
    """Wait for a condition, with a limit; the failure says what did not come about."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(poll_s)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _far_window() -> str:
    """For backups: no test runs at night by surprise, and finds its instance ``backing-up``."""
    opens = datetime.now(UTC) + timedelta(hours=12)
    return f"{opens:%H:%M}-{opens + timedelta(minutes=30):%H:%M}"


class Installation:
    """``start``, use ``rds`` and ``dsn``, ``kill`` and ``start`` again as a test likes, ``remove`` at the end."""

    def __init__(self, home: Path, *, ports: range | None = None, program: str = "verdigris") -> None:
        """``program``: the module that is run; a stand-in for the command line must call it."""
        ports = ports or own_ports()
        self.home = home
        self._program = program
        self.port = free_port()
        self.environment = os.environ | {
            "VERDIGRIS_HOME": str(home),
            "VERDIGRIS_ACCESS_KEY_ID": "AKIDTEST",
            "VERDIGRIS_SECRET_ACCESS_KEY": secrets.token_hex(16),
            "VERDIGRIS_PORT_RANGE": f"{ports.start}-{ports.stop - 1}",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.rds: Any = boto3.client(
            "rds",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="AKIDTEST",
            aws_secret_access_key=self.environment["VERDIGRIS_SECRET_ACCESS_KEY"],
        )

    @property
    def access_key(self) -> tuple[str, str]:
        return self.environment["VERDIGRIS_ACCESS_KEY_ID"], self.environment["VERDIGRIS_SECRET_ACCESS_KEY"]

    @property
    def log_path(self) -> Path:
        return self.home / "log" / "serve.log"

    # -- the control plane

    def start(self) -> None:
        self.process = self.launch()
        wait_until(self._is_healthy, "the control plane answers", limit_s=START_LIMIT_S)

    def launch(self) -> "subprocess.Popen[bytes]":
        """One more control plane, whether or not there is one; does not wait for it."""
        with (self.home / "serve.out").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", self._program, "serve", "--port", str(self.port)],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _is_healthy(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"serve ended with {self.process.returncode}: {self.output()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the control plane; router and servers live on."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def remove(self) -> None:
        """Stop everything that runs on the state directory. Its log's end is shown with a test that fails."""
        self._show_log()
        down = self.command("down")
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None
        assert down.returncode == 0, down.stderr

    def _show_log(self) -> None:
        if self.log_path.exists():
            lines = (line for line in self.log_path.read_text().splitlines() if '"request.answered"' not in line)
            print(*(line[:_SHOWN_WIDTH] for line in deque(lines, _SHOWN_LINES)), sep="\n")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "verdigris", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def output(self) -> str:
        return (self.home / "serve.out").read_text()[-4000:]

    def restart(self, **settings: str) -> None:
        """With settings changed; router and servers live on."""
        self.kill(signal.SIGTERM)
        self.environment |= settings
        self.start()

    # -- instances and deployments

    def create_instance(self, identifier: str, version: str, **members: Any) -> dict[str, Any]:
        """An available instance."""
        self.begin_instance(identifier, version, **members)
        self.rds.get_waiter("db_instance_available").wait(
            DBInstanceIdentifier=identifier, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        return self.instance(identifier)

    def begin_instance(self, identifier: str, version: str, **members: Any) -> dict[str, Any]:
        """What is answered at once: the instance is being created."""
        answer = self.rds.create_db_instance(
            **{
                "DBInstanceIdentifier": identifier,
                "Engine": "postgres",
                "EngineVersion": version,
                "DBInstanceClass": "db.t3.micro",
                "AllocatedStorage": 20,
                "PreferredBackupWindow": _far_window(),
                "MasterUsername": MASTER,
                "MasterUserPassword": PASSWORD,
                "DBName": "app",
                **members,
            }
        )
        created: dict[str, Any] = answer["DBInstance"]
        return created

    def instance(self, identifier: str) -> dict[str, Any]:
        instances: list[dict[str, Any]] = self.rds.describe_db_instances(DBInstanceIdentifier=identifier)["DBInstances"]
        return instances[0]

    def await_instance(self, identifier: str, status: str = "available", *, limit_s: float = 60.0) -> None:
        """Also for one that has yet to get this name."""

        def has_status() -> bool:
            try:
                return bool(self.instance(identifier)["DBInstanceStatus"] == status)
            except self.rds.exceptions.DBInstanceNotFoundFault:
                return False

        wait_until(has_status, f"{identifier} is {status}", limit_s=limit_s)

    def await_no_instance(self, identifier: str) -> None:
        def is_gone() -> bool:
            try:
                self.instance(identifier)
            except self.rds.exceptions.DBInstanceNotFoundFault:
                return True
            return False

        wait_until(is_gone, f"{identifier} is gone")

    def delete_instance(self, identifier: str) -> None:
        self.rds.delete_db_instance(DBInstanceIdentifier=identifier, SkipFinalSnapshot=True)
        self.await_no_instance(identifier)

    def await_connection(self, identifier: str, **parameters: Any) -> str:
        """Until clients get in again; the server's version."""
        version = ""

        def comes_in() -> bool:
            nonlocal version
            try:
                with self.connect(identifier, connect_timeout=5, **parameters) as connection:
                    version = str(connection.execute("SHOW server_version").fetchall()[0][0]).split()[0]
            except psycopg.OperationalError:
                return False
            return True

        wait_until(comes_in, f"{identifier} takes connections", limit_s=30)
        return version

    def resource_id(self, identifier: str) -> str:
        return str(self.instance(identifier)["DbiResourceId"])

    def dsn(self, identifier: str, **parameters: Any) -> str:
        """As the master user, with TLS, through the instance's endpoint."""
        endpoint = self.instance(identifier)["Endpoint"]
        return make_conninfo(
            **{
                "host": endpoint["Address"],
                "port": endpoint["Port"],
                "user": MASTER,
                "password": PASSWORD,
                "dbname": "app",
                "sslmode": "require",
                **parameters,
            }
        )

    def connect(self, identifier: str, **parameters: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(identifier, **parameters), autocommit=True)

    def create_deployment(self, source: str, **members: Any) -> str:
        answer = self.rds.create_blue_green_deployment(
            **{"BlueGreenDeploymentName": f"of-{source}", "Source": self.instance(source)["DBInstanceArn"], **members}
        )
        return str(answer["BlueGreenDeployment"]["BlueGreenDeploymentIdentifier"])

    def deployment(self, identifier: str) -> dict[str, Any]:
        answer = self.rds.describe_blue_green_deployments(BlueGreenDeploymentIdentifier=identifier)
        deployments: list[dict[str, Any]] = answer["BlueGreenDeployments"]
        return deployments[0]

    def await_deployment(self, identifier: str, status: str, *, limit_s: float = 180.0) -> dict[str, Any]:
        """Wait for a status; fails at once when the deployment ends up in one that it does not leave by itself."""
        settled = {"AVAILABLE", "SWITCHOVER_COMPLETED", "SWITCHOVER_FAILED", "INVALID_CONFIGURATION"}
        until = time.monotonic() + limit_s
        while True:
            deployment = self.deployment(identifier)
            if deployment["Status"] == status:
                return deployment
            if deployment["Status"] in settled or time.monotonic() > until:
                raise AssertionError(f"{status} was expected: {deployment}\n{self.output()}")
            time.sleep(0.1)

    def await_settled(self, identifier: str, *, limit_s: float = 180.0) -> dict[str, Any]:
        """Until the deployment is in a status that it does not leave by itself."""
        passing = {"PROVISIONING", "SWITCHOVER_IN_PROGRESS", "DELETING"}
        wait_until(
            lambda: self.deployment(identifier)["Status"] not in passing, f"{identifier} settles", limit_s=limit_s
        )
        return self.deployment(identifier)

    def await_deployment_invalid(self, identifier: str, *, limit_s: float = 60.0) -> dict[str, Any]:
        """One that was well before."""
        wait_until(
            lambda: self.deployment(identifier)["Status"] == "INVALID_CONFIGURATION",
            f"{identifier} is seen to be broken",
            limit_s=limit_s,
        )
        return self.deployment(identifier)

    def delete_deployment(self, identifier: str, **members: Any) -> None:
        """Until it is gone."""
        self.rds.delete_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier, **members)
        self.await_no_deployment(identifier)

    def await_no_deployment(self, identifier: str, *, limit_s: float = 60.0) -> None:
        def is_gone() -> bool:
            try:
                deployment = self.deployment(identifier)
            except self.rds.exceptions.BlueGreenDeploymentNotFoundFault:
                return True
            assert deployment["Status"] == "DELETING", deployment
            return False

        wait_until(is_gone, f"{identifier} is gone", limit_s=limit_s)

    def build_green(self, source: str, **members: Any) -> tuple[str, str]:
        """An AVAILABLE deployment: its identifier, and green's instance identifier."""
        identifier = self.create_deployment(source, **members)
        deployment = self.await_deployment(identifier, "AVAILABLE")
        return identifier, deployment["Target"].rpartition(":")[2]

    def switch_over(self, identifier: str, timeout_s: int = 60) -> dict[str, Any]:
        self.rds.switchover_blue_green_deployment(BlueGreenDeploymentIdentifier=identifier, SwitchoverTimeout=timeout_s)
        return self.await_deployment(identifier, "SWITCHOVER_COMPLETED", limit_s=timeout_s + 60.0)


@contextmanager
def installation(*, home: Path | None = None) -> Iterator[Installation]:
    """One that a module's tests share, started; on ``home`` if given. Fails if a process outlives it."""
    directory = home or Path(os.path.realpath(tempfile.mkdtemp(prefix="vg-")))
    directory.chmod(0o711)
    verdigris = Installation(directory)
    try:
        try:
            verdigris.start()
            yield verdigris
        finally:
            verdigris.remove()
        left = processes_of(directory)
        assert not left, f"processes left behind: {left}"
    finally:
        if home is None:
            shutil.rmtree(directory, ignore_errors=True)
