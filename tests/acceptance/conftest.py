"""A Verdigris of its own for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation


@pytest.fixture
def verdigris(verdigris_home: Path) -> Iterator[Installation]:
    installation = Installation(verdigris_home)
    try:
        installation.start()
        yield installation
    finally:
        installation.remove()
