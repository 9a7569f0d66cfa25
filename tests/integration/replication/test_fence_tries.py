"""Everybody who could write to a fenced source tries: none does, and none is in the way of whoever comes back later."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from tests.conftest import CreateServer, until
from tests.integration.replication.conftest import MakePair, as_master, build, query, run_sql, sealed
from verdigris.domain.errors import EngineError, SetBack, StepFailed
from verdigris.domain.ports import Pair
from verdigris.engines.postgres import fence
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.probe import Admission, admission
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import Session, list_databases, session
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

INSERT = "SET default_transaction_read_only = off; INSERT INTO public.t VALUES (1)"


async def as_operator(server: PostgresServer, **parameters: Any) -> Connection:
    """The internal superuser, with the password from the file, as a script of the operator's would."""
    conninfo = server.conninfo("app", application_name="maintenance.sh", **parameters)
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True)


async def as_superuser(server: PostgresServer) -> Connection:
    return await psycopg.AsyncConnection.connect(
        host=str(server.socket_dir), user="dba", password="dba", dbname="app", autocommit=True
    )


async def refused(trying: Any) -> bool:
    try:
        connection = await trying
        await connection.execute(INSERT)
    except psycopg.OperationalError:
        return True
    return False


async def test_nobody_writes(create_server: CreateServer) -> None:
    source = await create_server()
    async with session(source, "app") as ours:
        await ours.run("CREATE ROLE dba SUPERUSER LOGIN PASSWORD 'dba'")
        await ours.run("CREATE TABLE public.t (id int)")
        await ours.run("GRANT ALL ON public.t TO PUBLIC")
        await ours.run("CREATE EXTENSION dblink SCHEMA public")
    parked = await as_master(source)
    await parked.execute(
        f"SELECT public.dblink_connect('loop', 'host={source.socket_dir} user=dba password=dba dbname=app')".encode()
    )
    before = {
        "the master user": await as_master(source),
        "a superuser": await as_superuser(source),
        "an operator's script": await as_operator(source),
    }
    for connection in before.values():
        await connection.execute("SET default_transaction_read_only = off")
    busy = await as_superuser(source)
    running = asyncio.create_task(busy.execute("INSERT INTO public.t SELECT 1 FROM pg_sleep(60)"))
    async with sealed(source, [parked.info.backend_pid]):
        assert await admission(source.address.socket_path) is Admission.REFUSED
        got_in = [who for who, connection in before.items() if not await refused(_same(connection))]
        newcomers = {
            "the master user": as_master(source),
            "a superuser": as_superuser(source),
            "an operator's script": as_operator(source),
            "a replication connection": as_operator(source, replication="database"),
        }
        got_in += [f"{who}, anew" for who, trying in newcomers.items() if not await refused(trying)]
        assert got_in == []
        # A function that goes round by a connection to the server itself: the one it had, and a new one.
        for way in ("loop", f"host={source.socket_dir} user=dba password=dba dbname=app"):
            with pytest.raises(psycopg.Error):
                await parked.execute("SELECT public.dblink_exec(%s, 'INSERT INTO public.t VALUES (1)')", [way])
        async with session(source, "app") as ours:
            assert await ours.value("SELECT count(*) FROM public.t") == 0
    await asyncio.gather(running, return_exceptions=True)
    for back in (await as_master(source), await as_superuser(source), await as_operator(source)):
        await back.execute(INSERT)
        await back.close()
    for connection in (*before.values(), parked, busy):
        await connection.close()
    assert await query(source, "SELECT count(*) FROM public.t", "app") == [(3,)]


async def _same(connection: Connection) -> Connection:
    return connection


async def test_our_own_sessions_are_let_in_before_anybody_else(create_server: CreateServer) -> None:
    source = await create_server()
    async with sealed(source, []):
        with pytest.raises(psycopg.OperationalError):
            await as_operator(source)
        await fence.unseal(source)
        await (await Session.open(source)).close()
        assert fence.is_raised(source)
        assert await admission(source.address.socket_path) is Admission.REFUSED
    await (await as_master(source)).close()


async def test_a_seal_stands_after_a_restart_of_the_server_and_needs_no_session_to_lift(
    create_server: CreateServer,
) -> None:
    source = await create_server()
    async with sealed(source, []):
        await source.restart()
        with pytest.raises(psycopg.OperationalError):
            await as_operator(source)
    await (await as_master(source)).close()


async def test_lifting_reaches_a_server_that_is_only_starting(
    create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blue, killed right after a switchover's release, had read the fence as it came up again and never heard that it
    was lifted: nobody, ourselves included, could enter the old blue (found by ``python -m tests.faults --seed 1``)."""
    source = await create_server()
    await fence.close(source, seal=True)
    await source.restart()
    with monkeypatch.context() as starting:
        starting.setattr(source, "is_running", lambda: False)  # which is what a server says that recovers
        await fence.lift(source)

    async def admits() -> bool:
        return await admission(source.address.socket_path) is Admission.ADMITTED

    await until(admits)


async def test_what_nobody_can_end_behind_the_fence_refuses_the_switchover(
    create_server: CreateServer,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    make_pair: MakePair,
) -> None:
    """A prepared transaction, and a subscription whose worker the server would start again and again."""
    source = await create_server(version="17.10")
    source.change_settings({"max_prepared_transactions": "5"})
    await source.restart()
    async with await as_master(source) as master:
        await master.execute("CREATE TABLE t (id int PRIMARY KEY)")
    pair = make_pair(source, "18.6")
    await build(green, pair)
    for slips_in, is_named, goes in (
        ("BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'later'", "later", "ROLLBACK PREPARED 'later'"),
        (
            "CREATE SUBSCRIPTION foreign_sub CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false)",
            "foreign_sub",
            "ALTER SUBSCRIPTION foreign_sub SET (slot_name = NONE); DROP SUBSCRIPTION foreign_sub",
        ),
    ):
        await switchover.prepare(pair)
        await run_sql(source, *slips_in.split("; "))  # after the guardrails
        await switchover.close(pair)
        await switchover.fence(pair, [])
        with pytest.raises(StepFailed, match=is_named):
            await asyncio.wait_for(switchover.catch_up(pair), 20)
        await switchover.unfence(pair)
        await switchover.stand_down(pair)
        await run_sql(source, *goes.split("; "))
    await _set_back_by_a_script(switchover, pair, source)
    await switchover.prepare(pair)
    await switchover.close(pair)
    await switchover.fence(pair, [])
    await asyncio.wait_for(switchover.catch_up(pair), 20)
    await switchover.unfence(pair)
    await switchover.stand_down(pair)


async def test_who_comes_in_behind_the_fence_sets_a_minor_upgrade_back(
    create_server: CreateServer,
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    make_pair: MakePair,
) -> None:
    """Past ``pg_hba.conf``, or as somebody whom it lets in: a subscription's worker that the server begins again, and
    an operator's script. A prepared transaction is on green as it is here, and can be committed there."""
    source = await create_server(version="17.10")
    source.change_settings({"max_prepared_transactions": "5"})
    await source.restart()
    async with await as_master(source) as master:
        await master.execute("CREATE TABLE t (id int PRIMARY KEY)")
    pair = make_pair(source, "17.11")
    await build(green, pair)
    begun = "BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'later'"
    subscription = "CREATE SUBSCRIPTION foreign_sub CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false)"
    removal = "ALTER SUBSCRIPTION foreign_sub SET (slot_name = NONE); DROP SUBSCRIPTION foreign_sub"
    await run_sql(source, *begun.split("; "))

    await switchover.prepare(pair)
    await run_sql(source, subscription)  # after the guardrails
    await switchover.close(pair)
    await switchover.fence(pair, [])
    with pytest.raises(SetBack, match="foreign_sub"):
        await asyncio.wait_for(switchover.catch_up(pair), 20)
    await switchover.unfence(pair)
    await run_sql(source, *removal.split("; "))

    await _set_back_by_a_script(switchover, pair, source)
    await switchover.prepare(pair)
    await switchover.close(pair)
    await switchover.fence(pair, [])
    await asyncio.wait_for(switchover.catch_up(pair), 20)
    await switchover.open_target(pair)
    target = servers.server(pair.target_resource_id)
    await run_sql(target, "COMMIT PREPARED 'later'")
    assert await query(target, "SELECT id FROM public.t") == [(1,)]
    await switchover.retire_source(pair)
    await switchover.stand_down(pair)


async def _set_back_by_a_script(switchover: PostgresSwitchoverEngine, pair: Pair, source: PostgresServer) -> None:
    await switchover.prepare(pair)
    await switchover.close(pair)
    await switchover.fence(pair, [])
    await fence.unseal(source)  # as where there are more databases than kept sessions
    script = await as_operator(source)
    with pytest.raises(SetBack, match=f"client backend {script.info.backend_pid} of rdsadmin"):
        await asyncio.wait_for(switchover.catch_up(pair), 20)
    await script.close()
    await switchover.unfence(pair)


@pytest.mark.parametrize("target_version", ["17.11", "18.6"])
async def test_a_switchover_works_behind_the_seal(
    create_server: CreateServer,
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    make_pair: MakePair,
    target_version: str,
) -> None:
    source = await create_server(version="17.10")
    async with await as_master(source) as master:
        await master.execute("CREATE TABLE t (id int PRIMARY KEY)")
    pair = make_pair(source, target_version)
    await build(green, pair)
    await switchover.prepare(pair)
    await switchover.close(pair)
    with pytest.raises(psycopg.OperationalError):
        await as_operator(source)
    async with AsyncExitStack() as held:
        # Whoever of us is no part of the switchover, such as the monitor, takes none of its sessions from it.
        for database in await list_databases(target := servers.server(pair.target_resource_id)):
            await held.enter_async_context(session(target, database.name))
            with pytest.raises(EngineError, match=r"no pg_hba\.conf entry"):
                await held.enter_async_context(session(source, database.name))
        await green.protect_source(pair)
        await switchover.fence(pair, [])
        await asyncio.wait_for(switchover.catch_up(pair), 20)
    await switchover.open_target(pair)
    with pytest.raises(psycopg.OperationalError):
        await as_operator(source)
    await switchover.retire_source(pair)
    await switchover.stand_down(pair)
    async with await as_master(source) as old:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await old.execute("INSERT INTO t VALUES (1)")
