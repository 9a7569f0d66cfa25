"""Looking at guardrails: all of a moment, in as few sessions as they need."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import psycopg
import structlog

from verdigris.domain.errors import EngineError
from verdigris.domain.ports import CheckOutcome, CheckResult, Finding
from verdigris.engines.postgres.guardrails.model import Extent, Guardrail, Moment, Subject, View
from verdigris.engines.postgres.guardrails.registry import GUARDRAILS
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import (
    MAINTENANCE_DATABASE,
    Database,
    describe,
    for_each,
    list_databases,
    session,
    sessions,
)

log = structlog.get_logger(__name__)

_Found = dict[str, list[Finding]]  # by guardrail


async def look(subject: Subject) -> list[CheckResult]:
    """Every guardrail of the subject's moment and mode, in the registry's order. Changes nothing.

    What cannot be looked at because a server does not run is said to be so; what fails to be looked at has failed,
    except where a deployment waits: there a finding ends it for good, and the next look is near.
    """
    wanted = [g for g in GUARDRAILS if subject.moment in g.moments and subject.pair.mode in g.modes]
    found: _Found = {}
    for guardrail in wanted:
        if guardrail.extent is Extent.PAIR:
            await _look(guardrail, View(subject), found)
    inside = [g for g in wanted if g.extent is not Extent.PAIR and _is_reachable(g, subject)]
    if inside:
        await _look_inside(subject, inside, found)
    reached = {guardrail.name for guardrail in inside}
    return [_result(g, found.get(g.name, []), looked_at=g.extent is Extent.PAIR or g.name in reached) for g in wanted]


async def findings(subject: Subject) -> list[Finding]:
    return [finding for result in await look(subject) for finding in result.findings]


async def look_again(view: View) -> list[Finding]:
    """Behind the fence, in one database, with the sessions that are open already."""
    found: _Found = {}
    for guardrail in GUARDRAILS:
        wanted = Moment.FENCED in guardrail.moments and view.subject.pair.mode in guardrail.modes
        if wanted and _belongs(guardrail, view.database):
            await _look(guardrail, view, found)
    return [finding for findings in found.values() for finding in findings]


def _is_reachable(guardrail: Guardrail, subject: Subject) -> bool:
    return _is_up(subject.source, guardrail.sees_source) and _is_up(subject.target, guardrail.sees_target)


def _is_up(server: PostgresServer | None, needed: bool) -> bool:
    return not needed or (server is not None and server.is_running())


def _belongs(guardrail: Guardrail, database: Database | None) -> bool:
    if guardrail.extent is Extent.CLUSTER:
        return database is not None and database.name == MAINTENANCE_DATABASE
    return guardrail.extent is Extent.DATABASE


async def _look_inside(subject: Subject, guardrails: Sequence[Guardrail], found: _Found) -> None:
    source = subject.source if any(g.sees_source for g in guardrails) else None
    target = subject.target if any(g.sees_target for g in guardrails) else None
    on_source = await list_databases(source) if source is not None else []
    on_target = {database.name for database in await list_databases(target)} if target is not None else set()
    carried = on_source
    if source is None and target is not None:
        carried = await list_databases(target)

    async def one(database: Database) -> None:
        on_both = database.name in on_target
        here = [g for g in guardrails if _belongs(g, database) and (on_both or not g.sees_target)]
        if here:
            async with _view(subject, database, here) as view:
                for guardrail in here:
                    await _look(guardrail, view, found)

    await for_each(carried, one)


@contextlib.asynccontextmanager
async def _view(subject: Subject, database: Database, guardrails: Sequence[Guardrail]) -> AsyncIterator[View]:
    source = subject.source if any(g.sees_source for g in guardrails) else None
    target = subject.target if any(g.sees_target for g in guardrails) else None
    if source is not None and target is not None:
        async with sessions(source, target, database.name) as (ours, theirs):
            yield View(subject, database, ours, theirs)
    elif source is not None:
        async with session(source, database.name) as ours:
            yield View(subject, database, source=ours)
    elif target is not None:
        async with session(target, database.name) as theirs:
            yield View(subject, database, target=theirs)


async def _look(guardrail: Guardrail, view: View, found: _Found) -> None:
    database = view.database if guardrail.extent is Extent.DATABASE else None
    try:
        what = await guardrail.look(view)
    except (EngineError, psycopg.Error) as error:
        reason = describe(error) if isinstance(error, psycopg.Error) else str(error)
        if view.subject.moment is Moment.STANDING:
            # A server that restarts ends our session while we look.
            log.info("guardrail.not_looked_at", guardrail=guardrail.name, reason=reason)
            return
        where = f" in database {database.name}" if database else ""
        message = f"It cannot be told{where} whether all is well: {reason}."
        found.setdefault(guardrail.name, []).append(
            Finding(guardrail=guardrail.rds, check=guardrail.name, message=message)
        )
        return
    if what:
        found.setdefault(guardrail.name, []).append(guardrail.finding(what, database))


def _result(guardrail: Guardrail, findings: Sequence[Finding], *, looked_at: bool) -> CheckResult:
    outcome = CheckOutcome.FAILED if findings else CheckOutcome.OK if looked_at else CheckOutcome.NOT_LOOKED_AT
    return CheckResult(
        check=guardrail.name,
        guardrail=guardrail.rds,
        side=guardrail.side,
        outcome=outcome,
        findings=tuple(sorted(findings, key=lambda finding: finding.message)),
    )
