from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.rds.world import World
from tests.unit.stores import new_store


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store = new_store(tmp_path / "state.db")
    yield World(store)
    store.close()
