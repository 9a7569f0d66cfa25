"""The order and the pace at which parked sessions go on.

A session's next request meets a server process that has not run the like yet: it has to read catalogues, to plan, to
compile. All at once they would share the processors, and everybody would be answered when the last one is. So whoever
has waited longest goes first, and only a few are at work at a time. Sessions that nobody waits for come last, slowly:
with thousands of them moving them takes longer than the pause did.
"""

import asyncio
from collections.abc import Callable, Iterable
from math import ceil
from typing import TYPE_CHECKING, Final

from verdigris.router.processors import COUNT

if TYPE_CHECKING:
    from verdigris.router.session import Session

# How many are at work at a time, besides those that take long. Their clients have to take answers and to ask further.
AT_WORK: Final = 2 * COUNT
PACE_S: Final = 0.001
# After so long all go at once, however long the first of them take: nobody waits for somebody else's long query, nor
# on a machine so busy that hardly anybody gets on.
SPREAD_S: Final = 0.05
# How many that nobody waits for go at a time, and for how long that is left alone afterwards, by how long it took.
STRIDE: Final = 16
REST: Final = 3

# For how long what can wait leaves the processors to those at work.
PATIENCE_S: Final = 0.1

Sessions = Callable[[], "list[Session]"]
LetGo = Callable[["Session"], None]


class AtWork:
    """Who has been let go with a request, until it is answered."""

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self._until = 0.0  # event loop time

    def add(self, sessions: "Iterable[Session]") -> None:
        self._sessions += sessions
        self._until = asyncio.get_running_loop().time() + PATIENCE_S

    def __len__(self) -> int:
        self._sessions = [session for session in self._sessions if session.is_at_work]
        return len(self._sessions)

    @property
    def come_first(self) -> bool:
        """There are some, and not for long yet."""
        return asyncio.get_running_loop().time() < self._until and len(self) > 0


async def those_waited_for(parked: Sessions, let_go: LetGo, at_work: AtWork) -> None:
    """Return when nobody is parked whose client has asked for something."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    while waiting := [session for session in parked() if session.is_waited_for]:
        waiting.sort(key=lambda session: session.gives_up_at)
        count = len(waiting)
        while waiting:  # who asks meanwhile comes after these
            late = ceil(count * (loop.time() - began_at) / SPREAD_S) - (count - len(waiting))
            room = max(AT_WORK - len(at_work), late)
            going, waiting = waiting[:room], waiting[room:]
            for session in going:
                let_go(session)
            at_work.add(going)
            await asyncio.sleep(PACE_S if waiting else 0)


async def the_others(parked: Sessions, let_go: LetGo, at_work: AtWork) -> None:
    """Return when nobody is parked any more. Whoever begins to wait meanwhile goes at once."""
    loop = asyncio.get_running_loop()
    while sessions := parked():
        began_at = loop.time()
        sessions.sort(key=lambda session: not session.is_waited_for)
        waited_for = sum(session.is_waited_for for session in sessions)
        for session in sessions[: waited_for if at_work.come_first else max(STRIDE, waited_for)]:
            let_go(session)
        await asyncio.sleep(0)  # until what was begun has been done
        await asyncio.sleep(max(PACE_S, REST * (loop.time() - began_at)))
