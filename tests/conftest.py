"""Fixtures that every suite shares: a state directory, the engine catalogue, real servers, and nothing left behind."""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from verdigris.domain.identifiers import new_resource_id
from verdigris.domain.ports import ServerSpec
from verdigris.engines.account import EngineAccount
from verdigris.engines.account import engine_account as find_account
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers

MASTER = "app_owner"
MASTER_PASSWORD = "a pa$$word 'with' \"quotes\""
# Both come as wheels of the development environment, so they are there without a download.
BLUE_VERSION = "17.10"
GREEN_VERSION = "18.6"

CreateServer = Callable[..., Awaitable[PostgresServer]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sample-schemas",
        metavar="DIR",
        default=os.environ.get("VERDIGRIS_SAMPLE_SCHEMAS"),
        help="published schemas as SQL files, to be upgraded too (default: $VERDIGRIS_SAMPLE_SCHEMAS)",
    )


def random_resource_id() -> str:
    return new_resource_id(lambda alphabet, length: "".join(secrets.choice(alphabet) for _ in range(length)))


async def until(condition: Callable[[], bool | Awaitable[bool]], *, limit_s: float = 20) -> None:
    """Wait for what a test is about, never longer."""
    async with asyncio.timeout(limit_s):
        while True:
            seen = condition()
            if seen if isinstance(seen, bool) else await seen:
                return
            await asyncio.sleep(0.01)


def processes_of(home: Path) -> list[str]:
    """Command lines of the processes that work in or on ``home``, ours excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            cwd = str((entry / "cwd").readlink())
        except OSError:
            continue  # it ended meanwhile
        if str(home) in command or cwd.startswith(f"{home}/"):
            found.append(f"{entry.name} {command}")
    return found


@pytest.fixture(scope="session")
def engine_account() -> EngineAccount:
    return find_account()


@pytest.fixture(scope="session")
def catalogue(engine_account: EngineAccount) -> Catalogue:
    """With the machine's own cache of engines: what one session has fetched the next one finds."""
    return Catalogue(engine_account)


@pytest.fixture
def verdigris_home() -> Iterator[Path]:
    """An empty state directory: its path is short enough for unix sockets, and engine accounts can pass through.

    Fails the test that leaves a process behind.
    """
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="vg-")))
    home.chmod(0o711)
    try:
        yield home
        left = processes_of(home)
        assert not left, f"processes left behind: {left}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def servers(
    verdigris_home: Path, catalogue: Catalogue, engine_account: EngineAccount
) -> AsyncIterator[PostgresServers]:
    """The servers of ``verdigris_home``; all are removed at the end."""
    servers = PostgresServers(verdigris_home, catalogue, engine_account)
    try:
        yield servers
    finally:
        for resource_id in servers.known():
            await servers.remove(resource_id)


def server_spec(
    servers: PostgresServers,
    *,
    version: str = BLUE_VERSION,
    db_name: str | None = "app",
    instance_class: str = "db.t4g.micro",
) -> ServerSpec:
    return ServerSpec(
        resource_id=random_resource_id(),
        engine_version=version,
        instance_class=instance_class,
        master_username=MASTER,
        master_password_verifier=servers.conceal_password(MASTER_PASSWORD),
        db_name=db_name,
    )


@pytest.fixture
async def create_server(servers: PostgresServers) -> CreateServer:
    """``await create_server(version="17.10", db_name=..., instance_class=...)``: a new, running server. Its master user
    is ``MASTER`` with ``MASTER_PASSWORD``."""

    async def create(
        *, version: str = BLUE_VERSION, db_name: str | None = "app", instance_class: str = "db.t4g.micro"
    ) -> PostgresServer:
        spec = server_spec(servers, version=version, db_name=db_name, instance_class=instance_class)
        await servers.create(spec)
        return servers.server(spec.resource_id)

    return create
