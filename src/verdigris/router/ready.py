"""Dialling the target for every live session before anybody is stopped, and naming those that will not come along."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from verdigris.domain.ports import ReadyReport
from verdigris.router.dial import Dialled, dial
from verdigris.router.exchange import Frame
from verdigris.router.pace import without_hurry
from verdigris.router.pins import PinReason
from verdigris.router.state.examine import NotAsked, Portable, examine
from verdigris.router.state.replay import replay
from verdigris.router.state.sequences import carry_sequences
from verdigris.router.state.survey import StateUnreadable, survey
from verdigris.router.state.warming import warm_plans
from verdigris.router.states import State
from verdigris.wire.postgres.errors import ProtocolError
from verdigris.wire.postgres.login import CannotLogIn, Credential

if TYPE_CHECKING:
    from verdigris.router.endpoint import Endpoint
    from verdigris.router.session import Session

log = structlog.get_logger()

DIAL_TIMEOUT_S = 10.0
# A client that works hard is between two requests every few milliseconds; one that is not within this time is in a long
# transaction, and its state will be carried in the pause.
PATIENCE_S = 0.25


async def ready(endpoint: "Endpoint", sessions: Iterable["Session"]) -> ReadyReport:
    """Dial ``endpoint.target`` for those of ``sessions`` that are logged in and not dialled yet.

    The report counts each session that could not be carried as it is now. A busy one is not asked: its state is looked
    at when it is parked.
    """
    reasons: list[PinReason | None] = []

    async def make_ready(session: "Session") -> None:
        try:
            await endpoint.follower.settled(session)
            reason = await dial_for(session, endpoint) or await carry_beforehand(session)
        except Exception:
            log.exception("session.not_ready", endpoint=endpoint.name)  # its trouble is not the others'
            reason = PinReason.TARGET_REFUSED
        reasons.append(reason)

    await without_hurry([session for session in sessions if session.tracker.logged_in], make_ready)
    pinned = Counter(reason.value for reason in reasons if reason is not None)
    dialled = len(reasons) - pinned[PinReason.AUTHENTICATION] - pinned[PinReason.TARGET_REFUSED]
    return ReadyReport(sessions=len(reasons), dialled=dialled, pinned=dict(pinned))


class Patient:
    """Asks a session that is not stopped, between two of its client's requests; see ``Asking.begin_when_safe``."""

    def __init__(self, session: "Session", patience_s: float = PATIENCE_S, *, within_batch: bool = True) -> None:
        self._session = session
        self._patience_s = patience_s
        self._within_batch = within_batch
        self.asked_at: int | None = None  # ``Session.passed_on`` then

    async def ask(self, batch: bytes, syncs: int) -> list[list[Frame]]:
        if self._session.state is not State.FLOWING:
            raise NotAsked  # whoever has parked it does the asking
        try:
            exchange, asked_at = await self._session.asking.begin_when_safe(
                batch, syncs, timeout_s=self._patience_s, within_batch=self._within_batch
            )
        except TimeoutError:
            raise NotAsked from None
        answers = await exchange.answers()
        if self.asked_at not in (None, asked_at):
            raise NotAsked  # the client has said something since the question before: together they make no sense
        self.asked_at = asked_at
        return answers


async def carry_beforehand(session: "Session", *, patience_s: float = PATIENCE_S) -> PinReason | None:
    """Give the dialled connection the session's state as it is now. In the pause only what has changed since is done
    again, and nothing for a client that has said nothing."""
    asker = Patient(session, patience_s)
    try:
        found = await examine(session, asker)
    except NotAsked:
        return None
    reason = await _carry(session, found, asker.asked_at)
    if reason is None:
        await _warm_plans(session)
    return reason


async def carry_parked(session: "Session") -> None:
    """The same for a session that has stopped while others are still on their way; what comes of it the handover will
    see."""
    if session.state is State.PARKED:
        as_of = session.passed_on
        await _carry(session, await examine(session), as_of)


async def _carry(session: "Session", found: Portable | PinReason, as_of: int | None) -> PinReason | None:
    if isinstance(found, PinReason):
        return found if found is not PinReason.STATE_UNREADABLE else None
    dialled = session.dialled
    if dialled is None:
        return None
    try:
        reason = await replay(dialled, found)
        if reason is None:
            await carry_sequences(session, dialled, found)
    except (StateUnreadable, ProtocolError, ConnectionError) as error:
        log.info("session.not_carried_beforehand", endpoint=session.endpoint.name, error=str(error))
        return None  # tried again in the pause
    dialled.as_of = as_of if reason is None else None
    return reason


async def dial_for(session: "Session", endpoint: "Endpoint") -> PinReason | None:
    """Give ``session`` a connection to the target unless it has one; the reason if it cannot have one."""
    target = endpoint.target
    if session.dialled is not None and (
        session.dialled.lost or session.dialled.of_unknown_state or session.dialled.backend != target
    ):
        session.close_dialled()
    if session.dialled is not None or not session.open:
        return None
    if target is None or session.startup is None:
        return PinReason.TARGET_REFUSED
    username = session.startup.user
    login = session.tracker.login
    try:
        credential = Credential(username, login, endpoint.verifiers.get(username.decode(errors="replace")))
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            dialled = await dial(target, session.startup, credential, protocol_minor=login.protocol_minor)
    except CannotLogIn as error:
        log.info("session.pinned", endpoint=endpoint.name, reason=PinReason.AUTHENTICATION, detail=str(error))
        return PinReason.AUTHENTICATION
    except (OSError, ProtocolError) as error:
        log.info("session.pinned", endpoint=endpoint.name, reason=PinReason.TARGET_REFUSED, detail=str(error))
        return PinReason.TARGET_REFUSED
    await _warm(dialled, username)
    if session.open and session.dialled is None and endpoint.target == target:
        session.dialled = dialled
    else:
        dialled.close()  # the client has left, or the plan has changed
    return None


async def _warm_plans(session: "Session") -> None:
    dialled = session.dialled
    if dialled is not None and dialled.given is not None and not dialled.warm:
        dialled.warm = True
        with contextlib.suppress(TimeoutError, ProtocolError, ConnectionError):
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                await warm_plans(dialled, dialled.given.state.prepared)


async def _warm(dialled: Dialled, username: bytes) -> None:
    """Ask what will be asked inside the pause: half of what that takes a fresh backend is reading its catalogues.

    A standby refuses it where transactions are serializable by default; the replay knows how to get round that.
    """
    with contextlib.suppress(StateUnreadable, ProtocolError, ConnectionError):
        await survey(dialled, username, ())
