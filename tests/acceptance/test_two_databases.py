"""Several databases in one instance, with names that want quoting, other owners, and sequences by the thousand."""

import threading

import psycopg
from psycopg import sql

from tests.acceptance.inspection import Inspector, SequencePosition
from tests.acceptance.installation import Installation, wait_until

QUOTED = 'it\'s "quoted" \\ here'
SPACED = " two  spaces "
FOREIGN = "Größe-数据库-🦊"
OWNED = "owned_by_another"
EMPTY = "Empty"
SEQUENCES = 1000
OWNER_PASSWORD = "owner's pa$$word"


class Counter(threading.Thread):
    """Commits 1, 2, 3 ... into a table of one database, on one connection."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged = 0
        self.error: Exception | None = None
        self._dsn = dsn
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._stop_asked.wait(0.02):
                    connection.execute("INSERT INTO counted VALUES (%s)", (self.acknowledged + 1,))
                    self.acknowledged += 1
        except Exception as error:  # whatever it is, it is the test's to judge
            self.error = error

    def finish(self) -> int:
        self._stop_asked.set()
        self.join(30)
        assert self.error is None
        return self.acknowledged


def test_all_databases_come_over_at_once(verdigris: Installation) -> None:
    verdigris.create_instance("app", "17.10")
    counters = _fill(verdigris)
    for counter in counters.values():
        counter.start()
    deployment, green_name = verdigris.build_green("app", TargetEngineVersion="18.6")
    with verdigris.connect("app") as connection:
        connection.execute("SELECT nextval(format('s%s', i)) FROM generate_series(1, 1000, 3) i")
        connection.execute("SELECT setval('s999', 123456, false)")
    verdigris.switch_over(deployment)
    reached = {dbname: counter.acknowledged for dbname, counter in counters.items()}
    wait_until(lambda: all(counters[name].acknowledged > count for name, count in reached.items()), "commits on green")
    committed = {dbname: counter.finish() for dbname, counter in counters.items()}

    blue = Inspector(verdigris.home, verdigris.resource_id("app-old1"))
    green = Inspector(verdigris.home, verdigris.resource_id("app"))
    assert green_name.startswith("app-green-")
    assert blue.databases() == green.databases() == sorted([*counters, EMPTY, "postgres", "template1"], key=str.encode)
    for dbname, count in committed.items():
        rows = green.query("SELECT count(*), min(n), max(n) FROM public.counted", dbname=dbname)
        assert rows == [(count, 1, count)], dbname
    sequences = green.sequences("app")
    assert len(sequences) == SEQUENCES
    assert sequences == blue.sequences("app")
    assert sequences["public.s1"] == SequencePosition(2, 1)
    assert sequences["public.s2"] == SequencePosition(1, 1)
    with verdigris.connect("app") as connection:
        assert connection.execute("SELECT nextval('s999'), nextval('s1000')").fetchone() == (123456, 4)
    owners = "SELECT datname, datdba::regrole::text, datconnlimit FROM pg_database ORDER BY 1"
    assert green.query(owners) == blue.query(owners)
    with verdigris.connect("app", dbname=OWNED, user="other_owner", password=OWNER_PASSWORD) as connection:
        connection.execute("CREATE TABLE of_mine (id int)")
    assert (blue.traces(), green.traces()) == ([], [])


def _fill(verdigris: Installation) -> dict[str, Counter]:
    """A counter for each database that has a table."""
    with verdigris.connect("app") as connection:
        connection.execute(f"CREATE ROLE other_owner LOGIN PASSWORD {sql.quote(OWNER_PASSWORD)}".encode())
        connection.execute("GRANT other_owner TO CURRENT_USER")
        for dbname in (QUOTED, SPACED, FOREIGN, EMPTY):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(dbname)))
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER other_owner CONNECTION LIMIT 40").format(sql.Identifier(OWNED))
        )
        connection.execute(
            b"DO $$ BEGIN FOR i IN 1..%d LOOP EXECUTE format('CREATE SEQUENCE s%%s', i); END LOOP; END $$" % SEQUENCES
        )
        connection.execute("SELECT nextval(format('s%s', i)) FROM generate_series(1, 1000) i")
        connection.execute("SELECT nextval('s1000')")
    counters = {}
    for dbname in ("app", QUOTED, SPACED, FOREIGN, OWNED):
        login = {"user": "other_owner", "password": OWNER_PASSWORD} if dbname == OWNED else {}
        with verdigris.connect("app", dbname=dbname, **login) as connection:
            connection.execute("CREATE TABLE counted (n int PRIMARY KEY)")
        counters[dbname] = Counter(verdigris.dsn("app", dbname=dbname, **login))
    return counters
