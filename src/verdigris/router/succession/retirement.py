"""The old process's side of a succession: it lets go of one thing after the other, and of nothing that is not taken."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine
from functools import partial

import msgspec
import structlog

from verdigris import __version__
from verdigris.router.control import ControlServer
from verdigris.router.endpoint import Counters, Endpoint
from verdigris.router.seat import Seat
from verdigris.router.service import RouterService
from verdigris.router.session import Session
from verdigris.router.states import State
from verdigris.router.succession import cancelling, messages
from verdigris.router.succession.channel import Channel, ChannelLost
from verdigris.router.succession.luggage import descriptors, pack
from verdigris.router.succession.witness import Witness, peer_pid

log = structlog.get_logger()

# The new process has nothing to do but to answer; one that does not is no successor.
ANSWER_TIMEOUT_S = 10.0
# Commands under way are waited for this long; a park or a handover may take longer, and prevents a succession.
COMMANDS_TIMEOUT_S = 10.0
# Sessions between the two processes at a time: each stands still until it has been taken.
_AT_ONCE = 32
# How often sessions are looked through that could not be moved when they were looked at before: just logged in, or
# their client had not read all that was sent to it.
_SWEEP_S = 0.1
# After ``drain_s``: how long sessions that are in the middle of something have for coming to its end.
LAST_GRACE_S = 5.0


class Retirement:
    """``run`` returns True once nobody is left here and the process may end; False if it is the router as before."""

    def __init__(self, service: RouterService, control: ControlServer, seat: Seat, connection: socket.socket) -> None:
        self._service, self._control, self._seat = service, control, seat
        self._loop = asyncio.get_running_loop()
        self._successor = Witness(peer_pid(connection))
        self._channel = Channel(connection)
        self._channel.receive = self._receive
        self._channel.lost = self._lost
        self._begun: asyncio.Future[messages.Begin] = self._loop.create_future()
        self._in_charge: asyncio.Future[None] = self._loop.create_future()
        self._channel_lost = asyncio.Event()
        self._offered: dict[int, Session] = {}
        self._staying: set[Session] = set()
        self._counted: dict[str, Counters] = {}  # until the successor began to count
        self._numbers = 0
        self._moved = 0
        self._changed = asyncio.Event()
        self._expelling = False
        self._told_to_stop = False
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------------------------------------------------ in one go

    async def run(self) -> bool:
        self._channel.start()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                begin = await self._begun
        except (TimeoutError, ChannelLost):
            return False
        reason = self._objection(begin) or await self._stand_still()
        if reason is not None:
            log.info("succession.refused", reason=reason, successor=self._successor.pid)
            self._channel.send(messages.Refuse(reason))
            await self._wait_for_the_end()
            return False
        try:
            self._grant()
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._in_charge
            log.info("succession.begun", successor=self._successor.pid, version=begin.version)
            await self._empty(begin.drain_s)
        except Exception as error:  # whatever it is, somebody has to be the router
            if self._told_to_stop:
                await self._service.close()
                return True
            unexpected = not isinstance(error, TimeoutError | OSError)
            log.warning("succession.failed", successor=self._successor.pid, error=repr(error), exc_info=unexpected)
            await self._reclaim()
            return False
        log.info("succession.finished", successor=self._successor.pid, moved=self._moved)
        self._channel.send(messages.Finished({e.name: e.counters for e in self._service.endpoints()}))
        return True

    def _objection(self, begin: messages.Begin) -> str | None:
        if begin.format != messages.FORMAT:
            return (
                f"it runs Verdigris {__version__} and cannot hand over to {begin.version}: "
                "end it with `verdigris down` when its clients can be cut off"
            )
        return self._service.engagement()

    async def _stand_still(self) -> str | None:
        """Take no commands and no clients, and write nothing; or why that cannot be."""
        self._control.pause()
        reason = None
        try:
            async with asyncio.timeout(COMMANDS_TIMEOUT_S):
                await self._control.settled()
        except TimeoutError:
            reason = "the router is busy with a command of the control plane"
        reason = reason or self._service.engagement()
        if reason is not None:
            self._control.open()
            return reason
        await self._service.stand_still()
        return None

    def _grant(self) -> None:
        for endpoint in self._service.endpoints():
            if not endpoint.listener.closed:
                listening = messages.Listening(endpoint.route, endpoint.counters)
                self._channel.send(listening, (endpoint.listener.fileno(),))
            self._counted[endpoint.name] = endpoint.counters
            endpoint.counters = Counters()
        seat = self._seat
        what = (seat.lock, seat.control.fileno(), seat.succession.fileno())
        self._channel.send(messages.Grant(os.getpid(), True, self._service.verifier.given), what)

    async def _wait_for_the_end(self) -> None:
        """Leave the other side the time to read."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._channel_lost.wait()
        except TimeoutError:
            log.info("succession.refusal_ignored", successor=self._successor.pid)

    def close(self) -> None:
        """After ``run``."""
        self._channel.close()
        self._successor.close()

    async def stop(self) -> bool:
        """The process is told to end in the middle of it. Whether it is still the router; if it is not, it has nothing
        to close but its sessions."""
        if self._in_charge.done() and not self._channel_lost.is_set():
            return False
        self._channel.close()
        self._successor.kill()
        await self._successor.dead()
        return True

    # -------------------------------------------------------------------------------------------- sessions, one by one

    async def _empty(self, drain_s: float) -> None:
        """Let every session go, or end it at last. Raises ``ChannelLost``."""
        for endpoint in self._service.endpoints():
            endpoint.leave = self._leave
            endpoint.cancel_elsewhere = partial(cancelling.pass_on, self._channel)
        drained_at = self._loop.time() + drain_s
        while self._is_somebody_here():
            if self._loop.time() >= drained_at:
                self._expel(everybody=self._loop.time() >= drained_at + LAST_GRACE_S)
            for endpoint in self._service.endpoints():
                await self._look_through(endpoint)
            await self._wait_for_change()
        await self._service.last_words()

    def _is_somebody_here(self) -> bool:
        return bool(self._offered) or any(
            endpoint.sessions or endpoint.listener.greeting for endpoint in self._service.endpoints()
        )

    async def _look_through(self, endpoint: Endpoint) -> None:
        """Ask every session to stop. One that is idle has then been offered; the others come when they can."""
        for session in list(endpoint.sessions):
            while len(self._offered) >= _AT_ONCE:
                await self._wait_for_change()
            stays = session.encrypted or session in self._staying
            if session.state is State.FLOWING and (self._expelling or not stays):
                session.stop()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        if self._channel_lost.is_set():
            raise ChannelLost
        try:
            async with asyncio.timeout(_SWEEP_S):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _leave(self, session: Session) -> None:
        """A session has come to a safe point."""
        if self._expelling:
            session.fail("57P01", "terminating connection due to administrator command")
            return
        if session.movable and not self._channel_lost.is_set():
            try:
                self._offer(session)
            except Exception:
                # One session's trouble must not keep the others from moving: it stays, as those with TLS do.
                log.exception("session.not_moved", session=repr(session))
                self._staying.add(session)
            else:
                return
        session.resume()  # asked again in the next sweep

    def _offer(self, session: Session) -> None:
        assert session.server is not None  # noqa: S101  it is movable
        luggage = msgspec.Raw(msgspec.msgpack.encode(pack(session)))
        session.client.transport.pause_reading()
        session.server.transport.pause_reading()
        session.endpoint.sessions.discard(session)
        self._numbers += 1
        self._offered[self._numbers] = session
        self._channel.send(messages.Offer(self._numbers, luggage), descriptors(session))

    def _release(self, number: int) -> None:
        """It is the successor's: until it hears so, it has not touched it."""
        session = self._offered.pop(number)
        session.surrender()
        session.endpoint.census.forget(session)
        self._channel.send(messages.Yours(number))
        self._moved += 1
        self._changed.set()

    def _take_back(self, number: int) -> None:
        session = self._offered.pop(number)
        session.endpoint.sessions.add(session)
        if session.server is not None:
            session.server.transport.resume_reading()
        session.resume()
        self._changed.set()

    def _expel(self, *, everybody: bool) -> None:
        """The limit has passed: idle sessions end now, the others at their safe point, and at last whatever they do."""
        if not self._expelling:
            log.info("succession.drained", sessions=sum(len(e.sessions) for e in self._service.endpoints()))
        self._expelling = True
        if everybody:
            for endpoint in self._service.endpoints():
                endpoint.disconnect()

    # -------------------------------------------------------------------------------------------- what the other says

    def _receive(self, message: messages.Message, _descriptors: list[int]) -> None:
        match message:
            case messages.Begin() if not self._begun.done():
                self._begun.set_result(message)
            case messages.InCharge() if not self._in_charge.done():
                self._in_charge.set_result(None)
            case messages.Taken(number) if number in self._offered:
                self._release(number)
            case messages.Declined(number, reason) if number in self._offered:
                log.info("succession.declined", session=repr(self._offered[number]), reason=reason)
                self._take_back(number)
            case messages.Stop():
                self._told_to_stop = True
                self._lost()
            case messages.Ask(number, request):
                self._run(self._answer(number, request))
            case _:
                raise ValueError(f"a successor says no {type(message).__name__} now")

    async def _answer(self, number: int, request: messages.Request) -> None:
        match request:
            case messages.Cancel(name, key):
                cancelling.answer(self._channel, number, self._service.find(name), key)
                return
            case messages.CountRemaining():
                self._channel.answer(number, self._remaining())
                return
            case messages.CloseEndpoint(name, clients, listener):
                self._service.close_endpoint(name, clients=clients, listener=listener)
            case messages.RenameEndpoint(name, new_name):
                self._service.rename_endpoint(name, new_name)
        # What is on its way under the old name, or in spite of the disconnection, arrives before the answer.
        on_the_way = set(self._offered)
        with contextlib.suppress(ChannelLost):
            while on_the_way & self._offered.keys():
                await self._wait_for_change()
            self._channel.answer(number, None)

    def _remaining(self) -> dict[str, messages.Remaining]:
        on_the_way = [session.endpoint for session in self._offered.values()]
        found = {}
        for endpoint in self._service.endpoints():
            live = endpoint.live()
            sessions = len(endpoint.sessions) + endpoint.listener.greeting + on_the_way.count(endpoint)
            if sessions:
                found[endpoint.name] = messages.Remaining(
                    sessions=sessions,
                    active=sum(not session.tracker.safe for session in live),
                    usernames=tuple({s.startup.user.decode(errors="replace") for s in live if s.startup is not None}),
                )
        return found

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------------------------------------ if it goes wrong

    def _lost(self) -> None:
        self._channel_lost.set()
        self._changed.set()
        for waiting in (self._begun, self._in_charge):
            if not waiting.done():
                waiting.set_exception(ChannelLost())
                waiting.exception()  # retrieved: perhaps nobody waits for it

    async def _reclaim(self) -> None:
        """Be the router again, with all that has not been released."""
        self._channel.close()
        self._successor.kill()
        await self._successor.dead()
        for endpoint in self._service.endpoints():
            endpoint.leave = endpoint.cancel_elsewhere = None
            endpoint.counters.add(self._counted.pop(endpoint.name, Counters()))
        for number in list(self._offered):
            self._take_back(number)
        for endpoint in self._service.endpoints():
            for session in list(endpoint.sessions):
                session.resume()
        self._seat.record()
        await self._service.go_on()
        self._control.open()
        log.info("succession.undone", moved=self._moved)
