"""Names that PostgreSQL allows, and that break whoever puts statements together by hand, go through a whole life."""

from typing import Any

import psycopg
from psycopg import sql

from tests.acceptance.installation import Installation
from tests.acceptance.inventory import admin, server_inventory

NAMES = (
    'quo"te',
    '"; DROP TABLE kept; --',
    "apos'trophe",
    "'; SELECT 1/0; --",
    "sp ace ",
    "back\\slash\\'",
    "per%cent %s %(x)s %%",
    "{brace} {} {0}",
    "$dollar$ $1 $$",
    "ünï—文字🐘",
    "new\nline\ttab",
    "UPPER.dotted",
    "select",
    "like_%",
    "x" * 63,
    "ü" * 31 + "y",
)
DATABASES = ("quo\"te 'db' \\ %s {} ünï", "d" * 63)


def contents(connection: psycopg.Connection[Any]) -> dict[str, tuple[Any, ...]]:
    """Of each schema with an awkward name: the rows of its table, where its sequence stands, what its function says."""
    found = {}
    for name in NAMES:
        thing, sequence = sql.Identifier(name, name), sql.Identifier(name, name[:-1] + "s")
        queries = (
            sql.SQL("SELECT * FROM {} ORDER BY 1").format(thing),
            sql.SQL("SELECT last_value, is_called FROM {}").format(sequence),
            sql.SQL("SELECT {}()").format(thing),
        )
        found[name] = tuple(connection.execute(query).fetchall() for query in queries)
    return found


def furnish(connection: psycopg.Connection[Any]) -> None:
    for number, name in enumerate(NAMES):
        schema, thing, sequence = (
            sql.Identifier(name),
            sql.Identifier(name, name),
            sql.Identifier(name, name[:-1] + "s"),
        )
        for statement in (
            "CREATE SCHEMA {schema}",
            "CREATE TABLE {thing} ({column} int PRIMARY KEY, note text DEFAULT {literal})",
            "INSERT INTO {thing} SELECT generate_series(1, 3)",
            "CREATE INDEX {index} ON {thing} (note)",
            "CREATE SEQUENCE {sequence}",
            "SELECT setval({sequence_literal}::regclass, {number})",
            "CREATE FUNCTION {thing}() RETURNS text LANGUAGE sql AS {body}",
            "CREATE VIEW {view} AS SELECT * FROM {thing}",
            "COMMENT ON TABLE {thing} IS {literal}",
        ):
            connection.execute(
                sql.SQL(statement).format(
                    schema=schema,
                    thing=thing,
                    column=sql.Identifier(name),
                    literal=sql.Literal(name),
                    index=sql.Identifier(f"i{number}"),
                    sequence=sequence,
                    sequence_literal=sql.Literal(sequence.as_string(connection)),
                    number=sql.Literal(number + 10),
                    body=sql.Literal(sql.SQL("SELECT {}").format(sql.Literal(name)).as_string(connection)),
                    view=sql.Identifier(name, f"v{number}"),
                )
            )
    tables = sql.SQL(", ").join(sql.Identifier(name, name) for name in NAMES)
    connection.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE {}").format(sql.Identifier(NAMES[0]), tables))


def test_from_creation_to_deletion(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as master:
        for dbname in DATABASES:
            master.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(dbname)))
        for name in NAMES:
            role = sql.Identifier(name)
            master.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(name)))
    before = {}
    for dbname in DATABASES:
        with verdigris.connect("app", dbname=dbname) as connection:
            furnish(connection)
            before[dbname] = contents(connection)
    blue = verdigris.resource_id("app")
    untouched = server_inventory(verdigris, blue)
    sessions = [verdigris.connect("app", user=name, password=name, dbname=DATABASES[0]) for name in NAMES[:4]]
    try:
        for session in sessions:
            session.execute(sql.SQL("SET application_name TO {}").format(sql.Literal("it's {} %s \\ here")))
            session.execute(sql.SQL("PREPARE {} AS SELECT 1").format(sql.Identifier(NAMES[0])))
            session.execute(sql.SQL("LISTEN {}").format(sql.Identifier(NAMES[1])))
        deployment, _ = verdigris.build_green("app", TargetEngineVersion="18.6")
        with verdigris.connect("app", dbname=DATABASES[0]) as connection:
            for name in NAMES:
                thing = sql.Identifier(name, name)
                connection.execute(sql.SQL("INSERT INTO {} VALUES (4, 'later')").format(thing))
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(NAMES[5]), sql.Literal("changed"))
            )
            before[DATABASES[0]] = contents(connection)
        assert verdigris.switch_over(deployment)["StatusDetails"].endswith(
            f"{len(sessions)} sessions carried, 0 closed"
        )
        for session in sessions:
            assert session.execute("SHOW server_version").fetchall() == [("18.6",)]
            assert session.execute("SHOW application_name").fetchall() == [("it's {} %s \\ here",)]
            session.execute(sql.SQL("EXECUTE {}").format(sql.Identifier(NAMES[0])))
    finally:
        for session in sessions:
            session.close()
    for dbname in DATABASES:
        with verdigris.connect("app", dbname=dbname) as connection:
            assert contents(connection) == before[dbname]
    for name in NAMES:
        password = "changed" if name == NAMES[5] else name
        with verdigris.connect("app", user=name, password=password) as someone:
            assert someone.execute("SELECT current_user").fetchall() == [(name,)]
    verdigris.delete_deployment(deployment)
    after = server_inventory(verdigris, blue)
    kinds = [kind for kind in untouched if "publications" in kind or "schemas" in kind or kind in ("slots", "roles")]
    assert {kind: after[kind] for kind in kinds} == {kind: untouched[kind] for kind in kinds}
    with admin(verdigris, verdigris.resource_id("app"), DATABASES[0]) as connection:
        assert connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'verdigris%'").fetchall() == []
    for name in ("app", "app-old1"):
        verdigris.delete_instance(name)
