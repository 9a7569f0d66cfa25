"""The router's commands: what ``domain.ports.Router`` promises, in the process that has the sessions."""

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from verdigris import __version__
from verdigris.domain.errors import ParkBroken
from verdigris.domain.ports import (
    BackendAddress,
    HandoverReport,
    Helpers,
    Parked,
    ParkRefused,
    PinReport,
    ReadyReport,
    Route,
    RouterSessions,
)
from verdigris.router import garbage
from verdigris.router.endpoint import Endpoint
from verdigris.router.endpoints import Endpoints
from verdigris.router.errors import NotAbortable, RouteConflict
from verdigris.router.handover import hand_over
from verdigris.router.lending import bytes_from_client, bytes_from_server
from verdigris.router.limits import Limits
from verdigris.router.messages import EndpointStatistics, Statistics
from verdigris.router.park import Park, ParkState
from verdigris.router.ready import ready
from verdigris.router.routes import RouteStore
from verdigris.router.state.channels import deliver_pending
from verdigris.router.state.sequences import SequenceHelp
from verdigris.router.states import State

if TYPE_CHECKING:
    from verdigris.router.succession.messages import Remaining

log = structlog.get_logger()


class RouterService(Endpoints):
    """What changes the route table is to be run to its end; ``pins``, ``park``, ``ready`` and ``hand_over`` may be
    cancelled and then leave nothing held."""

    def __init__(self, store: RouteStore, tls: ssl.SSLContext, limits: Limits | None = None) -> None:
        super().__init__(store, tls, limits)
        self._parks: dict[int, Park] = {}
        self._reserved: int | None = None  # the generation of the next park, if it has been counted already
        self._began_at = asyncio.get_running_loop().time()

    async def remove_route(self, name: str) -> None:
        await super().remove_route(name)
        self._forget_ended_parks()

    def _forget_ended_parks(self) -> None:
        self._parks = {generation: park for generation, park in self._parks.items() if park.live}

    async def _remaining(self) -> "Mapping[str, Remaining]":
        return await self.predecessor.remaining() if self.predecessor is not None else {}

    # --------------------------------------------------------------------------------------------------------- sessions

    def _endpoint(self, name: str) -> Endpoint:
        try:
            return self._endpoints[name]
        except KeyError:
            raise RouteConflict(f"there is no endpoint {name}") from None

    async def disconnect(self, name: str) -> None:
        if self.predecessor is not None:
            await self.predecessor.close_endpoint(name, clients=True, listener=False)
        endpoint = self._endpoints.get(name)
        if endpoint is not None:
            endpoint.disconnect()

    async def sessions(self, name: str) -> RouterSessions:
        elsewhere = (await self._remaining()).get(name)
        endpoint = self._endpoint(name)
        live = endpoint.live()
        park = endpoint.park
        usernames = {s.startup.user.decode(errors="replace") for s in live if s.startup is not None}
        if elsewhere is not None:
            usernames.update(elsewhere.usernames)
        return RouterSessions(
            usernames=tuple(sorted(usernames)),
            sessions=len(live) + (elsewhere.sessions if elsewhere is not None else 0),
            active=sum(not session.tracker.safe for session in live) + (elsewhere.active if elsewhere else 0),
            generation=park.generation if park is not None else None,
            committed=park is not None and park.state is ParkState.COMMITTED,
        )

    async def pins(self, name: str, verifiers: Mapping[str, str], *, budget_s: float) -> PinReport:
        endpoint = self._endpoint(name)
        return await endpoint.census.take(endpoint, verifiers, budget_s=budget_s)

    async def statistics(self) -> Statistics:
        """Of one moment: nothing happens between the first endpoint and the last."""
        remaining = await self._remaining()
        return Statistics(
            pid=os.getpid(),
            version=__version__,
            uptime_s=asyncio.get_running_loop().time() - self._began_at,
            endpoints=tuple(
                _statistics(endpoint, remaining.get(endpoint.name)) for endpoint in self._endpoints.values()
            ),
        )

    # ------------------------------------------------------------------------------------------------------- switchover

    async def ready(
        self, name: str, target: BackendAddress, verifiers: Mapping[str, str], helpers: Helpers | None = None
    ) -> ReadyReport:
        endpoint = self._endpoint(name)
        if endpoint.park is not None:
            await endpoint.park.over()  # its end forgets the target that it had
        endpoint.target = target
        endpoint.verifiers = dict(verifiers)
        endpoint.sequence_help = (
            SequenceHelp(helpers, everywhere=endpoint.asks_for_sequence_values) if helpers is not None else None
        )
        endpoint.follower.end()
        report = await ready(endpoint, endpoint.live())
        garbage.set_aside()
        await endpoint.follower.begin(endpoint)
        log.info("sessions.ready", endpoint=name, sessions=report.sessions, pinned=report.pinned)
        return report

    async def park(
        self, name: str, *, budget_s: float, lease_s: float, leave_stragglers: bool = False
    ) -> Parked | ParkRefused:
        remaining = sum(elsewhere.sessions for elsewhere in (await self._remaining()).values())
        if remaining:
            # Clients of a router that this one has replaced, which it cannot stop. Nobody else shall stop for nothing.
            log.info("park.refused", endpoint=name, stragglers=remaining, waited_s=0.0)
            return ParkRefused(stragglers=remaining, waited_s=0.0)
        endpoint = self._endpoint(name)
        if endpoint.park is not None:
            await endpoint.park.over()
        if endpoint.park is not None:
            # Left by a controller that is gone, or this one asks twice: the new generation counts.
            self._end(endpoint.park)
        self._forget_ended_parks()
        generation, self._reserved = self._reserved, None
        park = Park(endpoint, await self._next_generation() if generation is None else generation)
        self._parks[park.generation] = park
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            stragglers = await park.gather(budget_s, leave_stragglers=leave_stragglers)
        except BaseException:
            self._end(park)
            raise
        waited_s = loop.time() - began
        if not park.live:
            raise ParkBroken(f"park {park.generation} of {name} ended while it gathered")
        if stragglers and not leave_stragglers:
            self._end(park)
            pids = tuple(session.server_pid for session in stragglers if session.server_pid is not None)
            log.info("park.refused", endpoint=name, stragglers=len(stragglers), server_pids=pids, waited_s=waited_s)
            return ParkRefused(stragglers=len(stragglers), waited_s=waited_s, server_pids=pids)
        parked = park.grant(lease_s)
        log.info(
            "park.granted",
            endpoint=name,
            generation=park.generation,
            sessions=parked.sessions,
            stragglers=parked.stragglers,
            waited_s=waited_s,
        )
        return parked

    async def _next_generation(self) -> int:
        """Durably counted, so that a generation of an earlier life of this process is never taken for a later one."""
        async with self._store.lock:
            generation = self._store.table.generation + 1
            await self._store.write(msgspec.structs.replace(self._store.table, generation=generation))
        return generation

    def _end(self, park: Park) -> None:
        if park.state in (ParkState.COMMITTING, ParkState.COMMITTED):
            raise NotAbortable(f"generation {park.generation} is committed")
        park.end()
        self._parks.pop(park.generation, None)

    def _holding(self, generation: int) -> Park:
        park = self._parks.get(generation)
        if park is None or park.state is not ParkState.HELD:
            raise ParkBroken(f"generation {generation} does not hold any more")
        return park

    async def renew(self, generation: int, *, lease_s: float) -> None:
        park = self._parks.get(generation)
        if park is None or not park.granted:
            raise ParkBroken(f"generation {generation} does not hold any more")
        park.renew(lease_s)

    async def hand_over(self, generation: int) -> HandoverReport:
        park = self._holding(generation)
        report = await hand_over(park)
        self._holding(generation)
        return report

    async def commit(
        self,
        generation: int,
        routes: Sequence[Route],
        *,
        hold: bool,
        leave_nobody: bool = False,
        along: Sequence[int] = (),
    ) -> None:
        async with self._store.lock:
            table = self._store.table
            if generation == table.committed_generation:
                return  # done before
            parks = [self._holding(each) for each in (generation, *along)]
            for park in parks:
                _check_commit(park, routes)
                await deliver_pending(park.sessions())
            for park in parks:
                self._holding(park.generation)
            if leave_nobody and (left := sum(len(park.left_behind()) for park in parks)):
                names = ", ".join(park.endpoint.name for park in parks)
                raise ParkBroken(f"the commit would leave {left} of the sessions of {names} behind")
            new_table = msgspec.structs.replace(table.with_routes(*routes), committed_generation=generation)
            listeners = self._bind(new_table, routes)
            for park in parks:
                park.begin_commit()
            try:
                await self._write_or_close(new_table, listeners)
            except BaseException:
                for park in parks:
                    park.undo_commit()
                raise
            for route, listener in zip(routes, listeners, strict=True):
                self._apply(route, listener)
            for park in parks:
                followed = park.generation != generation
                park.committed(hold=hold and not followed, fenced=not followed)
                log.info("route.committed", endpoint=park.endpoint.name, generation=park.generation, epoch=table.epoch)

    async def release(self, generation: int, *, admit: bool = True) -> dict[str, int]:
        park = self._parks.get(generation)
        if park is None:
            return {}
        if park.state is ParkState.COMMITTING:
            raise ParkBroken(f"generation {generation} is being committed")
        await park.release(admit=admit)
        self._parks.pop(generation, None)
        late_pins = dict(park.late_pins)
        log.info("park.released", endpoint=park.endpoint.name, generation=generation, late_pins=late_pins)
        return late_pins

    async def abort(self, generation: int, *, admit: bool = True) -> None:
        async with self._store.lock:  # a commit that is being written is waited for: afterwards it is one or the other
            if generation == self._store.table.committed_generation:
                raise NotAbortable(f"generation {generation} is committed")
            park = self._parks.get(generation)
            if park is not None:
                if not admit:
                    park.endpoint.doubt()
                self._end(park)
                if admit:
                    park.endpoint.trust()
                park.endpoint.forget_target()
                log.info("park.aborted", endpoint=park.endpoint.name, generation=generation)

    async def hold(self, name: str) -> None:
        await self._endpoint(name).hold()
        if self._reserved is None:
            self._reserved = await self._next_generation()

    async def admit(self, name: str) -> None:
        endpoint = self._endpoints.get(name)
        if endpoint is not None:
            endpoint.trust()

    async def answered(self, name: str) -> None:
        endpoint = self._endpoints.get(name)
        if endpoint is not None:
            await endpoint.answered()

    async def unready(self, name: str) -> None:
        endpoint = self._endpoints.get(name)
        if endpoint is not None:
            park = endpoint.park
            if park is not None and park.state in (ParkState.GATHERING, ParkState.HELD):
                # Granted without anybody's hearing of it. At the end of its lease newcomers would begin to wait.
                self._end(park)
            endpoint.trust()
            endpoint.forget_target()


def _check_commit(park: Park, routes: Sequence[Route]) -> None:
    """The parked sessions go where their endpoint's route goes, so the two must agree."""
    mine = [route for route in routes if route.name == park.endpoint.name]
    if len({route.name for route in routes}) != len(routes) or not mine:
        raise RouteConflict(f"a commit of generation {park.generation} names {park.endpoint.name} exactly once")
    target = park.endpoint.target
    if target is not None and mine[0].backend != target:
        raise RouteConflict(f"sessions of {park.endpoint.name} were made ready for {target.resource_id}")


def _statistics(endpoint: Endpoint, elsewhere: "Remaining | None") -> EndpointStatistics:
    live = endpoint.live()
    counters = endpoint.counters
    return EndpointStatistics(
        name=endpoint.name,
        sessions=len(live),
        parked=sum(session.state is State.PARKED for session in live),
        waiting=sum(session.state is State.WAITING for session in endpoint.sessions),
        connections_total=counters.connections,
        client_bytes_total=counters.client_bytes + sum(bytes_from_client(s) for s in endpoint.sessions),
        server_bytes_total=counters.server_bytes + sum(bytes_from_server(s) for s in live),
        handed_over_total=counters.handed_over,
        longest_park_s=counters.longest_park_s,
        pinned_last=dict(counters.pinned),
        turned_away_total=counters.turned_away,
        waited_too_long_total=counters.waited_too_long,
        lent=sum(session.loan is not None for session in live),
        with_predecessor=elsewhere.sessions if elsewhere is not None else 0,
        sequences_forgotten_total=counters.sequences_forgotten,
    )
