"""A target that is still a hot standby while sessions are given to it: physical mode commits before it promotes."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, MASTER, MASTER_PASSWORD, CreateServer, random_resource_id
from tests.integration.router.clients import Endpoint, one, park
from tests.ports import host_ports
from verdigris.domain.ports import Pair, Route
from verdigris.domain.statuses import ReplicationMode
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine
from verdigris.router.client import RouterClient
from verdigris.router.process import RouterProcess


@pytest.mark.parametrize("by_option", [False, True])
async def test_sessions_wait_for_the_promotion(
    servers: PostgresServers,
    create_server: CreateServer,
    router_process: RouterProcess,
    verdigris_home: Path,
    by_option: bool,
) -> None:
    assert router_process.pid is not None
    blue = await create_server()
    pair = Pair(
        deployment_id="bgd-0123456789abcdef",
        source_resource_id=blue.resource_id,
        target_resource_id=random_resource_id(),
        mode=ReplicationMode.PHYSICAL,
        source_version=BLUE_VERSION,
        target_version=BLUE_VERSION,
        target_instance_class="db.t4g.micro",
    )
    builder = PostgresGreenBuilder(servers)
    await builder.copy(pair)
    await builder.join(pair)
    green = servers.server(pair.target_resource_id)
    router = RouterClient(verdigris_home, epoch=1)
    route = Route(name="app", host="127.0.0.1", port=host_ports().allocate(()), backend=blue.address)
    await router.put_route(route)
    # Serializable transactions cannot run on a standby at all: not even the questions of the handover.
    options = "-c default_transaction_isolation=serializable" if by_option else ""
    conninfo = Endpoint(route).conninfo(MASTER, MASTER_PASSWORD, options=options)
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as connection:
        await connection.execute("CREATE TABLE written (n int)")
        if not by_option:
            await connection.execute("SET default_transaction_isolation = serializable")
        await connection.execute("INSERT INTO written VALUES (%s)", [1], prepare=True)
        # A standby takes locks, but no LISTEN, no temporary table and no statement that uses one: these wait for the
        # promotion.
        await connection.execute("CREATE TEMP TABLE noted AS SELECT 1 AS n FROM generate_series(1, 1000)")
        await connection.execute("CREATE TEMP TABLE cleared (n int) ON COMMIT DELETE ROWS")
        await connection.execute("DECLARE held NO SCROLL CURSOR WITH HOLD FOR SELECT n FROM generate_series(1, 5) n")
        await connection.execute("FETCH 2 IN held")
        await connection.execute("PREPARE noted AS SELECT sum(n) FROM noted")
        await connection.execute("SELECT pg_advisory_lock(7)")
        await connection.execute("LISTEN written")
        await connection.execute("CREATE TABLE orders (id serial, note text)")
        await connection.execute("CREATE TEMP TABLE scratch (id serial, note text)")
        for table in ("scratch", "orders", "orders"):
            await connection.execute(f"INSERT INTO {table} DEFAULT VALUES".encode())
        assert await one(connection, "SELECT lastval()") == 2  # carried only for those who ask
        async with await blue.connect(options="") as admin:
            row = await (
                await admin.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [MASTER])
            ).fetchone()
            assert row is not None
        helpers = await PostgresSwitchoverEngine(servers, builder).helpers(pair)
        assert "app" in helpers.databases
        report = await router.ready("app", green.address, {MASTER: row[0]}, helpers)
        assert (report.dialled, report.pinned) == (1, {})
        parked = await park(router)
        assert (await router.hand_over(parked.generation)).carried == 1
        await router.commit(
            parked.generation, [Route(name="app", host=route.host, port=route.port, backend=green.address)], hold=True
        )
        asked = asyncio.create_task(connection.execute("INSERT INTO written VALUES (%s)", [2], prepare=True))
        async with await green.connect() as admin:
            await admin.execute("SELECT pg_promote()")
        await router.release(parked.generation)
        await asked
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as other:
            assert await one(other, "SELECT pg_try_advisory_lock(7)") is False
            await other.execute("NOTIFY written, 'heard'")
        assert [note.payload async for note in connection.notifies(timeout=30, stop_after=1)] == ["heard"]
        assert await one(connection, "FETCH 1 IN held") == 3
        assert await one(connection, "EXECUTE noted") == 1000
        await connection.execute("INSERT INTO cleared VALUES (1)")
        assert await one(connection, "SELECT count(*) FROM cleared") == 0
        assert await one(connection, "SHOW transaction_isolation") == "serializable"
        for question in ("lastval()", "currval('orders_id_seq')"):
            assert await one(connection, f"SELECT {question}") == 2
        assert await one(connection, "SELECT currval('scratch_id_seq')") == 1
        # A standby goes on where the WAL says, which is up to 32 values ahead.
        assert await one(connection, "SELECT nextval('orders_id_seq') > 2")
        assert await one(connection, "SELECT inet_server_port() IS NULL AND count(*) = 2 FROM written")
        assert connection.pgconn.parameter_status(b"in_hot_standby") == b"off"
    await builder.dismantle(pair)
    for server in (blue, green):
        async with await server.connect("app", options="") as admin:
            left = await admin.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ '^verdigris'")
            assert await left.fetchall() == []
