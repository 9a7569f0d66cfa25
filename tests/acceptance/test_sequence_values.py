"""currval() and lastval() through the whole product: a switchover does not show in what a session has inserted."""

from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.acceptance.installation import Installation
from tests.acceptance.inventory import admin

# One that is idle since, one that has spoken after its state was looked at, and one that has used no sequence.
TABLES = """
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 20) PRIMARY KEY, note text);
    CREATE TABLE audit (id serial PRIMARY KEY, of_order bigint);
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN INSERT INTO audit (of_order) VALUES (NEW.id); RETURN NULL; END';
    CREATE TRIGGER noted AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noted();
"""
VALUES = "SELECT lastval(), currval('audit_id_seq'), currval(pg_get_serial_sequence('orders', 'id'))"
LEFT = """
    SELECT nspname FROM pg_namespace WHERE nspname ~ '^verdigris'
    UNION ALL SELECT proname FROM pg_proc WHERE proname IN ('session_sequences', 'recall_sequence')
"""

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize(("source", "target"), [("17.10", "18.6"), ("17.9", "17.10")], ids=["logical", "physical"])
def test_sessions_remember_what_they_inserted(verdigris: Installation, source: str, target: str) -> None:
    verdigris.create_instance("app", source)
    with verdigris.connect("app") as connection:
        connection.execute(TABLES)
    deployment, _ = verdigris.build_green("app", TargetEngineVersion=target)
    with verdigris.connect("app") as one, verdigris.connect("app") as other, verdigris.connect("app") as fresh:
        for connection, times in ((one, 3), (other, 2), (one, 1)):
            for _ in range(times):
                connection.execute("INSERT INTO orders (note) VALUES ('a')")
        other.execute("CREATE TEMP TABLE scratch (id serial); INSERT INTO scratch DEFAULT VALUES")
        before = [connection.execute(VALUES).fetchall() for connection in (one, other)]
        scratch = "SELECT lastval(), currval('scratch_id_seq')"
        of_scratch = other.execute(scratch).fetchall()
        verdigris.switch_over(deployment)
        assert [connection.execute(VALUES).fetchall() for connection in (one, other)] == before
        assert one.info.parameter_status("server_version") == target
        assert other.execute(scratch).fetchall() == of_scratch
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            fresh.execute("SELECT lastval()")
        for connection in (one, other, fresh):
            connection.execute("INSERT INTO orders (note) VALUES ('b')")  # no key comes twice
        [(audited, last)] = one.execute("SELECT max(id), currval('audit_id_seq') + 2 FROM audit").fetchall()
        assert audited == last
    for identifier in ("app", "app-old1"):
        for dbname in ("app", "postgres"):
            with admin(verdigris, verdigris.resource_id(identifier), dbname) as connection:
                assert connection.execute(LEFT).fetchall() == []
                assert connection.execute("SELECT 1").fetchall() == [(1,)]
