"""Implements ``domain.ports.Router`` for the control plane, over the router's control socket."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import TypeVar, cast

import msgspec

from verdigris.domain.errors import ControllerSuperseded, ParkBroken, PortInUse, StepFailed, VerdigrisError
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
    TokenKeys,
)
from verdigris.router import messages
from verdigris.router.errors import NotAbortable, RouteConflict, RouterUnavailable
from verdigris.router.paths import RouterPaths

T = TypeVar("T")

# What the router may answer with instead of a result.
ERRORS: dict[str, type[VerdigrisError]] = {
    error.__name__: error
    for error in (ControllerSuperseded, ParkBroken, PortInUse, StepFailed, RouteConflict, NotAbortable)
}

# The router answers these at once unless the machine is in trouble; park, ready and hand_over take as long as their
# caller lets them.
ANSWER_TIMEOUT_S = 30.0
# After a connection lost in the middle of a commit: how long to ask whether it was made.
_ENQUIRY_S = 5.0
_ENQUIRY_PAUSE_S = 0.05


class RouterClient:
    """One connection for each call: cancelling the call closes it, which makes the router undo a wait."""

    def __init__(self, home: Path, epoch: int) -> None:
        self._path = RouterPaths(home).control_socket
        self._epoch = epoch

    # ----------------------------------------------------------------------------------------------------------- routes

    async def routes(self) -> list[Route]:
        return await self._ask(messages.ListRoutes(), list[Route])

    async def put_route(self, route: Route) -> None:
        await self._ask(messages.PutRoute(route), NoneType)

    async def set_token_keys(self, keys: TokenKeys) -> None:
        await self._ask(messages.SetTokenKeys(keys), NoneType)

    async def remove_route(self, name: str) -> None:
        await self._ask(messages.RemoveRoute(name), NoneType)

    async def rename_route(self, name: str, new_name: str) -> None:
        await self._ask(messages.RenameRoute(name, new_name), NoneType)

    async def disconnect(self, name: str) -> None:
        await self._ask(messages.Disconnect(name), NoneType)

    async def sessions(self, name: str) -> RouterSessions:
        return await self._ask(messages.GetSessions(name), RouterSessions)

    async def statistics(self) -> messages.Statistics:
        return await self._ask(messages.GetStatistics(), messages.Statistics)

    async def pins(self, name: str, verifiers: Mapping[str, str], *, budget_s: float) -> PinReport:
        command = messages.GetPins(name, dict(verifiers), budget_s)
        return await self._ask(command, PinReport, timeout_s=budget_s + ANSWER_TIMEOUT_S)

    # ------------------------------------------------------------------------------------------------------- switchover

    async def ready(
        self, name: str, target: BackendAddress, verifiers: Mapping[str, str], helpers: Helpers | None = None
    ) -> ReadyReport:
        command = messages.Ready(name, target, dict(verifiers), helpers)
        return await self._ask(command, ReadyReport, timeout_s=None)

    async def park(
        self, name: str, *, budget_s: float, lease_s: float, leave_stragglers: bool = False
    ) -> Parked | ParkRefused:
        command = messages.Park(name, budget_s, lease_s, leave_stragglers, asyncio.get_running_loop().time())
        outcome = await self._ask(command, messages.ParkOutcome, timeout_s=budget_s + ANSWER_TIMEOUT_S)
        result = outcome.parked or outcome.refused
        if result is None:
            raise RouterUnavailable("the router answered a park with neither")
        return result

    async def hold(self, name: str) -> None:
        await self._ask(messages.Hold(name), NoneType)

    async def admit(self, name: str) -> None:
        await self._ask(messages.Admit(name), NoneType)

    async def answered(self, name: str) -> None:
        await self._ask(messages.Answered(name), NoneType)

    async def renew(self, generation: int, *, lease_s: float) -> None:
        await self._ask(messages.Renew(generation, lease_s, asyncio.get_running_loop().time()), NoneType)

    async def hand_over(self, generation: int) -> HandoverReport:
        return await self._ask(messages.HandOver(generation), HandoverReport, timeout_s=None)

    async def commit(
        self,
        generation: int,
        routes: Sequence[Route],
        *,
        hold: bool,
        leave_nobody: bool = False,
        along: Sequence[int] = (),
    ) -> None:
        """If the connection is lost before the answer, the route table says what happened; when it cannot be asked,
        ``RouterUnavailable`` means: not known."""
        try:
            await self._ask(messages.Commit(generation, tuple(routes), hold, leave_nobody, tuple(along)), NoneType)
        except RouterUnavailable:
            if not await self._was_committed(routes):
                raise ParkBroken(f"generation {generation} was not committed: the router did not survive it") from None

    async def _was_committed(self, routes: Sequence[Route]) -> bool:
        async with asyncio.timeout(_ENQUIRY_S) as limit:
            while True:
                try:
                    present = await self.routes()
                except RouterUnavailable:
                    deadline = limit.when()
                    if deadline is not None and asyncio.get_running_loop().time() + _ENQUIRY_PAUSE_S > deadline:
                        raise
                    await asyncio.sleep(_ENQUIRY_PAUSE_S)
                else:
                    return all(route in present for route in routes)

    async def release(self, generation: int, *, admit: bool = True) -> Mapping[str, int]:
        # A router of another version, which is not replaced in the middle of a switchover, may answer with nothing.
        kind = cast("type[dict[str, int] | None]", dict[str, int] | None)
        return await self._ask(messages.Release(generation, admit), kind) or {}

    async def abort(self, generation: int, *, admit: bool = True) -> None:
        await self._ask(messages.Abort(generation, admit), NoneType)

    async def unready(self, name: str) -> None:
        await self._ask(messages.Unready(name), NoneType)

    # ------------------------------------------------------------------------------------------------------- the socket

    async def _ask(self, command: messages.Command, kind: type[T], *, timeout_s: float | None = ANSWER_TIMEOUT_S) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._converse(command)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise RouterUnavailable(f"the router does not answer on {self._path}: {error!r}") from error
        if isinstance(reply, messages.Failed):
            raise ERRORS.get(reply.error, VerdigrisError)(reply.text)
        return msgspec.msgpack.decode(reply.value, type=kind)

    async def _converse(self, command: messages.Command) -> messages.Reply:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(messages.encode(messages.Hello(self._epoch)) + messages.encode(command))
            return messages.REPLIES.decode(await messages.read(reader))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
