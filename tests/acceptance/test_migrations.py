"""Schema migrations on blue while green exists: carried live, switched over, and nothing of it left anywhere."""

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.inspection import Inspector, assert_same, sequences_behind
from tests.acceptance.installation import Installation
from tests.acceptance.inventory import Unchanged
from verdigris.engines.catalogue import Catalogue

CREATE_LOAD = "CREATE TABLE load (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text DEFAULT 'x')"
# Columns that come and go under a client that is at work: between its statements, and amid its transactions.
UNDER_LOAD = (
    "ALTER TABLE load ADD COLUMN seen_at timestamptz NOT NULL DEFAULT now()",
    "CREATE INDEX CONCURRENTLY ON load (seen_at)",
    "ALTER TABLE load RENAME COLUMN note TO remark",
    "CREATE VIEW loaded AS SELECT id, remark FROM load",
    "ALTER TABLE load ALTER COLUMN remark SET DEFAULT 'y'",
    """
    CREATE TABLE loads_by_day (day date, n bigint NOT NULL, PRIMARY KEY (day)) PARTITION BY RANGE (day);
    CREATE TABLE loads_2026 PARTITION OF loads_by_day FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO loads_by_day SELECT seen_at::date, count(*) FROM load GROUP BY 1
    """,
)


def test_migrations_under_load_are_carried_and_switched_over(verdigris: Installation, catalogue: Catalogue) -> None:
    """About a minute: a server is upgraded, and some two hundred statements are executed on both sides."""
    verdigris.create_instance("app", "17.10")
    with verdigris.connect("app") as connection:
        connection.execute(CREATE_LOAD)
    with _load(verdigris) as acknowledged:
        deployment, _ = verdigris.build_green("app", TargetEngineVersion="18.6")
        _migrate(verdigris)
        with verdigris.connect("app") as connection:
            for statement in UNDER_LOAD:
                connection.execute(statement.encode())
        verdigris.switch_over(deployment)
        carried = len(acknowledged)
    assert carried > 100
    assert len(acknowledged) > carried  # on green, through the same connection

    programs = asyncio.run(catalogue.installation("18.6"))
    blue, green = (Inspector(verdigris.home, verdigris.resource_id(identifier)) for identifier in ("app-old1", "app"))
    assert_same(_without_names(blue.definitions(programs)), _without_names(green.definitions(programs)))
    went_on = {"public.load": "false"}  # on green, where it is counted
    assert blue.rows("app", went_on) == green.rows("app", went_on)
    assert {name for name in green.rows("app") if name.startswith("django.")} >= {"django.auth_user", "django.cached"}
    assert sequences_behind(blue.sequences("app"), green.sequences("app")) == []
    rows = green.query("SELECT id FROM public.load", dbname="app")
    assert {row[0] for row in rows} >= set(acknowledged)
    assert len(rows) == len(set(rows))
    assert (blue.traces(), green.traces()) == ([], [])
    for server in (blue, green):
        assert server.query("SELECT evtname FROM pg_event_trigger", dbname="app") == []


def test_a_deployment_deleted_after_migrations_leaves_only_what_they_made(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    with Unchanged(verdigris, "app", host=False):
        deployment, green = verdigris.build_green("app", TargetEngineVersion="18.6")
        with verdigris.connect("app") as connection:
            connection.execute("CREATE TABLE passing (id int PRIMARY KEY); INSERT INTO passing VALUES (1)")
            connection.execute("CREATE TABLE keyless (x int); INSERT INTO keyless VALUES (1); UPDATE keyless SET x = 2")
            connection.execute("DROP TABLE passing, keyless")
        verdigris.delete_deployment(deployment)
    verdigris.delete_instance(green)


def _without_names(definitions: dict[str, list[str]]) -> dict[str, list[str]]:
    """From 18 on a NOT NULL has a name, which a renamed column does not take along."""
    return {
        name: [re.sub(r" CONSTRAINT \S+ NOT NULL", " NOT NULL", line) for line in lines]
        for name, lines in definitions.items()
    }


def _migrate(verdigris: Installation) -> None:
    dsn = conninfo_to_dict(verdigris.dsn("app"))
    with verdigris.connect("app") as connection:
        connection.execute("CREATE SCHEMA django; CREATE SCHEMA alembic")
    environment = os.environ | {
        "PGHOST": str(dsn["host"]),
        "PGPORT": str(dsn["port"]),
        "PGUSER": str(dsn["user"]),
        "PGPASSWORD": str(dsn["password"]),
        "PGDATABASE": str(dsn["dbname"]),
        "PGSSLMODE": "require",
    }
    alembic = environment | {"PGOPTIONS": "-c search_path=alembic"}
    _run("tests.acceptance.migrations.alembic_history", "postgresql+psycopg://", environment=alembic)
    _run("tests.acceptance.migrations.django_history", environment=environment)


def _run(module: str, *arguments: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@contextmanager
def _load(verdigris: Installation) -> Iterator[list[int]]:
    """One client that inserts all the while, through one connection. What is yielded: keys whose commit it was told."""
    acknowledged: list[int] = []
    failures: list[psycopg.Error] = []
    stop = threading.Event()

    def work() -> None:
        try:
            with verdigris.connect("app", application_name="load") as connection:
                while not stop.wait(0.005):
                    row = connection.execute("INSERT INTO load DEFAULT VALUES RETURNING id").fetchone()
                    acknowledged.append(row[0] if row else -1)
        except psycopg.Error as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield acknowledged
        before = len(acknowledged)
        for _ in range(200):
            if len(acknowledged) > before or failures:
                break
            stop.wait(0.05)
    finally:
        stop.set()
        thread.join(60)
    assert failures == []
