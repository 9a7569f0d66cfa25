"""The router of the simulated world: the product's own commands, parks, endpoints and route table, over sessions and
listeners that are not real, in a process that can be killed.

What is the product's: ``RouterClient``, the check of the epoch in ``ControlServer``, ``RouterService``, ``Endpoint``,
``Park``, ``RouteStore``. What is not: sockets, the bytes of sessions, and their state.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tests.simulation.loop import Process
from tests.simulation.servers import Backend
from verdigris.domain.errors import VerdigrisError
from verdigris.domain.policy import PinnedSessions
from verdigris.domain.ports import HandoverReport, PinReport, ReadyReport
from verdigris.router import control, endpoint, endpoints, messages, service
from verdigris.router.client import RouterClient
from verdigris.router.control import ControlServer
from verdigris.router.endpoint import Endpoint
from verdigris.router.park import Park
from verdigris.router.pins import PinReason
from verdigris.router.routes import RouteStore, Table
from verdigris.router.service import RouterService
from verdigris.router.states import State

if TYPE_CHECKING:
    import ssl

    from tests.simulation.world import Controller, World

ROUTER_BACK_AFTER_S = 0.3
_DIALLING_S = 0.003
_PATH = Path("/nowhere")
_PIN = PinReason.TEMPORARY_OBJECTS


# ------------------------------------------------------------------------------------------------------------ sessions


class FakeDialled:
    """A connection to the target that waits for its session."""

    owed = owed_sequences = given = None

    def __init__(self, resource_id: str, backend: Backend) -> None:
        self.resource_id = resource_id
        self.backend = backend
        self.carries = False


class FakeSession:
    """What ``Park`` and ``Endpoint`` know a session by; for its client it can write, or not now."""

    owed = owed_sequences = former = None
    cursors = ()
    unanswered = False
    loan = None
    is_waited_for = is_at_work = False
    gives_up_at = 0.0
    startup = SimpleNamespace(user=b"master")

    def __init__(self, world: "World", endpoint: Endpoint) -> None:
        self.world = world
        self.endpoint = endpoint
        self.state = State.WAITING
        self.server: Backend | None = None
        self.backend = endpoint.route.backend
        self.dialled: FakeDialled | None = None
        self.pinned: str | None = None
        self.in_transaction = False
        self.cannot_be_carried = False
        self.tracker = SimpleNamespace(logged_in=True, safe=True, sequence_values=SimpleNamespace(asked=False))
        endpoint.sessions.add(cast("Any", self))
        if endpoint.admits:
            self.connect()

    @property
    def open(self) -> bool:
        return self.state is not State.CLOSED

    @property
    def server_pid(self) -> int | None:
        return None if self.server is None else self.server.pid

    def connect(self) -> None:
        self.backend = self.endpoint.route.backend
        server = self.world.servers.get(self.backend.resource_id)
        try:
            if server is None:
                raise ConnectionError
            self.server = server.connect()
            self.state = State.FLOWING
        except ConnectionError:
            self.close()
            known = self.world.router.crashes == 0 and not self.world.doubts_may_end
            if server is not None and server.running and server.fenced and known:
                # A router that was killed does not know of the fence; this one was told, and told that it was gone.
                self.world.violate("a newcomer was let through to a server that is fenced")

    def wait(self) -> None:
        self.state = State.WAITING

    def stop(self) -> None:
        self.state = State.STOPPING
        if not self.in_transaction:
            self.reached()

    def reached(self) -> None:
        self.state = State.PARKED
        self.endpoint.session_parked(cast("Any", self))

    def end_transaction(self) -> None:
        self.in_transaction = False
        if self.state is State.STOPPING:
            self.reached()

    def resume(self) -> None:
        if self.state is State.WAITING:
            self.connect()
        elif self.pinned is not None:
            self.fail("57P01", self.pinned)
        elif self.state in (State.STOPPING, State.PARKED):
            self.state = State.FLOWING

    def adopt(self, dialled: FakeDialled) -> None:
        self.leave_server()
        self.dialled = None
        self.backend = self.world.address(dialled.resource_id)
        self.server = dialled.backend

    def leave_server(self) -> None:
        if self.server is not None:
            self.world.end_backend(self.server)
            self.server = None

    def leave_former(self) -> None:
        pass

    def forget_replay(self) -> None:
        if self.dialled is not None:
            self.dialled.carries = False

    def close_dialled(self) -> None:
        if self.dialled is not None:
            self.world.end_backend(self.dialled.backend)
            self.dialled = None

    def fail(self, sqlstate: str, text: str, *, detail: str = "") -> None:
        self.world.note(f"a client is told {sqlstate} {text}")
        if self.pinned is not None and self.world.policy.pinned_sessions is not PinnedSessions.CLOSE:
            self.world.violate("a session that cannot be carried was ended against the policy")
        self.close()

    def close(self, farewell: bytes = b"") -> None:
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self.close_dialled()
            self.leave_server()
            self.endpoint.sessions.discard(cast("Any", self))
            if self.endpoint.park is not None:
                self.endpoint.park.left(cast("Any", self))


class FakeListener:
    """A port. Nobody else has any."""

    greeting = 0
    closed = False

    @classmethod
    def bind(cls, *_address: object) -> "FakeListener":
        return cls()

    def open(self, endpoint: Endpoint, tls: object) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None:
        self.closed = True


class FakeFollower:
    async def begin(self, endpoint: Endpoint) -> None: ...
    def reached(self, session: object) -> None: ...
    def end(self) -> None: ...


class FakeCensus:
    def forget(self, session: object) -> None: ...
    async def take(self, endpoint: Endpoint, verifiers: object, *, budget_s: float) -> PinReport:
        await asyncio.sleep(0.01)
        return PinReport(sessions=len(endpoint.live()), pinned=_seen(endpoint.live()))


async def _ready(endpoint: Endpoint, sessions: Iterable[Any]) -> ReadyReport:
    await asyncio.sleep(_DIALLING_S)
    dialled = 0
    live: list[FakeSession] = list(sessions)
    for session in live:
        dialled += _dial(endpoint, session)
    return ReadyReport(sessions=len(live), dialled=dialled, pinned=_seen(live))


def _seen(sessions: Iterable[Any]) -> Counter[str]:
    return Counter(_PIN.value for session in sessions if session.cannot_be_carried and not session.world.pins_hide)


def _dial(endpoint: Endpoint, session: FakeSession) -> bool:
    if session.dialled is not None and session.dialled.backend.alive:
        return True
    session.close_dialled()
    server = session.world.servers.get(endpoint.target.resource_id) if endpoint.target is not None else None
    if server is None or not session.open:
        return False
    try:
        session.dialled = FakeDialled(server.resource_id, server.connect(read_write=True))
    except ConnectionError:
        return False
    return True


async def _hand_over(park: Park) -> HandoverReport:
    park.pins.clear()
    sessions = cast("list[FakeSession]", park.sessions())
    await asyncio.sleep(_DIALLING_S)
    for session in sessions:
        if session.open and session.cannot_be_carried:
            park.pins[cast("Any", session)] = _PIN
        elif session.open and session.server is not None and session.server.alive and _dial(park.endpoint, session):
            assert session.dialled is not None
            session.dialled.carries = True
        elif session.open:
            park.pins[cast("Any", session)] = PinReason.TARGET_REFUSED
    pinned = Counter(reason.value for reason in park.pins.values())
    return HandoverReport(carried=len(sessions) - pinned.total(), pinned=dict(pinned))


@contextlib.contextmanager
def fake_sessions() -> Iterator[None]:
    """In here the router's modules work with what is above instead of sockets."""
    replaced: list[tuple[Any, str, Any]] = [
        (endpoints, "Listener", FakeListener),
        (service, "ready", _ready),
        (service, "hand_over", _hand_over),
        (endpoints, "lender", lambda: None),
        (service, "garbage", SimpleNamespace(set_aside=lambda: None)),
        (endpoint, "garbage", SimpleNamespace(bring_back=lambda: None)),
        (endpoint, "Follower", FakeFollower),
        (endpoint, "Census", FakeCensus),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    for module, name, fake in replaced:
        setattr(module, name, fake)
    try:
        yield
    finally:
        for module, name, real in before:
            setattr(module, name, real)


# ------------------------------------------------------------------------------------------------------------- process


class Disk:
    def __init__(self, table: Table) -> None:
        self.table = table


class DiskRouteStore(RouteStore):
    """The product's, with the file in the world's memory."""

    def __init__(self, world: "World", disk: Disk) -> None:
        self._world = world
        self._disk = disk
        super().__init__(_PATH)

    def _read(self) -> Table:
        return self._disk.table

    def _replace(self, table: Table) -> None:
        if self._world.disk_full:
            raise OSError("No space left on device")
        self._disk.table = table

    def _put_back(self) -> None:
        self._disk.table = self.table


class RouterHost:
    """The router's process, and its disk, which outlives it."""

    def __init__(self, world: "World", table: Table) -> None:
        self.world = world
        self.disk = Disk(table)
        self.process = Process("router")
        self.service: RouterService | None = None
        self._processes: list[Process] = []
        self._talks: set[asyncio.Future[messages.Reply]] = set()
        self.up_since = 0.0
        self.crashes = 0

    def start(self) -> None:
        self.process = Process("router")
        self._processes.append(self.process)
        self.up_since = self.world.loop.time()
        self.process.context.run(self._open)

    def _open(self) -> None:
        store = DiskRouteStore(self.world, self.disk)
        self.service = RouterService(store, cast("ssl.SSLContext", None))
        self.control = ControlServer.__new__(ControlServer)
        self.control._service = self.service
        self.service.open()

    @property
    def up(self) -> bool:
        return self.service is not None

    def crash(self) -> None:
        if self.service is None:
            return
        self.process.alive = False
        self.crashes += 1
        for found in self.service.endpoints():
            for session in list(found.sessions):
                fake = cast("FakeSession", session)
                fake.state = State.CLOSED
                for backend in (fake.server, fake.dialled.backend if fake.dialled is not None else None):
                    if backend is not None:
                        self.world.end_backend(backend)
        self.service = None
        for talk in self._talks:
            if not talk.done():
                talk.set_exception(ConnectionResetError("the router has ended"))
        self._talks.clear()

    def end(self) -> None:
        """The run is over: nothing of this process, or of those that were killed, runs again."""
        self.process.alive = False
        for process in self._processes:
            for task in process.tasks:
                if not task.done():
                    with contextlib.suppress(RuntimeError):  # it may want to wait for something as it ends
                        task.get_coro().close()

    def endpoint(self, name: str) -> Endpoint | None:
        return None if self.service is None else self.service.find(name)

    def lose_leases(self) -> None:
        if self.service is not None:
            for found in self.service.endpoints():
                if found.park is not None and found.park.granted:
                    self.process.context.run(found.park._expire)

    async def converse(self, epoch: int, command: messages.Command) -> messages.Reply:
        """As over the control socket: the command goes on in the router whatever becomes of who asked, unless it is one
        of those that are given up when nobody waits for them any more."""
        if self.service is None:
            raise ConnectionRefusedError("there is no router")
        loop = self.world.loop
        task = loop.create_task(
            self.control._perform(messages.Hello(epoch), command), context=self.process.context.copy()
        )
        talk: asyncio.Future[messages.Reply] = loop.create_future()
        self._talks.add(talk)

        def answer(done: "asyncio.Task[object]") -> None:
            self._talks.discard(talk)
            if not talk.done() and not done.cancelled():
                talk.set_result(_reply(done))

        task.add_done_callback(answer, context=self.process.context)
        try:
            return await talk
        except asyncio.CancelledError:
            if isinstance(command, control._CANCELLABLE):
                task.cancel()
            raise


def _reply(task: "asyncio.Task[object]") -> messages.Reply:
    error = task.exception()
    if error is None:
        return messages.Answer(msgspec.Raw(msgspec.msgpack.encode(task.result())))
    return messages.Failed(type(error).__name__ if isinstance(error, VerdigrisError) else "VerdigrisError", str(error))


class WorldRouterClient(RouterClient):
    """The product's client, with the world between it and the router."""

    def __init__(self, world: "World", controller: "Controller") -> None:
        self._path = _PATH
        self._world = world
        self._controller = controller
        self._epoch = controller.epoch

    async def _converse(self, command: messages.Command) -> messages.Reply:
        reply: messages.Reply = await self._world.perform(
            self._controller,
            f"router.{type(command).__name__}",
            lambda: self._world.router.converse(self._epoch, command),
        )
        return reply
