"""What there is on a server and on the host, for comparison: whatever fails or is deleted leaves nothing behind.

An inventory is a mapping from a kind of thing to the sorted things of that kind, so that a failed comparison names
what is too much or too little.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg.conninfo import make_conninfo

from tests.acceptance.installation import Installation
from tests.conftest import processes_of

Inventory = dict[str, list[str]]

SETTLE_LIMIT_S = 20.0

# Of the whole server.
_SHARED: dict[str, str] = {
    "slots": "SELECT slot_name FROM pg_replication_slots",
    "roles": "SELECT to_jsonb(r) - 'oid' FROM pg_roles r",
    "passwords": "SELECT rolname || ' ' || md5(coalesce(rolpassword, '')) FROM pg_authid",
    "memberships": "SELECT roleid::regrole || ' has ' || member::regrole FROM pg_auth_members",
    "databases": "SELECT concat_ws(' ', datname, datconnlimit, datacl) FROM pg_database",
    "settings of roles and databases": "SELECT to_jsonb(s) FROM pg_db_role_setting s",
    "settings": "SELECT name || ' = ' || setting || ' pending ' || pending_restart FROM pg_settings"
    " WHERE source NOT IN ('client', 'session') AND name NOT LIKE 'transaction%'",
    "settings in files": "SELECT name || ' = ' || setting || ' ' || applied FROM pg_file_settings",
    "hba rules": "SELECT concat_ws(' ', type, database, user_name, address, auth_method, error) FROM pg_hba_file_rules",
    "replication origins": "SELECT roname FROM pg_replication_origin",
    "prepared transactions": "SELECT gid FROM pg_prepared_xacts",
    "advisory locks": "SELECT to_jsonb(l) - 'pid' FROM pg_locks l WHERE locktype = 'advisory'",
    "our sessions": "SELECT concat_ws(' ', backend_type, application_name) FROM pg_stat_activity"
    " WHERE (usename = 'rdsadmin' OR backend_type IN ('walsender', 'walreceiver', 'logical replication apply worker'))"
    "   AND backend_type <> 'logical replication launcher' AND pid <> pg_backend_pid()",
}

_CONTROL_PLANE = "client backend verdigris"

# Of each database.
_LOCAL: dict[str, str] = {
    "publications": "SELECT pubname FROM pg_publication",
    "subscriptions": "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
    " WHERE d.datname = current_database()",
    "schemas": "SELECT concat_ws(' ', nspname, nspacl) FROM pg_namespace"
    " WHERE nspname NOT LIKE 'pg\\_temp%' AND nspname NOT LIKE 'pg\\_toast\\_temp%'",
    "relations": "SELECT concat_ws(' ', relkind, c.oid::regclass, relreplident, relacl)"
    " FROM pg_class c WHERE c.oid >= 16384 AND relkind NOT IN ('t', 'i') AND relpersistence <> 't'",
    "functions": "SELECT oid::regprocedure FROM pg_proc WHERE oid >= 16384",
    "extensions": "SELECT extname || ' ' || extversion FROM pg_extension",
    "event triggers": "SELECT evtname FROM pg_event_trigger",
}

# Directories of a data directory where a deployment could leave files; the others hold data.
_WATCHED = ("", "pg_replslot", "pg_tblspc", "pg_twophase")
_CONFIGURATION = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")
# A server's own doing: they come and go as it runs.
_FLEETING = frozenset({"current_logfiles", "pg_internal.init", "logrotate"})


def admin(verdigris: Installation, resource_id: str, dbname: str = "postgres") -> psycopg.Connection[Any]:
    """As the internal superuser, past the router: what a test does behind the product's back."""
    conninfo = make_conninfo(
        host=str(verdigris.home / "run" / resource_id.lower()),
        user="rdsadmin",
        passfile=str(verdigris.home / "instances" / resource_id / "passfile"),
        dbname=dbname,
        options="-c default_transaction_read_only=off",
        connect_timeout=10,
    )
    return psycopg.connect(conninfo, autocommit=True)


def server_inventory(verdigris: Installation, resource_id: str) -> Inventory:
    found = _files_of(verdigris.home / "instances" / resource_id)
    with admin(verdigris, resource_id) as connection:
        for kind, query in _SHARED.items():
            found[kind] = _column(connection, query)
        names = _column(connection, "SELECT datname FROM pg_database WHERE datallowconn")
    for name in names:
        with admin(verdigris, resource_id, name) as connection:
            for kind, query in _LOCAL.items():
                found[f"{kind} in {name}"] = _column(connection, query)
    return found


def _column(connection: psycopg.Connection[Any], query: str) -> list[str]:
    return sorted(str(row[0]) for row in connection.execute(query.encode()))


def _files_of(directory: Path) -> Inventory:
    data = directory / "data"
    files = {
        f"files in data/{name}": sorted(p.name for p in (data / name).iterdir() if p.name not in _FLEETING)
        for name in _WATCHED
    }
    files["files beside data"] = sorted(p.name for p in directory.iterdir())
    files["configuration"] = [
        f"{name} {hashlib.sha256((data / name).read_bytes()).hexdigest()} {(data / name).stat().st_mode:o}"
        f" {(data / name).stat().st_uid}"
        for name in _CONFIGURATION
    ]
    return files


def host_inventory(verdigris: Installation) -> Inventory:
    """Processes, listening ports, routes, directories and records of one state directory."""
    home = verdigris.home
    processes = [entry.split(" ", 1) for entry in processes_of(home)]
    instances = verdigris.rds.describe_db_instances()["DBInstances"]
    deployments = verdigris.rds.describe_blue_green_deployments()["BlueGreenDeployments"]
    routes = msgspec.json.decode((home / "router" / "routes.json").read_bytes())["routes"]
    return {
        # Server processes change their title; the postmasters name their data directory.
        "processes": sorted(command for _, command in processes if not command.startswith("postgres:")),
        "ports": sorted({port for pid, _ in processes for port in _listening(int(pid))}),
        "routes": sorted(f"{route['name']} {route['port']} {route['backend']['resource_id']}" for route in routes),
        "server directories": sorted(path.name for path in (home / "instances").iterdir()),
        "socket directories": sorted(path.name for path in (home / "run").iterdir()),
        "sockets": sorted(str(path.relative_to(home)) for path in (home / "run").glob("*/.s.*")),
        "instances": sorted(f"{i['DBInstanceIdentifier']} {i['DBInstanceStatus']}" for i in instances),
        "deployments": sorted(f"{d['BlueGreenDeploymentIdentifier']} {d['Status']}" for d in deployments),
    }


def _listening(pid: int) -> list[str]:
    """TCP ports that a process listens on: the sockets in its table whose state is LISTEN (proc_net_tcp(5))."""
    try:
        inodes = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return []  # it ended meanwhile
    ports = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                ports.append(str(int(fields[1].rpartition(":")[2], 16)))
    return ports


class Unchanged:
    """``with Unchanged(verdigris, "app")``: at the end of the block everything is as it was, within a limit.

    ``host=False`` where the host is meant to change (a kept green, a port).
    """

    def __init__(self, verdigris: Installation, identifier: str, *, host: bool = True) -> None:
        self._verdigris = verdigris
        self._resource_id = verdigris.resource_id(identifier)
        self._host = host

    def __enter__(self) -> "Unchanged":
        self._before = at_rest(self._look)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await_same(lambda: self._before, self._look)

    def _look(self) -> Inventory:
        found = server_inventory(self._verdigris, self._resource_id)
        return found | host_inventory(self._verdigris) if self._host else found


def at_rest(look: Callable[[], Inventory], limit_s: float = SETTLE_LIMIT_S) -> Inventory:
    """The state before a test: what was begun earlier (a look of the monitor, a session that ends) is over in it."""
    until = time.monotonic() + limit_s
    while _CONTROL_PLANE in (found := look())["our sessions"]:
        assert time.monotonic() < until, "a session of the control plane stays"
        time.sleep(0.1)
    return found


def await_same(
    expected: Callable[[], Inventory], look: Callable[[], Inventory], limit_s: float = SETTLE_LIMIT_S
) -> Inventory:
    """Until both agree: sessions of ours end a moment after the call that used them was answered."""
    until = time.monotonic() + limit_s
    while True:
        wanted, found = expected(), look()
        if wanted == found:
            return found
        if time.monotonic() > until:
            raise AssertionError("something was left or lost:\n" + "\n".join(differences(wanted, found)))
        time.sleep(0.1)


def differences(before: Inventory, after: Inventory) -> list[str]:
    lines = []
    for kind in sorted(before.keys() | after.keys()):
        old, new = before.get(kind, []), after.get(kind, [])
        lines += [f"- {kind}: {thing}" for thing in old if thing not in new]
        lines += [f"+ {kind}: {thing}" for thing in new if thing not in old]
    return lines
