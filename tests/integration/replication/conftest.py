"""Pairs of real servers, and ways to look at all that is in them."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.conftest import MASTER, MASTER_PASSWORD, random_resource_id
from verdigris.domain.ports import Pair
from verdigris.domain.versions import PostgresVersion, replication_mode
from verdigris.engines.postgres import fence
from verdigris.engines.postgres.green import PostgresGreenBuilder
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.servers import PostgresServers
from verdigris.engines.postgres.sessions import (
    for_each,
    keep_sessions,
    kept_sessions,
    let_go_of_sessions,
    list_databases,
    session,
)
from verdigris.engines.postgres.switchover import PostgresSwitchoverEngine

RICH_SCHEMA = Path(__file__).parents[2] / "data" / "rich_schema.sql"

MakePair = Callable[[PostgresServer, str], Pair]
Contents = dict[str, tuple[int, str]]  # database.schema.table -> rows, digest


@pytest.fixture
def green(servers: PostgresServers) -> PostgresGreenBuilder:
    return PostgresGreenBuilder(servers)


@pytest.fixture
def switchover(servers: PostgresServers, green: PostgresGreenBuilder) -> PostgresSwitchoverEngine:
    return PostgresSwitchoverEngine(servers, green)


@pytest.fixture
def make_pair() -> MakePair:
    def make(source: PostgresServer, target_version: str) -> Pair:
        return Pair(
            deployment_id="bgd-" + secrets.token_hex(8),
            source_resource_id=source.resource_id,
            target_resource_id=random_resource_id(),
            mode=replication_mode(source.version, PostgresVersion.parse(target_version)),
            source_version=str(source.version),
            target_version=target_version,
            target_instance_class="db.t4g.micro",
        )

    return make


async def build(green: PostgresGreenBuilder, pair: Pair) -> None:
    """The steps of the workflow, in its order."""
    await green.copy(pair)
    if pair.mode == "logical":
        await green.align(pair)
        await green.upgrade(pair)
    await green.join(pair)


async def as_master(server: PostgresServer, dbname: str = "app") -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(
        host=str(server.socket_dir), user=MASTER, password=MASTER_PASSWORD, dbname=dbname, autocommit=True
    )


async def load_rich_schema(server: PostgresServer, dbname: str = "app") -> None:
    async with await as_master(server, dbname) as connection:
        await connection.execute(RICH_SCHEMA.read_bytes())


async def run_sql(server: PostgresServer, *statements: str, dbname: str = "app") -> None:
    async with session(server, dbname) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


async def run_as_master(server: PostgresServer, *statements: str) -> None:
    async with await as_master(server) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


async def query(server: PostgresServer, statement: str, dbname: str = "app") -> list[tuple[object, ...]]:
    async with session(server, dbname) as connection:
        return await (await connection.execute(statement.encode())).fetchall()


async def contents(server: PostgresServer) -> Contents:
    """Every row of every user's table in every database, digested, and every sequence's position."""
    found: Contents = {}
    for database in await list_databases(server):
        async with session(server, database.name) as connection:
            relations = await connection.rows(
                "SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.relkind IN ('r', 'S') AND c.oid >= 16384 AND c.relpersistence = 'p'"
                " AND NOT starts_with(n.nspname, 'verdigris_') ORDER BY 1, 2"
            )
            for schema, name, kind in relations:
                relation = sql.Identifier(schema, name)
                # log_cnt of a sequence says how much of it WAL covers, not where it stands.
                lines = sql.SQL("SELECT t::text AS line FROM ONLY {} t").format(relation)
                if kind == "S":
                    lines = sql.SQL("SELECT last_value || ' ' || is_called AS line FROM {}").format(relation)
                rows = await connection.rows(
                    sql.SQL(
                        "SELECT count(*), coalesce(md5(string_agg(line, E'\n' ORDER BY line)), '') FROM ({}) AS lines"
                    ).format(lines)
                )
                found[".".join((database.name, schema, name))] = rows[0]
    return found


async def traces(server: PostgresServer, pair: Pair) -> list[str]:
    """Whatever of the deployment is still on a server."""
    names = ObjectNames(pair.deployment_id)
    found = [
        str(row[0])
        for row in await query(server, "SELECT 'slot ' || slot_name FROM pg_replication_slots", "postgres")
        + await query(server, "SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'verdigris%'", "postgres")
    ]

    async def look(dbname: str) -> list[str]:
        async with session(server, dbname) as connection:
            rows = await connection.rows(
                "SELECT 'publication ' || pubname FROM pg_publication UNION ALL"
                " SELECT 'subscription ' || subname FROM pg_subscription UNION ALL"
                " SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = %s UNION ALL"
                " SELECT 'origin ' || roname FROM pg_replication_origin",
                names.schema,
            )
            return [str(row[0]) for row in rows]

    for lines in (await for_each(await list_databases(server), lambda database: look(database.name))).values():
        found += lines
    kept = {"max_slot_wal_keep_size", "primary_conninfo", "primary_slot_name", "recovery_target_lsn"}
    found += [f"setting {name}" for name in server.read_settings() if name in kept or name.startswith("verdigris.")]
    found += [f"file {path.name}" for path in server.data_dir.iterdir() if "verdigris-" in path.name]
    return found


@contextlib.asynccontextmanager
async def writing(server: PostgresServer) -> AsyncIterator[list[int]]:
    """Clients that insert, update and delete all the while. What is yielded counts the acknowledged inserts."""
    acknowledged: list[int] = []
    stop = asyncio.Event()
    await run_sql(server, "CREATE TABLE public.written (client int, n int, note text, PRIMARY KEY (client, n))")

    async def client(number: int) -> None:
        async with session(server, "app") as connection:
            n = 0
            while not stop.is_set():
                n += 1
                async with connection.transaction():
                    await connection.run("INSERT INTO public.written VALUES (%s, %s, 'x')", number, n)
                    await connection.run(
                        "UPDATE public.written SET note = note || '.' WHERE client = %s AND n = %s", number, n // 2
                    )
                    await connection.run(
                        "DELETE FROM public.written WHERE client = %s AND n = %s AND n %% 7 = 0", number, n - 100
                    )
                acknowledged.append(n)
                await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(client(number)) for number in range(2)]
    try:
        yield acknowledged
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def sealed(source: PostgresServer, keep: list[int]) -> AsyncIterator[None]:
    """As in a switchover: with sessions of ours that are there already."""
    keep_sessions(source, 4)
    try:
        with kept_sessions():
            for database in await list_databases(source):
                async with session(source, database.name):
                    pass
            await fence.close(source, seal=True)
            await fence.raise_fence(source, keep, closed=True)
            yield
    finally:
        await fence.lift(source)
        await let_go_of_sessions(source)
