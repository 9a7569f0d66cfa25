"""Custom settings whose names are parameters: ``set_config($1, $2, false)``."""

import asyncpg
import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import ALICE, ALICE_PASSWORD, Connection, Endpoint, Switchover, connect, one
from verdigris.router.process import RouterProcess
from verdigris.router.record import started_ticks

SET = "SELECT set_config(%s, %s, false)"


async def settings(connection: Connection) -> dict[str, object]:
    names = ("app.tenant", "app.user", "app.deep.er")
    return {name: await one(connection, f"SELECT current_setting('{name}', true)") for name in names}


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("binary", [False, True])
async def test_names_are_carried(endpoint: Endpoint, switchover: Switchover, prepare: bool, binary: bool) -> None:
    """By the unnamed statement, and by one that is prepared once and executed with one name after the other."""
    async with await connect(endpoint) as connection:
        query = SET.replace("%s", "%b") if binary else SET
        for name, value in (("app.tenant", "7"), ("App.User", "alice"), ("app.deep.er", "é"), ("app.user", "bob")):
            await connection.execute(query, [name, value], prepare=prepare)
        wanted = {"app.tenant": "7", "app.user": "bob", "app.deep.er": "é"}
        assert await settings(connection) == wanted
        assert await switchover.run() == {}
        assert await one(connection, "SELECT label FROM which") == "green"
        assert await settings(connection) == wanted
        # The statement is on green now, and is known to take names as before.
        await connection.execute(query, ["app.late", "on green"], prepare=prepare)
        assert await switchover.run() == {}
        assert await one(connection, "SHOW app.late") == "on green"


async def test_asyncpg(endpoint: Endpoint, switchover: Switchover) -> None:
    """Its own statements, parameters in binary format; the value bound, and both."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=endpoint.route.port, user=ALICE, password=ALICE_PASSWORD, database="app", ssl=False
    )
    try:
        statement = await connection.prepare("SELECT set_config($2, $1, false), set_config($3::text, $1, $4)")
        await statement.fetch("x", "app.first", "app.local", True)
        await statement.fetch("y", "app.second", "app.third", False)
        await connection.execute("SELECT set_config('app.fourth', 'z', false)")
        assert await switchover.run() == {}
        for name, value in (("first", "x"), ("second", "y"), ("third", "y"), ("fourth", "z"), ("local", "")):
            assert (await connection.fetchval(f"SELECT current_setting('app.{name}', true)") or "") == value
        assert await connection.fetchval("SELECT label FROM which") == "green"
    finally:
        await connection.close()


async def test_names_from_elsewhere_pin(endpoint: Endpoint, switchover: Switchover) -> None:
    async with await connect(endpoint) as by_sql, await connect(endpoint) as computed:
        await by_sql.execute("PREPARE p AS SELECT set_config($1, $2, false)")
        await by_sql.execute("EXECUTE p ('app.tenant', '7')")
        await computed.execute("SELECT set_config('app.' || %s, %s, false)", ["tenant", "7"])
        assert await switchover.run() == {"custom-settings": 2}
        for connection in (by_sql, computed):
            with pytest.raises(psycopg.errors.AdminShutdown):
                await connection.execute("SELECT 1")


async def test_another_router_knows_them(
    endpoint: Endpoint, router_process: RouterProcess, switchover: Switchover
) -> None:
    async with await connect(endpoint) as connection:
        await connection.execute(SET, ["app.tenant", "7"], prepare=True)
        before = router_process.pid
        assert before is not None
        await router_process.restart()
        await until(lambda: started_ticks(before) is None)
        await connection.execute(SET, ["app.user", "alice"], prepare=True)
        assert await switchover.run() == {}
        assert await settings(connection) == {"app.tenant": "7", "app.user": "alice", "app.deep.er": None}
