"""The database side of a switchover: the ``SwitchoverEngine`` of the domain."""

import asyncio
import contextlib
import functools
import math
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

import structlog

from verdigris.domain.errors import EngineError, SetBack, StepFailed
from verdigris.domain.ports import CheckResult, Finding, Helpers, Pair
from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres import (
    dismantling,
    fence,
    marker,
    session_functions,
    standby,
    subscriber,
)
from verdigris.engines.postgres.carrying import materialized_views
from verdigris.engines.postgres.carrying.tending import carry_before_pause, carry_the_rest
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.guardrails import run as guardrails
from verdigris.engines.postgres.guardrails.model import DEFAULT_TIMEOUT_S, Moment, View
from verdigris.engines.postgres.names import READ_ONLY, ObjectNames
from verdigris.engines.postgres.roles import read_verifiers
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import (
    MAINTENANCE_DATABASE,
    Database,
    all_of,
    databases,
    for_each,
    keep_sessions,
    kept_sessions,
    let_go_of_sessions,
    list_databases,
    session,
    sessions,
    until,
)

log = structlog.get_logger(__name__)

# A pause is worth beginning when catching up takes no longer than this ...
_SHORT_WAY_S = 0.25
# ... or when it no longer gets shorter, because that is what so many databases take on this machine, and clients can
# bear it; the pause itself is given up after some seconds more.
_BEARABLE_WAY_S = 2.0
_SHORTER = 0.8
# A retired source that does not answer is tried again later rather than waited for.
_SOURCE_LIMIT_S = 30.0
_POLL_S = 0.001
# A round of carrying before guardrails look. What takes longer goes on in the preparations.
_NEWS_LIMIT_S = 3.0
# What is defined on blue while the last thing is carried is carried in the next round.
_CARRYING_ROUNDS = 3
# Of a server: in the maintenance database, as an observer of its read-only setting, and in two databases more.
_KEPT_SESSIONS = 4
# Of source, which can be sealed if there is one for each database: ``superuser_reserved_connections`` are ten.
_KEPT_SESSIONS_MAX = 8

# The oldest transaction first: it is the one to look at. No text of a statement: it may hold what is nobody's business.
_BUSY_WITH = """
    SELECT format('process %%s (%%s@%%s%%s) %%s for %%s s%%s', pid, usename, datname,
                  CASE WHEN application_name <> '' THEN ', ' || application_name END,
                  CASE WHEN state LIKE 'idle in transaction%%' THEN state ELSE 'running a statement' END,
                  round(extract(epoch FROM clock_timestamp()
                                - CASE WHEN state = 'active' THEN query_start ELSE xact_start END)::numeric, 1),
                  CASE WHEN wait_event_type = 'Lock' THEN format(', waiting for a lock (%%s)', wait_event) END)
      FROM pg_stat_activity
     WHERE pid = ANY(%s) AND state <> 'idle'
     ORDER BY xact_start
"""


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _takes_part(method: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """A step of the switchover, or what one needs: its sessions are kept from ``prepare`` to ``stand_down``."""

    @functools.wraps(method)
    async def step(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with kept_sessions():
            return await method(*args, **kwargs)

    return step


class PostgresSwitchoverEngine:
    def __init__(self, servers: PostgresServers, green: PostgresGreenBuilder) -> None:
        self._servers = servers
        self._green = green
        self._closed: set[str] = set()  # sources that take nobody new, by our own doing
        self._left: dict[str, frozenset[int]] = {}  # server processes that a source's fence has left there

    # ------------------------------------------------------------------------------------------------ before the pause

    async def guardrails(self, pair: Pair, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Finding]:
        await self._carry_what_is_new(pair)
        return await guardrails.findings(self._green.subject(pair, Moment.SWITCHOVER, timeout_s=timeout_s))

    async def _carry_what_is_new(self, pair: Pair) -> None:
        """What was made on blue a moment ago is not missing on green. What cannot be carried guardrails will say."""
        try:
            async with asyncio.timeout(_NEWS_LIMIT_S):
                await self._green.tend(pair)
        except (EngineError, TimeoutError) as error:
            log.info("target.not_tended", target=pair.target_resource_id, reason=str(error) or "it takes too long")

    async def check(self, pair: Pair) -> list[CheckResult]:
        """Every guardrail that a switchover begun now, with the default timeout, would look at; well or not."""
        return await guardrails.look(self._green.subject(pair, Moment.SWITCHOVER))

    @_takes_part
    async def describe_sessions(self, pair: Pair, server_pids: Collection[int]) -> list[str]:
        async with session(self._servers.server(pair.source_resource_id)) as connection:
            rows = await connection.rows(_BUSY_WITH, list(server_pids))
        return [row[0] for row in rows]

    @_takes_part
    async def login_verifiers(self, pair: Pair, usernames: Collection[str]) -> Mapping[str, str]:
        async with session(self._servers.server(pair.target_resource_id)) as connection:
            return await read_verifiers(connection, usernames)

    @_takes_part
    async def helpers(self, pair: Pair) -> Helpers:
        return await session_functions.find(*self._pair(pair))

    @_takes_part
    async def prepare(self, pair: Pair) -> None:
        """Besides, sessions are opened and warmed by use that the pause will find open: until ``stand_down``."""
        source, target, names = self._pair(pair)
        count = len(await list_databases(source))
        keep_sessions(source, min(max(_KEPT_SESSIONS, count + 1), _KEPT_SESSIONS_MAX))
        keep_sessions(target, _KEPT_SESSIONS)
        for replica in self._replicas(pair):
            keep_sessions(replica, 1)
        await _is_read_only(target)
        if pair.mode is ReplicationMode.LOGICAL:
            await self._green.tending.reserve(names)
            await self._carry(pair)
        last_s = math.inf
        while True:
            began_at = asyncio.get_running_loop().time()
            if pair.mode is ReplicationMode.LOGICAL:
                await self._catch_up_all(pair, fenced=False)
            else:
                await marker.prove_physical(source, target)
            await self._prove_replicas(pair)
            took_s = asyncio.get_running_loop().time() - began_at
            if took_s <= _SHORT_WAY_S or last_s * _SHORTER <= took_s <= _BEARABLE_WAY_S:
                return
            log.info("target.behind", target=target.resource_id, catch_up_s=round(took_s, 3))
            last_s = took_s

    async def _carry(self, pair: Pair) -> None:
        """Until nothing is left of what is carried beforehand. While it is, something else may be defined."""
        source, target, names = self._pair(pair)
        for rounds_left in reversed(range(_CARRYING_ROUNDS)):
            await marker.prove_logical(source, target, names)
            await carry_before_pause(source, target, names)
            try:
                await self._catch_up_all(pair, fenced=False)
            except SetBack as error:
                if not rounds_left:
                    raise StepFailed(str(error)) from None
            else:
                return

    # ------------------------------------------------------------------------------------------------------- the pause

    @_takes_part
    async def close(self, pair: Pair) -> None:
        source = self._servers.server(pair.source_resource_id)
        self._closed.discard(source.resource_id)
        await fence.close(source, seal=await self._has_sessions_enough(pair, source))
        self._closed.add(source.resource_id)

    async def _has_sessions_enough(self, pair: Pair, source: PostgresServer) -> bool:
        """Whether the pause needs no new one."""
        needed = [MAINTENANCE_DATABASE]
        if pair.mode is ReplicationMode.LOGICAL:
            needed = [database.name for database in await list_databases(source)]
        enough = source.kept is not None and all(source.kept.has(name) for name in needed)
        if not enough:
            log.info("source.not_sealed", source=source.resource_id, databases=len(needed))
        return enough

    @_takes_part
    async def fence(self, pair: Pair, keep: Collection[int]) -> None:
        source = self._servers.server(pair.source_resource_id)
        self._left[source.resource_id] = frozenset(keep)
        await fence.raise_fence(source, keep, closed=source.resource_id in self._closed)

    async def is_fenced(self, pair: Pair) -> bool:
        """Also when a fence was only half made: then there is something to undo."""
        return fence.is_raised(self._servers.server(pair.source_resource_id))

    async def unfence(self, pair: Pair) -> None:
        self._closed.discard(pair.source_resource_id)
        await fence.lift(self._servers.server(pair.source_resource_id))

    @_takes_part
    async def catch_up(self, pair: Pair) -> None:
        """``SetBack`` by what has slipped in between ``prepare`` and the fence, and by who has come in behind it."""
        source, target, _ = self._pair(pair)
        if pair.mode is ReplicationMode.PHYSICAL:
            async with session(source) as ours:
                database = next(d for d in await databases(ours) if d.name == MAINTENANCE_DATABASE)
                await _look_again(View(self._green.subject(pair, Moment.FENCED), database, ours))
            await marker.prove_physical(source, target)
        else:
            await self._catch_up_all(pair, fenced=True)
        await self._prove_replicas(pair)
        async with session(source) as ours:
            # At the end: what they have written after the marker is not on target.
            came = await fence.newcomers(ours, self._left.get(source.resource_id, ()))
        if came:
            raise SetBack(f"somebody has come in behind the fence: {', '.join(came)}")

    async def _prove_replicas(self, pair: Pair) -> None:
        """Nobody who read from a replica of source has seen what is not on green's replicas after this."""
        if pair.target_replicas:
            await marker.prove_replicas(self._servers.server(pair.target_resource_id), self._replicas(pair))

    def _replicas(self, pair: Pair) -> list[PostgresServer]:
        return [self._servers.server(resource_id) for resource_id in pair.target_replicas]

    async def _catch_up_all(self, pair: Pair, *, fenced: bool) -> None:
        await for_each(
            await list_databases(self._servers.server(pair.source_resource_id)),
            lambda database: self._catch_up(pair, database, fenced=fenced),
        )

    async def _catch_up(self, pair: Pair, database: Database, *, fenced: bool) -> None:
        """One database: while the marker travels, everything else is read and compared."""
        source, target, names = self._pair(pair)
        async with sessions(source, target, database.name) as (ours, theirs):
            token = await marker.send(ours, names)
            shared = database.name == MAINTENANCE_DATABASE
            await carry_the_rest(ours, theirs, names, shared=shared, master=target.record.master_username)
            # Only where nobody refreshes any more is what is found now made of what the marker proves.
            refreshed = await materialized_views.look(ours, theirs, names) if fenced else []
            await _look_again(View(self._green.subject(pair, Moment.FENCED), database, ours, theirs))
            await marker.wait_for(theirs, names, token)
            await materialized_views.carry_finally(theirs, names, refreshed)
            await marker.flush(theirs)

    # ---------------------------------------------------------------------------------- beyond the point of no return

    @_takes_part
    async def open_target(self, pair: Pair) -> None:
        """Only what clients wait for; the rest is tidied up in ``retire_source``."""
        target, names = self._servers.server(pair.target_resource_id), ObjectNames(pair.deployment_id)
        if pair.mode is ReplicationMode.PHYSICAL:
            await standby.promote(target)
            return
        await all_of(_admit_writes(target), subscriber.disable(target, names))

    async def stand_down(self, pair: Pair) -> None:
        self._green.tending.release(ObjectNames(pair.deployment_id))
        for resource_id in (pair.source_resource_id, pair.target_resource_id, *pair.target_replicas):
            await let_go_of_sessions(self._servers.server(resource_id))

    @_takes_part
    async def retire_source(self, pair: Pair) -> None:
        """A source that has died keeps its slots until it runs again; that it is read-only is in its files at once."""
        source, target, names = self._pair(pair)
        source.change_settings({READ_ONLY: "on", fence.READ_ONLY_BEFORE: None})
        with contextlib.suppress(EngineError):  # there is none, and the next one reads the file
            source.reload()  # also one that is only starting: it may have read the file before
        try:
            async with asyncio.timeout(_SOURCE_LIMIT_S):
                if source.is_running():
                    await fence.unseal(source)
                    await until(lambda: _is_read_only(source), every_s=_POLL_S)
                    if fence.is_raised(source):
                        # Nobody who came in while it could be written to may stay.
                        await fence.clear(source, (), gently=True)
                await dismantling.detach_target(pair.mode, target, names)
                await dismantling.clean_source(source, names)
        except TimeoutError:
            raise EngineError(f"{source.resource_id} did not answer for {_SOURCE_LIMIT_S:g} s") from None

    def _pair(self, pair: Pair) -> tuple[PostgresServer, PostgresServer, ObjectNames]:
        return (
            self._servers.server(pair.source_resource_id),
            self._servers.server(pair.target_resource_id),
            ObjectNames(pair.deployment_id),
        )


async def _look_again(view: View) -> None:
    if findings := await guardrails.look_again(view):
        raise SetBack(f"something has changed since the guardrails: {' '.join(map(str, findings))}")


async def _admit_writes(target: PostgresServer) -> None:
    """Return when new sessions can write. Sessions that were handed over could all along, had they been let run."""
    target.change_settings({READ_ONLY: None})
    target.reload()

    async def writable() -> bool:
        return not await _is_read_only(target)

    await until(writable, every_s=_POLL_S)


async def _is_read_only(server: PostgresServer) -> bool:
    """As a new session without settings of its own finds it. An older session learns of a reload after the postmaster
    itself has taken it in (``process_pm_reload_request``), so its word is good for all that come later."""
    async with session(server, default_transaction_read_only=None) as connection:
        return bool(await connection.value("SELECT current_setting('default_transaction_read_only') = 'on'"))
