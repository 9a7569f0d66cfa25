"""The demo's data, and the comparison of two databases: equal ones, and one planted difference of each kind."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from verdigris.demo.compare import compare_databases
from verdigris.demo.data import load_data
from verdigris.demo.polling import wait_until
from verdigris.demo.promises import Promise
from verdigris.demo.schema import install_schema
from verdigris.demo.workload import Workload

if TYPE_CHECKING:
    from tests.unit.demo.conftest import BareServer

ROWS = 2_000


@pytest.fixture(scope="module")
def template(server: "BareServer", tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with data and a finished workload, to be copied."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop_template")
    dsn = f"host={server.directory} user=owner dbname=shop_template"
    seen: list[int] = []
    assert load_data(dsn, ROWS, on_progress=seen.append) >= ROWS
    assert seen
    assert seen[-1] >= ROWS
    install_schema(dsn, accounts=20)
    _write_some(dsn, tmp_path_factory.mktemp("ledgers"))
    return "shop_template"


def _write_some(dsn: str, directory: Path) -> None:
    with Workload(dsn, writers=2, readers=0, directory=directory) as workload:
        workload.start()
        wait_until(lambda: workload.progress().acknowledged >= 10, 20, what="ten commits")
        workload.stop()


@pytest.fixture
def pair(server: "BareServer", template: str) -> Iterator[tuple[str, str]]:
    """The dsn of the old and of the new side."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for name in ("old", "new"):
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        yield (
            f"host={server.directory} user=owner dbname=old",
            f"host={server.directory} user=owner dbname=new",
        )
        for name in ("old", "new"):
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_equal_databases(pair: tuple[str, str]) -> None:
    comparison = compare_databases(*pair)
    assert comparison.breaches == ()
    assert comparison.rows_compared >= ROWS
    assert comparison.sequences == 6
    tables = {table.table for table in comparison.tables}
    assert {"shop.orders", "plant.readings_q1", "audit.changes", "ledger.chain"} <= tables
    assert "plant.readings" not in tables  # its rows are counted once, in its partitions


def test_what_the_new_side_wrote_later_is_no_difference(pair: tuple[str, str], tmp_path: Path) -> None:
    _write_some(pair[1], tmp_path / "ledgers")
    comparison = compare_databases(*pair)
    assert comparison.breaches == ()
    assert next(table for table in comparison.tables if table.table == "ledger.chain").rows_new > 0


DIFFERENCES = [
    ("DELETE FROM plant.readings WHERE machine = 3 AND taken_at < '2026-01-02Z'", Promise.ROWS_IDENTICAL),
    ("UPDATE shop.customers SET profile = profile || '{\"level\": 99}' WHERE id = 5", Promise.ROWS_IDENTICAL),
    ("INSERT INTO audit.changes (order_id, to_state) VALUES (1, 'paid')", Promise.ROWS_IDENTICAL),
    ("UPDATE ledger.chain SET payload = 'x' WHERE id = 1", Promise.ROWS_IDENTICAL),
    ("DELETE FROM ledger.transfers WHERE id = 1", Promise.ROWS_IDENTICAL),
    ("DROP TABLE audit.changes", Promise.ROWS_IDENTICAL),
    ("SELECT setval('shop.invoice_number', 100000)", Promise.SEQUENCES_GO_FORWARD),
    ("ALTER SEQUENCE audit.changes_id_seq RESTART", Promise.SEQUENCES_GO_FORWARD),
    ("DROP SEQUENCE shop.invoice_number CASCADE", Promise.SEQUENCES_GO_FORWARD),
]


@pytest.mark.parametrize(("statement", "promise"), DIFFERENCES, ids=[sql[:32] for sql, _ in DIFFERENCES])
def test_a_difference_is_found(pair: tuple[str, str], statement: str, promise: Promise) -> None:
    with psycopg.connect(pair[1]) as connection:
        connection.execute(statement.encode())
    breaches = compare_databases(*pair).breaches
    assert promise in {breach.promise for breach in breaches}
    if "DROP TABLE" not in statement:  # which takes its sequence with it
        assert len(breaches) == 1
        assert breaches[0].count >= 1
