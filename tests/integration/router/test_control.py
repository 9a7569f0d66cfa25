"""Routes, epochs, generations, and the router's process."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import msgspec
import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import Endpoint, Pair, Switchover, connect, one, park
from tests.ports import host_ports
from verdigris.domain.errors import ControllerSuperseded, ParkBroken, PortInUse, VerdigrisError
from verdigris.domain.ports import Route
from verdigris.router.client import RouterClient
from verdigris.router.errors import RouteConflict, RouterUnavailable
from verdigris.router.paths import RouterPaths
from verdigris.router.ports import HostPorts, bind_listener
from verdigris.router.process import RouterProcess


async def test_socket_is_private(router: RouterClient, verdigris_home: Path) -> None:
    assert await router.routes() == []
    assert RouterPaths(verdigris_home).control_socket.stat().st_mode & 0o777 == 0o600


async def test_put_is_idempotent_and_never_moves_an_endpoint(
    endpoint: Endpoint, router: RouterClient, switched: Route
) -> None:
    await router.put_route(endpoint.route)
    with pytest.raises(RouteConflict):
        await router.put_route(switched)
    assert await router.routes() == [endpoint.route]


async def test_port_in_use(endpoint: Endpoint, router: RouterClient, pair: Pair) -> None:
    with pytest.raises(PortInUse, match="app"):
        await router.put_route(msgspec.structs.replace(endpoint.route, name="other"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=str(port)):
            await router.put_route(Route(name="other", host="127.0.0.1", port=port, backend=pair.blue))
        assert not host_ports().is_free(port)
    assert await router.routes() == [endpoint.route]


async def test_port_may_change(endpoint: Endpoint, router: RouterClient) -> None:
    moved = msgspec.structs.replace(endpoint.route, port=host_ports().allocate({endpoint.route.port}))
    async with await connect(endpoint) as connection:
        await router.put_route(moved)
        assert await one(connection, "SELECT 1") == 1
        async with await connect(Endpoint(moved)) as other:
            assert await one(other, "SELECT 1") == 1
        assert host_ports().is_free(endpoint.route.port)


async def test_rename_keeps_sessions(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as connection:
        await router.rename_route("app", "app-old1")
        await router.rename_route("app", "app-old1")
        assert [route.name for route in await router.routes()] == ["app-old1"]
        assert await one(connection, "SELECT 1") == 1
        assert (await router.sessions("app-old1")).sessions == 1
        with pytest.raises(RouteConflict):
            await router.rename_route("nobody", "somebody")


async def test_remove_and_disconnect(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as first:
        await router.disconnect("app")
        with pytest.raises(Exception, match="administrator command"):
            await first.execute("SELECT 1")
        async with await connect(endpoint) as second:
            await router.remove_route("app")
            await router.remove_route("app")
            with pytest.raises(Exception, match="administrator command"):
                await second.execute("SELECT 1")
    assert host_ports().is_free(endpoint.route.port)
    assert await router.routes() == []
    with pytest.raises(RouteConflict):
        await router.sessions("app")


async def test_stale_controller_is_refused(
    endpoint: Endpoint, router: RouterClient, verdigris_home: Path, switched: Route
) -> None:
    parked = await park(router)
    successor = RouterClient(verdigris_home, epoch=2)
    assert await successor.routes() == [endpoint.route]
    for call in (
        router.routes(),
        router.renew(parked.generation, lease_s=10),
        router.commit(parked.generation, [switched], hold=False),
        router.release(parked.generation),
    ):
        with pytest.raises(ControllerSuperseded):
            await call
    await successor.abort(parked.generation)


async def test_restart_keeps_routes_epoch_and_generations(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, verdigris_home: Path, switched: Route
) -> None:
    first = await park(router)
    before = router_process.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until(lambda: router_process.pid is None)
    with pytest.raises(RouterUnavailable):
        await router.routes()
    assert await router_process.ensure_running() != before
    assert await router.routes() == [endpoint.route]
    with pytest.raises(ParkBroken):
        await router.commit(first.generation, [switched], hold=False)
    with pytest.raises(ControllerSuperseded):
        await RouterClient(verdigris_home, epoch=0).routes()
    async with await connect(endpoint) as connection:
        assert await one(connection, "SELECT label FROM which") == "blue"
    assert (await park(router)).generation > first.generation


async def test_commit_survives_a_kill(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess, switchover: Switchover
) -> None:
    parked, _ = await switchover.ready_and_hand_over()
    await router.commit(parked.generation, [switchover.switched], hold=True)
    pid = router_process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: router_process.pid is None)
    await router_process.ensure_running()
    assert await router.routes() == [switchover.switched]
    await router.commit(parked.generation, [switchover.switched], hold=True)
    await router.release(parked.generation)
    async with await connect(endpoint) as connection:
        assert await one(connection, "SELECT label FROM which") == "green"


async def test_process_is_attached_to_not_doubled(router_process: RouterProcess, verdigris_home: Path) -> None:
    pid = router_process.pid
    other = RouterProcess(verdigris_home)
    assert await other.ensure_running() == pid
    second = await asyncio.create_subprocess_exec(
        *RouterProcess.command(verdigris_home), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert b"another router" in errors
    assert other.pid == pid


async def test_stop_is_idempotent(router_process: RouterProcess) -> None:
    await router_process.stop()
    await router_process.stop()
    assert router_process.pid is None


async def test_long_home_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(VerdigrisError, match="shorter"):
        await RouterProcess(tmp_path / ("x" * 100)).ensure_running()


async def test_garbage_on_the_control_socket(router: RouterClient, verdigris_home: Path) -> None:
    for data in (b"", b"\xff\xff\xff\xff", b"\0\0\0\4oops\0\0\0\1x", b"\0\0"):
        reader, writer = await asyncio.open_unix_connection(RouterPaths(verdigris_home).control_socket)
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
    assert await router.routes() == []


def test_ports() -> None:
    first = bind_listener("127.0.0.1", host_ports().allocate(()))
    port = first.getsockname()[1]
    with first, pytest.raises(PortInUse, match="in use"):
        bind_listener("127.0.0.1", port)
    ports = HostPorts(allowed=range(port, port + 1))
    assert ports.allocate(()) == port
    with pytest.raises(PortInUse, match="no free port"):
        ports.allocate({port})
    with pytest.raises(PortInUse, match="not an address"):
        bind_listener("host.invalid", port)


async def test_clients_hear_that_the_router_ends(endpoint: Endpoint, router_process: RouterProcess) -> None:
    async with (
        await connect(endpoint, sslmode="disable") as plain,
        await connect(endpoint, sslmode="require") as encrypted,
    ):
        await router_process.stop()
        for connection in (plain, encrypted):
            with pytest.raises(psycopg.errors.AdminShutdown):
                await connection.execute("SELECT 1")


async def test_port_taken_at_the_start_is_taken_back(
    endpoint: Endpoint, router: RouterClient, router_process: RouterProcess
) -> None:
    await router_process.stop()
    with bind_listener(endpoint.route.host, endpoint.route.port):
        await router_process.ensure_running()
        with pytest.raises(RouteConflict):
            await router.sessions("app")

    async def serves() -> bool:
        try:
            return (await router.sessions("app")).sessions == 0
        except RouteConflict:
            return False

    await until(serves)
    async with await connect(endpoint) as connection:
        assert await one(connection, "SELECT 1") == 1
