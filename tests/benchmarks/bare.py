"""What somebody would do by hand with the same binaries on the same data: the commands alone, timed one by one."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.benchmarks.command import undisturbed
from verdigris.engines.account import engine_account
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.installations import Installation
from verdigris.engines.postgres.config import ADMIN_ROLE
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers

Timings = dict[str, float]  # seconds by command, in the order in which they ran


def source_server(home: Path, resource_id: str) -> PostgresServer:
    """The server of an instance that a control plane runs: for its addresses and its binaries, not to be steered."""
    account = engine_account()
    return PostgresServers(home, Catalogue(account), account).server(resource_id)


def installation_of(version: str) -> Installation:
    return asyncio.run(Catalogue(engine_account()).installation(version))


class BareBuild:
    """One copy of ``source`` in a directory of its own. Close it: that stops its server and removes the directory."""

    def __init__(self, source: PostgresServer, directory: Path) -> None:
        self._source = source
        self._directory = directory
        self._data = directory / "data"
        self._installation = source.installation
        self._running = False
        self.timings: Timings = {}

    def logical(self, installation: Installation) -> Timings:
        """A copy, brought to its end by recovery, upgraded by linking, running. No replication is set up."""
        self._begin()
        self._timed("pg_basebackup", self._base_backup)
        self._timed("recovery", self._recover)
        new = self._directory / "new"
        self._timed("initdb", lambda: self._initdb(new, installation))
        self._timed("pg_upgrade", lambda: self._upgrade(new, installation))
        self._data, self._installation = new, installation
        self._timed("start", self._start)
        return self.timings

    def physical(self) -> Timings:
        """A copy, running as a standby that accepts connections."""
        self._begin()
        self._timed("pg_basebackup", lambda: self._base_backup("--write-recovery-conf"))
        self._timed("start", self._start)
        return self.timings

    def close(self) -> None:
        with undisturbed():
            if self._running:
                self._stop("immediate")
            shutil.rmtree(self._directory, ignore_errors=True)

    # -- pieces

    def _begin(self) -> None:
        for directory in (self._directory, self._directory / "socket"):
            self._source.account.make_directory(directory)

    def _timed(self, what: str, act: Callable[[], object]) -> None:
        began_s = time.monotonic()
        act()
        self.timings[what] = time.monotonic() - began_s

    def _run(self, program: str, *arguments: str, installation: Installation | None = None) -> None:
        asyncio.run(
            self._source.run(program, *arguments, installation=installation or self._installation, cwd=self._directory)
        )

    def _base_backup(self, *more: str) -> None:
        """With the options that Verdigris uses, so that the two differ in nothing but who runs it."""
        self._run(
            "pg_basebackup", "--pgdata", str(self._data), "--dbname", self._source.conninfo(),
            "--checkpoint=fast", "--wal-method=stream", "--no-manifest", *more,
        )  # fmt: skip

    def _recover(self) -> None:
        self._start()
        self._stop()

    def _initdb(self, data: Path, installation: Installation) -> None:
        options = ("--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=libc")
        # Nobody but the engine account can enter the directory.
        self._run("initdb", "-D", str(data), "-U", ADMIN_ROLE, "--auth=trust", *options, installation=installation)

    def _upgrade(self, new: Path, installation: Installation) -> None:
        self._run(
            "pg_upgrade", "--link",
            "--old-datadir", str(self._data), "--new-datadir", str(new),
            "--old-bindir", self._installation.bin_dir, "--new-bindir", installation.bin_dir,
            "--username", ADMIN_ROLE, "--socketdir", str(self._directory / "socket"),
            f"--jobs={min(4, os.cpu_count() or 1)}",
            installation=installation,
        )  # fmt: skip

    def _start(self) -> None:
        self._running = True  # also one that is being waited for must be stopped
        self._pg_ctl("start", "-l", str(self._directory / "server.log"),
                     "-o", f"-k {self._directory / 'socket'} -c listen_addresses=")  # fmt: skip

    def _stop(self, mode: str = "fast") -> None:
        self._pg_ctl("stop", "-m", mode)
        self._running = False

    def _pg_ctl(self, command: str, *more: str) -> None:
        self._run("pg_ctl", command, "-w", "-s", "-D", str(self._data), *more)


def total(timings: Timings, names: Sequence[str] | None = None) -> float:
    return sum(seconds for name, seconds in timings.items() if names is None or name in names)
