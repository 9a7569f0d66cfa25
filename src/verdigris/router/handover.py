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
from verdigris.router.state.locks import carry_locks
from verdigris.router.state.replay import replay
from verdigris.router.state.sequences import carry_sequences
from verdigris.router.state.survey import StateUnreadable
from verdigris.wire.postgres.errors import ProtocolError

log = structlog.get_logger()

# Enough to keep two servers busy; more would only make each wait for the others.
AT_ONCE = 64


async def hand_over(park: Park) -> HandoverReport:
    """Prepare the switch of every parked session. Nothing has changed for any client until the park is committed."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def carry(session: Session) -> PinReason | None:
        async with slots:
            try:
                reason = await _carry(session, park.endpoint)
            except Exception:
                log.exception("session.not_carried", endpoint=park.endpoint.name)  # its trouble is not the others'
                reason = PinReason.STATE_UNREADABLE
        if reason is None and session.dialled is not None:
            session.dialled.carries = True
        elif reason is not None:
            park.pins[session] = reason
        return reason

    park.pins.clear()
    if park.endpoint.sequence_help is not None:
        park.endpoint.sequence_help.hurry()
    async with asyncio.TaskGroup() as group:
        tasks = {session: group.create_task(carry(session)) for session in park.sessions()}
    pinned = Counter(task.result() for session, task in tasks.items() if session.open and task.result() is not None)
    park.endpoint.counters.pinned = {reason.value: n for reason, n in pinned.items() if reason}
    carried = sum(session.open and task.result() is None for session, task in tasks.items())
    log.info("park.handed_over", endpoint=park.endpoint.name, carried=carried, pinned=dict(pinned))
    return HandoverReport(carried=carried, pinned=park.endpoint.counters.pinned)


async def _carry(session: Session, endpoint: Endpoint) -> PinReason | None:
    if session.dialled is not None and session.dialled.carries:
        return None  # done before, and nothing can have happened to it since: it is parked
    reason = await dial_for(session, endpoint)
    dialled = session.dialled
    if reason is not None or not session.open:
        return reason
    if dialled is None:
        return PinReason.TARGET_REFUSED  # another target was named meanwhile
    try:
        if dialled.given is None or dialled.as_of != session.passed_on:
            # Its client has said something since it was made ready.
            found = await examine(session)
            if isinstance(found, PinReason):
                return found
            reason = await _give(session, endpoint, dialled, found)
            if reason is None and session.dialled is not None:
                await carry_sequences(session, session.dialled, found)
        return reason or await _lock(session)
    except StateUnreadable as error:
        log.warning("target.state_unreadable", endpoint=endpoint.name, error=str(error))
        return PinReason.STATE_UNREADABLE
    except (ProtocolError, ConnectionError) as error:
        log.warning("target.lost", endpoint=endpoint.name, error=str(error))
        return PinReason.TARGET_REFUSED


async def _lock(session: Session) -> PinReason | None:
    """Only in the pause: until then its locks on the target could be in the way of another session's."""
    dialled = session.dialled
    if dialled is None or dialled.given is None or not dialled.given.state.locks:
        return None
    dialled.locks = True
    return await carry_locks(session, dialled, dialled.given.state.locks)


async def _give(session: Session, endpoint: Endpoint, dialled: Dialled, found: Portable) -> PinReason | None:
    reason = await replay(dialled, found)
    if reason is None or not dialled.had_another:
        return reason
    # It may be that other state that is in the way. One login more is a small price for a session.
    session.close_dialled()
    reason = await dial_for(session, endpoint)
    return await replay(session.dialled, found) if reason is None and session.dialled is not None else reason
