"""Where a router listens for the one that shall replace it."""

import asyncio
import socket

from verdigris.router.acceptor import Acceptor
from verdigris.router.control import ControlServer
from verdigris.router.seat import Seat
from verdigris.router.service import RouterService
from verdigris.router.succession.retirement import Retirement


class SuccessionServer:
    """``replaced`` is set once another process is the router and nobody is left here."""

    def __init__(self, service: RouterService, control: ControlServer, seat: Seat) -> None:
        self.replaced = asyncio.Event()
        self._service, self._control, self._seat = service, control, seat
        self._acceptor = Acceptor(seat.succession, self._serve, "succession")
        self._retirement: Retirement | None = None

    def open(self) -> None:
        self._acceptor.start()

    async def stop(self) -> bool:
        """The process is told to end; whether it is the router."""
        self._acceptor.stop()
        return await self._retirement.stop() if self._retirement is not None else True

    async def _serve(self, connection: socket.socket) -> None:
        """One at a time: another one waits for the outcome, and is then served by whoever is the router."""
        if self._retirement is not None:
            connection.close()
            return
        self._acceptor.stop()
        self._retirement = retirement = Retirement(self._service, self._control, self._seat, connection)
        try:
            is_replaced = await retirement.run()
        finally:
            retirement.close()
        if is_replaced:
            self.replaced.set()
        else:
            self._retirement = None
            self._acceptor.start()
