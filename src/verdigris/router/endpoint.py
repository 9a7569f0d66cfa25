"""One endpoint: its port, its route, its sessions, and the park that may hold them."""

import asyncio
import contextlib
import hmac
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from verdigris.domain.ports import BackendAddress, Route
from verdigris.router import garbage
from verdigris.router.cancelling import cancel_what_waited, signal
from verdigris.router.census import Census
from verdigris.router.following import Follower
from verdigris.router.lending import bytes_from_client, bytes_from_server
from verdigris.router.letting_go import AtWork
from verdigris.router.limits import Limits
from verdigris.router.listener import Listener
from verdigris.router.probe import settle
from verdigris.router.session import Session
from verdigris.router.states import State
from verdigris.router.tokens import Verifier
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.messages import BackendKey
from verdigris.wire.postgres.startup import StartupMessage

if TYPE_CHECKING:
    from verdigris.router.lending import Lender
    from verdigris.router.park import Park
    from verdigris.router.state.sequences import SequenceHelp

log = structlog.get_logger()

# Given an endpoint's name and a client's key; whether the session is there.
CancelElsewhere = Callable[[str, BackendKey], Awaitable[bool]]

# The control plane's superuser comes in by the engine's own socket, never through here.
INTERNAL_USER = b"rdsadmin"


# How long newcomers wait for a control plane to come back after its lease has run out.
DOUBT_S = 60.0
# How long a backend is given to answer a start-up packet.
HOLD_S = 1.0
_POLL_S = 0.002


class Counters(Struct, kw_only=True):
    """Since the router was started; a successor goes on counting."""

    connections: int = 0
    client_bytes: int = 0  # of sessions that have ended
    server_bytes: int = 0
    handed_over: int = 0
    longest_park_s: float = 0.0
    sequences_forgotten: int = 0  # sessions that had to go without their currval()
    sequence_values_asked: bool = False  # by a session that has ended
    turned_away: int = 0  # 53300
    waited_too_long: int = 0  # 57P03, and 57P01 of parked sessions
    pinned: dict[str, int] = {}  # reason -> sessions that the latest handover could not carry

    def add(self, other: "Counters") -> None:
        """What another process has counted of the same endpoint."""
        self.connections += other.connections
        self.client_bytes += other.client_bytes
        self.server_bytes += other.server_bytes
        self.handed_over += other.handed_over
        self.longest_park_s = max(self.longest_park_s, other.longest_park_s)
        self.sequences_forgotten += other.sequences_forgotten
        self.sequence_values_asked |= other.sequence_values_asked
        self.turned_away += other.turned_away
        self.waited_too_long += other.waited_too_long
        self.pinned = self.pinned or other.pinned


class Endpoint:
    def __init__(
        self,
        route: Route,
        listener: Listener,
        tls: ssl.SSLContext,
        limits: Limits,
        lender: "Lender | None",
        verifier: Verifier,
    ) -> None:
        self.route = route
        self.limits = limits
        self.verifier = verifier  # of all endpoints
        self.lender = lender  # to the threads that carry sessions, where there are any
        self.sessions: set[Session] = set()
        self.departing: set[Session] = set()  # ended, their last words not yet with the client
        self.park: Park | None = None
        # Where and with what to dial, from the latest ``ready``.
        self.target: BackendAddress | None = None
        self.verifiers: dict[str, str] = {}
        self.sequence_help: SequenceHelp | None = None
        self.counters = Counters()
        self.at_work = AtWork()  # whom the latest park has let go, and who have not been answered yet
        self.census = Census()
        self.follower = Follower()
        # While a router is being replaced: who takes a session that has stopped, and who is asked to cancel what is
        # not served here.
        self.leave: Callable[[Session], None] | None = None
        self.cancel_elsewhere: CancelElsewhere | None = None
        self.listener = listener
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._doubt: asyncio.TimerHandle | None = None
        listener.open(self, tls)

    @property
    def name(self) -> str:
        return self.route.name

    @property
    def admits(self) -> bool:
        """Whether clients that come now are let through to the backend; else they wait."""
        return (self.park is None or self.park.released) and self._doubt is None

    def doubt(self) -> None:
        """The backend may refuse newcomers: it is being fenced, or the control plane was lost in the middle of a
        switchover and may have left it fenced. They wait until the control plane has seen to it, or gives no sign for
        long."""
        if self._doubt is not None:
            self._doubt.cancel()
        self._doubt = asyncio.get_running_loop().call_later(DOUBT_S, self.trust)

    def trust(self) -> None:
        """The backend takes newcomers, as far as can be known."""
        if self._doubt is None:
            return
        self._doubt.cancel()
        self._doubt = None
        if self.admits:
            for session in list(self.sessions):
                if session.state is State.WAITING:
                    session.resume()

    @property
    def asks_for_sequence_values(self) -> bool:
        """Whether any client that came here has called ``currval()`` or ``lastval()``, so that others may, too."""
        return self.counters.sequence_values_asked or any(
            session.tracker.sequence_values.asked for session in self.sessions
        )

    async def hold(self) -> None:
        """Let newcomers wait, and return when the backend has answered those that came before: it decides at their
        start-up packet whether they may come in. One that does not answer is not waited for long."""
        self.doubt()
        for session in list(self.sessions):
            if session.state is State.CONNECTING:
                session.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HOLD_S):
                while any(session.unanswered for session in self.sessions):  # noqa: ASYNC110  once in a switchover
                    await asyncio.sleep(_POLL_S)

    async def answered(self) -> None:
        """Return when those who waited in the latest park have been answered, or after a moment; at once where
        newcomers wait."""
        while self.at_work.come_first and not any(s.state is State.WAITING for s in self.sessions):  # noqa: ASYNC110  once
            await asyncio.sleep(_POLL_S)

    def live(self) -> list[Session]:
        """Sessions that have a backend, or are getting one."""
        return [session for session in self.sessions if session.server is not None]

    def forget_target(self) -> None:
        """Verifiers are not kept longer than they are needed."""
        self.follower.end()
        self.target = None
        self.verifiers = {}
        self.sequence_help = None
        for session in self.sessions:
            session.close_dialled()
        garbage.bring_back()

    def listen(self, listener: Listener) -> None:
        """Take clients on another port from now on; those that are here stay."""
        self.listener.close()
        self.listener = listener
        listener.open(self, self._tls)

    def close(self) -> None:
        self.trust()
        self.listener.close()
        self.disconnect()

    def disconnect(self) -> None:
        for session in list(self.sessions):
            session.fail("57P01", "terminating connection due to administrator command")

    # ------------------------------------------------------------------------------------------- what sessions tell it

    def seat(self, session: Session) -> bool:  # noqa: ARG002 (for those that lead to several)
        """A client has said who it is: whether there is an endpoint whose session it is from now on."""
        return True

    def refusal(self, packet: StartupMessage, *, encrypted: bool) -> bytes | None:
        """An error for clients that RDS's ``pg_hba.conf`` does not let in, else None."""
        self.counters.connections += 1
        user = packet.user.decode(errors="replace")
        what = f'for user "{user}", database "{packet.database.decode(errors="replace")}"'
        if packet.user == INTERNAL_USER:
            return messages.error_response("FATAL", "28000", f"pg_hba.conf rejects connection {what}")
        if packet.asks_for_replication:
            # A replication connection cannot be carried over a switchover, so none is let in by this way.
            return messages.error_response("FATAL", "28000", f"pg_hba.conf rejects replication connection {what}")
        if self.route.require_tls and not encrypted:
            return self.rejects_plain(packet)
        if self._is_crowded():
            self.counters.turned_away += 1
            return messages.error_response("FATAL", "53300", "sorry, too many clients already")
        return None

    @staticmethod
    def rejects_plain(packet: StartupMessage) -> bytes:
        user, database = packet.user.decode(errors="replace"), packet.database.decode(errors="replace")
        text = f'pg_hba.conf rejects connection for user "{user}", database "{database}", no encryption'
        return messages.error_response("FATAL", "28000", text)

    def _is_crowded(self) -> bool:
        """Those that have said who they are count, the latest of them too, whether they have a backend or wait."""
        most = self.limits.max_connections
        return len(self.sessions) > most and sum(session.startup is not None for session in self.sessions) > most

    def session_parked(self, session: Session) -> None:
        if self.park is not None:
            self.park.reached(session)
            return
        if session.backend != self.route.backend:
            # A straggler that a switchover has left behind: its backend is production no more.
            session.pinned = "the session came to a safe point after the switchover"
        if self.leave is not None and session.pinned is None:
            self.leave(session)
        else:
            session.resume()

    def session_closed(self, session: Session) -> None:
        self.sessions.discard(session)
        self.census.forget(session)
        self.departing.add(session)
        self.counters.client_bytes += bytes_from_client(session)
        self.counters.server_bytes += bytes_from_server(session)
        self.counters.sequence_values_asked |= session.tracker.sequence_values.asked
        if self.park is not None:
            self.park.left(session)

    def settle(self, session: Session) -> None:
        """The session is at a safe point unless the server still owes it a ``ReadyForQuery``: ask."""
        self._run(settle(session))

    # --------------------------------------------------------------------------------------------------------- cancel

    def cancel(self, key: BackendKey, answered: Callable[[], None]) -> None:
        """Pass a cancel request on to the backend that serves the session with ``key`` now, then call ``answered``:
        clients take the end of the connection for the sign that the signal has been sent.

        Only sessions of this endpoint are looked at, in this process and in another that serves some of them. An
        unknown key is dropped, as a server does: sent on as it is, it could hit another client's backend, for pids
        repeat between servers.
        """
        if self.cancel_here(key, answered):
            return
        if self.cancel_elsewhere is not None:
            self._run(self._ask_elsewhere(self.cancel_elsewhere, key, answered))
            return
        log.info("cancel.unknown_key", endpoint=self.name)
        answered()

    def cancel_here(self, key: BackendKey, answered: Callable[[], None]) -> bool:
        """False, and ``answered`` is not called: no session of this process has ``key``."""
        for session in self.sessions:
            issued = session.tracker.key
            if issued is None or issued.pid != key.pid or not hmac.compare_digest(issued.secret, key.secret):
                continue
            current = session.current_key
            # A parked session runs nothing, and one that we ask something nothing of its client's; what the client asks
            # for next shall not be hit by this. What it has asked for meanwhile is cancelled when it runs.
            if (
                current is not None
                and session.state in (State.FLOWING, State.STOPPING)
                and not session.asking.under_way
            ):
                self._run(self._cancel(session.backend, current, answered))
            else:
                session.given_up = session.is_waited_for or not session.tracker.safe
                answered()
            return True
        return False

    async def _ask_elsewhere(self, elsewhere: CancelElsewhere, key: BackendKey, answered: Callable[[], None]) -> None:
        found = await elsewhere(self.name, key)
        # It may have come over while we asked.
        if found or not self.cancel_here(key, answered):
            answered()

    async def _cancel(self, backend: BackendAddress, key: BackendKey, answered: Callable[[], None]) -> None:
        try:
            await signal(backend, key)
        finally:
            answered()

    def cancel_what_waited(self, session: Session) -> None:
        self._run(cancel_what_waited(session))

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
