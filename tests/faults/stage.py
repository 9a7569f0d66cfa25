"""What the runs of one job share: an installation, a blue under it, and a green when a run wants one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from botocore.exceptions import ClientError

from tests.acceptance.disks import Disk, can_mount, mounted, wal_disk
from tests.acceptance.installation import Installation, wait_until
from tests.acceptance.inventory import Inventory, await_same, host_inventory, server_inventory
from tests.conftest import processes_of
from tests.faults import probes
from verdigris.demo.schema import install_schema
from verdigris.domain.statuses import ReplicationMode
from verdigris.router.process import RouterProcess

VERSIONS = {ReplicationMode.LOGICAL: ("17.10", "18.6"), ReplicationMode.PHYSICAL: ("17.9", "17.10")}
NAME = "app"
ACCOUNTS = 50
# Below the ports of the benchmarks and above those of the tests.
_FIRST_PORT, _PORTS_EACH = 17400, 250


class Stage:
    """``blue`` and ``green`` are resource ids. After a switchover ``clear`` ends both: the next run has a new pair."""

    def __init__(self, verdigris: Installation, home_disk: Disk | None, servers_disk: Disk | None) -> None:
        self.verdigris = verdigris
        self.home_disk = home_disk
        self.servers_disk = servers_disk
        self.mode: ReplicationMode | None = None
        self.blue = ""
        self.green = ""
        self.green_name = ""
        self.subject = ""  # another instance, of a run that is about none of the two
        self.replica = ""  # whom a run is about instead of green
        self.deployment: str | None = None
        self.pristine: Inventory = {}
        self.durations_s: dict[str, float] = {}  # of steps, as last measured
        self._wal_disks: dict[str, Disk] = {}

    @property
    def home(self) -> Path:
        return self.verdigris.home

    # -- blue and green

    def ensure_blue(self, mode: ReplicationMode) -> None:
        """One without a deployment or with one of this mode, which goes on being used."""
        if self.mode is mode and self.blue:
            return
        self.clear()
        old, _ = VERSIONS[mode]
        self.verdigris.create_instance(NAME, old)
        self.blue, self.mode = self.verdigris.resource_id(NAME), mode
        install_schema(self.verdigris.dsn(NAME), accounts=ACCOUNTS)
        with self.verdigris.connect(NAME) as connection:
            connection.execute(probes.TABLE)
        self.pristine = await_same(self.inventory_of_blue, self.inventory_of_blue)

    def ensure_green(self, mode: ReplicationMode) -> None:
        self.ensure_blue(mode)
        if self.deployment is None:
            self.adopt(self.begin_deployment())
            self.verdigris.await_deployment(self.deployment or "", "AVAILABLE", limit_s=90)
            self.note_green()

    def ensure_no_green(self, mode: ReplicationMode) -> None:
        self.ensure_blue(mode)
        if self.deployment is not None:
            self.verdigris.delete_deployment(self.deployment, DeleteTarget=True)
            self.forget_green()
            await_same(lambda: self.pristine, self.inventory_of_blue)

    def begin_deployment(self) -> str:
        assert self.mode is not None
        return self.verdigris.create_deployment(NAME, TargetEngineVersion=VERSIONS[self.mode][1])

    def adopt(self, deployment: str) -> None:
        self.deployment = deployment

    def note_green(self) -> None:
        target = self.verdigris.deployment(self.deployment or "")["Target"]
        self.green_name = target.rpartition(":")[2]
        self.green = self.verdigris.resource_id(self.green_name)

    def forget_green(self) -> None:
        self.deployment, self.green, self.green_name = None, "", ""

    def inventory_of_blue(self) -> Inventory:
        return server_inventory(self.verdigris, self.blue)

    def inventory_of_green(self) -> Inventory:
        return server_inventory(self.verdigris, self.green)

    def clear(self) -> None:
        """Delete all deployments and instances, as a user would, and see that nothing of them is left."""
        verdigris = self.verdigris
        for deployment in verdigris.rds.describe_blue_green_deployments()["BlueGreenDeployments"]:
            verdigris.delete_deployment(deployment["BlueGreenDeploymentIdentifier"])
        for instance in verdigris.rds.describe_db_instances()["DBInstances"]:
            verdigris.delete_instance(instance["DBInstanceIdentifier"])
        self.blue, self.subject, self.replica, self.mode = "", "", "", None
        self.forget_green()
        for resource_id in list(self._wal_disks):
            self._wal_disks.pop(resource_id).remove()
        wait_until(lambda: not self._left(), f"nothing is left: {self._left()}", limit_s=20)

    def _left(self) -> list[str]:
        found = host_inventory(self.verdigris)
        kinds = ("routes", "server directories", "socket directories", "instances", "deployments")
        left = [f"{kind}: {thing}" for kind in kinds for thing in found[kind]]
        return left + [command for command in found["processes"] if "/postgres" in command]

    # -- processes

    @property
    def follower(self) -> str:
        return self.replica or self.green

    def router_pid(self) -> int:
        pid = RouterProcess(self.home).pid
        assert pid is not None, "no router runs"
        return pid

    def postmaster(self, resource_id: str) -> int:
        return int((self.home / "instances" / resource_id / "data" / "postmaster.pid").read_text().split()[0])

    def server_processes(self, resource_id: str) -> list[int]:
        postmaster = self.postmaster(resource_id)
        return [postmaster, *children(postmaster)]

    def replication_worker(self) -> int:
        """Of green or a replica: who receives or applies what blue sends."""
        titles = (b"logical replication apply worker", b"walreceiver")
        workers = [pid for pid in children(self.postmaster(self.follower)) if any(t in title_of(pid) for t in titles)]
        assert workers, "nobody follows"
        return workers[0]

    # -- disks

    def wal_disk(self, resource_id: str) -> Disk:
        """Of its own for a server's WAL; only the first call stops the server."""
        if resource_id not in self._wal_disks:
            self._wal_disks[resource_id] = wal_disk(self.verdigris, resource_id)
        return self._wal_disks[resource_id]

    def unmount_wal_disks(self) -> None:
        for disk in self._wal_disks.values():
            disk.remove()
        self._wal_disks.clear()


def children(pid: int) -> list[int]:
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    return [int(child) for text in texts for child in text.split()]


def title_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def stage(job: int = 0, *, mounts: bool | None = None) -> Iterator[Stage]:
    """On small file systems where this machine lets us have them. Fails if something outlives it."""
    mounts = can_mount() if mounts is None else mounts
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="vgf-")))
    home.chmod(0o711)
    disks = [mounted(home), mounted(home / "instances")] if mounts else []
    first = _FIRST_PORT + job * _PORTS_EACH
    verdigris = Installation(home, ports=range(first, first + _PORTS_EACH), program="tests.faults.serve")
    it = Stage(verdigris, *(disks or (None, None)))
    try:
        try:
            verdigris.start()
            yield it
        finally:
            verdigris.remove()
            it.unmount_wal_disks()
        left = processes_of(home)
        assert not left, f"processes left behind: {left}"
    finally:
        for disk in reversed(disks):
            disk.unmount()
        shutil.rmtree(home, ignore_errors=True)


def gone(call: Any, *arguments: Any, **members: Any) -> bool:
    """Whether the API no longer knows what is asked for."""
    try:
        call(*arguments, **members)
    except ClientError as error:
        return "NotFound" in error.response["Error"]["Code"]
    return False


def takes_writes(verdigris: Installation, name: str) -> bool:
    try:
        with verdigris.connect(name, connect_timeout=5) as connection:
            connection.execute("UPDATE ledger.accounts SET balance = balance WHERE id = 1")
    except psycopg.Error:
        return False
    return True
