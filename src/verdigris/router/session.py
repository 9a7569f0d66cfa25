"""One client's session: its two ends, and the states between which a park moves it."""

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING

import structlog

from verdigris.aws.auth_token import TokenRefused
from verdigris.router.asking import Asking
from verdigris.router.ends import ClientEnd, ServerEnd
from verdigris.router.exchange import Frame
from verdigris.router.former import Former
from verdigris.router.lending import bytes_from_client, offer, take_back
from verdigris.router.proving import first_words, read_password
from verdigris.router.states import State
from verdigris.wire.postgres import messages, startup
from verdigris.wire.postgres.errors import ProtocolError
from verdigris.wire.postgres.messages import BackendKey
from verdigris.wire.postgres.tracker import SessionTracker

if TYPE_CHECKING:
    from verdigris.router._relay import Loan
    from verdigris.router.dial import Dialled
    from verdigris.router.endpoint import Endpoint
    from verdigris.router.junction import Detour
    from verdigris.router.state.cursors import HeldCursor
    from verdigris.router.state.replay import Batch
    from verdigris.router.state.sequences import Memory

log = structlog.get_logger()

# What a client may send ahead while its session does not flow; beyond that it is not read.
MAX_HELD_BYTES = 64 * 1024
# authentication_timeout of the server: how long a client may take to say what it wants.
STARTUP_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
# How long a server may say nothing to a client's first words, where there are others.
SILENT_S = 2.0
# How long the last words to a client that does not read are kept.
LINGER_S = 10.0

_TERMINATE = ord("X")
_UNREACHABLE = messages.error_response("FATAL", "57P03", "the database server is not accepting connections")


class Session:
    __slots__ = (
        "_client_eof",
        "_connecting",
        "_former",
        "_held",
        "_may_speak",
        "_said",
        "_timer",
        "asking",
        "backend",
        "client",
        "cursors",
        "detour",
        "dialled",
        "encrypted",
        "endpoint",
        "given_up",
        "loan",
        "owed",
        "owed_sequences",
        "pinned",
        "server",
        "server_key",
        "startup",
        "state",
        "tracker",
    )

    def __init__(
        self, endpoint: "Endpoint", *, encrypted: bool, first_bytes: bytes, tracker: SessionTracker | None = None
    ) -> None:
        self.endpoint = endpoint
        self.encrypted = encrypted
        self.state = State.STARTING
        self.tracker = tracker or SessionTracker()
        self.asking = Asking(self)
        self.client = ClientEnd(self, first_bytes)
        self.server: ServerEnd | None = None
        self.backend = endpoint.route.backend  # where ``server`` leads
        self.server_key: BackendKey | None = None  # once the session runs on another backend than it began on
        self.startup: startup.StartupMessage | None = None
        self.detour: Detour | None = None  # where else it can go, as long as no server has taken it
        self.dialled: Dialled | None = None  # a connection to the target, ready to take over
        self.pinned: str | None = None  # why the session cannot be carried; it ends when it is released
        self.owed: Batch | None = None  # state that the new backend gets once it can be written to
        self.cursors: tuple[HeldCursor, ...] = ()  # whose rows are still with the former backend
        self.owed_sequences: Memory | None = None  # what it is to remember of sequences then, and nothing else
        self.loan: Loan | None = None  # while the relay's threads carry it; ``take_back`` ends that
        self.given_up = False  # the client has cancelled what it waits for; it has not begun
        self._held = bytearray()  # from the client, not yet passed on
        self._client_eof = False
        # The server has asked the client for something, or a token has been good: before that it is told nothing but
        # who the client says that it is, for it may take that for the truth.
        self._may_speak = False
        self._connecting: asyncio.Task[None] | None = None
        # By a server that has not said yet whether it asks the client for anything, or PROVING, kept back.
        self._said = b""
        self._former: ServerEnd | None = None  # to the backend that the session has left, not closed yet
        self._timer: asyncio.TimerHandle | None = None  # how long the session may start, or wait

    def __repr__(self) -> str:
        user = self.startup.user.decode(errors="replace") if self.startup else "?"
        return f"<Session {user}@{self.endpoint.name} {self.state.value} pid={self.server_pid}>"

    @property
    def server_pid(self) -> int | None:
        """Process of the backend that serves the session now."""
        key = self.current_key
        return key.pid if key else None

    @property
    def current_key(self) -> BackendKey | None:
        """Cancels what runs now; the client keeps the key it was first given (``tracker.key``)."""
        return self.server_key or self.tracker.key

    @property
    def passed_on(self) -> int:
        """Bytes of the client's that the server has been given: while they are the same, so is the session's state."""
        return bytes_from_client(self) - len(self._held)

    @property
    def is_waited_for(self) -> bool:
        """Its client has asked for something that the server has not been told yet."""
        return bool(self._held)

    @property
    def gives_up_at(self) -> float:
        """When it will have waited too long, in event loop time: who began first gives up first."""
        return self._timer.when() if self._timer is not None else math.inf

    @property
    def is_at_work(self) -> bool:
        """Its client has been passed on to the server, and the server has not come to an end with it."""
        return self.state is State.FLOWING and not self.tracker.safe

    @property
    def unanswered(self) -> bool:
        """Its backend has been sent a start-up packet and has said nothing yet."""
        return (
            self.state is State.FLOWING
            and not self.tracker.logged_in
            and self.server is not None
            and self.server.bytes_total == 0
        )

    @property
    def open(self) -> bool:
        return self.state is not State.CLOSED

    @property
    def flowing(self) -> bool:
        return self.state is State.FLOWING

    # ---------------------------------------------------------------------------------------------------- the opening

    def client_connected(self) -> None:
        self.endpoint.sessions.add(self)
        if self.state is State.STARTING:
            self._timer = asyncio.get_running_loop().call_later(STARTUP_TIMEOUT_S, self.close)

    def _open(self) -> None:
        """Look for the start-up packet in what has arrived."""
        size = startup.packet_size(bytes(self._held[:4]))
        if size is None or len(self._held) < size:
            return
        raw = bytes(self._held[:size])
        packet = startup.read_packet(raw)
        self._stop_timer()
        if isinstance(packet, startup.CancelRequest):
            self.state = State.CANCELLING
            self.endpoint.cancel(packet.key, self.close)
            return
        self.startup = packet
        if self.endpoint.seat(self):
            self._enter(packet)
        else:
            self.close(_UNREACHABLE)

    def _enter(self, packet: startup.StartupMessage) -> None:
        refusal = self.endpoint.refusal(packet, encrypted=self.encrypted)
        if refusal is not None:
            self.close(refusal)
        elif self.endpoint.admits:
            self.connect()
        else:
            self._wait()

    def move_to(self, endpoint: "Endpoint") -> None:
        """No server has seen the client yet: it may as well be that endpoint's."""
        self.endpoint.sessions.discard(self)
        self.endpoint = endpoint
        self.backend = endpoint.route.backend
        endpoint.sessions.add(self)

    def _turn_elsewhere(self) -> bool:
        """The server takes nobody at the moment. Whether there is another one that the client can be sent to."""
        if self.detour is None or self.startup is None or not self.detour.take(self):
            return False
        self._enter(self.startup)
        return True

    def _wait(self) -> None:
        self.state = State.WAITING
        self._limit_waiting()

    def _limit_waiting(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.endpoint.limits.max_wait_s, self._waited_too_long)

    def _waited_too_long(self) -> None:
        self.endpoint.counters.waited_too_long += 1
        if self.state is State.WAITING:
            self.fail("57P03", "the database system is not accepting connections", detail="A switchover is under way.")
        else:
            detail = "The request waited too long for the end of a switchover. It has not been executed."
            self.fail("57P01", "terminating connection due to administrator command", detail=detail)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connect(self) -> None:
        """STARTING, WAITING -> CONNECTING."""
        self._stop_timer()
        self.state = State.CONNECTING
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def wait(self) -> None:
        """CONNECTING -> WAITING: the endpoint is being parked, and the server has not seen this client yet."""
        if self._connecting is not None:
            self._connecting.cancel()
        self._wait()

    async def _connect(self) -> None:
        backend = self.backend = self.endpoint.route.backend
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, end = await loop.create_unix_connection(lambda: ServerEnd(self), backend.socket_path)
        except OSError as error:
            log.warning("backend.unreachable", endpoint=self.endpoint.name, error=repr(error))
            if self.state is State.CONNECTING and not self._turn_elsewhere():
                self.close(_UNREACHABLE)
            return
        if self.state is not State.CONNECTING:
            end.drop()
            return
        self.server = end
        self._may_speak = False
        end.feed, end.write = _unheard, partial(self._first_words, end)
        # Of what has been held only the start-up packet.
        assert self.startup is not None  # noqa: S101  connect() comes after _open()
        packet_size = startup.packet_size(bytes(self._held[:4])) or 0
        packet = bytes(self._held[:packet_size])
        end.transport.write(packet)
        del self._held[:packet_size]
        if self.detour is not None:
            self.detour.packet = packet
            loop.call_later(SILENT_S, self._silent, end)
        try:
            self._flow()
        except ProtocolError as error:
            self.fail_protocol(error)

    def _first_words(self, server: ServerEnd, data: bytes) -> None:
        """Whether the server takes the client, where there is another one; and whether it asks it for anything."""
        if self.detour is not None and messages.takes_nobody(data) and self._is_unheard():
            if not self._go_elsewhere(server):
                self.close(data)
            return
        self.detour = None
        said = self._said + data
        try:
            words = first_words(said)
            if words is None:
                self._said = said
                return
            heard = len(said) if words.asked else words.prelude
            self._said = said[heard:]
            self._may_speak = words.asked
            self._listen(server, said[:heard])
            if not words.asked:
                self._prove(server)
            elif self.state is State.FLOWING:
                self._speak()
        except ProtocolError as error:
            self.fail_protocol(error)

    def _listen(self, server: ServerEnd, said: bytes) -> None:
        """The client hears the server from here on, ``said`` first."""
        server.feed = self.tracker.server_data
        server.write = self.client.transport.write
        if said:
            server.bytes_total -= len(said)
            server.data_received(said)

    def _silent(self, server: ServerEnd) -> None:
        """It has had the time for an answer."""
        if self.server is server and self._is_unheard() and self.detour is not None:
            log.warning("backend.silent", endpoint=self.endpoint.name)
            if self.detour.turn_from(self.endpoint):
                self._go_elsewhere(server)

    def _is_unheard(self) -> bool:
        """The client has heard nothing yet, and has said nothing but who it is."""
        return self.flowing and self.detour is not None and self.passed_on == len(self.detour.packet)

    def _go_elsewhere(self, server: ServerEnd) -> bool:
        server.drop()
        self.server = self.client.write = None
        if self.detour is not None:
            self._held[:0] = self.detour.packet
        return self._turn_elsewhere()

    # -------------------------------------------------------------------------------------------------------- a token

    def _prove(self, server: ServerEnd) -> None:
        """FLOWING, STOPPING -> PROVING: the server asks nothing of this client, so we do."""
        if not self.open or self.startup is None:
            return
        if not self.endpoint.route.token_logins:
            self._refuse("the server asks nothing of the user, and the endpoint takes no tokens")
        elif not self.encrypted:
            self.close(self.endpoint.rejects_plain(self.startup))
        else:
            server.write = self.client.write = None
            server.after = None
            server.transport.pause_reading()
            self.state = State.PROVING
            self._timer = asyncio.get_running_loop().call_later(STARTUP_TIMEOUT_S, self.close)
            self.client.transport.write(messages.CLEARTEXT_PASSWORD)
            self._look_for_token()

    def _look_for_token(self) -> None:
        found = read_password(bytes(self._held))
        if found is None or self.server is None or self.startup is None:
            return
        token, size = found
        del self._held[:size]
        try:
            signer = self.endpoint.verifier.check(token, self.startup.user, self.endpoint.route)
        except TokenRefused as refused:
            self._refuse(str(refused))
            return
        log.info("token.accepted", endpoint=self.endpoint.name, access_key_id=signer)
        kept_back, self._said = self._said, b""
        self._may_speak = True
        self._flow()
        self._listen(self.server, kept_back)
        self.server.transport.resume_reading()
        park = self.endpoint.park
        if park is not None and not park.released and self.state is State.FLOWING:
            self.stop()

    def _refuse(self, why: str) -> None:
        """In RDS's words, which say nothing of the reason."""
        user = self.startup.user.decode(errors="replace") if self.startup is not None else ""
        log.warning("token.refused", endpoint=self.endpoint.name, reason=why)
        self.fail("28000", f'PAM authentication failed for user "{user}"')

    # ------------------------------------------------------------------------------------------------ the client's end

    def hold(self, data: bytes) -> None:
        """Bytes from the client while the session does not flow."""
        if self.state is State.CLOSED:
            return
        self._held += data
        try:
            match self.state:
                case State.STARTING:
                    self._open()
                case State.PROVING:
                    self._look_for_token()
                case State.STOPPING:
                    self._advance()
                case State.PARKED if self._held[0] == _TERMINATE:
                    self.close()
                case State.PARKED:
                    self._limit_waiting()
                case _:
                    pass
        except ProtocolError as error:
            self.fail_protocol(error)
        if len(self._held) > MAX_HELD_BYTES and not self.client.transport.is_closing():
            self.client.transport.pause_reading()

    def client_eof(self) -> bool:
        """The client sends no more. True keeps its connection, so that it may still read (plain TCP only)."""
        self._client_eof = True
        if self.encrypted:
            self.close()  # TLS transports cannot be half closed: there is nobody to answer
            return False
        match self.state:
            case State.FLOWING:
                if self._may_speak:
                    self._pass_eof()
            case State.STOPPING:
                self._advance()
            case State.PARKED if self._held:
                pass  # it has asked something: that is answered after the release
            case _:
                self.close()
        return self.state is not State.CLOSED

    def client_lost(self, exc: Exception | None) -> None:
        if self.state is not State.CLOSED and exc is not None:
            log.info("client.lost", endpoint=self.endpoint.name, error=repr(exc))
        self.close()
        self.endpoint.departing.discard(self)

    def client_congested(self, congested: bool) -> None:
        if self.server is None or self.server.transport.is_closing():
            return
        if not congested:
            self.server.transport.resume_reading()
        elif not self.asking.under_way:
            self.server.transport.pause_reading()

    def _pass_eof(self) -> None:
        if self.server is not None:
            self.server.end_input()

    # ------------------------------------------------------------------------------------------------- the server's end

    def read(self, data: bytes) -> None:
        """Bytes from the server while an exchange of ours is under way."""
        try:
            rest = self.asking.read(data)
        except ProtocolError as error:
            self.fail_protocol(error)
            return
        if rest is not None and self.server is not None:
            self._hear_again(self.server, rest)
            if not (self.tracker.safe and self._held):  # else it is still here
                self._cancel_what_waited()
            if self.state is State.STOPPING:
                self._advance()  # it was let go and stopped again meanwhile
            else:
                offer(self)

    def server_lost(self, exc: Exception | None) -> None:
        if self.server is not None and self._is_unheard() and self._go_elsewhere(self.server):
            return
        if self.open:
            log.info("backend.closed", endpoint=self.endpoint.name, pid=self.server_pid, error=repr(exc or ""))
        if exc is not None:
            # The server went away as a request was written to it. If it said why, that is lost with its socket: the
            # client shall at least hear that it was the server.
            self.fail("08006", "the connection to the database server was lost")
        else:
            self.close()

    def server_congested(self, congested: bool) -> None:
        if self.client.transport.is_closing():
            return
        if congested:
            self.client.transport.pause_reading()
        elif len(self._held) <= MAX_HELD_BYTES:
            self.client.transport.resume_reading()

    # ------------------------------------------------------------------------------------------------------ safe points

    def _flow(self) -> None:
        """Pass on what was held, then let the two ends talk."""
        assert self.server is not None  # noqa: S101  only sessions with a server flow
        self.state = State.FLOWING
        self._stop_timer()
        self.server.after = None
        if self._may_speak:
            self._speak()
        if not self.client.transport.is_closing() and self.server.transport.get_write_buffer_size() <= MAX_HELD_BYTES:
            self.client.transport.resume_reading()
        if not self._client_eof:
            offer(self)

    def _speak(self) -> None:
        """To the server, what was held first."""
        assert self.server is not None  # noqa: S101  only sessions with a server flow
        if self._held:
            held = bytes(self._held)
            self._held.clear()
            self.tracker.client_data(held)
            self.server.transport.write(held)
            self._cancel_what_waited()
        self.client.write = self.server.transport.write
        if self._client_eof:
            self._pass_eof()

    def _cancel_what_waited(self) -> None:
        """The server has been given it."""
        if self.given_up:
            self.given_up = False
            self.endpoint.cancel_what_waited(self)

    @property
    def client_is_slow(self) -> bool:
        """It has not read what it was sent: nothing more is read for it."""
        return self.client.transport.get_write_buffer_size() > MAX_HELD_BYTES

    @property
    def half_closed(self) -> bool:
        """The client sends no more."""
        return self._client_eof

    def stop(self) -> None:
        """FLOWING -> STOPPING, and on to PARKED at the next safe point, which may be now."""
        assert self.server is not None  # noqa: S101  only sessions with a server flow
        take_back(self)
        self.state = State.STOPPING
        self.client.write = None
        self.server.after = self._advance
        self._advance()

    def _advance(self) -> None:
        """STOPPING: pass the client's bytes on one request at a time, until the session is safe."""
        while self.state is State.STOPPING and not self.asking.under_way:
            if self.tracker.safe:
                self._reached()
                return
            if not self._held or not self._may_speak or not self.tracker.needs_client:
                break
            self._pass_request()
        if self._client_eof and not self._held and self.state is State.STOPPING:
            self._pass_eof()

    def _pass_request(self) -> None:
        assert self.server is not None  # noqa: S101  only sessions with a server stop
        consumed = self.tracker.client_data(bytes(self._held), stop=True)
        self.server.transport.write(bytes(self._held[:consumed]))
        del self._held[:consumed]
        if (
            len(self._held) <= MAX_HELD_BYTES
            and not self.client.transport.is_closing()
            and self.server.transport.get_write_buffer_size() <= MAX_HELD_BYTES
        ):
            self.client.transport.resume_reading()

    def _reached(self) -> None:
        if self.tracker.in_doubt:
            self.endpoint.settle(self)
            return
        assert self.server is not None  # noqa: S101  only sessions with a server stop
        self.state = State.PARKED
        self.server.after = None
        if (self._held and self._held[0] == _TERMINATE) or (self._client_eof and not self._held):
            self.close()
            return
        if self._held:
            self._limit_waiting()
        self.endpoint.session_parked(self)

    def settled(self) -> None:
        """The doubt about what the server owes has been removed by an exchange."""
        self.tracker.in_doubt = False
        self._advance()

    def resume(self) -> None:
        """STOPPING, PARKED -> FLOWING; WAITING -> CONNECTING. A session that could not be carried ends."""
        try:
            if self.state is State.WAITING:
                self.connect()
            elif self.pinned is not None:
                self.fail("57P01", "terminating connection due to administrator command", detail=self.pinned)
            elif self.state in (State.STOPPING, State.PARKED):
                self._flow()
        except ProtocolError as error:
            self.fail_protocol(error)

    # --------------------------------------------------------------------------------------------- asking, handing over

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]:
        """As ``Asking.ask``."""
        return await self.asking.ask(batch, syncs)

    def _hear_again(self, server: ServerEnd, rest: bytes) -> None:
        """What the server sends is the client's again, from the bytes on that have been read already."""
        server.write = self.client.transport.write
        if self.client_is_slow:
            server.transport.pause_reading()
        if rest:
            server.bytes_total -= len(rest)
            server.data_received(rest)

    def adopt(self, dialled: "Dialled") -> None:
        """PARKED: from now on the session runs on the dialled connection. The old one is closed by ``leave_former``:
        the ends of as many server processes would take their time from those who wait for the release."""
        assert self.server is not None  # noqa: S101  parked sessions have one
        self.leave_former()
        self._former = self.server
        self._former.mute()
        self.dialled = None
        self.owed = dialled.owed
        self.cursors = dialled.given.cursors if dialled.given is not None else ()
        self.owed_sequences = dialled.owed_sequences
        self.backend = dialled.backend
        self.server, self.server_key, rest = dialled.give_away(self)
        self.server.feed = self.tracker.server_data
        for name, value in dialled.parameters.items():
            # A target that is still a standby says so; it will say itself when it no longer is one.
            if name != b"in_hot_standby" and self.tracker.parameters.get(name) != value:
                self.tracker.parameters[name] = value
                self.client.transport.write(messages.parameter_status(name, value))
        self._hear_again(self.server, rest)

    @property
    def former(self) -> Former | None:
        """The backend that the session has left, as long as it can be asked."""
        return None if self._former is None else Former(self._former)

    def leave_former(self) -> None:
        former, self._former = self._former, None
        if former is not None:
            former.drop(messages.TERMINATE)

    def leave_server(self) -> None:
        """PARKED, and nowhere to go on: the old connection is closed, the client hears of it when it is released."""
        if self.server is not None:
            self.server.drop(messages.TERMINATE)
            self.server = None

    def forget_replay(self) -> None:
        """The session goes on where it was: what its dialled connection was given may soon be out of date."""
        if self.dialled is not None:
            self.dialled.carries = False
            if self.dialled.of_unknown_state or self.dialled.locks:
                self.close_dialled()

    def close_dialled(self) -> None:
        if self.dialled is not None:
            self.dialled.close()
            self.dialled = None

    # ------------------------------------------------------------------------------------------- moving to a successor

    @property
    def movable(self) -> bool:
        """PARKED, and what its two connections still have to be sent has been sent: the descriptors of the connections
        and ``succession.luggage`` are all that there is of it."""
        return (
            self.state is State.PARKED
            and not self.encrypted  # what TLS knows is in this process
            and not self._client_eof
            and self.pinned is None
            and self.owed is None
            and not self.cursors
            and self.owed_sequences is None
            and self.server is not None
            and not self.server.ended
            and not self.client.transport.is_closing()
            and not self.server.transport.is_closing()
            and not self.client.transport.get_write_buffer_size()
            and not self.server.transport.get_write_buffer_size()
        )

    @property
    def held(self) -> bytes:
        """From the client, not yet passed on."""
        return bytes(self._held)

    def settle_in(self, held: bytes) -> None:
        """STARTING -> PARKED in the process that takes the session over, before its client's transport is made."""
        self.state = State.PARKED
        self._may_speak = True
        self._held += held

    def surrender(self) -> None:
        """PARKED -> CLOSED without a word to either side: both connections are another process's now."""
        self.state = State.CLOSED
        self._stop_timer()
        self.close_dialled()
        self.leave_former()
        if self.server is not None:
            self.server.drop()
        self.client.transport.close()

    # -------------------------------------------------------------------------------------------------------- the end

    def fail_protocol(self, error: ProtocolError) -> None:
        log.warning(
            "session.protocol_violated", endpoint=self.endpoint.name, error=str(error), kind=type(error).__name__
        )
        self.fail("08P01", str(error))

    def fail(self, sqlstate: str, text: str, *, detail: str = "") -> None:
        self.close(messages.error_response("FATAL", sqlstate, text, detail=detail))

    def close(self, farewell: bytes = b"") -> None:
        """Any state -> CLOSED: both connections go, after the client has been sent what is due to it."""
        if self.state is State.CLOSED:
            return
        take_back(self)
        self.state = State.CLOSED
        self.client.write = None
        self._stop_timer()
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()
        self.asking.end()
        self.close_dialled()
        self.leave_former()
        if self.server is not None:
            self.server.drop(messages.TERMINATE if self.tracker.quiet else b"")
        # In the middle of a row the client would take it for a part of that row.
        self._close_client(farewell if self.tracker.server_at_boundary else b"")
        self.endpoint.session_closed(self)

    def _close_client(self, farewell: bytes) -> None:
        transport = self.client.transport
        if transport.is_closing():
            return
        if farewell:
            transport.write(farewell)
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER_S, transport.abort)
        transport.close()


def _unheard(_data: bytes) -> None:
    """What a server says is for nobody's ears until it has said that it takes the client."""
