"""The one server behind every peer: an engine as Verdigris runs it, which for once listens on TCP as well."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from tests.benchmarks.command import undisturbed
from verdigris.domain.identifiers import new_resource_id
from verdigris.domain.ports import BackendAddress, ServerSpec
from verdigris.engines.account import EngineAccount, engine_account
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.installations import Installation
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.router import tls

USER = "bench"
DATABASE = "bench"
# A gigabyte of shared buffers where the machine has sixteen: the tables of pgbench stay in memory.
INSTANCE_CLASS = "db.t3.medium"


class Backend(Struct, frozen=True, kw_only=True):
    """``port``: where it listens on 127.0.0.1, with and without TLS, and the number in its unix socket's name."""

    version: str
    port: int
    pid: int
    socket_dir: Path
    password: str
    installation: Installation
    account: EngineAccount

    @property
    def socket_path(self) -> Path:
        return self.socket_dir / f".s.PGSQL.{self.port}"

    @property
    def address(self) -> BackendAddress:
        return BackendAddress("benchmark", str(self.socket_path))


@asynccontextmanager
async def running_backend(
    home: Path, version: str, port: int, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Backend]:
    """A new server with a database for ``USER``; nothing of it is left afterwards. ``settings`` beat its class's."""
    account = engine_account()
    servers = PostgresServers(home, Catalogue(account), account)
    password = secrets.token_hex(12)
    spec = ServerSpec(
        resource_id=new_resource_id(lambda alphabet, length: "".join(secrets.choice(alphabet) for _ in range(length))),
        engine_version=version,
        instance_class=INSTANCE_CLASS,
        master_username=USER,
        master_password_verifier=servers.conceal_password(password),
        db_name=DATABASE,
    )
    try:
        await servers.create(spec)
        server = servers.server(spec.resource_id)
        await _listen_on_tcp(server, port, settings or {})
        yield Backend(
            version=version,
            port=port,
            pid=server.pid() or 0,
            socket_dir=server.socket_dir,
            password=password,
            installation=server.installation,
            account=account,
        )
    finally:
        with undisturbed():
            await asyncio.shield(servers.remove(spec.resource_id))


async def _listen_on_tcp(server: PostgresServer, port: int, more_settings: Mapping[str, str]) -> None:
    """Start again, reachable from this machine by whoever has a password, with a certificate like the router's."""
    certificates = server.directory / "tls"
    tls.server_context(certificates)
    server.account.make_directory(certificates)
    for path in certificates.iterdir():
        content = path.read_bytes()
        path.unlink()  # it is ours and has to become the engine account's
        server.account.write_file(path, content)
    hba = server.data_dir / "pg_hba.conf"
    server.account.write_file(hba, server.account.read_file(hba) + f"host all {USER} 127.0.0.1/32 scram-sha-256\n")
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "ssl": "on",
        "ssl_cert_file": str(certificates / "server.crt"),
        "ssl_key_file": str(certificates / "server.key"),
        **more_settings,
    }
    await server.stop()
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    await server.start(supervise=False, options=options)
