"""Roles and databases of a new server, as RDS sets them up: a master user who is no superuser.

Every statement looks before it acts or says the whole truth again, so that an interrupted run is simply repeated.
"""

import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import psycopg
from psycopg import sql

from verdigris.domain.versions import PostgresVersion
from verdigris.engines.postgres.config import TOKEN_ROLE

AsyncConnection = psycopg.AsyncConnection[tuple[Any, ...]]

MASTER_GROUP = "rds_superuser"

_ADMINISTRATORS = """
    SELECT oid, rolname FROM pg_catalog.pg_roles WHERE rolcreaterole AND NOT rolsuper ORDER BY rolname <> %s, rolname
"""
# pg_has_role: whoever is a member of the administrator cannot have it as a member.
_ADMINISTERED_BEFORE_16 = """
    SELECT r.rolname, EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid AND m.member = %(oid)s)
      FROM pg_catalog.pg_roles r
     WHERE NOT r.rolsuper AND r.oid <> %(oid)s AND r.rolname !~ '^pg_'
       AND NOT pg_catalog.pg_has_role(r.oid, %(oid)s::oid, 'MEMBER')
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m
                        WHERE m.roleid = r.oid AND m.member = %(oid)s AND m.admin_option)
     ORDER BY 1
"""


def _granted_to_master_group(version: PostgresVersion) -> list[str]:
    """Predefined roles that RDS's rds_superuser has and may pass on. Left out on purpose: everything that reads or
    writes the server's files or runs programs, and pg_create_subscription, which lets a server dial out."""
    roles = ["pg_monitor", "pg_signal_backend"]
    if version.major >= 15:
        roles.append("pg_checkpoint")
    if version.major >= 17:
        roles.append("pg_maintain")
    return roles


async def set_up_roles(
    connection: AsyncConnection, version: PostgresVersion, *, master: str, verifier: str, db_name: str | None
) -> None:
    """Needs autocommit, because of CREATE DATABASE."""
    await _ensure_role(connection, MASTER_GROUP)
    group, user = sql.Identifier(MASTER_GROUP), sql.Identifier(master)
    await connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN NOSUPERUSER").format(group))
    for role in _granted_to_master_group(version):
        await connection.execute(sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(role), group))
    await _ensure_role(connection, master)
    await connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN CREATEROLE CREATEDB NOSUPERUSER NOREPLICATION NOBYPASSRLS PASSWORD {}").format(
            user, sql.Literal(verifier)
        )
    )
    await connection.execute(sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(group, user))
    await ensure_token_role(connection, version, master)
    await connection.execute(sql.SQL("ALTER DATABASE postgres OWNER TO {}").format(user))
    if db_name is not None:
        await _ensure_database(connection, db_name, master)


async def ensure_token_role(connection: AsyncConnection, version: PostgresVersion, master: str) -> None:
    """``rds_iam``, which the master user may grant: from 16 on that takes the ADMIN option, and nothing else."""
    await _ensure_role(connection, TOKEN_ROLE)
    if version.major >= 16:
        statement = "GRANT {} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE"
        await connection.execute(sql.SQL(statement).format(sql.Identifier(TOKEN_ROLE), sql.Identifier(master)))


async def keep_administration(connection: AsyncConnection, master: str) -> None:
    """After an upgrade from a version before 16, where CREATEROLE was enough to administer every role that is no
    superuser: from 16 on it takes the ADMIN option too, which pg_upgrade gives to nobody, so that a master user could
    no longer alter the roles that it made. Grants that option, and nothing that comes with being a member.

    The master user comes first, because membership cannot go round in a circle: where two roles administered each
    other, one of them still does.
    """
    administrators = await (await connection.execute(_ADMINISTRATORS, (master,))).fetchall()
    for oid, administrator in administrators:
        # One after the other: what the first is granted decides what the next can be.
        for role, is_member in await (await connection.execute(_ADMINISTERED_BEFORE_16, {"oid": oid})).fetchall():
            # Who is a member already goes on inheriting, or not, as before.
            options = sql.SQL("ADMIN TRUE" if is_member else "ADMIN TRUE, INHERIT FALSE, SET FALSE")
            await connection.execute(
                sql.SQL("GRANT {} TO {} WITH {}").format(sql.Identifier(role), sql.Identifier(administrator), options)
            )


async def set_password(connection: AsyncConnection, role: str, verifier: str | None) -> None:
    async with unseen(connection):
        await connection.execute(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
        )


@contextlib.asynccontextmanager
async def unseen(connection: AsyncConnection) -> AsyncIterator[None]:
    """For statements that hold what a verifier is made of: members of pg_monitor read everybody's statements, in
    pg_stat_activity and, where that is loaded, in pg_stat_statements. Needs autocommit."""
    await connection.execute("SET track_activities = off; SET pg_stat_statements.track_utility = off")
    try:
        yield
    finally:
        await connection.execute("RESET track_activities; RESET pg_stat_statements.track_utility")


async def read_verifiers(connection: AsyncConnection, roles: Collection[str]) -> dict[str, str]:
    """Stored password verifiers, by role. Roles without one are absent."""
    cursor = await connection.execute(
        "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = ANY(%s) AND rolpassword IS NOT NULL",
        [list(roles)],
    )
    return {str(role): str(verifier) for role, verifier in await cursor.fetchall()}


async def _ensure_role(connection: AsyncConnection, name: str) -> None:
    cursor = await connection.execute("SELECT FROM pg_catalog.pg_roles WHERE rolname = %s", (name,))
    if await cursor.fetchone() is None:
        await connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))


async def _ensure_database(connection: AsyncConnection, name: str, owner: str) -> None:
    cursor = await connection.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (name,))
    if await cursor.fetchone() is None:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(owner))
        )


async def extensions_in_use(connection: AsyncConnection) -> frozenset[str]:
    """Of the connection's database."""
    cursor = await connection.execute("SELECT extname FROM pg_catalog.pg_extension")
    return frozenset(str(name) for (name,) in await cursor.fetchall())


async def connectable_databases(connection: AsyncConnection) -> list[str]:
    cursor = await connection.execute("SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY datname")
    return [str(name) for (name,) in await cursor.fetchall()]
