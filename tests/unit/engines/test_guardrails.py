"""The registry of guardrails, and what becomes of a finding."""

import re

import pytest

from tests.unit.engines import guardrails_page
from verdigris.engines.postgres.guardrails.model import Extent, Guardrail, Moment, Side, listed
from verdigris.engines.postgres.guardrails.registry import GUARDRAILS
from verdigris.engines.postgres.lag import NOTHING_BYTES, SHARE_OF_TIMEOUT, Lag
from verdigris.engines.postgres.sessions import Database


def test_the_page_is_what_the_registry_says() -> None:
    assert guardrails_page.PAGE.read_text() == guardrails_page.render(), (
        "write it anew: uv run python -m tests.unit.engines.guardrails_page"
    )


def test_names_are_unique() -> None:
    names = [guardrail.name for guardrail in GUARDRAILS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("guardrail", GUARDRAILS, ids=lambda guardrail: guardrail.name)
def test_every_guardrail_says_all_there_is_to_say(guardrail: Guardrail) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", guardrail.name)
    assert guardrail.remedy.endswith(".")
    assert not guardrail.complaint.endswith(".")
    assert guardrail.complaint[0].islower() or guardrail.complaint.startswith("DDL")
    assert guardrail.why.endswith(".")
    assert guardrail.threshold
    assert guardrail.modes
    # There is no green yet when one is to be made; behind the fence only sessions that are open already are used.
    assert guardrail.side is Side.BLUE or Moment.CREATION not in guardrail.moments
    assert guardrail.extent is not Extent.PAIR or not guardrail.moments & (Moment.FENCED | Moment.STANDING)


def test_a_finding_tells_what_where_and_what_to_do() -> None:
    guardrail = next(g for g in GUARDRAILS if g.name == "incomparable-identity")
    finding = guardrail.finding(["a", "b"], Database("app", 5))
    assert str(finding).startswith(
        "Unsupported PostgreSQL changes (incomparable-identity): Database app: tables with REPLICA IDENTITY FULL and"
        " columns of a type that has no equality: a, b. Add a primary key"
    )
    assert listed([str(n) for n in range(25)]).endswith("18, 19 and 5 more")


def test_lag_is_judged_by_what_the_deadline_leaves() -> None:
    behind = NOTHING_BYTES * 10
    assert Lag(bytes=behind).too_far(0.0) is None  # not measured: it was little when it was looked at
    # Ten times what it gains in a second.
    steady = Lag(bytes=behind, gained_bytes=NOTHING_BYTES * 2, seconds=2.0)
    assert steady.too_far(10 / SHARE_OF_TIMEOUT) is None
    told = steady.too_far(9 / SHARE_OF_TIMEOUT)
    assert told is not None
    assert "160 MiB behind" in told
    assert "gaining 16.0 MiB a second on blue it needs 10 s" in told
    standing = Lag(bytes=behind, gained_bytes=0, seconds=3.0).too_far(3600)
    assert standing == "160 MiB behind, and no nearer after 3.0 s"
