"""One at a time: whoever carries, switches over, or takes a deployment apart."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from verdigris.engines.postgres.carrying import ddl, identity, large_objects, materialized_views, roles
from verdigris.engines.postgres.carrying.sequences import carry_positions
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import (
    MAINTENANCE_DATABASE,
    Database,
    Session,
    for_each,
    list_databases,
    sessions,
)

# What is defined differently on both sides, by deployment and database.
Seen = dict[tuple[str, str], ddl.Seen | None]

log = structlog.get_logger(__name__)

# Of the processor of the source, for looking at large objects: a look of one second is followed by twenty without.
_LOOKS_SHARE = 0.05
_LOOKS_EVERY_S = 10.0


class Tending:
    """Carries beforehand, for logical mode. One object for everybody who does something to a pair."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reserved: set[str] = set()
        self._over: set[str] = set()
        self._unlike: Seen = {}
        # Large objects and materialised views take as long as they take: they are carried beside the rounds.
        self._copying: dict[str, asyncio.Task[None]] = {}
        self._copy_due_at: dict[str, float] = {}  # event loop time

    async def tend(self, source: PostgresServer, target: PostgresServer, names: ObjectNames) -> list[str]:
        """One round while green waits; what its owner should know, a sentence each. Nothing while a switchover has it
        ``reserved``."""
        async with self._locks[names.base]:
            if self.is_over(names) or names.base in self._reserved or not (source.is_running() and target.is_running()):
                return []
            told = await carry_beforehand(source, target, names, self._unlike)
            self._carry_what_takes_long(source, target, names)
            return told

    async def reserve(self, names: ObjectNames) -> None:
        """For a switchover, until ``release``: waits for the round that is going on, and there are no more."""
        async with self.interrupted(names):
            self._reserved.add(names.base)

    def release(self, names: ObjectNames) -> None:
        self._reserved.discard(names.base)

    def begin(self, names: ObjectNames) -> None:
        """Of a green that is being made: once it has been, there are rounds."""
        self._over.discard(names.base)

    def end(self, names: ObjectNames) -> None:
        """Called by whoever has ``interrupted``, for good: a round that waits meanwhile finds nothing to do."""
        self._over.add(names.base)

    def is_over(self, names: ObjectNames) -> bool:
        return names.base in self._over

    @asynccontextmanager
    async def interrupted(self, names: ObjectNames) -> AsyncIterator[None]:
        """For the length of the block there is no round: what it takes away is not put back behind its back."""
        async with self._locks[names.base]:
            copying = self._copying.pop(names.base, None)
            if copying is not None:
                copying.cancel()
                await asyncio.wait({copying})
            yield

    def _carry_what_takes_long(self, source: PostgresServer, target: PostgresServer, names: ObjectNames) -> None:
        """Begin to, unless it is going on or too early. Raises what the last time came to grief of."""
        now = asyncio.get_running_loop().time()
        copying = self._copying.get(names.base)
        if copying is not None:
            if not copying.done():
                return
            del self._copying[names.base]
            copying.result()
        if now >= self._copy_due_at.get(names.base, now):
            self._copying[names.base] = asyncio.create_task(self._copy(source, target, names))

    async def _copy(self, source: PostgresServer, target: PostgresServer, names: ObjectNames) -> None:
        looks_s = 0.0
        try:
            looks_s = await carry_large_objects(source, target, names)
            await carry_materialized_views(source, target, names)
        finally:
            pause_s = max(_LOOKS_EVERY_S, looks_s / _LOOKS_SHARE)
            self._copy_due_at[names.base] = asyncio.get_running_loop().time() + pause_s


async def carry_beforehand(
    source: PostgresServer, target: PostgresServer, names: ObjectNames, unlike: Seen | None = None
) -> list[str]:
    """Everything that is carried in a moment, in the order in which one thing needs another: roles come before what
    they own. Returns what the operator should know. ``unlike``: what earlier calls have compared in vain."""
    unlike = {} if unlike is None else unlike

    async def one(database: Database) -> list[str]:
        async with sessions(source, target, database.name) as (ours, theirs):
            key = names.base, database.name
            unlike[key] = await ddl.settle(ours, theirs, names, unlike.get(key))
            return await identity.tend(ours, names, target_major=target.version.major)

    async with sessions(source, target, MAINTENANCE_DATABASE) as (ours, theirs):
        told = await roles.carry(ours, theirs, names, master=target.record.master_username)
    for said in (await for_each(await _shared_databases(source, target), one)).values():
        told += said
    return told


async def carry_large_objects(source: PostgresServer, target: PostgresServer, names: ObjectNames) -> float:
    """However long it takes; one database after the other. Returns the seconds that blue was looked at for it."""
    looks_s = 0.0
    for database in await _shared_databases(source, target):
        async with sessions(source, target, database.name) as (ours, theirs):
            looks_s += await large_objects.carry(ours, theirs, names)
    return looks_s


async def carry_materialized_views(source: PostgresServer, target: PostgresServer, names: ObjectNames) -> None:
    """However long it takes; one database after the other."""
    for database in await _shared_databases(source, target):
        async with sessions(source, target, database.name) as (ours, theirs):
            await materialized_views.carry(ours, theirs, names)


async def carry_before_pause(source: PostgresServer, target: PostgresServer, names: ObjectNames) -> None:
    """All of it once more, and what is only worth its while before a switchover: positions of sequences, which move all
    the time."""

    async def one(database: Database) -> int:
        async with sessions(source, target, database.name) as (ours, theirs):
            return await carry_positions(ours, theirs)

    await carry_beforehand(source, target, names)
    await carry_large_objects(source, target, names)
    await carry_materialized_views(source, target, names)
    moved = await for_each(await _shared_databases(source, target), one)
    log.info("target.prepared", deployment=names.base, sequences=sum(moved.values()))


async def carry_the_rest(source: Session, target: Session, names: ObjectNames, *, shared: bool, master: str) -> None:
    """Behind the fence, in one database: the last word. ``shared``: with what belongs to no database in particular.
    Raises ``StepFailed`` for what cannot be carried in a pause."""
    if shared:
        await roles.carry_finally(source, target, names, master=master)
    await carry_positions(source, target)
    await large_objects.carry_finally(source, target, names)


async def _shared_databases(source: PostgresServer, target: PostgresServer) -> list[Database]:
    on_target = {database.name for database in await list_databases(target)}
    return [database for database in await list_databases(source) if database.name in on_target]
