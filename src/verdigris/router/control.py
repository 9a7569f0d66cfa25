"""The control socket: takes commands for ``RouterService`` and checks who may still give them."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import msgspec
import structlog

from verdigris.domain.errors import ControllerSuperseded, VerdigrisError
from verdigris.router import messages
from verdigris.router.acceptor import Acceptor
from verdigris.router.service import RouterService

log = structlog.get_logger()

_BACKLOG = 128
# These wait for others and undo what they did when cancelled; everything else is run to its end.
_CANCELLABLE = (messages.GetPins, messages.Park, messages.Ready, messages.HandOver)


def bind_private(path: Path) -> socket.socket:
    """A listening unix socket that only its owner may connect to. The caller holds the lock on its directory."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    before = os.umask(0o177)  # the socket is made with its mode: there is no moment in which others may connect
    try:
        listener.bind(os.fspath(path))
    finally:
        os.umask(before)
    listener.listen(_BACKLOG)
    return listener


class ControlServer:
    def __init__(self, service: RouterService, listener: socket.socket) -> None:
        self._service = service
        self._acceptor = Acceptor(listener, self._serve, "control")
        self._running: set[asyncio.Task[object]] = set()

    def open(self) -> None:
        self._acceptor.start()

    def pause(self) -> None:
        """Leave new commands to whoever else has the socket."""
        self._acceptor.stop()

    async def settled(self) -> None:
        """Wait until the commands that have been taken are answered."""
        while self._acceptor.serving:
            await asyncio.wait(set(self._acceptor.serving))

    def close(self) -> None:
        self._acceptor.stop()
        self._acceptor.listener.close()

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        try:
            reply = await self._answer(reader)
            if reply is not None:
                writer.write(messages.encode(reply))
                await writer.drain()
        except (asyncio.IncompleteReadError, msgspec.MsgspecError, ValueError, OSError) as error:
            log.warning("control.failed", error=repr(error))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> messages.Reply | None:
        """None: the client went away before the command was done, and it has been cancelled."""
        hello = messages.COMMANDS.decode(await messages.read(reader))
        command = messages.COMMANDS.decode(await messages.read(reader))
        if not isinstance(hello, messages.Hello):
            return messages.Failed("VerdigrisError", "a connection begins with Hello")
        task = asyncio.get_running_loop().create_task(self._perform(hello, command))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and isinstance(command, _CANCELLABLE):
                task.cancel()
            await asyncio.wait({task})
        finally:
            gone.cancel()
        if task.cancelled():
            log.info("command.cancelled", command=type(command).__name__)
            return None
        return _reply(command, task)

    async def _perform(self, hello: messages.Hello, command: messages.Command) -> object:
        service = self._service
        if hello.epoch < service.epoch:
            raise ControllerSuperseded(f"epoch {hello.epoch} is past: the router obeys epoch {service.epoch}")
        if hello.epoch > service.epoch:
            await service.raise_epoch(hello.epoch)
        return await _dispatch(service, command)


async def _dispatch(service: RouterService, command: messages.Command) -> object:
    match command:
        case messages.Hello():
            pass
        case messages.ListRoutes():
            return await service.routes()
        case messages.PutRoute(route):
            await service.put_route(route)
        case messages.SetTokenKeys(keys):
            service.verifier.given = keys
        case messages.RemoveRoute(name):
            await service.remove_route(name)
        case messages.RenameRoute(name, new_name):
            await service.rename_route(name, new_name)
        case messages.Disconnect(name):
            await service.disconnect(name)
        case messages.GetSessions(name):
            return await service.sessions(name)
        case messages.GetPins(name, verifiers, budget_s):
            return await service.pins(name, verifiers, budget_s=budget_s)
        case messages.Ready(name, target, verifiers, helpers):
            return await service.ready(name, target, verifiers, helpers)
        case messages.Park(name, budget_s, lease_s, leave_stragglers, asked_at_s):
            left_s = _left_s(lease_s, asked_at_s)
            outcome = await service.park(name, budget_s=budget_s, lease_s=left_s, leave_stragglers=leave_stragglers)
            return messages.ParkOutcome.of(outcome)
        case messages.Hold(name):
            await service.hold(name)
        case messages.Admit(name):
            await service.admit(name)
        case messages.Answered(name):
            await service.answered(name)
        case messages.Renew(generation, lease_s, asked_at_s):
            await service.renew(generation, lease_s=_left_s(lease_s, asked_at_s))
        case messages.HandOver(generation):
            return await service.hand_over(generation)
        case messages.Commit(generation, routes, hold, leave_nobody, along):
            await service.commit(generation, routes, hold=hold, leave_nobody=leave_nobody, along=along)
        case messages.Release(generation, admit):
            return await service.release(generation, admit=admit)
        case messages.Abort(generation, admit):
            await service.abort(generation, admit=admit)
        case messages.Unready(name):
            await service.unready(name)
        case messages.GetStatistics():
            return await service.statistics()
    return None


def _reply(command: messages.Command, task: "asyncio.Task[object]") -> messages.Reply:
    error = task.exception()
    if error is None:
        return messages.Answer(msgspec.Raw(msgspec.msgpack.encode(task.result())))
    if not isinstance(error, VerdigrisError):
        log.error("command.failed", command=type(command).__name__, exc_info=error)
    return messages.Failed(type(error).__name__, str(error))


def _left_s(lease_s: float, asked_at_s: float | None) -> float:
    """None: a control plane of before does not say."""
    if asked_at_s is None:
        return lease_s
    passed_s = asyncio.get_running_loop().time() - asked_at_s
    return max(lease_s - max(passed_s, 0.0), 0.0)
