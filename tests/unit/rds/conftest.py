import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.rds.world import World
from verdigris.store import open_store, sqlite_url


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Migrated once: a copy per test is quicker than hundreds of migrations."""
    path = tmp_path_factory.mktemp("store") / "state.db"
    open_store(sqlite_url(path)).close()
    return path


@pytest.fixture
def world(tmp_path: Path, empty_database: Path) -> Iterator[World]:
    path = tmp_path / "state.db"
    shutil.copy(empty_database, path)
    store = open_store(sqlite_url(path))
    yield World(store)
    store.close()
