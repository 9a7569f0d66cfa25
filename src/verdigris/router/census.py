"""Counting the sessions that a switchover could not carry, while nobody has called for one.

It goes on for as long as a green exists, so it has to be cheap for the blue that is asked and unnoticed by its clients:
few are asked at a time and for a short while, each between two of its client's requests, and a client that has said
nothing since it was asked last is not asked again.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from verdigris.domain.ports import PinReport
from verdigris.router.pins import PinReason
from verdigris.router.ready import Patient
from verdigris.router.state.examine import NotAsked, examine
from verdigris.wire.postgres.login import CannotLogIn, Credential

if TYPE_CHECKING:
    from verdigris.router.endpoint import Endpoint
    from verdigris.router.session import Session

log = structlog.get_logger()

# Of blue's server processes, how many work for it at the same time.
IDLE_AT_ONCE = 2
# A client that is busy has to be waited for. That costs blue nothing, but those in a long transaction would use all the
# time up if they were waited for one after the other.
BUSY_AT_ONCE = 16
PATIENCE_S = 0.1
# How long an answer that is under way when the budget is spent may still take.
GRACE_S = 5.0
# Sessions between which others get to run: a look at a login costs some HMACs.
STRIDE = 64


@dataclass(slots=True)
class _Seen:
    """Of one session. ``None`` or ``-1``: not looked at yet."""

    asked_at: float = 0.0  # event loop time
    as_of: int = -1  # ``Session.passed_on`` when it was asked
    pin: PinReason | None = None
    verifier: str | None = None
    login_known: bool = False
    login_lost: bool = False


class Census:
    """What is known of one endpoint's sessions."""

    def __init__(self) -> None:
        self._seen: dict[Session, _Seen] = {}
        self._turn = asyncio.Lock()  # one look after the other: the second finds that there is little left to ask

    def forget(self, session: "Session") -> None:
        self._seen.pop(session, None)

    async def take(self, endpoint: "Endpoint", verifiers: Mapping[str, str], *, budget_s: float) -> PinReport:
        """Look at those that have changed, and count all. Nobody is asked while a park holds the endpoint: what was
        seen last has to do."""
        async with self._turn:
            await self._look(endpoint, budget_s)
        report = Counter[PinReason | None]()
        unseen = 0
        for number, session in enumerate(endpoint.live()):
            if number % STRIDE == STRIDE - 1:
                await asyncio.sleep(0)
            if session.open and session.tracker.logged_in:
                seen = self._of(session)
                lost = _login_is_lost(session, seen, verifiers)
                report[PinReason.AUTHENTICATION if lost else seen.pin] += 1
                unseen += not lost and seen.as_of < 0
        pinned = {reason.value: count for reason, count in report.items() if reason is not None}
        return PinReport(sessions=report.total(), unseen=unseen, pinned=pinned)

    def _of(self, session: "Session") -> _Seen:
        return self._seen.setdefault(session, _Seen())

    async def _look(self, endpoint: "Endpoint", budget_s: float) -> None:
        """The longest not looked at first, so that in the end everyone's turn comes."""
        until = asyncio.get_running_loop().time() + budget_s
        due = [session for session in endpoint.live() if session.tracker.logged_in and self._is_due(session)]
        due.sort(key=lambda session: self._of(session).asked_at)
        idle = [session for session in due if session.asking.possible]
        busy = [session for session in due if not session.asking.possible]
        try:
            async with asyncio.timeout(budget_s + GRACE_S):
                await self._ask_all(idle, IDLE_AT_ONCE, until)
                await self._ask_all(busy, BUSY_AT_ONCE, until)
        except TimeoutError:
            log.info("census.cut_short", endpoint=endpoint.name, sessions=len(due))

    def _is_due(self, session: "Session") -> bool:
        return self._of(session).as_of != session.passed_on

    async def _ask_all(self, sessions: "list[Session]", at_once: int, until: float) -> None:
        turns = iter(sessions)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(sessions))):
                group.create_task(self._ask_in_turn(turns, until))

    async def _ask_in_turn(self, turns: "Iterator[Session]", until: float) -> None:
        loop = asyncio.get_running_loop()
        for session in turns:
            if loop.time() > until:
                return
            await self._ask(session)

    async def _ask(self, session: "Session") -> None:
        said = session.passed_on  # what it says while it is asked makes it due again
        seen = self._of(session)
        seen.asked_at = asyncio.get_running_loop().time()
        try:
            found = await examine(session, Patient(session, PATIENCE_S, within_batch=False), contents=False)
        except NotAsked:
            pass  # as it was seen last
        else:
            seen.pin = found if isinstance(found, PinReason) else None
            seen.as_of = said
        if not session.open:
            self.forget(session)


def _login_is_lost(session: "Session", seen: _Seen, verifiers: Mapping[str, str]) -> bool:
    """Whether what is known of the client's login does not suffice for another with the role's present password."""
    user = b"" if session.startup is None else session.startup.user
    verifier = verifiers.get(user.decode(errors="replace"))
    if not seen.login_known or seen.verifier != verifier:
        try:
            Credential(user, session.tracker.login, verifier)
        except CannotLogIn:
            seen.login_lost = True
        else:
            seen.login_lost = False
        seen.verifier, seen.login_known = verifier, True
    return seen.login_lost
