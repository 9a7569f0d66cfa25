"""Every kind of session through one switchover from 17 to 18 under load, by bytes and by drivers: each goes on, on the
same connection, as if nothing had happened."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.installation import installation
from tests.matrix.case import CASES, Case
from tests.matrix.stage import BLUE, GREEN, Stage, stage

# A module puts its cases into the list as it is imported.
for path in sorted(Path(__file__).parent.glob("[dr]*_*.py")):
    importlib.import_module(f"tests.matrix.{path.stem}")

# All that takes long is the scenario, which belongs to whichever test comes first.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def played() -> Iterator[Stage]:
    with installation() as verdigris, stage(verdigris) as made:
        made.prepare()
        made.play(CASES)
        yield made


@pytest.mark.parametrize("case", CASES, ids=str)
def test_session_goes_on(played: Stage, case: Case) -> None:
    played.finish(case)


def test_load_lost_nothing(played: Stage) -> None:
    assert played.load.errors() == []
    assert played.load.versions() == [[BLUE, GREEN]] * len(played.load.clients)
    with played.connect() as connection:
        rows = connection.execute("SELECT by, n FROM written WHERE by LIKE 'client %'").fetchall()
    assert len(rows) == len(set(rows))
    assert set(rows) == played.load.acknowledged()
