"""Carrying parked sessions: their state is read from the old backend and given to the dialled one."""

import asyncio
from collections import Counter

import structlog

from verdigris.domain.ports import HandoverReport
from verdigris.router.dial import Dialled
from verdigris.router.endpoint import Endpoint
from verdigris.router.park import Park
from verdigris.router.pins import PinReason
from verdigris.router.ready import dial_for
from verdigris.router.session import Session
from verdigris.router.state.examine import Portable, examine
from verdigris.router.state.locks import AdvisoryLock, Held, carry_locks, everybodys
from verdigris.router.state.replay import replay
from verdigris.router.state.sequences import carry_sequences
from verdigris.router.state.survey import StateUnreadable
from verdigris.wire.postgres.errors import ProtocolError

log = structlog.get_logger()

# Enough to keep two servers busy; more would only make each wait for the others.
AT_ONCE = 64


async def hand_over(park: Park) -> HandoverReport:
    """Prepare the switch of every parked session. Nothing has changed for any client until the park is committed."""
    park.pins.clear()
    sessions = park.sessions()
    try:
        held = await _locks(sessions, park.endpoint) if sessions else {}
    except ConnectionError as error:
        log.warning("locks.unreadable", endpoint=park.endpoint.name, error=str(error))
        park.pins.update(dict.fromkeys(sessions, PinReason.STATE_UNREADABLE))
        return _report(park, sessions, asked=0)
    behind = [session for session in sessions if not _carries_already(session, held)]
    slots = asyncio.Semaphore(AT_ONCE)

    async def carry(session: Session) -> None:
        async with slots:
            try:
                reason = await _carry(session, park.endpoint, held)
            except Exception:
                log.exception("session.not_carried", endpoint=park.endpoint.name)  # its trouble is not the others'
                reason = PinReason.STATE_UNREADABLE
        if reason is not None:
            park.pins[session] = reason
        elif session.dialled is not None:
            session.dialled.carries = True

    if park.endpoint.sequence_help is not None:
        park.endpoint.sequence_help.hurry()
    async with asyncio.TaskGroup() as group:
        for session in behind:
            group.create_task(carry(session))
    return _report(park, sessions, asked=len(behind))


async def _locks(sessions: list[Session], endpoint: Endpoint) -> Held:
    """Everybody's, from one who is asked nothing else at this moment. Raises ``ConnectionError``."""
    first = next((session for session in sessions if not endpoint.follower.asks(session)), sessions[0])
    await endpoint.follower.settled(first)
    return await everybodys([first, *(session for session in sessions if session is not first)])


def _report(park: Park, sessions: list[Session], *, asked: int) -> HandoverReport:
    pinned = Counter(reason.value for session, reason in park.pins.items() if session.open)
    park.endpoint.counters.pinned = dict(pinned)
    carried = sum(session.open for session in sessions) - pinned.total()
    log.info("park.handed_over", endpoint=park.endpoint.name, carried=carried, asked=asked, pinned=dict(pinned))
    return HandoverReport(carried=carried, pinned=park.endpoint.counters.pinned)


def _carries_already(session: Session, held: Held) -> bool:
    """Without a task for each: of thousands of sessions most have said nothing since they were made ready."""
    dialled = session.dialled
    if dialled is None or dialled.lost:
        return False
    if not dialled.carries and _is_current(session, dialled) and not _locks_of(session, held):
        dialled.carries = True
    return dialled.carries


def _is_current(session: Session, dialled: Dialled) -> bool:
    """Its client has said nothing since it was made ready, and nothing can have happened to it since: it is parked."""
    return dialled.given is not None and dialled.as_of == session.passed_on


def _locks_of(session: Session, held: Held) -> frozenset[AdvisoryLock]:
    return held.get(session.server_pid or 0, frozenset())


async def _carry(session: Session, endpoint: Endpoint, held: Held) -> PinReason | None:
    await endpoint.follower.settled(session)
    if session.dialled is not None and session.dialled.carries:
        return None  # done before
    reason = await dial_for(session, endpoint)
    dialled = session.dialled
    if reason is not None or not session.open:
        return reason
    if dialled is None:
        return PinReason.TARGET_REFUSED  # another target was named meanwhile
    try:
        if not _is_current(session, dialled):
            found = await examine(session)
            if isinstance(found, PinReason):
                return found
            reason = await _give(session, endpoint, dialled, found)
            if reason is None and session.dialled is not None:
                await carry_sequences(session, session.dialled, found)
        return reason or await _lock(session, _locks_of(session, held))
    except StateUnreadable as error:
        log.warning("target.state_unreadable", endpoint=endpoint.name, error=str(error))
        return PinReason.STATE_UNREADABLE
    except (ProtocolError, ConnectionError) as error:
        log.warning("target.lost", endpoint=endpoint.name, error=str(error))
        return PinReason.TARGET_REFUSED


async def _lock(session: Session, locks: frozenset[AdvisoryLock]) -> PinReason | None:
    """Only in the pause: until then its locks on the target could be in the way of another session's."""
    dialled = session.dialled
    if dialled is None or not locks:
        return None
    dialled.locks = True
    return await carry_locks(session, dialled, locks)


async def _give(session: Session, endpoint: Endpoint, dialled: Dialled, found: Portable) -> PinReason | None:
    reason = await replay(dialled, found)
    if reason is None or not dialled.had_another:
        return reason
    # It may be that other state that is in the way. One login more is a small price for a session.
    session.close_dialled()
    reason = await dial_for(session, endpoint)
    return await replay(session.dialled, found) if reason is None and session.dialled is not None else reason
