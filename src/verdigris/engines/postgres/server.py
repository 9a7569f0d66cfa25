"""One PostgreSQL server on disk and as a process."""

import asyncio
import secrets
import shutil
import signal
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg
import structlog
from msgspec import Struct
from msgspec.structs import replace
from psycopg.conninfo import make_conninfo

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import BackendAddress
from verdigris.domain.undoing import to_its_end
from verdigris.domain.versions import PostgresVersion
from verdigris.engines.account import EngineAccount, own_name, sync_directory
from verdigris.engines.control import Control
from verdigris.engines.installations import Installation
from verdigris.engines.layout import SOCKET_NAME, Layout
from verdigris.engines.postgres import config, own_sessions
from verdigris.engines.postgres.postmaster import PORT, Postmaster, StopMode
from verdigris.engines.process import Completed, Process, run_program
from verdigris.engines.supervisor import ConditionCallback, RestartPolicy, Supervision

if TYPE_CHECKING:
    from verdigris.engines.postgres.sessions import KeptSessions

log = structlog.get_logger(__name__)

# A hot standby refuses to start with less of these than its primary has (manual, 26.4.4 "Hot standby administrator's
# overview").
NOT_LESS_THAN_PRIMARY = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

AsyncConnection = psycopg.AsyncConnection[tuple[Any, ...]]


class ServerRecord(Struct, frozen=True, kw_only=True):
    """``server.json``: what this server is. ``created`` turns true when the roles and databases are there; of the
    deployments and read replicas in ``to_clean`` something is left on it, to be taken away when it runs
    (``dismantling.py``)."""

    installation: Installation
    instance_class: str
    master_username: str
    db_name: str | None = None
    # The parameter group's own values, formulas as they are.
    parameters: dict[str, str] = {}
    token_logins: bool = False
    created: bool = False
    to_clean: tuple[str, ...] = ()


def ignore_condition(*_: object) -> None:
    """For those who do not watch."""


class PostgresServer:
    """A server directory (``instances/<resource id>``) and the process that runs on it.

    ``start``, ``stop`` and ``restart`` are serialised. Started with ``supervise``, it is started again whenever it
    ends by itself, until ``stop``. Objects for one directory must be one object: get it of ``PostgresServers``.
    """

    def __init__(
        self,
        resource_id: str,
        layout: Layout,
        account: EngineAccount,
        record: ServerRecord,
        *,
        policy: RestartPolicy | None = None,
        report: ConditionCallback = ignore_condition,
        control: Control | None = None,
    ) -> None:
        layout.check(resource_id)
        self.resource_id = resource_id
        self.control = control or Control(layout.home, None)
        self.directory = layout.directory(resource_id)
        self.data_dir = self.directory / "data"
        self.socket_dir = layout.socket_dir(resource_id)
        self.log_path = self.directory / "log" / "postgresql.log"
        self.passfile = self.directory / "passfile"
        self.account = account
        self._record = record
        self._postmaster = Postmaster(
            data_dir=self.data_dir, socket_dir=self.socket_dir, log_path=self.log_path, account=account
        )
        self._lock = asyncio.Lock()
        self.cleaning = asyncio.Lock()  # see dismantling.py
        # Sessions of ours that wait for their next use: see sessions.py.
        self.kept: KeptSessions | None = None
        self._supervision = Supervision(
            resource_id,
            self._start_again,
            housekeep=self._postmaster.log.rotate_if_large,
            policy=policy or RestartPolicy(),
            report=report,
        )

    def __repr__(self) -> str:
        return f"<PostgresServer {self.resource_id} {self.installation.version} ({self.installation.source})>"

    @classmethod
    def read_record(cls, directory: Path) -> ServerRecord | None:
        """The record of a server directory; None if it has none (yet)."""
        try:
            return msgspec.json.decode((directory / "server.json").read_bytes(), type=ServerRecord)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise EngineError(f"{directory / 'server.json'} cannot be read: {error}") from error

    # ------------------------------------------------------------------------------------------------------- identity

    @property
    def record(self) -> ServerRecord:
        return self._record

    @property
    def installation(self) -> Installation:
        return self._record.installation

    @property
    def version(self) -> PostgresVersion:
        return PostgresVersion.parse(self.installation.version)

    @property
    def address(self) -> BackendAddress:
        return BackendAddress(self.resource_id, str(self.socket_dir / SOCKET_NAME))

    @property
    def has_data(self) -> bool:
        """Whether there is a complete data directory (``initdb`` renames it into place at its end)."""
        return (self.data_dir / "PG_VERSION").exists()

    def save(self, **changes: Any) -> None:
        """Change members of the record, durably."""
        record = replace(self._record, **changes)
        with self.control.effect():
            self.account.write_file(self.directory / "server.json", msgspec.json.format(msgspec.json.encode(record)))
        self._record = record

    def use_installation(self, installation: Installation) -> None:
        """From the next start on. The data directory must fit: the same major version, or just upgraded."""
        self.save(installation=installation)

    # ----------------------------------------------------------------------------------------------------------- files

    def make_directories(self) -> None:
        """The server's directories, mode 0700, and its internal password, if they are not there."""
        for path in (self.directory, self.log_path.parent, self.socket_dir):
            self.account.make_directory(path)
        if not self.passfile.exists():
            # token_hex: no character that a passfile would want escaped.
            self.account.write_file(self.passfile, f"*:*:*:{config.ADMIN_ROLE}:{secrets.token_hex(24)}\n")

    async def initdb(
        self,
        data_dir: Path | None = None,
        *,
        installation: Installation | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Make a configured, empty cluster; does nothing if it is there. ``options`` are added to ``initdb``'s.

        It is made beside its place and renamed, so that what bears the name is complete, whatever happens.
        """
        data_dir = data_dir or self.data_dir
        installation = installation or self.installation
        if (data_dir / "PG_VERSION").exists():
            return
        self.control.require()
        partial = data_dir.with_name(data_dir.name + ".partial")
        password_file = self.directory / ".initial-password"
        await self._delete(partial)
        self.account.write_file(password_file, self.account.read_file(self.passfile).strip().rpartition(":")[2] + "\n")
        try:
            await run_program(
                self._initdb_command(installation, partial, password_file, options),
                account=self.account,
                env=self.account.environment(),
                cwd=self.directory,
            )
            self.configure(partial, version=PostgresVersion.parse(installation.version))
            partial.rename(data_dir)
            sync_directory(data_dir.parent)
        except BaseException:
            await to_its_end(self._delete(partial))
            raise
        finally:
            password_file.unlink(missing_ok=True)

    @staticmethod
    def _initdb_command(
        installation: Installation, data_dir: Path, password_file: Path, options: Sequence[str]
    ) -> list[str]:
        command = [
            installation.program("initdb"),
            "-D", str(data_dir),
            "-U", config.ADMIN_ROLE,
            "--auth=scram-sha-256",
            f"--pwfile={password_file}",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]  # fmt: skip
        if PostgresVersion.parse(installation.version).major >= 15:  # before, libc was the only provider
            command.append("--locale-provider=libc")
        return [*command, *options]

    def configure(
        self, data_dir: Path | None = None, *, version: PostgresVersion | None = None, forget: Collection[str] = ()
    ) -> None:
        """Bring a data directory's configuration files up to date: the include line, pg_hba.conf, our settings.

        Other settings that are in ``verdigris.conf`` already stay, but for those to ``forget``. Takes effect at the
        next start.
        """
        data_dir = data_dir or self.data_dir
        version = version or self.version
        postgresql_conf = data_dir / "postgresql.conf"
        self.account.write_file(postgresql_conf, config.managed(self.account.read_file(postgresql_conf)))
        self._write_admission(data_dir, version)
        found = {name: value for name, value in self.read_settings(data_dir).items() if name not in forget}
        self.write_settings(found | self.derived_settings(version), data_dir)

    def set_token_logins(self, enabled: bool) -> None:
        """Whether members of ``rds_iam`` are left to the router. It takes effect by ``reload`` or at the next start."""
        self.save(token_logins=enabled)
        with self.control.effect():
            self._write_admission(self.data_dir, self.version)

    def _write_admission(self, data_dir: Path, version: PostgresVersion) -> None:
        """pg_hba.conf and what it refers to, which comes first."""
        tokens = None
        if self._record.token_logins:
            tokens = config.TokenLogins(master_username=self._record.master_username, router=own_name())
        self.account.write_file(data_dir / "pg_ident.conf", config.ident(tokens))
        self.account.write_file(data_dir / "pg_hba.conf", config.hba(version, tokens))

    def derived_settings(self, version: PostgresVersion | None = None) -> dict[str, str]:
        """What follows from version, class and parameter group."""
        return config.server_settings(version or self.version, self._record.instance_class, self._record.parameters)

    def read_settings(self, data_dir: Path | None = None) -> dict[str, str]:
        """Our own settings; empty if there is no file."""
        try:
            return config.parse_settings(self.account.read_file((data_dir or self.data_dir) / config.SETTINGS_FILE))
        except FileNotFoundError:
            return {}

    def write_settings(self, settings: Mapping[str, str], data_dir: Path | None = None) -> None:
        """Replace all our settings, atomically. They take effect by ``reload`` or at the next start."""
        path = (data_dir or self.data_dir) / config.SETTINGS_FILE
        with self.control.effect():
            self.account.write_file(path, config.render_settings(settings))

    def change_settings(self, changes: Mapping[str, str | None], data_dir: Path | None = None) -> None:
        """Add, replace and (None) take away some of our settings."""
        settings: dict[str, str | None] = {**self.read_settings(data_dir), **changes}
        self.write_settings({name: value for name, value in settings.items() if value is not None}, data_dir)

    def set_class(self, instance_class: str) -> None:
        """Memory and connection settings of a class; they take effect at the next start."""
        self._rederive(instance_class=instance_class)

    def set_parameters(self, parameters: Mapping[str, str]) -> None:
        """All of the parameter group's values. They take effect by ``reload`` or at the next start."""
        self._rederive(parameters=dict(parameters))

    def _rederive(self, **changes: Any) -> None:
        """Other settings stay, the fixed ones too: a deployment may have raised some of them."""
        before = config.class_settings(self._record.instance_class, self._record.parameters)
        self.save(**changes)
        after = config.class_settings(self._record.instance_class, self._record.parameters)
        if (self.data_dir / "standby.signal").exists():
            # A standby does not start with less of these than its primary has, which was seen to when it was made.
            present = self.read_settings()
            after |= {
                n: str(max(int(after.get(n, "0")), int(present[n]))) for n in NOT_LESS_THAN_PRIMARY if n in present
            }
        self.change_settings({**dict.fromkeys(before), **after})

    async def _delete(self, path: Path) -> None:
        if path.exists():
            await asyncio.to_thread(shutil.rmtree, path)

    async def remove(self) -> None:
        """Stop it and delete everything of it. The record goes last, so that an interrupted removal can be resumed."""
        self.control.require()
        async with self._lock:
            await self._supervision.end()
            await self._postmaster.stop(StopMode.IMMEDIATE)
            await self._delete(self.data_dir)
            await self._delete(self.socket_dir)
            await self._delete(self.directory)

    # --------------------------------------------------------------------------------------------------------- process

    async def start(self, *, supervise: bool = True, options: Sequence[str] = ()) -> None:
        """Run and return when connections are accepted; adopts a server that runs already.

        ``supervise=False`` for a run that is expected to end, or that the caller minds itself; ``options`` go to the
        postmaster's command line of this one run. Raises ``EngineError`` with the log's last words.
        """
        async with self._lock:
            process = await self._launch(options)
            if supervise:
                self._supervision.watch(process)
            else:
                process.close()

    def try_again(self) -> None:
        """In the background, for as long as it takes: what kept it from starting may pass. Until ``stop``."""
        self._supervision.try_again()

    async def stop(self, mode: StopMode = StopMode.FAST, *, timeout_s: float = 60) -> None:
        """Return when it has ended, at the latest a little after ``timeout_s``, by force. Supervision ends."""
        self.control.require()
        async with self._lock:
            await self._supervision.end()
            await self._postmaster.stop(mode, timeout_s=timeout_s)

    async def restart(self, mode: StopMode = StopMode.FAST, *, supervise: bool = True) -> None:
        self.control.require()
        async with self._lock:
            await self._supervision.end()
            await self._postmaster.stop(mode)
            process = await self._launch()
            if supervise:
                self._supervision.watch(process)
            else:
                process.close()

    async def detach(self) -> None:
        """Stop minding the server and let it run on: the end of a control plane."""
        await self._supervision.end()

    def reload(self) -> None:
        """Have the files read again. It reaches sessions when they are next idle; raises if the server is down."""
        with self.control.effect():
            told = self._postmaster.signal(signal.SIGHUP)
        if not told:
            raise EngineError(f"{self.resource_id} is not running")

    def is_running(self) -> bool:
        """Whether it accepts connections."""
        process = self._postmaster.find()
        if process is None:
            return False
        try:
            return self._postmaster.is_ready(process)
        finally:
            process.close()

    def pid(self) -> int | None:
        """The postmaster's, whatever state it is in."""
        process = self._postmaster.find()
        if process is None:
            return None
        process.close()
        return process.pid

    async def _launch(self, options: Sequence[str] = ()) -> Process:
        if not self.has_data:
            raise EngineError(f"{self.resource_id} has no data directory")
        self.control.require()
        self.make_directories()
        return await self._postmaster.start(self.installation, options)

    async def _start_again(self) -> Process:
        async with self._lock:
            return await self._launch()

    # ----------------------------------------------------------------------------------------------------- connections

    def conninfo(self, dbname: str = "postgres", **parameters: Any) -> str:
        """For libpq, as the internal superuser: also for ``primary_conninfo`` and ``CREATE SUBSCRIPTION``. It names the
        passfile, never the password."""
        return make_conninfo(
            host=str(self.socket_dir),
            port=PORT,
            user=config.ADMIN_ROLE,
            passfile=str(self.passfile),
            dbname=dbname,
            **parameters,
        )

    async def connect(self, dbname: str = "postgres", *, autocommit: bool = True, **parameters: Any) -> AsyncConnection:
        """A session of the internal superuser. ``parameters`` are libpq's; ``options`` of one's own take the place of
        those that protect it. Raises ``EngineError``."""
        hardened = {"application_name": own_sessions.APPLICATION_NAME, "options": own_sessions.options(self.version)}
        parameters = hardened | parameters
        self.control.require()
        try:
            return await psycopg.AsyncConnection.connect(self.conninfo(dbname, **parameters), autocommit=autocommit)
        except psycopg.OperationalError as error:
            raise EngineError(f"cannot connect to {self.resource_id}: {error}") from error

    async def run(
        self,
        program: str,
        *arguments: str,
        timeout_s: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
        installation: Installation | None = None,
        gently: bool = False,
    ) -> Completed:
        """Run a program of the installation under the engine account, with the passfile at hand. ``gently``: it, and
        what it starts, comes after everybody else for processors and disks.

        See :func:`verdigris.engines.process.run_program` for limits, cancellation and errors.
        """
        self.control.require()
        installation = installation or self.installation
        environment = {"PGPASSFILE": str(self.passfile), **(env or {})}
        return await run_program(
            [installation.program(program), *arguments],
            account=self.account,
            env=self.account.environment(environment),
            cwd=cwd or self.directory,
            timeout_s=timeout_s,
            check=check,
            gently=gently,
        )
