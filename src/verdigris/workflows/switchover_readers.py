"""The readers of a switchover: sessions on the endpoints of source's read replicas, which go along with production's.

Their parks are granted, committed and given up with the one of production. Nobody fences the servers that they leave,
which are only read; and nobody comes back to an older state, because the new ones have all that green has before the
commit.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

import structlog

from verdigris.domain.errors import ParkBroken, VerdigrisError
from verdigris.domain.model import DBInstance
from verdigris.domain.ports import Parked, Router
from verdigris.workflows.pins import look_for_pins
from verdigris.workflows.services import Services

log = structlog.get_logger(__name__)

T = TypeVar("T")

Pins = Mapping[str, Mapping[str, int]]  # by endpoint, then by reason


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    """The first failure cancels the rest, and is raised when they have ended."""
    first, *others = work
    if not others:  # most deployments have no replicas: what there is to wait for needs no task of its own
        return [await first]
    tasks = [asyncio.ensure_future(each) for each in (first, *others)]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def granted_park(router: Router, name: str) -> Parked | None:
    """The one that a control plane that died has left at an endpoint."""
    sessions = await router.sessions(name)
    if sessions.generation is None:
        return None
    return Parked(generation=sessions.generation, sessions=sessions.sessions, server_pids=(), waiting_clients=0)


class Reader:
    """One endpoint. ``name`` is the one that clients use, before and after."""

    def __init__(self, source: DBInstance, target: DBInstance, *, renamed: bool) -> None:
        self.source = source
        self.target = target
        self.name = target.identifier if renamed else source.identifier
        self.parked: Parked | None = None


class Readers:
    def __init__(self, services: Services, readers: Iterable[Reader]) -> None:
        self._services = services
        self.each = tuple(readers)
        self.late_pins: Counter[str] = Counter()

    @property
    def names(self) -> list[str]:
        return [reader.name for reader in self.each]

    @property
    def generations(self) -> tuple[int, ...]:
        return tuple(reader.parked.generation for reader in self.each if reader.parked is not None)

    def require_parks(self) -> tuple[int, ...]:
        """One for each of them."""
        generations = self.generations
        if len(generations) != len(self.each):
            raise ParkBroken("not all readers are parked")
        return generations

    async def observe(self) -> None:
        """Find the parks of a control plane that died."""
        for reader in self.each:
            reader.parked = await granted_park(self._services.router, reader.name) or reader.parked

    async def look_for_pins(self, *, budget_s: float) -> Pins:
        """Before anything is done."""
        router, servers = self._services.router, self._services.servers
        found = {}
        for reader in self.each:
            report = await look_for_pins(router, servers, reader.name, reader.source.resource_id, budget_s=budget_s)
            found[reader.name] = report.pinned
        return found

    async def ready(self) -> Pins:
        """One after the other: what they take of the processors is production's."""
        router, servers = self._services.router, self._services.servers
        found = {}
        for reader in self.each:
            target, sessions = reader.target.resource_id, await router.sessions(reader.name)
            verifiers = await servers.login_verifiers(target, sessions.usernames)
            # Without helpers: on a standby no session can have called nextval().
            report = await router.ready(reader.name, servers.address(target), verifiers)
            log.info("switchover.readers_readied", endpoint=reader.name, sessions=report.sessions)
            found[reader.name] = report.pinned
        return found

    def hold(self, parks: Iterable[Parked]) -> None:
        """All of them have been granted, in the order of the endpoints."""
        for reader, parked in zip(self.each, parks, strict=True):
            reader.parked = parked

    async def release(self) -> None:
        """Beyond the point of no return. Whoever was released already, when the lease ran out, has kept newcomers
        waiting. ``late_pins`` are those of them that were closed all the same."""

        async def one(reader: Reader) -> None:
            if reader.parked is not None:
                with contextlib.suppress(ParkBroken):  # released already
                    self.late_pins.update(await self._services.router.release(reader.parked.generation, admit=True))
                reader.parked = None
            await self._services.router.admit(reader.name)

        if self.each:
            await together(one(reader) for reader in self.each)

    async def abort(self) -> None:
        """Let everybody go on where they were. A park that has ended by itself has kept newcomers waiting."""
        for reader in self.each:
            if reader.parked is not None:
                with contextlib.suppress(ParkBroken):
                    await self._services.router.abort(reader.parked.generation)
                reader.parked = None
            await self._services.router.admit(reader.name)

    async def abort_unheard(self) -> None:
        """The same of parks that may have been granted without our hearing of it."""
        try:
            await self.observe()
            await self.abort()
        except VerdigrisError as error:
            log.warning("switchover.park_left_to_its_lease", endpoints=self.names, reason=str(error))

    async def unready(self) -> None:
        for reader in self.each:
            await self._services.router.unready(reader.name)
