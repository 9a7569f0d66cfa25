"""A server that asks a client nothing: nobody passes the router without a token, whatever it has been told so far."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator

import msgspec
import psycopg
import pytest

from tests.conftest import CreateServer, until
from tests.integration.router.clients import Endpoint, connect
from tests.ports import host_ports
from verdigris.domain.ports import Parked, Route, TokenKeys
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.router.client import RouterClient
from verdigris.wire.postgres.startup import PROTOCOL_3_0, SSL_REQUEST, startup_message

ROLE = "jane"
REFUSED = f'PAM authentication failed for user "{ROLE}"'


@pytest.fixture
async def unasked(
    router: RouterClient, servers: PostgresServers, create_server: CreateServer
) -> AsyncIterator[Endpoint]:
    server = await create_server()
    await servers.set_token_logins(server.resource_id, True)
    async with await server.connect("app") as connection:
        await connection.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'hers'")
        await connection.execute(f"GRANT rds_iam TO {ROLE}")
    route = Route(name="unasked", host="127.0.0.1", port=host_ports().allocate(()), backend=server.address)
    await router.put_route(route)
    yield Endpoint(route)
    await router.remove_route(route.name)


async def refusal(endpoint: Endpoint, **parameters: str) -> str:
    with pytest.raises(psycopg.OperationalError) as refused:
        await connect(endpoint, user=ROLE, password="hers", **parameters)
    return str(refused.value)


async def test_closed_until_it_is_told(unasked: Endpoint, router: RouterClient) -> None:
    for sslmode in ("disable", "require"):
        assert REFUSED in await refusal(unasked, sslmode=sslmode)
    await router.put_route(msgspec.structs.replace(unasked.route, token_logins=True))
    assert "no encryption" in await refusal(unasked, sslmode="disable")
    assert REFUSED in await refusal(unasked, sslmode="require")  # there are no keys
    await router.set_token_keys(TokenKeys(region="us-east-1", account_id="000000000000"))
    assert REFUSED in await refusal(unasked, sslmode="require")
    async with await psycopg.AsyncConnection.connect(unasked.master(sslmode="disable")) as master:
        assert master.info.user == "app_owner"


def ask(port: int) -> ssl.SSLSocket:
    """A client that has been asked for a token, and says nothing."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    plain.sendall(SSL_REQUEST)
    assert plain.recv(1) == b"S"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    client = context.wrap_socket(plain)
    client.sendall(startup_message(PROTOCOL_3_0, {b"user": ROLE.encode(), b"database": b"app"}))
    assert client.recv(9) == b"R" + struct.pack("!II", 8, 3)
    return client


async def test_one_at_the_prompt_does_not_keep_a_park_from_being_granted(
    unasked: Endpoint, router: RouterClient
) -> None:
    await router.put_route(msgspec.structs.replace(unasked.route, token_logins=True))
    client = await asyncio.to_thread(ask, unasked.route.port)
    try:
        parked = await router.park(unasked.route.name, budget_s=10, lease_s=30)
        assert isinstance(parked, Parked)
        assert parked.sessions == 0
        assert b"57P03" in await asyncio.to_thread(client.recv, 4096)
        await router.abort(parked.generation)
    finally:
        client.close()


def say_at_once(port: int, *, encrypted: bool) -> bytes:
    """A client that does not wait until it is let in; what it is told until the end."""
    client: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
    if encrypted:
        client.sendall(SSL_REQUEST)
        assert client.recv(1) == b"S"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = context.wrap_socket(client)
    query = b"ALTER ROLE jane SET work_mem = '1MB'\0"
    begin = startup_message(PROTOCOL_3_0, {b"user": ROLE.encode(), b"database": b"app"})
    client.sendall(begin + b"Q" + struct.pack("!I", 4 + len(query)) + query)
    told = b""
    with client, contextlib.suppress(ConnectionResetError):
        while data := client.recv(4096):
            told += data
    return told


@pytest.mark.parametrize("token_logins", [False, True])
@pytest.mark.parametrize("encrypted", [False, True])
async def test_nothing_is_done_that_was_said_before_the_token(
    unasked: Endpoint, router: RouterClient, servers: PostgresServers, encrypted: bool, token_logins: bool
) -> None:
    """The server would do it at once: it takes the client for whom it says that it is."""
    await router.put_route(msgspec.structs.replace(unasked.route, token_logins=token_logins))
    told = await asyncio.to_thread(say_at_once, unasked.route.port, encrypted=encrypted)
    assert b"28000" in told or b"08P01" in told
    async with await servers.server(unasked.route.backend.resource_id).connect("app") as connection:

        async def nobody_is_there() -> bool:
            row = await (await connection.execute("SELECT FROM pg_stat_activity WHERE usename = %s", [ROLE])).fetchone()
            return row is None

        await until(nobody_is_there)
        found = await (await connection.execute("SELECT rolconfig FROM pg_roles WHERE rolname = %s", [ROLE])).fetchone()
        assert found == (None,)
