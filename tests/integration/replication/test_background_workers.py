"""An extension's background worker that writes all the time, and that the server begins again whenever it is ended."""

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from tests.conftest import BLUE_VERSION, GREEN_VERSION, CreateServer, until
from tests.integration.replication.conftest import MakePair, as_master, build, contents, query, run_sql, sealed, traces
from verdigris.domain.errors import SetBack
from verdigris.domain.ports import CheckOutcome, Pair
from verdigris.engines.catalogue import Catalogue
from verdigris.engines.installations import InstallationSource
from verdigris.engines.postgres import fence
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine

WORKER = Path(__file__).parents[2] / "data" / "beating_worker.c"
# What a worker that was begun behind the fence says as it ends.
REFUSED = "cannot execute INSERT in a read-only transaction"
LIMIT_S = 60

LoadWorker = Callable[[PostgresServer], Awaitable[None]]


@pytest.fixture
async def load_worker(catalogue: Catalogue, verdigris_home: Path) -> LoadWorker:
    """``await load_worker(server)``: restart a server with the worker, beside autoprewarm, which does no harm."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    async def load(server: PostgresServer) -> None:
        # Wheels of this kind have headers.
        installation = await catalogue.installation(str(server.version), source=InstallationSource.WHEEL)
        headers = Path(installation.bin_dir).parent / "include" / "server"
        library = verdigris_home / "beating_worker.so"
        compiling = await asyncio.create_subprocess_exec(
            compiler, "-shared", "-fPIC", "-Wall", "-Werror", f"-I{headers}", f'-DLIBRARY="{library}"',
            "-o", str(library), str(WORKER),
        )  # fmt: skip
        assert await compiling.wait() == 0
        library.chmod(0o755)
        await preload(server, "pg_prewarm", str(library))

    return load


async def preload(server: PostgresServer, *libraries: str) -> None:
    await run_sql(server, f"ALTER SYSTEM SET shared_preload_libraries = {', '.join(map(repr, libraries))}")
    await server.restart()


async def make_table(server: PostgresServer) -> None:
    await run_sql(
        server,
        "CREATE TABLE public.beats (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, server text NOT NULL)",
    )


async def beats(server: PostgresServer, *, of: PostgresServer | None = None) -> int:
    writer = f"WHERE server = '{of.data_dir}'" if of is not None else ""
    [(count,)] = await query(server, f"SELECT count(*) FROM public.beats {writer}")
    return int(str(count))


async def goes_on(server: PostgresServer) -> None:
    """Return when the worker has written once more."""
    before = await beats(server, of=server)

    async def has_written() -> bool:
        return await beats(server, of=server) > before

    await until(has_written, limit_s=LIMIT_S)


def refusals(server: PostgresServer) -> int:
    return server.log_path.read_text(errors="replace").count(REFUSED)


async def is_refused_again(server: PostgresServer) -> None:
    """Return when the worker has been begun again, and has tried."""
    before = refusals(server)
    await until(lambda: refusals(server) > before, limit_s=LIMIT_S)


async def catch_up(switchover: PostgresSwitchoverEngine, pair: Pair) -> None:
    """As often as the worker happens to be there, for a moment, just when it is looked who is."""

    async def caught_up() -> bool:
        with contextlib.suppress(SetBack):
            await switchover.catch_up(pair)
            return True
        return False

    await until(caught_up, limit_s=LIMIT_S)


async def test_it_writes_nothing_behind_the_fence_and_goes_on_when_that_is_lifted(
    create_server: CreateServer, load_worker: LoadWorker
) -> None:
    source = await create_server()
    await make_table(source)
    await load_worker(source)
    await goes_on(source)
    settings = source.read_settings()
    parked = await as_master(source)
    async with sealed(source, [parked.info.backend_pid]):
        await shows(parked, "on")
    await shows(parked, "off")
    await parked.close()
    await goes_on(source)
    async with sealed(source, []):
        behind = await beats(source)
        await is_refused_again(source)
        assert await beats(source) == behind
        await source.restart()
        await is_refused_again(source)
        await fence.unseal(source)
        assert await beats(source) == behind
    await goes_on(source)
    assert source.read_settings() == settings


async def test_a_major_upgrade_is_refused_for_it_and_loses_nothing_where_it_slips_in(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
    load_worker: LoadWorker,
) -> None:
    source = await create_server(version=BLUE_VERSION)
    await make_table(source)
    await load_worker(source)
    await goes_on(source)
    pair = make_pair(source, GREEN_VERSION)
    [finding] = await green.check_source(pair)
    assert finding.check == "background-workers"
    assert "beating worker" in finding.message
    await preload(source, "pg_prewarm")
    assert await query(source, "SHOW pg_prewarm.autoprewarm") == [("on",)]
    assert await green.check_source(pair) == []
    await build(green, pair)
    target = servers.server(pair.target_resource_id)
    assert (await outcomes(switchover, pair))["background-workers"] is CheckOutcome.OK

    await load_worker(source)
    await goes_on(source)

    async def is_refused() -> bool:
        return [finding.check for finding in await switchover.guardrails(pair)] == ["background-workers"]

    await until(is_refused, limit_s=LIMIT_S)
    await switchover.prepare(pair)  # all the same
    await switchover.fence(pair, [])
    behind = await contents(source)
    await is_refused_again(source)
    await catch_up(switchover, pair)
    assert await contents(source) == behind
    assert await contents(target) == behind
    await switchover.open_target(pair)
    await switchover.retire_source(pair)
    await switchover.stand_down(pair)
    await is_refused_again(source)
    assert await contents(source) == behind
    assert (await traces(source, pair), await traces(target, pair)) == ([], [])


async def test_a_minor_upgrade_takes_it_along(
    servers: PostgresServers,
    green: PostgresGreenBuilder,
    switchover: PostgresSwitchoverEngine,
    create_server: CreateServer,
    make_pair: MakePair,
    load_worker: LoadWorker,
) -> None:
    """Green's begins to write when green is promoted, and not before."""
    source = await create_server(version="17.10")
    await make_table(source)
    await load_worker(source)
    await goes_on(source)
    pair = make_pair(source, "17.11")
    assert await green.check_source(pair) == []
    await build(green, pair)
    target = servers.server(pair.target_resource_id)
    assert await switchover.guardrails(pair) == []
    await switchover.prepare(pair)
    await switchover.fence(pair, [])
    behind = await rows(source)
    await is_refused_again(source)
    await catch_up(switchover, pair)
    assert await rows(source) == behind
    assert await rows(target) == behind
    await switchover.open_target(pair)
    await goes_on(target)
    await switchover.retire_source(pair)
    await switchover.stand_down(pair)
    await is_refused_again(source)
    assert await rows(source) == behind
    assert (await rows(target))[: len(behind)] == behind
    assert (await traces(source, pair), await traces(target, pair)) == ([], [])


async def rows(server: PostgresServer) -> list[tuple[object, ...]]:
    """Without the sequence, which a standby has as far as WAL covers it."""
    return await query(server, "SELECT * FROM public.beats ORDER BY n")


async def shows(connection: psycopg.AsyncConnection[tuple[object, ...]], expected: str) -> None:
    """Return when a session has learned that it is read-only, or that it is not any more."""

    async def is_shown() -> bool:
        cursor = await connection.execute("SHOW transaction_read_only")
        return await cursor.fetchone() == (expected,)

    await until(is_shown, limit_s=LIMIT_S)


async def outcomes(switchover: PostgresSwitchoverEngine, pair: Pair) -> dict[str, CheckOutcome]:
    return {result.check: result.outcome for result in await switchover.check(pair)}
