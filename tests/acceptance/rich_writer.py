"""A client that writes into every kind of table of the rich schema, and remembers what it was told was committed."""

import threading
from datetime import date, timedelta
from typing import Any

import psycopg

# Rows that a writer made, so that all others can be compared as they stand.
NOT_WRITTEN = {
    "shop.customers": "t.name NOT LIKE 'Writer %'",
    "shop.log": "t.line NOT LIKE 'writer %'",
    **dict.fromkeys(
        ("shop.orders_2025", "shop.orders_2026_a", "shop.orders_2026_b", "shop.orders_rest"), "NOT t.extra ? 'writer'"
    ),
}
_FIRST_DAY = date(2025, 3, 1)
_MOVED_AFTER, _DELETED_AFTER = 3, 10
_A_YEAR = timedelta(days=365)


class RichWriter(threading.Thread):
    """One transaction after another on one connection: identities, a partitioned table whose rows move between
    partitions, a trigger, generated columns, a table without a key, sequences. Any error ends it and is kept."""

    def __init__(self, dsn: str, *, interval_s: float = 0.01) -> None:
        super().__init__(name="rich-writer", daemon=True)
        self.acknowledged = 0
        self.receipts: list[int] = []
        self.versions: list[str] = []
        self.error: Exception | None = None
        self._dsn = dsn
        self._interval_s = interval_s
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as connection:
                while not self._stop_asked.wait(self._interval_s):
                    self._write(connection, self.acknowledged + 1)
        except Exception as error:  # whatever it is, it is the test's to judge
            self.error = error

    def _write(self, connection: psycopg.Connection[Any], n: int) -> None:
        with connection.transaction():
            version, receipt = self._insert(connection, n)
            connection.execute(
                "UPDATE shop.orders SET placed_on = placed_on + 365, state = 'sent' WHERE (extra->>'writer')::int = %s",
                (n - _MOVED_AFTER,),
            )
            connection.execute("DELETE FROM shop.orders WHERE (extra->>'writer')::int = %s", (n - _DELETED_AFTER,))
            connection.execute("UPDATE shop.customers SET home = ROW('a', 'b') WHERE name = %s", (f"Writer {n}",))
        self.acknowledged = n
        self.receipts.append(receipt)
        if version not in self.versions[-1:]:
            self.versions.append(version)

    def _insert(self, connection: psycopg.Connection[Any], n: int) -> tuple[str, int]:
        connection.execute(
            "WITH c AS (INSERT INTO shop.customers (name, mail, facts)"
            " VALUES (%(name)s, %(mail)s, 'a=>1') RETURNING id)"
            " INSERT INTO shop.orders (placed_on, customer, total, tags, extra)"
            " SELECT %(day)s, id, 1.5, '{w}', jsonb_build_object('writer', %(n)s::int) FROM c",
            {"name": f"Writer {n}", "mail": f"writer{n}@example.com", "day": _day(n), "n": n},
        )
        connection.execute("INSERT INTO shop.log VALUES (now(), %s)", (f"writer {n}",))
        row = connection.execute("SELECT current_setting('server_version'), nextval('shop.receipt')").fetchone()
        assert row is not None
        return str(row[0]).split()[0], int(row[1])

    def finish(self) -> None:
        self._stop_asked.set()
        self.join(30)
        assert not self.is_alive(), "the writer is stuck"
        if self.error is not None:
            raise self.error

    def differences(self, connection: psycopg.Connection[Any]) -> list[str]:
        """What is in the tables that was not acknowledged, and the other way round."""
        last = self.acknowledged
        expected: dict[str, set[tuple[Any, ...]]] = {
            "SELECT name, touched, slug, (home).town FROM shop.customers WHERE name LIKE 'Writer %'": {
                (f"Writer {n}", 1, f"writer-{n}", "b") for n in range(1, last + 1)
            },
            "SELECT line FROM shop.log WHERE line LIKE 'writer %'": {(f"writer {n}",) for n in range(1, last + 1)},
            "SELECT (extra->>'writer')::int, placed_on, state::text FROM shop.orders WHERE extra ? 'writer'": {
                (n, _day(n) + _A_YEAR, "sent") if n <= last - _MOVED_AFTER else (n, _day(n), "new")
                for n in range(max(1, last - _DELETED_AFTER + 1), last + 1)
            },
        }
        found = []
        for query, rows in expected.items():
            there = connection.execute(query.encode()).fetchall()
            if len(there) != len(rows) or set(there) != rows:
                odd = sorted(set(there) ^ rows, key=repr)[:5]
                found.append(f"{query}: {len(there)} rows, {len(rows)} expected; {odd}")
        if self.receipts != sorted(set(self.receipts)):
            found.append("a receipt number was given out twice or went backwards")
        return found


def _day(n: int) -> date:
    return _FIRST_DAY + timedelta(days=n % 200)
