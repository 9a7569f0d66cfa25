"""Rows: how clients come in, how they leave, and what they cancel."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import trustme

from tests.acceptance.inspection import Inspector
from tests.acceptance.installation import wait_until
from tests.matrix.case import case
from tests.matrix.raw import simple
from tests.matrix.stage import BLUE, GREEN, LIMIT_S, MD5_ROLE, ROLE_PASSWORD, SCRAM_ROLE, Stage, assert_on_green, value
from verdigris.wire.postgres import messages


@case("TLS", "psycopg")
def tls(stage: Stage) -> Iterator[None]:
    with stage.connect(sslmode="require") as usual, stage.connect(sslnegotiation="direct") as direct:
        yield
        for connection in (usual, direct):
            assert connection.pgconn.ssl_in_use
            assert_on_green(connection)


@case("SCRAM and md5 roles", "psycopg")
def roles(stage: Stage) -> Iterator[None]:
    logins = [
        {"user": user, "password": ROLE_PASSWORD, "sslmode": sslmode}
        for user in (SCRAM_ROLE, MD5_ROLE)
        for sslmode in ("require", "disable")
    ]
    connections = [stage.connect(**login) for login in logins]
    yield
    for connection, login in zip(connections, logins, strict=True):
        with connection:
            assert_on_green(connection)
            assert value(connection, "SELECT session_user::text") == login["user"]
        with stage.connect(**login) as again:
            assert_on_green(again)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            stage.connect(**(login | {"password": "wrong"}))


@case("client certificate", "psycopg")
def certificate(stage: Stage) -> Iterator[None]:
    """One that is offered is not asked for, before as after."""
    with TemporaryDirectory() as directory:
        issued = trustme.CA().issue_cert("client@example.com")
        certificate, key = Path(directory, "client.crt"), Path(directory, "client.key")
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        offered = {"sslcert": str(certificate), "sslkey": str(key)}
        with stage.connect(**offered) as connection:
            yield
            assert_on_green(connection)
        with stage.connect(**offered) as connection:
            assert_on_green(connection)


@case("channel binding", "psycopg")
def channel_binding(stage: Stage) -> Iterator[None]:
    def refused() -> bool:
        with pytest.raises(psycopg.OperationalError, match="channel binding"):
            stage.connect(channel_binding="require")
        return True

    with stage.connect(channel_binding="prefer") as connection:
        assert refused()
        yield
        assert_on_green(connection)
        assert refused()


@case("connections that arrive", "psycopg")
def newcomers(stage: Stage) -> Iterator[None]:
    """One after the other, by several clients, all the time: each one is let in, and once on green always."""

    def go(login: dict[str, str]) -> list[str]:
        versions = []
        while stage.goes_on():
            with stage.connect(**login) as connection:
                versions.append(str(value(connection, "SHOW server_version")))
        return versions

    md5 = {"user": MD5_ROLE, "password": ROLE_PASSWORD}
    coming = [stage.meanwhile(go, login) for login in ({}, {"sslmode": "disable"}, md5)]
    yield
    for task in coming:
        versions = task.result(LIMIT_S)
        assert len(versions) > 2
        assert set(versions) <= {BLUE, GREEN}
        assert versions == sorted(versions)


@case("connections that authenticate slowly", "bytes", straggles=True)
def slow_login(stage: Stage) -> Iterator[None]:
    """Half a start-up packet when the switchover begins; it goes on when the first attempt is over."""
    address = stage.address()
    with socket.create_connection((address["host"], address["port"]), LIMIT_S) as client:
        parameters = b"user\0nobody\0database\0app\0\0"
        packet = (8 + len(parameters)).to_bytes(4) + (196608).to_bytes(4) + parameters
        client.sendall(packet[:11])

        def end() -> bytes:
            client.sendall(packet[11:])
            return client.recv(1)

        ending = stage.once_attempted(end)
        yield
        assert ending.result(LIMIT_S) == b"R"  # it is asked for a password


@case("connections that leave", "bytes")
def leavers(stage: Stage) -> Iterator[None]:
    """By Terminate, without a word, with a request unanswered, and with a request half sent. Nobody stays behind."""
    endings = (messages.TERMINATE, b"", simple("SELECT pg_sleep(0.01)"), simple("SELECT 1")[:4])

    def go(ending: bytes) -> int:
        count = 0
        while stage.goes_on():
            with stage.raw(application_name="leaver") as raw:
                assert raw.query("SELECT 1") == [b"1"]
                raw.send(ending)
            count += 1
        return count

    leaving = [stage.meanwhile(go, ending) for ending in endings]
    yield
    for task in leaving:
        assert task.result(LIMIT_S) > 0
    _await_nobody(stage, "leaver")


@case("client killed", "psycopg")
def killed(stage: Stage) -> Iterator[None]:
    """By SIGKILL, before and during the switchover, idle and busy."""
    script = (
        "import psycopg, sys\n"
        "connection = psycopg.connect(sys.argv[1], autocommit=True, application_name='killed')\n"
        "connection.execute('SET work_mem = 1234')\n"
        "print('ready', flush=True)\n"
        "connection.execute('SELECT pg_sleep(0.01)') if sys.argv[2] == 'idle' else None\n"
        "while sys.argv[2] == 'busy': connection.execute('SELECT pg_sleep(0.01)')\n"
        "sys.stdin.read()\n"
    )
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", script, stage.dsn(), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for kind in ("idle", "busy", "idle", "busy")
    ]

    def kill(*some: "subprocess.Popen[bytes]") -> None:
        for client in some:
            client.send_signal(signal.SIGKILL)
            client.communicate(timeout=LIMIT_S)

    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == b"ready\n"
        kill(clients[0])
        during = stage.once_attempted(lambda: kill(*clients[1:]))
        yield
        during.result(LIMIT_S)
    finally:
        kill(*clients)
    _await_nobody(stage, "killed")


def _await_nobody(stage: Stage, application_name: str) -> None:
    """No backend of these clients is left, on either server."""
    for resource_id in (stage.blue_id, stage.green_id):
        inspector = stage.inspector(resource_id)

        def are_gone(inspector: Inspector = inspector) -> bool:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            return inspector.query(query, application_name) == [(0,)]

        wait_until(are_gone, f"backends of {application_name} end")


@case("idle pool", "psycopg")
def idle_pool(stage: Stage) -> Iterator[None]:
    connections = [stage.connect(application_name=f"pool {number}") for number in range(30)]
    for number, connection in enumerate(connections):
        connection.execute(f"SET app.number = {number}")
    yield
    for number, connection in enumerate(connections):
        with connection:
            assert value(connection, "SELECT current_setting('app.number')::int") == number
            assert value(connection, "SHOW application_name") == f"pool {number}"
            assert_on_green(connection)


@case("cancel", "psycopg")
def cancel(stage: Stage) -> Iterator[None]:
    """Of what runs, all through the switchover: each reaches its own session, and no other one."""
    with stage.connect() as connection, stage.connect() as bystander:

        def go() -> int:
            count = 0
            while stage.goes_on():
                _cancelled(stage, connection)
                assert value(bystander, "SELECT 1") == 1
                count += 1
            return count

        going = stage.meanwhile(go)
        yield
        assert going.result(LIMIT_S) > 0
        _cancelled(stage, connection)
        assert_on_green(connection)
        assert_on_green(bystander)


def _cancelled(stage: Stage, connection: psycopg.Connection[Any]) -> None:
    def run() -> None:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(600)")

    running = stage.spawn(run)
    while not running.done():
        # Again and again: one that comes before the statement has begun hits nothing, as with any server.
        connection.cancel_safe()
    running.result()


@case("cancel of a session that is idle", "psycopg")
def cancel_idle(stage: Stage) -> Iterator[None]:
    """Through the pause as well, when it is parked: what it asks for next is not hit."""
    with stage.connect() as connection:

        def go() -> int:
            count = 0
            while stage.goes_on():
                connection.cancel_safe()
                count += 1
            return count

        going = stage.meanwhile(go)
        yield
        assert going.result(LIMIT_S) > 0
        assert_on_green(connection)
