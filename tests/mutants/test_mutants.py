"""That every mutant can still be planted, and a few of the quick ones are caught. All: ``python -m tests.mutants``."""

import pytest

from tests.mutants.catalogue import MUTANTS, UNDISTURBED, Mutant
from tests.mutants.plant import NotFound, mutated, run

IN_EVERY_RUN = [mutant for mutant in MUTANTS if mutant.suites == (UNDISTURBED,)][:3]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_can_be_planted(mutant: Mutant) -> None:
    assert mutated(mutant)


def test_names_are_distinct() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 20


def test_text_that_is_gone_is_noticed() -> None:
    gone = Mutant(name="gone", file="domain/errors.py", old="no such text", new="", suites=())
    with pytest.raises(NotFound):
        mutated(gone)


def test_the_product_as_it_is_passes() -> None:
    assert not run("as it is", [UNDISTURBED], None).caught


@pytest.mark.parametrize("mutant", IN_EVERY_RUN, ids=lambda mutant: mutant.name)
def test_it_is_caught(mutant: Mutant) -> None:
    assert run(mutant.name, mutant.suites, mutant).caught
