"""The life of real servers: made, started, changed, restarted, removed."""

import asyncio
import base64
import json
import stat
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg import sql

from tests.conftest import MASTER, MASTER_PASSWORD, CreateServer, processes_of, random_resource_id, server_spec, until
from verdigris.domain.errors import EngineError
from verdigris.engines.account import EngineAccount
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.installations import Installation
from verdigris.engines.postgres.password import scram_verifier
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers


async def rows(server: PostgresServer, query: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
    async with await server.connect(dbname, options="") as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def as_master(server: PostgresServer, dbname: str, password: str = MASTER_PASSWORD) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(
        host=str(server.socket_dir), port=5432, user=MASTER, password=password, dbname=dbname, autocommit=True
    )


@pytest.mark.parametrize("version", ["14.23", "17.10", "18.6"])
async def test_new_server_is_as_on_rds(create_server: CreateServer, version: str) -> None:
    server = await create_server(version=version)
    settings: dict[str, str] = dict(await rows(server, "SELECT name, setting FROM pg_settings"))
    assert settings["server_version"] == version
    assert settings["data_checksums"] == "on"
    assert settings["wal_level"] == "logical"
    assert settings["listen_addresses"] == ""
    assert settings["fsync"] == "on"
    assert settings["max_connections"] == str(1024**3 // 9_531_392)
    assert settings["server_encoding"] == "UTF8"
    assert await rows(server, "SELECT datname, datcollate, datctype FROM pg_database WHERE datname = 'app'") == [
        ("app", "C.UTF-8", "C.UTF-8")
    ]
    async with await as_master(server, "app") as master:
        cursor = await master.execute(
            "SELECT rolsuper, rolreplication, rolcreaterole, rolcreatedb, pg_has_role('rds_superuser', 'MEMBER')"
            " FROM pg_roles WHERE rolname = current_user"
        )
        assert await cursor.fetchone() == (False, False, True, True, True)
        await master.execute("CREATE EXTENSION hstore; CREATE TABLE t (id int); CREATE SCHEMA s; CREATE ROLE reader")
        await master.execute("GRANT pg_monitor TO reader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await master.execute("ALTER SYSTEM SET work_mem = '1GB'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await master.execute("COPY t FROM PROGRAM 'id'")
    async with await as_master(server, "postgres") as master:
        await master.execute("CREATE TABLE t (id int)")


async def test_files_belong_to_the_engine_account_alone(
    create_server: CreateServer, engine_account: EngineAccount
) -> None:
    server = await create_server()
    for path in (server.directory, server.data_dir, server.socket_dir, server.log_path.parent):
        found = path.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (engine_account.uid, 0o700), path
    for path in (server.passfile, server.directory / "server.json", server.data_dir / "pg_hba.conf"):
        found = path.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (engine_account.uid, 0o600), path
    assert not list(server.directory.glob(".*")), "no password file or temporary name stays"


async def test_only_the_right_password_gets_in(servers: PostgresServers, create_server: CreateServer) -> None:
    server = await create_server()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await as_master(server, "app", password="wrong")
    await servers.set_master_password(server.resource_id, MASTER, servers.conceal_password("Grün-٢ new"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await as_master(server, "app")
    async with await as_master(server, "app", password="Grün-٢ new"):
        pass


async def test_verifiers_are_those_that_postgresql_would_make(create_server: CreateServer) -> None:
    """The server as oracle: given a password in clear it prepares, salts and hashes it itself."""
    server = await create_server(version="18.6")
    passwords = ["plain", "Ümläut", "ﬁ①", "a\u00adb", "a\u00a0b", "密码", "אבג", "\U0001f600"]
    # These do not survive SASLprep: a control character, mixed directions, nothing left, private use, unassigned.
    passwords += ["ü\u0007bell", "mixed אa", "\u00ad", "\ue000", "ü\u0221", "ü\u200e", "١a"]
    async with await server.connect(options="") as connection:
        await connection.execute("CREATE ROLE oracle")
        for password in passwords:
            await connection.execute(sql.SQL("ALTER ROLE oracle PASSWORD {}").format(sql.Literal(password)))
            cursor = await connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'oracle'")
            row = await cursor.fetchone()
            assert row is not None
            salt = base64.b64decode(row[0].split("$")[1].partition(":")[2])
            assert scram_verifier(password, salt=salt) == row[0], ascii(password)


async def test_internal_password_is_in_the_passfile_only(create_server: CreateServer) -> None:
    server = await create_server()
    password = server.passfile.read_text().strip().rpartition(":")[2]
    assert password not in server.conninfo()
    assert password not in server.log_path.read_text()
    assert password not in (server.directory / "server.json").read_text()


async def test_create_start_stop_remove_may_be_said_twice(servers: PostgresServers) -> None:
    wanted = server_spec(servers, version="18.6", db_name=None)
    await servers.create(wanted)
    server = servers.server(wanted.resource_id)
    pid = server.pid()
    await servers.create(wanted)
    await servers.start(wanted.resource_id)
    assert server.pid() == pid
    for _ in range(2):
        await servers.stop(wanted.resource_id)
        assert not await servers.is_running(wanted.resource_id)
    await servers.create(wanted)
    assert await servers.is_running(wanted.resource_id)
    assert servers.known() == [wanted.resource_id]
    for _ in range(2):
        await servers.remove(wanted.resource_id)
    assert servers.known() == []
    assert not server.directory.exists()
    assert not server.socket_dir.exists()
    with pytest.raises(EngineError, match="there is no server"):
        servers.address(wanted.resource_id)


async def test_failed_creation_leaves_nothing(servers: PostgresServers, verdigris_home: Path) -> None:
    wanted = server_spec(servers, version="18.6", db_name=None)
    broken = replace(wanted, master_username="pg_nope")  # initdb and start succeed, CREATE ROLE fails
    with pytest.raises(EngineError, match="pg_nope"):
        await servers.create(broken)
    assert servers.known() == []
    assert list((verdigris_home / "run").iterdir()) == []
    assert processes_of(verdigris_home) == []


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.4, 0.6, 0.8])
async def test_cancelled_creation_leaves_nothing(
    servers: PostgresServers, verdigris_home: Path, delay_s: float
) -> None:
    servers.versions()  # looking around is not what is cancelled here
    creation = asyncio.create_task(servers.create(server_spec(servers, version="18.6")))
    await asyncio.wait([creation], timeout=delay_s)
    creation.cancel()
    await asyncio.wait([creation])
    if not creation.cancelled():
        return  # it was faster: the fixture removes it
    assert servers.known() == []
    assert list((verdigris_home / "run").iterdir()) == []
    assert processes_of(verdigris_home) == []


async def test_creation_interrupted_by_a_crash_is_completed(servers: PostgresServers) -> None:
    wanted = server_spec(servers, version="18.6")
    await servers.create(wanted)
    server = servers.server(wanted.resource_id)
    server.save(created=False)
    async with await server.connect(options="") as connection:
        await connection.execute("DROP DATABASE app")
    await servers.stop(wanted.resource_id)
    await servers.create(wanted)
    async with await as_master(server, "app"):
        pass


async def test_unknown_version_is_refused_before_anything_is_made(servers: PostgresServers) -> None:
    with pytest.raises(EngineError, match=r"17\.99 is not available: unknown version"):
        await servers.create(server_spec(servers, version="17.99"))
    assert servers.known() == []


async def test_class_takes_effect_at_the_next_restart(servers: PostgresServers, create_server: CreateServer) -> None:
    server = await create_server(instance_class="db.t4g.micro")
    server.change_settings({"work_mem": "5MB"})
    await servers.set_instance_class(server.resource_id, "db.t4g.medium")
    assert await rows(server, "SHOW max_connections") == [("112",)]
    await servers.restart(server.resource_id)
    assert await rows(server, "SHOW max_connections") == [("450",)]
    assert await rows(server, "SHOW work_mem") == [("5MB",)]
    assert json.loads((server.directory / "server.json").read_text())["instance_class"] == "db.t4g.medium"


async def test_settings_by_reload_and_alter_system_stays_free(create_server: CreateServer) -> None:
    server = await create_server()
    value = 'it\'s \\ a "test"'
    server.change_settings({"app.note": value, "work_mem": "6MB"})
    server.reload()
    await until(lambda: has_setting(server, "work_mem", "6MB"))
    assert await rows(server, "SHOW app.note") == [(value,)]
    assert server.read_settings()["app.note"] == value
    async with await server.connect(options="") as connection:
        await connection.execute("ALTER SYSTEM SET work_mem = '7MB'")
    server.reload()
    await until(lambda: has_setting(server, "work_mem", "7MB"))
    server.change_settings({"app.note": None})
    assert "app.note" not in server.read_settings()


async def has_setting(server: PostgresServer, name: str, value: str) -> bool:
    return await rows(server, f"SHOW {name}") == [(value,)]


async def test_minor_version_changes_and_keeps_the_data(servers: PostgresServers, create_server: CreateServer) -> None:
    server = await create_server(version="17.10")
    async with await as_master(server, "app") as master:
        await master.execute("CREATE EXTENSION pgcrypto; CREATE TABLE t AS SELECT 42 AS n")
    for _ in range(2):
        await servers.change_minor_version(server.resource_id, "17.11")
        assert await rows(server, "SHOW server_version") == [("17.11",)]
    assert await rows(server, "SELECT n FROM t", "app") == [(42,)]
    with pytest.raises(EngineError, match="not a change of the minor version"):
        await servers.change_minor_version(server.resource_id, "18.6")


async def test_version_that_does_not_start_is_taken_back(
    servers: PostgresServers, create_server: CreateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await create_server(version="17.10")
    before = server.installation
    broken = server.directory / "postgres"
    server.account.write_file(broken, "#!/bin/sh\necho FATAL: out of order >&2\nexit 1\n")
    broken.chmod(0o700)

    async def broken_installation(version: str, **_: object) -> Installation:
        return replace(before, version=version, bin_dir=str(broken.parent))

    monkeypatch.setattr(servers.catalogue, "installation", broken_installation)
    with pytest.raises(EngineError, match=r"did not start: FATAL: out of order"):
        await servers.change_minor_version(server.resource_id, "17.9")
    assert server.installation == before
    assert await rows(server, "SHOW server_version") == [("17.10",)]


async def test_extension_decides_between_sources(catalogue: Catalogue) -> None:
    plain = await catalogue.installation("18.6")
    with_crypto = await catalogue.installation("18.6", extensions={"pgcrypto"})
    assert plain.source == "embedded"
    assert with_crypto.source == "wheel"
    with pytest.raises(EngineError, match=r"18\.6 lacks the extension nonsense"):
        await catalogue.installation("18.6", extensions={"nonsense", "pgcrypto"})


async def test_path_too_long_for_sockets_is_said_early(
    verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount
) -> None:
    deep = verdigris_home / ("d" * 60)
    servers = PostgresServers(deep, catalogue, engine_account)
    with pytest.raises(EngineError, match=r"too long for unix sockets: .* is \d+ bytes over"):
        await servers.create(server_spec(servers, version="18.6"))
    assert servers.known() == []


async def test_clone_shell_takes_a_physical_copy(servers: PostgresServers, create_server: CreateServer) -> None:
    """pg_basebackup of a running server into the shell, started as a streaming standby under another minor version."""
    source = await create_server(version="17.10")
    installation = await servers.catalogue.installation("17.11")
    target = await servers.clone_shell(
        random_resource_id(), like=source, installation=installation, instance_class="db.t4g.small"
    )
    await target.run("pg_basebackup", "-d", source.conninfo(), "-D", str(target.data_dir), "-R", "-c", "fast")
    target.configure()
    await target.start()
    async with await source.connect("app", options="") as connection:
        await connection.execute("CREATE TABLE arrived AS SELECT 1 AS n")

    async def arrived() -> bool:
        return await rows(target, "SELECT to_regclass('arrived') IS NOT NULL", "app") == [(True,)]

    await until(arrived)
    assert await rows(target, "SELECT pg_is_in_recovery()") == [(True,)]
    assert await rows(target, "SHOW server_version") == [("17.11",)]
    assert target.address.socket_path != source.address.socket_path


async def test_its_log_can_be_read_by_portions(servers: PostgresServers, create_server: CreateServer) -> None:
    server = await create_server()
    (file,) = servers.log_files(server.resource_id)
    assert file.name == "error/postgresql.log"
    whole = servers.read_log_file(server.resource_id, file.name, offset=0, limit_bytes=file.size_bytes)
    assert b"database system is ready to accept connections" in whole
    assert servers.read_log_file(server.resource_id, file.name, offset=5, limit_bytes=7) == whole[5:12]
    assert servers.read_log_file(server.resource_id, "error/../passfile", offset=0, limit_bytes=10) == b""
    (server.log_path.parent / "postgresql.log.1").symlink_to(server.passfile)
    with pytest.raises(OSError, match="symbolic links"):
        servers.read_log_file(server.resource_id, "error/postgresql.log.1", offset=0, limit_bytes=10)
