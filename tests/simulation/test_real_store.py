"""The same runs on the product's own store: SQLite takes the same course as the store in memory, point by point."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.simulation.campaign import job_of, quiet
from tests.simulation.run import simulate
from tests.simulation.scenario import Scenario
from tests.simulation.scenarios import SCENARIOS
from verdigris.store import SqlStore, open_store, schema, sqlite_url
from verdigris.store.database import create_engine

SEEDS = range(1, 41)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    url = sqlite_url(tmp_path / "state.db")
    open_store(url).close()  # made and migrated
    engine = create_engine(url)
    sa.event.listen(engine, "connect", _without_fsync)
    yield engine
    engine.dispose()


def _without_fsync(connection: Any, _record: Any) -> None:
    """The machine is not going to lose its power; only processes die here."""
    connection.execute("PRAGMA synchronous=OFF")


def _emptied(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for table in reversed(schema.metadata.sorted_tables):  # those that refer to others first
            if table is not schema.epoch:
                connection.execute(sa.delete(table))
        connection.execute(sa.update(schema.epoch).values(epoch=0))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_undisturbed(engine: sa.Engine, scenario: Scenario) -> None:
    with quiet():
        there = simulate(scenario, open_store=lambda _: SqlStore(engine))
        here = simulate(scenario)
    assert there.violation is None
    assert (there.outcome, there.points) == (here.outcome, here.points)


def test_with_faults(engine: sa.Engine) -> None:
    with quiet():
        for number in SEEDS:
            scenario, plan, seed = job_of(number)
            _emptied(engine)
            there = simulate(scenario, plan, seed, open_store=lambda _: SqlStore(engine))
            here = simulate(scenario, plan, seed)
            assert there.violation is None, f"--seed {number}"
            assert (there.outcome, there.points) == (here.outcome, here.points), f"--seed {number}"
