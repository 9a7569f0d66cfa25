"""A Verdigris of its own for each tool."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.installation import Installation, installation


@pytest.fixture
def verdigris(verdigris_home: Path) -> Iterator[Installation]:
    with installation(home=verdigris_home) as made:
        yield made
