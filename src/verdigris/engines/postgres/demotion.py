"""A cluster's writer and one of its readers change places, without a copy: the ``WriterChanges`` of the domain.

A server that ends cleanly sends all its WAL to whoever streams from it, its last checkpoint included. A standby that
has replayed that record has everything, and its new timeline begins where the old one ends or later; so the old writer
can follow it with the data directory that it has. That it has ended cleanly proves nothing by itself: the checkpoint is
made first, and sent then.

``standby.signal`` decides who can be written to, and PostgreSQL itself heeds it: it is in the old writer's directory
before anybody looks whether the reader has everything, and nobody is promoted while it is not.
"""

import asyncio
import contextlib

import structlog

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import WriterChange
from verdigris.engines.postgres import dismantling, marker, standby, wal_limit
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import session

log = structlog.get_logger(__name__)

# A standby that is frozen would keep its primary from ending for as long as wal_sender_timeout.
_END_LIMIT_S = 30.0
# It is sent before the writer ends, so what is left is to replay it. Readers may hold up replay, for instance by a long
# query that conflicts with it, and nobody can write meanwhile.
_ARRIVAL_LIMIT_S = 30.0

_STATE, _CHECKPOINT = "Database cluster state", "Latest checkpoint location"
_ENDED_CLEANLY = "shut down"

_CREATE_SLOT = """
    SELECT pg_create_physical_replication_slot(%s, true)
     WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s)
"""


class PostgresWriterChanges:
    def __init__(
        self, servers: PostgresServers, *, end_limit_s: float = _END_LIMIT_S, arrival_limit_s: float = _ARRIVAL_LIMIT_S
    ) -> None:
        self._servers = servers
        self._end_limit_s = end_limit_s
        self._arrival_limit_s = arrival_limit_s

    async def prepare(self, change: WriterChange) -> None:
        writer, reader = self._pair(change)
        for follower in change.followers:
            slot = ObjectNames(follower).physical_slot
            await wal_limit.impose(reader, follower)
            async with session(reader) as connection:
                await connection.run(_CREATE_SLOT, slot, slot)
        if writer.is_running():
            await marker.prove_replicas(writer, [reader])

    async def demote(self, change: WriterChange) -> None:
        writer, reader = self._pair(change)
        if not _is_standby(writer):
            await self._end_cleanly(writer, reader)
            # From here on it cannot be written to, whoever starts it.
            await standby.follow(reader, writer, ObjectNames(change.writer).physical_slot)
        await self._arrived(reader, (await _control(writer))[_CHECKPOINT])
        log.info("writer.demoted", writer=change.writer, reader=change.reader)

    async def _end_cleanly(self, writer: PostgresServer, reader: PostgresServer) -> None:
        """One that has died is brought up once more: its next start finishes what it had begun. It waits at its end for
        those that stream from it, but not for those that are about to."""
        if writer.pid() is not None or (await _control(writer))[_STATE] != _ENDED_CLEANLY:
            await writer.start(supervise=False)
            try:
                async with asyncio.timeout(self._arrival_limit_s):
                    await marker.prove_replicas(writer, [reader])
            except TimeoutError:
                raise EngineError(f"{reader.resource_id} does not follow {writer.resource_id}") from None
        await writer.stop(timeout_s=self._end_limit_s)
        state = (await _control(writer))[_STATE]
        if state != _ENDED_CLEANLY:
            raise EngineError(
                f"{writer.resource_id} did not end within {self._end_limit_s:g} s, so that it had to be ended by"
                f" force ({state}): is one of its standbys frozen?"
            )

    async def _arrived(self, reader: PostgresServer, checkpoint: str) -> None:
        try:
            async with asyncio.timeout(self._arrival_limit_s):
                await standby.wait_for_replay(reader, _beyond(checkpoint))
        except TimeoutError:
            raise EngineError(
                f"{reader.resource_id} has not replayed the writer's last checkpoint, at {checkpoint}, within"
                f" {self._arrival_limit_s:g} s"
            ) from None

    async def promote(self, change: WriterChange) -> None:
        writer, reader = self._pair(change)
        if not _is_standby(writer):
            raise EngineError(f"{writer.resource_id} can be written to: {reader.resource_id} is not promoted beside it")
        await self._servers.start(change.reader)
        async with session(reader) as connection:
            is_standby = await connection.value("SELECT pg_is_in_recovery()")
        if is_standby:
            await self._arrived(reader, (await _control(writer))[_CHECKPOINT])
        await standby.promote(reader)
        standby.stop_following(reader)
        reader.reload()
        log.info("reader.promoted", writer=change.writer, reader=change.reader)

    async def follow(self, change: WriterChange) -> None:
        writer, reader = self._pair(change)
        for follower in change.followers:
            target = self._servers.server(follower)
            if target.has_data:
                await standby.follow(reader, target, ObjectNames(follower).physical_slot)
                with contextlib.suppress(EngineError):  # it does not run, and reads the file when it does
                    target.reload()
        await self._servers.start(change.writer)
        for former in (change.reader, *change.others):
            await dismantling.release_slot(writer, ObjectNames(former))

    async def restore(self, change: WriterChange) -> None:
        writer, reader = self._pair(change)
        if _is_standby(writer):
            # A promotion that has been asked for may be under way. PostgreSQL takes the signal away before it lets
            # anybody write, so one that has ended with it has not been written to, and comes back as a standby.
            await reader.stop()
            promoted = not _is_standby(reader)
            if not promoted:
                await writer.stop()
                standby.stop_following(writer)
            await self._servers.start(change.reader)
            if promoted:
                raise EngineError(f"{reader.resource_id} has been promoted")
        await self._servers.start(change.writer)
        for follower in change.followers:
            await dismantling.release_slot(reader, ObjectNames(follower))
        log.info("writer.restored", writer=change.writer, reader=change.reader)

    def _pair(self, change: WriterChange) -> tuple[PostgresServer, PostgresServer]:
        return self._servers.server(change.writer), self._servers.server(change.reader)


def _is_standby(server: PostgresServer) -> bool:
    """Or will be, if it is started."""
    return (server.data_dir / "standby.signal").exists()


async def _control(server: PostgresServer) -> dict[str, str]:
    """What ``pg_control`` says."""
    completed = await server.run("pg_controldata", str(server.data_dir))
    lines = (line.split(":", 1) for line in completed.stdout.splitlines() if ":" in line)
    return {name: value.strip() for name, value in lines}


def _beyond(lsn: str) -> str:
    """The position after that of the first byte of a record: whoever has replayed up to there has replayed it all."""
    high, low = (int(part, 16) for part in lsn.split("/"))
    position = (high << 32) + low + 1
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
