"""The fence: complete while it stands, gone without a trace when it is lifted, whatever interrupts it."""

import asyncio
import os
import signal
import struct

import psycopg
import pytest

from tests.conftest import MASTER, CreateServer
from tests.integration.replication.conftest import as_master, query
from verdigris.engines.postgres import fence
from verdigris.engines.postgres.probe import Admission, admission
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import session, until


async def test_fence_and_back_leaves_no_trace(create_server: CreateServer) -> None:
    source = await create_server()
    hba = source.data_dir / "pg_hba.conf"
    hba.write_bytes(hba.read_bytes() + b"# the operator's own words\n")
    before = (hba.read_bytes(), hba.stat().st_ino, hba.stat().st_mode, hba.stat().st_uid)
    names_before = sorted(path.name for path in source.data_dir.iterdir())
    kept, other = await as_master(source), await as_master(source)

    await fence.raise_fence(source, [kept.info.backend_pid])
    assert fence.is_raised(source)
    assert await admission(source.address.socket_path) is Admission.REFUSED
    with pytest.raises(psycopg.OperationalError):
        await other.execute("SELECT 1")
    await kept.execute("SELECT 1")  # the router keeps such a session still; the server would serve it
    await fence.raise_fence(source, [kept.info.backend_pid])  # again, as after a crash

    await fence.lift(source)
    await fence.lift(source)
    assert not fence.is_raised(source)
    assert (hba.read_bytes(), hba.stat().st_ino, hba.stat().st_mode, hba.stat().st_uid) == before
    assert sorted(path.name for path in source.data_dir.iterdir()) == names_before
    await (await as_master(source)).close()
    await kept.execute("SELECT 1")
    await kept.close()
    await other.close()


async def test_closed_to_newcomers_it_ends_nobody_until_the_fence_is_complete(create_server: CreateServer) -> None:
    source = await create_server()
    kept, other = await as_master(source), await as_master(source)
    await fence.close(source)
    assert fence.is_raised(source)
    assert await admission(source.address.socket_path) is Admission.REFUSED
    for connection in (kept, other):
        await connection.execute("SELECT 1")
    await fence.raise_fence(source, [kept.info.backend_pid], closed=True)
    with pytest.raises(psycopg.OperationalError):
        await other.execute("SELECT 1")
    await kept.execute("SELECT 1")
    await fence.lift(source)
    assert await admission(source.address.socket_path) is Admission.ADMITTED
    # Said to be closed, and lifted since: it is closed again rather than believed.
    await fence.raise_fence(source, [kept.info.backend_pid], closed=True)
    assert await admission(source.address.socket_path) is Admission.REFUSED
    await fence.lift(source)
    await kept.close()
    await other.close()


async def test_everybody_is_ended_a_few_at_a_time(create_server: CreateServer) -> None:
    source = await create_server()
    others = [await as_master(source) for _ in range(20)]
    await fence.close(source)
    await asyncio.wait_for(fence.clear(source, (), gently=True), 20)
    for other in others:
        with pytest.raises(psycopg.OperationalError):
            await other.execute("SELECT 1")
        await other.close()
    await fence.lift(source)


async def test_it_waits_for_a_kept_session_that_still_writes(create_server: CreateServer) -> None:
    source = await create_server()
    kept = await as_master(source)
    await kept.execute("CREATE TABLE t (id int)")
    await kept.execute("BEGIN")
    await kept.execute("INSERT INTO t VALUES (1)")
    raising = asyncio.create_task(fence.raise_fence(source, [kept.info.backend_pid]))
    await until(lambda: _is(source, Admission.REFUSED), every_s=0.01)
    await asyncio.wait({raising}, timeout=0.1)
    assert not raising.done()
    await kept.execute("COMMIT")
    await asyncio.wait_for(raising, 60)
    assert await query(source, "SELECT * FROM public.t", "app") == [(1,)]
    await kept.close()


async def test_cancelled_it_is_lifted(create_server: CreateServer) -> None:
    source = await create_server()
    kept = await as_master(source)
    await kept.execute("CREATE TABLE t (id int)")
    await kept.execute("BEGIN")
    await kept.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await fence.raise_fence(source, [kept.info.backend_pid])
    assert not fence.is_raised(source)
    await kept.execute("COMMIT")
    await (await as_master(source)).close()
    await kept.close()


async def test_a_client_that_was_at_the_door_does_not_slip_in(create_server: CreateServer) -> None:
    """One has said who it is and has not sent its password yet; another has said nothing at all."""
    source = await create_server()
    reader, writer = await asyncio.open_unix_connection(source.address.socket_path)
    parameters = f"user\0{MASTER}\0database\0app\0\0".encode()
    writer.write(struct.pack("!ii", len(parameters) + 8, 196608) + parameters)
    assert await reader.readexactly(1) == b"R"
    silent_reader, silent_writer = await asyncio.open_unix_connection(source.address.socket_path)
    await asyncio.wait_for(fence.raise_fence(source, []), 30)
    assert await asyncio.wait_for(silent_reader.read(), 30) == b""
    await asyncio.wait_for(reader.read(), 30)
    for stream in (writer, silent_writer):
        stream.close()
    await fence.lift(source)


@pytest.mark.parametrize("stage", ["linked", "replaced"])
async def test_lifting_what_a_crash_left_half_made(create_server: CreateServer, stage: str) -> None:
    source = await create_server()
    hba = source.data_dir / "pg_hba.conf"
    before = hba.read_bytes()
    os.link(hba, source.data_dir / "pg_hba.conf.verdigris-unfenced")
    if stage == "replaced":
        source.account.write_file(hba, "local all rdsadmin scram-sha-256\n")
    assert fence.is_raised(source)
    await fence.lift(source)
    assert not fence.is_raised(source)
    assert hba.read_bytes() == before


async def test_it_stands_after_a_restart_of_the_server(create_server: CreateServer) -> None:
    source = await create_server()
    await fence.raise_fence(source, [])
    await source.restart()
    assert fence.is_raised(source)
    assert await admission(source.address.socket_path) is Admission.REFUSED
    await source.stop()
    await fence.lift(source)
    await source.start()
    await (await as_master(source)).close()


async def test_a_frozen_server_does_not_hold_a_cancellation_up(create_server: CreateServer) -> None:
    source = await create_server()
    pid = source.pid()
    assert pid is not None
    async with session(source) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            began_at = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connection.value("SELECT 1")
            assert asyncio.get_running_loop().time() - began_at < 8  # psycopg alone: ten
        finally:
            os.kill(backend, signal.SIGCONT)
        await connection.close()


async def _is(source: PostgresServer, expected: Admission) -> bool:
    return await admission(source.address.socket_path) is expected
