"""The tracker's tests run on the reference and on the compiled version."""

import importlib

import pytest

from verdigris.wire.postgres import session

TRACKERS = ("session", "_tracker")


@pytest.fixture(params=TRACKERS)
def tracker_class(request: pytest.FixtureRequest) -> type[session.SessionTracker]:
    try:
        module = importlib.import_module(f"verdigris.wire.postgres.{request.param}")
    except ImportError:
        pytest.skip("not compiled here")
    found: type[session.SessionTracker] = module.SessionTracker
    return found
