"""From what roles were and are on the source, and are on the target: the statements that make the target follow.

Pure. What was changed on the source since the last look is changed on the target too, whatever it says there; what was
not changed on the source is left as it is, so that what somebody did to green on purpose stays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, LiteralString, TypeVar

import msgspec
from psycopg import sql

from verdigris.engines.postgres import config
from verdigris.engines.postgres.carrying.role_state import (
    PUBLIC,
    Membership,
    Privilege,
    Role,
    RoleSetting,
    State,
)

K = TypeVar("K")
V = TypeVar("V")

# Settings whose value is a list of names, each quoted by itself (GUC_LIST_QUOTE; extensions may have none). pg_dump has
# the same list (variable_is_guc_list_quote).
_LISTS: Final = frozenset(
    {
        "local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries",
        "temp_tablespaces", "unix_socket_directories",
    }
)  # fmt: skip

_FLAGS: Final[Mapping[str, tuple[LiteralString, LiteralString]]] = {
    "superuser": ("SUPERUSER", "NOSUPERUSER"),
    "inherit": ("INHERIT", "NOINHERIT"),
    "createrole": ("CREATEROLE", "NOCREATEROLE"),
    "createdb": ("CREATEDB", "NOCREATEDB"),
    "login": ("LOGIN", "NOLOGIN"),
    "replication": ("REPLICATION", "NOREPLICATION"),
    "bypassrls": ("BYPASSRLS", "NOBYPASSRLS"),
}


def differences(before: Mapping[K, V], now: Mapping[K, V], there: Mapping[K, V]) -> tuple[dict[K, V], list[K]]:
    """What is new or other on the source and not yet so on the target; and what is gone from the source only."""
    changed = {key: value for key, value in now.items() if before.get(key) != value and there.get(key) != value}
    return changed, [key for key in before if key not in now and key in there]


# ---------------------------------------------------------------------------------------------------------------- roles


def new_names(before: State, now: State) -> dict[str, str]:
    """What the roles of before are called after the ``renamings``, where that is another name."""
    names = {role.oid: role.name for role in now.roles}
    taken = set(names.values())
    found = {}
    for role in before.roles:
        name = names.get(role.oid, aside(role) if role.name in taken else role.name)
        if name != role.name:
            found[role.name] = name
    return found


def dropped(before: State, now: State) -> list[Role]:
    oids = {role.oid for role in now.roles}
    return [role for role in before.roles if role.oid not in oids]


def aside(role: Role) -> str:
    """What a role is called for the moment in which its name is somebody else's."""
    return f"verdigris_aside_{role.oid}"


def renamings(before: State, now: State, there: Iterable[str]) -> list[tuple[str, str]]:
    """In an order in which no name is taken: whoever has a name that another role of the source has now steps aside."""
    present = set(there)
    target_names = {role.oid: role.name for role in now.roles}
    taken = {role.name: role.oid for role in now.roles}
    steps, later = [], []
    for role in before.roles:
        if role.name not in present:
            continue
        wanted = target_names.get(role.oid)
        if wanted == role.name or (wanted is None and role.name not in taken):
            continue
        # Directly only if nobody on the target has the name, not even for the moment.
        if wanted is not None and wanted not in present:
            steps.append((role.name, wanted))
        else:
            steps.append((role.name, aside(role)))
            if wanted is not None:
                later.append((aside(role), wanted))
    return steps + later


def rename(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER ROLE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))


def role_statements(
    before: Mapping[int, Role], role: Role, verifier: str | None, *, exists: bool, renamed: bool = False
) -> Iterator[sql.Composed]:
    """Make or alter one role: only what was changed on the source. ``verifier``: of the password it has there now."""
    was = before.get(role.oid) if exists else None
    name = sql.Identifier(role.name)
    options: list[sql.Composable] = [
        sql.SQL(yes if getattr(role, flag) else no)
        for flag, (yes, no) in _FLAGS.items()
        if was is None or getattr(role, flag) != getattr(was, flag)
    ]
    if was is None or was.connection_limit != role.connection_limit:
        options.append(sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(role.connection_limit)))
    if role.valid_until is not None and (was is None or was.valid_until != role.valid_until):
        options.append(sql.SQL("VALID UNTIL {}").format(sql.Literal(role.valid_until)))
    # A renaming on the target takes a password that is an MD5 hash away, as it did on the source.
    if was is None or was.password != role.password or renamed:
        options.append(sql.SQL("PASSWORD {}").format(sql.SQL("NULL") if verifier is None else sql.Literal(verifier)))
    if not exists:
        yield sql.SQL("CREATE ROLE {}").format(name)
    if options:
        yield sql.SQL("ALTER ROLE {} ").format(name) + sql.SQL(" ").join(options)
    if (was.comment if was else None) != role.comment:
        yield _comment("ROLE", role.name, role.comment)


def _comment(kind: LiteralString, name: str, comment: str | None) -> sql.Composed:
    text = sql.SQL("NULL") if comment is None else sql.Literal(comment)
    return sql.SQL("COMMENT ON " + kind + " {} IS {}").format(sql.Identifier(name), text)


# ---------------------------------------------------------------------------------------------------------- memberships

MembershipKey = tuple[str, str, str]


def by_grant(memberships: Iterable[Membership]) -> dict[MembershipKey, Membership]:
    return {(item.role, item.member, item.grantor): item for item in memberships}


def revocation(key: MembershipKey) -> sql.Composed:
    """CASCADE: what depends on it is gone from the source as well, or is granted again."""
    role, member, grantor = (sql.Identifier(name) for name in key)
    return sql.SQL("REVOKE {} FROM {} GRANTED BY {} CASCADE").format(role, member, grantor)


def in_grantable_order(grants: Sequence[Membership], present: Iterable[Membership]) -> list[Membership]:
    """A grantor needs the ADMIN option first, unless it is the first superuser. What can never be comes last, for the
    server to say why."""
    administrators = {(item.role, item.member) for item in present if item.admin}
    ordered: list[Membership] = []
    waiting = list(grants)
    while waiting:
        ready = [
            item for item in waiting if item.grantor == config.ADMIN_ROLE or (item.role, item.grantor) in administrators
        ]
        if not ready:
            return ordered + waiting
        ordered += ready
        administrators |= {(item.role, item.member) for item in ready if item.admin}
        waiting = [item for item in waiting if item not in ready]
    return ordered


def grant(item: Membership, *, options: bool) -> sql.Composed:
    """``options``: whether the server that grants knows INHERIT and SET."""
    with_options: LiteralString = "WITH ADMIN OPTION" if item.admin else ""
    if options:
        parts: list[LiteralString] = [f"ADMIN {_truth(item.admin)}"]
        if item.inherit is not None:
            parts.append(f"INHERIT {_truth(item.inherit)}")
        if item.set is not None:
            parts.append(f"SET {_truth(item.set)}")
        with_options = "WITH " + ", ".join(parts)
    role, member, grantor = (sql.Identifier(name) for name in (item.role, item.member, item.grantor))
    return sql.SQL("GRANT {} TO {} {} GRANTED BY {}").format(role, member, sql.SQL(with_options), grantor)


def _truth(value: bool) -> LiteralString:
    return "TRUE" if value else "FALSE"


# ------------------------------------------------------------------------------------------------ databases, privileges


def database_statements(before: State, now: State, there: State) -> Iterator[sql.Composed]:
    was = {item.name: item for item in before.databases}
    present = {item.name for item in there.databases}
    for item in now.databases:
        old = was.get(item.name)
        if old is None or item.name not in present:
            continue  # made or renamed since: not for us to carry
        name = sql.Identifier(item.name)
        if old.owner != item.owner:
            yield sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, sql.Identifier(item.owner))
        if old.connection_limit != item.connection_limit:
            limit = sql.Literal(item.connection_limit)
            yield sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}").format(name, limit)
        if old.comment != item.comment:
            yield _comment("DATABASE", item.name, item.comment)


def under_new_owners(before: State, now: State) -> list[Privilege]:
    """Privileges of before, as a change of a database's owner has left them: the new one stands for the old one
    (``aclnewowner``)."""
    owners = {item.name: item.owner for item in now.databases}
    old_owners = {item.name: item.owner for item in before.databases}

    def of(item: Privilege, role: str) -> str:
        changed = item.kind == "DATABASE" and role == old_owners.get(item.object)
        return owners.get(item.object, role) if changed else role

    return [
        msgspec.structs.replace(item, grantee=of(item, item.grantee), grantor=of(item, item.grantor))
        for item in before.privileges
    ]


PrivilegeKey = tuple[str, str, str, str, str]


def by_privilege(privileges: Iterable[Privilege], databases: Iterable[str]) -> dict[PrivilegeKey, Privilege]:
    """Those on settings, and on these databases."""
    known = set(databases)
    return {
        (item.kind, item.object, item.grantee, item.grantor, item.privilege): item
        for item in privileges
        if item.kind != "DATABASE" or item.object in known
    }


def privilege_statements(
    before: Mapping[PrivilegeKey, Privilege],
    now: Mapping[PrivilegeKey, Privilege],
    there: Mapping[PrivilegeKey, Privilege],
) -> Iterator[sql.Composed]:
    """GRANT and REVOKE speak for the current role, so each is said by the one that said it on the source."""
    changed, gone = differences(before, now, there)
    weaker = [key for key, item in changed.items() if key in there and not item.grantable]
    for keys, what in ((gone, "REVOKE {privilege}"), (weaker, "REVOKE GRANT OPTION FOR {privilege}")):
        for key in keys:
            yield _as_role(key[3])
            yield _on(key, what + " ON {kind} {object} FROM {grantee} CASCADE")
    # Who may pass a privilege on is given it before those who were given it by him.
    for key, item in sorted(changed.items(), key=lambda pair: not pair[1].grantable):
        yield _as_role(key[3])
        option: LiteralString = " WITH GRANT OPTION" if item.grantable else ""
        yield _on(key, "GRANT {privilege} ON {kind} {object} TO {grantee}" + option)
    if gone or changed:
        yield sql.SQL("RESET ROLE").format()


def _as_role(name: str) -> sql.Composed:
    return sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(name))


def _on(key: PrivilegeKey, statement: LiteralString) -> sql.Composed:
    kind, name, grantee, _, privilege = key
    words: dict[str, LiteralString] = {
        "CREATE": "CREATE", "TEMPORARY": "TEMPORARY", "CONNECT": "CONNECT", "SET": "SET",
        "ALTER SYSTEM": "ALTER SYSTEM", "DATABASE": "DATABASE", "PARAMETER": "PARAMETER",
    }  # fmt: skip
    parts = name.split(".") if kind == "PARAMETER" else [name]
    return sql.SQL(statement).format(
        privilege=sql.SQL(words[privilege]),
        kind=sql.SQL(words[kind]),
        object=sql.SQL(".").join(sql.Identifier(part) for part in parts),
        grantee=sql.SQL("PUBLIC") if grantee == PUBLIC else sql.Identifier(grantee),
    )


# ------------------------------------------------------------------------------------------------------------- settings

SettingKey = tuple[str, str, str]


def by_setting(state: State, databases: Iterable[str]) -> dict[SettingKey, RoleSetting]:
    known = {*databases, PUBLIC}
    return {(item.database, item.role, item.name): item for item in state.settings if item.database in known}


def setting_statements(
    before: Mapping[SettingKey, RoleSetting],
    now: Mapping[SettingKey, RoleSetting],
    there: Mapping[SettingKey, RoleSetting],
) -> Iterator[sql.Composed]:
    changed, gone = differences(before, now, there)
    for key in gone:
        yield _whose(key) + sql.SQL("RESET {}").format(_setting_name(key[2]))
    for key, item in changed.items():
        yield _whose(key) + sql.SQL("SET {} TO {}").format(_setting_name(key[2]), _setting_value(item))


def _whose(key: SettingKey) -> sql.Composed:
    database, role, _ = key
    if role == PUBLIC and database != PUBLIC:
        return sql.SQL("ALTER DATABASE {} ").format(sql.Identifier(database))
    who = sql.SQL("ALL") if role == PUBLIC else sql.Identifier(role)
    where = sql.SQL("") if database == PUBLIC else sql.SQL("IN DATABASE {} ").format(sql.Identifier(database))
    return sql.SQL("ALTER ROLE {} {}").format(who, where)


def _setting_name(name: str) -> sql.Composed:
    return sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))


def _setting_value(item: RoleSetting) -> sql.Composable:
    if item.name.lower() not in _LISTS:
        return sql.Literal(item.value)
    return sql.SQL(", ").join(sql.Literal(part) for part in split_list(item.value) or [""])


def split_list(value: str) -> list[str]:
    """The elements of a list of names as PostgreSQL keeps it: ``"$user", public``."""
    parts: list[str] = []
    rest = value.strip()
    while rest:
        if rest.startswith('"'):
            end = 1
            while (end := rest.index('"', end)) + 1 < len(rest) and rest[end + 1] == '"':
                end += 2
            parts.append(rest[1:end].replace('""', '"'))
            rest = rest[end + 1 :].lstrip()
        else:
            part, comma, rest = rest.partition(",")
            parts.append(part.strip())
            rest = comma + rest
        rest = rest.removeprefix(",").lstrip()
    return parts


def with_pending(now: State, pending: Sequence[Role]) -> State:
    """What to remember, if ``pending`` are roles that are gone from the source and still on the target."""
    return msgspec.structs.replace(now, roles=[*now.roles, *pending])
