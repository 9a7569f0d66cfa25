"""Temporary objects that are not carried, and a target that is not as it was thought to be."""

import psycopg
import pytest

from tests.integration.router.clients import Endpoint, Pair, Switchover, connect, one
from verdigris.router.exchange import MAX_ANSWER_BYTES

pytestmark = pytest.mark.usefixtures("odd_schema")


PINS = {
    "function": ["CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'"],
    "type": ["CREATE TYPE pg_temp.p AS (a int)"],
    "enum": ["CREATE TYPE pg_temp.e AS ENUM ('a')"],
    "domain": ["CREATE DOMAIN pg_temp.d AS int"],
    "operator": ["CREATE OPERATOR pg_temp.### (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl)"],
    "collation": ['CREATE COLLATION pg_temp.c FROM "C"'],
    "inheritance": ["CREATE TABLE odd.parent (id int)", "CREATE TEMP TABLE child () INHERITS (odd.parent)"],
    "inheritance among themselves": ["CREATE TEMP TABLE a (x int)", "CREATE TEMP TABLE b () INHERITS (a)"],
    "partitions": ["CREATE TEMP TABLE a (x int) PARTITION BY LIST (x)"],
    "row security": ["CREATE TEMP TABLE a (x int)", "ALTER TABLE a ENABLE ROW LEVEL SECURITY"],
    "policy": ["CREATE TEMP TABLE a (x int)", "CREATE POLICY p ON a USING (x > 1)"],
    "rule": ["CREATE TEMP TABLE a (x int)", "CREATE RULE r AS ON DELETE TO a DO INSTEAD NOTHING"],
    "extended statistics": ["CREATE TEMP TABLE a (x int, y int)", "CREATE STATISTICS odd.s ON x, y FROM a"],
    "column privileges": ["CREATE TEMP TABLE a (x int)", "GRANT SELECT (x) ON a TO PUBLIC"],
    "default of a view": ["CREATE TEMP VIEW v AS SELECT 1 AS x", "ALTER VIEW v ALTER x SET DEFAULT 5"],
    "disabled trigger": [
        "CREATE TEMP TABLE a (note text)",
        "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION odd.stamped()",
        "ALTER TABLE a DISABLE TRIGGER t",
    ],
    "cached values of a sequence": ["CREATE TEMP SEQUENCE s CACHE 20", "SELECT nextval('s')"],
    "function of a table's type": [
        "CREATE TEMP TABLE a (x int)",
        "CREATE FUNCTION odd.f(a) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
    "prepared statement with a table's type": ["CREATE TEMP TABLE a (x int)", "PREPARE p (a) AS SELECT $1"],
    "a row that is too large": [
        "CREATE TEMP TABLE a AS SELECT repeat('x', 20000000) AS x",
    ],
    "rows that are too many": [
        f"CREATE TEMP TABLE a AS SELECT repeat('x', 1000) FROM generate_series(1, {MAX_ANSWER_BYTES // 1000 + 1})",
    ],
    "too many empty ones": [
        "DO $$ BEGIN FOR i IN 1..65 LOOP EXECUTE 'CREATE TEMP TABLE t' || i || '()'; END LOOP; END $$",
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", PINS)
async def test_what_is_not_carried_is_named(endpoint: Endpoint, switchover: Switchover, case: str) -> None:
    """Beforehand, and the session is not harmed by that."""
    async with await connect(endpoint) as connection:
        for statement in PINS[case]:
            await connection.execute(statement)
        router, pair = switchover.router, switchover.pair
        report = await router.ready("app", pair.green, pair.verifiers)
        assert report.pinned == {"temporary-objects": 1}
        assert await one(connection, "SELECT label FROM which") == "blue"
        assert await switchover.finish() == {"temporary-objects": 1}
        with pytest.raises(psycopg.errors.AdminShutdown, match="temporary-objects"):
            await connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("on_green", "undo"),
    [
        ("ALTER DEFAULT PRIVILEGES FOR ROLE alice GRANT SELECT ON TABLES TO reporting",
         "ALTER DEFAULT PRIVILEGES FOR ROLE alice REVOKE SELECT ON TABLES FROM reporting"),
        ("ALTER TYPE odd.pair ALTER ATTRIBUTE b TYPE char(9)", "SELECT 1"),
        ("ALTER TYPE odd.mood RENAME VALUE 'sad' TO 'glad'", "SELECT 1"),
        ("DROP TYPE odd.mood", "SELECT 1"),
    ],
    ids=["more privileges", "rows are read differently", "rows are refused", "a type is missing"],
)  # fmt: skip
async def test_green_is_not_believed(
    endpoint: Endpoint, switchover: Switchover, pair: Pair, on_green: str, undo: str
) -> None:
    async with await psycopg.AsyncConnection.connect(pair.green_admin, autocommit=True) as admin:
        await admin.execute(on_green)
        async with await connect(endpoint) as connection:
            await connection.execute("CREATE TEMP TABLE t (p odd.pair, m odd.mood)")
            await connection.execute("INSERT INTO t VALUES ((1, 'x'), 'sad')")
            try:
                assert await switchover.run() == {"temporary-objects": 1}
            finally:
                await admin.execute(undo)


@pytest.mark.parametrize("side", ["blue", "green"])
async def test_event_triggers_are_not_fired_again(
    endpoint: Endpoint, switchover: Switchover, pair: Pair, side: str
) -> None:
    conninfo = pair.blue_admin if side == "blue" else pair.green_admin
    async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as admin:
        await admin.execute(
            "CREATE TABLE odd.log (what text);"
            "GRANT ALL ON odd.log TO PUBLIC;"
            "CREATE FUNCTION odd.logged() RETURNS event_trigger LANGUAGE plpgsql"
            " AS 'BEGIN INSERT INTO odd.log VALUES (tg_tag); END';"
        )
        async with await connect(endpoint) as connection:
            await connection.execute("CREATE TEMP TABLE t AS SELECT 1 AS x")
            await admin.execute("CREATE EVENT TRIGGER logger ON ddl_command_end EXECUTE FUNCTION odd.logged()")
            try:
                assert await switchover.run() == {"temporary-objects": 1}
            finally:
                await admin.execute("DROP EVENT TRIGGER logger")
        cursor = await admin.execute("SELECT count(*) FROM odd.log")
        assert await cursor.fetchone() == (0,)
