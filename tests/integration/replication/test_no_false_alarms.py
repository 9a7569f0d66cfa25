"""Twenty clean databases in one pair: no guardrail finds anything, before and after ordinary load, and all arrives."""

import asyncio
from collections.abc import Awaitable, Callable

from psycopg import sql

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer
from tests.integration.replication.conftest import MakePair, build, contents, run_sql, traces
from tests.integration.replication.shapes import SHAPES
from verdigris.domain.ports import CheckOutcome
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import session
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine


async def test_twenty_clean_databases_raise_no_alarm(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
) -> None:
    assert len(SHAPES) >= 20
    source = await create_server(version=BLUE_VERSION)
    await run_sql(
        source,
        "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements', 'pg_prewarm'",
        "CREATE ROLE keeper LOGIN PASSWORD 'k'",
        "CREATE ROLE clerk LOGIN PASSWORD 'c' CONNECTION LIMIT 5 VALID UNTIL '2099-01-01'",
        "CREATE ROLE reader NOLOGIN",
        "CREATE ROLE bypasser BYPASSRLS",
        "GRANT reader TO clerk WITH INHERIT FALSE",
        "ALTER ROLE clerk SET statement_timeout = '1min'",
        dbname="postgres",
    )
    await source.restart()
    await _everywhere(source, lambda name: _define(source, name), at_once=1)
    pair = make_pair(source, GREEN_VERSION)
    publications = await traces(source, pair)  # of the shapes themselves
    assert await green.check_source(pair) == []
    await build(green, pair)
    target = servers.server(pair.target_resource_id)

    assert await switchover.guardrails(pair) == []
    await _everywhere(source, lambda name: _run(source, name, SHAPES[name].load), at_once=4)
    results = await switchover.check(pair)
    assert [r for r in results if r.outcome is not CheckOutcome.OK] == []
    assert await green.health(pair) is None

    await switchover.prepare(pair)
    await switchover.close(pair)
    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    assert await contents(target) == await contents(source)
    await switchover.unfence(pair)
    await switchover.stand_down(pair)
    await green.dismantle(pair)
    assert await traces(source, pair) == publications


async def _everywhere(source: PostgresServer, work: Callable[[str], Awaitable[None]], *, at_once: int) -> None:
    limit = asyncio.Semaphore(at_once)

    async def one(name: str) -> None:
        async with limit:
            await work(name)

    await asyncio.gather(*(one(name) for name in SHAPES))


async def _define(source: PostgresServer, name: str) -> None:
    async with session(source) as connection:
        await connection.run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    await _run(source, name, SHAPES[name].definition)
    if name == "toast":
        await _run(source, name, "SELECT lo_from_bytea(5000, 'a large object that nobody touches any more')")


async def _run(source: PostgresServer, name: str, script: str) -> None:
    """Statement by statement, as an application does, which is not kept from views as sessions of ours are; a BEGIN
    holds until its COMMIT."""
    async with session(source, name, search_path="public", restrict_nonsystem_relation_kind="") as connection:
        for statement in _statements(script):
            await connection.execute(statement.encode())


def _statements(script: str) -> list[str]:
    """Split at semicolons outside quotes; comments stay with what follows them."""
    statements, current, quote = [], "", ""
    at = 0
    while at < len(script):
        if not quote and script.startswith("--", at):
            at = script.find("\n", at)
            continue
        mark = "$$" if script.startswith("$$", at) else script[at]
        if mark in {"'", '"', "$$"} and quote in {"", mark}:
            quote = "" if quote else mark
        if mark == ";" and not quote:
            statements.append(current)
            current = ""
        else:
            current += mark
        at += len(mark)
    return [statement for statement in [*statements, current] if statement.strip()]
