"""A second connection for a session, to the target, logged in as the session's user without a password."""

import asyncio
from typing import TYPE_CHECKING

from verdigris.domain.ports import BackendAddress
from verdigris.router.ends import ServerEnd, ServerOwner
from verdigris.router.exchange import Exchange, Frame
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.errors import ProtocolError, RemoteProtocolError
from verdigris.wire.postgres.framing import FrameReader
from verdigris.wire.postgres.login import ClientLogin, Credential, dial_parameters
from verdigris.wire.postgres.messages import BackendKey
from verdigris.wire.postgres.startup import PROTOCOL_3_0, StartupMessage, startup_message

if TYPE_CHECKING:
    from verdigris.router.state.examine import Portable
    from verdigris.router.state.replay import Batch
    from verdigris.router.state.sequences import Memory

_PARAMETER_STATUS = ord("S")
# What a server says by itself to a connection that does nothing.
_MAX_UNASKED_BYTES = 1024 * 1024


class Dialled:
    """Logged in, idle, and waiting to take over a session; or already given to one."""

    __slots__ = (
        "_exchange",
        "_logged_in",
        "_login",
        "_reader",
        "as_of",
        "backend",
        "carries",
        "end",
        "given",
        "key",
        "locks",
        "lost",
        "owed",
        "owed_sequences",
        "parameters",
        "remembers",
        "replays",
        "warm",
    )

    def __init__(self, backend: BackendAddress, login: ClientLogin) -> None:
        self.backend = backend
        self.end = ServerEnd(self)
        self.key: BackendKey | None = None
        self.parameters = login.parameters
        self.replays = 0  # how often it has been given a session's state, or a part of it
        self.given: Portable | None = None  # the state that it has, if it is known
        self.as_of: int | None = None  # how much the client had said when its session had that state
        self.owed: Batch | None = None  # what of it a standby does not take
        self.remembers: Memory | None = ()  # of sequences; None: unknown
        self.owed_sequences: Memory | None = None  # what of that a standby does not take
        self.locks = False  # it may hold advisory locks
        self.carries = False  # that is the session's state now
        self.warm = False  # it has planned what its session has prepared
        self.lost = False
        self._login: ClientLogin | None = login
        self._logged_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = FrameReader(_MAX_UNASKED_BYTES)
        self._exchange: Exchange | None = None

    @property
    def had_another(self) -> bool:
        """It has been given a state before the one that it was given last."""
        return self.replays > 1

    @property
    def of_unknown_state(self) -> bool:
        """A replay was begun and not finished."""
        return self.replays > 0 and self.given is None

    @property
    def in_recovery(self) -> bool:
        """The target is a standby still (``in_hot_standby`` is reported from PostgreSQL 14 on)."""
        return self.parameters.get(b"in_hot_standby") == b"on"

    async def log_in(self, packet: bytes) -> None:
        """Raises ``CannotLogIn``, ``LoginRefused``, ``RemoteProtocolError`` or ``ConnectionError``."""
        self.end.transport.write(packet)
        await self._logged_in

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]:
        """As ``Session.ask``."""
        if self.lost:
            raise ConnectionError("the connection to the target was lost")
        if self._exchange is not None:
            # Neither could tell its answers from the other's, and the last of them would be taken for the client's.
            self.close()
            raise ConnectionError("the connection to the target was asked two things at a time")
        exchange = self._exchange = Exchange(syncs, self._unasked)
        exchange.feed(self._reader.rest())
        self.end.transport.write(batch)
        try:
            return await exchange.answers()
        finally:
            if not exchange.complete:
                self.close()  # nobody else will read the rest

    def give_away(self, owner: ServerOwner) -> tuple[ServerEnd, BackendKey | None, bytes]:
        """Hand the connection over, with its key and the beginning of a message that may have been read already."""
        self.end.owner = owner
        return self.end, self.key, self._reader.rest()

    def close(self) -> None:
        self.lost = True
        self.carries = False
        self.end.drop(messages.TERMINATE)
        self._fail(ConnectionError("the connection was closed"))

    def _unasked(self, code: int, body: bytes) -> None:
        if code == _PARAMETER_STATUS:
            name, value = messages.read_parameter_status(body)
            self.parameters[name] = value

    def _fail(self, error: Exception) -> None:
        if self._exchange is not None:
            self._exchange.fail(error)
        if not self._logged_in.done():
            self._logged_in.set_exception(error)
            self._logged_in.exception()  # retrieved: whoever dialled may be gone

    # ------------------------------------------------------------------------------------------- what its end tells it

    def read(self, data: bytes) -> None:
        try:
            if self._exchange is not None:
                self._exchange.feed(data)
                if self._exchange.complete:
                    self._reader = FrameReader(_MAX_UNASKED_BYTES)
                    self._reader.keep(self._exchange.rest())
                    self._exchange = None
                return
            for code, body in self._reader.feed(data):
                if self._login is None:
                    self._unasked(code, body)
                else:
                    self._proceed(self._login, code, body)
        except ProtocolError as error:
            self.fail_protocol(error)

    def _proceed(self, login: ClientLogin, code: int, body: bytes) -> None:
        answer = login.receive(code, body)
        if answer:
            self.end.transport.write(answer)
        if login.done:
            self.key = login.key
            self._login = None
            if not self._logged_in.done():
                self._logged_in.set_result(None)

    def fail_protocol(self, error: ProtocolError) -> None:
        self._fail(error)
        self.close()

    def server_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.carries = False
        self._fail(ConnectionError(f"the target closed the connection: {exc!r}"))

    def server_congested(self, congested: bool) -> None:
        """What is sent is one batch, built already: there is nothing to hold back."""


async def dial(
    backend: BackendAddress, startup: StartupMessage, credential: Credential, *, protocol_minor: int | None
) -> Dialled:
    """Connect to ``backend`` and log in as the client did.

    Raises ``CannotLogIn``, ``LoginRefused``, ``RemoteProtocolError`` or ``OSError``.
    """
    login = ClientLogin(credential)
    dialled = Dialled(backend, login)
    await asyncio.get_running_loop().create_unix_connection(lambda: dialled.end, backend.socket_path)
    version = startup.version if protocol_minor is None else PROTOCOL_3_0 | protocol_minor
    try:
        await dialled.log_in(startup_message(version, dial_parameters(startup.parameters)))
    except BaseException:
        dialled.close()
        raise
    if dialled.lost:
        raise RemoteProtocolError("the target closed the connection as soon as it was made")
    return dialled
