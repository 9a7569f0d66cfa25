"""The source's side of logical replication: publications, slots, the marker's schema."""

import asyncio

import structlog
from psycopg import errors, sql

from verdigris.engines.postgres import session_functions
from verdigris.engines.postgres.carrying import ddl_capture, identity
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.own_sessions import UNNOTICED
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Database, for_each, list_databases, session

log = structlog.get_logger(__name__)

_SLOTS = sql.SQL("SELECT slot_name, active_pid FROM pg_replication_slots WHERE slot_name = %s OR slot_name LIKE %s")


async def publish(source: PostgresServer, names: ObjectNames) -> str:
    """Publications and slots in every database; returns the LSN from which on all slots have everything.

    All publications exist before the first slot: a slot decodes with the catalogue of its time.
    """
    databases = await list_databases(source)
    await for_each(databases, lambda database: _create_publication(source, names, database))
    lsns = await for_each(databases, lambda database: _create_slot(source, names, database))
    async with session(source) as connection:
        lsn: str = await connection.value("SELECT max(lsn)::text FROM unnest(%s::pg_lsn[]) lsn", list(lsns.values()))
        # Recovery stops before the first record at or after the LSN, so there has to be one, and it has to be on disk.
        await connection.run("SELECT pg_logical_emit_message(true, 'verdigris', '')")
    log.info("source.published", source=source.resource_id, databases=len(databases), lsn=lsn)
    return lsn


async def _create_publication(source: PostgresServer, names: ObjectNames, database: Database) -> None:
    """Name every table instead of FOR ALL TABLES: a table made later, without a key, would otherwise have its UPDATEs
    refused on the source, and one that green lacks would stop the replication of all others."""
    publication = sql.Identifier(names.publication)
    async with session(source, database.name, **UNNOTICED) as connection:
        async with connection.transaction():
            schema = sql.Identifier(names.schema)
            await connection.run(sql.SQL("CREATE SCHEMA {}").format(schema))
            await connection.run(
                sql.SQL("CREATE TABLE {}.marker (id integer PRIMARY KEY, token text NOT NULL)").format(schema)
            )
            await identity.prepare_journal(connection, names)
            await session_functions.install(connection, names)
            await ddl_capture.create_table(connection, names)
        await identity.give_to_all(connection, names)
        async with connection.transaction():
            tables = [sql.Identifier(*table) for table in await identity.publishable(connection)]
            listed = sql.SQL(", ").join(sql.SQL("ONLY {}").format(table) for table in tables)
            await connection.run(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(publication, listed))
            await ddl_capture.install(connection, names)


async def _create_slot(source: PostgresServer, names: ObjectNames, database: Database) -> str:
    """Waits for transactions that are running to end, as PostgreSQL must. Returns the LSN its stream begins at."""
    async with session(source, database.name) as connection:
        lsn: str = await connection.value(
            "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')", names.logical_slot(database.oid)
        )
        return lsn


async def unpublish(server: PostgresServer, names: ObjectNames) -> None:
    """Drop publication and schema in every database of a server: of the source, or of a copy that has them too. Tables
    are as they were before they were published: after the publication is gone, and before it is forgotten what they
    were."""

    async def one(database: Database) -> None:
        async with session(server, database.name, **UNNOTICED) as connection:
            await ddl_capture.uninstall(connection, names)
            await connection.run(_drop_publication(names))
            await identity.take_back(connection, names)
            await connection.run(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(names.schema)))

    await for_each(await list_databases(server), one)


async def take_back_identities(target: PostgresServer, names: ObjectNames) -> None:
    """Of a copy, which publishes nothing: its tables need no identity for changes to be applied to them."""

    async def one(database: Database) -> None:
        async with session(target, database.name) as connection:
            await identity.take_back(connection, names)

    await for_each(await list_databases(target), one)


async def take_from_copy(copy: PostgresServer, names: ObjectNames) -> None:
    """What only a source needs. A copy keeps the schema, where markers and statements will arrive."""

    async def drop(database: Database) -> None:
        async with session(copy, database.name, **UNNOTICED) as connection:
            await ddl_capture.uninstall(connection, names)
            await connection.run(_drop_publication(names))

    await for_each(await list_databases(copy), drop)


def _drop_publication(names: ObjectNames) -> sql.Composed:
    return sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(names.publication))


async def drop_slot(source: PostgresServer, slot: str) -> None:
    """One that nobody uses any more."""
    async with session(source) as connection:
        await connection.run(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", slot
        )


async def drop_slots(source: PostgresServer, names: ObjectNames) -> None:
    """Drop the deployment's slots, physical and logical, whoever uses them."""
    async with session(source) as connection:
        while slots := await connection.rows(_SLOTS, names.base, names.base.replace("_", r"\_") + r"\_%"):
            for slot, active_pid in slots:
                if active_pid is not None:
                    # The other end comes back after wal_retrieve_retry_interval, so the slot is free for a moment.
                    await connection.run("SELECT pg_terminate_backend(%s)", active_pid)
                try:
                    await connection.run("SELECT pg_drop_replication_slot(%s)", slot)
                except (errors.ObjectInUse, errors.UndefinedObject):
                    await asyncio.sleep(0.01)
