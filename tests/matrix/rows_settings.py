"""Rows: settings of every kind, those of the start-up included, and what RESET makes of them."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.matrix.case import case
from tests.matrix.stage import Stage, assert_on_green, value

# What a session has made different, and what RESET would give back.
_OWN = """
    SELECT name, setting, reset_val FROM pg_settings
     WHERE source = 'session' AND setting IS DISTINCT FROM reset_val AND name NOT LIKE 'transaction\\_%' ORDER BY name
"""

_SETTINGS = (
    'SET search_path = "An odd ""schema"" name", "$user", public',
    "SET TimeZone = 'Europe/Berlin'",
    "SET DateStyle = 'SQL, DMY'",
    "SET IntervalStyle = 'iso_8601'",
    "SET statement_timeout = '61s'",
    "SET lock_timeout = 5000",
    "SET idle_in_transaction_session_timeout = '1h'",
    "SET default_transaction_isolation = 'repeatable read'",
    "SET default_transaction_deferrable = on",
    "SET extra_float_digits = 0",
    "SET bytea_output = 'escape'",
    "SET work_mem = '7MB'",
    "SET enable_seqscan = off",
    "SET random_page_cost = 1.25",
    "SET application_name = 'it''s \\ \"mine\"'",
    "SET standard_conforming_strings = off",
    "SET xmloption = 'document'",
    "SET synchronous_commit = local",
    "SET vacuum_cost_delay = 0.5",
    "SET TRANSACTION_ISOLATION TO 'serializable'",  # of a transaction that is over at once
    "SET LOCAL geqo = off",  # likewise
    "SET SESSION AUTHORIZATION DEFAULT",
    "SELECT set_config('geqo_threshold', '13', false)",
)


def _own(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(_OWN, prepare=False).fetchall()


@case("SET of every kind", "psycopg")
def every_kind(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        for statement in _SETTINGS:
            connection.execute(statement)
        before = _own(connection)
        assert len(before) > 15
        formats = "SELECT row(now() - now(), '2026-02-01'::date, 1.5::float8, 'a'::bytea)::text"
        shown = value(connection, formats)
        yield
        assert _own(connection) == before
        assert value(connection, formats) == shown
        assert value(connection, "SHOW transaction_isolation") == "repeatable read"
        assert value(connection, "SHOW geqo") == "on"
        assert connection.info.parameter_status("application_name") == 'it\'s \\ "mine"'
        assert connection.info.parameter_status("TimeZone") == "Europe/Berlin"
        connection.execute("RESET ALL")
        assert _own(connection) == []
        assert_on_green(connection)


@case("SET in transactions", "psycopg")
def in_transactions(stage: Stage) -> Iterator[None]:
    """One that was committed, and one that was rolled back; what it was before comes back with RESET and SET LOCAL."""
    with stage.connect() as connection:
        connection.execute("SET work_mem = '5MB'")
        connection.execute("BEGIN; SET work_mem = '6MB'; COMMIT")
        connection.execute("BEGIN; SET work_mem = '9MB'; SET app.lost = 'x'; ROLLBACK")
        connection.execute("SET maintenance_work_mem = '70MB'; RESET maintenance_work_mem")
        before = _own(connection)
        yield
        assert _own(connection) == before
        assert value(connection, "SHOW work_mem") == "6MB"
        assert value(connection, "SELECT current_setting('app.lost', true)") in (None, "")
        connection.execute("BEGIN; SET LOCAL work_mem = '8MB'; COMMIT")
        assert value(connection, "SHOW work_mem") == "6MB"
        assert_on_green(connection)


@case("SET SESSION CHARACTERISTICS", "psycopg")
def characteristics(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")
        yield
        assert value(connection, "SHOW transaction_isolation") == "serializable"
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO written VALUES ('read only', 1)")
        connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE")
        connection.execute("INSERT INTO written VALUES ('read write', 1)")
        assert_on_green(connection)


@case("client encoding", "psycopg")
def encoding(stage: Stage) -> Iterator[None]:
    with stage.connect() as latin, stage.connect(client_encoding="EUC_JP") as japanese:
        latin.execute("SET client_encoding TO 'LATIN1'")
        latin.execute("SET app.drink = 'café'")
        latin.execute("PREPARE \"thé\" AS SELECT 'café'::text")
        japanese.execute("SET app.drink = '日本酒'")
        japanese.execute("PREPARE \"茶\" AS SELECT '日本酒'::text")
        yield
        assert latin.info.parameter_status("client_encoding") == "LATIN1"
        assert (value(latin, "SHOW app.drink"), value(latin, 'EXECUTE "thé"')) == ("café", "café")
        assert japanese.info.parameter_status("client_encoding") == "EUC_JP"
        assert (value(japanese, "SHOW app.drink"), value(japanese, 'EXECUTE "茶"')) == ("日本酒", "日本酒")
        for connection in (latin, japanese):
            assert_on_green(connection)


@case("custom settings", "psycopg")
def custom(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        for statement in (
            "SET app.tenant = 'forty-two'",
            "SET app.deep.er TO 'y'",
            "SELECT set_config('app.user', 'o''reilly', false)",
            "SET app.empty = ''",
            "SET app.long = '" + "x" * 5000 + "'",
            "SET LOCAL app.of_a_transaction = 'gone'",
        ):
            connection.execute(statement)
        connection.execute("SELECT set_config('app.by_parameter', %s, false)", ("é \n '",))
        bound = [f"app.bound_{number}" for number in range(3)]
        for name in bound:
            connection.execute("SELECT set_config(%s, %s, false)", (name, f"its {name}"), prepare=name != bound[0])
        names = ["app.tenant", "app.deep.er", "app.user", "app.empty", "app.long", "app.by_parameter", *bound]
        before = [value(connection, "SELECT current_setting(%s)", name) for name in names]
        yield
        assert [value(connection, "SELECT current_setting(%s)", name) for name in names] == before
        assert value(connection, "SELECT current_setting('app.of_a_transaction', true)") in (None, "")
        assert_on_green(connection)


@case("SET ROLE", "psycopg")
def role(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        connection.execute("SET ROLE reporting")
        connection.execute("PREPARE who AS SELECT current_user::text")
        yield
        assert value(connection, "SELECT current_user::text") == "reporting"
        assert value(connection, "EXECUTE who") == "reporting"
        connection.execute("RESET ROLE")
        assert value(connection, "SELECT current_user = session_user") is True
        assert_on_green(connection)


@case("start-up options", "psycopg")
def startup(stage: Stage) -> Iterator[None]:
    """They are what RESET goes back to, on green as on blue."""
    options = "-c work_mem=5MB -c app.start=here -c statement_timeout=50s -c search_path=pg_catalog,public"
    with stage.connect(options=options, application_name="started as this") as connection:
        connection.execute("SET work_mem = '6MB'")
        connection.execute("SET application_name = 'and now that'")
        before = _own(connection)
        yield
        assert _own(connection) == before
        assert value(connection, "SHOW app.start") == "here"
        assert value(connection, "SHOW application_name") == "and now that"
        connection.execute("DISCARD ALL")
        for name, expected in (
            ("work_mem", "5MB"),
            ("application_name", "started as this"),
            ("app.start", "here"),
            ("statement_timeout", "50s"),
            ("search_path", "pg_catalog,public"),
        ):
            assert value(connection, f"SHOW {name}") == expected
        assert_on_green(connection)
