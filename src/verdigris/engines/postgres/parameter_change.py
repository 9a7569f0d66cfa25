"""Giving a running server other parameters, and finding out what it makes of them."""

from collections.abc import Collection, Mapping

from verdigris.domain.errors import EngineError
from verdigris.domain.parameters import ApplyStatus
from verdigris.engines.postgres.server import PostgresServer
from verdigris.engines.postgres.sessions import session, until

_POLL_S = 0.005

# pg_file_settings reads the files as they are now, and so tells what a reload would say before there is one. Of what is
# read at the start only, it says the same of a wrong value and of one that must wait: those are all numbers, words from
# a list and switches, whose values were checked when the group was changed.
_REFUSED = """
    SELECT f.name FROM pg_file_settings f JOIN pg_settings s ON lower(s.name) = lower(f.name)
     WHERE f.name = ANY(%s) AND f.error IS NOT NULL AND s.context <> 'postmaster'
    UNION ALL
    SELECT error FROM pg_file_settings WHERE name IS NULL
"""
_PENDING = "SELECT coalesce(bool_or(pending_restart), false) FROM pg_settings WHERE name = ANY(%s)"


async def change_parameters(
    server: PostgresServer, parameters: Mapping[str, str], *, deferred: Collection[str] = ()
) -> ApplyStatus:
    """All values of a parameter group; those ``deferred`` stay as they are until this is called without.

    A value that the server itself refuses (``EngineError`` names the parameter) leaves everything as it was: in the
    files it would keep the server from starting again.
    """
    before = server.record.parameters
    now = {name: value for name, value in parameters.items() if name not in deferred}
    now |= {name: before[name] for name in deferred if name in before}
    server.set_parameters(now)
    pending = now != dict(parameters)
    if server.is_running():
        try:
            pending = await _load(server, [*before, *now]) or pending
        except EngineError:
            server.set_parameters(before)
            raise
    return ApplyStatus.PENDING_REBOOT if pending else ApplyStatus.IN_SYNC


async def _load(server: PostgresServer, names: list[str]) -> bool:
    """Whether a restart is needed."""
    async with session(server) as connection:
        refused = [str(row[0]) for row in await connection.rows(_REFUSED, names)]
        if refused:
            raise EngineError(f"{server.resource_id} refuses the values of: {', '.join(refused)}")
        loaded_at = await connection.value("SELECT pg_conf_load_time()")
    server.reload()

    async def is_loaded() -> bool:
        # Of a new session: it has what the postmaster has.
        async with session(server) as connection:
            return bool(await connection.value("SELECT pg_conf_load_time() > %s", loaded_at))

    await until(is_loaded, every_s=_POLL_S)
    async with session(server) as connection:
        return bool(await connection.value(_PENDING, names))
