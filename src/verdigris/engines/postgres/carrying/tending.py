"""One at a time: whoever carries, switches over, or takes a deployment apart."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from verdigris.engines.postgres.carrying import ddl
from verdigris.engines.postgres.carrying.passwords import carry_passwords
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


class Tending:
    """Carries beforehand, for logical mode. One object for everybody who does something to a pair."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reserved: set[str] = set()
        self._unlike: Seen = {}

    async def tend(self, source: PostgresServer, target: PostgresServer, names: ObjectNames) -> list[str]:
        """One round while green waits; what its owner should know, a sentence each. Nothing while a switchover has it
        ``reserved``."""
        async with self._locks[names.base]:
            if names.base in self._reserved or not (source.is_running() and target.is_running()):
                return []
            return await carry_beforehand(source, target, names, self._unlike)

    async def reserve(self, names: ObjectNames) -> None:
        """For a switchover, until ``release``: waits for the round that is going on, and there are no more."""
        async with self._locks[names.base]:
            self._reserved.add(names.base)

    def release(self, names: ObjectNames) -> None:
        self._reserved.discard(names.base)

    @asynccontextmanager
    async def interrupted(self, names: ObjectNames) -> AsyncIterator[None]:
        """For the length of the block there is no round: what it takes away is not put back behind its back."""
        async with self._locks[names.base]:
            yield


async def carry_beforehand(
    source: PostgresServer, target: PostgresServer, names: ObjectNames, unlike: Seen | None = None
) -> list[str]:
    """Everything there is to carry, in the order in which one thing needs another: roles come before what they own.
    Returns what the operator should know. ``unlike``: what earlier calls have compared in vain."""
    unlike = {} if unlike is None else unlike
    on_target = {database.name for database in await list_databases(target)}
    shared = [database for database in await list_databases(source) if database.name in on_target]

    async def one(database: Database) -> int:
        async with sessions(source, target, database.name) as (ours, theirs):
            key = names.base, database.name
            unlike[key] = await ddl.settle(ours, theirs, names, unlike.get(key))
            return await carry_positions(ours, theirs)

    async with sessions(source, target, MAINTENANCE_DATABASE) as (ours, theirs):
        passwords = await carry_passwords(ours, theirs)
    moved = sum((await for_each(shared, one)).values())
    if moved or passwords:
        log.info("target.tended", deployment=names.base, sequences=moved, passwords=passwords)
    return []


async def carry_the_rest(source: Session, target: Session, names: ObjectNames, *, shared: bool) -> None:
    """Behind the fence, in one database: the last word. ``shared``: with what belongs to no database in particular.
    Raises ``StepFailed`` for what cannot be carried in a pause."""
    if shared:
        await carry_passwords(source, target)
    moved = await carry_positions(source, target)
    log.debug("database.carried", deployment=names.base, database=source.info.dbname, sequences=moved)
