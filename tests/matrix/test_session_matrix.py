"""Every kind of session through one switchover from 17 to 18 under load, by bytes and by drivers: each goes on, on the
same connection, as if nothing had happened."""

from collections.abc import Iterator

import pytest

from tests.acceptance.installation import installation
from tests.matrix import (
    rows_connections,
    rows_locks,
    rows_notifications,
    rows_settings,
    rows_statements,
    rows_temporary,
    rows_transactions,
)
from tests.matrix.case import CASES, Case
from tests.matrix.stage import BLUE, GREEN, Stage, stage

# Importing them has put their cases into the list.
ROWS = (
    rows_connections,
    rows_locks,
    rows_notifications,
    rows_settings,
    rows_statements,
    rows_temporary,
    rows_transactions,
)


@pytest.fixture(scope="module")
def played() -> Iterator[Stage]:
    with installation(port_range="17000-17199") as verdigris, stage(verdigris) as made:
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
