"""Roles, memberships, settings of roles and databases, privileges on databases and parameters: what was changed on the
source since the last look. ``pg_dumpall --globals-only`` would write it, and no replication carries it.

What was changed on the source is changed on the target, and nothing else: what an operator did to green's roles on
purpose stays, until the source changes the same thing. So the state of the source that the target has is kept on the
target, and written in the transaction that applies the next one. The digest of that state answers the usual question,
whether anything has changed, in one statement.
"""

from collections.abc import Iterable

import structlog
from psycopg import errors, sql

from verdigris.domain.errors import StepFailed
from verdigris.engines.postgres.carrying import role_changes
from verdigris.engines.postgres.carrying.role_state import Role, State, decode, encode, read_digest, read_state
from verdigris.engines.postgres.names import ObjectNames
from verdigris.engines.postgres.remembered import remember
from verdigris.engines.postgres.roles import keep_administration, read_verifiers, unseen
from verdigris.engines.postgres.sessions import Session, both

log = structlog.get_logger(__name__)

# Until then CREATEROLE alone let a role administer others: see keep_administration.
_ADMIN_OPTION_SINCE = 160000


async def take(copy: Session, names: ObjectNames) -> None:
    """On the copy, which has the source's roles as they were when its stream begins."""
    digest, state = await read_state(copy)
    row = sql.SQL("SELECT {} AS digest, {} AS state").format(sql.Literal(digest), sql.Literal(encode(state)))
    await remember(copy, _table(names), row)


async def carry(source: Session, target: Session, names: ObjectNames, *, master: str) -> list[str]:
    """On sessions in the maintenance database. Returns what stays to be done, a sentence each: a role that was dropped
    on the source and still owns something on the target is tried again the next time.

    ``master`` administers roles that were made under a version before 16.
    """
    stored = sql.SQL("SELECT digest FROM {}").format(_table(names))
    now, then = await both(read_digest(source), target.value(stored))
    if now == then:
        return []
    pending = await _follow(source, target, names, master)
    return [f"Role {role.name} was dropped on blue and still owns something on green." for role in pending]


async def carry_finally(source: Session, target: Session, names: ObjectNames, *, master: str) -> None:
    """Behind the fence. Raises ``StepFailed`` if green cannot be given what blue has."""
    if undone := await carry(source, target, names, master=master):
        raise StepFailed(" ".join(undone))


async def _follow(source: Session, target: Session, names: ObjectNames, master: str) -> list[Role]:
    digest, now = await read_state(source)
    verifiers = await read_verifiers(source, [role.name for role in now.roles])
    async with unseen(target), target.transaction():
        stored = sql.SQL("SELECT state FROM {} FOR UPDATE").format(_table(names))
        before = decode(await target.value(stored))
        before, pending = await _follow_roles(target, before, now, verifiers)
        await _run(target, role_changes.database_statements(before, now, await _present(target)))
        await _follow_memberships(target, before, now)
        if source.info.server_version < _ADMIN_OPTION_SINCE <= target.info.server_version:
            await keep_administration(target, master)
        await _follow_settings_and_privileges(target, before, now)
        pending = await _drop(target, pending)
        await target.run(
            sql.SQL("UPDATE {} SET digest = {}, state = {}").format(
                _table(names),
                sql.Literal("" if pending else digest),
                sql.Literal(encode(role_changes.with_pending(now, pending))),
            )
        )
    log.info("roles.carried", deployment=names.base, roles=len(now.roles), pending=[role.name for role in pending])
    return pending


async def _follow_roles(
    target: Session, before: State, now: State, verifiers: dict[str, str]
) -> tuple[State, list[Role]]:
    """Names, then roles themselves. Returns what was before under the names of now, and the roles that are to go."""
    there = await _present(target)
    steps = role_changes.renamings(before, now, [role.name for role in there.roles])
    await _run(target, (role_changes.rename(old, new) for old, new in steps))
    before = before.renamed(role_changes.new_names(before, now))
    was = {role.oid: role for role in before.roles}
    moved = {new for _, new in steps}
    present = {role.name for role in (await _present(target)).roles}
    for role in now.roles:
        if was.get(role.oid) == role and role.name not in moved and role.name in present:
            continue
        exists, renamed = role.name in present, role.name in moved
        statements = role_changes.role_statements(was, role, verifiers.get(role.name), exists=exists, renamed=renamed)
        await _run(target, statements)
    return before, role_changes.dropped(before, now)


async def _follow_memberships(target: Session, before: State, now: State) -> None:
    was, wanted = role_changes.by_grant(before.memberships), role_changes.by_grant(now.memberships)
    there = role_changes.by_grant((await _present(target)).memberships)
    changed, gone = role_changes.differences(was, wanted, there)
    await _run(target, (role_changes.revocation(key) for key in gone))
    left = (await _present(target)).memberships if gone else list(there.values())
    lost = there.keys() - role_changes.by_grant(left).keys()
    grants = [item for key, item in wanted.items() if key in changed or key in lost]
    options = target.info.server_version >= _ADMIN_OPTION_SINCE
    ordered = role_changes.in_grantable_order(grants, left)
    await _run(target, (role_changes.grant(item, options=options) for item in ordered))


async def _follow_settings_and_privileges(target: Session, before: State, now: State) -> None:
    there = await _present(target)
    databases = {item.name for item in there.databases} & {item.name for item in before.databases}
    settings = (role_changes.by_setting(state, databases) for state in (before, now, there))
    await _run(target, role_changes.setting_statements(*settings))
    privileges = (role_changes.under_new_owners(before, now), now.privileges, there.privileges)
    changes = (role_changes.by_privilege(items, databases) for items in privileges)
    await _run(target, role_changes.privilege_statements(*changes))


async def _drop(target: Session, roles: list[Role]) -> list[Role]:
    """Those that cannot be dropped: what they own, or may do, on the target was not taken from them yet."""
    pending = []
    present = {role.name for role in (await _present(target)).roles} if roles else set()
    for role in roles:
        if role.name not in present:
            continue
        try:
            async with target.transaction():
                await target.run(sql.SQL("DROP ROLE {}").format(sql.Identifier(role.name)))
        except (errors.DependentObjectsStillExist, errors.ObjectInUse):
            pending.append(role)
    return pending


async def _present(target: Session) -> State:
    _, state = await read_state(target)
    return state


async def _run(target: Session, statements: Iterable[sql.Composed]) -> None:
    for statement in statements:
        await target.run(statement)


def _table(names: ObjectNames) -> sql.Identifier:
    return sql.Identifier(names.schema, "roles")
