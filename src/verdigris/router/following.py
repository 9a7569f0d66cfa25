"""Keeping what has been carried beforehand true until the pause begins.

Between the moment at which a session was made ready and the park its client goes on talking, and whoever has said
something must be asked again in the pause: with many clients that was most of it. So whoever falls silent for a moment
is asked then. Clients that never do are left alone: they would be behind again at once, and the question takes as much
time of their backend as a request of theirs.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from itertools import islice
from typing import TYPE_CHECKING

import structlog

from verdigris.router.lending import offer, take_back
from verdigris.router.processors import COUNT
from verdigris.router.ready import carry_beforehand, carry_parked
from verdigris.router.states import State

if TYPE_CHECKING:
    from verdigris.router.endpoint import Endpoint
    from verdigris.router.session import Session

log = structlog.get_logger()

# How long a client is silent before it is asked, at least; twice that at most.
SILENCE_S = 0.005
# The park follows within milliseconds, unless the control plane is in trouble.
LIMIT_S = 2.0
# How many of those that need nothing more are taken back from the relay's threads between two looks, which the park
# would otherwise have to do with all at once; until it comes the event loop carries them.
TAKEN_BACK_AT_ONCE = 64
# How many of these are looked at each time, whether they are idle still.
WOKEN_OF = 128
# How long it is worth to wait for clients to fall silent: as long as so many of those that spoke have yet to.
WORTH_S = 0.5
FEW = 1 / 8
AT_ONCE = max(2, COUNT)
# How many of those that have stopped are asked at a time. Those that have not stopped yet need the processors, too.
PARKED_AT_ONCE = COUNT


class Follower:
    """Of one endpoint, from the end of its latest ``ready`` to the park."""

    def __init__(self) -> None:
        self._watching: asyncio.Task[None] | None = None
        self._asking: dict[Session, asyncio.Task[object]] = {}
        self._slots = asyncio.Semaphore(PARKED_AT_ONCE)
        self._at_rest: dict[Session, int] = {}  # taken back from the relay's threads, and what they had said then

    async def begin(self, endpoint: "Endpoint") -> None:
        """Return when few are behind, or when waiting for that is not worth it; it goes on until ``end``."""
        self.end()
        few_are_behind = asyncio.Event()
        self._watching = asyncio.get_running_loop().create_task(self._watch(endpoint, few_are_behind))
        self._watching.add_done_callback(lambda _: self._disband())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WORTH_S):
                await few_are_behind.wait()

    def end(self) -> None:
        """Nobody else is asked. Questions that are under way are answered: see ``settled``."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def reached(self, session: "Session") -> None:
        """``session`` has stopped for a park: it is asked while others are still on their way.

        A question that was under way then may be left without an answer, or be about what the client has said before.
        """
        if _is_behind(session, session.passed_on):
            self._begin(session, self._ask_parked(session, self._asking.get(session)))

    def asks(self, session: "Session") -> bool:
        """``session``, or the connection dialled for it, is being asked something."""
        return session in self._asking

    async def settled(self, session: "Session") -> None:
        """Return when ``session``, and the connection dialled for it, are not in use by this any more."""
        asking = self._asking.get(session)
        if asking is not None:
            await asyncio.wait({asking})

    async def _watch(self, endpoint: "Endpoint", few_are_behind: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + LIMIT_S
        said: dict[Session, int] = {}  # at the last look
        asked: dict[Session, int] = {}
        while loop.time() < until:
            behind = 0
            idle = []
            self._wake()
            for session in endpoint.sessions - self._at_rest.keys():
                now = session.passed_on
                if not _is_behind(session, now):
                    if session.loan is not None and session.flowing:
                        idle.append(session)
                    continue
                behind += 1
                if said.get(session) != now:
                    said[session] = now
                elif session in self._asking:
                    pass  # its backend has answered and the target has not yet: that has to come to its end first
                elif _is_worth_asking(session, now, asked.get(session)) and len(self._asking) < AT_ONCE:
                    asked[session] = now
                    self._ask(session)
            for session in idle[:TAKEN_BACK_AT_ONCE]:
                take_back(session)
                self._at_rest[session] = session.passed_on
            if behind <= FEW * len(said) and len(idle) <= FEW * len(endpoint.sessions):
                few_are_behind.set()
            await asyncio.sleep(SILENCE_S)

    def _wake(self) -> None:
        """Whoever has said something since is no longer at rest. With thousands of them only a share is looked at each
        time: who is missed is asked in the pause."""
        for session in list(islice(self._at_rest, WOKEN_OF)):
            said = self._at_rest.pop(session)
            if session.open and session.passed_on == said:
                self._at_rest[session] = said  # behind the others

    def _disband(self) -> None:
        """Those at rest may be lent again; a park that has begun stops them first."""
        at_rest, self._at_rest = self._at_rest, {}
        for session in at_rest:
            offer(session)

    def _ask(self, session: "Session") -> None:
        self._begin(session, carry_beforehand(session, patience_s=0))

    async def _ask_parked(self, session: "Session", before: "asyncio.Task[object] | None") -> None:
        if before is not None:
            await asyncio.wait({before})
        async with self._slots:
            try:
                if _is_behind(session, session.passed_on):
                    await carry_parked(session)
            except Exception:
                log.exception("session.not_carried", endpoint=session.endpoint.name)  # its trouble is not the others'

    def _begin(self, session: "Session", work: Coroutine[None, None, object]) -> None:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(work)
        self._asking[session] = task
        task.add_done_callback(lambda done: self._end(session, done))

    def _end(self, session: "Session", done: asyncio.Task[object]) -> None:
        if self._asking.get(session) is done:  # else another question waits for it to end
            del self._asking[session]


def _is_behind(session: "Session", now: int) -> bool:
    dialled = session.dialled
    return (
        dialled is not None
        and not dialled.lost
        and (dialled.given is None or dialled.as_of != now)
        and session.state in (State.FLOWING, State.PARKED)
    )


def _is_worth_asking(session: "Session", now: int, asked: int | None) -> bool:
    """Once as things are, whatever came of it; and once at all where the answer is as long as temporary tables are."""
    if asked == now or not session.asking.possible:
        return False
    given = session.dialled.given if session.dialled is not None else None
    return asked is None or given is None or given.temporary is None
