"""Keeping everybody but ourselves out of a source, and letting them in again without a trace.

The fence is another ``pg_hba.conf``: on disk, so it survives every crash, and in one place, so it can be seen. The
original waits beside it as a hard link, and comes back as the same file.

Sealed, it lets nobody in at all, for the internal superuser's password is on this machine and a script of its operator
may use it: what was written to a source then would be lost. Our own sessions are opened beforehand. To lift a fence
takes none.

An extension's worker asks no ``pg_hba.conf``: once ended, the server begins it again. Where there may be one, the
source is read-only as well, on disk too: what begins behind the fence finds it so.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection
from pathlib import Path

import structlog

from verdigris.domain.errors import EngineError
from verdigris.domain.undoing import to_its_end
from verdigris.engines.account import sync_directory
from verdigris.engines.postgres import config, own_sessions
from verdigris.engines.postgres.backends import may_begin_by_themselves
from verdigris.engines.postgres.names import READ_ONLY
from verdigris.engines.postgres.probe import Admission, admission
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import Session, session, until

log = structlog.get_logger(__name__)

_ASIDE = "pg_hba.conf.verdigris-unfenced"
# A standby streams on; it writes nothing.
_SEALED_HBA = f"""\
# Written by Verdigris for the length of a switchover; the original is {_ASIDE}.
local  replication  {config.ADMIN_ROLE}  scram-sha-256
"""
_FENCED_HBA = f"""\
{_SEALED_HBA}\
local  all          {config.ADMIN_ROLE}  scram-sha-256
"""
# A placeholder setting that remembers, across any crash, what READ_ONLY was before the fence.
READ_ONLY_BEFORE = "verdigris.read_only_before_fence"
_NOT_SET = "not set"
_POLL_S = 0.002
_GENTLE_POLL_S = 0.05
_GENTLE_MIN, _GENTLE_ROUNDS = 8, 100
_LIFTED_WITHIN_S = 2.0

# Kinds of processes that write nothing of a client's (pg_stat_activity.backend_type). Everything else with a database
# of its own is a client, works for one, or is an extension's worker.
_HARMLESS = (
    "archiver", "autovacuum launcher", "autovacuum worker", "background writer", "checkpointer", "io worker",
    "logical replication launcher", "slotsync worker", "startup", "walreceiver", "walsender", "walsummarizer",
    "walwriter",
)  # fmt: skip

# A session that the router has parked may stay, unless it holds a transaction that has written. What works under the
# internal superuser's name is either ours or an operator's, or applies what a subscription brings.
_OTHERS = """
    SELECT pid, pid = ANY(%(kept)s) AS kept, concat_ws(' ', backend_type, pid, 'of ' || usename)
      FROM pg_stat_activity
     WHERE pid <> pg_backend_pid()
       AND CASE WHEN usename <> %(ours)s THEN pid <> ALL(%(kept)s) OR backend_xid IS NOT NULL
                WHEN usename = %(ours)s THEN backend_type <> ALL(%(harmless)s)
                                             AND application_name IS DISTINCT FROM %(own)s
                ELSE datid IS NOT NULL AND backend_type <> ALL(%(harmless)s) END
"""


async def close(source: PostgresServer, *, seal: bool = False) -> None:
    """The first half, which ends nobody: return when nobody can come in any more, or with ``seal`` not even ourselves.

    A reload reaches every server process, and each reads its configuration again when its client next says something:
    this half is the longer one with many sessions, and best done while they still flow. Cancelled or failed half-way,
    it is lifted again.
    """
    try:
        _close_on_disk(source, _SEALED_HBA if seal else _FENCED_HBA)
        source.reload()
        await until(lambda: _refuses(source), every_s=_POLL_S)
    except BaseException:
        await to_its_end(lift(source))
        raise
    log.info("source.closed", source=source.resource_id, sealed=seal)


async def unseal(source: PostgresServer) -> None:
    """Let ourselves in again, and nobody else. Does nothing where there is no fence."""
    if not is_raised(source):
        return
    _close_on_disk(source, _FENCED_HBA)
    source.reload()
    await until(lambda: _admits_ourselves(source), every_s=_POLL_S)


async def raise_fence(source: PostgresServer, keep: Collection[int], *, closed: bool = False) -> None:
    """Return when nobody can come in any more and nobody is left but ``keep`` and ourselves. ``closed``: by ``close``,
    and not lifted since.

    Cancelled or failed half-way, it is lifted again.
    """
    if not (closed and _is_closed_on_disk(source)):
        await close(source)
    try:
        await _make_read_only(source)
        await clear(source, keep)
    except BaseException:
        await to_its_end(lift(source))
        raise
    log.info("source.fenced", source=source.resource_id, kept=len(keep))


async def clear(source: PostgresServer, keep: Collection[int], *, gently: bool = False) -> None:
    """Behind a fence: end everybody but ``keep`` and ourselves, and return when they are gone.

    ``gently``: a few at a time. The end of a server process takes more than a millisecond of a processor, and thousands
    at once would take it from whoever works on the same machine.
    """
    async with session(source) as connection:
        await until(lambda: _cleared(connection, source, keep, gently), every_s=_GENTLE_POLL_S if gently else _POLL_S)


async def newcomers(connection: Session, keep: Collection[int]) -> list[str]:
    """Who is there though the fence is complete: what the server starts by itself asks no ``pg_hba.conf``, such as an
    extension's worker that has been ended and is begun again. The kept ones may be in the middle of their handover."""
    return [name for _, is_kept, name in await _others(connection, keep) if not is_kept]


def is_raised(source: PostgresServer) -> bool:
    """Whether there is anything to lift. The files tell, also those of a server that does not run: it would start
    fenced."""
    return (source.data_dir / _ASIDE).exists()


async def lift(source: PostgresServer) -> None:
    """The original file in its place again and in effect. Does nothing where there is no fence.

    The original goes from beside its place only when the server has been told: a control plane that dies before that
    leaves a fence which can be seen.
    """
    aside, hba = source.data_dir / _ASIDE, source.data_dir / "pg_hba.conf"
    if not aside.exists():
        return
    _make_writable(source)
    if not aside.samefile(hba):  # else closing was interrupted after the link, or lifting before its end
        back = source.data_dir / f"{_ASIDE}.back"
        with source.control.effect():
            back.unlink(missing_ok=True)
            os.link(aside, back)
            back.rename(hba)
            sync_directory(source.data_dir)
    with contextlib.suppress(EngineError):  # there is none, and the next one reads the file
        source.reload()  # also one that is only starting: it may have read the fence
    if source.is_running():
        try:
            async with asyncio.timeout(_LIFTED_WITHIN_S):
                await until(lambda: _admits(source), every_s=_POLL_S)
        except TimeoutError:
            # The file is back and the server was told. A frozen one follows when it thaws; and an operator's own rules
            # may refuse strangers.
            log.warning("source.unfencing_unseen", source=source.resource_id)
    with source.control.effect():
        aside.unlink(missing_ok=True)
        sync_directory(source.data_dir)
    log.info("source.unfenced", source=source.resource_id)


async def _make_read_only(source: PostgresServer) -> None:
    """Before anybody is ended: what the server begins instead is to find it so. Only where that may happen, for a
    reload costs each parked session half a millisecond of the pause."""
    async with session(source) as connection:
        if not await may_begin_by_themselves(connection):
            return
        settings = source.read_settings()
        before = settings.get(READ_ONLY_BEFORE) or settings.get(READ_ONLY, _NOT_SET)
        source.change_settings({READ_ONLY: "on", READ_ONLY_BEFORE: before})
        source.reload()
        # A session learns of it after the postmaster, and whom that begins from then on inherits it.
        shown = "SELECT current_setting(%s, true) IS NOT DISTINCT FROM %s"
        await until(lambda: connection.value(shown, READ_ONLY_BEFORE, before), every_s=_POLL_S)
    log.info("source.read_only", source=source.resource_id)


def _make_writable(source: PostgresServer) -> None:
    """As it was before the fence. One that has been retired meanwhile stays as it is."""
    before = source.read_settings().get(READ_ONLY_BEFORE)
    if before is not None:
        source.change_settings({READ_ONLY: None if before == _NOT_SET else before, READ_ONLY_BEFORE: None})


def _is_closed_on_disk(source: PostgresServer) -> bool:
    written = (source.data_dir / "pg_hba.conf").read_text()
    return (source.data_dir / _ASIDE).exists() and written in (_SEALED_HBA, _FENCED_HBA)


def _close_on_disk(source: PostgresServer, rules: str) -> None:
    aside, hba = source.data_dir / _ASIDE, source.data_dir / "pg_hba.conf"
    with source.control.effect():
        if not aside.exists():
            os.link(hba, aside)
            sync_directory(source.data_dir)
        source.account.write_file(hba, rules)


async def _refuses(source: PostgresServer) -> bool:
    return await admission(source.address.socket_path) is Admission.REFUSED


async def _admits(source: PostgresServer) -> bool:
    return await admission(source.address.socket_path) is Admission.ADMITTED


async def _admits_ourselves(source: PostgresServer) -> bool:
    try:
        await (await Session.open(source)).close()  # a kept one would prove nothing
    except EngineError:
        return False
    return True


async def _cleared(connection: Session, source: PostgresServer, keep: Collection[int], gently: bool) -> bool:
    """Ask everyone who should not be there to end; whether nobody was."""
    rows = await _others(connection, keep)
    strangers = _entering(source, {*keep, *(pid for pid, _, _ in rows)})
    # A parked session that still writes is waited for: its transaction is its client's to end.
    others = [pid for pid, is_kept, _ in rows if not is_kept]
    if gently:
        others = others[: max(_GENTLE_MIN, len(others) // _GENTLE_ROUNDS)]
    await connection.run("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) pid", others)
    for pid in strangers:
        with source.control.effect(), contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return not rows and not strangers


async def _others(connection: Session, keep: Collection[int]) -> list[tuple[int, bool, str]]:
    known = {"ours": config.ADMIN_ROLE, "own": own_sessions.APPLICATION_NAME, "harmless": [*_HARMLESS]}
    return await (await connection.execute(_OTHERS, {"kept": list(keep), **known})).fetchall()


def _entering(source: PostgresServer, known: Collection[int]) -> list[int]:
    """Server processes that have not logged in yet, which those ``known`` have. They were forked with the old
    pg_hba.conf in their memory, and up to 17 no view shows them; one that dawdles over its password could enter a
    minute after the fence."""
    postmaster = source.pid()
    if postmaster is None:
        return []
    return [pid for pid in _children(postmaster) if pid not in known and _is_entering(pid)]


def _children(pid: int) -> list[int]:
    text = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for child in text.split()]


def _is_entering(pid: int) -> bool:
    """By the process's title: the postmaster's own command line until the startup packet is read, then these words."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").rstrip()
    except OSError:
        return False
    if not title:
        return False
    return not title.startswith(b"postgres:") or title.endswith((b" authentication", b" initializing"))
