"""The new process's side of a succession: it takes what it is given, and touches a session when it is its own."""

import asyncio
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct

from verdigris import __version__
from verdigris.domain.errors import VerdigrisError
from verdigris.router.endpoint import Counters
from verdigris.router.limits import Limits
from verdigris.router.listener import Listener
from verdigris.router.paths import RouterPaths
from verdigris.router.seat import Seat
from verdigris.router.service import RouterService
from verdigris.router.session import Session
from verdigris.router.succession import cancelling, messages
from verdigris.router.succession.channel import Channel, ChannelLost
from verdigris.router.succession.luggage import settle, unpack
from verdigris.router.succession.witness import Witness
from verdigris.wire.postgres.messages import BackendKey

if TYPE_CHECKING:
    from verdigris.domain.ports import TokenKeys

log = structlog.get_logger()

# The old router answers at once, or when the commands that it is carrying out are done.
GRANT_TIMEOUT_S = 20.0
# The old router's clients have a moment to read that it ends.
STOP_TIMEOUT_S = 3.0


class _Taken(Struct):
    """A session that is here and not ours yet."""

    session: Session
    client: socket.socket
    server: socket.socket
    server_bytes: int


class Accession:
    """Made by ``begin``. From ``in_charge`` on it is the service's predecessor, until that has finished or died."""

    def __init__(self, connection: socket.socket, paths: RouterPaths) -> None:
        self.inherited: dict[tuple[str, int], tuple[Listener, Counters]] = {}
        self.verifies_tokens = False
        self.token_keys: TokenKeys | None = None
        self._paths = paths
        self._loop = asyncio.get_running_loop()
        self._channel = Channel(connection)
        self._channel.receive = self._receive
        self._channel.lost = self._lost
        self._granted: asyncio.Future[Seat] = self._loop.create_future()
        self._predecessor: Witness | None = None
        self._service: RouterService | None = None
        self._taken: dict[int, _Taken] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()

    @classmethod
    async def begin(cls, paths: RouterPaths, limits: Limits) -> "tuple[Accession, Seat]":
        """Raises ``VerdigrisError`` if there is no router, or it does not hand over now."""
        connection = _connect(paths.succession_socket)
        accession = cls(connection, paths)
        accession._channel.start()
        accession._channel.send(messages.Begin(messages.FORMAT, __version__, limits.drain_s))
        try:
            async with asyncio.timeout(GRANT_TIMEOUT_S):
                return accession, await accession._granted
        except (TimeoutError, ChannelLost):
            raise VerdigrisError("the router that runs did not hand over; it goes on as before") from None

    def in_charge(self, service: RouterService) -> None:
        """The service is open: sessions may come."""
        self._service = service
        if not self._gone.is_set():
            service.predecessor = self
        for endpoint in service.endpoints():
            endpoint.cancel_elsewhere = self.cancel
        self._channel.send(messages.InCharge())

    # ---------------------------------------------------------------------------------------- what the service asks for

    async def remaining(self) -> dict[str, messages.Remaining]:
        """What the old process still serves; whatever is not in it any more has arrived when this returns."""
        try:
            found = await self._channel.ask(messages.CountRemaining(), dict[str, messages.Remaining])
        except ChannelLost:
            await self._gone.wait()
            found = {}
        await self._arrived()
        return found

    async def close_endpoint(self, name: str, *, clients: bool, listener: bool) -> None:
        await self._ask(messages.CloseEndpoint(name, clients, listener))

    async def rename_endpoint(self, name: str, new_name: str) -> None:
        await self._ask(messages.RenameEndpoint(name, new_name))

    async def cancel(self, name: str, key: BackendKey) -> bool:
        return await cancelling.pass_on(self._channel, name, key)

    async def stop(self) -> None:
        """This process ends: the old one shall not take its place."""
        self._channel.send(messages.Stop())
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._gone.wait()
        except TimeoutError:
            if self._predecessor is not None:
                self._predecessor.kill()

    async def _ask(self, request: messages.Request) -> None:
        try:
            await self._channel.ask(request, type(None))
        except ChannelLost:
            await self._gone.wait()
        await self._arrived()

    async def _arrived(self) -> None:
        while self._settling:
            await asyncio.wait(set(self._settling))

    # --------------------------------------------------------------------------------------------- what the other says

    def _receive(self, message: messages.Message, descriptors: list[int]) -> None:
        match message:
            case messages.Refuse(reason):
                if not self._granted.done():
                    self._granted.set_exception(VerdigrisError(f"the router cannot be replaced now: {reason}"))
                self._channel.close()
            case messages.Listening(route, counters):
                listener = Listener(socket.socket(fileno=descriptors[0]))
                self.inherited[route.host, route.port] = listener, counters
            case messages.Grant(pid, verifies_tokens, token_keys) if not self._granted.done():
                self._predecessor = Witness(pid)
                self.verifies_tokens, self.token_keys = verifies_tokens, token_keys
                lock, control, succession = descriptors
                sockets = socket.socket(fileno=control), socket.socket(fileno=succession)
                self._granted.set_result(Seat(self._paths, lock, *sockets))
            case messages.Offer(number, luggage):
                self._take(number, luggage, *(socket.socket(fileno=descriptor) for descriptor in descriptors))
            case messages.Yours(number):
                self._settle(self._taken.pop(number))
            case messages.Finished(counters):
                self._add(counters)
                self._channel.close()
                self._run(self._see_it_off())
            case messages.Ask(number, messages.Cancel(name, key)):
                endpoint = self._service.find(name) if self._service is not None else None
                cancelling.answer(self._channel, number, endpoint, key)
            case _:
                raise ValueError(f"a predecessor says no {type(message).__name__} now")

    def _take(self, number: int, luggage: msgspec.Raw, client: socket.socket, server: socket.socket) -> None:
        try:
            assert self._service is not None  # noqa: S101  sessions come to a router in charge
            packed = msgspec.msgpack.decode(luggage, type=messages.Luggage)
            endpoint = self._service.find(packed.endpoint)
            if endpoint is None:
                raise LookupError(f"no endpoint {packed.endpoint}")
            session = unpack(packed, endpoint)
        except (LookupError, ValueError, msgspec.MsgspecError) as error:
            client.close()
            server.close()
            self._channel.send(messages.Declined(number, repr(error)))
            return
        self._taken[number] = _Taken(session, client, server, packed.server_bytes)
        self._channel.send(messages.Taken(number))

    def _settle(self, taken: _Taken) -> None:
        task = self._loop.create_task(self._settle_one(taken))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle_one(self, taken: _Taken) -> None:
        try:
            await settle(taken.session, taken.client, taken.server, taken.server_bytes)
        except OSError as error:
            log.warning("session.not_settled", session=repr(taken.session), error=repr(error))
            taken.session.close()

    def _add(self, counters: dict[str, Counters]) -> None:
        for name, counted in counters.items():
            endpoint = self._service.find(name) if self._service is not None else None
            if endpoint is not None:
                endpoint.counters.add(counted)

    # --------------------------------------------------------------------------------------------------------- the end

    def _lost(self) -> None:
        """The old process has died, or is about to end us because it thinks that we have."""
        if not self._granted.done():
            self._granted.set_exception(ChannelLost())
            self._granted.exception()  # retrieved: perhaps nobody waits for it
            return
        self._run(self._see_it_off())

    async def _see_it_off(self) -> None:
        if self._predecessor is not None:
            await self._predecessor.dead()
            self._predecessor.close()
        log.info("succession.predecessor_gone", inherited=len(self._taken))
        # Nobody else has them now.
        for number in list(self._taken):
            self._settle(self._taken.pop(number))
        await self._arrived()
        if self._service is not None:
            self._service.predecessor = None
            for endpoint in self._service.endpoints():
                endpoint.cancel_elsewhere = None
        self._gone.set()

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.fspath(path))
    except OSError as error:
        connection.close()
        raise VerdigrisError(f"there is no router that could hand over: {error}") from None
    return connection
