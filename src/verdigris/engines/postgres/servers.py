"""Every PostgreSQL server of a state directory: the ``DatabaseServers`` of the domain."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import structlog

from verdigris.domain.errors import ControllerSuperseded, EngineError
from verdigris.domain.parameters import ApplyStatus, ParameterInfo
from verdigris.domain.ports import BackendAddress, EngineVersionInfo, LogFile, ServerSpec
from verdigris.domain.undoing import to_its_end
from verdigris.domain.versions import PostgresVersion
from verdigris.engines.account import EngineAccount
from verdigris.engines.catalogue import ENGINE, Catalogue
from verdigris.engines.control import Control
from verdigris.engines.installations import Installation
from verdigris.engines.layout import Layout
from verdigris.engines.postgres import dismantling, server_logs
from verdigris.engines.postgres.config import NO_PARAMETERS
from verdigris.engines.postgres.parameter_change import change_parameters
from verdigris.engines.postgres.parameters import describe
from verdigris.engines.postgres.password import scram_verifier
from verdigris.engines.postgres.roles import (
    connectable_databases,
    ensure_token_role,
    extensions_in_use,
    read_verifiers,
    set_password,
    set_up_roles,
)
from verdigris.engines.postgres.server import AsyncConnection, PostgresServer, ServerRecord, ignore_condition
from verdigris.engines.postgres.strays import end_strays
from verdigris.engines.supervisor import ConditionCallback, RestartPolicy, ServerCondition

log = structlog.get_logger(__name__)

_RELOAD_POLL_S = 0.01


class PostgresServers:
    """One object for each state directory, and through ``server`` one for each server.

    ``report`` is told, in the event loop, when a server comes up, dies, or dies too often to be tried again. With an
    ``epoch``, everything that changes a server raises ``ControllerSuperseded`` once a later one has taken over.
    """

    def __init__(
        self,
        home: Path,
        catalogue: Catalogue,
        account: EngineAccount,
        *,
        policy: RestartPolicy | None = None,
        report: ConditionCallback = ignore_condition,
        epoch: int | None = None,
    ) -> None:
        self.catalogue = catalogue
        self.account = account
        self.layout = Layout(home)
        self.layout.prepare(account)
        self.control = Control(self.layout.home, epoch)
        self._policy = policy
        self._report = report
        self._servers: dict[str, PostgresServer] = {}
        self._parameters: dict[str, tuple[ParameterInfo, ...]] = {}  # by family
        self._cleaning: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------------- catalogue

    def versions(self) -> list[EngineVersionInfo]:
        return self.catalogue.versions()

    def conceal_password(self, password: str) -> str:
        return scram_verifier(password)

    # --------------------------------------------------------------------------------------------------------- servers

    def known(self) -> list[str]:
        return self.layout.resource_ids()

    def server(self, resource_id: str) -> PostgresServer:
        """The server of a directory, always the same object. Raises ``EngineError`` if there is none."""
        if resource_id not in self._servers:
            record = PostgresServer.read_record(self.layout.directory(resource_id))
            if record is None:
                raise EngineError(f"there is no server {resource_id} in {self.layout.home}")
            self._servers[resource_id] = self._object(resource_id, record)
        return self._servers[resource_id]

    def address(self, resource_id: str) -> BackendAddress:
        return self.server(resource_id).address

    async def create(self, spec: ServerSpec) -> None:
        """A server with its roles and databases, running. What a failed or cancelled attempt made is removed."""
        server = await self._enrolled(spec)
        if server.record.created:
            await self.start(spec.resource_id)
            return
        try:
            await server.initdb()
            await server.start()
            async with self._session(server) as connection:
                await set_up_roles(
                    connection,
                    server.version,
                    master=spec.master_username,
                    verifier=spec.master_password_verifier,
                    db_name=spec.db_name,
                )
            server.save(created=True)
        except BaseException:
            await to_its_end(self.remove(spec.resource_id))
            raise
        log.info("server.created", resource_id=spec.resource_id, version=str(server.version))

    async def clone_shell(
        self,
        resource_id: str,
        *,
        like: PostgresServer,
        installation: Installation,
        instance_class: str,
        parameters: Mapping[str, str] = NO_PARAMETERS,
    ) -> PostgresServer:
        """A server directory without data, for a physical copy of ``like`` to be put into: same master user, same
        internal password (the copy has it). It does nothing if it is there, except that it takes the rest from
        the arguments."""
        record = ServerRecord(
            installation=installation,
            instance_class=instance_class,
            master_username=like.record.master_username,
            db_name=like.record.db_name,
            parameters=dict(parameters),
            token_logins=like.record.token_logins,
            created=True,
        )
        return self.shell(resource_id, record, passfile=self.account.read_file(like.passfile))

    def shell(self, resource_id: str, record: ServerRecord, *, passfile: str) -> PostgresServer:
        """As ``clone_shell``, for data whose internal password is in ``passfile``."""
        self.control.require()
        if PostgresServer.read_record(self.layout.directory(resource_id)) is None:
            self._servers[resource_id] = self._object(resource_id, record)
        server = self.server(resource_id) if resource_id not in self._servers else self._servers[resource_id]
        server.account.make_directory(server.directory)
        self.account.write_file(server.passfile, passfile)
        server.make_directories()
        server.save(
            installation=record.installation,
            instance_class=record.instance_class,
            parameters=record.parameters,
        )
        return server

    async def start(self, resource_id: str) -> None:
        server = self.server(resource_id)
        if server.pid() is None:
            await self._refresh_installation(server)
        try:
            await server.start()
        except EngineError:
            server.try_again()
            raise

    async def stop(self, resource_id: str) -> None:
        await self.server(resource_id).stop()

    async def restart(self, resource_id: str) -> None:
        server = self.server(resource_id)
        await self._refresh_installation(server)
        await server.restart()

    async def is_running(self, resource_id: str) -> bool:
        try:
            return self.server(resource_id).is_running()
        except EngineError:
            return False

    async def remove(self, resource_id: str) -> None:
        """Also of what an interrupted creation or removal left."""
        self.control.require()
        try:
            server = self.server(resource_id)
        except EngineError:
            # Without a record nothing of it was ever started: the record is written first and deleted last.
            for path in (self.layout.socket_dir(resource_id), self.layout.directory(resource_id)):
                if path.exists():
                    await asyncio.to_thread(shutil.rmtree, path)
        else:
            await end_strays(server)
            await server.remove()
        self._servers.pop(resource_id, None)
        log.info("server.removed", resource_id=resource_id)

    async def detach(self) -> None:
        """Stop minding the servers; they run on."""
        for task in self._cleaning:
            task.cancel()
        await asyncio.gather(*self._cleaning, return_exceptions=True)
        for server in self._servers.values():
            await server.detach()

    # --------------------------------------------------------------------------------------------------------- changes

    def log_files(self, resource_id: str) -> list[LogFile]:
        return server_logs.log_files(self.server(resource_id))

    def read_log_file(self, resource_id: str, name: str, *, offset: int, limit_bytes: int) -> bytes:
        return server_logs.read(self.server(resource_id), name, offset=offset, limit_bytes=limit_bytes)

    async def login_verifiers(self, resource_id: str, usernames: Collection[str]) -> Mapping[str, str]:
        if not usernames:
            return {}
        async with self._session(self.server(resource_id)) as connection:
            return await read_verifiers(connection, usernames)

    async def set_master_password(self, resource_id: str, username: str, verifier: str) -> None:
        async with self._session(self.server(resource_id)) as connection:
            await set_password(connection, username, verifier)

    async def set_token_logins(self, resource_id: str, enabled: bool) -> None:
        server = self.server(resource_id)
        async with self._session(server) as connection:
            if enabled and not (server.data_dir / "standby.signal").exists():  # a standby has its source's roles
                await ensure_token_role(connection, server.version, server.record.master_username)
            before = await _configured_at(connection)
            server.set_token_logins(enabled)
            server.reload()
            # The postmaster tells its children, reads pg_hba.conf, and only then goes on to take newcomers.
            while await _configured_at(connection) == before:  # noqa: ASYNC110  another process says so
                await asyncio.sleep(_RELOAD_POLL_S)

    async def set_instance_class(self, resource_id: str, instance_class: str) -> None:
        self.server(resource_id).set_class(instance_class)

    async def set_parameters(
        self, resource_id: str, parameters: Mapping[str, str], *, deferred: Collection[str] = ()
    ) -> ApplyStatus:
        return await change_parameters(self.server(resource_id), parameters, deferred=deferred)

    async def parameters(self, family: str) -> Sequence[ParameterInfo]:
        if family not in self._parameters:
            major = int(family.removeprefix(ENGINE))
            found = [i for i in self.versions() if PostgresVersion.parse(i.version).major == major]
            # What is installed speaks for the family; else the newest, which is fetched.
            best = max(found, key=lambda i: (i.installed, PostgresVersion.parse(i.version)), default=None)
            if best is None:
                raise EngineError(f"there is no server of the family {family}")
            installation = await self.catalogue.installation(best.version)
            self._parameters[family] = await describe(installation, self.account)
        return self._parameters[family]

    async def change_minor_version(self, resource_id: str, engine_version: str) -> None:
        """If the server does not come up with it, it is put back to what it ran before, and the reason raised."""
        server = self.server(resource_id)
        if PostgresVersion.parse(engine_version).major != server.version.major:
            raise EngineError(f"from {server.version} to {engine_version} is not a change of the minor version")
        if server.version == PostgresVersion.parse(engine_version):
            await server.start()
            return
        before = server.installation
        extensions = await self.extensions_in_use(server) if server.is_running() else frozenset()
        installation = await self.catalogue.installation(engine_version, extensions=extensions)
        try:
            await server.stop()
            server.use_installation(installation)
            await server.start()
        except BaseException:
            await to_its_end(self._return_to(server, before))
            raise

    async def extensions_in_use(self, server: PostgresServer) -> frozenset[str]:
        """In any database of a running server."""
        async with self._session(server) as connection:
            databases = await connectable_databases(connection)
        extensions: frozenset[str] = frozenset()
        for database in databases:
            async with self._session(server, database) as connection:
                extensions |= await extensions_in_use(connection)
        return extensions

    # --------------------------------------------------------------------------------------------------------- helpers

    def _object(self, resource_id: str, record: ServerRecord) -> PostgresServer:
        return PostgresServer(
            resource_id,
            self.layout,
            self.account,
            record,
            policy=self._policy,
            report=self._on_condition,
            control=self.control,
        )

    def _on_condition(self, resource_id: str, condition: ServerCondition, detail: str) -> None:
        self._report(resource_id, condition, detail)
        server = self._servers.get(resource_id)
        if condition is ServerCondition.RUNNING and server is not None and server.record.to_clean:
            task = asyncio.create_task(self._clean_up(server))
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)

    async def _clean_up(self, server: PostgresServer) -> None:
        try:
            await dismantling.clean_up(server)
        except (EngineError, ControllerSuperseded) as error:
            log.warning("server.not_cleaned", resource_id=server.resource_id, reason=str(error))

    async def _enrolled(self, spec: ServerSpec) -> PostgresServer:
        """The server's directory with its record: the first thing made, the last deleted."""
        self.control.require()
        if PostgresServer.read_record(self.layout.directory(spec.resource_id)) is not None:
            return self.server(spec.resource_id)
        installation = await self.catalogue.installation(spec.engine_version)
        record = ServerRecord(
            installation=installation,
            instance_class=spec.instance_class,
            master_username=spec.master_username,
            db_name=spec.db_name,
            parameters=dict(spec.parameters),
        )
        server = self._servers[spec.resource_id] = self._object(spec.resource_id, record)
        try:
            server.make_directories()
            server.save()
        except BaseException:
            await to_its_end(self.remove(spec.resource_id))
            raise
        return server

    @asynccontextmanager
    async def _session(self, server: PostgresServer, dbname: str = "postgres") -> AsyncIterator[AsyncConnection]:
        connection = await server.connect(dbname)
        try:
            async with connection:
                yield connection
        except psycopg.Error as error:
            raise EngineError(f"{server.resource_id}: {error}") from error

    async def _refresh_installation(self, server: PostgresServer) -> None:
        """The operator's package manager may have replaced the binaries; better to know than to guess."""
        current = await asyncio.to_thread(self.catalogue.refreshed, server.installation)
        if current != server.installation:
            log.warning(
                "server.installation_changed",
                resource_id=server.resource_id,
                before=server.installation.version,
                now=current.version,
                bin_dir=current.bin_dir,
            )
            server.use_installation(current)

    async def _return_to(self, server: PostgresServer, installation: Installation) -> None:
        await server.stop()
        server.use_installation(installation)
        await server.start()


async def _configured_at(connection: AsyncConnection) -> object:
    return await (await connection.execute("SELECT pg_catalog.pg_conf_load_time()")).fetchone()
