"""The backend that a session has left: asked once more for what can only be read by using it up."""

from verdigris.router.ends import ServerEnd
from verdigris.router.exchange import Exchange, Frame
from verdigris.wire.postgres.errors import ProtocolError


class Former:
    """An ``Asker``. What the server says besides is for nobody."""

    def __init__(self, end: ServerEnd) -> None:
        self._end = end
        self._exchange: Exchange | None = None
        end.owner = self
        end.write = None

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]:
        """As ``Session.ask``."""
        transport = self._end.transport
        if transport.is_closing():
            raise ConnectionError("the connection to the former backend is closed")
        exchange = self._exchange = Exchange(syncs, _ignore)
        transport.resume_reading()
        transport.write(batch)
        return await exchange.answers()

    def read(self, data: bytes) -> None:
        if self._exchange is not None:
            try:
                self._exchange.feed(data)
            except ProtocolError as error:
                self.fail_protocol(error)

    def fail_protocol(self, error: ProtocolError) -> None:
        self._fail(error)
        self._end.drop()

    def server_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"the former backend closed the connection: {exc!r}"))

    def server_congested(self, congested: bool) -> None:
        """What is sent to it is short."""

    def _fail(self, error: Exception) -> None:
        if self._exchange is not None:
            self._exchange.fail(error)


def _ignore(_code: int, _body: bytes) -> None:
    """Notices and notifications: the session has heard what was due to it before it left."""
