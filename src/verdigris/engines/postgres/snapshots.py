"""Snapshots on real servers: the ``Snapshots`` of the domain.

One is a directory of its own (``snapshots/<snapshot id>``) with the output of ``pg_basebackup``: all files of the
server, the WAL that makes them consistent, and a manifest with a checksum of each, which ``pg_verifybackup`` compares
before the snapshot counts and again before a server made of it does. Nothing in it is ever changed.

Its moment is the end of the base backup: what had been committed by then is in it, and nothing that came later.
"""

import asyncio
import shutil
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct
from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import Restoration
from verdigris.domain.undoing import to_its_end
from verdigris.engines.account import sync_directory
from verdigris.engines.disk import require_room, tree_bytes, while_there_is_room
from verdigris.engines.installations import Installation
from verdigris.engines.postgres import dismantling, fence, publisher, subscriber, wal_limit
from verdigris.engines.postgres.names import PREFIX, ObjectNames
from verdigris.engines.postgres.server import PostgresServer, ServerRecord
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import Database, for_each, list_databases, session
from verdigris.engines.postgres.strays import end_programs, end_strays
from verdigris.engines.process import run_program

log = structlog.get_logger(__name__)

_MANIFEST = "backup_manifest"
_TABLESPACES = "SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')"
# What a member of a deployment has of it in each of its databases. Of read replicas there is nothing in any.
_OF_DEPLOYMENTS = sql.SQL("""
    SELECT nspname FROM pg_namespace WHERE starts_with(nspname, {0})
    UNION SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
           WHERE d.datname = current_database() AND starts_with(subname, {0})
""").format(sql.Literal(f"{PREFIX}bgd_"))


class SnapshotRecord(Struct, frozen=True, kw_only=True):
    """``snapshot.json``: what a server made of it needs, besides what the data says."""

    engine_version: str  # that has written the data
    extensions: tuple[str, ...]
    master_username: str
    db_name: str | None = None


class PostgresSnapshots:
    def __init__(self, servers: PostgresServers, *, copy_rate_mib: int | None = None) -> None:
        """``copy_rate_mib``: what a copy may take of the source in a second, at most; None: whatever it can."""
        self._servers = servers
        self._copy_rate_mib = copy_rate_mib

    # -- taking one

    async def take(self, snapshot_id: str, resource_id: str) -> int:
        source = self._servers.server(resource_id)
        await self.discard(snapshot_id, resource_id)
        async with session(source) as connection:
            if await connection.value(_TABLESPACES):
                raise EngineError("tablespaces cannot be copied on one machine: move their tables to pg_default")
        directory = self._servers.layout.snapshot(snapshot_id)
        require_room(directory.parent, await asyncio.to_thread(tree_bytes, source.data_dir))
        try:
            await self._enrol(directory, source)
            await while_there_is_room(directory, self._back_up(directory, source, ObjectNames(snapshot_id)))
        except BaseException:
            await to_its_end(_delete(directory))
            raise
        await dismantling.release_slot(source, ObjectNames(snapshot_id))
        log.info("snapshot.taken", snapshot=snapshot_id, source=resource_id)
        return await asyncio.to_thread(tree_bytes, directory)

    async def _enrol(self, directory: Path, source: PostgresServer) -> None:
        account, record = self._servers.account, source.record
        extensions = await self._servers.extensions_in_use(source)
        account.make_directory(directory)
        # Its data has the password of the internal user.
        account.write_file(directory / "passfile", account.read_file(source.passfile))
        _save(
            source,
            directory,
            SnapshotRecord(
                engine_version=str(source.version),
                extensions=tuple(sorted(extensions)),
                master_username=record.master_username,
                db_name=record.db_name,
            ),
        )

    async def _back_up(self, directory: Path, source: PostgresServer, names: ObjectNames) -> None:
        """The slot is there before the copy begins, for the reason that ``standby.base_backup`` gives.

        Whoever limits the rate wants production spared, so then the checkpoint may take its time, too. Otherwise the
        copy is the greater load by far, and nobody is served by waiting for it.
        """
        rate_mib = self._copy_rate_mib
        await wal_limit.impose(source, names.deployment_id)
        async with session(source) as connection:
            await connection.run("SELECT pg_create_physical_replication_slot(%s, true)", names.physical_slot)
        partial = directory / "data.partial"
        await source.run(
            "pg_basebackup",
            "--pgdata", str(partial),
            "--dbname", source.conninfo(application_name="verdigris"),
            "--checkpoint=fast" if rate_mib is None else "--checkpoint=spread",
            "--wal-method=stream",
            "--slot", names.physical_slot,
            *([] if rate_mib is None else [f"--max-rate={rate_mib}M"]),
            cwd=directory,
            gently=True,
        )  # fmt: skip
        await source.run("pg_verifybackup", "--quiet", str(partial), cwd=directory, gently=True)
        with source.control.effect():
            partial.rename(directory / "data")
            sync_directory(directory)
            sync_directory(directory.parent)

    async def discard(self, snapshot_id: str, resource_id: str) -> None:
        """The files first: they may be what fills the source's disk, and then it does not even let us in."""
        await self.remove(snapshot_id)
        source = self._known(resource_id)
        if source is not None:
            await dismantling.release_slot(source, ObjectNames(snapshot_id))

    async def protect_source(self, snapshot_id: str, resource_id: str) -> None:
        source = self._known(resource_id)
        if source is not None and source.is_running() and not fence.is_raised(source):
            await wal_limit.follow(source, ObjectNames(snapshot_id))

    # -- one that there is

    async def copy(self, snapshot_id: str, source_id: str) -> None:
        """By hard links: nothing is changed in either, and a file is gone when both are."""
        await self.remove(snapshot_id)
        source, directory = map(self._servers.layout.snapshot, (source_id, snapshot_id))
        account, partial = self._servers.account, directory / "data.partial"
        _read_record(source)
        try:
            account.make_directory(directory)
            for name in ("passfile", "snapshot.json"):
                account.write_file(directory / name, account.read_file(source / name))
            await self._cp(source / "data", partial, "--link", cwd=directory)
            await asyncio.to_thread(_sync_directories, partial)
            with self._servers.control.effect():
                partial.rename(directory / "data")
                sync_directory(directory)
                sync_directory(directory.parent)
        except BaseException:
            await to_its_end(_delete(directory))
            raise
        log.info("snapshot.copied", snapshot=snapshot_id, source=source_id)

    async def remove(self, snapshot_id: str) -> None:
        self._servers.control.require()
        directory = self._servers.layout.snapshot(snapshot_id)
        await end_programs(directory, self._servers.account, self._servers.control)
        await _delete(directory)

    # -- a server of one

    async def restore(self, restoration: Restoration) -> None:
        target = self._known(restoration.resource_id)
        if target is not None and target.record.created:
            await self._servers.start(restoration.resource_id)
            return
        if target is not None:
            await end_strays(target)
        await self._servers.remove(restoration.resource_id)
        directory = self._servers.layout.snapshot(restoration.snapshot_id)
        record = _read_record(directory)
        installation = await self._servers.catalogue.installation(
            restoration.engine_version, extensions=frozenset(record.extensions)
        )
        require_room(self._servers.layout.instances, await asyncio.to_thread(tree_bytes, directory))
        try:
            target = self._shell(restoration, record, installation, directory)
            await while_there_is_room(target.directory, self._fill(target, directory / "data"))
            await self._set_free(target)
            await self._servers.start(restoration.resource_id)
            target.save(created=True)
        except BaseException:
            await to_its_end(self._servers.remove(restoration.resource_id))
            raise
        log.info("snapshot.restored", snapshot=restoration.snapshot_id, resource_id=restoration.resource_id)

    def _shell(
        self, restoration: Restoration, record: SnapshotRecord, installation: Installation, directory: Path
    ) -> PostgresServer:
        return self._servers.shell(
            restoration.resource_id,
            ServerRecord(
                installation=installation,
                instance_class=restoration.instance_class,
                master_username=record.master_username,
                db_name=record.db_name,
                parameters=restoration.parameters,
            ),
            passfile=self._servers.account.read_file(directory / "passfile"),
        )

    async def _fill(self, target: PostgresServer, data: Path) -> None:
        """The copy is compared with the manifest, and so is the snapshot. PostgreSQL makes it durable: it begins its
        recovery with that."""
        partial = target.data_dir.with_name("data.partial")
        await self._cp(data, partial, "--reflink=auto", cwd=target.directory)
        await target.run("pg_verifybackup", "--quiet", str(partial), gently=True)
        with target.control.effect():
            for name in (_MANIFEST, "standby.signal"):
                (partial / name).unlink(missing_ok=True)
        target.write_settings({}, partial)  # not those that its source had as a member of something
        target.configure(partial)
        with target.control.effect():
            partial.rename(target.data_dir)

    async def _set_free(self, target: PostgresServer) -> None:
        """What a deployment has put on the source is on its copy too. A subscription among it must not begin to work:
        it would take from the slot what the source has yet to get."""
        await target.start(supervise=False, options=("-c", "max_logical_replication_workers=0"))

        async def one(database: Database) -> set[str]:
            async with session(target, database.name) as connection:
                return {str(name) for (name,) in await connection.rows(_OF_DEPLOYMENTS)}

        found = set().union(*(await for_each(await list_databases(target), one)).values())
        for base in sorted(found):
            names = ObjectNames(base.removeprefix(PREFIX))
            await subscriber.unsubscribe(target, names)
            await publisher.unpublish(target, names)
        await target.stop()

    # -- helpers

    async def _cp(self, source: Path, target: Path, how: str, *, cwd: Path) -> None:
        self._servers.control.require()
        account = self._servers.account
        await run_program(
            ["cp", "--archive", how, str(source), str(target)],
            account=account,
            env=account.environment(),
            cwd=cwd,
            gently=True,
        )

    def _known(self, resource_id: str) -> PostgresServer | None:
        try:
            return self._servers.server(resource_id)
        except EngineError:
            return None


def _save(source: PostgresServer, directory: Path, record: SnapshotRecord) -> None:
    with source.control.effect():
        source.account.write_file(directory / "snapshot.json", msgspec.json.format(msgspec.json.encode(record)))


def _read_record(directory: Path) -> SnapshotRecord:
    """Raises ``EngineError`` if there is no complete snapshot."""
    if not (directory / "data").is_dir():
        raise EngineError(f"{directory} is not a complete snapshot")
    try:
        return msgspec.json.decode((directory / "snapshot.json").read_bytes(), type=SnapshotRecord)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise EngineError(f"{directory / 'snapshot.json'} cannot be read: {error}") from error


def _sync_directories(root: Path) -> None:
    for path in (root, *(path for path in root.rglob("*") if path.is_dir())):
        sync_directory(path)


async def _delete(directory: Path) -> None:
    if directory.exists():
        await asyncio.to_thread(shutil.rmtree, directory)
        sync_directory(directory.parent)
