"""Passwords changed on the source since its target was made: roles do not replicate logically.

Only verifiers travel, and our sessions log no statements. Everything else about roles is compared, not carried: see
:mod:`verdigris.engines.postgres.fingerprint`.
"""

import asyncio

from psycopg import sql

from verdigris.engines.postgres import config
from verdigris.engines.postgres.roles import set_password
from verdigris.engines.postgres.sessions import Session

_VERIFIERS = sql.SQL(
    "SELECT rolname, rolpassword FROM pg_authid WHERE rolname <> %s AND NOT starts_with(rolname, 'pg_')"
)


async def carry_passwords(source: Session, target: Session) -> int:
    """Give the target's roles the source's passwords; how many had another. Roles that it lacks are left out."""
    wanted, present = await asyncio.gather(_read(source), _read(target))
    changed = {role: verifier for role, verifier in wanted.items() if role in present and present[role] != verifier}
    for role, verifier in changed.items():
        await set_password(target, role, verifier)
    return len(changed)


async def _read(connection: Session) -> dict[str, str | None]:
    return {role: verifier for role, verifier in await connection.rows(_VERIFIERS, config.ADMIN_ROLE)}  # noqa: C416 - typed
