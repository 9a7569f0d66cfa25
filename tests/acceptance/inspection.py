"""All that is in a server, seen by its internal superuser through its private socket, for comparing two of them."""

import difflib
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from msgspec import Struct
from psycopg import sql

from verdigris.engines.installations import Installation
from verdigris.engines.layout import Layout
from verdigris.engines.postgres.server import PostgresServer

ADMIN = "rdsadmin"

# Of a dump: comments, settings of the session that would restore it, and psql's guard with its random key.
_NOISE = re.compile(r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*|\\connect .*|)$")

# A row's text depends on these, and roles and databases may have set them.
_SAME_TEXT = (
    "SET datestyle = 'ISO, MDY'; SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1;"
    " SET bytea_output = 'hex'; SET search_path = ''"
)

_RELATIONS = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), n.nspname, c.relname
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = ANY(%s) AND c.relpersistence = 'p' AND c.relispopulated
       AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     ORDER BY 1
"""

# md5's halves as numbers make a sum of 128 bits, whatever the order of the rows.
_DIGEST = """
    SELECT count(*), coalesce(sum(('x' || left(m, 16))::bit(64)::bigint::numeric), 0),
           coalesce(sum(('x' || right(m, 16))::bit(64)::bigint::numeric), 0)
      FROM (SELECT md5(t::text) AS m FROM ONLY {table} t WHERE {condition}) AS rows
"""

Digest = tuple[int, int, int]


class SequencePosition(Struct, frozen=True):
    last_value: int | None
    increment: int

    def is_behind(self, other: "SequencePosition") -> bool:
        if other.last_value is None or self.last_value is None:
            return self.last_value is None and other.last_value is not None
        ahead = self.last_value - other.last_value
        return ahead < 0 if self.increment > 0 else ahead > 0


class Inspector:
    """Wants nobody to write meanwhile. Names in results are quoted as SQL wants them, with their schema."""

    def __init__(self, home: Path, resource_id: str) -> None:
        layout = Layout(home)
        self._directory = layout.directory(resource_id)
        self._socket_dir = layout.socket_dir(resource_id)
        record = PostgresServer.read_record(self._directory)
        assert record is not None
        self.installation = record.installation

    def conninfo(self, dbname: str) -> dict[str, Any]:
        passfile = str(self._directory / "passfile")
        return {"host": str(self._socket_dir), "user": ADMIN, "passfile": passfile, "dbname": dbname}

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[Any]:
        connection = psycopg.connect(**self.conninfo(dbname), autocommit=True)
        connection.execute(_SAME_TEXT)
        return connection

    def query(self, statement: str, *parameters: object, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        with self.connect(dbname) as connection:
            return connection.execute(statement.encode(), parameters or None).fetchall()

    # -- definitions

    def databases(self) -> list[str]:
        return [name for (name,) in self.query("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")]

    def definitions(self, programs: Installation) -> dict[str, list[str]]:
        """Each database as ``pg_dump`` writes it, with owner, privileges and settings; the roles under ``""``.

        ``programs``: of the newer of two versions, so that both are written in the same words.
        """
        found = {"": self._dump(programs, "pg_dumpall", "--roles-only", "--no-role-passwords")}
        for name in self.databases():
            found[name] = self._dump(programs, "pg_dump", "--schema-only", "--create", dbname=name)
        return found

    def _dump(self, programs: Installation, program: str, *options: str, dbname: str = "postgres") -> list[str]:
        members = self.conninfo(dbname)
        done = subprocess.run(
            [programs.program(program), *options, "-h", members["host"], "-U", ADMIN]
            + (["-d", dbname] if program == "pg_dump" else []),
            env={"PGPASSFILE": members["passfile"], **programs.environment()},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if not _NOISE.match(line)]

    def memberships(self) -> set[tuple[str, str, str]]:
        """Role, member, and each way in which it is one: "member", "admin"."""
        rows = self.query("SELECT roleid::regrole::text, member::regrole::text, admin_option FROM pg_auth_members")
        found = {(role, member, "member") for role, member, _ in rows}
        return found | {(role, member, "admin") for role, member, admin in rows if admin}

    def passwords(self) -> dict[str, str]:
        """As they are stored."""
        return dict(self.query("SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL"))

    # -- contents

    def rows(self, dbname: str, conditions: Mapping[str, str] | None = None) -> dict[str, Digest]:
        """Of every table and filled materialised view; of those named in ``conditions`` the rows that fulfil theirs."""
        conditions = conditions or {}
        with self.connect(dbname) as connection:
            return {
                name: self._digest(connection, sql.Identifier(schema, table), conditions.get(name, "true"))
                for name, schema, table in connection.execute(_RELATIONS, (["r", "m"],)).fetchall()
            }

    def _digest(self, connection: psycopg.Connection[Any], table: sql.Identifier, condition: str) -> Digest:
        query = sql.SQL(_DIGEST).format(table=table, condition=sql.SQL(condition))
        count, high, low = connection.execute(query).fetchone() or (0, 0, 0)
        return int(count), int(high), int(low)

    def sequences(self, dbname: str) -> dict[str, SequencePosition]:
        rows = self.query(
            "SELECT format('%I.%I', schemaname, sequencename), last_value, increment_by FROM pg_sequences",
            dbname=dbname,
        )
        return {name: SequencePosition(last_value, increment) for name, last_value, increment in rows}

    def large_objects(self, dbname: str) -> list[tuple[Any, ...]]:
        return self.query("SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1", dbname=dbname)

    def traces(self) -> list[str]:
        """Whatever of a deployment is still there."""
        found = self.query("SELECT 'slot ' || slot_name FROM pg_replication_slots")
        found += self.query("SELECT 'role ' || rolname FROM pg_roles WHERE rolname ~ '^verdigris'")
        for dbname in self.databases():
            found += self.query(
                "SELECT 'publication ' || pubname FROM pg_publication WHERE pubname ~ '^verdigris'"
                " UNION ALL SELECT 'subscription ' || subname FROM pg_subscription"
                " UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname ~ '^verdigris'"
                " UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin",
                dbname=dbname,
            )
        return sorted({str(row[0]) for row in found})


def assert_same(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    """Definitions, line by line and in the same order; the failure shows what differs."""
    assert before.keys() == after.keys()
    for name in before:
        difference = difflib.unified_diff(before[name], after[name], "before", "after", lineterm="", n=2)
        shown = "\n".join(difference)
        assert not shown, f"{name or 'roles'}:\n{shown}"


def in_words_of(version: str, definitions: dict[str, list[str]]) -> dict[str, list[str]]:
    """What a server of ``version`` and a newer one write alike. Since 16 memberships say who granted them and what of
    them is inherited (see ``Inspector.memberships``), and views name a column's table only where that is needed."""
    if version >= "16":
        return definitions
    return {
        dbname: [re.sub(r"\b[a-z_]+\.", "", line) for line in lines if dbname or not line.startswith("GRANT ")]
        for dbname, lines in definitions.items()
    }


def sequences_behind(before: Mapping[str, SequencePosition], after: Mapping[str, SequencePosition]) -> list[str]:
    """Sequences that would give out again what was given out before."""
    return [
        f"{name}: {after.get(name)} after {position}"
        for name, position in before.items()
        if name not in after or after[name].is_behind(position)
    ]
