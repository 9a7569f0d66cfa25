"""An endpoint that leads to other endpoints: a cluster's.

It has a port and no backend. A client that has said who it is becomes a session of one of the endpoints that it leads
to, and is in nothing different from those that came there directly: parks, pins, limits and the end of that endpoint
are its own, too. Which one is decided once.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING

from verdigris.domain.ports import Route
from verdigris.router.endpoint import Endpoint
from verdigris.router.limits import Limits
from verdigris.router.listener import Listener
from verdigris.router.tokens import Verifier
from verdigris.wire.postgres.messages import BackendKey

if TYPE_CHECKING:
    from verdigris.router.lending import Lender
    from verdigris.router.session import Session


# How long one is left out that took a connection and did not answer.
_LEFT_OUT_S = 15.0


class Junction(Endpoint):
    def __init__(
        self,
        route: Route,
        listener: Listener,
        tls: ssl.SSLContext,
        limits: Limits,
        lender: "Lender | None",
        verifier: Verifier,
        *,
        others: Mapping[str, Endpoint],
    ) -> None:
        self._others = others  # all endpoints, by name, as they are at any time
        self._turns = count(1)
        self._latest_turn: dict[str, int] = {}
        self._silent_until: dict[str, float] = {}  # event loop time, by name
        super().__init__(route, listener, tls, limits, lender, verifier)

    def seat(self, session: "Session") -> bool:
        self.counters.connections += 1
        session.detour = Detour(self)
        return session.detour.take(session)

    def choose(self, tried: Collection[str]) -> Endpoint | None:
        """For one client more, who has come in vain to those ``tried``."""
        branches = self.route.branches
        if branches is None:
            return None
        now = asyncio.get_running_loop().time()
        for silent in (False, True):
            for names in (branches.members, branches.otherwise):
                there = [self._others[name] for name in names if name in self._others and name not in tried]
                found = [each for each in there if (self._silent_until.get(each.name, now) > now) is silent]
                if found:
                    return self._next(found)
        return None

    def leave_out(self, endpoint: Endpoint) -> None:
        """For a while, unless there is nobody else: it takes connections and does not answer, as a server that is
        frozen does."""
        self._silent_until[endpoint.name] = asyncio.get_running_loop().time() + _LEFT_OUT_S

    def _next(self, found: Iterable[Endpoint]) -> Endpoint:
        """Those first where clients need not wait, and where there are fewest; of equals the one whose turn is longest
        ago."""
        chosen = min(found, key=lambda e: (not e.admits, len(e.sessions), self._latest_turn.get(e.name, 0)))
        self._latest_turn[chosen.name] = next(self._turns)
        return chosen

    def cancel_here(self, key: BackendKey, answered: Callable[[], None]) -> bool:
        """Cancel requests come to the port that the client knows; its session may be any endpoint's, also one's that is
        no branch any more."""
        elsewhere = (each for each in self._others.values() if not isinstance(each, Junction))
        return any(endpoint.cancel_here(key, answered) for endpoint in elsewhere)


class Detour:
    """The way of one client through a junction, until a server has taken it."""

    def __init__(self, junction: Junction) -> None:
        self._junction = junction
        self._tried: set[str] = set()
        self.packet = b""  # what the client has said, for the next server

    def take(self, session: "Session") -> bool:
        """False: there is nowhere to go any more."""
        found = self._junction.choose(self._tried)
        if found is None:
            return False
        self._tried.add(found.name)
        session.move_to(found)
        return True

    def turn_from(self, silent: Endpoint) -> bool:
        """False: there is nobody else, so that its answer has to be waited for."""
        self._junction.leave_out(silent)
        return self._junction.choose(self._tried) is not None
