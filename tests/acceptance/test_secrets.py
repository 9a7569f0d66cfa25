"""After a whole life, errors included, nothing that is secret is anywhere but where it has to be."""

import contextlib
import os
import re
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from botocore.exceptions import ClientError

from tests.acceptance.installation import Installation
from tests.acceptance.inventory import admin
from tests.acceptance.raw_requests import call

# None is used by another test: the AWS CLI is told its master password in its arguments, and may run beside this.
FIRST, SECOND, THIRD, MISTYPED = "primus-inter-1", "tr0ub4dor-and-3", "three-is-company-9", "mistyped-word-77"
NOBODY = 65534


def found_by_a_stranger(paths: list[str]) -> list[str]:
    """What another user of this machine can list, read or connect to: by the kernel's own word, because there are more
    rules than modes."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writing, "\n".join(what for path in paths if (what := _reach(path)))[:60_000].encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = answer.read().splitlines()
    os.waitpid(child, 0)
    return found


def _reach(path: str) -> str:
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode  # noqa: PTH116 - few words in a forked child
        if stat.S_ISDIR(mode):
            os.listdir(path)  # noqa: PTH208
            return f"listed {path}"
        if stat.S_ISSOCK(mode):
            socket.socket(socket.AF_UNIX).connect(path)
            return f"connected to {path}"
        os.close(os.open(path, os.O_RDONLY))
        return f"read {path}"
    return ""


class Watcher(threading.Thread):
    """Reads what every user of the machine may read of its processes, all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[bytes] = set()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit() and int(entry.name) != os.getpid():
                    with contextlib.suppress(OSError):
                        self.seen.add((entry / "cmdline").read_bytes())

    def __enter__(self) -> "Watcher":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()


def verifiers(verdigris: Installation, resource_id: str) -> set[str]:
    with admin(verdigris, resource_id) as connection:
        rows = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL").fetchall()
    return {str(row[0]) for row in rows}


def parts(verifier: str) -> set[str]:
    """A verifier's salt says nothing; the keys do."""
    return set(verifier.rpartition("$")[2].split(":"))


def internal_password(verdigris: Installation, resource_id: str) -> str:
    passfile = verdigris.home / "instances" / resource_id / "passfile"
    return passfile.read_text().strip().rpartition(":")[2]


def readable_texts(verdigris: Installation) -> Iterator[tuple[Path, bytes]]:
    """Everything that people read when something has gone wrong, and send to others."""
    yield from ((path, path.read_bytes()) for path in verdigris.home.rglob("*.log*") if path.is_file())
    yield verdigris.home / "serve.out", (verdigris.home / "serve.out").read_bytes()
    for pattern in (
        "server.json",
        "verdigris.conf",
        "postgresql*.conf",
        "postmaster.opts",
        "routes.json",
        "router.json",
    ):
        yield from ((path, path.read_bytes()) for path in verdigris.home.rglob(pattern))


def test_nothing_secret_is_told(verdigris: Installation) -> None:
    told: list[str] = []  # what callers were answered
    with Watcher() as watcher:
        verdigris.create_instance("app", "17.10", MasterUserPassword=FIRST)
        blue = verdigris.resource_id("app")
        secrets = {FIRST, SECOND, THIRD, MISTYPED, verdigris.access_key[1], internal_password(verdigris, blue)}
        for verifier in verifiers(verdigris, blue):
            secrets |= parts(verifier)
        verdigris.rds.modify_db_instance(DBInstanceIdentifier="app", MasterUserPassword=SECOND)
        verdigris.await_connection("app", password=SECOND)
        told += _errors(verdigris)
        verdigris.rds.create_db_instance_read_replica(DBInstanceIdentifier="copy", SourceDBInstanceIdentifier="app")
        verdigris.await_instance("copy")
        secrets.add(internal_password(verdigris, verdigris.resource_id("copy")))
        verdigris.rds.promote_read_replica(DBInstanceIdentifier="copy")
        verdigris.await_instance("copy")
        with verdigris.connect("app", password=SECOND) as master:
            master.execute("CREATE TABLE t (id int PRIMARY KEY)")
            master.execute(f"CREATE ROLE worker LOGIN PASSWORD '{THIRD}'".encode())
            deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6")
            secrets.add(internal_password(verdigris, verdigris.resource_id(green)))
            master.execute(f"ALTER ROLE worker PASSWORD '{THIRD}x'".encode())  # carried by the switchover
            for verifier in verifiers(verdigris, blue):
                secrets |= parts(verifier)
            verdigris.switch_over(deployment)
        for arguments in (("status",), ("deployments", "show", deployment), ("deployments", "cancel", deployment)):
            done = verdigris.command(*arguments)
            told.append(done.stdout + done.stderr)
        told.append(str(verdigris.rds.describe_db_instances()) + str(verdigris.rds.describe_events()))
        _nobody_else_comes_near(verdigris)
        verdigris.delete_deployment(deployment)
        verdigris.delete_instance("app-old1")
        texts = list(readable_texts(verdigris))
        _modes_are_tight(verdigris)
        for identifier in ("copy", "app"):
            verdigris.delete_instance(identifier)
        texts += readable_texts(verdigris)
    assert any(b"postgres" in line for line in watcher.seen)
    places = {
        **{f"a process's arguments: {line[:80]!r}": line for line in watcher.seen},
        **{f"{path} ({number})": text for number, (path, text) in enumerate(texts)},
        "an answer": "\n".join(told).encode(),
    }
    found = sorted(
        f"{secret[:6]}... in {place}" for place, text in places.items() for secret in secrets if secret.encode() in text
    )
    assert not found, "\n".join(found)
    assert len(secrets) >= 12


def _errors(verdigris: Installation) -> list[str]:
    """Requests and logins that are refused, with secrets in them."""
    told = []
    with pytest.raises(ClientError) as refused:
        verdigris.begin_instance("app", "17.10", MasterUserPassword=MISTYPED)
    told.append(str(refused.value))
    with pytest.raises(ClientError) as refused:
        verdigris.begin_instance("other", "99.1", MasterUserPassword=MISTYPED)
    told.append(str(refused.value))
    with pytest.raises(ClientError) as refused:
        verdigris.rds.modify_db_instance(DBInstanceIdentifier="app", MasterUserPassword=f"{MISTYPED}/@")
    told.append(str(refused.value))
    told.append(str(call(verdigris, "CreateDBInstance", MasterUserPassword=MISTYPED, AllocatedStorage="lots")))
    with pytest.raises(psycopg.OperationalError) as denied:
        verdigris.connect("app", password=MISTYPED)
    told.append(str(denied.value))
    with pytest.raises(psycopg.OperationalError) as denied:
        verdigris.connect("app", user="rdsadmin", password=MISTYPED)
    told.append(str(denied.value))
    return told


def _modes_are_tight(verdigris: Installation) -> None:
    """Whoever gets past the directories, a backup for one, still finds nothing that everybody may read, but for
    certificates."""
    loose = [
        f"{path} {stat.filemode(mode)}"
        for path in verdigris.home.rglob("*")
        if not path.is_symlink()
        and (mode := path.lstat().st_mode) & 0o006
        and not stat.S_ISDIR(mode)
        and not re.search(r"/(serve\.out|router/tls/[^/]*cert[^/]*)$", str(path))
    ]
    assert not loose, "\n".join(loose)


def _nobody_else_comes_near(verdigris: Installation) -> None:
    """Another user of the machine, by the kernel's own word."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    paths = [str(path) for path in verdigris.home.rglob("*") if "base" not in path.parts and path.name != "serve.out"]
    sockets = [path for path in paths if stat.S_ISSOCK(Path(path).lstat().st_mode)]
    assert len(sockets) >= 5  # three servers', the router's two
    assert found_by_a_stranger([str(verdigris.home), *paths]) == []
    assert found_by_a_stranger(["/etc/passwd"]) == ["read /etc/passwd"]  # it does look
    router = int(re.findall(r'"pid":(\d+)', (verdigris.home / "router" / "router.json").read_text())[0])
    assert verdigris.access_key[1].encode() not in Path(f"/proc/{router}/environ").read_bytes()
    limits = Path(f"/proc/{router}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits
    for pid in _servers(verdigris):
        assert verdigris.access_key[1].encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert not _listens_on_tcp(pid)


def _servers(verdigris: Installation) -> list[int]:
    return [int(path.read_text().split()[0]) for path in verdigris.home.glob("instances/*/data/postmaster.pid")]


def _listens_on_tcp(pid: int) -> bool:
    inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    tables = (Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    return any(
        line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in inodes for table in tables for line in table
    )
