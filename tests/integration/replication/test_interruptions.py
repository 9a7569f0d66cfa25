"""Crashes and cancellations: what they leave behind can be taken away and built over, and nothing applied is lost."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from pathlib import Path

import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer, processes_of
from tests.integration.replication.conftest import MakePair, as_master, build, contents, query, run_sql, traces
from verdigris.engines.postgres import green as green_module
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.postmaster import StopMode
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import until
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine

SCHEMA = (
    "CREATE TABLE public.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x text)",
    "INSERT INTO public.t (x) SELECT repeat('x', 100) FROM generate_series(1, 20000)",
)


async def test_a_build_interrupted_anywhere_is_taken_away_and_begun_again(
    servers: PostgresServers, green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, *SCHEMA)
    pair = make_pair(source, GREEN_VERSION)
    await _interrupted(green.copy(pair), 0.3)
    await green.dismantle(pair)
    assert await traces(source, pair) == []

    await green.copy(pair)  # over what the first one left
    await _interrupted(green.align(pair), 0.15)
    await green.copy(pair)
    await green.align(pair)
    upgrading = asyncio.create_task(green.upgrade(pair))
    target = servers.server(pair.target_resource_id)
    # pg_upgrade has a server of its own running, which does not die with it.
    async with asyncio.timeout(60):
        await until(lambda: _exists(target.directory / "data.new" / "postmaster.pid"), every_s=0.01)
    upgrading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upgrading
    assert processes_of(target.directory) == []
    await build(green, pair)
    assert await contents(servers.server(pair.target_resource_id)) == await contents(source)
    await servers.remove(pair.target_resource_id)
    await green.dismantle(pair)
    assert await traces(source, pair) == []


@pytest.mark.parametrize(("source_version", "target_version"), [(BLUE_VERSION, GREEN_VERSION), ("18.3", GREEN_VERSION)])
async def test_a_target_that_dies_after_catching_up_has_lost_nothing(
    source_version: str,
    target_version: str,
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
) -> None:
    source = await create_server(version=source_version)
    await run_sql(source, *SCHEMA)
    pair = make_pair(source, target_version)
    await build(green, pair)
    await switchover.prepare(pair)
    # Acknowledged before it is on disk: the fence comes before the WAL writer.
    await run_sql(source, "SET synchronous_commit = off", "UPDATE public.t SET x = x || 'y' WHERE id <= 1000")
    await switchover.fence(pair, [])
    await switchover.catch_up(pair)
    target = servers.server(pair.target_resource_id)
    await target.stop(StopMode.IMMEDIATE)
    before = await contents(source)
    await source.stop()
    await target.start()
    await switchover.open_target(pair)
    assert await contents(target) == before

    # The source is dead: it is retired on disk, and tidied up when it runs again.
    await switchover.retire_source(pair)
    await run_sql(target, "INSERT INTO public.t (x) VALUES ('new')")
    await source.start()
    assert await query(source, "SELECT pg_catalog.current_setting('default_transaction_read_only')", "app") == [
        ("off",)
    ]
    async with await as_master(source) as connection:
        cursor = await connection.execute("SHOW default_transaction_read_only")
        assert await cursor.fetchone() == ("on",)
    await switchover.retire_source(pair)
    assert await traces(source, pair) == []
    assert await traces(target, pair) == []


async def test_a_frozen_green_does_not_keep_blue_from_being_cleaned(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    create_server: CreateServer,
    make_pair: MakePair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, *SCHEMA)
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    target = servers.server(pair.target_resource_id)
    frozen = _freeze(target)
    try:
        # For the frozen server only: one that answers may take its time over it.
        with monkeypatch.context() as patched:
            patched.setattr(green_module, "_TARGET_LIMIT_S", 0.5)
            await asyncio.wait_for(green.dismantle(pair), 60)
        assert await traces(source, pair) == []
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    await green.dismantle(pair)
    assert await traces(target, pair) == []


def _freeze(server: PostgresServer) -> list[int]:
    postmaster = server.pid()
    assert postmaster is not None
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
    pids = [postmaster, *(int(pid) for pid in children.split())]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it ended after it was listed
            os.kill(pid, signal.SIGSTOP)
    return pids


async def _interrupted(step: Coroutine[None, None, None], after_s: float) -> None:
    task = asyncio.create_task(step)
    await asyncio.wait({task}, timeout=after_s)
    assert not task.done(), "the step was too quick to be interrupted"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _exists(path: Path) -> bool:
    return path.exists()


async def test_programs_that_outlived_their_control_plane_are_ended(
    servers: PostgresServers, green: PostgresGreenBuilder, create_server: CreateServer, make_pair: MakePair
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await run_sql(source, *SCHEMA)
    pair = make_pair(source, GREEN_VERSION)
    await green.copy(pair)
    target = servers.server(pair.target_resource_id)
    left = asyncio.create_task(
        target.run("pg_receivewal", "-D", f"{target.directory}/.", "-d", source.conninfo(), check=False)
    )
    async with asyncio.timeout(30):
        await until(lambda: _has_processes(target), every_s=0.01)
    await green.dismantle(pair)
    assert (await left).exit_status == -signal.SIGKILL
    assert processes_of(target.directory) == []


async def _has_processes(target: PostgresServer) -> bool:
    return bool(processes_of(target.directory))
