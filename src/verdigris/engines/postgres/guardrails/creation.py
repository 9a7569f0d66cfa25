"""What a green needs to be made at all."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from psycopg import sql

from verdigris.domain.errors import EngineError
from verdigris.engines.disk import FREE_DISK_FACTOR, tree_bytes
from verdigris.engines.installations import Installation
from verdigris.engines.postgres.guardrails.model import (
    ENGINE,
    LOGICAL,
    SOURCE,
    STORAGE,
    Extent,
    Guardrail,
    Moment,
    Side,
    View,
    on_source,
)
from verdigris.engines.postgres.sessions import databases

_TABLESPACES = sql.SQL("SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1")
_CLOSED = sql.SQL("SELECT datname FROM pg_database WHERE NOT datallowconn AND datname <> 'template0' ORDER BY 1")

_FREE_SLOTS_AND_SENDERS = """
    SELECT least(current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
                 current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication))
"""

# By way of JSON, because PostgreSQL 14 has no such column. Collations: made by users, or one of initdb's that a column
# or index uses.
_NEEDS_ICU = sql.SQL("""
    SELECT 'the default collation (ICU)' FROM pg_database d
     WHERE d.datname = current_database() AND to_jsonb(d) ->> 'datlocprovider' = 'i'
     UNION ALL
    SELECT format('collation %I.%I (ICU)', n.nspname, c.collname)
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
     WHERE c.collprovider = 'i'
       AND (c.oid >= 16384 OR EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = c.oid AND a.attrelid >= 16384))
     ORDER BY 1
""")
_NEEDS_XML = sql.SQL("""
    SELECT format('column %I of %I.%I (xml)', a.attname, n.nspname, c.relname)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'c')
       AND a.atttypid IN ('xml'::regtype, 'xml[]'::regtype) ORDER BY 1
""")
# Rows may have been compressed so at any time; these are what would do it again.
_NEEDS_LZ4 = sql.SQL("""
    SELECT format('column %I of %I.%I (lz4)', a.attname, n.nspname, c.relname)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND a.attcompression = 'l'
     UNION ALL
    SELECT 'default_toast_compression (lz4)' WHERE current_setting('default_toast_compression') = 'lz4' OR EXISTS (
        SELECT FROM pg_db_role_setting WHERE 'default_toast_compression=lz4' = ANY(setconfig))
     ORDER BY 1
""")
# What a server may have been built without: the query for what needs it, and a function that it would call then, whose
# name is among its dynamic symbols.
_FEATURES = ((_NEEDS_ICU, b"ucol_strcoll"), (_NEEDS_XML, b"xmlInitParser"), (_NEEDS_LZ4, b"LZ4_decompress_safe"))


async def _no_room_for_slots(view: View) -> Sequence[str]:
    """One slot for each database and one for the copy; a sender for each, and one more that streams the copy's WAL."""
    needed = len(await databases(view.source)) + 2
    free: int = await view.source.value(_FREE_SLOTS_AND_SENDERS)
    return [] if free >= needed else [f"{needed} are needed and {free} are free"]


async def _too_little_disk(view: View) -> Sequence[str]:
    source = view.subject.source
    if source is None:
        return []
    size_bytes = await asyncio.to_thread(tree_bytes, source.data_dir)
    free_bytes = shutil.disk_usage(source.data_dir).free
    if free_bytes >= size_bytes * FREE_DISK_FACTOR:
        return []
    return [f"about {size_bytes >> 20} MiB are needed and {free_bytes >> 20} MiB are free"]


async def _no_installation(view: View) -> Sequence[str]:
    try:
        await _installation(view)
    except EngineError as error:
        return [str(error)]
    return []


async def _lacks_features(view: View) -> Sequence[str]:
    needed = [(used, symbol) for query, symbol in _FEATURES if (used := await view.source_names(query))]
    if not needed:
        return []
    try:
        installation = await _installation(view)
    except EngineError:
        return []  # for another guardrail to say
    program = await asyncio.to_thread(Path(installation.program("postgres")).read_bytes)
    return [name for used, symbol in needed if symbol not in program for name in used]


async def _installation(view: View) -> Installation:
    servers, pair = view.subject.servers, view.subject.pair
    extensions = await servers.extensions_in_use(servers.server(pair.source_resource_id))
    return await servers.catalogue.installation(pair.target_version, extensions=extensions)


GUARDRAILS = (
    Guardrail(
        name="tablespaces",
        rds=SOURCE,
        complaint="tablespaces cannot be copied on one machine",
        remedy="Move their tables to pg_default and drop them.",
        why="Their directories are outside the data directory, and both servers would use the same.",
        side=Side.BLUE,
        moments=Moment.CREATION | Moment.SWITCHOVER,
        extent=Extent.CLUSTER,
        look=on_source(_TABLESPACES),
    ),
    Guardrail(
        name="closed-databases",
        rds=SOURCE,
        complaint="databases that allow no connections",
        remedy="Allow connections, or drop them.",
        why="pg_upgrade has to connect to every database.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION,
        extent=Extent.CLUSTER,
        look=on_source(_CLOSED),
    ),
    Guardrail(
        name="slots-and-senders",
        rds=SOURCE,
        complaint="too few free replication slots and WAL senders on blue",
        remedy="Raise max_replication_slots and max_wal_senders.",
        threshold="a slot for each database and one for the copy, a sender for each and one more",
        why="Each database is a stream of its own, and the copy streams its WAL meanwhile.",
        side=Side.BLUE,
        modes=LOGICAL,
        moments=Moment.CREATION,
        extent=Extent.CLUSTER,
        look=_no_room_for_slots,
    ),
    Guardrail(
        name="free-disk",
        rds=STORAGE,
        complaint="too little free disk for a copy of blue",
        remedy="Make room.",
        threshold=f"{FREE_DISK_FACTOR:g} times what blue's files take",
        why="The copy, and a tenth of it for WAL and work. Blue's disk must not run full for green.",
        side=Side.BLUE,
        moments=Moment.CREATION,
        extent=Extent.PAIR,
        look=_too_little_disk,
    ),
    Guardrail(
        name="engine-not-available",
        rds=ENGINE,
        complaint="no PostgreSQL of the target version can be used",
        remedy="Choose another version, install one that has the extensions, or drop them.",
        threshold="one with every extension that blue uses, in any database",
        why="pg_upgrade refuses a database whose extensions the target lacks.",
        side=Side.BLUE,
        moments=Moment.CREATION,
        extent=Extent.CLUSTER,
        look=_no_installation,
    ),
    Guardrail(
        name="features-missing",
        rds=ENGINE,
        complaint="the PostgreSQL that would be used is built without what is needed by",
        remedy="Install a PostgreSQL of the target version that is built with it.",
        threshold="ICU, libxml and LZ4 have to be there if blue uses them",
        why="Without them the server cannot compare such text, read such values, or apply changes to them.",
        side=Side.BLUE,
        moments=Moment.CREATION,
        extent=Extent.DATABASE,
        look=_lacks_features,
    ),
)
