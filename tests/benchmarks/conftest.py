"""What the benchmarks do to the process is undone for the tests that come after them."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Benchmarks hush the log, which other tests read."""
    yield
    structlog.reset_defaults()
