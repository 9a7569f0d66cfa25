"""One pair of real servers for all of the router's tests, and a router for each."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from psycopg import sql

from tests.conftest import BLUE_VERSION, GREEN_VERSION, MASTER, processes_of, server_spec
from tests.integration.router.clients import ALICE, ALICE_PASSWORD, Endpoint, Pair, Switchover
from tests.integration.router.odd import PERMANENT, on_both
from tests.ports import host_ports
from verdigris.domain.errors import PortInUse
from verdigris.domain.ports import Route
from verdigris.engines.account import EngineAccount
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.router.client import RouterClient
from verdigris.router.paths import RouterPaths
from verdigris.router.process import RouterProcess
from verdigris.router.run import Loop


@pytest.fixture(scope="session")
def pair(catalogue: Catalogue, engine_account: EngineAccount) -> Iterator[Pair]:
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="vg-")))
    home.chmod(0o711)
    try:  # around the making, too: it may fail when one server runs already
        yield asyncio.run(_create(home, catalogue, engine_account))
    finally:
        asyncio.run(_remove(home, catalogue, engine_account))
        left = processes_of(home)
        shutil.rmtree(home, ignore_errors=True)
        assert not left, left


async def _create(home: Path, catalogue: Catalogue, account: EngineAccount) -> Pair:
    servers = PostgresServers(home, catalogue, account)
    made = []
    for version in (BLUE_VERSION, GREEN_VERSION):
        spec = server_spec(servers, version=version)
        await servers.create(spec)
        made.append(servers.server(spec.resource_id))
    blue, green = made
    verifiers: dict[str, str] = {}
    for server, label in ((blue, "blue"), (green, "green")):
        async with await server.connect("app", options="") as connection:
            for statement in (
                "CREATE TABLE which (label text)",
                f"INSERT INTO which VALUES ('{label}')",
                "GRANT SELECT ON which TO PUBLIC",
                "CREATE TABLE work (id int PRIMARY KEY, n int NOT NULL)",
                "INSERT INTO work SELECT g, 0 FROM generate_series(1, 100) g",
                "GRANT ALL ON work TO PUBLIC",
                "CREATE ROLE reporting NOLOGIN",
            ):
                await connection.execute(statement)
            if label == "blue":
                await connection.execute(f"CREATE ROLE {ALICE} LOGIN PASSWORD '{ALICE_PASSWORD}'")
                cursor = await connection.execute(
                    "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY (%s)", [[ALICE, MASTER]]
                )
                verifiers = dict(await cursor.fetchall())
            else:
                for name, verifier in verifiers.items():
                    if name == ALICE:
                        await connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
                    await connection.execute(
                        sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(verifier))
                    )
            await connection.execute(f"GRANT reporting TO {ALICE}")
    # As a green is while it follows: ordinary sessions are read-only.
    async with await green.connect() as connection:
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
    await servers.detach()
    return Pair(
        blue=blue.address,
        green=green.address,
        blue_admin=blue.conninfo("app"),
        green_admin=green.conninfo("app", options="-c default_transaction_read_only=off"),
        verifiers=verifiers,
    )


async def _remove(home: Path, catalogue: Catalogue, account: EngineAccount) -> None:
    servers = PostgresServers(home, catalogue, account)
    for resource_id in servers.known():
        await servers.remove(resource_id)


@pytest.fixture
async def router_process(verdigris_home: Path) -> AsyncIterator[RouterProcess]:
    # VERDIGRIS_TEST_LOOP=asyncio runs all of it without uvloop.
    process = RouterProcess(verdigris_home, Loop(os.environ.get("VERDIGRIS_TEST_LOOP", Loop.AUTO)))
    await process.ensure_running()
    try:
        yield process
    finally:
        await process.stop()
    log = RouterPaths(verdigris_home).log.read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def router(verdigris_home: Path, router_process: RouterProcess) -> RouterClient:
    return RouterClient(verdigris_home, epoch=1)


@pytest.fixture
async def endpoint(router: RouterClient, pair: Pair) -> Endpoint:
    while True:
        route = Route(name="app", host="127.0.0.1", port=host_ports().allocate(()), backend=pair.blue)
        with contextlib.suppress(PortInUse):  # taken since by another run of these tests
            await router.put_route(route)
            return Endpoint(route)


@pytest.fixture
def switched(endpoint: Endpoint, pair: Pair) -> Route:
    """The endpoint's route as it is after a switchover."""
    return msgspec.structs.replace(endpoint.route, backend=pair.green)


@pytest.fixture
def switchover(router: RouterClient, pair: Pair, switched: Route) -> Switchover:
    return Switchover(router, pair, switched)


@pytest.fixture
async def odd_schema(pair: Pair) -> AsyncIterator[None]:
    await on_both(pair, PERMANENT)
    yield
    await on_both(pair, "DROP SCHEMA odd CASCADE")
