"""What a green needs to be made at all."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path

from psycopg import sql

from verdigris.domain.errors import EngineError
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

# The copy itself, and as much again of WAL and working room as a tenth of it.
FREE_DISK_FACTOR = 1.1

_TABLESPACES = sql.SQL("SELECT spcname FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1")
_CLOSED = sql.SQL("SELECT datname FROM pg_database WHERE NOT datallowconn AND datname <> 'template0' ORDER BY 1")

_FREE_SLOTS_AND_SENDERS = """
    SELECT least(current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
                 current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication))
"""

# By way of JSON, because PostgreSQL 14 has no such column.
_ICU_DATABASE = """
    SELECT 'the database itself' FROM pg_database d
     WHERE d.datname = current_database() AND to_jsonb(d) ->> 'datlocprovider' = 'i'
"""
# Made by users, or one of initdb's that a column or index uses.
_ICU_COLLATIONS = sql.SQL("""
    SELECT format('collation %I.%I', n.nspname, c.collname)
      FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
     WHERE c.collprovider = 'i'
       AND (c.oid >= 16384 OR EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = c.oid AND a.attrelid >= 16384))
     ORDER BY 1
""")


async def _no_room_for_slots(view: View) -> Sequence[str]:
    """One slot for each database and one for the copy; a sender for each, and one more that streams the copy's WAL."""
    needed = len(await databases(view.source)) + 2
    free: int = await view.source.value(_FREE_SLOTS_AND_SENDERS)
    return [] if free >= needed else [f"{needed} are needed and {free} are free"]


async def _too_little_disk(view: View) -> Sequence[str]:
    source = view.subject.source
    if source is None:
        return []
    size_bytes = await asyncio.to_thread(_tree_bytes, source.data_dir)
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


async def _needs_icu(view: View) -> Sequence[str]:
    used = await view.source_names(_ICU_DATABASE) + await view.source_names(_ICU_COLLATIONS)
    if not used:
        return []
    try:
        installation = await _installation(view)
    except EngineError:
        return []  # for another guardrail to say
    return [] if await asyncio.to_thread(_has_icu, installation) else used


async def _installation(view: View) -> Installation:
    servers, pair = view.subject.servers, view.subject.pair
    extensions = await servers.extensions_in_use(servers.server(pair.source_resource_id))
    return await servers.catalogue.installation(pair.target_version, extensions=extensions)


def _has_icu(installation: Installation) -> bool:
    """Whether the server calls ICU: the function's name is among its dynamic symbols then."""
    return b"ucol_strcoll" in Path(installation.program("postgres")).read_bytes()


def _tree_bytes(directory: Path) -> int:
    """Space used. Files of a running server come and go."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


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
        name="icu-missing",
        rds=ENGINE,
        complaint="the PostgreSQL that would be used is built without ICU, which is needed by",
        remedy="Install a PostgreSQL of the target version with ICU.",
        why="Without it the server cannot compare text as these want it.",
        side=Side.BLUE,
        moments=Moment.CREATION,
        extent=Extent.DATABASE,
        look=_needs_icu,
    ),
)
