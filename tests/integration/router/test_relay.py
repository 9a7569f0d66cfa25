"""The relay in its steady state: real clients, real servers, nothing of the protocol lost on the way."""

import asyncio
import contextlib
import socket
import ssl
import threading
from pathlib import Path

import asyncpg
import msgspec
import psycopg
import pytest

from tests.conftest import until
from tests.integration.router.clients import ALICE, ALICE_PASSWORD, Connection, Endpoint, Pair, connect, one
from tests.ports import host_ports
from verdigris.domain.ports import BackendAddress, Route
from verdigris.router.client import RouterClient
from verdigris.wire.postgres import messages
from verdigris.wire.postgres.startup import PROTOCOL_3_0, SSL_REQUEST, startup_message


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_password_login_passes_through(endpoint: Endpoint, sslmode: str) -> None:
    async with await connect(endpoint, sslmode=sslmode) as connection:
        cursor = await connection.execute("SELECT label, current_user FROM which")
        assert await cursor.fetchone() == ("blue", "alice")
        assert connection.pgconn.ssl_in_use == (sslmode == "require")


async def test_direct_tls_and_protocol_3_2(endpoint: Endpoint) -> None:
    async with await connect(endpoint, sslmode="require", sslnegotiation="direct") as connection:
        assert await one(connection, "SELECT label FROM which") == "blue"


async def test_direct_tls_needs_alpn(endpoint: Endpoint) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.route.port, ssl=context)
    assert b"08P01" in await reader.read()
    made = writer.get_extra_info("ssl_object")
    assert (made.version(), made.session.has_ticket) == ("TLSv1.3", False)  # as with PostgreSQL: nobody comes back
    writer.close()


async def test_certificate_can_be_checked(endpoint: Endpoint, verdigris_home: Path) -> None:
    certificate = str(verdigris_home / "router" / "tls" / "server.crt")
    async with await connect(endpoint, sslmode="verify-full", sslrootcert=certificate) as connection:
        assert connection.pgconn.ssl_in_use
    assert (verdigris_home / "router" / "tls" / "server.key").stat().st_mode & 0o777 == 0o600


async def test_wrong_password(endpoint: Endpoint) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await connect(endpoint, password="not it")


@pytest.mark.parametrize("parameters", [{"user": "rdsadmin"}, {"replication": "database"}, {"replication": "true"}])
async def test_refused_as_by_rds(endpoint: Endpoint, parameters: dict[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
        await connect(endpoint, **parameters)


async def test_require_tls(endpoint: Endpoint, router: RouterClient) -> None:
    await router.put_route(msgspec.structs.replace(endpoint.route, require_tls=True))
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        await connect(endpoint, sslmode="disable")
    async with await connect(endpoint, sslmode="prefer") as connection:
        assert connection.pgconn.ssl_in_use


async def test_unreachable_backend(router: RouterClient, verdigris_home: Path) -> None:
    route = Route(
        name="nobody",
        host="127.0.0.1",
        port=host_ports().allocate(()),
        backend=BackendAddress("db-X", str(verdigris_home / "no.socket")),
    )
    await router.put_route(route)
    with pytest.raises(psycopg.OperationalError, match="not accepting connections"):
        await connect(Endpoint(route))


@pytest.mark.parametrize("sslmode", ["disable", "require"])
async def test_rows_that_look_like_messages(endpoint: Endpoint, sslmode: str) -> None:
    """Many chunks, and each row holds what would be a ReadyForQuery. A slow reader makes the router hold back."""
    async with await connect(endpoint, sslmode=sslmode) as connection:
        cursor = connection.cursor("big")
        await connection.set_autocommit(False)
        await cursor.execute("SELECT g, E'Z\\x01\\x05I' || repeat('Z', 2000) FROM generate_series(1, 20000) g")
        total = 0
        async for number, text in cursor:
            total += 1
            assert (number, len(str(text))) == (total, 2004)
        assert total == 20000


async def test_binary_rows_full_of_ready_for_query(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as connection:
        cursor = await connection.execute(
            "SELECT decode(repeat('5a0000000549', 500), 'hex') FROM generate_series(1, 3000)", binary=True
        )
        rows = await cursor.fetchall()
        assert len(rows) == 3000
        assert set(rows) == {(b"Z\0\0\0\5I" * 500,)}


async def test_asyncpg(endpoint: Endpoint) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=endpoint.route.port, user=ALICE, password=ALICE_PASSWORD, database="app"
    )
    try:
        assert await connection.fetchval("SELECT $1::int + 1", 41) == 42
        async with connection.transaction():
            seen = [row[0] async for row in connection.cursor("SELECT generate_series(1, 300)", prefetch=10)]
        assert seen == list(range(1, 301))
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.fetch("SELECT * FROM nowhere")
        assert await connection.fetchval("SELECT 1") == 1
    finally:
        await connection.close()


async def test_pipeline(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as connection:
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", [n]) for n in range(500)]
        assert [await cursor.fetchone() for cursor in cursors] == [(n,) for n in range(500)]
        with pytest.raises(psycopg.errors.DivisionByZero):
            await divide_in_a_pipeline(connection, [1, 0, 1])
        assert await one(connection, "SELECT 1") == 1


async def divide_in_a_pipeline(connection: Connection, divisors: list[int]) -> None:
    async with connection.pipeline():
        for n in divisors:
            await connection.execute("SELECT 1 / %s::int", [n])


async def test_copy_both_ways(endpoint: Endpoint) -> None:
    rows = [(n, f"text {n} " + "x" * (n % 500)) for n in range(20000)]
    async with await connect(endpoint) as connection:
        await connection.execute("CREATE TEMP TABLE copied (n int, t text)")
        async with connection.cursor() as cursor:
            async with cursor.copy("COPY copied FROM STDIN") as copy:
                for row in rows:
                    await copy.write_row(row)
            async with cursor.copy("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT") as copy:
                copy.set_types(["int4", "text"])
                assert [row async for row in copy.rows()] == rows
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                async with cursor.copy("COPY copied FROM STDIN") as copy:
                    await copy.write(b"not a number\tx\n" * 10000)
        assert await one(connection, "SELECT count(*) FROM copied") == len(rows)


# The server is shared: what clients of other tests have asked for may go on after they have left.
MARK = "/* of test_relay */"


@pytest.mark.parametrize("safe", [True, False])
async def test_cancel(endpoint: Endpoint, safe: bool) -> None:
    """``safe``: over TLS, waiting for the end of the connection; else as libpq always did it, in plain."""
    async with await connect(endpoint, sslmode="require" if safe else "disable") as connection:
        running = asyncio.create_task(connection.execute(f"SELECT pg_sleep(60) {MARK}"))
        await until(lambda: one_active(endpoint))
        if safe:
            await connection.cancel_safe()
        else:
            await asyncio.to_thread(connection.pgconn.get_cancel().cancel)
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running
        assert await one(connection, "SELECT 1") == 1


async def one_active(endpoint: Endpoint) -> bool:
    async with await connect(endpoint) as watcher:
        asleep = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{MARK}' AND state = 'active'"
        return await one(watcher, asleep) == 1


async def test_cancel_with_an_unknown_key_hits_nobody(endpoint: Endpoint) -> None:
    async with await connect(endpoint) as connection:
        running = asyncio.create_task(connection.execute("SELECT pg_sleep(0.3)"))
        pid = connection.pgconn.backend_pid
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.route.port)
        writer.write((16).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + pid.to_bytes(4, "big") + b"nope")
        assert await reader.read() == b""
        writer.close()
        await running


async def backends(pair: Pair, user: str = ALICE) -> int:
    async with await psycopg.AsyncConnection.connect(pair.blue_admin) as admin:
        cursor = await admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [user])
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


async def test_killed_client_takes_its_backend_along(endpoint: Endpoint, pair: Pair, router: RouterClient) -> None:
    connection = await connect(endpoint, sslmode="disable")
    assert (await router.sessions("app")).sessions == 1
    raw = socket.socket(fileno=connection.pgconn.socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close() sends RST
    raw.close()
    await until(lambda: none_of(pair))
    assert (await router.sessions("app")).sessions == 0
    with contextlib.suppress(Exception):
        await connection.close()


async def none_of(pair: Pair) -> bool:
    return await backends(pair) == 0


async def test_killed_backend_ends_its_client(endpoint: Endpoint, pair: Pair) -> None:
    async with await connect(endpoint) as victim, await connect(endpoint) as other:
        async with await psycopg.AsyncConnection.connect(pair.blue_admin) as admin:
            await admin.execute("SELECT pg_terminate_backend(%s)", [victim.pgconn.backend_pid])
        # The second if the request met a socket that the server had closed already: its own words are lost with it.
        with pytest.raises((psycopg.errors.AdminShutdown, psycopg.errors.ConnectionFailure)):
            await victim.execute("SELECT 1")
        assert await one(other, "SELECT 1") == 1


async def test_half_closed_client_gets_its_answer(endpoint: Endpoint, pair: Pair) -> None:
    async with await connect(endpoint, sslmode="disable") as connection:
        raw = socket.socket(fileno=socket.dup(connection.pgconn.socket))
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, messages.message(b"Q", b"SELECT pg_sleep(0.1)\0"))
        raw.shutdown(socket.SHUT_WR)
        answer = b""
        while data := await loop.sock_recv(raw, 4096):
            answer += data
        assert b"SELECT 1" in answer
        raw.close()
    await until(lambda: none_of(pair))


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        SSL_REQUEST + b"\x16\x03\x01\x00\x05hello",
        SSL_REQUEST + startup_message(PROTOCOL_3_0, {b"user": b"alice"}),  # slipped in behind the request
        b"\x16\x03\x01\x02\x00\x01\x00" + bytes(100),
        startup_message(PROTOCOL_3_0, {b"user": b"alice", b"database": b"app"}) + b"Q\0\0\0\1",
        b"\0\0\0",
    ],
)
async def test_bad_clients_harm_nobody(endpoint: Endpoint, garbage: bytes) -> None:
    async with await connect(endpoint) as connection:
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.route.port)
            writer.write(garbage)
            with contextlib.suppress(OSError):
                writer.write_eof()
                await reader.read()
            writer.close()
        assert await one(connection, "SELECT 1") == 1


async def test_malformed_message_after_login(endpoint: Endpoint) -> None:
    async with await connect(endpoint, sslmode="disable") as connection:
        raw = socket.socket(fileno=socket.dup(connection.pgconn.socket))
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, b"Q\xff\xff\xff\xff")
        assert b"08P01" in await loop.sock_recv(raw, 4096)
        raw.close()


async def test_sync_client_from_threads(endpoint: Endpoint) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for n in range(20):
                with psycopg.connect(endpoint.conninfo()) as connection:
                    assert connection.execute("SELECT %s::int", [n]).fetchone() == (n,)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert not failures


async def test_statistics(endpoint: Endpoint, router: RouterClient) -> None:
    async with await connect(endpoint) as connection:
        await one(connection, "SELECT repeat('x', 100000)")
        (found,) = (await router.statistics()).endpoints
        assert (found.name, found.sessions, found.parked, found.connections_total) == ("app", 1, 0, 1)
        assert found.server_bytes_total > 100_000
        sessions = await router.sessions("app")
        assert (sessions.usernames, sessions.sessions, sessions.active) == (("alice",), 1, 0)
        await connection.set_autocommit(False)
        await connection.execute("SELECT 1")
        assert (await router.sessions("app")).active == 1
