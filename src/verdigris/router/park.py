"""Holding an endpoint's sessions at their safe points, under a lease."""

import asyncio
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from verdigris.domain.ports import Parked
from verdigris.router import letting_go
from verdigris.router.pins import PinReason
from verdigris.router.session import Session
from verdigris.router.state.cursors import carry_cursors
from verdigris.router.state.replay import apply
from verdigris.router.state.sequences import complete_sequences
from verdigris.router.state.survey import StateUnreadable
from verdigris.router.states import State
from verdigris.wire.postgres.errors import ProtocolError

if TYPE_CHECKING:
    from verdigris.router.endpoint import Endpoint

log = structlog.get_logger()

_TOO_LATE = "the session did not come to a safe point in time for the switchover"
# How long clients that are in the middle of logging in are waited for once everyone else has stopped. One that sits at
# a password prompt must not be able to prevent a switchover.
LOGIN_GRACE_S = 1.0

# How long a new backend may take for what it is owed by a session.
OWED_TIMEOUT_S = 10.0
# After a release: how long until the connections to the old backend are closed, and how far apart. Clients go first,
# and the end of a server process takes more than a millisecond of a processor.
LEAVING_S = 0.25
LEAVING_APART_S = 0.004
# Sessions of a promoted standby that are made to remember their sequences at a time.
REMINDED_AT_ONCE = 16


class ParkState(Enum):
    """
    GATHERING -> HELD        every session is at a safe point
    HELD -> COMMITTING       the new routes are being written; the lease cannot run out meanwhile
    COMMITTING -> COMMITTED  they are durable: the point of no return
    COMMITTING -> HELD       they could not be written
    GATHERING, HELD -> ENDED     budget or lease run out, or aborted: everyone goes on where they were
    COMMITTED -> ENDED           released on the new backend
    """

    GATHERING = "gathering"
    HELD = "held"
    COMMITTING = "committing"
    COMMITTED = "committed"
    ENDED = "ended"


class Park:
    """One generation of one endpoint."""

    def __init__(self, endpoint: "Endpoint", generation: int) -> None:
        self.endpoint = endpoint
        self.generation = generation
        self.state = ParkState.GATHERING
        self.pins: dict[Session, PinReason] = {}  # found by the handover
        self.late_pins: Counter[str] = Counter()  # found when it was too late to go back
        self.hold = False  # after the commit: released by ``release`` alone
        self.fenced = True  # after the commit: the old backend has nobody on it any more but those parked
        self.stragglers: frozenset[Session] = frozenset()  # left out of the park when it was granted
        self._unmoved: set[Session] = set()  # parked when the routes were committed, and on the old backend still
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._moved = asyncio.Event()  # a session has reached its safe point, or has gone
        self._lease: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def live(self) -> bool:
        return self.state is not ParkState.ENDED

    @property
    def granted(self) -> bool:
        """It has a lease."""
        return self.state not in (ParkState.GATHERING, ParkState.ENDED)

    # ------------------------------------------------------------------------------------------------------- gathering

    async def gather(self, budget_s: float, *, leave_stragglers: bool = False) -> list[Session]:
        """Stop every session; those that had not reached a safe point when the budget was spent (none: the park holds).

        With ``leave_stragglers`` the park may be granted all the same: whoever fences the backend ends them there.
        """
        self.endpoint.park = self
        self.endpoint.follower.end()
        for session in list(self.endpoint.sessions):
            if session.state is State.CONNECTING:
                session.wait()
            elif session.state is State.FLOWING:
                session.stop()
        deadline = self._began + budget_s
        await self._until(lambda: not self._stragglers(), deadline)
        if leave_stragglers or not self._stragglers():
            await self._until(lambda: not self._logins(), min(deadline, self._loop.time() + LOGIN_GRACE_S))
            for session in self._logins():
                session.fail("57P03", "the database system is not accepting connections for a moment")
        return self._stragglers()

    async def _until(self, condition: Callable[[], bool], deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                while not condition():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            pass  # the caller looks at what is left

    def _stopping(self) -> list[Session]:
        return [session for session in self.endpoint.sessions if session.state is State.STOPPING]

    def _stragglers(self) -> list[Session]:
        return [session for session in self._stopping() if session.tracker.logged_in]

    def _logins(self) -> list[Session]:
        proving = (session for session in self.endpoint.sessions if session.state is State.PROVING)
        return [*proving, *(session for session in self._stopping() if not session.tracker.logged_in)]

    def reached(self, session: Session) -> None:
        if self.state is ParkState.GATHERING:
            self.endpoint.follower.reached(session)
        self._moved.set()

    def left(self, _session: Session) -> None:
        self._moved.set()

    # --------------------------------------------------------------------------------------------------- the lease

    def grant(self, lease_s: float) -> Parked:
        """GATHERING -> HELD."""
        self.state = ParkState.HELD
        self.renew(lease_s)
        sessions = self.sessions()
        self.stragglers = frozenset(self._stragglers())
        return Parked(
            generation=self.generation,
            sessions=len(sessions),
            server_pids=tuple(session.server_pid for session in sessions if session.server_pid is not None),
            waiting_clients=sum(session.state is State.WAITING for session in self.endpoint.sessions),
            stragglers=len(self.stragglers),
        )

    def sessions(self) -> list[Session]:
        """Those that are parked."""
        return [session for session in self.endpoint.sessions if session.state is State.PARKED]

    def left_behind(self) -> list[Session]:
        """Those parked in time that a commit would close, because nothing carries them."""
        candidates = (session for session in self.sessions() if session not in self.stragglers)
        return [session for session in candidates if session.dialled is None or not session.dialled.carries]

    def renew(self, lease_s: float) -> None:
        if self._lease is not None:
            self._lease.cancel()
        self._lease = self._loop.call_later(lease_s, self._expire)

    def _expire(self) -> None:
        self._lease = None
        if self.state is ParkState.HELD:
            log.warning("park.lease_expired", endpoint=self.endpoint.name, generation=self.generation)
            self.endpoint.doubt()
            self.end()
        elif self.state is ParkState.COMMITTED and not self.hold and self._releasing is None:
            log.warning("park.released_itself", endpoint=self.endpoint.name, generation=self.generation)
            self._begin_release(admit=False)  # the new backend may not take newcomers' writes yet

    # -------------------------------------------------------------------------------------------------------- the end

    def _is_behind(self, session: Session) -> bool:
        """A straggler, still on the backend that everyone else has left."""
        return session.server is not None and session.backend != self.endpoint.route.backend

    def begin_commit(self) -> None:
        self.state = ParkState.COMMITTING

    def undo_commit(self) -> None:
        """The routes could not be written. A lease that ran out meanwhile counts now."""
        self.state = ParkState.HELD
        if self._lease is None:
            self._expire()

    def committed(self, *, hold: bool, fenced: bool = True) -> None:
        """The new routes are durable: each session belongs to its dialled connection, or to nobody.

        Most are moved only as they are let go: with thousands of them that takes time, in which nobody can go on.
        """
        self.state = ParkState.COMMITTED
        self.hold, self.fenced = hold, fenced
        self._unmoved = set(self.sessions())
        for session in self.sessions():
            if _is_moved_at_once(session):
                self._move(session)
            elif session.server is not None:
                session.server.mute()  # whatever becomes of it and whatever it says is not the session's any more
        if self._lease is None:
            self._expire()

    def _move(self, session: Session) -> None:
        """To the new backend, unless it is there already."""
        try:
            if session in self._unmoved:
                self._unmoved.remove(session)
                self._settle(session)
            elif self._is_behind(session):
                session.pinned = _TOO_LATE
        except Exception:
            # The route is committed: one session's trouble must not keep the others from moving.
            log.exception("session.not_moved", endpoint=self.endpoint.name)
            session.close()

    def _settle(self, session: Session) -> None:
        dialled = session.dialled
        if dialled is not None and dialled.carries:
            session.adopt(dialled)
            self.endpoint.counters.handed_over += 1
        else:
            reason = self.pins.get(session, PinReason.TARGET_REFUSED)
            session.pinned = _pinned(reason)
            session.leave_server()

    async def release(self, *, admit: bool) -> None:
        """Give the new backend what it is owed, then let everyone go. No session runs before all are complete: it could
        notify one that does not listen yet. Unless ``admit``, newcomers go on waiting.

        Returns when nobody is left whose client waits. The others follow: see ``over``."""
        await asyncio.shield(self._begin_release(admit=admit))

    @property
    def released(self) -> bool:
        """Nobody waits in it any more."""
        return self._following is not None

    async def over(self) -> None:
        """Return when everyone of a released park has gone."""
        if self._following is not None:
            await asyncio.shield(self._following)

    def _begin_release(self, *, admit: bool) -> "asyncio.Task[None]":
        if self._releasing is None:
            self._releasing = self._loop.create_task(self._release(admit=admit))
        return self._releasing

    async def _release(self, *, admit: bool) -> None:
        if self.state is not ParkState.COMMITTED:
            self.end()
            return
        owing = [session for session in self.sessions() if session.owed is not None or session.cursors]
        if owing:
            await asyncio.gather(*(self._complete(session) for session in owing))
        await self._remind(
            [session for session in self.sessions() if session.owed_sequences is not None and session.pinned is None]
        )
        await letting_go.those_waited_for(self.sessions, self._let_go, self.endpoint.at_work)
        self._note_length()
        self._following = self._loop.create_task(self._release_idle())
        if admit:
            self.endpoint.trust()
        else:
            self.endpoint.doubt()

    async def _release_idle(self) -> None:
        await letting_go.the_others(self.sessions, self._let_go, self.endpoint.at_work)
        self.end()

    def _let_go(self, session: Session) -> None:
        self._move(session)
        try:
            session.resume()
        except Exception:
            log.exception("session.not_resumed", endpoint=self.endpoint.name)  # its trouble is not the others'
            session.close()

    async def _remind(self, sessions: list[Session]) -> None:
        """Before anybody runs: it takes locks that clients would wait for, and wait behind clients' transactions. It is
        not worth a long pause: first come those whose clients have asked for something by now, and whoever is still
        left when the time is spent goes without."""
        slots = asyncio.Semaphore(REMINDED_AT_ONCE)
        if self.endpoint.sequence_help is not None:
            self.endpoint.sequence_help.hurry()

        async def remind(session: Session) -> None:
            async with slots:
                try:
                    async with asyncio.timeout(OWED_TIMEOUT_S):
                        await complete_sequences(session)
                except (ProtocolError, ConnectionError, TimeoutError) as error:
                    log.warning("session.sequences_forgotten", endpoint=self.endpoint.name, error=repr(error))

        forgotten = self.endpoint.counters.sequences_forgotten
        sessions.sort(key=lambda session: not session.is_waited_for)
        await asyncio.gather(*(remind(session) for session in sessions))
        if sessions:
            forgotten = self.endpoint.counters.sequences_forgotten - forgotten
            log.info("park.reminded", endpoint=self.endpoint.name, sessions=len(sessions), forgotten=forgotten)

    async def _complete(self, session: Session) -> None:
        batch, session.owed = session.owed, None
        cursors, session.cursors = session.cursors, ()
        former = session.former
        reason = None
        try:
            async with asyncio.timeout(OWED_TIMEOUT_S):
                if batch is not None:
                    reason = await apply(session, batch)
                if reason is None and cursors:
                    reason = await carry_cursors(former, session, cursors) if former else PinReason.HELD_CURSORS
        except (StateUnreadable, ProtocolError, ConnectionError, TimeoutError) as error:
            log.warning("session.not_completed", endpoint=self.endpoint.name, error=repr(error))
            reason = PinReason.STATE_UNREADABLE
        if reason is not None and session.open:
            self.pins[session] = reason
            self.late_pins[reason.value] += 1
            session.pinned = _pinned(reason)

    def _note_length(self) -> None:
        counters = self.endpoint.counters
        counters.longest_park_s = max(counters.longest_park_s, self._loop.time() - self._began)

    def end(self) -> None:
        """Let everyone go: on the new backend if committed, else on the old one."""
        if self.state is ParkState.ENDED:
            return
        if self._lease is not None:
            self._lease.cancel()
        committed = self.state is ParkState.COMMITTED
        self.state = ParkState.ENDED
        if not self.released:
            self._note_length()
        self.endpoint.park = None
        if committed:
            self.endpoint.forget_target()
        for session in list(self.endpoint.sessions):
            if not committed:
                session.forget_replay()
            if committed and self._is_behind(session):
                if session.state is State.STOPPING and self.fenced:
                    continue  # its backend has been ended behind the fence, and says so itself in its last words
                session.pinned = _TOO_LATE
            if session.state is not State.WAITING or self.endpoint.admits:
                session.resume()
        if committed:
            for n, session in enumerate(self.endpoint.sessions):
                self._loop.call_later(LEAVING_S + n * LEAVING_APART_S, session.leave_former)


def _is_moved_at_once(session: Session) -> bool:
    """Its dialled connection hears something that is for the client, or is owed something before anybody runs."""
    dialled = session.dialled
    if dialled is None or not dialled.carries:
        return False
    given = dialled.given
    return (
        dialled.owed is not None
        or dialled.owed_sequences is not None
        or given is None
        or bool(given.cursors or given.state.channels)
    )


def _pinned(reason: PinReason) -> str:
    return f"the session could not be carried over the switchover: {reason}"
