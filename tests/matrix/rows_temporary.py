"""Rows: temporary tables, sequences and views; cursors WITH HOLD."""

from collections.abc import Iterator
from itertools import chain

from tests.matrix.case import case
from tests.matrix.stage import LIMIT_S, Stage, assert_on_green, value

_BUILD = (
    "CREATE TEMP TABLE basket (id int PRIMARY KEY, item text NOT NULL DEFAULT 'nothing', m mood)",
    "CREATE TEMP TABLE line (n serial, basket int REFERENCES basket, b2 int GENERATED ALWAYS AS (basket * 2) STORED)",
    "CREATE INDEX ON line (basket) WHERE basket > 1",
    "INSERT INTO basket SELECT g, 'item ' || g, 'happy' FROM generate_series(1, 500) g",
    "INSERT INTO line (basket) SELECT g FROM generate_series(500, 1, -1) g",
    "CREATE TEMP TABLE scratch (x int) ON COMMIT DELETE ROWS",
    (
        "CREATE TEMP VIEW both_of AS SELECT l.n, b.item, w.note FROM line l, basket b, work w"
        " WHERE b.id = l.basket AND w.id = b.id"
    ),
    "CREATE TEMP SEQUENCE counter START 40",
    "SELECT nextval('counter')",
)


@case("temporary objects", "psycopg")
def temporary_objects(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        for statement in _BUILD:
            connection.execute(statement)
        questions = (
            "TABLE basket",
            "TABLE line",
            "SELECT * FROM both_of ORDER BY n",
            "SELECT currval('counter'), currval('line_n_seq'), lastval()",
        )
        before = [connection.execute(question).fetchall() for question in questions]
        yield
        assert [connection.execute(question).fetchall() for question in questions] == before
        assert value(connection, "SELECT nextval('counter')") == 41
        assert value(connection, "INSERT INTO line (basket) VALUES (1) RETURNING n") == 501
        connection.execute("INSERT INTO scratch VALUES (1)")
        assert value(connection, "SELECT count(*) FROM scratch") == 0
        assert_on_green(connection)


@case("temporary objects in use", "psycopg")
def in_use(stage: Stage) -> Iterator[None]:
    """Changed all the time, also while it is carried: every change that was acknowledged is there."""
    with stage.connect() as connection:
        connection.execute("CREATE TEMP TABLE counted (n bigint PRIMARY KEY)")

        def count() -> int:
            done = 0
            while stage.goes_on():
                connection.execute("INSERT INTO counted VALUES (%s)", [done])
                done += 1
                if done % 200 == 0:
                    connection.execute("DELETE FROM counted WHERE n < %s", [done - 100])
            return done

        going = stage.meanwhile(count)
        yield
        done = going.result(LIMIT_S)
        found = [n for (n,) in connection.execute("SELECT n FROM counted ORDER BY n")]
        assert found == list(range(found[0], done))
        assert_on_green(connection)


@case("cursors with hold", "psycopg")
def held_cursors(stage: Stage) -> Iterator[None]:
    with stage.connect() as connection:
        queries = {
            "scrolls SCROLL": "SELECT id, note FROM work ORDER BY id",
            "forward NO SCROLL": "SELECT w.id, v.note FROM work w JOIN work v USING (id) ORDER BY 1",
            "bytes BINARY SCROLL": "SELECT id, note FROM work ORDER BY id",
        }
        for name, query in queries.items():
            cursor, _, options = name.partition(" ")
            connection.execute(f"DECLARE {cursor} {options} CURSOR WITH HOLD FOR {query}")
            assert len(connection.execute(f"FETCH 10 IN {cursor}").fetchall()) == 10
        yield
        expected = [(n, f"row {n}") for n in range(11, 1001)]
        with connection.cursor(binary=True) as binary:
            assert binary.execute("FETCH 2 IN bytes").fetchall() == expected[:2]
        for name in ("scrolls", "forward"):
            parts = [connection.execute(f"FETCH 400 IN {name}").fetchall() for _ in range(4)]
            assert list(chain.from_iterable(parts)) == expected
        assert connection.execute("FETCH BACKWARD 2 IN scrolls").fetchall() == expected[:-3:-1]
        assert_on_green(connection)
