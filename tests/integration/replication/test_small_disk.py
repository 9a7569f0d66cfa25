"""Blue on a small disk: what is kept for a green that stands still is given up before the disk is full, and blue's
clients see no error."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer
from tests.integration.replication.conftest import MakePair, as_master, build, query, run_sql
from verdigris.domain.ports import Pair
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import until

DISK_MIB = 640
LIMIT_S = 120
# As the control plane's interval is one second on a disk that fills in minutes, this one fills in seconds.
INTERVAL_S = 0.1


def mount_small(directory: Path) -> str | None:
    """None if it is mounted, else why not."""
    mount = shutil.which("mount")
    if mount is None:
        return "there is no program for it"
    options = f"size={DISK_MIB}m,mode=0700"
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    return None if done.returncode == 0 else done.stderr.strip()


def unmount(directory: Path) -> None:
    subprocess.run([shutil.which("umount") or "", str(directory)], capture_output=True, check=True)


@pytest.fixture
async def source(create_server: CreateServer) -> AsyncIterator[PostgresServer]:
    """A server whose data directory is a file system of its own."""
    server = await create_server(version=BLUE_VERSION)
    server.change_settings({"min_wal_size": "32MB", "max_wal_size": "256MB", "checkpoint_timeout": "1h"})
    await server.stop()
    with_data = server.data_dir.with_name("data.before")
    server.data_dir.rename(with_data)
    server.data_dir.mkdir(mode=0o700)
    refusal = mount_small(server.data_dir)
    try:
        if refusal is not None:
            pytest.skip(f"a small file system cannot be mounted here: {refusal}")
        owner = with_data.stat()
        shutil.copytree(with_data, server.data_dir, symlinks=True, dirs_exist_ok=True)
        for path in [server.data_dir, *server.data_dir.rglob("*")]:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        await server.start()
        yield server
    finally:
        await server.stop()
        if refusal is None:
            unmount(server.data_dir)


async def test_what_is_kept_for_green_is_given_up_before_blue_runs_out(
    servers: PostgresServers, green: PostgresGreenBuilder, source: PostgresServer, make_pair: MakePair
) -> None:
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    imposed_mib = _limit_mib(source)
    await servers.server(pair.target_resource_id).stop()  # it stands still
    async with _protected(green, pair), _client(source) as committed:
        # Somebody else takes half of what is free: the limit follows.
        filler = source.data_dir / "filler"
        free_bytes = shutil.disk_usage(source.data_dir).free
        await asyncio.to_thread(filler.write_bytes, bytes(free_bytes // 2))
        await _until(lambda: _is_true(_limit_mib(source) < imposed_mib * 0.7), "the limit follows the free disk")
        lowest_mib = await _write_until_lost(source, pair)
        assert "slot-lost" in (await green.health(pair) or "")
        # Blue goes on for as much again as would have filled the disk.
        more = len(committed) + (lowest_mib + 100)
        lowest_mib = min(lowest_mib, await _lowest_free_until(source, lambda: _is_true(len(committed) > more)))
    assert lowest_mib > 32, "blue's disk came near its end"
    assert await query(source, "SELECT count(*) FROM bulk.rows") == [(len(committed),)]
    await green.dismantle(pair)
    assert "max_slot_wal_keep_size" not in source.read_settings()


async def test_a_limit_of_somebody_elses_is_left_alone_but_not_the_disk(
    servers: PostgresServers, green: PostgresGreenBuilder, source: PostgresServer, make_pair: MakePair
) -> None:
    await run_sql(source, "ALTER SYSTEM SET max_slot_wal_keep_size = '100GB'", "SELECT pg_reload_conf()")
    pair = make_pair(source, GREEN_VERSION)
    await build(green, pair)
    assert "max_slot_wal_keep_size" not in source.read_settings()
    await servers.server(pair.target_resource_id).stop()
    async with _protected(green, pair), _client(source) as committed:
        lowest_mib = await _write_until_lost(source, pair)
    assert lowest_mib > 32
    assert await query(source, "SELECT count(*) FROM bulk.rows") == [(len(committed),)]
    await green.dismantle(pair)


async def _write_until_lost(source: PostgresServer, pair: Pair) -> int:
    kept = (
        "SELECT FROM pg_replication_slots"
        f" WHERE wal_status <> 'lost' AND slot_name LIKE '{ObjectNames(pair.deployment_id).base}%'"
    )

    async def lost() -> bool:
        return not await query(source, kept, "postgres")

    return await _lowest_free_until(source, lost)


async def _lowest_free_until(source: PostgresServer, condition: Callable[[], Awaitable[bool]]) -> int:
    """The least that was free meanwhile, in MiB."""
    lowest = shutil.disk_usage(source.data_dir).free

    async def looked() -> bool:
        nonlocal lowest
        lowest = min(lowest, shutil.disk_usage(source.data_dir).free)
        return await condition()

    await _until(looked, "what was waited for while blue's client writes")
    return lowest >> 20


@asynccontextmanager
async def _protected(green: PostgresGreenBuilder, pair: Pair) -> AsyncIterator[None]:
    async def loop() -> None:
        while True:
            await green.protect_source(pair)
            await asyncio.sleep(INTERVAL_S)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


@asynccontextmanager
async def _client(source: PostgresServer) -> AsyncIterator[list[int]]:
    """Writes about 1 MiB a transaction, and stops between two; any error it meets is the test's."""
    committed: list[int] = []
    async with await as_master(source) as connection:
        await connection.execute("CREATE SCHEMA bulk")
        # Not a table that green has: what its rows take is WAL, and little else.
        await connection.execute("CREATE TABLE bulk.rows (n int)")

        async def write() -> None:
            while not stop.is_set():
                async with connection.transaction():
                    await connection.execute("INSERT INTO bulk.rows VALUES (%s)", (len(committed),))
                    await connection.execute("SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))")
                committed.append(1)
                await asyncio.sleep(0.01)

        stop = asyncio.Event()
        task = asyncio.create_task(write())
        try:
            yield committed
        finally:
            stop.set()
            async with asyncio.timeout(LIMIT_S):
                await task


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(LIMIT_S):
            await until(condition, every_s=0.02)
    except TimeoutError:
        pytest.fail(f"not within {LIMIT_S} s: {what}")


async def _is_true(value: bool) -> bool:
    return value


def _limit_mib(source: PostgresServer) -> int:
    return int(source.read_settings()["max_slot_wal_keep_size"].removesuffix("MB"))
