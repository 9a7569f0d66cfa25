"""A store on each database that it supports. PostgreSQL: a throw-away cluster, where its programs are installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from verdigris.store import SqlStore, open_store, sqlite_url


def _postgresql_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgresql_directory() -> Iterator[Path]:
    """Directory of a running server's socket; every account may connect to it as ``postgres``."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed on the system")
    account = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="vg-store-", dir="/tmp") as name:  # socket paths are short
        directory = Path(name)
        if account:
            os.chown(directory, pwd.getpwnam("postgres").pw_uid, -1)
        data = directory / "data"

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [programs / program, "-D", data, *arguments],
                check=True,
                cwd="/",
                stdout=subprocess.DEVNULL,
                **account,  # type: ignore[call-overload]  # keyword arguments by name, checked by subprocess
            )

        run("initdb", "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
        options = f"-c listen_addresses='' -k {directory} -c fsync=off -c max_connections=20"
        run("pg_ctl", "-w", "-s", "-l", str(directory / "log"), "-o", options, "start")
        try:
            yield directory
        finally:
            run("pg_ctl", "-w", "-s", "-m", "immediate", "stop")
            shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "state.db")
    directory: Path = request.getfixturevalue("postgresql_directory")
    with psycopg.connect(host=str(directory), user="postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS state")
        connection.execute("CREATE DATABASE state")
    return f"postgresql://postgres@/state?host={directory}"


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    store = open_store(url)
    yield store
    store.close()
