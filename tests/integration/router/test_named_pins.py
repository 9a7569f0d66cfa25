"""What green does not take is named before anybody is stopped, by its own reason; others are carried all the same."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import psycopg
import pytest
from psycopg import sql

from tests.integration.router.clients import ALICE, Connection, Endpoint, Pair, Switchover, connect, one
from verdigris.router.exchange import MAX_ANSWER_BYTES

CHIEF, CHIEF_PASSWORD = "chief", "chief's own"


@asynccontextmanager
async def different(conninfo: str, do: Sequence[str], undo: Sequence[str]) -> AsyncIterator[None]:
    """One of the servers is not as the other one for a while."""
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
        for statement in do:
            await admin.execute(statement.encode())
        try:
            yield
        finally:
            for statement in undo:
                await admin.execute(statement.encode())


async def is_pinned(switchover: Switchover, connection: Connection, reason: str) -> None:
    """Named by ``ready``, when nothing has happened yet; then closed at its safe point, and told why."""
    report = await switchover.router.ready("app", switchover.pair.green, switchover.pair.verifiers)
    assert (report.sessions, dict(report.pinned)) == (2, {reason: 1})
    assert await one(connection, "SELECT 1") == 1
    assert await switchover.finish() == {reason: 1}
    with pytest.raises(psycopg.errors.AdminShutdown, match=reason):
        await connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("reason", "statement"),
    [
        ("settings", "SET default_text_search_config = 'public.searching'"),
        ("prepared-statements", "PREPARE on_blue AS SELECT * FROM public.on_blue"),
    ],
)
async def test_what_needs_something_that_green_lacks(
    endpoint: Endpoint, switchover: Switchover, pair: Pair, reason: str, statement: str
) -> None:
    do = ["CREATE TEXT SEARCH CONFIGURATION searching (COPY = simple)", "CREATE TABLE on_blue (id int)"]
    undo = ["DROP TEXT SEARCH CONFIGURATION searching", "DROP TABLE on_blue"]
    async with (
        different(pair.blue_admin, [*do, "GRANT SELECT ON on_blue TO PUBLIC"], undo),
        await connect(endpoint) as connection,
        await connect(endpoint) as other,
    ):
        await connection.execute(statement.encode())
        await is_pinned(switchover, connection, reason)
        assert await one(other, "SELECT label FROM which") == "green"


async def test_unnamed_statement_over_something_that_green_lacks(
    endpoint: Endpoint, switchover: Switchover, pair: Pair
) -> None:
    do = ["CREATE TABLE on_blue (id int)", "GRANT SELECT ON on_blue TO PUBLIC"]
    async with (
        different(pair.blue_admin, do, ["DROP TABLE on_blue"]),
        await connect(endpoint) as connection,
        await connect(endpoint) as other,
    ):
        connection.pgconn.prepare(b"", b"SELECT * FROM on_blue WHERE id = $1")
        report = await switchover.router.ready("app", pair.green, pair.verifiers)
        assert dict(report.pinned) == {"unnamed-statement": 1}
        assert connection.pgconn.exec_prepared(b"", [b"1"]).ntuples == 0  # and it is still there
        assert await switchover.finish() == {"unnamed-statement": 1}
        assert await one(other, "SELECT label FROM which") == "green"


async def test_role_that_green_does_not_grant(endpoint: Endpoint, switchover: Switchover, pair: Pair) -> None:
    async with (
        different(pair.green_admin, [f"REVOKE reporting FROM {ALICE}"], [f"GRANT reporting TO {ALICE}"]),
        await connect(endpoint) as connection,
        await connect(endpoint) as other,
    ):
        await connection.execute("SET ROLE reporting")
        await is_pinned(switchover, connection, "role")
        assert await one(other, "SELECT label FROM which") == "green"


async def test_session_authorization_that_green_refuses(endpoint: Endpoint, switchover: Switchover, pair: Pair) -> None:
    """Its login is a superuser's on blue alone."""
    create = sql.SQL("CREATE ROLE chief SUPERUSER LOGIN PASSWORD {}").format(CHIEF_PASSWORD).as_string()
    async with different(pair.blue_admin, [create], ["DROP ROLE chief"]):
        async with await psycopg.AsyncConnection.connect(pair.blue_admin) as admin:
            cursor = await admin.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'chief'")
            row = await cursor.fetchone()
        assert row is not None
        verifier = str(row[0])
        copied = sql.SQL("CREATE ROLE chief LOGIN PASSWORD {}").format(verifier).as_string()
        with_chief = Switchover(
            switchover.router,
            msgspec.structs.replace(pair, verifiers={**pair.verifiers, CHIEF: verifier}),
            switchover.switched,
        )
        async with (
            different(pair.green_admin, [copied], ["DROP ROLE chief"]),
            await connect(endpoint, user=CHIEF, password=CHIEF_PASSWORD) as connection,
            await connect(endpoint) as other,
        ):
            await connection.execute(f"SET SESSION AUTHORIZATION {ALICE}".encode())
            await is_pinned(with_chief, connection, "session-authorization")
            assert await one(other, "SELECT label FROM which") == "green"


async def test_user_whom_green_does_not_let_in(endpoint: Endpoint, switchover: Switchover, pair: Pair) -> None:
    async with (
        different(pair.green_admin, [f"ALTER ROLE {ALICE} NOLOGIN"], [f"ALTER ROLE {ALICE} LOGIN"]),
        await psycopg.AsyncConnection.connect(endpoint.master(), autocommit=True) as other,
        await connect(endpoint) as connection,
    ):
        await is_pinned(switchover, connection, "target-refused")
        assert await one(other, "SELECT label FROM which") == "green"


async def test_more_state_than_is_read(endpoint: Endpoint, switchover: Switchover, pair: Pair) -> None:
    """Each statement is short enough, all of them together are not."""
    async with await connect(endpoint) as connection, await connect(endpoint) as other:
        text = b"SELECT '" + b"x" * 900_000 + b"'"
        for number in range(MAX_ANSWER_BYTES // len(text) + 1):
            connection.pgconn.prepare(b"s%d" % number, text)
        report = await switchover.router.pins("app", pair.verifiers, budget_s=20)
        assert dict(report.pinned) == {"state-unreadable": 1}
        assert await switchover.run() == {"state-unreadable": 1}
        with pytest.raises(psycopg.errors.AdminShutdown, match="state-unreadable"):
            await connection.execute("SELECT 1")
        assert await one(other, "SELECT label FROM which") == "green"
