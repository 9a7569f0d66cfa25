"""Roles and what else belongs to no database in particular, as one server has them.

Read in one statement. Of a password only a digest is in it: the state is kept in a table, and verifiers are for
``pg_authid`` alone.
"""

from collections.abc import Mapping
from typing import LiteralString

import msgspec
from msgspec import Struct
from psycopg import sql

from verdigris.engines.postgres.sessions import Session

PUBLIC = ""  # as a grantee, and "everybody" or "every database" of a setting
# What roles made by users have at least; below are the first superuser and the predefined roles.
_FIRST_USERS_OID = 16384

_MEMBER_OPTIONS_SINCE = 160000
_PARAMETER_PRIVILEGES_SINCE = 150000


class Role(Struct, frozen=True, kw_only=True):
    oid: int
    name: str
    superuser: bool
    inherit: bool
    createrole: bool
    createdb: bool
    login: bool
    replication: bool
    bypassrls: bool
    connection_limit: int
    valid_until: str | None
    password: str | None  # a digest of the verifier
    comment: str | None


class Membership(Struct, frozen=True, kw_only=True):
    """``inherit`` and ``set``: None before 16, where they did not exist and the grantor meant nothing."""

    role: str
    member: str
    grantor: str
    admin: bool
    inherit: bool | None = None
    set: bool | None = None


class RoleSetting(Struct, frozen=True, kw_only=True):
    database: str
    role: str
    name: str
    value: str


class DatabaseProperties(Struct, frozen=True, kw_only=True):
    name: str
    owner: str
    connection_limit: int
    comment: str | None


class Privilege(Struct, frozen=True, kw_only=True):
    kind: str  # "DATABASE" or "PARAMETER"
    object: str
    grantee: str
    grantor: str
    privilege: str
    grantable: bool


class State(Struct, frozen=True, kw_only=True):
    roles: list[Role]
    memberships: list[Membership]
    settings: list[RoleSetting]
    databases: list[DatabaseProperties]
    privileges: list[Privilege]

    def renamed(self, names: Mapping[str, str]) -> "State":
        """The same with roles under other names."""

        def of(name: str) -> str:
            return names.get(name, name)

        replace = msgspec.structs.replace
        return State(
            roles=[replace(role, name=of(role.name)) for role in self.roles],
            memberships=[
                replace(item, role=of(item.role), member=of(item.member), grantor=of(item.grantor))
                for item in self.memberships
            ],
            settings=[replace(item, role=of(item.role)) for item in self.settings],
            databases=[replace(item, owner=of(item.owner)) for item in self.databases],
            privileges=[replace(item, grantee=of(item.grantee), grantor=of(item.grantor)) for item in self.privileges],
        )


# The rows of the catalogues as they are. timestamps follow the session's time zone: a change of it costs a second look.
_ROWS: LiteralString = """
    SELECT 'pg_authid', x::text FROM pg_authid x WHERE x.oid >= 16384
     UNION ALL SELECT 'pg_auth_members', x::text FROM pg_auth_members x
     UNION ALL SELECT 'pg_db_role_setting', x::text FROM pg_db_role_setting x
     UNION ALL SELECT 'pg_shdescription', x::text FROM pg_shdescription x
     UNION ALL SELECT 'pg_database', ROW(x.oid, x.datname, x.datdba, x.datconnlimit, x.datacl)::text FROM pg_database x
"""
_PARAMETER_ROWS: LiteralString = " UNION ALL SELECT 'pg_parameter_acl', x::text FROM pg_parameter_acl x"
_DIGEST: LiteralString = "SELECT sum(hashtextextended(kind || ' ' || line, 0))::text FROM ({rows}) AS rows (kind, line)"

_PRIVILEGES: LiteralString = """
    SELECT jsonb_build_object('kind', o.kind, 'object', o.name,
               'grantee', CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee) END,
               'grantor', pg_get_userbyid(a.grantor),
               'privilege', a.privilege_type, 'grantable', a.is_grantable) AS item
      FROM ({objects}) AS o (kind, name, acl) CROSS JOIN LATERAL aclexplode(o.acl) a
     WHERE a.grantee <> 10
"""
_DATABASES: LiteralString = (
    "SELECT 'DATABASE', datname::text, coalesce(datacl, acldefault('d', datdba)) FROM pg_database"
)
_PARAMETERS: LiteralString = " UNION ALL SELECT 'PARAMETER', parname, paracl FROM pg_parameter_acl"

# 10 is the first superuser: ours, and nobody's business. A grantor that was dropped, which before 16 was possible, and
# any grantor then, is taken for it.
_STATE: LiteralString = """
    SELECT jsonb_build_object(
        'roles', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'oid', r.oid::bigint, 'name', r.rolname, 'superuser', r.rolsuper, 'inherit', r.rolinherit,
                'createrole', r.rolcreaterole, 'createdb', r.rolcreatedb, 'login', r.rolcanlogin,
                'replication', r.rolreplication, 'bypassrls', r.rolbypassrls, 'connection_limit', r.rolconnlimit,
                'valid_until', r.rolvaliduntil::text,
                'password', encode(sha256(convert_to(r.rolpassword, 'UTF8')), 'hex'),
                'comment', shobj_description(r.oid, 'pg_authid')) ORDER BY r.oid), '[]')
            FROM pg_authid r WHERE r.oid >= 16384),
        'memberships', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'role', r.rolname, 'member', m.rolname, 'admin', x.admin_option, {options}) ORDER BY x.*), '[]')
            FROM pg_auth_members x JOIN pg_authid r ON r.oid = x.roleid JOIN pg_authid m ON m.oid = x.member
           WHERE m.oid <> 10),
        'settings', (SELECT coalesce(jsonb_agg(jsonb_build_object(
                'database', coalesce(d.datname, ''), 'role', coalesce(r.rolname, ''),
                'name', split_part(c.item, '=', 1), 'value', substr(c.item, strpos(c.item, '=') + 1))), '[]')
            FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
            LEFT JOIN pg_authid r ON r.oid = s.setrole CROSS JOIN LATERAL unnest(s.setconfig) AS c (item)
           WHERE s.setrole <> 10),
        'databases', (SELECT jsonb_agg(jsonb_build_object(
                'name', d.datname, 'owner', pg_get_userbyid(d.datdba), 'connection_limit', d.datconnlimit,
                'comment', shobj_description(d.oid, 'pg_database')))
            FROM pg_database d),
        'privileges', (SELECT coalesce(jsonb_agg(p.item), '[]') FROM ({privileges}) p)
    )::text
"""
_OPTIONS: LiteralString = "'grantor', pg_get_userbyid(x.grantor), 'inherit', x.inherit_option, 'set', x.set_option"
_NO_OPTIONS: LiteralString = "'grantor', pg_get_userbyid(10)"


def _digest_query(version: int) -> sql.Composed:
    rows = sql.SQL(_ROWS + (_PARAMETER_ROWS if version >= _PARAMETER_PRIVILEGES_SINCE else ""))
    return sql.SQL(_DIGEST).format(rows=rows)


def _state_query(version: int) -> sql.Composed:
    objects = sql.SQL(_DATABASES + (_PARAMETERS if version >= _PARAMETER_PRIVILEGES_SINCE else ""))
    return sql.SQL(_STATE).format(
        options=sql.SQL(_OPTIONS if version >= _MEMBER_OPTIONS_SINCE else _NO_OPTIONS),
        privileges=sql.SQL(_PRIVILEGES).format(objects=objects),
    )


async def read_digest(connection: Session) -> str:
    """Equal as long as nothing has changed: the short question. Only comparable on one server, and its copies."""

    async def query() -> sql.Composed:
        return _digest_query(connection.info.server_version)

    return str((await connection.rows_prepared("verdigris_role_digest", query))[0][0])


async def read_state(connection: Session) -> tuple[str, State]:
    """With the digest of the same moment."""
    version = connection.info.server_version
    query = sql.SQL("SELECT ({}), ({})").format(_digest_query(version), _state_query(version))
    [(digest, text)] = await connection.rows(query)
    return str(digest), decode(text)


def decode(text: str) -> State:
    return msgspec.json.decode(text, type=State)


def encode(state: State) -> str:
    return msgspec.json.encode(state).decode()
